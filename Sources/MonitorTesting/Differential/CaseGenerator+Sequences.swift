package import X86

/// Sequences: what a block makes of several instructions has to be what they do one after another.
///
/// ```
/// one to three instructions
/// branch over the next byte     in every other sequence
/// INT3
/// one or two instructions
/// INT3
/// ```
///
/// So flags are made in one block and read in the same, in the next, or nowhere, and comparisons stand before every kind
/// of branch. A sequence ends at an INT3 or with a fault; where is part of the outcome.
extension CaseGenerator {
    /// Fills `record` with a sequence.
    /// - Returns: nil where a draw has no defined outcome or does not fit; draw again.
    package mutating func generateSequence(of rows: SequenceRows, mode: CodeMode, into record: CaseRecord) -> GeneratedCase? {
        var flags = UndefinedFlags()
        var comparison: Comparison?
        var first: Instruction?
        var alignmentIsOpen = false
        var bytes: [UInt8] = []
        let hasBranch = random.oneIn(2)
        let before = 1 &+ random.below(3), after = 1 &+ random.below(2)
        let place = 1024 &+ random.below(2048)
        for position in 0..<before &+ after {
            if position == before, hasBranch {
                guard let row = rows.branch(mode, using: &random), let code = branch(row, mode: mode, over: 1), flags.allow(row) else { return nil }
                bytes += code + [0xCC]
            }
            guard let row = rows.any(mode, using: &random), flags.allow(row),
                var draft = draft(of: row, mode: mode, into: record)
            else { return nil }
            if first == nil {
                fillRegisters(draft)
                fillFloatingPoint(draft)
                fillMemory(record)
            }
            record.rip = Sandbox.code &+ UInt64(place &+ bytes.count)
            aimOperands(&draft)
            guard let instruction = try? Decoder.decode(draft.bytes.span, mode: mode), instruction.row == row,
                !SequenceRows.isLockedAccess(instruction)
            else { return nil }
            let own = Comparison(instruction, record)
            guard own.undefinedRegister == 16, !own.ignoresMemory, own.ignoredMemory.isEmpty else { return nil }
            flags.note(instruction)
            if comparison == nil {
                comparison = own
                first = instruction
            } else {
                alignmentIsOpen = alignmentIsOpen || own.alignmentIsOpen
            }
            bytes += draft.bytes
        }
        bytes.append(0xCC)
        guard bytes.count <= CaseRecord.longestCode, let first, var comparison else { return nil }
        comparison.flags = flags.defined
        if alignmentIsOpen { comparison.alignmentIsOpen = true }
        // Addresses come from results: what of them is wrong first is not foreseen.
        comparison.faultOrderIsOpen = true
        record.begin(bytes, at: place, mode: mode, usesBreakpoint: true)
        return GeneratedCase(row: first.row, instruction: first, usesBreakpoint: true, isSequence: true, comparison: comparison)
    }

    /// The relative branch `row` with `distance` for its displacement, which is what it ends with.
    private mutating func branch(_ row: RowID, mode: CodeMode, over distance: UInt8) -> [UInt8]? {
        guard let encoding = encode(row, mode: mode), let instruction = try? Decoder.decode(encoding.bytes.span, mode: mode),
            Exclusions.allows(instruction), instruction.operandCount == 1, instruction.kind(0) == .relative
        else { return nil }
        for size in [1, 2, 4] where size < encoding.bytes.count {
            var bytes = Array(encoding.bytes.dropLast(size))
            bytes += [distance] + [UInt8](repeating: 0, count: size &- 1)
            if let now = try? Decoder.decode(bytes.span, mode: mode), now.row == row, now.immediate == UInt64(distance) { return bytes }
        }
        return nil
    }
}

/// Flags that an instruction so far may have left undefined.
private struct UndefinedFlags {
    private var undefined: FlagSet = []
    /// Those that were so at some time: a sequence may end anywhere.
    private var ever: FlagSet = []

    /// Whether the row reads none that are undefined where it stands.
    func allow(_ row: RowID) -> Bool { row.flagsRead.isDisjoint(with: undefined) }

