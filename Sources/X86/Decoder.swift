/// Turns bytes into instructions. It executes nothing, keeps no state and allocates nothing.
///
/// Decoding has three steps: prefixes and opcode; the row, found through the opcode's index entry and the rows' `Match`;
/// and the operands, as the row's `OperandSpec`s say. All facts about instructions are in the tables.
///
/// Where Intel's and AMD's processors differ, it follows Intel's for near branches with 66 in 64-bit mode (66 is
/// ignored) and far pointers with REX.W (a 64-bit offset), and AMD's for 0F 0D with a register (undefined). Not
/// decoded, thus undefined, as on a processor without them: EVEX, XOP, 3DNow!, MPX, CET, TSX, SGX, AMX and AVX-512's
/// VEX-encoded mask instructions.
///
/// Source: [SDM2 §2.1 to §2.3, App. A], [APM3 §1].
public enum Decoder {
    /// An instruction's longest encoding, in bytes.
    public static var longestInstruction: Int { 15 }

    /// Decodes the instruction at the start of `bytes`.
    ///
    /// - Parameters:
    ///   - bytes: at least `count` readable bytes; none is read past them, nor past the fifteenth.
    ///   - count: how many bytes there are. With none, the result is `.truncated`.
    /// - Throws: `DecodeError`. `.truncated` means that no number of the bytes given makes up an instruction, yet more
    ///   may; bytes that raise #UD whatever follows can still be reported as `.truncated` where an operand is missing.
    /// - Complexity: O(1); no allocation.
    public static func decode(
        _ bytes: UnsafePointer<UInt8>, count: Int, mode: CodeMode
    ) throws(DecodeError) -> Instruction {
        var cursor = unsafe Cursor(bytes: bytes, limit: count < longestInstruction ? count : longestInstruction)
        let head = try unsafe Head(from: &cursor, mode: mode)

        // ModRM is part of what selects a row, so it is read first; one byte of the index tells whether there is one.
        let entry = OpcodeIndex.entry(map: head.map, opcode: head.opcode)
        guard entry.count > 0 else { throw .undefined }
        var modRM: UInt8 = 0
        var context = head.context
        if entry.hasModRM {
            modRM = try unsafe cursor.byte()
            context |= UInt32(modRM &>> 3 & 7) | UInt32(modRM & 7) &<< 3
            if modRM >= 0xC0 { context |= Match.Bit.register }
        }
        guard let found = find(entry, context) else { throw .undefined }
        let row = found.row

        var instruction = Instruction(
            row: found.id, mnemonic: row.mnemonic, prefixes: head.prefixes,
            operandSize: head.operandSize(for: row.traits), addressSize: head.addressSize, mode: mode)
        let hasMemory = entry.hasModRM && modRM < 0xC0 && !row.traits.contains(.modIgnored)
        if hasMemory {
            try unsafe decodeMemory(&instruction, modRM, head, row.traits, &cursor)
        } else {
            instruction.segment = head.segment == .none ? .ds : head.segment
        }

        // LOCK is for memory destinations of the instructions that say so. [SDM2 LOCK]
        if head.prefixes.contains(.lock), !(hasMemory && row.traits.contains(.lock) && row.operand0.source == .rm) {
            // XCHG is lockable whichever operand is memory: its memory operand always is the first.
            throw .undefined
        }

        var operands = Operands(head: head, modRM: modRM, hasMemory: hasMemory)
        if row.operand0.source != .none {
            let operand = try unsafe operands.decode(row.operand0, &instruction, &cursor)
            (instruction.kind0, instruction.register0, instruction.size0) = (operand.kind, operand.register, operand.size)
            if row.operand1.source != .none {
                let operand = try unsafe operands.decode(row.operand1, &instruction, &cursor)
                (instruction.kind1, instruction.register1, instruction.size1) = (
                    operand.kind, operand.register, operand.size
                )
                if row.operand2.source != .none {
                    let operand = try unsafe operands.decode(row.operand2, &instruction, &cursor)
                    (instruction.kind2, instruction.register2, instruction.size2) = (
                        operand.kind, operand.register, operand.size
                    )
                    if row.operand3.source != .none {
                        let operand = try unsafe operands.decode(row.operand3, &instruction, &cursor)
                        (instruction.kind3, instruction.register3, instruction.size3) = (
                            operand.kind, operand.register, operand.size
                        )
                    }
                }
            }
        }
        // VEX.vvvv must be 1111b where it names nothing. [SDM2 §2.3.5.6]
        if head.vvvvRaw != 0, !operands.usedVVVV { throw .undefined }
        // The registers of a gather must differ. [SDM2 VGATHERDPS]
        if row.traits.contains(.vsib.vsibHalf), !instruction.gatherRegistersDiffer { throw .undefined }
        // MOV to CS.
        if row.mnemonic == .mov, instruction.register0 == .cs, head.map == .primary { throw .undefined }

        instruction.length = UInt8(truncatingIfNeeded: unsafe cursor.position)
        return instruction
    }

