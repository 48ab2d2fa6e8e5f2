public import VMCore

extension LocalAPIC {
    /// Reads the register page of xAPIC mode.
    ///
    /// Each register is 32 bits at a multiple of 16; the 12 bytes after it read as zero. Any width at any
    /// offset is answered from those bytes (§11.4.1 promises only the aligned 32-bit ones).
    ///
    /// - Parameter offset: in the page; beyond it reads as zero.
    public mutating func read(
        offset: UInt64, width: AccessWidth, at now: Instant, _ effects: inout Effects
    ) -> UInt64 {
        guard offset < 0x1000, mode == .xAPIC else { return 0 }
        advance(to: now, &effects)
        let inside = offset & 0xF
        guard let value = pageRegister(offset &>> 4, at: now) else {
            record(APICError.illegalRegisterAddress)
            return 0
        }
        var result = inside < 4 ? UInt64(value) &>> (inside &* 8) : 0
        // An access that reaches into the next register.
        if inside &+ width.bytes > 16 {
            let next = pageRegister((offset &>> 4) &+ 1, at: now) ?? 0
            result |= UInt64(next) &<< ((16 &- inside) &* 8)
        }
        return result & width.mask
    }

    private func pageRegister(_ number: UInt64, at now: Instant) -> UInt32? {
        number <= 0x3F ? register(UInt8(truncatingIfNeeded: number), at: now) : nil
    }

    /// Writes the register page of xAPIC mode: 32 bits at a register's own address, anything else is dropped.
    ///
    /// A reserved address is an error that ESR shows. Source: [SDM3 §11.4.1], [SDM3 §11.5.3].
    public mutating func write(
        offset: UInt64, width: AccessWidth, value: UInt64, at now: Instant, _ effects: inout Effects
    ) {
        guard offset < 0x1000, offset & 0xF == 0, width == .long, mode == .xAPIC else { return }
        advance(to: now, &effects)
        let number = UInt8(truncatingIfNeeded: offset &>> 4)
        guard number <= 0x3F, setRegister(number, UInt32(truncatingIfNeeded: value), at: now, &effects) else {
            return record(APICError.illegalRegisterAddress)
        }
    }
}
