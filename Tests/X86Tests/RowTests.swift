import Testing
import MonitorTesting

@testable import X86

/// Every row of the tables, from encodings that `RowEncoder` makes without the decoder's help.
@Suite struct RowTests {
    @Test(arguments: CodeMode.allCases)
    func everyRowDecodesFromItsEncodings(mode: CodeMode) throws {
        var random = SeededRandom(seed: 0x57_494E_4448)
        var rows = 0
        for row in RowID.all where row.isValid(in: mode) {
            var encoder = try #require(RowEncoder(row, mode: mode), "no encoding of \(describe(row)) in \(mode)")
            rows += 1
            for round in 0..<24 {
                encoder.allowsRedundantPrefixes = round % 3 == 2
                let encoding = encoder.encode(using: &random)
                guard encoding.bytes.count <= Decoder.longestInstruction else { continue }
                let problem = check(encoding, of: row, mode: mode, using: &random)
                #expect(problem == nil, "\(describe(row)) in \(mode), \(hex(encoding.bytes)): \(problem ?? "")")
                if problem != nil { break }
            }
        }
        #expect(rows > 1000)
    }

    /// A row is in some mode, and rows that share one opcode share no encoding: the order of a table means nothing.
    @Test func noTwoRowsMatchTheSameBytes() {
        let rows = RowID.all
        var places: [Int: [RowID]] = [:]
        for id in rows {
            #expect(CodeMode.allCases.contains { id.isValid(in: $0) }, "\(describe(id)) is in no mode")
            let last = id.namesRegisterInOpcode ? id.opcode | 7 : id.opcode
            for opcode in id.opcode...last { places[Int(id.map.rawValue) << 8 | Int(opcode), default: []].append(id) }
        }
        let contexts = Dictionary(grouping: OpcodeMap.allCases, by: \.isVEX).mapValues { possibleContexts($0[0]) }
        for (_, ids) in places {
            for (position, first) in ids.enumerated() {
                for second in ids[(position + 1)...] {
                    let a = first.row.match, b = second.row.match
                    let both = a.mask & b.mask
                    guard (a.value ^ b.value) & both == 0 else { continue }
                    // The words agree: only an impossible combination of facts can still keep the rows apart.
                    let shared = contexts[first.map.isVEX]?.contains { context in
                        context & (a.mask & ~0x7F) == a.value & ~0x7F && context & (b.mask & ~0x7F) == b.value & ~0x7F
                    }
                    #expect(shared == false, "\(describe(first)) and \(describe(second)) overlap")
                }
            }
        }
    }

    /// Every combination of mode and prefixes, as the decoder's context words.
    private func possibleContexts(_ map: OpcodeMap) -> Set<UInt32> {
        var contexts: Set<UInt32> = []
        for mode in CodeMode.allCases {
            for bits in 0..<128 {
                let p66 = bits & 1 != 0, p67 = bits & 2 != 0, w = bits & 4 != 0, l = bits & 8 != 0, rexB = bits & 16 != 0
                let rep = bits >> 5
                let wideGivenByREX = !map.isVEX && mode != .bits64
                if rep == 3 || wideGivenByREX && w || l && !map.isVEX || rexB && mode != .bits64 { continue }
                if map.isVEX, p66, rep != 0 { continue }
                var context: UInt32 = 0
                if p66 { context |= Match.Bit.p66 }
                if rep == 1 { context |= Match.Bit.f3 }
                if rep == 2 { context |= Match.Bit.f2 }
                if mode == .bits64 { context |= Match.Bit.mode64 }
                let short = mode == .bits16 ? !p66 : p66 && !(w && mode == .bits64)
                if short, !map.isVEX { context |= Match.Bit.o16 }
                if w { context |= Match.Bit.w }
                if w, mode == .bits64 { context |= Match.Bit.y }
                if l { context |= Match.Bit.l }
                if mode == .bits16 ? !p67 : mode == .bits32 && p67 { context |= Match.Bit.a16 }
                if mode == .bits64, !p67 { context |= Match.Bit.a64 }
                if rexB { context |= Match.Bit.rexB }
                contexts.insert(context)
            }
        }
        return contexts
    }

