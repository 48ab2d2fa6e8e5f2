/// Prefixes that an instruction carried and that its operands do not already tell.
public struct Prefixes: OptionSet, Hashable, Sendable, BitwiseCopyable {
    public let rawValue: UInt16

    @inlinable
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    @inlinable
    public static var lock: Self { Self(rawValue: 0x0001) }
    /// F3, if it came after any F2: REP, REPE, or part of the opcode.
    @inlinable
    public static var rep: Self { Self(rawValue: 0x0002) }
    /// F2, if it came after any F3: REPNE, or part of the opcode.
    @inlinable
    public static var repne: Self { Self(rawValue: 0x0004) }
    @inlinable
    public static var operandSize: Self { Self(rawValue: 0x0008) }
    @inlinable
    public static var addressSize: Self { Self(rawValue: 0x0010) }
    /// A segment override that has an effect in the instruction's mode.
    @inlinable
    public static var segment: Self { Self(rawValue: 0x0020) }
    /// A REX prefix in its place, of whatever value.
    @inlinable
    public static var rex: Self { Self(rawValue: 0x0040) }
    @inlinable
    public static var vex: Self { Self(rawValue: 0x0080) }
    /// REX.W or VEX.W.
    @inlinable
    public static var w: Self { Self(rawValue: 0x0100) }
    /// VEX.L: 256-bit vectors.
    @inlinable
    public static var vectorLength256: Self { Self(rawValue: 0x0200) }
}

/// One decoded instruction: 56 bytes, nothing to retain or release.
public struct Instruction: BitwiseCopyable, Sendable, Hashable {
    /// Where an operand is.
    public enum OperandKind: UInt8, Sendable, BitwiseCopyable {
        case none
        case register
        /// The one memory operand that `base`, `index`, `scale`, `displacement` and `segment` describe.
        case memory
        /// segment:rSI, with rSI as wide as `addressSize`.
        case stringSource
        /// ES:rDI.
        case stringDestination
        /// `immediate`, sign- or zero-extended as the instruction has it and cut to the operand's size.
        case immediate
        /// `secondImmediate`: ENTER's level, EXTRQ's and INSERTQ's index.
        case secondImmediate
        /// A branch to `immediate` bytes, signed, after the end of the instruction.
        case relative
        /// A far pointer: the offset is `immediate`, the selector `secondImmediate`.
        case farPointer
    }

    public internal(set) var displacement: Int64 = 0
    public internal(set) var immediate: UInt64 = 0

    var sizes: (UInt16, UInt16, UInt16, UInt16) { (size0, size1, size2, size3) }
    var size0: UInt16 = 0
    var size1: UInt16 = 0
    var size2: UInt16 = 0
    var size3: UInt16 = 0

    public internal(set) var row: RowID
    public internal(set) var mnemonic: Mnemonic
    public internal(set) var prefixes: Prefixes
    public internal(set) var secondImmediate: UInt16 = 0

    var kind0: OperandKind = .none
    var kind1: OperandKind = .none
    var kind2: OperandKind = .none
    var kind3: OperandKind = .none
    var register0: Register = .none
    var register1: Register = .none
    var register2: Register = .none
    var register3: Register = .none

    /// Base register of the memory operand; `.none` for none. RIP and EIP count from the end of the instruction.
    public internal(set) var base: Register = .none
    /// Index register; a vector register for gathers.
    public internal(set) var index: Register = .none
    /// 1, 2, 4 or 8.
    public internal(set) var scale: UInt8 = 1
    /// The segment of the memory operand or string source, override included; in 64-bit mode only FS and GS have a base.
    public internal(set) var segment: Register = .ds

    public internal(set) var length: UInt8 = 0
    /// 2, 4 or 8 bytes, the row's default in 64-bit mode included.
    public internal(set) var operandSize: UInt8
    /// 2, 4 or 8 bytes.
    public internal(set) var addressSize: UInt8
    public internal(set) var mode: CodeMode
    /// Where in the instruction the displacement or memory offset is; 0 if there is none.
    public internal(set) var displacementOffset: UInt8 = 0
    /// Where the first immediate, branch displacement or far pointer is; 0 if there is none.
    public internal(set) var immediateOffset: UInt8 = 0

    init(row: RowID, mnemonic: Mnemonic, prefixes: Prefixes, operandSize: UInt8, addressSize: UInt8, mode: CodeMode) {
        self.row = row
        self.mnemonic = mnemonic
        self.prefixes = prefixes
        self.operandSize = operandSize
        self.addressSize = addressSize
        self.mode = mode
    }
}

extension Instruction {
    /// How many operands there are, 0 to 4.
    public var operandCount: Int {
        kind0 == .none ? 0 : kind1 == .none ? 1 : kind2 == .none ? 2 : kind3 == .none ? 3 : 4
    }

    /// The kind of operand `position`, counted from 0 in Intel order; `.none` past the last.
    public func kind(_ position: Int) -> OperandKind {
        switch position {
        case 0: kind0
        case 1: kind1
        case 2: kind2
        case 3: kind3
        default: .none
        }
    }

    /// The register that operand `position` is, `.none` unless its kind is `.register`.
    public func register(_ position: Int) -> Register {
        switch position {
        case 0: register0
        case 1: register1
        case 2: register2
        case 3: register3
        default: .none
        }
    }

    /// The size of operand `position` in bytes; 0 where the encoding does not tell (LEA, XSAVE, NOP's memory form).
    ///
    /// For a scalar in a vector register this is the scalar's size.
    public func size(_ position: Int) -> Int {
        switch position {
        case 0: Int(size0)
        case 1: Int(size1)
        case 2: Int(size2)
        case 3: Int(size3)
        default: 0
        }
    }

    /// Whether any operand is memory that ModRM, a memory offset or XLAT addresses.
    public var hasMemory: Bool { kind0 == .memory || kind1 == .memory || kind2 == .memory || kind3 == .memory }

    /// Where a relative branch at `address` goes, cut to the branch's operand size.
    ///
    /// - Parameter address: the instruction pointer at the instruction's first byte, without the segment base.
    /// - Returns: nil if the instruction has no relative operand.
    public func branchTarget(at address: UInt64) -> UInt64? {
        guard kind0 == .relative else { return nil }
        let target = address &+ UInt64(length) &+ immediate
        switch operandSize {
        case 2: return target & 0xFFFF
        case 4: return target & 0xFFFF_FFFF
        default: return target
        }
    }
}
