package import X86

/// Makes cases: an instruction of a row, in surroundings where it has something to do.
///
/// Everything is drawn from one seeded source, so that a seed repeats a run. Operands are aimed at the sandbox: inside a
/// page, over the edge between two, over the edge to a read-only or to no page, at no page, outside the canonical
/// addresses; most cases complete, about one in five faults.
package struct CaseGenerator {
    package var random: SeededRandom
    let template: [UInt8]
    package let readOnlyPage: [UInt8]
    private var encoders: [[RowEncoder?]]

    package init(seed: UInt64) {
        random = SeededRandom(seed: seed)
        var template: [UInt8] = [], readOnly: [UInt8] = []
        for _ in 0..<3 * 512 { random.next().appendBytes(to: &template) }
        for _ in 0..<512 { random.next().appendBytes(to: &readOnly) }
        self.template = template
        readOnlyPage = readOnly
        encoders = [CodeMode.bits32, .bits64].map { mode in
            var byRow = [RowEncoder?](repeating: nil, count: RowID.bound)
            for row in RowID.all { byRow[Int(row.rawValue)] = RowEncoder(row, mode: mode) }
            return byRow
        }
    }

    /// Fills `record` with a case of `row`.
    /// - Returns: nil where a draw gave an encoding that `Exclusions` keeps out; draw again.
    package mutating func generate(_ row: RowID, mode: CodeMode, into record: CaseRecord) -> GeneratedCase? {
        guard var draft = draft(of: row, mode: mode, into: record) else { return nil }
        fillRegisters(draft)
        fillFloatingPoint(draft)
        fillMemory(record)

        // The instruction's place: sometimes its last byte is the page's last, so that a byte too many read is a fault.
        let length = draft.bytes.count
        let needsBreakpoint = row.isRepeatable || !row.isBranch && random.oneIn(2) || Exclusions.showsTrapFlag(row)
        draft.usesBreakpoint = needsBreakpoint
        let offset = needsBreakpoint || random.below(5) != 0 ? random.below(4096 - 48) : 4096 - length
        // Operands may be relative to it.
        record.rip = Sandbox.code &+ UInt64(offset)

        aimOperands(&draft)
        guard let final = try? Decoder.decode(draft.bytes.span, mode: mode), final.row == row else { return nil }
        let code = draft.usesBreakpoint ? draft.bytes + [0xCC] : draft.bytes
        record.begin(code, at: offset, mode: mode, usesBreakpoint: draft.usesBreakpoint)
        return GeneratedCase(
            row: row, instruction: final, usesBreakpoint: draft.usesBreakpoint, isSequence: false,
            comparison: Comparison(final, record))
    }

    /// Some encoding of `row`; nil where there is none in this mode.
    mutating func encode(_ row: RowID, mode: CodeMode) -> RowEncoder.Encoding? {
        guard var encoder = encoders[mode == .bits64 ? 1 : 0][Int(row.rawValue)] else { return nil }
        encoder.allowsRedundantPrefixes = random.oneIn(12)
        return encoder.encode(using: &random)
    }

    mutating func draft(of row: RowID, mode: CodeMode, into record: CaseRecord) -> Draft? {
        guard let encoding = encode(row, mode: mode), encoding.bytes.count <= Decoder.longestInstruction,
            Exclusions.reason(for: row) == nil, let instruction = try? Decoder.decode(encoding.bytes.span, mode: mode),
            Exclusions.allows(instruction)
        else { return nil }
        return Draft(row: row, mode: mode, encoding: encoding, instruction: instruction, record: record)
    }

    /// A case being made.
    struct Draft {
        let row: RowID
        let mode: CodeMode
        let encoding: RowEncoder.Encoding
        let instruction: Instruction
        let record: CaseRecord
        var bytes: [UInt8]
        var usesBreakpoint = false

        init(row: RowID, mode: CodeMode, encoding: RowEncoder.Encoding, instruction: Instruction, record: CaseRecord) {
            self.row = row
            self.mode = mode
            self.encoding = encoding
            self.instruction = instruction
            self.record = record
            bytes = encoding.bytes
        }

        mutating func patch(_ value: UInt64, at offset: Int, size: Int) {
            for position in 0..<size where offset &+ position < bytes.count {
                bytes[offset &+ position] = UInt8(truncatingIfNeeded: value &>> UInt64(position &* 8))
            }
        }
    }
}

/// A case and what is known of it.
package struct GeneratedCase {
    /// Of the first instruction, where there are several.
    package let row: RowID
    package let instruction: Instruction
    package let usesBreakpoint: Bool
    /// Several instructions, which end at an INT3 that is part of the outcome.
    package let isSequence: Bool
    package let comparison: Comparison
}

extension UInt64 {
    func appendBytes(to bytes: inout [UInt8]) {
        for position in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: self &>> UInt64(position &* 8))) }
    }
}
