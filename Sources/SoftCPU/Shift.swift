internal import X86

/// Shifts and rotates. Counts are masked to five bits, six for 64-bit operands; a masked count of zero changes nothing.
///
/// Source: [SDM2 SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD]. What the manual leaves undefined is as AMD's and Intel's
/// processors have it, where they agree.
extension CPU {
    @inline(__always) private func count(_ i: Insn, _ n: Int) throws(Fault) -> UInt64 {
        try read(i, n) & (i.size(0) == 8 ? 63 : 31)
    }

    func executeShiftLeft(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let bits = UInt64(truncatingIfNeeded: size &* 8)
        let count = try count(i, 1)
        let a = try modify(i, locked: false) { count >= 64 ? 0 : $0 &<< count } & mask(size)
        guard count != 0 else { return }
        let result = (a &<< count) & mask(size)
        let carry = count <= bits ? (a &>> (bits &- count)) & 1 : 0
        let top = result &>> (bits &- 1) & 1
        setFlags(signExtend(result, size), Flags.carryOverflow(carry, carry ^ top))
    }

    func executeShiftRight(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let bits = UInt64(truncatingIfNeeded: size &* 8)
        let count = try count(i, 1)
        let a = try modify(i, locked: false) { ($0 & mask(size)) &>> count } & mask(size)
        guard count != 0 else { return }
        let carry = (a &>> (count &- 1)) & 1
        // OF: the top two bits of the result differ, which for a count of one is the operand's top bit.
        let result = a &>> count
        let overflow = (result &>> (bits &- 1) ^ result &>> (bits &- 2)) & 1
        setFlags(signExtend(result, size), Flags.carryOverflow(carry, overflow))
    }

    func executeShiftArithmetic(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let count = try count(i, 1)
        let a = try modify(i, locked: false) {
            UInt64(bitPattern: Int64(bitPattern: signExtend($0, size)) &>> Int64(bitPattern: count))
        }
        guard count != 0 else { return }
        let value = Int64(bitPattern: signExtend(a, size))
        let carry = UInt64(bitPattern: value &>> Int64(bitPattern: count &- 1)) & 1
        setFlags(UInt64(bitPattern: value &>> Int64(bitPattern: count)), Flags.carryOverflow(carry, 0))
    }

    @inline(__always) private func rotate(_ value: UInt64, left count: UInt64, _ bits: UInt64) -> UInt64 {
        guard count != 0 else { return value }
        return value &<< count | value &>> (bits &- count)
    }

    func executeRotateLeft(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let bits = UInt64(truncatingIfNeeded: size &* 8)
        let count = try count(i, 1)
        let turn = count & (bits &- 1)
        let a = try modify(i, locked: false) { rotate($0 & mask(size), left: turn, bits) } & mask(size)
        guard count != 0 else { return }
        let result = rotate(a, left: turn, bits) & mask(size)
        setCarryOverflow(result & 1, (result ^ result &>> (bits &- 1)) & 1)
    }

    func executeRotateRight(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let bits = UInt64(truncatingIfNeeded: size &* 8)
        let count = try count(i, 1)
        let turn = (0 &- count) & (bits &- 1)
        let a = try modify(i, locked: false) { rotate($0 & mask(size), left: turn, bits) } & mask(size)
        guard count != 0 else { return }
        let result = rotate(a, left: turn, bits) & mask(size)
        let top = result &>> (bits &- 1) & 1
        setCarryOverflow(top, top ^ (result &>> (bits &- 2) & 1))
    }

    func executeRotateCarryLeft(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let bits = UInt64(truncatingIfNeeded: size &* 8)
        let count = try count(i, 1) % (bits &+ 1)
        let carry = Flags.carry(s.flagCarries)
        func turned(_ value: UInt64) -> UInt64 {
            guard count != 0 else { return value }
            let high = count == 64 ? 0 : value &<< count
            let low = count == 1 ? 0 : value &>> (bits &+ 1 &- count)
            return high | carry &<< (count &- 1) | low
        }
        let a = try modify(i, locked: false) { turned($0 & mask(size)) } & mask(size)
        guard count != 0 else { return }
        let out = a &>> (bits &- count) & 1
        let result = turned(a) & mask(size)
        setCarryOverflow(out, out ^ (result &>> (bits &- 1) & 1))
    }

    func executeRotateCarryRight(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let bits = UInt64(truncatingIfNeeded: size &* 8)
        let count = try count(i, 1) % (bits &+ 1)
        let carry = Flags.carry(s.flagCarries)
        func turned(_ value: UInt64) -> UInt64 {
            guard count != 0 else { return value }
            let low = count == 64 ? 0 : value &>> count
            let high = count == 1 ? 0 : value &<< (bits &+ 1 &- count)
            return low | carry &<< (bits &- count) | high
        }
        let a = try modify(i, locked: false) { turned($0 & mask(size)) } & mask(size)
        guard count != 0 else { return }
        let out = a &>> (count &- 1) & 1
        let result = turned(a) & mask(size)
        setCarryOverflow(out, (result &>> (bits &- 1) ^ result &>> (bits &- 2)) & 1)
    }

    func executeShiftDouble(_ i: Insn, left: Bool) throws(Fault) {
        let size = i.size(0)
        let bits = UInt64(truncatingIfNeeded: size &* 8)
        let count = try count(i, 2)
        let filler = readRegister(i.register(1)) & mask(size)
        func shifted(_ a: UInt64) -> UInt64 {
            guard count != 0 else { return a }
            if size == 2 {
                // Counts past 16 are undefined: the operands as one ring of 48 bits, as processors have it.
                let ring = left ? a &<< 32 | filler &<< 16 | a : a &<< 32 | filler &<< 16 | a
                return left ? (ring &<< count) &>> 32 & 0xFFFF : (ring &>> count) & 0xFFFF
            }
            return left ? a &<< count | filler &>> (bits &- count) : a &>> count | filler &<< (bits &- count)
        }
        let a = try modify(i, locked: false) { shifted($0 & mask(size)) } & mask(size)
        guard count != 0 else { return }
        let result = shifted(a) & mask(size)
        let carry: UInt64
        if left {
            carry = count <= bits ? a &>> (bits &- count) & 1 : filler &>> (2 &* bits &- count) & 1
        } else {
            carry = count <= bits ? a &>> (count &- 1) & 1 : filler &>> (count &- 1 &- bits) & 1
        }
        setFlags(signExtend(result, size), Flags.carryOverflow(carry, (a ^ result) &>> (bits &- 1) & 1))
    }

    // MARK: BMI2

    func executeShiftNoFlags(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let value = try read(i, 1)
        let count = (i.f.mnemonic == .rorx ? i.f.immediate : readRegister(i.register(2))) & (size == 8 ? 63 : 31)
        let bits = UInt64(truncatingIfNeeded: size &* 8)
        let result: UInt64 =
            switch i.f.mnemonic {
            case .shlx: value &<< count
            case .shrx: value &>> count
            case .sarx: UInt64(bitPattern: Int64(bitPattern: signExtend(value, size)) &>> Int64(bitPattern: count))
            default: rotate(value, left: (0 &- count) & (bits &- 1), bits)
            }
        writeRegister(i.register(0), result)
    }
}
