internal import Synchronization
internal import VMCore

/// One local APIC with its lock and clock, and the attention word of the processor it belongs to.
///
/// Every change goes through `access`, which afterwards makes the attention word and the alarm follow: the one place that does.
final class LocalAPICUnit: Sendable {
    struct Guarded: Sendable {
        var chip: LocalAPIC
        var tscOffset: UInt64 = 0
        /// Of the 8259A pair, on the boot processor.
        var source: (any ExternalInterruptSource)?
        var alarm: (any Alarm)?
        /// What the alarm is set to, so that only changes reach it.
        var armed: UInt64?
        /// What the processor was last told it can take, so that only news wakes it.
        var announced: UInt8?
        var externalAnnounced = false
    }

    let attention: Attention
    private let clock: any ProcessorClock
    private let state: Mutex<Guarded>
    /// `deadline` for whoever asks without the lock; `.max` for never.
    private let deadlineWord = Atomic<UInt64>(.max)

    init(_ chip: LocalAPIC, attention: Attention, clock: any ProcessorClock, alarms: (any AlarmService)?) {
        self.attention = attention
        self.clock = clock
        var chip = chip
        chip.setVirtualWire()
        state = Mutex(Guarded(chip: chip))
        // The service outlives the machine, and with it the alarm's handler.
        let alarm = alarms?.makeAlarm { [weak self] in self?.timerElapsed() }
        state.withLock { $0.alarm = alarm }
    }

    /// When the timer next interrupts, in nanoseconds on the processor clock; nil for never. Lock-free.
    var deadline: UInt64? {
        let word = deadlineWord.load(ordering: .acquiring)
        return word == .max ? nil : word
    }

    /// Does something to the chip at the present moment.
    @inline(__always)
    func access<Result: Sendable>(
        _ body: (inout Guarded, LocalAPIC.Instant, inout LocalAPIC.Effects) -> Result
    ) -> (result: Result, effects: LocalAPIC.Effects) {
        state.withLock { guarded in
            var now = clock.now()
            now.tsc = now.tsc &+ guarded.tscOffset
            var effects = LocalAPIC.Effects()
            let result = body(&guarded, now, &effects)
            if effects.raisesNMI { attention.raise(.nmi) }
            if effects.timerChanged { arm(&guarded) }
            announce(&guarded)
            return (result, effects)
        }
    }

    /// Tells the processor of an interrupt that it does not know of yet.
    private func announce(_ guarded: inout Guarded) {
        let pending = guarded.chip.pendingVector
        if pending != guarded.announced {
            guarded.announced = pending
            if pending != nil { attention.raise(.interrupt) }
        }
        guard let source = guarded.source else { return }
        let external = source.isPending && guarded.chip.acceptsExternalInterrupts
        if external != guarded.externalAnnounced {
            guarded.externalAnnounced = external
            if external { attention.raise(.interrupt) }
        }
    }

    // MARK: Timer

    private func arm(_ guarded: inout Guarded) {
        let deadline: UInt64? =
            switch guarded.chip.deadline {
            case .never: nil
            case .nanoseconds(let time): time
            case .tsc(let value): nanoseconds(whenTSC: value, offset: guarded.tscOffset)
            }
        deadlineWord.store(deadline ?? .max, ordering: .releasing)
        guard deadline != guarded.armed else { return }
        guarded.armed = deadline
        guarded.alarm?.set(deadline: deadline)
    }

    /// - Returns: nil for what no clock of ours will reach.
    private func nanoseconds(whenTSC value: UInt64, offset: UInt64) -> UInt64? {
        let now = clock.now()
        // Compared as the guest counts: there alone it is known which of two is later.
        let (ahead, isPast) = value.subtractingReportingOverflow(now.tsc &+ offset)
        if isPast { return now.nanoseconds }
        guard ahead <= UInt64(Int64.max) else { return nil }
        let time = clock.nanoseconds(whenTSC: now.tsc &+ ahead)
        return time == .max ? nil : time
    }

    /// The deadline is here, or looks so: what is due becomes pending.
    func timerElapsed() {
        _ = access { guarded, now, effects in
            // The alarm has rung. One that rang a moment early is set again.
            guarded.armed = nil
            guarded.chip.advance(to: now, &effects)
            effects.timerChanged = true
        }
    }

    // MARK: Arrivals

    /// - Parameter ifMatching: only where the command's destination names this APIC.
    func accept(_ command: InterruptCommand, ifMatching: Bool = false) {
        _ = access { guarded, _, _ in
            // An APIC that is off hears nothing from others. Source: [SDM3 §11.4.3].
            guard guarded.chip.mode != .disabled else { return }
            if ifMatching, !guarded.chip.matches(command) { return }
            switch command.deliveryMode {
            case .fixed, .lowestPriority:
                _ = guarded.chip.accept(command.vector, isLevelTriggered: command.isLevelTriggered)
            case .nmi:
                attention.raise(.nmi)
            case .initialize:
                attention.raise(.initialise)
            case .startup:
                // Nothing to a processor that does not wait for it, which only that itself knows. Source: [SDM3 §9.4.1].
                attention.raiseStartup(vector: command.vector)
            case .external, .smi, .reserved:
                // ExtINT reaches the processor by LINT0 only, and there is no system-management mode.
                break
            }
        }
    }

    /// The processor priority's class, where the command names this APIC and it takes interrupts.
    func priority(for command: InterruptCommand) -> UInt8? {
        access { guarded, _, _ -> UInt8? in
            let chip = guarded.chip
            guard chip.mode != .disabled, chip.isSoftwareEnabled else { return nil }
            guard command.shorthand != .none || chip.matches(command) else { return nil }
            return chip.processorPriority &>> 4
        }.result
    }

    // MARK: LINT0

    func connect(_ source: any ExternalInterruptSource) {
        _ = access { guarded, _, _ in guarded.source = source }
        externalInterruptsChanged()
    }

    func disconnect() { _ = access { guarded, _, _ in guarded.source = nil } }

    func externalInterruptsChanged() {
        _ = access { guarded, _, effects in
            let isPending = guarded.source?.isPending ?? false
            guarded.chip.setPin(0, asserted: isPending, &effects)
            // Each rise is news, also where the fall before it was not looked at.
            guarded.externalAnnounced = false
        }
    }
}
