/// Decodes operands one after the other, in the order in which their bytes come.
struct Operands {
    let head: Head
    let modRM: UInt8
    /// Whether ModRM.rm is memory.
    let hasMemory: Bool
    var usedVVVV = false
    private var immediates: UInt8 = 0

    struct Operand: BitwiseCopyable {
        var kind: Instruction.OperandKind
        var register: Register
        var size: UInt16
    }

    @inline(__always)
    init(head: Head, modRM: UInt8, hasMemory: Bool) {
        self.head = head
        self.modRM = modRM
        self.hasMemory = hasMemory
    }

    @inline(__always)
    mutating func decode(
        _ spec: OperandSpec, _ instruction: inout Instruction, _ cursor: inout Cursor
    ) throws(DecodeError) -> Operand {
        let size = self.size(spec.size, instruction.operandSize)
        switch spec.source {
        case .none:
            return Operand(kind: .none, register: .none, size: 0)
        case .rm:
            if hasMemory { return Operand(kind: .memory, register: .none, size: size) }
            return try register(spec.file, modRM & 7 | head.rexB, size)
        case .reg:
            return try register(spec.file, modRM &>> 3 & 7 | head.rexR, size)
        case .opcode:
            return try register(.general, head.opcode & 7 | head.rexB, size)
        case .fixed:
            // AL, CL and DX are never AH or R9: their numbers are below four and REX does not reach them.
            return try register(spec.file, spec.number, size)
        case .vvvv:
            usedVVVV = true
            return try register(spec.file, head.vvvv, size)
        case .is4:
            let byte = try unsafe cursor.byte()
            return try register(spec.file, head.mode == .bits64 ? byte &>> 4 : byte &>> 4 & 7, size)
        case .immediate:
            return try unsafe immediate(spec.size, size, &instruction, &cursor)
        case .one:
            instruction.immediate = 1
            return Operand(kind: .immediate, register: .none, size: 1)
        case .relative:
            instruction.immediateOffset = UInt8(truncatingIfNeeded: unsafe cursor.position)
            let distance: Int64
            if spec.size == .b {
                distance = Int64(try unsafe cursor.integer(Int8.self))
            } else if instruction.operandSize == 2 {
                distance = Int64(try unsafe cursor.integer(Int16.self))
            } else {
                distance = Int64(try unsafe cursor.integer(Int32.self))
            }
            instruction.immediate = UInt64(bitPattern: distance)
            return Operand(kind: .relative, register: .none, size: UInt16(instruction.operandSize))
        case .far:
            instruction.immediateOffset = UInt8(truncatingIfNeeded: unsafe cursor.position)
            if instruction.operandSize == 2 {
                instruction.immediate = UInt64(try unsafe cursor.integer(UInt16.self))
            } else {
                instruction.immediate = UInt64(try unsafe cursor.integer(UInt32.self))
            }
            instruction.secondImmediate = try unsafe cursor.integer(UInt16.self)
            return Operand(kind: .farPointer, register: .none, size: size)
        case .moffs:
            instruction.displacementOffset = UInt8(truncatingIfNeeded: unsafe cursor.position)
            switch head.addressSize {
            case 2: instruction.displacement = Int64(try unsafe cursor.integer(UInt16.self))
            case 4: instruction.displacement = Int64(try unsafe cursor.integer(UInt32.self))
            default: instruction.displacement = try unsafe cursor.integer(Int64.self)
            }
            return Operand(kind: .memory, register: .none, size: size)
        case .stringSource:
            return Operand(kind: .stringSource, register: .none, size: size)
        case .stringDestination:
            return Operand(kind: .stringDestination, register: .none, size: size)
        case .translate:
            let registers: Register.Class =
                switch head.addressSize {
                case 2: .general16
                case 4: .general32
                default: .general64
                }
            instruction.base = Register(registers, 3)
            instruction.index = .al
            return Operand(kind: .memory, register: .none, size: 1)
        }
    }

