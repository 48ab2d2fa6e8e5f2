package import X86

/// What is compared with the host's processor.
package protocol DifferentialSubject: AnyObject {
    /// Executes one case and writes its outcome: registers, memory, and in `vector` the exception or
    /// `Comparison.completed`.
    func execute(_ generated: GeneratedCase, _ input: CaseRecord, into outcome: CaseRecord)
    /// Whether the subject says that it has the feature; where not, all its rows must raise #UD.
    func has(_ feature: Feature) -> Bool
    func setReadOnly(_ bytes: [UInt8])
}

/// Runs cases on the host's processor and on a subject, and reports where they differ.
package final class DifferentialRunner {
    package struct Mismatch: Sendable {
        package let row: RowID
        package let text: String
    }

    package struct Report: Sendable {
        package var cases = 0
        package var faults = 0
        /// How many of the cases have several instructions.
        package var sequences = 0
        package var compatibilityCases = 0
        /// How many cases each row had.
        package var perRow: [Int]
        package var mismatches: [Mismatch] = []
        package var mismatchCount = 0
        package var perMnemonic: [String: Int] = [:]
        /// Cases of rows whose feature the subject does not have, by feature.
        package var unadvertised: [String: Int] = [:]
        package var lost: [String] = []
        package init() { perRow = [Int](repeating: 0, count: RowID.bound) }

        package var summary: String {
            let rows = perRow.count { $0 > 0 }
            var text = "\(cases) cases of \(rows) rows, \(compatibilityCases) in 32-bit code, \(sequences) sequences, \(faults) faults; \(mismatchCount) differ"
            let excluded = Dictionary(grouping: RowID.all.filter { Exclusions.reason(for: $0) != nil }) { Exclusions.reason(for: $0) ?? "" }
            for (reason, rows) in excluded.sorted(by: { $0.key < $1.key }) {
                text += "\n  not tested, as it \(reason): \(Set(rows.map(\.mnemonic.name)).sorted().joined(separator: " "))"
            }
            if !unadvertised.isEmpty {
                text += "\n  #UD, as CPUID does not tell of them: "
                text += unadvertised.sorted { $0.key < $1.key }.map { "\($0.key) (\($0.value) cases)" }.joined(separator: ", ")
            }
            return text
        }

        /// The mismatches: first how many by mnemonic, then the cases.
        package var told: String {
            let counts = perMnemonic.sorted { $0.value > $1.value }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
            return counts + "\n" + mismatches.map(\.text).joined(separator: "\n")
        }
    }

    private let native: NativeCPU
    private let subject: any DifferentialSubject
    private var generator: CaseGenerator
    private let inputs = CaseBuffer(count: Sandbox.slots)
    private let outcome = CaseBuffer(count: 1)
    package private(set) var report = Report()
    /// Mismatches that are told in full, for each row.
    package var examplesPerRow = 2

    package init(seed: UInt64, subject: any DifferentialSubject) throws {
        native = try NativeCPU()
        self.subject = subject
        generator = CaseGenerator(seed: seed)
        native.setReadOnly(generator.readOnlyPage)
        subject.setReadOnly(generator.readOnlyPage)
    }

    /// Rows that cases are made of, in each mode that has them: 64-bit code, and 32-bit code in compatibility mode.
    package static func plan(has: (Feature) -> Bool) -> [(row: RowID, mode: CodeMode)] {
        var plan: [(RowID, CodeMode)] = []
        for row in RowID.all where Exclusions.reason(for: row) == nil {
            if row.isValid(in: .bits64) { plan.append((row, .bits64)) }
            if row.isValid(in: .bits32) { plan.append((row, .bits32)) }
        }
        return plan
    }

    /// Runs `count` cases, spread over the rows of `plan`.
    package func run(_ count: Int, plan: [(row: RowID, mode: CodeMode)]) throws {
        guard !plan.isEmpty else { return }
        var done = 0
        var next = 0
        while done < count {
            var batch: [GeneratedCase] = []
            while batch.count < min(Sandbox.slots, count &- done) {
                let (row, mode) = plan[next % plan.count]
                next &+= 1
                let input = inputs[batch.count]
                var made: GeneratedCase?
                for _ in 0..<64 where made == nil { made = generator.generate(row, mode: mode, into: input) }
                guard let made else { continue }
                batch.append(made)
                native[batch.count &- 1].copy(from: input)
            }
            try runBatch(batch)
            done &+= batch.count
        }
    }

    /// Runs `count` sequences, of which one in four is 32-bit code.
    package func runSequences(_ count: Int, of rows: SequenceRows) throws {
        var done = 0
        while done < count {
            var batch: [GeneratedCase] = []
            while batch.count < min(Sandbox.slots, count &- done) {
                let input = inputs[batch.count]
                let mode = generator.random.below(4) == 0 ? CodeMode.bits32 : .bits64
                guard let made = generator.generateSequence(of: rows, mode: mode, into: input) else { continue }
                batch.append(made)
                native[batch.count &- 1].copy(from: input)
            }
            try runBatch(batch)
            report.sequences &+= batch.count
            done &+= batch.count
        }
    }

    private func runBatch(_ batch: [GeneratedCase]) throws {
        do { try native.run(count: batch.count) } catch {
            guard case .lost(let position, _) = error, position < batch.count else { throw error }
            // The child is made anew; the case is told, and the rest of its batch is let go.
            report.lost.append("\(error): \(describe(batch[position], inputs[position]))")
            return
        }
        for (position, generated) in batch.enumerated() {
            let input = inputs[position], result = native[position], software = outcome[0]
            report.cases &+= 1
            if generated.instruction.mode != .bits64 { report.compatibilityCases &+= 1 }
            report.perRow[Int(generated.row.rawValue)] &+= 1
            subject.execute(generated, input, into: software)
            guard subject.has(generated.row.feature) else {
                // What is not advertised is not there.
                report.unadvertised["\(generated.row.feature)", default: 0] &+= 1
                if software.vector != 6, !generated.row.isPrivileged {
                    mismatch(generated, input, result, software, ["feature \(generated.row.feature) is not advertised, yet no #UD"])
                }
                continue
            }
            Comparison.normalise(result, of: generated, input: input)
            if result.vector != Comparison.completed { report.faults &+= 1 }
            let differences = generated.comparison.differences(native: result, software: software, of: generated)
            if !differences.isEmpty { mismatch(generated, input, result, software, differences) }
        }
    }

    // MARK: Telling

    private func mismatch(
        _ generated: GeneratedCase, _ input: CaseRecord, _ native: CaseRecord, _ software: CaseRecord, _ differences: [String]
    ) {
        report.mismatchCount &+= 1
        report.perMnemonic[generated.row.mnemonic.name, default: 0] &+= 1
        guard report.mismatches.count(where: { $0.row == generated.row }) < examplesPerRow else { return }
        var text = describe(generated, input)
        for difference in differences { text += "\n    " + difference }
        let outcome = native.vector == Comparison.completed ? "completed" : "exception \(native.vector)"
        text += "\n  native: \(outcome)"
        report.mismatches.append(Mismatch(row: generated.row, text: text))
    }

    /// Bytes, text and inputs: what is needed to see the case again.
    private func describe(_ generated: GeneratedCase, _ input: CaseRecord) -> String {
        let instruction = generated.instruction
        let code = input.code
        let bytes = (generated.isSequence ? code[...] : code.prefix(Int(instruction.length))).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }
        var text = "\(bytes.joined(separator: " "))"
        var offset = 0
        repeat {
            let rest = Array(code[offset...])
            guard let next = try? Decoder.decode(rest.span, mode: instruction.mode) else { break }
            text += "  \(Disassembler.text(next, at: input.rip &+ UInt64(offset)))"
            offset += Int(next.length)
        } while generated.isSequence && offset < code.count
        text += "  (row \(generated.row.rawValue), \(instruction.mode))\n  in: RIP \(hexadecimal(input.rip)) RFLAGS \(hexadecimal(input.rflags))"
        for number in 0..<16 {
            text += " \(Register(.general64, UInt8(number)).description.uppercased()) \(hexadecimal(input[general: number]))"
        }
        text += " FS \(hexadecimal(input.fsBase)) GS \(hexadecimal(input.gsBase))"
        if let address = Comparison.effectiveAddress(instruction, input) {
            text += "\n  operand at \(hexadecimal(address)):"
            for position in 0..<UInt64(16) { text += " " + (input.peek(address &+ position).map { String($0, radix: 16) } ?? "--") }
        }
        if generated.row.unit != .integer {
            text += "\n  FCW \(hexadecimal(UInt64(input.loadFX(0, as: UInt16.self)))) FSW \(hexadecimal(UInt64(input.loadFX(2, as: UInt16.self))))"
            text += " FTW \(hexadecimal(UInt64(input.loadFX(4, as: UInt8.self)))) MXCSR \(hexadecimal(UInt64(input.loadFX(24, as: UInt32.self))))"
            for position in 0..<instruction.operandCount where instruction.kind(position) == .register {
                let register = instruction.register(position)
                var offset = 0
                switch register.registerClass {
                case .xmm: offset = 160 &+ Int(register.number) &* 16
                case .mmx, .x87: offset = 32 &+ Int(register.number) &* 16
                default: continue
                }
                text += "\n  \(register) \(hexadecimal(input.loadFX(offset &+ 8))) \(hexadecimal(input.loadFX(offset)))"
            }
        }
        return text
    }
}