    /// What is wrong with the decoded form of `encoding`, or nil.
    private func check(
        _ encoding: RowEncoder.Encoding, of row: RowID, mode: CodeMode, using random: inout SeededRandom
    ) -> String? {
        let bytes = encoding.bytes
        let instruction: Instruction
        do {
            instruction = try Decoder.decode((bytes + [0xCC, 0xCC]).span, mode: mode)
        } catch { return "\(error)" }
        guard instruction.row == row else { return "is row \(describe(instruction.row))" }
        guard Int(instruction.length) == bytes.count else { return "length \(instruction.length)" }
        guard instruction.mnemonic == row.mnemonic, instruction.mode == mode else { return "mnemonic or mode" }
        if Int(instruction.operandSize) != encoding.operandSize { return "operand size \(instruction.operandSize)" }
        if Int(instruction.addressSize) != encoding.addressSize { return "address size \(instruction.addressSize)" }
        if instruction.prefixes.contains(.lock) != encoding.hasLock { return "LOCK" }
        if instruction.prefixes.contains(.rex) != (encoding.rex != 0) { return "REX" }
        if instruction.prefixes.contains(.vex) != row.map.isVEX { return "VEX" }
        let lastRep = encoding.prefixes.last { $0 & 0xFE == 0xF2 }
        if instruction.prefixes.contains(.rep) != (lastRep == 0xF3) { return "REP" }
        if instruction.prefixes.contains(.repne) != (lastRep == 0xF2) { return "REPNE" }
        if let problem = checkMemory(instruction, encoding, mode) { return problem }

        // Truncated anywhere, it asks for more; with no more than its own bytes, it is the same.
        for count in 0..<bytes.count {
            do {
                let short = try Decoder.decode(bytes[0..<count].span, mode: mode)
                return "decodes from \(count) bytes, as \(Disassembler.text(short, at: 0))"
            } catch {
                if error != .truncated { return "\(error) from \(count) bytes" }
            }
        }
        guard (try? Decoder.decode(bytes.span, mode: mode)) == instruction else { return "differs at the end of the bytes" }

        let specs = [row.row.operand0, row.row.operand1, row.row.operand2, row.row.operand3]
        var immediates = encoding.immediates[...]
        for (position, spec) in specs.enumerated() {
            if spec.source == .none {
                return instruction.operandCount == position ? nil : "operand count \(instruction.operandCount)"
            }
            if let problem = checkOperand(position, spec, instruction, encoding, &immediates) {
                return "operand \(position): \(problem)"
            }
        }
        return nil
    }

    private func checkMemory(_ instruction: Instruction, _ encoding: RowEncoder.Encoding, _ mode: CodeMode) -> String? {
        let long = mode == .bits64
        let overrides = encoding.prefixes.filter { long ? $0 & 0xFE == 0x64 : [0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65].contains($0) }
        if instruction.prefixes.contains(.segment) != !overrides.isEmpty { return "segment prefix" }
        let named: [UInt8: Register] = [0x26: .es, 0x2E: .cs, 0x36: .ss, 0x3E: .ds, 0x64: .fs, 0x65: .gs]
        if let last = overrides.last, instruction.segment != named[last] { return "segment \(instruction.segment)" }
        if encoding.displacementSize > 0 {
            if Int(instruction.displacementOffset) != encoding.displacementOffset { return "displacement offset" }
            let value = integer(encoding.bytes, encoding.displacementOffset, encoding.displacementSize)
            let signed = encoding.hasMemory ? signExtended(value, encoding.displacementSize) : value
            if UInt64(bitPattern: instruction.displacement) != signed { return "displacement" }
        }
        guard encoding.hasMemory, let modRM = encoding.modRM else { return nil }
        let rm = modRM & 7, mod = modRM >> 6
        var base = Register.none, index = Register.none, scale: UInt8 = 1
        if encoding.addressSize == 2 {
            let pairs: [(UInt8?, UInt8?)] = [(3, 6), (3, 7), (5, 6), (5, 7), (nil, 6), (nil, 7), (5, nil), (3, nil)]
            var (first, second) = pairs[Int(rm)]
            if first == nil { (first, second) = (second, nil) }
            if mod == 0, rm == 6 { (first, second) = (nil, nil) }
            base = first.map { Register(.general16, $0) } ?? .none
            index = second.map { Register(.general16, $0) } ?? .none
        } else {
            let width: Register.Class = encoding.addressSize == 8 ? .general64 : .general32
            if let sib = encoding.sib {
                let number = sib >> 3 & 7 | (encoding.rexX ? 8 : 0)
                scale = 1 << (sib >> 6)
                if row(instruction).traits.contains(.vsib.vsibHalf) {
                    index = Register(instruction.index.registerClass, number)
                    if index.registerClass != .xmm, index.registerClass != .ymm { return "vector index" }
                } else if number != 4 {
                    index = Register(width, number)
                }
                if sib & 7 != 5 || mod != 0 { base = Register(width, sib & 7 | (encoding.rexB ? 8 : 0)) }
            } else if rm == 5, mod == 0 {
                if long { base = Register(.instructionPointer, encoding.addressSize == 8 ? 2 : 1) }
            } else {
                base = Register(width, rm | (encoding.rexB ? 8 : 0))
            }
        }
        guard instruction.base == base else { return "base \(instruction.base), not \(base)" }
        guard instruction.index == index else { return "index \(instruction.index), not \(index)" }
        if index != .none, instruction.scale != scale { return "scale \(instruction.scale)" }
        if overrides.isEmpty {
            let stack = base.registerClass != .instructionPointer && (base.number == 5 || base.number == 4) && base != .none
            if instruction.segment != (stack ? .ss : .ds) { return "default segment \(instruction.segment)" }
        }
        return nil
    }

    private func row(_ instruction: Instruction) -> Row { instruction.row.row }

