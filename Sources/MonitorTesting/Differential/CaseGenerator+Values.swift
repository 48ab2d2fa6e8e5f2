import X86

/// Register contents: random ones, and those at which instructions change their ways.
extension CaseGenerator {
    mutating func integer() -> UInt64 {
        switch random.below(8) {
        case 0: return UInt64(random.below(256))
        case 1, 2:
            // Around a power of two, of either sign.
            let edge = 1 &<< UInt64(random.below(64)) &+ UInt64(random.below(3)) &- 1
            return random.oneIn(2) ? edge : 0 &- edge
        case 3: return random.oneIn(2) ? 0 : .max
        case 4: return random.next() & 0xFFFF_FFFF
        default: return random.next()
        }
    }

    mutating func float32() -> UInt32 {
        let sign = UInt32(random.below(2)) &<< 31
        let fraction = UInt32(truncatingIfNeeded: random.next())
        switch random.below(12) {
        case 0: return sign
        case 1: return sign | 0x7F80_0000
        case 2: return sign | 0x7FC0_0000 | fraction & 0x3F_FFFF
        case 3: return sign | 0x7F80_0001 | fraction & 0x3F_FFFF
        case 4: return sign | fraction & 0x7F_FFFF
        case 5: return sign | (random.oneIn(2) ? 0x0080_0000 : 0x7F7F_FFFF)
        case 6: return sign | 0x3F80_0000
        case 7, 8: return sign | UInt32(0x7F &- 32 &+ random.below(64)) &<< 23 | fraction & 0x7F_FFFF
        case 9: return Float(Int32(truncatingIfNeeded: random.below(2000) &- 1000)).bitPattern
        default: return fraction
        }
    }

    mutating func float64() -> UInt64 {
        let sign = UInt64(random.below(2)) &<< 63
        let fraction = random.next()
        switch random.below(12) {
        case 0: return sign
        case 1: return sign | 0x7FF0_0000_0000_0000
        case 2: return sign | 0x7FF8_0000_0000_0000 | fraction & 0x7_FFFF_FFFF_FFFF
        case 3: return sign | 0x7FF0_0000_0000_0001 | fraction & 0x7_FFFF_FFFF_FFFF
        case 4: return sign | fraction & 0xF_FFFF_FFFF_FFFF
        case 5: return sign | (random.oneIn(2) ? 0x0010_0000_0000_0000 : 0x7FEF_FFFF_FFFF_FFFF)
        case 6: return sign | 0x3FF0_0000_0000_0000
        case 7, 8: return sign | UInt64(0x3FF &- 64 &+ random.below(128)) &<< 52 | fraction & 0xF_FFFF_FFFF_FFFF
        case 9: return Double(random.below(2000) &- 1000).bitPattern
        default: return fraction
        }
    }

    /// Significand, and sign with exponent, of an x87 number; unnormals and pseudo-denormals among them.
    mutating func float80() -> (UInt64, UInt16) {
        let sign = UInt16(random.below(2)) &<< 15
        let fraction = random.next()
        let integerBit: UInt64 = 1 &<< 63
        switch random.below(14) {
        case 0: return (0, sign)
        case 1: return (integerBit, sign | 0x7FFF)
        case 2: return (fraction | 3 &<< 62, sign | 0x7FFF)
        case 3: return ((fraction & ~(1 &<< 62)) | integerBit | 1, sign | 0x7FFF)
        case 4: return (fraction & ~integerBit, sign)
        case 5: return (fraction | integerBit, sign)
        case 6: return (fraction & ~integerBit, sign | UInt16(truncatingIfNeeded: random.next()) & 0x7FFF)
        case 7: return (integerBit, sign | 0x3FFF)
        case 8, 9: return (fraction | integerBit, sign | UInt16(0x3FFF &- 70 &+ random.below(140)))
        case 10:
            let whole = UInt64(1 &+ random.below(1000))
            let shift = whole.leadingZeroBitCount
            return (whole &<< UInt64(shift), sign | UInt16(0x3FFF &+ 63 &- shift))
        case 11: return (fraction | integerBit, sign | (random.oneIn(2) ? 1 : 0x7FFE))
        default: return (fraction | integerBit, sign | UInt16(truncatingIfNeeded: random.next()) & 0x7FFF)
        }
    }

