internal import CHost
internal import X86

/// Arithmetic, logic and moves: the general path. The hot forms have handlers of their own in `Hot/`.
extension CPU {
    /// The carries and result of an operation on `size` bytes, from zero-extended values.
    @inline(__always)
    func setAddFlags(_ a: UInt64, _ b: UInt64, _ r: UInt64, _ size: Int) {
        let shift = UInt64(truncatingIfNeeded: 64 &- size &* 8)
        let vector = (a & b) | ((a | b) & ~r)
        setFlags(signExtend(r, size), (vector &<< shift) & Flags.top | vector & 8)
    }

    @inline(__always)
    func setSubtractFlags(_ a: UInt64, _ b: UInt64, _ r: UInt64, _ size: Int) {
        let shift = UInt64(truncatingIfNeeded: 64 &- size &* 8)
        let vector = (~a & b) | (~(a ^ b) & r)
        setFlags(signExtend(r, size), (vector &<< shift) & Flags.top | vector & 8)
    }

    @inline(__always) func setLogicFlags(_ r: UInt64, _ size: Int) { setFlags(signExtend(r, size), 0) }

    @inline(__always) func signExtend(_ value: UInt64, _ size: Int) -> UInt64 {
        let shift = Int64(truncatingIfNeeded: 64 &- size &* 8)
        return UInt64(bitPattern: (Int64(bitPattern: value) &<< shift) &>> shift)
    }

    func executeAdd(_ i: Insn, carry: UInt64) throws(Fault) {
        let size = i.size(0)
        let b = try read(i, 1) & mask(size)
        let a = try modify(i, locked: i.isLocked) { $0 &+ b &+ carry } & mask(size)
        setAddFlags(a, b, (a &+ b &+ carry), size)
    }

    func executeSubtract(_ i: Insn, borrow: UInt64) throws(Fault) {
        let size = i.size(0)
        let b = try read(i, 1) & mask(size)
        let a = try modify(i, locked: i.isLocked) { $0 &- b &- borrow } & mask(size)
        setSubtractFlags(a, b, (a &- b &- borrow), size)
    }

    func executeCompare(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let b = try read(i, 1) & mask(size)
        let a = try read(i, 0)
        setSubtractFlags(a, b, a &- b, size)
    }

    func executeTest(_ i: Insn) throws(Fault) {
        let b = try read(i, 1)
        setLogicFlags(try read(i, 0) & b, i.size(0))
    }

    func executeAnd(_ i: Insn) throws(Fault) {
        let b = try read(i, 1)
        setLogicFlags(try modify(i, locked: i.isLocked) { $0 & b } & b, i.size(0))
    }

    func executeOr(_ i: Insn) throws(Fault) {
        let b = try read(i, 1)
        setLogicFlags(try modify(i, locked: i.isLocked) { $0 | b } | b, i.size(0))
    }

    func executeXor(_ i: Insn) throws(Fault) {
        let b = try read(i, 1)
        setLogicFlags(try modify(i, locked: i.isLocked) { $0 ^ b } ^ b, i.size(0))
    }

    func executeNot(_ i: Insn) throws(Fault) { _ = try modify(i, locked: i.isLocked) { ~$0 } }

    func executeNegate(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let a = try modify(i, locked: i.isLocked) { 0 &- $0 } & mask(size)
        setSubtractFlags(0, a, 0 &- a, size)
    }

    func executeIncrement(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let a = try modify(i, locked: i.isLocked) { $0 &+ 1 } & mask(size)
        let carry = Flags.carry(s.flagCarries)
        setAddFlags(a, 1, a &+ 1, size)
        setCarry(carry)
    }

    func executeDecrement(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let a = try modify(i, locked: i.isLocked) { $0 &- 1 } & mask(size)
        let carry = Flags.carry(s.flagCarries)
        setSubtractFlags(a, 1, a &- 1, size)
        setCarry(carry)
    }

    // MARK: Exchange