    /// The register `number` of a file, in the class that its size asks for.
    @inline(__always)
    private func register(
        _ file: OperandSpec.File, _ number: UInt8, _ size: UInt16
    ) throws(DecodeError) -> Operand {
        let register: Register
        switch file {
        case .general:
            switch size {
            case 1:
                register =
                    number & 0xC == 4 && !head.prefixes.contains(.rex)
                    ? Register(.high8, number & 3) : Register(.low8, number)
            case 2: register = Register(.general16, number)
            case 4: register = Register(.general32, number)
            default: register = Register(.general64, number)
            }
        case .vector: register = Register(size == 32 ? .ymm : .xmm, number)
        case .mmx: register = Register(.mmx, number & 7)
        case .x87: register = Register(.x87, number & 7)
        case .segment:
            guard number & 7 < 6 else { throw .undefined }
            register = Register(.segment, number & 7)
        case .control:
            // CR0, CR2, CR3, CR4 and CR8.
            guard number < 9, 0b1_0001_1101 &>> UInt32(number) & 1 != 0 else { throw .undefined }
            register = Register(.control, number)
        case .debug:
            guard number < 8 else { throw .undefined }
            register = Register(.debug, number)
        }
        return Operand(kind: .register, register: register, size: size)
    }

    @inline(__always)
    private mutating func immediate(
        _ kind: OperandSpec.Size, _ size: UInt16, _ instruction: inout Instruction, _ cursor: inout Cursor
    ) throws(DecodeError) -> Operand {
        immediates &+= 1
        if immediates > 1 {
            instruction.secondImmediate = UInt16(try unsafe cursor.byte())
            return Operand(kind: .secondImmediate, register: .none, size: size)
        }
        instruction.immediateOffset = UInt8(truncatingIfNeeded: unsafe cursor.position)
        switch kind {
        case .b: instruction.immediate = UInt64(try unsafe cursor.byte())
        case .bs:
            let value = Int64(try unsafe cursor.integer(Int8.self))
            instruction.immediate = UInt64(bitPattern: value) & Operands.mask(instruction.operandSize)
        case .w: instruction.immediate = UInt64(try unsafe cursor.integer(UInt16.self))
        case .v where instruction.operandSize == 8: instruction.immediate = try unsafe cursor.integer(UInt64.self)
        default:
            if instruction.operandSize == 2 {
                instruction.immediate = UInt64(try unsafe cursor.integer(UInt16.self))
            } else {
                let value = Int64(try unsafe cursor.integer(Int32.self))
                instruction.immediate = UInt64(bitPattern: value) & Operands.mask(instruction.operandSize)
            }
        }
        return Operand(kind: .immediate, register: .none, size: size)
    }

    @inline(__always)
    private static func mask(_ operandSize: UInt8) -> UInt64 { ~0 &>> (64 &- UInt64(operandSize) &* 8) }

    /// The size of an operand in bytes.
    @inline(__always)
    private func size(_ size: OperandSpec.Size, _ operandSize: UInt8) -> UInt16 {
        let long = head.mode == .bits64
        let vector: UInt16 = head.prefixes.contains(.vectorLength256) ? 32 : 16
        switch size {
        case .none: return 0
        case .b: return 1
        case .w: return 2
        case .d: return 4
        case .q: return 8
        case .t: return 10
        case .dq: return 16
        case .qq: return 32
        case .m64: return 64
        case .v, .bs: return UInt16(operandSize)
        case .z: return operandSize == 2 ? 2 : 4
        case .y: return head.context & Match.Bit.y != 0 ? 8 : 4
        case .n: return long ? 8 : 4
        case .x: return vector
        case .h: return vector &>> 1
        case .f: return vector &>> 2
        case .e: return vector &>> 3
        case .p: return UInt16(operandSize) &+ 2
        case .s: return long ? 10 : 6
        case .a: return UInt16(operandSize) &* 2
        case .env: return operandSize == 2 ? 14 : 28
        case .state: return operandSize == 2 ? 94 : 108
        case .fx: return 512
        case .vw: return hasMemory ? 2 : UInt16(operandSize)
        case .yb: return hasMemory ? 1 : head.context & Match.Bit.y != 0 ? 8 : 4
        case .yw: return hasMemory ? 2 : head.context & Match.Bit.y != 0 ? 8 : 4
        case .address: return UInt16(head.addressSize)
        }
    }
}
