public import VMCore

/// A clock, and the alarms on it, that only a test moves.
///
/// Handlers run inside `advance`, on the caller's thread, in the order of their deadlines.
public final class FakeClock: MonotonicClock, AlarmService, WallClock, @unchecked Sendable {
    private final class FakeAlarm: Alarm, @unchecked Sendable {
        var deadline: UInt64?
        let handler: @Sendable () -> Void
        init(handler: @escaping @Sendable () -> Void) { self.handler = handler }
        func set(deadline: UInt64?) { self.deadline = deadline }
    }

    private var time: UInt64
    private let unixStart: Int64
    private var alarms: [FakeAlarm] = []

    /// - Parameters:
    ///   - time: what `now` starts at, in nanoseconds.
    ///   - unixStart: the time of day at `time` zero; 2024-02-29 12:34:56 UTC unless given.
    public init(time: UInt64 = 0, unixStart: Int64 = 1_709_210_096_000_000_000) {
        self.time = time
        self.unixStart = unixStart
    }

    public func now() -> UInt64 { time }
    public func unixNanoseconds() -> Int64 { unixStart &+ Int64(truncatingIfNeeded: time) }

    public func makeAlarm(_ handler: @escaping @Sendable () -> Void) -> any Alarm {
        let alarm = FakeAlarm(handler: handler)
        alarms.append(alarm)
        return alarm
    }

    /// The earliest deadline that is set, if any.
    public var nextDeadline: UInt64? { alarms.compactMap(\.deadline).min() }

    /// Moves time on, stopping at each deadline on the way to call its handler.
    public func advance(by nanoseconds: UInt64) {
        let end = time &+ nanoseconds
        while let next = nextDeadline, next <= end {
            time = max(time, next)
            for alarm in alarms where alarm.deadline == next {
                alarm.deadline = nil
                alarm.handler()
            }
        }
        time = end
    }
}
