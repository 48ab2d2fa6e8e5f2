import X86

/// Addresses, and what lies at them.
extension CaseGenerator {
    /// An address for an operand of `size` bytes.
    mutating func target(_ size: Int, aligned: Bool, canBeAnywhere: Bool) -> UInt64 {
        let size = UInt64(max(1, size))
        let inside = Sandbox.data &+ UInt64(random.below(8192 &- Int(size)))
        let unit: UInt64 = size >= 64 ? 64 : size >= 16 ? 16 : size & (size &- 1) == 0 ? size : 2
        let within = aligned || random.oneIn(2) ? inside & ~(unit &- 1) : inside
        let part = size > 1 ? 1 &+ UInt64(random.below(Int(size) &- 1)) : 0
        switch random.below(48) {
        case 0, 1, 2: return Sandbox.data &+ 4096 &- part  // between two pages
        case 3: return Sandbox.readOnly &- part  // its end is read-only
        case 4, 5: return Sandbox.readOnly &+ (UInt64(random.below(4096 &- Int(size))) & ~(aligned ? unit &- 1 : 0))
        case 6: return Sandbox.readOnly &+ 4096 &- part  // its end is nowhere
        case 7: return Sandbox.data &- part  // its start is nowhere
        case 8: return Sandbox.readOnly &+ 4096 &+ UInt64(random.below(4096))
        case 9: return Sandbox.data &+ 8192 &- size
        case 10: return Sandbox.readOnly &+ 4096 &- size
        case 11: return Sandbox.data
        case 12: return Sandbox.code &+ UInt64(random.below(4000))
        case 13 where canBeAnywhere:
            switch random.below(4) {
            case 0: return 0x8000_0000_0000_0000 | random.next() &>> 2
            case 1: return 0x7FFF_FFFF_FFFF &- UInt64(random.below(16))
            case 2: return 0xFFFF_8000_0000_0000 &+ random.next() & 0x3FFF_FFFF_FFFF
            default: return 0x0000_8000_0000_0000 &+ UInt64(random.below(64)) &- 8
            }
        default: return within
        }
    }

    mutating func aimOperands(_ draft: inout Draft) {
        let instruction = draft.instruction
        let record = draft.record
        aimSpecials(&draft)
        if instruction.hasMemory {
            var size = 0
            for position in 0..<instruction.operandCount where instruction.kind(position) == .memory { size = instruction.size(position) }
            if size == 0 { size = 64 }
            let atomic = instruction.prefixes.contains(.lock) || draft.row.mnemonic == .xchg
            let wants16 = draft.row.unit == .sse && size == 16 && !draft.row.allowsUnaligned || size == 512 || draft.row.mnemonic == .cmpxchg16b
            let aligned = atomic ? !random.oneIn(64) : wants16 && !random.oneIn(12)
            var address = target(size, aligned: aligned, canBeAnywhere: true)
            // A split lock is slow on many hosts, and throttled on some.
            if atomic, address & 63 &+ UInt64(size) > 64 { address &= ~63 }
            let shift = bitOffset(draft)
            if let place = aim(&draft, at: address &- shift) { fillOperand(draft, at: place &+ shift, size: size) }
        }
        aimStrings(draft)
        for position in 0..<instruction.operandCount where instruction.kind(position) == .register {
            fillRegisterOperand(draft, instruction.register(position))
        }
        aimStack(draft)
        if draft.row.mnemonic == .cmpxchg, random.oneIn(2) { matchAccumulator(draft) }
        if draft.row.mnemonic == .cmpxchg8b || draft.row.mnemonic == .cmpxchg16b, random.oneIn(2) { matchPair(draft) }
        _ = record
    }

    /// How far the register operand of BT and its like moves the memory operand.
    private mutating func bitOffset(_ draft: Draft) -> UInt64 {
        let instruction = draft.instruction
        switch draft.row.mnemonic {
        case .bt, .bts, .btr, .btc: break
        default: return 0
        }
        let register = instruction.register(1)
        guard register != .none else { return 0 }
        let bits = Int64(instruction.size(0) &* 8)
        var value = Int64(random.below(65536)) &- 32768
        if random.oneIn(16) { value = Int64(bitPattern: integer()) }
        let old = draft.record[general: Int(register.number)]
        let mask: UInt64 = bits == 64 ? .max : 1 &<< UInt64(bits) &- 1
        draft.record[general: Int(register.number)] = old & ~mask | UInt64(bitPattern: value) & mask
        let cut = bits == 64 ? value : bits == 32 ? Int64(Int32(truncatingIfNeeded: value)) : Int64(Int16(truncatingIfNeeded: value))
        return UInt64(bitPattern: (cut &>> Int64(bits.trailingZeroBitCount)) &* (bits &>> 3))
    }

