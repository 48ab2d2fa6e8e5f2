extension LocalAPIC {
    var timerMode: APICTimer.Mode { APICTimer.Mode(rawValue: UInt8(truncatingIfNeeded: lvtTimer &>> 17) & 3) ?? .none }

    /// When the timer next interrupts: whoever keeps the clock calls `advance` then, or soon after.
    ///
    /// `.never` also where it runs but is masked: then it is brought up to date when software looks at it.
    public var deadline: TimerDeadline {
        LocalVector.isMasked(lvtTimer) ? .never : timer.deadline(mode: timerMode)
    }

    /// Brings the timer to this moment; a deadline that passed becomes a pending interrupt, or nothing where masked.
    /// Source: [SDM3 §11.5.4].
    public mutating func advance(to now: Instant, _ effects: inout Effects) {
        guard timer.advance(to: now, mode: timerMode) else { return }
        effects.timerChanged = true
        deliver(local: lvtTimer, &effects)
    }

    mutating func writeTimerEntry(_ value: UInt32, at now: Instant, _ effects: inout Effects) {
        let before = timerMode
        lvtTimer = value & LocalVector.timerBits | (isSoftwareEnabled ? 0 : LocalVector.masked)
        // To or from TSC-deadline mode the timer is disarmed; between the two others it counts on.
        // Source: [SDM3 §11.5.4.1].
        if before != timerMode, before == .deadline || timerMode == .deadline || timerMode == .none { timer.stop() }
        effects.timerChanged = true
    }

    mutating func writeInitialCount(_ value: UInt32, at now: Instant, _ effects: inout Effects) {
        // In TSC-deadline mode writes to the initial-count register are ignored. Source: [SDM3 §11.5.4.1].
        guard timerMode != .deadline else { return }
        timer.start(value, at: now.nanoseconds)
        effects.timerChanged = true
    }

    mutating func writeDivide(_ value: UInt32, at now: Instant, _ effects: inout Effects) {
        timer.setDivide(value, at: now.nanoseconds, periodic: timerMode == .periodic)
        effects.timerChanged = true
    }

    /// CCR: 0 in TSC-deadline mode. Source: [SDM3 §11.5.4.1].
    func currentCount(at now: Instant) -> UInt32 {
        switch timerMode {
        case .oneShot: timer.currentCount(at: now.nanoseconds, periodic: false)
        case .periodic: timer.currentCount(at: now.nanoseconds, periodic: true)
        case .deadline, .none: 0
        }
    }

    /// IA32_TSC_DEADLINE: zero disarms, any other value arms; ignored outside TSC-deadline mode. Source: [SDM3 §11.5.4.1].
    mutating func writeTSCDeadline(_ value: UInt64, at now: Instant, _ effects: inout Effects) {
        guard mode != .disabled, timerMode == .deadline else { return }
        timer.tscDeadline = value
        effects.timerChanged = true
        advance(to: now, &effects)
    }
}
