extension Decoder {
    /// Decodes the memory operand that ModRM names: SIB, displacement and default segment.
    ///
    /// Source: [SDM2 §2.1.5, Tables 2-1 to 2-3, §2.2.1.6].
    @inline(__always)
    static func decodeMemory(
        _ instruction: inout Instruction, _ modRM: UInt8, _ head: Head, _ traits: Traits, _ cursor: inout Cursor
    ) throws(DecodeError) {
        let mod = modRM &>> 6
        let rm = modRM & 7
        var segment = Register.ds
        // How many bytes of displacement: 0, 1, or 4 (2 with 16-bit addresses).
        var displacementSize: UInt8 = mod == 0 ? 0 : mod == 1 ? 1 : 4

        if head.addressSize == 2 {
            guard !traits.contains(.vsib.vsibHalf) else { throw .undefined }
            if mod == 2 { displacementSize = 2 }
            if mod == 0, rm == 6 {
                displacementSize = 2
            } else {
                // Two bits each, rm 0 first: which of BX, BP and none is the base, and of SI, DI and none the index.
                let base: UInt8 = [3, 3, 5, 5, 6, 7, 5, 3][Int(rm)]
                instruction.base = Register(.general16, base)
                if rm < 4 { instruction.index = Register(.general16, 6 | rm & 1) }
                if base == 5 { segment = .ss }
            }
        } else {
            let wide = head.addressSize == 8
            let registers: Register.Class = wide ? .general64 : .general32
            if rm == 4 {
                let sib = try unsafe cursor.byte()
                instruction.scale = 1 &<< (sib &>> 6)
                let index = sib &>> 3 & 7 | head.rexX
                if traits.contains(.vsib.vsibHalf) {
                    let whole = head.prefixes.contains(.vectorLength256) && !traits.contains(.vsibHalf)
                    instruction.index = Register(whole ? .ymm : .xmm, index)
                } else if index != 4 {
                    instruction.index = Register(registers, index)
                }
                if sib & 7 == 5, mod == 0 {
                    displacementSize = 4
                } else {
                    let base = sib & 7 | head.rexB
                    instruction.base = Register(registers, base)
                    if base & 0xE == 4 { segment = .ss }
                }
            } else {
                guard !traits.contains(.vsib.vsibHalf) else { throw .undefined }
                if rm == 5, mod == 0 {
                    displacementSize = 4
                    if head.mode == .bits64 { instruction.base = Register(.instructionPointer, wide ? 2 : 1) }
                } else {
                    instruction.base = Register(registers, rm | head.rexB)
                    if rm | head.rexB == 5 { segment = .ss }
                }
            }
        }
        instruction.segment = head.segment == .none ? segment : head.segment

        if displacementSize != 0 {
            instruction.displacementOffset = UInt8(truncatingIfNeeded: unsafe cursor.position)
            switch displacementSize {
            case 1: instruction.displacement = Int64(try unsafe cursor.integer(Int8.self))
            case 2: instruction.displacement = Int64(try unsafe cursor.integer(Int16.self))
            default: instruction.displacement = Int64(try unsafe cursor.integer(Int32.self))
            }
        }
    }
}

extension Instruction {
    /// Whether destination, index and mask of a gather are three registers, as they must be.
    var gatherRegistersDiffer: Bool {
        let destination = register0.number
        let mask = register2.number
        return destination != mask && destination != index.number && mask != index.number
    }
}
