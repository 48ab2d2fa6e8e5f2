internal import Glibc
internal import Synchronization
public import VMCore

/// An event service whose turns a test takes: nothing happens but inside `run`, `poll` and the clock's `advance`.
///
/// Any thread may ask for work; one thread at a time takes the turns.
public final class ManualEvents: EventService, @unchecked Sendable {
    public let clock: FakeClock
    private let state = Mutex(State())

    private struct State {
        var due: [ManualWork] = []
        var watches: [UInt64: Watch] = [:]
        var nextToken: UInt64 = 1
    }

    private struct Watch {
        var descriptor: Int32
        var readiness: Readiness
        var handler: @Sendable (Readiness) -> Void
    }

    private final class ManualWork: Work, @unchecked Sendable {
        unowned let events: ManualEvents
        let handler: @Sendable () -> Void
        var isDue = false
        init(_ events: ManualEvents, _ handler: @escaping @Sendable () -> Void) {
            self.events = events
            self.handler = handler
        }
        func schedule() {
            events.state.withLock { state in
                if !isDue { state.due.append(self) }
                isDue = true
            }
        }
    }

    public init(clock: FakeClock = FakeClock()) { self.clock = clock }

    public func makeWork(_ handler: @escaping @Sendable () -> Void) -> any Work { ManualWork(self, handler) }

    public func makeAlarm(_ handler: @escaping @Sendable () -> Void) -> any Alarm { clock.makeAlarm(handler) }

    /// Whether work has been asked for that no turn was taken for.
    public var hasWork: Bool { state.withLock { !$0.due.isEmpty } }

    /// One turn: the work asked for so far, and nothing that it asks for itself.
    public func turn() {
        let work = state.withLock { state in
            defer { state.due = [] }
            for item in state.due { item.isDue = false }
            return state.due
        }
        for item in work { item.handler() }
    }

    /// Turns until nothing is asked for, at most `limit` of them.
    /// - Returns: how many there were; `limit` says that it may not have ended.
    @discardableResult
    public func run(limit: Int = 100_000) -> Int {
        var turns = 0
        while turns < limit, hasWork {
            turn()
            turns += 1
        }
        return turns
    }

    /// Waits for the watched descriptors at most so long, serves those that are ready, and then runs.
    /// - Returns: whether any was ready.
    @discardableResult
    public func poll(milliseconds: Int32 = 0) -> Bool {
        let wasReady = pollOnce(milliseconds: milliseconds)
        run()
        return wasReady
    }

    /// As `poll`, without the work that it leads to.
    @discardableResult
    public func pollOnce(milliseconds: Int32 = 0) -> Bool {
        let watched = state.withLock { $0.watches.filter { !$0.value.readiness.isEmpty } }
        guard !watched.isEmpty || milliseconds > 0 else { return false }
        var list = watched.map { pollfd(fd: $0.value.descriptor, events: Int16($0.value.readiness.rawValue), revents: 0) }
        let count = unsafe Glibc.poll(&list, nfds_t(list.count), milliseconds)
        if count > 0 {
            for (entry, watch) in zip(list, watched) where entry.revents != 0 {
                watch.value.handler(Readiness(rawValue: UInt32(UInt16(bitPattern: entry.revents))))
            }
        }
        return count > 0
    }

    /// Runs and polls until the condition holds.
    /// - Returns: whether it came to hold within the time.
    public func run(until condition: () -> Bool, milliseconds: Int32 = 10_000) -> Bool {
        var rest = milliseconds
        run()
        while !condition() {
            guard rest > 0 else { return false }
            if !poll(milliseconds: 10) {
                usleep(1000)
                rest -= 10
            }
        }
        return true
    }

    public func watch(
        _ descriptor: Int32, for readiness: Readiness, _ handler: @escaping @Sendable (Readiness) -> Void
    ) -> UInt64? {
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0, status.st_mode & S_IFMT != S_IFREG else { return nil }
        return state.withLock { state in
            defer { state.nextToken += 1 }
            state.watches[state.nextToken] = Watch(descriptor: descriptor, readiness: readiness, handler: handler)
            return state.nextToken
        }
    }

    public func change(_ descriptor: Int32, token: UInt64, to readiness: Readiness) {
        state.withLock { $0.watches[token]?.readiness = readiness }
    }

    public func unwatch(_ descriptor: Int32, token: UInt64) { state.withLock { $0.watches[token] = nil } }
}