    /// Decodes the instruction at the start of `bytes`. See `decode(_:count:mode:)`.
    public static func decode(_ bytes: Span<UInt8>, mode: CodeMode) throws(DecodeError) -> Instruction {
        // A closure that throws a typed error past `withUnsafeBufferPointer` keeps its type.
        try unsafe bytes.withUnsafeBufferPointer { buffer throws(DecodeError) in
            guard let base = buffer.baseAddress else { throw .truncated }
            return try unsafe decode(base, count: buffer.count, mode: mode)
        }
    }

    /// The first row of `entry` that matches. No two rows can match, which a test proves.
    @inline(__always)
    private static func find(_ entry: OpcodeIndex.Entry, _ context: UInt32) -> (id: RowID, row: Row)? {
        var id = entry.first
        let end = id.rawValue &+ entry.count
        repeat {
            let row = id.row
            if context & row.match.mask == row.match.value { return (id, row) }
            id = RowID(unchecked: id.rawValue &+ 1)
        } while id.rawValue < end
        return nil
    }
}

/// The bytes of one instruction, and how far they are read.
@unsafe
struct Cursor {
    let bytes: UnsafePointer<UInt8>
    let limit: Int
    var position = 0

    init(bytes: UnsafePointer<UInt8>, limit: Int) {
        unsafe self.bytes = unsafe bytes
        unsafe self.limit = limit
    }

    /// What it means that the bytes end here.
    private var shortage: DecodeError { unsafe limit >= Decoder.longestInstruction ? .tooLong : .truncated }

    @inline(__always)
    mutating func byte() throws(DecodeError) -> UInt8 {
        guard unsafe position < limit else { throw unsafe shortage }
        let value = unsafe bytes[position]
        unsafe position &+= 1
        return value
    }

    /// The next byte, without taking it.
    @inline(__always)
    func peek() throws(DecodeError) -> UInt8 {
        guard unsafe position < limit else { throw unsafe shortage }
        return unsafe bytes[position]
    }

    @inline(__always)
    mutating func integer<T: FixedWidthInteger & BitwiseCopyable>(_: T.Type) throws(DecodeError) -> T {
        let size = MemoryLayout<T>.size
        guard unsafe limit &- position >= size else { throw unsafe shortage }
        let value = unsafe UnsafeRawPointer(bytes + position).loadUnaligned(as: T.self)
        unsafe position &+= size
        return T(littleEndian: value)
    }
}

/// Prefixes, opcode map and opcode: all that comes before ModRM.
struct Head: BitwiseCopyable {
    var prefixes: Prefixes = []
    /// The segment override in force, or `.none`.
    var segment: Register = .none
    var map: OpcodeMap = .primary
    var opcode: UInt8 = 0
    var mode: CodeMode
    var addressSize: UInt8 = 0
    /// Bits that extend the register fields to four bits: 8 or 0.
    var rexR: UInt8 = 0
    var rexX: UInt8 = 0
    var rexB: UInt8 = 0
    /// VEX.vvvv as a register number, and as encoded but inverted: in 32-bit code the top bit names no register.
    var vvvv: UInt8 = 0
    var vvvvRaw: UInt8 = 0
    /// What the rows match, less ModRM.
    var context: UInt32 = 0