    /// Sets registers and displacement so that the memory operand is at `address`.
    /// - Returns: the linear address where it is in the end; nil where it could not be aimed.
    private mutating func aim(_ draft: inout Draft, at address: UInt64) -> UInt64? {
        let instruction = draft.instruction
        let record = draft.record
        let long = draft.mode == .bits64
        let size = Int(instruction.addressSize)
        guard size >= 4 else { return nil }
        let segmentBase = !long ? 0 : instruction.segment == .fs ? record.fsBase : instruction.segment == .gs ? record.gsBase : 0
        let mask: UInt64 = size == 4 ? 0xFFFF_FFFF : .max
        let wanted = (address &- segmentBase) & mask
        let displacement = UInt64(bitPattern: instruction.displacement)
        let offset = draft.encoding.displacementOffset, width = draft.encoding.displacementSize

        func set(_ register: Register, _ value: UInt64) {
            let old = record[general: Int(register.number)]
            record[general: Int(register.number)] = size == 4 ? old & ~mask | value & mask : value
        }
        if draft.row.operandIsTranslate {
            let al = record[general: 0] & 0xFF
            set(Register(.general64, 3), wanted &- al)
        } else if instruction.base.registerClass == .instructionPointer {
            draft.patch(wanted &- record.rip &- UInt64(draft.bytes.count), at: offset, size: 4)
        } else if instruction.base == .none, instruction.index == .none {
            draft.patch(wanted, at: offset, size: width)
        } else if instruction.index == .none {
            set(instruction.base, wanted &- displacement)
        } else {
            let scale = UInt64(instruction.scale)
            let isVector = instruction.index.registerClass == .xmm || instruction.index.registerClass == .ymm
            if isVector { return nil }
            if instruction.base == .none || instruction.base == instruction.index {
                // One register, several times: what does not divide goes into the displacement.
                let factor = instruction.base == .none ? scale : scale &+ 1
                let quotient = wanted / factor
                set(instruction.index, quotient)
                if width > 0 { draft.patch(wanted &- quotient &* factor, at: offset, size: width) }
            } else {
                let index = record[general: Int(instruction.index.number)]
                set(instruction.base, wanted &- displacement &- index &* scale)
            }
        }
        return effectiveAddress(draft)
    }

    /// Where the draft's memory operand is, from its bytes and registers.
    private func effectiveAddress(_ draft: Draft) -> UInt64? {
        guard let instruction = try? Decoder.decode(draft.bytes.span, mode: draft.mode) else { return nil }
        return Comparison.effectiveAddress(instruction, draft.record)
    }

    private mutating func aimStrings(_ draft: Draft) {
        let instruction = draft.instruction
        guard draft.row.isRepeatable || draft.row.mnemonic == .maskmovq || draft.row.mnemonic == .maskmovdqu else { return }
        let record = draft.record
        let small = instruction.addressSize == 4
        func set(_ number: Int, _ value: UInt64) {
            let old = record[general: number]
            record[general: number] = small ? old & ~0xFFFF_FFFF | value & 0xFFFF_FFFF : value
        }
        let long = draft.mode == .bits64
        let base = !long ? 0 : instruction.segment == .fs ? record.fsBase : instruction.segment == .gs ? record.gsBase : 0
        let first = target(16, aligned: random.oneIn(2), canBeAnywhere: !small)
        var second = target(16, aligned: random.oneIn(2), canBeAnywhere: !small)
        // Overlap, at all distances.
        if random.oneIn(4) { second = first &+ UInt64(random.below(33)) &- 16 }
        if draft.row.isRepeatable {
            set(6, second &- base)
            set(7, first)
            set(1, random.oneIn(12) ? UInt64(random.below(700)) : UInt64(random.below(24)))
        } else {
            set(7, first &- base)
        }
        if draft.row.repeatsByZero, random.oneIn(2) {
            // Long equal runs for CMPS and SCAS.
            for position in 0..<48 {
                record.poke(UInt8(truncatingIfNeeded: record[general: 0]), at: first &+ UInt64(position))
                if let byte = record.peek(first &+ UInt64(position)) { record.poke(byte, at: second &+ UInt64(position)) }
            }
        }
    }