    mutating func note(_ instruction: Instruction) {
        let row = instruction.row
        let byRegister = instruction.operandCount > 0 && instruction.kind(instruction.operandCount &- 1) == .register
        switch row.mnemonic {
        case .shl, .shr, .sar, .rol, .ror, .rcl, .rcr:
            // A count of zero leaves all as it was, a large one CF undefined.
            undefined.formUnion(row.flagsUndefined)
            undefined.formUnion(byRegister ? [.cf, .of, .af] : [.of, .af])
            if instruction.kind(1) == .immediate, instruction.immediate & 31 >= UInt64(instruction.size(0) &* 8) { undefined.insert(.cf) }
        default:
            undefined.subtract(row.flagsWritten)
            undefined.formUnion(row.flagsUndefined)
        }
        ever.formUnion(undefined)
    }

    /// The bits of RFLAGS that are compared.
    var defined: UInt64 {
        let bits: [(FlagSet, UInt64)] = [(.cf, 1), (.pf, 4), (.af, 0x10), (.zf, 0x40), (.sf, 0x80), (.of, 0x800)]
        return bits.reduce(~(1 &<< 16)) { ever.contains($1.0) ? $0 & ~$1.1 : $0 }
    }
}

/// Rows that sequences are made of.
package struct SequenceRows {
    private var integer: [CodeMode: [[RowID]]] = [:]
    private var vector: [CodeMode: [[RowID]]] = [:]
    /// CMP, TEST, and what reads their flags.
    private var comparisons: [CodeMode: [[RowID]]] = [:]
    private var branches: [CodeMode: [RowID]] = [:]

    /// - Parameter has: whether the subject has the feature.
    package init(has: (Feature) -> Bool) {
        for mode in [CodeMode.bits32, .bits64] {
            let rows = RowID.all.filter { row in
                row.isValid(in: mode) && has(row.feature) && Exclusions.reason(for: row) == nil && !row.isPrivileged
            }
            branches[mode] = rows.filter { $0.isBranch && Self.isRelative($0) }
            let plain = rows.filter { !$0.isBranch && !$0.isRepeatable && !Exclusions.showsTrapFlag($0) && Self.isPlain($0) }
            func byMnemonic(_ unit: (RowID) -> Bool) -> [[RowID]] {
                Dictionary(grouping: plain.filter(unit)) { $0.mnemonic.name }.sorted { $0.key < $1.key }.map(\.value)
            }
            comparisons[mode] = byMnemonic { $0.mnemonic == .cmp || $0.mnemonic == .test || $0.unit == .integer && !$0.flagsRead.isEmpty }
            integer[mode] = byMnemonic { $0.unit == .integer }
            vector[mode] = byMnemonic { $0.unit == .sse }
        }
    }

    /// Each mnemonic is as likely as the next of its kind; comparisons are more so.
    func any(_ mode: CodeMode, using random: inout SeededRandom) -> RowID? {
        let kind = random.below(8)
        guard let groups = kind < 2 ? vector[mode] : kind < 5 ? comparisons[mode] : integer[mode], !groups.isEmpty else { return nil }
        let isComparison = kind >= 2 && kind < 5 && random.oneIn(3)
        let group = isComparison ? groups.first { $0.first?.mnemonic == (kind == 2 ? .test : .cmp) } ?? groups[0] : groups[random.below(groups.count)]
        return group[random.below(group.count)]
    }

    func branch(_ mode: CodeMode, using random: inout SeededRandom) -> RowID? {
        guard let rows = branches[mode], !rows.isEmpty else { return nil }
        return rows[random.below(rows.count)]
    }

    private static func isRelative(_ row: RowID) -> Bool {
        switch row.mnemonic {
        case .jmpf, .callf, .ret, .retf, .iret, .iretd, .iretq, .int, .int3, .int1, .into, .sysret, .sysexit: false
        default: true
        }
    }

    /// Neither a change of segments or of the trap flag, nor one with a result that is undefined.
    private static func isPlain(_ row: RowID) -> Bool {
        switch row.mnemonic {
        case .popf, .popfd, .popfq, .lss, .lds, .les, .shld, .shrd, .maskmovdqu, .fxsave, .fxsave64, .fxrstor, .fxrstor64, .bsf, .bsr,
            .ud0, .ud1, .ud2, .bound, .enter, .pusha, .pushad, .popa, .popad:
            false
        case .mov: row.opcode != 0x8E
        case .pop: row.opcode == 0x58 || row.opcode == 0x8F
        default: true
        }
    }

    /// Its place may be another than the one it was aimed at: then it may split a cache line, which hosts throttle.
    static func isLockedAccess(_ instruction: Instruction) -> Bool {
        instruction.hasMemory && (instruction.prefixes.contains(.lock) || instruction.mnemonic == .xchg)
    }
}
