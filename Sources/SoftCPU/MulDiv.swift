internal import X86

/// Multiplication and division. Source: [SDM2 MUL, IMUL, DIV, IDIV].
extension CPU {
    func executeMultiply(_ i: Insn) throws(Fault) {
        if i.f.mnemonic == .imul, i.kind(1) != Insn.Kind.none { return try executeMultiplySigned(i) }
        let size = i.size(0)
        let b = try read(i, 0)
        let signed = i.f.mnemonic == .imul
        if size == 8 {
            let low: UInt64
            let high: UInt64
            if signed {
                let product = Int64(bitPattern: self[0]).multipliedFullWidth(by: Int64(bitPattern: b))
                low = product.low
                high = UInt64(bitPattern: product.high)
            } else {
                let product = self[0].multipliedFullWidth(by: b)
                low = product.low
                high = product.high
            }
            self[0] = low
            self[2] = high
            let fits = signed ? high == UInt64(bitPattern: Int64(bitPattern: low) &>> 63) : high == 0
            setFlags(low, fits ? 0 : Flags.carryOverflow(1, 1))
            return
        }
        let bits = UInt64(truncatingIfNeeded: size &* 8)
        let product =
            signed ? signExtend(self[0], size) &* signExtend(b, size) : (self[0] & mask(size)) &* (b & mask(size))
        let low = product & mask(size)
        let high = product &>> bits & mask(size)
        if size == 1 {
            self[0] = self[0] & ~0xFFFF | product & 0xFFFF
        } else {
            writeRegister(0, size: size, low)
            writeRegister(2, size: size, high)
        }
        let fits = signed ? signExtend(low, size) == signExtend(product, min(size &* 2, 8)) : high == 0
        setFlags(signExtend(low, size), fits ? 0 : Flags.carryOverflow(1, 1))
    }

    /// IMUL with two or three operands.
    func executeMultiplySigned(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let three = i.kind(2) != Insn.Kind.none
        let a = Int64(bitPattern: signExtend(try read(i, 1), size))
        let b = Int64(bitPattern: signExtend(three ? try read(i, 2) : readRegister(i.register(0)), size))
        let (product, overflow) = a.multipliedReportingOverflow(by: b)
        let result = UInt64(bitPattern: product)
        let lost = overflow || signExtend(result, size) != result
        writeRegister(i.register(0), result)
        setFlags(signExtend(result, size), lost ? Flags.carryOverflow(1, 1) : 0)
    }

    func executeDivide(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let divisor = try read(i, 0) & mask(size)
        guard divisor != 0 else { throw .divide }
        if size == 8 {
            guard self[2] < divisor else { throw .divide }
            let (quotient, remainder) = divisor.dividingFullWidth((self[2], self[0]))
            self[0] = quotient
            self[2] = remainder
            return
        }
        let bits = UInt64(truncatingIfNeeded: size &* 8)
        let dividend =
            size == 1 ? self[0] & 0xFFFF : (self[2] & mask(size)) &<< bits | self[0] & mask(size)
        let quotient = dividend / divisor
        let remainder = dividend % divisor
        guard quotient <= mask(size) else { throw .divide }
        finishDivision(size, quotient, remainder)
    }

    private func finishDivision(_ size: Int, _ quotient: UInt64, _ remainder: UInt64) {
        if size == 1 {
            self[0] = self[0] & ~0xFFFF | (remainder & 0xFF) &<< 8 | quotient & 0xFF
        } else {
            writeRegister(0, size: size, quotient)
            writeRegister(2, size: size, remainder)
        }
    }

    func executeDivideSigned(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let divisor = Int64(bitPattern: signExtend(try read(i, 0), size))
        guard divisor != 0 else { throw .divide }
        if size == 8 {
            // By magnitudes, so that no overflow of ours can trap.
            let negative = Int64(bitPattern: self[2]) < 0
            var high = self[2]
            var low = self[0]
            if negative {
                low = 0 &- low
                high = ~high &+ (low == 0 ? 1 : 0)
            }
            let magnitude = divisor.magnitude
            guard high < magnitude else { throw .divide }
            let (quotient, remainder) = magnitude.dividingFullWidth((high, low))
            let negativeQuotient = negative != (divisor < 0)
            guard quotient <= (negativeQuotient ? 1 &<< 63 : (1 &<< 63) &- 1) else { throw .divide }
            self[0] = negativeQuotient ? 0 &- quotient : quotient
            self[2] = negative ? 0 &- remainder : remainder
            return
        }
        let bits = UInt64(truncatingIfNeeded: size &* 8)
        let dividend =
            size == 1
            ? Int64(bitPattern: signExtend(self[0], 2))
            : Int64(bitPattern: signExtend((self[2] & mask(size)) &<< bits | self[0] & mask(size), size &* 2))
        let (quotient, overflow) = dividend.dividedReportingOverflow(by: divisor)
        let remainder = dividend.remainderReportingOverflow(dividingBy: divisor).partialValue
        guard !overflow, signExtend(UInt64(bitPattern: quotient), size) == UInt64(bitPattern: quotient) else { throw .divide }
        finishDivision(size, UInt64(bitPattern: quotient), UInt64(bitPattern: remainder))
    }
}