    func executeExchange(_ i: Insn) throws(Fault) {
        if i.kind(0) == Insn.Kind.register {
            let a = readRegister(i.register(0))
            let b = readRegister(i.register(1))
            writeRegister(i.register(0), b)
            writeRegister(i.register(1), a)
            return
        }
        // With memory it is locked, prefix or not. Source: [SDM2 XCHG].
        let size = i.size(0)
        let value = readRegister(i.register(1))
        let at = try linear(i, size, write: true)
        let (host, physical) = try hostForWrite(at, size, user: isUser)
        guard host != 0 else {
            let old = try load(at, size, user: isUser)
            try store(at, size, value, user: isUser)
            return writeRegister(i.register(1), old)
        }
        let old: UInt64 =
            switch size {
            case 1: UInt64(chost_exchange8(host, UInt8(truncatingIfNeeded: value)))
            case 2: UInt64(chost_exchange16(host, UInt16(truncatingIfNeeded: value)))
            case 4: UInt64(chost_exchange32(host, UInt32(truncatingIfNeeded: value)))
            default: chost_exchange64(host, value)
            }
        storedPhysical(physical, size)
        writeRegister(i.register(1), old)
    }

    func compareExchange(_ host: UInt, _ size: Int, _ expected: UInt64, _ desired: UInt64) -> UInt64 {
        switch size {
        case 1:
            UInt64(chost_compare_exchange8(host, UInt8(truncatingIfNeeded: expected), UInt8(truncatingIfNeeded: desired)))
        case 2:
            UInt64(chost_compare_exchange16(host, UInt16(truncatingIfNeeded: expected), UInt16(truncatingIfNeeded: desired)))
        case 4:
            UInt64(chost_compare_exchange32(host, UInt32(truncatingIfNeeded: expected), UInt32(truncatingIfNeeded: desired)))
        default: chost_compare_exchange64(host, expected, desired)
        }
    }

    func executeExchangeAdd(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let b = readRegister(i.register(1)) & mask(size)
        let a: UInt64
        if i.kind(0) == Insn.Kind.register {
            a = readRegister(i.register(0))
            writeRegister(i.register(1), a)
            writeRegister(i.register(0), a &+ b)
        } else {
            a = try modify(i, locked: i.isLocked) { $0 &+ b } & mask(size)
            writeRegister(i.register(1), a)
        }
        setAddFlags(a, b, a &+ b, size)
    }

    func executeCompareExchange(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let expected = self[0] & mask(size)
        let desired = readRegister(i.register(1))
        if i.kind(0) == Insn.Kind.register {
            // A register that differs is not written at all: its upper half stays.
            let old = readRegister(i.register(0)) & mask(size)
            setSubtractFlags(expected, old, expected &- old, size)
            if old == expected { writeRegister(i.register(0), desired) } else { writeRegister(0, size: size, old) }
            return
        }
        // Memory is written in either case, with what it held where it differs. Source: [SDM2 CMPXCHG].
        let old = try modify(i, locked: i.isLocked) { $0 & mask(size) == expected ? desired : $0 } & mask(size)
        setSubtractFlags(expected, old, expected &- old, size)
        if old != expected { writeRegister(0, size: size, old) }
    }

    func executeCompareExchange8(_ i: Insn) throws(Fault) {
        let expected = self[0] & 0xFFFF_FFFF | self[2] &<< 32
        let desired = self[3] & 0xFFFF_FFFF | self[1] &<< 32
        let at = try linear(i, 8, write: true)
        let old: UInt64
        if i.isLocked {
            old = try modifyLocked(at, 8) { $0 == expected ? desired : $0 }
        } else {
            try probeWrite(at, 8, user: isUser)
            old = try load(at, 8, user: isUser)
            try store(at, 8, old == expected ? desired : old, user: isUser)
        }
        finishPair(old == expected)
        if old != expected {
            self[0] = old & 0xFFFF_FFFF
            self[2] = old &>> 32
        }
    }

    /// ZF, and nothing else.
    private func finishPair(_ equal: Bool) {
        setArithmeticFlags(equal ? rflags | RFLAGS.zf : rflags & ~RFLAGS.zf)
    }

    func executeCompareExchange16(_ i: Insn) throws(Fault) {
        // Alignment comes before what the segment says: a stack address that is neither is #GP, not #SS, on processors.
        let segment = Int(i.f.segment)
        guard (offset(i) &+ (segment >= SegmentIndex.fs ? segmentBase(segment) : 0)) & 15 == 0 else { throw .protection }
        let at = try linear(i, 16, write: true)
        let (host, physical) = try hostForWrite(at, 16, user: isUser)
        let expected = chost_pair(low: self[0], high: self[2])
        let desired = chost_pair(low: self[3], high: self[1])
        let old: chost_pair
        if host != 0 {
            old = chost_compare_exchange128(host, expected, desired)
            storedPhysical(physical, 16)
        } else {
            old = chost_pair(
                low: try load(at, 8, user: isUser), high: try load(at &+ 8, 8, user: isUser))
            let equal = old.low == expected.low && old.high == expected.high
            try store(at, 8, equal ? desired.low : old.low, user: isUser)
            try store(at &+ 8, 8, equal ? desired.high : old.high, user: isUser)
        }
        let equal = old.low == expected.low && old.high == expected.high
        finishPair(equal)
        if !equal {
            self[0] = old.low
            self[2] = old.high
        }
    }