    private func checkOperand(
        _ position: Int, _ spec: OperandSpec, _ instruction: Instruction, _ encoding: RowEncoder.Encoding,
        _ immediates: inout ArraySlice<(offset: Int, size: Int)>
    ) -> String? {
        let kind = instruction.kind(position)
        let long = instruction.mode == .bits64
        switch spec.source {
        case .none: return "unexpected"
        case .rm where encoding.hasMemory: return kind == .memory ? nil : "\(kind)"
        case .moffs, .translate: return kind == .memory ? nil : "\(kind)"
        case .rm, .reg, .opcode, .fixed, .vvvv, .is4:
            guard kind == .register else { return "\(kind)" }
            let modRM = encoding.modRM ?? 0
            var number: UInt8
            switch spec.source {
            case .rm: number = modRM & 7 | (encoding.rexB ? 8 : 0)
            case .reg: number = modRM >> 3 & 7 | (encoding.rexR ? 8 : 0)
            case .opcode: number = encoding.opcodeRegister | (encoding.rexB ? 8 : 0)
            case .vvvv: number = encoding.vvvv
            case .is4:
                guard let place = immediates.popFirst() else { return "no byte" }
                number = encoding.bytes[place.offset] >> 4 & (long ? 15 : 7)
            default: number = spec.number
            }
            let register = instruction.register(position)
            let allowed: [Register.Class]
            switch spec.file {
            case .general:
                if register.registerClass == .high8 {
                    guard encoding.rex == 0, number >= 4, number < 8 else { return "\(register)" }
                    number &= 3
                }
                allowed = [.low8, .high8, .general16, .general32, .general64]
                let sizes: [Register.Class: Int] = [.low8: 1, .high8: 1, .general16: 2, .general32: 4, .general64: 8]
                if sizes[register.registerClass] != instruction.size(position) { return "size of \(register)" }
                if spec.size == .b, encoding.rex == 0, spec.source != .fixed, number >= 4, number < 8, register.registerClass == .low8,
                    instruction.prefixes.isDisjoint(with: .vex)
                {
                    return "\(register) without REX"
                }
            case .segment: (allowed, number) = ([.segment], number & 7)
            case .control: allowed = [.control]
            case .debug: allowed = [.debug]
            case .x87: (allowed, number) = ([.x87], number & 7)
            case .mmx: (allowed, number) = ([.mmx], number & 7)
            case .vector: allowed = [.xmm, .ymm]
            }
            guard allowed.contains(register.registerClass), register.number == number else { return "\(register), not number \(number)" }
            return nil
        case .immediate:
            guard let place = immediates.popFirst() else { return "no byte" }
            let value = integer(encoding.bytes, place.offset, place.size)
            if kind == .secondImmediate { return UInt64(instruction.secondImmediate) == value ? nil : "second immediate" }
            guard kind == .immediate, Int(instruction.immediateOffset) == place.offset else { return "\(kind) or its place" }
            var wanted = value
            if spec.size != .b, spec.size != .w {
                wanted = signExtended(value, place.size)
                if encoding.operandSize < 8 { wanted &= 1 << UInt64(encoding.operandSize * 8) - 1 }
            }
            return instruction.immediate == wanted ? nil : "immediate"
        case .one: return kind == .immediate && instruction.immediate == 1 ? nil : "\(kind)"
        case .relative:
            guard let place = immediates.popFirst(), kind == .relative else { return "\(kind)" }
            let distance = signExtended(integer(encoding.bytes, place.offset, place.size), place.size)
            let wide = 0x1234_5678_9ABC &+ UInt64(encoding.bytes.count) &+ distance
            let target = encoding.operandSize == 8 ? wide : wide & (1 << UInt64(encoding.operandSize * 8) - 1)
            return instruction.branchTarget(at: 0x1234_5678_9ABC) == target ? nil : "target"
        case .far:
            guard let place = immediates.popFirst(), kind == .farPointer else { return "\(kind)" }
            let value = integer(encoding.bytes, place.offset, place.size)
            let bits = UInt64((place.size - 2) * 8)
            return instruction.immediate == value & (1 << bits - 1) && UInt64(instruction.secondImmediate) == value >> bits
                ? nil : "far pointer"
        case .stringSource: return kind == .stringSource ? nil : "\(kind)"
        case .stringDestination: return kind == .stringDestination ? nil : "\(kind)"
        }
    }
}

func integer(_ bytes: [UInt8], _ offset: Int, _ size: Int) -> UInt64 {
    (0..<size).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64($1 * 8) }
}

func signExtended(_ value: UInt64, _ size: Int) -> UInt64 {
    let shift = UInt64(64 - size * 8)
    return UInt64(bitPattern: Int64(bitPattern: value << shift) >> Int64(shift))
}

func hex(_ bytes: some Sequence<UInt8>) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: " ")
}

func describe(_ id: RowID) -> String { "\(id.mnemonic.name) (\(id.map) \(String(id.opcode, radix: 16)), row \(id.rawValue))" }