    @inline(__always)
    init(from cursor: inout Cursor, mode: CodeMode) throws(DecodeError) {
        self.mode = mode
        var rex: UInt8 = 0
        var byte: UInt8 = 0
        prefix: while true {
            byte = try unsafe cursor.byte()
            switch byte {
            case 0x26, 0x2E, 0x36, 0x3E:
                // In 64-bit mode these have no effect, not even on an FS or GS override before them.
                if mode != .bits64 {
                    segment = Register(.segment, byte &>> 3 & 3)
                    prefixes.insert(.segment)
                }
            case 0x64, 0x65:
                segment = Register(.segment, byte & 7)
                prefixes.insert(.segment)
            case 0x66: prefixes.insert(.operandSize)
            case 0x67: prefixes.insert(.addressSize)
            case 0xF0: prefixes.insert(.lock)
            case 0xF2: prefixes = Prefixes(rawValue: prefixes.rawValue & ~Prefixes.rep.rawValue | Prefixes.repne.rawValue)
            case 0xF3: prefixes = Prefixes(rawValue: prefixes.rawValue & ~Prefixes.repne.rawValue | Prefixes.rep.rawValue)
            case 0x40...0x4F where mode == .bits64:
                // Counts only if the opcode is next: any other prefix after it cancels it.
                rex = byte
                continue prefix
            default: break prefix
            }
            rex = 0
        }

        if rex != 0 {
            prefixes.insert(.rex)
            rexR = rex &<< 1 & 8
            rexX = rex &<< 2 & 8
            rexB = rex &<< 3 & 8
            if rex & 8 != 0 { prefixes.insert(.w) }
        }
        if byte == 0x0F {
            map = .map0F
            byte = try unsafe cursor.byte()
            if byte == 0x38 {
                map = .map0F38
                byte = try unsafe cursor.byte()
            } else if byte == 0x3A {
                map = .map0F3A
                byte = try unsafe cursor.byte()
            }
        } else if byte & 0xFE == 0xC4 {
            // Outside 64-bit mode C4 and C5 are LES and LDS if a ModRM with memory follows.
            if mode == .bits64 {
                byte = try unsafe vex(byte, &cursor)
            } else if try unsafe cursor.peek() >= 0xC0 {
                byte = try unsafe vex(byte, &cursor)
            }
        }
        opcode = byte
        finish()
    }

    /// Reads a two- or three-byte VEX prefix, whose first byte is `first`.
    /// - Returns: the opcode.
    @inline(never)
    private mutating func vex(_ first: UInt8, _ cursor: inout Cursor) throws(DecodeError) -> UInt8 {
        // [SDM2 §2.3.2, §2.3.3]: 66, F2, F3, LOCK and REX before VEX raise #UD.
        guard prefixes.isDisjoint(with: [.operandSize, .rep, .repne, .lock, .rex]) else { throw .undefined }
        prefixes.insert(.vex)
        var last = try unsafe cursor.byte()
        let inverted = ~last
        rexR = inverted &>> 4 & 8
        if first == 0xC5 {
            map = .vex0F
        } else {
            rexX = inverted &>> 3 & 8
            rexB = inverted &>> 2 & 8
            switch last & 0x1F {
            case 1: map = .vex0F
            case 2: map = .vex0F38
            case 3: map = .vex0F3A
            default: throw .undefined
            }
            last = try unsafe cursor.byte()
            if last & 0x80 != 0 { prefixes.insert(.w) }
        }
        vvvvRaw = ~last &>> 3 & 15
        vvvv = vvvvRaw
        if mode != .bits64 {
            rexB = 0
            vvvv &= 7
        }
        if last & 4 != 0 { prefixes.insert(.vectorLength256) }
        // pp stands for 66, F3 and F2: in the context only, as none of them is there.
        context = [0, Match.Bit.p66, Match.Bit.f3, Match.Bit.f2][Int(last & 3)]
        return try unsafe cursor.byte()
    }

    /// Derives address size and context from the prefixes.
    @inline(__always)
    private mutating func finish() {
        let swapped = prefixes.contains(.addressSize)
        var bits: UInt32 = 0
        switch mode {
        case .bits16:
            addressSize = swapped ? 4 : 2
            if !swapped { bits |= Match.Bit.a16 }
            if !prefixes.contains(.operandSize) { bits |= Match.Bit.o16 }
        case .bits32:
            addressSize = swapped ? 2 : 4
            if swapped { bits |= Match.Bit.a16 }
            if prefixes.contains(.operandSize) { bits |= Match.Bit.o16 }
        case .bits64:
            addressSize = swapped ? 4 : 8
            if !swapped { bits |= Match.Bit.a64 }
            bits |= Match.Bit.mode64
            if prefixes.contains(.w) {
                bits |= Match.Bit.y
            } else if prefixes.contains(.operandSize) {
                bits |= Match.Bit.o16
            }
        }
        let raw = UInt32(prefixes.rawValue)
        if prefixes.contains(.vex) {
            bits &= ~Match.Bit.o16
        } else {
            // 66, F3 and F2 have neighbouring bits in both words.
            bits |= (raw & 8) &<< 4 | (raw & 6) &<< 7
        }
        bits |= (raw & 0x100) &<< 4
        bits |= (raw & 0x200) &<< 5
        bits |= UInt32(rexB) &<< 14
        context |= bits
    }

    /// 2, 4 or 8, as the row's defaults have it.
    @inline(__always)
    func operandSize(for traits: Traits) -> UInt8 {
        let short = context & Match.Bit.o16 != 0
        if context & Match.Bit.y != 0 { return 8 }
        if mode == .bits64, traits.contains(.d64.f64) {
            return short && !traits.contains(.f64) ? 2 : 8
        }
        return short ? 2 : 4
    }
}
