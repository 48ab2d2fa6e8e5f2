/// The local APIC's timer: its count and its deadline. The LVT entry that says what it does is the APIC's.
/// Source: [SDM3 §11.5.4].
struct APICTimer: Hashable, Sendable, BitwiseCopyable {
    /// LVT timer bits 18-17. Source: [SDM3 §11.5.4], figure 11-8.
    enum Mode: UInt8, Sendable, BitwiseCopyable {
        case oneShot = 0
        case periodic = 1
        case deadline = 2
        /// The reserved encoding: a timer that stands still.
        case none = 3
    }

    /// The shortest time between two interrupts of a periodic timer: in between, periods count but do not interrupt.
    static let shortestPeriod: UInt64 = 100_000

    var initialCount: UInt32 = 0
    /// DCR's bits 3, 1 and 0.
    var divideConfiguration: UInt32 = 0
    /// When the count now running was its initial one, in nanoseconds. Means something while `isCounting`.
    var started: UInt64 = 0
    var isCounting = false
    /// IA32_TSC_DEADLINE; 0 while disarmed.
    var tscDeadline: UInt64 = 0
    /// When a periodic interrupt was last due.
    var lastPeriod: UInt64 = 0

    /// Source: [SDM3 §11.5.4], figure 11-10: 000 is by 2, up to 110 by 128; 111 is by 1.
    private var divideShift: UInt64 {
        let bits = divideConfiguration & 3 | (divideConfiguration &>> 1) & 4
        return UInt64((bits &+ 1) & 7)
    }

    /// Whole counts since `started`.
    ///
    /// `started` may lie before the clock's own zero, and a moment read on another processor just before it.
    private func counts(at now: UInt64) -> UInt64 {
        let elapsed = now &- started
        return elapsed > UInt64(Int64.max) ? 0 : elapsed &>> divideShift
    }

    private var period: UInt64 { UInt64(initialCount) &<< divideShift }

    /// CCR.
    func currentCount(at now: UInt64, periodic: Bool) -> UInt32 {
        guard isCounting, initialCount != 0 else { return 0 }
        let elapsed = counts(at: now)
        let initial = UInt64(initialCount)
        let rest = periodic ? initial &- elapsed % initial : elapsed >= initial ? 0 : initial &- elapsed
        return UInt32(truncatingIfNeeded: rest)
    }

    /// A write of the initial count starts the timer, zero stops it.
    mutating func start(_ count: UInt32, at now: UInt64) {
        initialCount = count
        isCounting = count != 0
        started = now
        lastPeriod = now
    }

    /// A count that is running goes on from where it is, at the new rate.
    mutating func setDivide(_ value: UInt32, at now: UInt64, periodic: Bool) {
        let current = currentCount(at: now, periodic: periodic)
        divideConfiguration = value & 0xB
        if isCounting { resume(from: current, at: now) }
    }

    /// Makes the count running now read `current` at this moment.
    mutating func resume(from current: UInt32, at now: UInt64) {
        let gone = UInt64(initialCount) &- UInt64(min(current, initialCount))
        started = now &- (gone &<< divideShift)
        lastPeriod = now
    }

    mutating func stop() {
        isCounting = false
        tscDeadline = 0
    }

    /// Brings the timer to this moment.
    /// - Returns: whether it reached its end, once or often, since the last call.
    mutating func advance(to now: LocalAPIC.Instant, mode: Mode) -> Bool {
        switch mode {
        case .oneShot:
            guard isCounting, counts(at: now.nanoseconds) >= UInt64(initialCount) else { return false }
            isCounting = false
            return true
        case .periodic:
            guard isCounting, initialCount != 0 else { return false }
            let elapsed = counts(at: now.nanoseconds)
            guard elapsed >= UInt64(initialCount) else { return false }
            // Whole periods that passed unseen are one interrupt: IRR has one bit.
            let periods = elapsed / UInt64(initialCount)
            started = started &+ (periods &* UInt64(initialCount)) &<< divideShift
            lastPeriod = started
            return true
        case .deadline:
            guard tscDeadline != 0, now.tsc >= tscDeadline else { return false }
            tscDeadline = 0
            return true
        case .none:
            return false
        }
    }

    /// When `advance` next has something to say.
    func deadline(mode: Mode) -> TimerDeadline {
        switch mode {
        case .oneShot:
            isCounting ? .nanoseconds(started &+ period) : .never
        case .periodic:
            isCounting && initialCount != 0
                ? .nanoseconds(max(started &+ period, lastPeriod &+ Self.shortestPeriod)) : .never
        case .deadline:
            tscDeadline == 0 ? .never : .tsc(tscDeadline)
        case .none:
            .never
        }
    }
}

/// When a local APIC's timer next interrupts.
public enum TimerDeadline: Hashable, Sendable, BitwiseCopyable {
    case never
    case nanoseconds(UInt64)
    case tsc(UInt64)
}