    /// Sixteen bytes: one kind of number in all lanes, or in each its own.
    mutating func vector() -> (UInt64, UInt64) {
        switch random.below(5) {
        case 0, 1:
            return (
                UInt64(float32()) | UInt64(float32()) &<< 32, UInt64(float32()) | UInt64(float32()) &<< 32
            )
        case 2, 3: return (float64(), float64())
        default: return (integer(), integer())
        }
    }

    mutating func fillRegisters(_ draft: Draft) {
        let record = draft.record
        for number in 0..<16 { record[general: number] = integer() }
        var flags: UInt64 = 0x202 | random.next() & 0x8D5
        if random.oneIn(8) { flags |= 0x400 }
        if random.oneIn(32) { flags |= 1 &<< 18 }
        record.rflags = flags
        record.fsBase = random.oneIn(4) ? 0 : UInt64(random.below(0x1000_0000))
        // Not in the upper half of what a process has: there the host's own programs and libraries lie, which no case may touch.
        record.gsBase = random.oneIn(4) ? 0 : random.oneIn(2) ? UInt64(random.below(0x1000_0000)) : random.next() & 0x3FFF_FFFF_F000
        record[general: 4] = stackPointer()
    }

    /// Where RSP points: the stack page's middle, seldom its edges or elsewhere.
    private mutating func stackPointer() -> UInt64 {
        switch random.below(24) {
        case 0: return Sandbox.stack &+ UInt64(random.below(24))
        case 1: return Sandbox.stack &+ 4096 &- UInt64(random.below(24))
        case 2: return Sandbox.stack &+ UInt64(512 &+ random.below(3072))
        case 3: return random.oneIn(4) ? integer() : Sandbox.readOnly &+ UInt64(random.below(4096))
        default: return Sandbox.stack &+ UInt64(512 &+ random.below(384) &* 8)
        }
    }

    mutating func fillFloatingPoint(_ draft: Draft) {
        let record = draft.record
        let unit = draft.row.unit
        let matters = unit != .integer || random.oneIn(8)
        let control: UInt16 = matters && random.oneIn(3) ? UInt16(truncatingIfNeeded: random.next()) & 0x0F3F | 0x40 : 0x37F
        // Precision control 01 is reserved. [SDM1 §8.1.5.2]
        let precise = control & 0x300 == 0x100 ? control | 0x300 : control
        var status = UInt16(truncatingIfNeeded: random.next()) & 0x7F00
        if matters, random.oneIn(4) { status |= UInt16(truncatingIfNeeded: random.next()) & 0x7F }
        if !random.oneIn(6) { status &= ~(~precise & 0x3F) }
        status &= 0x7FFF
        if status & ~precise & 0x3F != 0 { status |= 0x8080 } else { status &= ~0x8080 }
        // SF, the stack fault, goes with IE.
        if status & 1 == 0 { status &= ~0x40 }
        let tags: UInt8 = random.below(3) != 0 ? 0xFF : random.oneIn(3) ? 0 : UInt8(truncatingIfNeeded: random.next())
        for position in stride(from: 0, to: 512, by: 8) { record.storeFX(UInt64(0), position) }
        record.storeFX(precise, 0)
        record.storeFX(status, 2)
        record.storeFX(tags, 4)
        var mxcsr: UInt32 = 0x1F80
        if matters, random.oneIn(3) { mxcsr = UInt32(truncatingIfNeeded: random.next()) & 0xFFFF }
        record.storeFX(mxcsr, 24)
        let isMMX = unit == .mmx
        for number in 0..<8 {
            let (significand, exponent) = float80()
            record.storeFX(isMMX ? vector().0 : significand, 32 &+ number &* 16)
            record.storeFX(isMMX ? 0xFFFF : exponent, 40 &+ number &* 16)
        }
        for number in 0..<16 {
            let (low, high) = vector()
            record.storeFX(low, 160 &+ number &* 16)
            record.storeFX(high, 168 &+ number &* 16)
        }
    }

    func fillMemory(_ record: CaseRecord) {
        unsafe template.withUnsafeBytes { bytes in
            if let base = bytes.baseAddress { unsafe record.memory.copyMemory(from: base, byteCount: 3 &* 4096) }
        }
    }
}
