import VMCore

/// A crystal's ticks on the machine's clock, from the moment that its device was made.
struct CrystalTime: Sendable {
    private let rate: TickRate
    private let clock: any MonotonicClock
    private let start: UInt64

    init(_ rate: TickRate, on clock: any MonotonicClock) {
        self.rate = rate
        self.clock = clock
        start = clock.now()
    }

    /// Nanoseconds, on the machine's clock.
    var now: UInt64 { clock.now() }

    /// How many ticks have happened by `now`.
    var tick: UInt64 { tick(at: now) }
    func tick(at now: UInt64) -> UInt64 { rate.ticks(after: now &- min(now, start)) }

    /// The first moment at which `tick` has happened, on the machine's clock; nil where that is past its range.
    func moment(of tick: UInt64) -> UInt64? {
        let due = start.addingReportingOverflow(rate.nanoseconds(toReach: tick))
        return due.overflow ? nil : due.partialValue
    }
}

/// An alarm that is set where its deadline changes, and left alone else.
struct StandingAlarm: Sendable {
    private var alarm: (any Alarm)?
    private var deadline: UInt64?

    /// Before the first deadline.
    mutating func connect(_ alarm: any Alarm) { self.alarm = alarm }

    mutating func set(_ deadline: UInt64?) {
        guard deadline != self.deadline else { return }
        self.deadline = deadline
        alarm?.set(deadline: deadline)
    }

    /// It went off, and is spent: whatever comes next is set, even for the same moment.
    mutating func fired() { deadline = nil }

    /// For the device's end: an armed alarm is the event loop's until it fires.
    func cancel() { alarm?.set(deadline: nil) }
}
