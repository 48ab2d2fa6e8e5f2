extension LocalAPIC {
    /// IA32_APIC_BASE.
    public static let baseMSR: UInt32 = 0x1B
    /// IA32_TSC_DEADLINE.
    public static let deadlineMSR: UInt32 = 0x6E0
    /// The registers of x2APIC mode. Source: [SDM3 §11.12.1.2].
    public static let registerMSRs: ClosedRange<UInt32> = 0x800...0x8FF

    /// Whether a model-specific register is the local APIC's.
    public static func owns(msr index: UInt32) -> Bool {
        index == baseMSR || index == deadlineMSR || registerMSRs.contains(index)
    }

    /// RDMSR.
    ///
    /// - Returns: nil where the processor raises #GP: outside x2APIC mode, and for registers that are not there or cannot be
    ///   read. Source: [SDM3 §11.12.1.2], table 11-6.
    public mutating func read(msr index: UInt32, at now: Instant, _ effects: inout Effects) -> UInt64? {
        switch index {
        case Self.baseMSR: return base
        case Self.deadlineMSR:
            advance(to: now, &effects)
            return timerMode == .deadline ? timer.tscDeadline : 0
        default: break
        }
        guard mode == .x2APIC, Self.registerMSRs.contains(index) else { return nil }
        advance(to: now, &effects)
        let number = UInt8(truncatingIfNeeded: index)
        switch number {
        case Register.icr: return icr
        // The high half of ICR is one with the low; DFR is gone; EOI can only be written.
        case Register.icrHigh, Register.dfr, Register.apr, Register.rrd, Register.eoi: return nil
        default: return register(number, at: now).map(UInt64.init)
        }
    }

    /// WRMSR.
    ///
    /// - Returns: false where the processor raises #GP: as for reading, for a register that cannot be written, and for
    ///   a reserved bit that is set. Nothing has changed then. Source: [SDM3 §11.12.1.3].
    public mutating func write(msr index: UInt32, _ value: UInt64, at now: Instant, _ effects: inout Effects) -> Bool {
        switch index {
        case Self.baseMSR:
            advance(to: now, &effects)
            return writeBase(value, at: now, &effects)
        case Self.deadlineMSR:
            advance(to: now, &effects)
            writeTSCDeadline(value, at: now, &effects)
            return true
        default: break
        }
        guard mode == .x2APIC, Self.registerMSRs.contains(index) else { return false }
        let number = UInt8(truncatingIfNeeded: index)
        guard let writable = Self.writableBits(number), value & ~writable == 0 else { return false }
        advance(to: now, &effects)
        switch number {
        case Register.icr:
            // Delivery status (bit 12) has no meaning any more and stays clear.
            icr = value & ~(1 << 12)
            send(&effects)
            return true
        case Register.selfIPI:
            // Source: [SDM3 §11.12.11]: as an ICR write with the self shorthand, edge and fixed.
            send(
                InterruptCommand(vector: UInt8(truncatingIfNeeded: value), shorthand: .toSelf), &effects)
            return true
        default:
            return setRegister(number, UInt32(truncatingIfNeeded: value), at: now, &effects)
        }
    }

    /// The bits that x2APIC mode lets software write as one; nil for a register it may not write at all.
    private static func writableBits(_ number: UInt8) -> UInt64? {
        switch number {
        case Register.tpr: 0xFF
        case Register.eoi, Register.esr: 0
        case Register.svr: UInt64(svrBits)
        // Delivery status is read-only in ICR too; no fault.
        case Register.icr: 0xFFFF_FFFF_000C_DFFF
        case Register.lvtTimer: UInt64(LocalVector.timerBits | LocalVector.readOnlyBits)
        case Register.lvtThermal, Register.lvtPerformance: UInt64(LocalVector.sensorBits | LocalVector.readOnlyBits)
        case Register.lvtLINT0, Register.lvtLINT1:
            UInt64(LocalVector.pinBits | LocalVector.readOnlyBits | LocalVector.remoteIRR)
        case Register.lvtError: UInt64(LocalVector.errorBits | LocalVector.readOnlyBits)
        case Register.initialCount: 0xFFFF_FFFF
        case Register.dcr: 0xB
        case Register.selfIPI: 0xFF
        default: nil
        }
    }
}
