internal import X86

/// Bit tests, scans and counts; BMI1, BMI2 and ADX.
extension CPU {
    enum BitChange: BitwiseCopyable { case none, set, reset, complement }

    func executeBitTest(_ i: Insn, _ change: BitChange) throws(Fault) {
        let size = i.size(0)
        let bits = UInt64(truncatingIfNeeded: size &* 8)
        let index = try read(i, 1)
        let bit: UInt64 = 1 &<< (index & (bits &- 1))
        func changed(_ value: UInt64) -> UInt64 {
            switch change {
            case .none: value
            case .set: value | bit
            case .reset: value & ~bit
            case .complement: value ^ bit
            }
        }
        let old: UInt64
        if i.kind(0) == Insn.Kind.register {
            old = readRegister(i.register(0))
            if change != .none { writeRegister(i.register(0), changed(old)) }
        } else {
            // A register index reaches any bit of memory: it is signed, and counts from the operand.
            var offset = offset(i)
            if i.kind(1) == Insn.Kind.register {
                let signed = Int64(bitPattern: signExtend(index, size))
                let step = (signed &>> Int64(truncatingIfNeeded: bits.trailingZeroBitCount)) &* Int64(truncatingIfNeeded: size)
                offset = offset &+ UInt64(bitPattern: step)
                if i.f.addressSize == 4 { offset &= 0xFFFF_FFFF }
                if i.f.addressSize == 2 { offset &= 0xFFFF }
            }
            let at = try linear(Int(i.f.segment), offset, size, write: change != .none)
            if change == .none {
                old = try load(at, size, user: isUser)
            } else if i.isLocked {
                old = try modifyLocked(at, size, changed)
            } else {
                try probeWrite(at, size, user: isUser)
                old = try load(at, size, user: isUser)
                try store(at, size, changed(old), user: isUser)
            }
        }
        setCarry(old & bit != 0 ? 1 : 0)
    }

    func executeBitScan(_ i: Insn, forward: Bool) throws(Fault) {
        let size = i.size(1)
        let value = try read(i, 1) & mask(size)
        let words = rflags & ~RFLAGS.zf
        guard value != 0 else {
            // The destination stays; a 32-bit one keeps its upper half too. Source: [APM3 BSF].
            setArithmeticFlags(words | RFLAGS.zf)
            return
        }
        let result = forward ? value.trailingZeroBitCount : 63 &- value.leadingZeroBitCount
        writeRegister(i.register(0), UInt64(truncatingIfNeeded: result))
        setArithmeticFlags(words)
    }

    func executeCountZeros(_ i: Insn, trailing: Bool) throws(Fault) {
        let size = i.size(1)
        let value = try read(i, 1) & mask(size)
        let bits = size &* 8
        let result =
            value == 0 ? bits : trailing ? value.trailingZeroBitCount : value.leadingZeroBitCount &- (64 &- bits)
        writeRegister(i.register(0), UInt64(truncatingIfNeeded: result))
        let flags = rflags & ~(RFLAGS.cf | RFLAGS.zf)
        setArithmeticFlags(flags | (value == 0 ? RFLAGS.cf : 0) | (result == 0 ? RFLAGS.zf : 0))
    }

    func executePopulationCount(_ i: Insn) throws(Fault) {
        let value = try read(i, 1) & mask(i.size(1))
        writeRegister(i.register(0), UInt64(truncatingIfNeeded: value.nonzeroBitCount))
        setArithmeticFlags(value == 0 ? RFLAGS.zf : 0)
    }

    func executeBMI1(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        switch i.f.mnemonic {
        case .andn:
            let result = ~readRegister(i.register(1)) & (try read(i, 2)) & mask(size)
            writeRegister(i.register(0), result)
            setFlags(signExtend(result, size), 0)
        case .bextr:
            let value = try read(i, 1)
            let control = readRegister(i.register(2))
            let start = control & 0xFF
            let length = control &>> 8 & 0xFF
            var result = start < 64 ? value &>> start : 0
            if length < 64 { result &= (1 &<< length) &- 1 }
            result &= mask(size)
            writeRegister(i.register(0), result)
            setFlags(signExtend(result, size), 0)
        default:
            // BLSI, BLSMSK, BLSR: the destination is operand 0, the source operand 1.
            let value = try read(i, 1) & mask(size)
            let result: UInt64
            var carry: UInt64 = value == 0 ? 1 : 0
            switch i.f.mnemonic {
            case .blsi:
                result = value & (0 &- value)
                carry ^= 1
            case .blsmsk: result = (value ^ (value &- 1)) & mask(size)
            default: result = value & (value &- 1)
            }
            writeRegister(i.register(0), result)
            setFlags(signExtend(result, size), Flags.carryOverflow(carry, 0))
        }
    }

    func executeBMI2(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        switch i.f.mnemonic {
        case .bzhi:
            let value = try read(i, 1) & mask(size)
            let index = readRegister(i.register(2)) & 0xFF
            let bits = UInt64(truncatingIfNeeded: size &* 8)
            let result = index < bits ? value & ((1 &<< index) &- 1) : value
            writeRegister(i.register(0), result)
            setFlags(signExtend(result, size), Flags.carryOverflow(index >= bits ? 1 : 0, 0))
        case .pdep:
            var source = readRegister(i.register(1))
            var mask = try read(i, 2) & self.mask(size)
            var result: UInt64 = 0
            while mask != 0 {
                let lowest = mask & (0 &- mask)
                if source & 1 != 0 { result |= lowest }
                source &>>= 1
                mask &= mask &- 1
            }
            writeRegister(i.register(0), result)
        case .pext:
            let source = readRegister(i.register(1))
            var mask = try read(i, 2) & self.mask(size)
            var result: UInt64 = 0
            var bit: UInt64 = 1
            while mask != 0 {
                if source & mask & (0 &- mask) != 0 { result |= bit }
                bit &<<= 1
                mask &= mask &- 1
            }
            writeRegister(i.register(0), result)
        default:
            // MULX: high half to operand 0, low to operand 1, which may be one register: then the high half stays.
            let value = try read(i, 2)
            if size == 8 {
                let product = self[2].multipliedFullWidth(by: value)
                writeRegister(i.register(1), product.low)
                writeRegister(i.register(0), product.high)
            } else {
                let product = (self[2] & 0xFFFF_FFFF) &* (value & 0xFFFF_FFFF)
                writeRegister(i.register(1), product & 0xFFFF_FFFF)
                writeRegister(i.register(0), product &>> 32)
            }
        }
    }

    /// ADCX and ADOX.
    func executeAddOneFlag(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let a = readRegister(i.register(0))
        let b = try read(i, 1) & mask(size)
        let flag = i.f.mnemonic == .adcx ? RFLAGS.cf : RFLAGS.of
        let flags = rflags
        let carry: UInt64 = flags & flag != 0 ? 1 : 0
        let sum = a &+ b &+ carry
        let out: Bool
        if size == 8 {
            out = (a & b | (a | b) & ~sum) &>> 63 != 0
        } else {
            out = sum &>> 32 != 0
        }
        writeRegister(i.register(0), sum & mask(size))
        setArithmeticFlags(out ? flags | flag : flags & ~flag)
    }
}