    /// The value of a memory operand.
    private mutating func fillOperand(_ draft: Draft, at address: UInt64, size: Int) {
        let record = draft.record
        switch draft.row.mnemonic {
        case .fxrstor, .fxrstor64:
            for position in stride(from: 0, to: 464, by: 8) { record.poke(integer(), at: address &+ UInt64(position), size: 8) }
            record.poke(0x37F, at: address, size: 2)
            record.poke(random.next() & 0x3F00, at: address &+ 2, size: 2)
            record.poke(mxcsr(), at: address &+ 24, size: 4)
            return
        case .ldmxcsr: record.poke(mxcsr(), at: address, size: 4)
        case .fldenv, .frstor:
            for position in stride(from: 0, to: size, by: 2) { record.poke(random.next(), at: address &+ UInt64(position), size: 2) }
            record.poke(0x37F & ~(random.next() & (random.oneIn(4) ? 0xC3F : 0)), at: address, size: 2)
        case .call, .jmp: record.poke(codeAddress(), at: address, size: size)
        case .callf, .jmpf, .lss:
            record.poke(draft.row.mnemonic == .lss ? integer() : codeAddress(), at: address, size: size &- 2)
            record.poke(draft.row.mnemonic == .lss ? dataSelector() : codeSelector(), at: address &+ UInt64(size &- 2), size: 2)
        case .mov where draft.instruction.register(0).registerClass == .segment: record.poke(dataSelector(), at: address, size: 2)
        case .lar, .lsl, .verr, .verw, .arpl: record.poke(selector(), at: address, size: 2)
        default:
            if size == 10 {
                let (significand, exponent) = float80()
                record.poke(significand, at: address, size: 8)
                record.poke(UInt64(exponent), at: address &+ 8, size: 2)
                if draft.row.mnemonic == .fbld, !random.oneIn(4) {
                    for position in 0..<9 {
                        record.poke(UInt8(random.below(10)) | UInt8(random.below(10)) &<< 4, at: address &+ UInt64(position))
                    }
                    record.poke(random.oneIn(2) ? 0x80 : 0, at: address &+ 9)
                }
            } else if size >= 8 {
                let (low, high) = vector()
                record.poke(low, at: address, size: 8)
                if size >= 16 { record.poke(high, at: address &+ 8, size: 8) }
            } else {
                record.poke(random.oneIn(2) ? UInt64(float32()) : integer(), at: address, size: size)
            }
        }
    }

    /// A value for MXCSR, seldom one with reserved bits. Bit 17 is reserved on some processors and AMD's MM on others.
    private mutating func mxcsr() -> UInt64 { random.oneIn(8) ? integer() & ~0x2_0000 : random.next() & 0xFFFF }

    private mutating func fillRegisterOperand(_ draft: Draft, _ register: Register) {
        let record = draft.record
        let number = Int(register.number)
        switch draft.row.mnemonic {
        case .call, .jmp: record[general: number] = codeAddress()
        case .mov where draft.instruction.register(0).registerClass == .segment && register.registerClass != .segment:
            record[general: number] = record[general: number] & ~0xFFFF | dataSelector()
        case .lar, .lsl, .verr, .verw, .arpl: record[general: number] = record[general: number] & ~0xFFFF | selector()
        case .wrfsbase, .wrgsbase: if random.oneIn(2) { record[general: number] &= 0x7FFF_FFFF_FFFF }
        default: break
        }
    }

    /// Implicit operands of single instructions.
    private mutating func aimSpecials(_ draft: inout Draft) {
        let record = draft.record
        switch draft.row.mnemonic {
        case .div, .idiv:
            // A dividend whose quotient fits, as often as not.
            if random.below(3) != 0 {
                record[general: 2] = random.oneIn(2) ? 0 : UInt64(bitPattern: Int64(bitPattern: record[general: 0]) &>> 63)
                if draft.instruction.operandSize < 8, random.oneIn(2) { record[general: 2] = UInt64(random.below(3)) &- 1 }
                if random.oneIn(2) { record[general: 0] &= 0xFFFF_FFFF_FFFF_00FF }
            }
        case .enter:
            if let place = draft.encoding.immediates.last, random.below(6) != 0 {
                draft.patch(UInt64(random.below(4)), at: place.offset, size: 1)
            }
            if random.below(3) != 0 { record[general: 5] = record[general: 4] &+ UInt64(random.below(16) &* 8) }
        case .leave:
            if random.below(6) != 0 { record[general: 5] = record[general: 4] }
        case .loop, .loope, .loopne, .jrcxz, .jecxz, .jcxz:
            if random.oneIn(2) { record[general: 1] = record[general: 1] & ~0xFFFF_FFFF | UInt64(random.below(3)) }
        case .pcmpestri, .pcmpestrm:
            if random.below(4) != 0 {
                record[general: 0] = UInt64(bitPattern: Int64(random.below(40) &- 20))
                record[general: 2] = UInt64(bitPattern: Int64(random.below(40) &- 20))
            }
        case .int:
            if let place = draft.encoding.immediates.first, draft.bytes[place.offset] == 0x80 { draft.patch(0x81, at: place.offset, size: 1) }
        case .callf, .jmpf:
            if let place = draft.encoding.immediates.first {
                draft.patch(codeSelector(), at: place.offset &+ place.size &- 2, size: 2)
                if random.oneIn(2) { draft.patch(codeAddress(), at: place.offset, size: place.size &- 2) }
            }
        default: break
        }
    }

