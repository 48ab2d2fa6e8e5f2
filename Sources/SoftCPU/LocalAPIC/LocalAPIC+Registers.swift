extension LocalAPIC {
    /// Numbers of the registers: their offset in the xAPIC page / 16, and their MSR in x2APIC mode - 0x800.
    /// Source: [SDM3 §11.4.1], table 11-1; [SDM3 §11.12.1.2], table 11-6.
    enum Register {
        static let id: UInt8 = 0x02
        static let version: UInt8 = 0x03
        static let tpr: UInt8 = 0x08
        static let apr: UInt8 = 0x09
        static let ppr: UInt8 = 0x0A
        static let eoi: UInt8 = 0x0B
        static let rrd: UInt8 = 0x0C
        static let ldr: UInt8 = 0x0D
        static let dfr: UInt8 = 0x0E
        static let svr: UInt8 = 0x0F
        static let isr: UInt8 = 0x10
        static let tmr: UInt8 = 0x18
        static let irr: UInt8 = 0x20
        static let esr: UInt8 = 0x28
        static let icr: UInt8 = 0x30
        static let icrHigh: UInt8 = 0x31
        static let lvtTimer: UInt8 = 0x32
        static let lvtThermal: UInt8 = 0x33
        static let lvtPerformance: UInt8 = 0x34
        static let lvtLINT0: UInt8 = 0x35
        static let lvtLINT1: UInt8 = 0x36
        static let lvtError: UInt8 = 0x37
        static let initialCount: UInt8 = 0x38
        static let currentCount: UInt8 = 0x39
        static let dcr: UInt8 = 0x3E
        static let selfIPI: UInt8 = 0x3F
    }

    /// What software can set in SVR: vector, enable, focus checking, EOI-broadcast suppression. Source: [SDM3 §11.9].
    static let svrBits: UInt32 = 0x13FF

    /// The registers that both modes have, as 32-bit values.
    /// - Returns: nil for a number that is reserved in xAPIC mode.
    func register(_ number: UInt8, at now: Instant) -> UInt32? {
        switch number {
        case Register.id: mode == .x2APIC ? id : id &<< 24
        case Register.version: Self.version
        case Register.tpr: tpr
        // Arbitration priority and remote read belong to the APIC bus that is gone: they read as zero.
        case Register.apr, Register.eoi, Register.rrd: 0
        case Register.ppr: UInt32(processorPriority)
        case Register.ldr: ldr
        case Register.dfr: dfr
        case Register.svr: svr
        case 0x10...0x17: isr[register: number &- Register.isr]
        case 0x18...0x1F: tmr[register: number &- Register.tmr]
        case 0x20...0x27: irr[register: number &- Register.irr]
        case Register.esr: esr
        case Register.icr: UInt32(truncatingIfNeeded: icr)
        case Register.icrHigh: UInt32(truncatingIfNeeded: icr &>> 32)
        case Register.lvtTimer: lvtTimer
        case Register.lvtThermal: lvtThermal
        case Register.lvtPerformance: lvtPerformance
        case Register.lvtLINT0: lvtLINT0
        case Register.lvtLINT1: lvtLINT1
        case Register.lvtError: lvtError
        case Register.initialCount: timer.initialCount
        case Register.currentCount: currentCount(at: now)
        case Register.dcr: timer.divideConfiguration
        default: nil
        }
    }

    /// Writes a register that both modes have, reserved bits dropped; what software cannot write stays.
    /// - Returns: false for a number that is reserved in xAPIC mode.
    mutating func setRegister(_ number: UInt8, _ value: UInt32, at now: Instant, _ effects: inout Effects) -> Bool {
        let mask = isSoftwareEnabled ? 0 : LocalVector.masked
        switch number {
        case Register.tpr: tpr = value & 0xFF
        case Register.eoi: endInterrupt(&effects)
        case Register.ldr: ldr = value & 0xFF00_0000
        // Only the model can be chosen. Source: [SDM3 §11.6.2.2].
        case Register.dfr: dfr = value | 0x0FFF_FFFF
        case Register.svr: writeSVR(value)
        case Register.esr:
            esr = errors
            errors = 0
            errorRaised = false
        case Register.icr:
            icr = icr & ~0xFFFF_FFFF | UInt64(value & 0xCCFFF & ~(1 << 12))
            send(&effects)
        case Register.icrHigh: icr = icr & 0xFFFF_FFFF | UInt64(value & 0xFF00_0000) &<< 32
        case Register.lvtTimer: writeTimerEntry(value, at: now, &effects)
        case Register.lvtThermal: lvtThermal = value & LocalVector.sensorBits | mask
        case Register.lvtPerformance: lvtPerformance = value & LocalVector.sensorBits | mask
        case Register.lvtLINT0: writeLINT0(value & LocalVector.pinBits | mask, &effects)
        case Register.lvtLINT1: lvtLINT1 = value & LocalVector.pinBits | mask
        case Register.lvtError: lvtError = value & LocalVector.errorBits | mask
        case Register.initialCount: writeInitialCount(value, at: now, &effects)
        case Register.dcr: writeDivide(value, at: now, &effects)
        default: return register(number, at: now) != nil
        }
        return true
    }

    /// Clearing the enable flag masks every LVT entry; setting it again leaves them masked. Source: [SDM3 §11.4.7.2].
    private mutating func writeSVR(_ value: UInt32) {
        svr = value & Self.svrBits
        guard !isSoftwareEnabled else { return }
        lvtTimer |= LocalVector.masked
        lvtThermal |= LocalVector.masked
        lvtPerformance |= LocalVector.masked
        lvtLINT0 |= LocalVector.masked
        lvtLINT1 |= LocalVector.masked
        lvtError |= LocalVector.masked
    }

    /// A level that is waiting is seen when the mask goes; an entry that is no fixed level has no remote IRR.
    private mutating func writeLINT0(_ value: UInt32, _ effects: inout Effects) {
        let isLevel = LocalVector.isLevelTriggered(value) && LocalVector.deliveryMode(value) == .fixed
        lvtLINT0 = value | (isLevel ? lvtLINT0 & LocalVector.remoteIRR : 0)
        if isLevel, pins & 1 != 0 { setPin(0, asserted: false, &effects); setPin(0, asserted: true, &effects) }
    }

    /// Sends what ICR says. Source: [SDM3 §11.6.1]; the illegal vectors [SDM3 §11.5.2].
    mutating func send(_ effects: inout Effects) {
        guard let command = InterruptCommand(icr: icr, isX2APIC: mode == .x2APIC) else { return }
        send(command, &effects)
    }

    mutating func send(_ command: InterruptCommand, _ effects: inout Effects) {
        switch command.deliveryMode {
        case .reserved: return
        case .fixed, .lowestPriority:
            guard command.vector >= 16 else { return record(APICError.sendIllegalVector) }
        default: break
        }
        effects.command = command
    }
}
