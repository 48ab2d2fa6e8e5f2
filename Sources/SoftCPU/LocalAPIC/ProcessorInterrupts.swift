public import VMCore

/// A vCPU's side of its local APIC. Used on the vCPU's own thread, but for `poll` and `deadline`.
///
/// The vCPU's attention word says when there is something to look at: `.interrupt` when `deliverable` may have become
/// more than it was, or the 8259A pair asks; `.nmi`, `.initialise` and `.startup` are events of their own.
public final class ProcessorInterrupts: LocalInterruptController {
    private let fabric: InterruptFabric
    private let unit: LocalAPICUnit

    init(fabric: InterruptFabric, unit: LocalAPICUnit) {
        self.fabric = fabric
        self.unit = unit
    }

    private func perform<Result: Sendable>(
        _ body: (inout LocalAPICUnit.Guarded, LocalAPIC.Instant, inout LocalAPIC.Effects) -> Result
    ) -> Result {
        let (result, effects) = unit.access(body)
        if effects.command != nil || effects.endOfInterrupt != nil { fabric.perform(effects, from: unit) }
        return result
    }

    // MARK: Registers

    /// IA32_APIC_BASE.
    public var apicBase: UInt64 { perform { guarded, _, _ in guarded.chip.apicBase } }

    /// Where memory accesses reach the register page; nil where they do not. Changes only by a write to IA32_APIC_BASE
    /// and by restoring state, so a vCPU may keep it.
    public var page: UInt64? { perform { guarded, _, _ in guarded.chip.registerPage } }

    /// Reads the register page at an offset in it.
    public func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        perform { guarded, now, effects in guarded.chip.read(offset: offset, width: width, at: now, &effects) }
    }

    /// Writes the register page at an offset in it. Interrupts it sends have been delivered when it returns.
    public func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        perform { guarded, now, effects in
            guarded.chip.write(offset: offset, width: width, value: value, at: now, &effects)
        }
    }

    /// RDMSR of a register that `LocalAPIC.owns`; nil where it raises #GP.
    public func readMSR(_ index: UInt32) -> UInt64? {
        perform { guarded, now, effects in guarded.chip.read(msr: index, at: now, &effects) }
    }

    /// WRMSR; false where it raises #GP.
    public func writeMSR(_ index: UInt32, _ value: UInt64) -> Bool {
        perform { guarded, now, effects in guarded.chip.write(msr: index, value, at: now, &effects) }
    }

    /// CR8: the task priority's upper four bits. The processor refuses what does not fit.
    public var taskPriority: UInt8 {
        get { perform { guarded, _, _ in UInt8(truncatingIfNeeded: guarded.chip.cr8) } }
        set { perform { guarded, _, _ in guarded.chip.cr8 = UInt64(newValue) } }
    }

    /// What the guest's time-stamp counter is ahead of the processor clock's, modulo 2^64; a deadline moves with it.
    public func setTSCOffset(_ offset: UInt64) {
        perform { guarded, _, effects in
            guarded.tscOffset = offset
            effects.timerChanged = true
        }
    }

    func read(offset: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: read(offset: offset, width: .long)) }

    func write(offset: UInt64, value: UInt32) { write(offset: offset, width: .long, value: UInt64(value)) }

    // MARK: Taking interrupts

    /// The vector that would be delivered now, above the processor priority.
    public var deliverable: UInt8? { perform { guarded, _, _ in guarded.chip.pendingVector } }

    /// Moves it into service; nil where there is nothing.
    public func acknowledge() -> UInt8? {
        perform { guarded, _, _ in guarded.chip.pendingVector == nil ? nil : guarded.chip.acknowledge() }
    }

    /// Whether LINT0 takes the 8259A pair's interrupts, or the APIC is off and INTR is the pin.
    public var acceptsExternalInterrupts: Bool { perform { guarded, _, _ in guarded.chip.acceptsExternalInterrupts } }

    /// INIT: all but the identifier and IA32_APIC_BASE go back to reset.
    public func initialise() {
        perform { guarded, _, effects in
            guarded.chip.initialize()
            effects.timerChanged = true
        }
    }

    // MARK: Time

    /// When the timer next interrupts, in nanoseconds on the processor clock; nil for never. Lock-free.
    public var deadline: UInt64? { unit.deadline }

    /// Makes what is due pending. Any thread; needed only where there is no alarm service.
    public func poll() { unit.timerElapsed() }

    // MARK: State

    /// `VCPUState.localAPIC`: the register page as `KVM_GET_LAPIC` lays it out, 1 KiB.
    public func state() -> [UInt8] {
        perform { guarded, now, effects in
            guarded.chip.advance(to: now, &effects)
            return guarded.chip.statePage(at: now)
        }
    }

    /// IA32_TSC_DEADLINE, which is not in the page.
    public var tscDeadline: UInt64 { perform { guarded, _, _ in guarded.chip.timer.tscDeadline } }

    /// Takes over a page that `state` gave, of another local APIC too.
    ///
    /// - Parameter page: empty leaves all but the base as it is.
    /// - Returns: false where the page or IA32_APIC_BASE is none that a local APIC can have; nothing has changed then.
    public func restore(page: [UInt8], apicBase: UInt64, tscDeadline: UInt64) -> Bool {
        perform { guarded, now, effects in
            effects.timerChanged = true
            let page = page.isEmpty ? guarded.chip.statePage(at: now) : page
            return guarded.chip.restore(page: page, base: apicBase, tscDeadline: tscDeadline, at: now)
        }
    }
}
