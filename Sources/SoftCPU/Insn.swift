internal import X86

/// One instruction as the general path executes it: what the decoder found, laid out for reading from raw memory.
@safe struct Insn: BitwiseCopyable {
    let address: UInt
    @inline(__always) init(_ address: UInt) { self.address = address }

    static var size: UInt { 80 }
    /// Where a `HostOperation` follows the fields.
    static var hostOffset: UInt { 48 }

    struct Fields: BitwiseCopyable {
        var immediate: UInt64 = 0
        var displacement: Int64 = 0
        /// Operand kinds: `Instruction.OperandKind`.
        var kind0: UInt8 = 0, kind1: UInt8 = 0, kind2: UInt8 = 0, kind3: UInt8 = 0
        /// Operand registers: `Register`, whole.
        var register0: UInt8 = 0, register1: UInt8 = 0, register2: UInt8 = 0, register3: UInt8 = 0
        /// Operand sizes in bytes; 0 for 512.
        var size0: UInt8 = 0, size1: UInt8 = 0, size2: UInt8 = 0, size3: UInt8 = 0
        var mnemonic: Mnemonic = .nop
        var row: UInt16 = 0
        var prefixes: UInt16 = 0
        var secondImmediate: UInt16 = 0
        /// Register numbers; 16 for none, 17 for the instruction pointer, 18 for AL.
        var base: UInt8 = 16, index: UInt8 = 16
        /// log2 of the scale.
        var scale: UInt8 = 0
        var segment: UInt8 = 3
        var length: UInt8 = 0
        var operandSize: UInt8 = 0
        var addressSize: UInt8 = 0
        /// `ExecutionUnit`.
        var unit: UInt8 = 0
        /// The condition that Jcc, SETcc and CMOVcc encode.
        var condition: UInt8 = 0
        /// Whether it is 64-bit code.
        var mode64 = false
        /// Bit 0: CPL 0 only; bit 1: not in real or virtual-8086 mode; bit 2: unaligned 16-byte operands are allowed.
        var facts: UInt8 = 0
    }

    @inline(__always) var f: Fields {
        unsafeAddress { unsafe UnsafePointer(bitPattern: address).unsafelyUnwrapped }
    }

    @inline(__always) var length: UInt64 { UInt64(f.length) }
    @inline(__always) var operandSize: Int { Int(f.operandSize) }
    @inline(__always) var hasRep: Bool { f.prefixes & 6 != 0 }
    @inline(__always) var isLocked: Bool { f.prefixes & 1 != 0 }

    @inline(__always) func kind(_ n: Int) -> UInt8 { Host.load(UInt8.self, address &+ 16 &+ UInt(bitPattern: n)) }
    @inline(__always) func register(_ n: Int) -> UInt8 { Host.load(UInt8.self, address &+ 20 &+ UInt(bitPattern: n)) }
    @inline(__always) func size(_ n: Int) -> Int { Int(Host.load(UInt8.self, address &+ 24 &+ UInt(bitPattern: n))) }
    @inline(__always) func isMemory(_ n: Int) -> Bool { kind(n) == Kind.memory }

    enum Kind {
        static var none: UInt8 { 0 }
        static var register: UInt8 { 1 }
        static var memory: UInt8 { 2 }
        static var immediate: UInt8 { 5 }
        static var secondImmediate: UInt8 { 6 }
        static var relative: UInt8 { 7 }
        static var farPointer: UInt8 { 8 }
    }
}

extension Insn.Fields {
    init(_ i: Instruction) {
        immediate = i.immediate
        displacement = i.displacement
        kind0 = i.kind(0).rawValue
        kind1 = i.kind(1).rawValue
        kind2 = i.kind(2).rawValue
        kind3 = i.kind(3).rawValue
        register0 = i.register(0).rawValue
        register1 = i.register(1).rawValue
        register2 = i.register(2).rawValue
        register3 = i.register(3).rawValue
        size0 = UInt8(truncatingIfNeeded: i.size(0))
        size1 = UInt8(truncatingIfNeeded: i.size(1))
        size2 = UInt8(truncatingIfNeeded: i.size(2))
        size3 = UInt8(truncatingIfNeeded: i.size(3))
        mnemonic = i.mnemonic
        row = i.row.rawValue
        prefixes = i.prefixes.rawValue
        secondImmediate = i.secondImmediate
        base = Self.number(i.base)
        index = Self.number(i.index)
        scale = UInt8(truncatingIfNeeded: i.scale.trailingZeroBitCount)
        segment = i.segment.number
        length = i.length
        operandSize = i.operandSize
        addressSize = i.addressSize
        mode64 = i.mode == .bits64
        condition = i.row.opcode & 15
        unit = i.row.unit.rawValue
        if i.row.isPrivileged { facts |= 1 }
        if i.row.needsProtectedMode { facts |= 2 }
        if i.row.allowsUnaligned { facts |= 4 }
    }

    private static func number(_ register: Register) -> UInt8 {
        switch register.registerClass {
        case .none: 16
        case .instructionPointer: 17
        case .low8: 18
        default: register.number
        }
    }
}

/// What the loop does after an instruction of the general path.
enum Flow: UInt8 {
    /// Goes on with the next instruction of the block.
    case next
    /// `rip` is set; the block ends.
    case branch
    /// As `next`, but the block ends here: what follows may be decoded or interrupted differently.
    case end
}