    /// What returns and pops find on the stack.
    private mutating func aimStack(_ draft: Draft) {
        let record = draft.record
        let stack = record[general: 4] & (draft.mode == .bits64 ? .max : 0xFFFF_FFFF)
        let size = Int(draft.instruction.operandSize)
        func word(_ position: Int, _ value: UInt64) { record.poke(value, at: stack &+ UInt64(position &* size), size: size) }
        switch draft.row.mnemonic {
        case .ret: if !random.oneIn(8) { word(0, codeAddress()) }
        case .retf:
            word(0, codeAddress())
            word(1, codeSelector())
        case .iret, .iretd, .iretq:
            word(0, codeAddress())
            word(1, codeSelector())
            word(2, random.next() & 0x4_4DD5 | 0x202)
            word(3, Sandbox.stack &+ UInt64(random.below(4096)))
            word(4, random.oneIn(8) ? selector() : 0x2B)
        case .callf where draft.mode == .bits32:
            // From 32-bit code to 64-bit code over the end of the stack, the host's kernel may never see the fault.
            record[general: 4] = Sandbox.stack &+ UInt64(512 &+ random.below(384) &* 8)
        case .popf, .popfd, .popfq: word(0, random.next() & 0x24_7FD7)
        case .pop where draft.instruction.register(0).registerClass == .segment: word(0, dataSelector())
        default: break
        }
    }

    private mutating func codeAddress() -> UInt64 {
        switch random.below(16) {
        case 0: integer()
        case 1: 0x0000_8000_0000_0000 &+ random.next() &>> 20
        case 2: Sandbox.data &+ UInt64(random.below(4096))
        case 3: 0x7FFF_FFFF_FFFF
        default: Sandbox.code &+ UInt64(random.below(4096))
        }
    }

    private mutating func codeSelector() -> UInt64 {
        switch random.below(12) {
        case 0: selector()
        case 1: UInt64(random.below(4))
        case 2, 3: 0x23
        default: 0x33
        }
    }

    private mutating func dataSelector() -> UInt64 { random.below(3) == 0 ? selector() : 0x2B }

    /// Selectors that mean the same in the native process and in the guest's tables.
    private mutating func selector() -> UInt64 {
        [0, 1, 2, 3, 0x10, 0x13, 0x18, 0x1B, 0x20, 0x23, 0x28, 0x2B, 0x2A, 0x30, 0x33, 0xFFF8, 0xFFFB][random.below(17)]
    }

    /// Makes the comparison of CMPXCHG succeed.
    private func matchAccumulator(_ draft: Draft) {
        let instruction = draft.instruction, record = draft.record
        let size = instruction.size(0)
        let mask: UInt64 = size == 8 ? .max : 1 &<< UInt64(size &* 8) &- 1
        var value = record[general: Int(instruction.register(0).number)]
        if instruction.register(0).registerClass == .high8 { value = value &>> 8 }
        if instruction.kind(0) == .memory {
            guard let address = effectiveAddress(draft) else { return }
            value = (0..<UInt64(size)).reduce(0) { $0 | UInt64(record.peek(address &+ $1) ?? 0) &<< ($1 &* 8) }
        }
        record[general: 0] = record[general: 0] & ~mask | value & mask
    }

    private func matchPair(_ draft: Draft) {
        let record = draft.record
        guard let address = effectiveAddress(draft) else { return }
        let half = UInt64(draft.instruction.size(0) / 2)
        func part(_ offset: UInt64) -> UInt64 {
            (0..<half).reduce(0) { $0 | UInt64(record.peek(address &+ offset &+ $1) ?? 0) &<< ($1 &* 8) }
        }
        let uses = [draft.instruction.base, draft.instruction.index].contains { $0 != .none && ($0.number == 0 || $0.number == 2) }
        guard !uses else { return }
        record[general: 0] = part(0)
        record[general: 2] = part(half)
    }
}

extension RowID {
    var operandIsTranslate: Bool { mnemonic == .xlat }
}
