/// What a watched descriptor is ready for.
public struct Readiness: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let readable = Readiness(rawValue: 1)
    public static let writable = Readiness(rawValue: 4)
    /// The other end is gone, or there is an error to be read.
    public static let hangup = Readiness(rawValue: 0x18)
}

/// Something to be done on the event loop's thread, as often as it is asked for.
public protocol Work: AnyObject, Sendable {
    /// Has the handler called once, soon. Asked for again before it has begun, it is called once for both. Any thread, with any
    /// lock held; allocates nothing.
    func schedule()
}

/// The one thread that waits for descriptors and deadlines, as a device sees it.
///
/// Handlers are called with no lock held, never from within these functions, and must not block. A handler that has more
/// to do than a fair share schedules itself again in place of going on: others are served in between.
public protocol EventService: AlarmService {
    func makeWork(_ handler: @escaping @Sendable () -> Void) -> any Work

    /// Calls `handler` whenever the descriptor is ready.
    ///
    /// - Parameter readiness: what it is waited for; empty waits for nothing until `change` says otherwise.
    /// - Returns: a token for `change` and `unwatch`; nil where the descriptor cannot be waited for (a regular file).
    func watch(
        _ descriptor: Int32, for readiness: Readiness, _ handler: @escaping @Sendable (Readiness) -> Void
    ) -> UInt64?

    /// Changes what a watched descriptor is waited for. Empty waits for nothing, its end neither.
    func change(_ descriptor: Int32, token: UInt64, to readiness: Readiness)

    /// Forgets a descriptor. A handler that has begun on the loop's thread may still be running.
    func unwatch(_ descriptor: Int32, token: UInt64)
}
