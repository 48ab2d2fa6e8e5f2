extension LocalAPIC {
    /// Errors that ESR shows. Source: [SDM3 §11.5.3], figure 11-9.
    enum APICError {
        static let sendIllegalVector: UInt32 = 1 << 5
        static let receiveIllegalVector: UInt32 = 1 << 6
        static let illegalRegisterAddress: UInt32 = 1 << 7
    }

    // MARK: Priorities

    /// PPR: the task priority, or the class of the highest interrupt in service where that is higher.
    /// Source: [SDM3 §11.8.3.1].
    public var processorPriority: UInt8 {
        let task = UInt8(truncatingIfNeeded: tpr)
        let service = (isr.highest ?? 0) & 0xF0
        return task & 0xF0 >= service ? task : service
    }

    /// The interrupt that the processor would take now, were IF set.
    ///
    /// Interrupts that were pending when software disabled the APIC stay so. Source: [SDM3 §11.4.7.2], [SDM3 §11.8.3.1].
    public var pendingVector: UInt8? {
        guard mode != .disabled, let vector = irr.highest, vector & 0xF0 > processorPriority & 0xF0 else { return nil }
        return vector
    }

    /// CR8, the task priority's class. Source: [SDM3 §11.8.6].
    public var cr8: UInt64 {
        get { UInt64(tpr &>> 4) }
        set { tpr = UInt32(truncatingIfNeeded: newValue & 0xF) &<< 4 }
    }

    // MARK: Into service and out of it

    /// The processor takes its pending interrupt: IRR to ISR.
    /// - Returns: its vector; the spurious one where nothing is pending (any more), which goes into no register and
    ///   wants no EOI. Source: [SDM3 §11.8.4], [SDM3 §11.9].
    public mutating func acknowledge() -> UInt8 {
        guard let vector = pendingVector else { return UInt8(truncatingIfNeeded: svr) }
        irr.remove(vector)
        isr.insert(vector)
        return vector
    }

    /// EOI. Source: [SDM3 §11.8.5].
    mutating func endInterrupt(_ effects: inout Effects) {
        guard let vector = isr.highest else { return }
        isr.remove(vector)
        guard tmr.contains(vector) else { return }
        if lvtLINT0 & LocalVector.remoteIRR != 0, LocalVector.vector(lvtLINT0) == vector {
            lvtLINT0 &= ~LocalVector.remoteIRR
            if pins & 1 != 0 { deliver(pin: 0, &effects) }
        }
        // SVR bit 12 leaves the broadcast to software, by the I/O APIC's own EOI register.
        if svr & 1 << 12 == 0 { effects.endOfInterrupt = vector }
    }

    // MARK: Acceptance

    /// A fixed or lowest-priority interrupt arrives.
    /// - Returns: whether it was accepted: not by an APIC that is disabled, by hardware or by software.
    /// Source: [SDM3 §11.8.4].
    public mutating func accept(_ vector: UInt8, isLevelTriggered: Bool) -> Bool {
        guard mode != .disabled, isSoftwareEnabled else { return false }
        return receive(vector, isLevelTriggered: isLevelTriggered)
    }

    private mutating func receive(_ vector: UInt8, isLevelTriggered: Bool) -> Bool {
        guard vector >= 16 else {
            record(APICError.receiveIllegalVector)
            return false
        }
        irr.insert(vector)
        if isLevelTriggered { tmr.insert(vector) } else { tmr.remove(vector) }
        return true
    }

    /// Notes an error; the first since software last wrote ESR also interrupts. Source: [SDM3 §11.5.3].
    mutating func record(_ error: UInt32) {
        errors |= error
        guard !errorRaised else { return }
        errorRaised = true
        guard !LocalVector.isMasked(lvtError) else { return }
        // An illegal vector in this entry too is one more error, and no second interrupt.
        _ = receive(LocalVector.vector(lvtError), isLevelTriggered: false)
    }

    /// A local source fires: its LVT entry says what happens. Source: [SDM3 §11.5.1], [SDM3 §11.5.5].
    mutating func deliver(local entry: UInt32, _ effects: inout Effects) {
        guard mode != .disabled, !LocalVector.isMasked(entry) else { return }
        switch LocalVector.deliveryMode(entry) {
        case .fixed: _ = receive(LocalVector.vector(entry), isLevelTriggered: false)
        case .nmi: effects.raisesNMI = true
        // SMI is not emulated, INIT from a pin is a platform's reset line, and ExtINT is asked for, not sent.
        default: break
        }
    }

    // MARK: Pins

    /// Whether the 8259A pair on LINT0 reaches the processor: through an APIC that is off, where LINT0 is
    /// INTR, or by ExtINT mode. Source: [SDM3 §11.4.3], [SDM3 §11.5.1].
    public var acceptsExternalInterrupts: Bool {
        mode == .disabled
            || !LocalVector.isMasked(lvtLINT0) && LocalVector.deliveryMode(lvtLINT0) == .external
    }

    /// Drives LINT0 or LINT1. ExtINT entries, and the pins of a disabled APIC, are left to the processor, which asks.
    public mutating func setPin(_ pin: UInt8, asserted: Bool, _ effects: inout Effects) {
        let bit: UInt8 = pin == 0 ? 1 : 2
        let rose = asserted && pins & bit == 0
        if asserted { pins |= bit } else { pins &= ~bit }
        if rose { deliver(pin: pin, &effects) }
    }

    private mutating func deliver(pin: UInt8, _ effects: inout Effects) {
        let entry = pin == 0 ? lvtLINT0 : lvtLINT1
        guard mode != .disabled, !LocalVector.isMasked(entry) else { return }
        // Only LINT0 has levels, and only in fixed mode; LINT1 is always an edge. Source: [SDM3 §11.5.1], bit 15.
        guard pin == 0, LocalVector.deliveryMode(entry) == .fixed, LocalVector.isLevelTriggered(entry) else {
            return deliver(local: entry, &effects)
        }
        guard entry & LocalVector.remoteIRR == 0 else { return }
        if receive(LocalVector.vector(entry), isLevelTriggered: true) { lvtLINT0 |= LocalVector.remoteIRR }
    }

    // MARK: Destinations

    /// Whether a command's destination field names this APIC; shorthands are the sender's business.
    public func matches(_ command: InterruptCommand) -> Bool {
        guard mode != .disabled else { return false }
        if command.isBroadcast { return true }
        if !command.isLogical {
            return command.destination == (mode == .x2APIC ? id : id & 0xFF)
        }
        if mode == .x2APIC {
            // Source: [SDM3 §11.12.10.1].
            return command.destination &>> 16 == ldr &>> 16 && command.destination & ldr & 0xFFFF != 0
        }
        guard command.destination <= 0xFF else { return false }
        let logical = ldr &>> 24
        switch dfr &>> 28 {
        case 0xF:  // flat
            return command.destination & logical != 0
        case 0:  // cluster: number in the high half, a bit for each of four APICs in the low. Source: [SDM3 §11.6.2.2].
            return command.destination &>> 4 == logical &>> 4 && command.destination & logical & 0xF != 0
        default:
            return false
        }
    }
}
