/// Monotonic time, handed to whatever needs it so that a test can own it.
public protocol MonotonicClock: AnyObject, Sendable {
    /// Nanoseconds since an arbitrary point; never goes back.
    func now() -> UInt64
}

/// The time of day that a real-time clock chip starts from.
public protocol WallClock: AnyObject, Sendable {
    /// Nanoseconds since 1970-01-01 00:00 UTC.
    func unixNanoseconds() -> Int64
}

/// A timer that calls its handler once, at or soon after its deadline.
public protocol Alarm: AnyObject, Sendable {
    /// Sets the deadline on the clock the alarm was made with, replacing any before it; nil disarms.
    ///
    /// May be called from any thread, also from within the handler and with a device's lock held:
    /// the handler is never called from inside this function.
    func set(deadline: UInt64?)
}

/// Makes alarms. The event loop is one; a test's fake clock is another.
public protocol AlarmService: AnyObject, Sendable {
    /// - Parameter handler: called on the service's thread with no lock held.
    func makeAlarm(_ handler: @escaping @Sendable () -> Void) -> any Alarm
}