    // MARK: Moves

    func executeMove(_ i: Insn) throws(Fault) -> Flow {
        let source = i.register(1) &>> 4
        let target = i.register(0) &>> 4
        if i.kind(0) == Insn.Kind.register, target >= 5 {
            if target == 5 {
                let number = Int(i.register(0) & 7)
                try loadSegment(number, UInt16(truncatingIfNeeded: try read(i, 1)))
                if number == SegmentIndex.ss { s.shadow = 2 }
                return .end
            }
            return try writeSpecial(i)
        }
        if i.kind(1) == Insn.Kind.register, source >= 6 {
            try readSpecial(i)
            return .next
        }
        try write(i, 0, try read(i, 1))
        return .next
    }

    func executeMoveSignExtended(_ i: Insn) throws(Fault) {
        writeRegister(i.register(0), signExtend(try read(i, 1), i.size(1)))
    }

    func executeSwapBytes(_ i: Insn) {
        let value = readRegister(i.register(0))
        switch i.size(0) {
        case 8: writeRegister(i.register(0), value.byteSwapped)
        case 4: writeRegister(i.register(0), UInt64(UInt32(truncatingIfNeeded: value).byteSwapped))
        // Undefined; processors give zero. Source: [SDM2 BSWAP].
        default: writeRegister(i.register(0), 0)
        }
    }

    func executeMoveBigEndian(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let value = try read(i, 1)
        let swapped = value.byteSwapped &>> UInt64(truncatingIfNeeded: 64 &- size &* 8)
        try write(i, 0, swapped)
    }

    // MARK: Decimal. Source: [SDM2 AAA, AAD, AAM, AAS, DAA, DAS].

    func executeDecimalAdjust(subtract: Bool) {
        let flags = rflags
        let al = self[0] & 0xFF
        var result = al
        var carry = flags & RFLAGS.cf != 0
        let oldCarry = carry
        carry = false
        var adjust = false
        if al & 15 > 9 || flags & RFLAGS.af != 0 {
            carry = oldCarry || (subtract ? al < 6 : al > 0xF9)
            result = (subtract ? result &- 6 : result &+ 6) & 0xFF
            adjust = true
        }
        if al > 0x99 || oldCarry {
            result = (subtract ? result &- 0x60 : result &+ 0x60) & 0xFF
            carry = true
        }
        self[0] = self[0] & ~0xFF | result
        let carries = Flags.carryOverflow(carry ? 1 : 0, 0) | (adjust ? 8 : 0)
        setFlags(signExtend(result, 1), carries)
    }

    func executeASCIIAdjust(subtract: Bool) {
        let flags = rflags
        var ax = self[0] & 0xFFFF
        let adjust = ax & 15 > 9 || flags & RFLAGS.af != 0
        if adjust { ax = subtract ? ax &- 0x106 : ax &+ 0x106 }
        ax &= 0xFF0F
        self[0] = self[0] & ~0xFFFF | ax
        setFlags(signExtend(ax & 0xFF, 1), Flags.carryOverflow(adjust ? 1 : 0, 0) | (adjust ? 8 : 0))
    }

    func executeASCIIMultiply(_ i: Insn) throws(Fault) {
        let base = i.f.immediate & 0xFF
        guard base != 0 else { throw .divide }
        let al = self[0] & 0xFF
        let result = (al / base) &<< 8 | al % base
        self[0] = self[0] & ~0xFFFF | result
        setFlags(signExtend(result & 0xFF, 1), 0)
    }

    func executeASCIIDivide(_ i: Insn) {
        let result = ((self[0] & 0xFF) &+ (self[0] &>> 8 & 0xFF) &* (i.f.immediate & 0xFF)) & 0xFF
        self[0] = self[0] & ~0xFFFF | result
        setFlags(signExtend(result, 1), 0)
    }
}
