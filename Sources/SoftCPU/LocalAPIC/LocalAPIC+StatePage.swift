extension LocalAPIC {
    /// Bytes of the state page.
    public static let statePageSize = 1024

    /// The registers as `VCPUState.localAPIC` holds them: 1 KiB, each at its offset in the xAPIC page, as `KVM_GET_LAPIC` has it.
    ///
    /// The ID is in bits 31-24 in x2APIC mode too, as that call gives it unless asked otherwise. Not in the page, and
    /// kept beside it: IA32_APIC_BASE and IA32_TSC_DEADLINE.
    public func statePage(at now: Instant) -> [UInt8] {
        var page = [UInt8](repeating: 0, count: Self.statePageSize)
        for number in UInt8(0)...0x3F {
            guard var value = register(number, at: now) else { continue }
            if number == Register.id { value = id &<< 24 }
            let offset = Int(number) &* 16
            for byte in 0..<4 { page[offset + byte] = UInt8(truncatingIfNeeded: value &>> UInt32(byte &* 8)) }
        }
        return page
    }

    /// Takes a state page over. Reserved bits are dropped; the ID, the version and what is computed are not taken.
    ///
    /// - Parameter base: IA32_APIC_BASE; which also says how the page is to be read. Reserved bits and the impossible
    ///   combination of its flags make it refused.
    /// - Returns: false for a page of another size or a base no APIC has; then nothing has changed.
    public mutating func restore(
        page: [UInt8], base newBase: UInt64, tscDeadline: UInt64, at now: Instant
    ) -> Bool {
        guard page.count == Self.statePageSize,
            newBase & ~(addressMask | Base.bootstrap | Base.x2APIC | Base.enabled) == 0,
            newBase & Base.x2APIC == 0 || newBase & Base.enabled != 0
        else { return false }
        func word(_ number: UInt8) -> UInt32 {
            let offset = Int(number) &* 16
            var value: UInt32 = 0
            for byte in 0..<4 { value |= UInt32(page[offset + byte]) &<< UInt32(byte &* 8) }
            return value
        }
        base = newBase
        tpr = word(Register.tpr) & 0xFF
        ldr = mode == .x2APIC ? logicalX2APICID : word(Register.ldr) & 0xFF00_0000
        dfr = word(Register.dfr) | 0x0FFF_FFFF
        svr = word(Register.svr) & Self.svrBits
        for index in UInt8(0)..<8 {
            // Vectors 0 to 15 can be in none of them.
            let legal: UInt32 = index == 0 ? 0xFFFF_0000 : .max
            isr[register: index] = word(Register.isr &+ index) & legal
            tmr[register: index] = word(Register.tmr &+ index) & legal
            irr[register: index] = word(Register.irr &+ index) & legal
        }
        esr = word(Register.esr) & 0xE0
        errors = 0
        errorRaised = false
        icr = UInt64(word(Register.icr) & 0xC_CFFF) | UInt64(word(Register.icrHigh)) &<< 32
        if mode != .x2APIC { icr &= 0xFF00_0000_FFFF_FFFF }
        lvtTimer = word(Register.lvtTimer) & LocalVector.timerBits
        lvtThermal = word(Register.lvtThermal) & LocalVector.sensorBits
        lvtPerformance = word(Register.lvtPerformance) & LocalVector.sensorBits
        lvtLINT0 = word(Register.lvtLINT0) & (LocalVector.pinBits | LocalVector.remoteIRR)
        lvtLINT1 = word(Register.lvtLINT1) & LocalVector.pinBits
        lvtError = word(Register.lvtError) & LocalVector.errorBits
        timer = APICTimer()
        timer.divideConfiguration = word(Register.dcr) & 0xB
        timer.start(word(Register.initialCount), at: now.nanoseconds)
        let current = word(Register.currentCount)
        switch timerMode {
        case .oneShot where current == 0: timer.isCounting = false
        case .oneShot, .periodic: if current != 0 { timer.resume(from: current, at: now.nanoseconds) }
        case .deadline:
            timer.isCounting = false
            timer.tscDeadline = tscDeadline
        case .none: timer.isCounting = false
        }
        return true
    }
}
