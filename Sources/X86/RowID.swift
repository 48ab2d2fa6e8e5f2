/// The opcode maps.
public enum OpcodeMap: UInt8, Sendable, BitwiseCopyable, CaseIterable {
    case primary
    case map0F
    case map0F38
    case map0F3A
    case vex0F
    case vex0F38
    case vex0F3A

    public var isVEX: Bool { rawValue >= OpcodeMap.vex0F.rawValue }
}

/// Names one row of the tables: one instruction form.
///
/// The high byte is the table, the low byte the row within it. Values hold for one build only.
public struct RowID: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
    public let rawValue: UInt16

    /// The row with this number, or nil if there is none.
    public init?(rawValue: UInt16) {
        guard rawValue & 0xFF < RowID.rowCount(inTable: rawValue &>> 8) else { return nil }
        self.rawValue = rawValue
    }

    @inline(__always)
    init(unchecked rawValue: UInt16) { self.rawValue = rawValue }
}

// MARK: - Tables

extension RowID {
    static var tableCount: UInt16 { 15 }

    /// One more than the highest raw value a row can have: the size of a table indexed by it.
    public static var bound: Int { Int(tableCount) << 8 }

    static func rowCount(inTable table: UInt16) -> Int {
        switch table {
        case 0: primaryRows.count
        case 1: groupRows.count
        case 2: x87Rows.count
        case 3: secondaryRows.count
        case 4: groupRows0F.count
        case 5: secondaryLowSIMDRows.count
        case 6: secondaryHighSIMDRows.count
        case 7: map0F38Rows.count
        case 8: map0F3ARows.count
        case 9: vex0FLowRows.count
        case 10: vex0FHighRows.count
        case 11: vex0F38LowRows.count
        case 12: vex0F38HighRows.count
        case 13: vex0F3ARows.count
        case 14: hintRows.count
        default: 0
        }
    }

    @inline(__always)
    var row: Row {
        let index = Int(rawValue & 0xFF)
        switch rawValue &>> 8 {
        case 0: return primaryRows[index]
        case 1: return groupRows[index]
        case 2: return x87Rows[index]
        case 3: return secondaryRows[index]
        case 4: return groupRows0F[index]
        case 5: return secondaryLowSIMDRows[index]
        case 6: return secondaryHighSIMDRows[index]
        case 7: return map0F38Rows[index]
        case 8: return map0F3ARows[index]
        case 9: return vex0FLowRows[index]
        case 10: return vex0FHighRows[index]
        case 11: return vex0F38LowRows[index]
        case 12: return vex0F38HighRows[index]
        case 13: return vex0F3ARows[index]
        default: return hintRows[index]
        }
    }

    /// The opcode map the row's table belongs to.
    public var map: OpcodeMap {
        switch rawValue &>> 8 {
        case 0, 1, 2: .primary
        case 3, 4, 5, 6, 14: .map0F
        case 7: .map0F38
        case 8: .map0F3A
        case 9, 10: .vex0F
        case 11, 12: .vex0F38
        default: .vex0F3A
        }
    }

    /// Every row of every table, in table order.
    public static var all: [RowID] {
        (0..<tableCount).flatMap { table in
            (0..<rowCount(inTable: table)).map { RowID(unchecked: table &<< 8 | UInt16($0)) }
        }
    }
}

// MARK: - Facts

/// The flags that rows speak of, one bit each.
public struct FlagSet: OptionSet, Hashable, Sendable, BitwiseCopyable {
    public let rawValue: UInt8

    public init(rawValue: UInt8) { self.rawValue = rawValue }

    public static var cf: Self { Self(rawValue: 0x01) }
    public static var pf: Self { Self(rawValue: 0x02) }
    public static var af: Self { Self(rawValue: 0x04) }
    public static var zf: Self { Self(rawValue: 0x08) }
    public static var sf: Self { Self(rawValue: 0x10) }
    public static var of: Self { Self(rawValue: 0x20) }
    public static var df: Self { Self(rawValue: 0x40) }
    /// IF, TF, AC, NT, RF, VM, VIF, VIP, ID or IOPL.
    public static var system: Self { Self(rawValue: 0x80) }
    /// CF, PF, AF, ZF, SF, OF.
    public static var arithmetic: Self { Self(rawValue: 0x3F) }
}

/// The part of the processor that a row exercises.
public enum ExecutionUnit: UInt8, Sendable, BitwiseCopyable {
    case integer
    case x87
    case mmx
    /// Legacy SSE encodings: a 16-byte memory operand must be aligned unless `RowID.allowsUnaligned`.
    case sse
    case avx
}

extension RowID {
    public var mnemonic: Mnemonic { row.mnemonic }
    /// The last opcode byte; with `namesRegisterInOpcode`, the lowest of its kind.
    public var opcode: UInt8 { row.opcode }
    public var feature: Feature { row.feature }

    public var flagsRead: FlagSet { FlagSet(rawValue: row.flags.read) }
    /// Flags with a defined result. Shifts and rotates by a count of zero leave them as they were.
    public var flagsWritten: FlagSet { FlagSet(rawValue: row.flags.written) }
    public var flagsUndefined: FlagSet { FlagSet(rawValue: row.flags.undefined) }

    public var isLockable: Bool { row.traits.contains(.lock) }
    public var isRepeatable: Bool { row.traits.contains(.rep.repCompare) }
    /// Repetition ends by ZF as well: CMPS and SCAS.
    public var repeatsByZero: Bool { row.traits.contains(.repCompare) }
    /// Raises #GP outside ring 0.
    public var isPrivileged: Bool { row.traits.contains(.cpl0) }
    /// May raise #GP outside ring 0, as IOPL, the I/O permission map or CR4 say.
    public var isSensitive: Bool { row.traits.contains(.iopl) }
    public var isSerialising: Bool { row.traits.contains(.serialising) }
    public var isBranch: Bool { row.traits.contains(.branch) }
    /// #UD in real and virtual-8086 mode.
    public var needsProtectedMode: Bool { row.traits.contains(.protected) || map.isVEX }
    /// UD0, UD1 and UD2: the encoding is recognised, and executing it raises #UD.
    public var isAlwaysUndefined: Bool { row.traits.contains(.alwaysUD) }
    public var namesRegisterInOpcode: Bool { row.traits.contains(.plusR) }
    /// Whether a 16-byte memory operand need not be aligned.
    public var allowsUnaligned: Bool { row.traits.contains(.unaligned) || unit != .sse }

    /// Modes in which the row can be encoded at all.
    public func isValid(in mode: CodeMode) -> Bool {
        let match = row.match
        let bit = Match.Bit.mode64
        if match.mask & bit != 0, (match.value & bit != 0) != (mode == .bits64) { return false }
        // REX.W and 64-bit addresses exist in 64-bit mode only, and 16-bit addresses only outside it.
        let only64 = Match.Bit.y | Match.Bit.a64 | Match.Bit.rexB
        if mode != .bits64, match.value & only64 != 0 { return false }
        if mode == .bits64, match.value & Match.Bit.a16 != 0 { return false }
        return true
    }

    public var unit: ExecutionUnit {
        if map.isVEX { return row.operandsAreVector ? .avx : .integer }
        let row = row
        switch row.feature {
        case .x87, .fcmov: return .x87
        case .mmx: return .mmx
        case .sse3 where map == .primary: return .x87
        default: break
        }
        if row.operandsAreVector { return .sse }
        return row.operandsAreMMX ? .mmx : .integer
    }
}
