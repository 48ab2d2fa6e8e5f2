/// The arithmetic flags, kept as two words from which each is cheap to tell.
///
/// - `result`: the last result, sign-extended to 64 bits. ZF and SF are seen from it, PF from its low byte.
/// - `carries`: bit 63 is CF, bit 62 is CF ^ OF (the carry into the top bit), bit 3 is AF; bits 1 and 0 invert SF and PF,
///   for flag words that no result has (POPF, SAHF, comparisons of floating-point numbers).
enum Flags {
    static var top: UInt64 { 0xC000_0000_0000_0000 }

    /// Carries of `a + b (+ carry) = r`: out of each bit, then only those that are flags.
    @inline(__always) static func add<T: FixedWidthInteger & UnsignedInteger>(_ a: T, _ b: T, _ r: T) -> UInt64 {
        place((a & b) | ((a | b) & ~r))
    }

    /// Borrows of `a - b (- carry) = r`.
    @inline(__always) static func subtract<T: FixedWidthInteger & UnsignedInteger>(_ a: T, _ b: T, _ r: T) -> UInt64 {
        place((~a & b) | (~(a ^ b) & r))
    }

    @inline(__always) static func place<T: FixedWidthInteger & UnsignedInteger>(_ vector: T) -> UInt64 {
        let shift = UInt64(truncatingIfNeeded: 64 &- T.bitWidth)
        return (UInt64(truncatingIfNeeded: vector) &<< shift) & top | UInt64(truncatingIfNeeded: vector & 8)
    }

    /// The result word of a value of any width.
    @inline(__always) static func result<T: FixedWidthInteger & UnsignedInteger>(_ r: T) -> UInt64 {
        let shift = UInt64(truncatingIfNeeded: 64 &- T.bitWidth)
        return UInt64(bitPattern: Int64(bitPattern: UInt64(truncatingIfNeeded: r) &<< shift) &>> Int64(bitPattern: shift))
    }

    /// The carries word of CF and OF alone.
    @inline(__always) static func carryOverflow(_ carry: UInt64, _ overflow: UInt64) -> UInt64 {
        carry &<< 63 | (carry ^ overflow) &<< 62
    }

    @inline(__always) static func carry(_ carries: UInt64) -> UInt64 { carries &>> 63 }
    @inline(__always) static func overflow(_ carries: UInt64) -> UInt64 { (carries ^ carries &<< 1) &>> 63 }

    @inline(__always) static func parity(_ result: UInt64, _ carries: UInt64) -> UInt64 {
        UInt64(truncatingIfNeeded: ~((result ^ (carries & 1)) & 0xFF).nonzeroBitCount & 1)
    }

    /// CF, PF, AF, ZF, SF, OF in their places of RFLAGS.
    static func word(_ result: UInt64, _ carries: UInt64) -> UInt64 {
        var word = carry(carries)
        word |= parity(result, carries) &<< 2
        word |= (carries & 8) &<< 1
        word |= result == 0 ? RFLAGS.zf : 0
        word |= ((result ^ carries &<< 62) &>> 63) &<< 7
        word |= overflow(carries) &<< 11
        return word
    }

    /// The two words of a flag word.
    static func words(_ flags: UInt64) -> (result: UInt64, carries: UInt64) {
        let carry = flags & 1
        let overflow = flags &>> 11 & 1
        var carries = carryOverflow(carry, overflow)
        carries |= (flags & RFLAGS.af) &>> 1
        carries |= (flags &>> 7 & 1) &<< 1
        carries |= ~flags &>> 2 & 1
        return (flags & RFLAGS.zf != 0 ? 0 : 0x100, carries)
    }

    /// Condition `code` as the instructions encode it: O, NO, B, AE, E, NE, BE, A, S, NS, P, NP, L, GE, LE, G.
    @inline(__always) static func condition(_ code: UInt8, _ result: UInt64, _ carries: UInt64) -> Bool {
        let holds: Bool
        switch code &>> 1 {
        case 0: holds = Int64(bitPattern: carries ^ carries &<< 1) < 0
        case 1: holds = Int64(bitPattern: carries) < 0
        case 2: holds = result == 0
        case 3: holds = Int64(bitPattern: carries) < 0 || result == 0
        case 4: holds = Int64(bitPattern: result ^ carries &<< 62) < 0
        case 5: holds = parity(result, carries) != 0
        case 6: holds = Int64(bitPattern: result ^ carries &<< 62 ^ carries ^ carries &<< 1) < 0
        default:
            holds = result == 0 || Int64(bitPattern: result ^ carries &<< 62 ^ carries ^ carries &<< 1) < 0
        }
        return holds != (code & 1 != 0)
    }
}

extension CPU {
    /// RFLAGS, whole.
    var rflags: UInt64 {
        get { s.flags | Flags.word(s.flagResult, s.flagCarries) }
        nonmutating set {
            s.flags = newValue & RFLAGS.all & ~RFLAGS.arithmetic | 2
            setArithmeticFlags(newValue)
        }
    }

    func setArithmeticFlags(_ flags: UInt64) {
        let words = Flags.words(flags)
        s.flagResult = words.result
        s.flagCarries = words.carries
    }

    @inline(__always) func setFlags(_ result: UInt64, _ carries: UInt64) {
        s.flagResult = result
        s.flagCarries = carries
    }

    /// Changes CF and leaves the rest.
    @inline(__always) func setCarry(_ carry: UInt64) {
        if Flags.carry(s.flagCarries) != carry { s.flagCarries ^= Flags.top }
    }

    @inline(__always) func setCarryOverflow(_ carry: UInt64, _ overflow: UInt64) {
        s.flagCarries = s.flagCarries & ~Flags.top | Flags.carryOverflow(carry, overflow)
    }

    @inline(__always) func condition(_ code: UInt8) -> Bool { Flags.condition(code, s.flagResult, s.flagCarries) }
}
