internal import CHost
internal import Glibc
internal import Synchronization
public import VMCore

/// The one thread beside the vCPUs: it waits on descriptors and alarms, and calls their handlers with no lock held.
///
/// Handlers must not block. What another thread wants done here goes through `post`, or `makeWork` where it is wanted often.
///
/// A turn is the descriptors and alarms that are ready, then the work that was asked for by then. Nobody has the thread for long:
/// what that work asks for is done a turn later.
public final class EventLoop: EventService, @unchecked Sendable {
    private struct Watch {
        let token: UInt64
        let handler: @Sendable (Readiness) -> Void
    }

    private struct State {
        /// Those that are armed, and no others: a machine that is gone leaves none behind.
        var alarms: [LoopAlarm] = []
        var posted: [@Sendable () -> Void] = []
        var due: [LoopWork] = []
        /// In the order of their tokens. Not a dictionary: to make its type at run time, the runtime looks through every conformance
        /// in the program, which a start would have to wait for.
        var watches: [Watch] = []
        var nextToken: UInt64 = 2
        var stopping = false
        /// What the timer descriptor is set to, so that it is set only when the earliest deadline changes.
        var armed: UInt64?
        /// A wake-up is on its way already.
        var woken = false

        func index(of token: UInt64) -> Int? {
            var (low, high) = (0, watches.count)
            while low < high {
                let middle = (low + high) / 2
                if watches[middle].token < token { low = middle + 1 } else { high = middle }
            }
            return low < watches.count && watches[low].token == token ? low : nil
        }

        mutating func removeWatch(_ token: UInt64) {
            if let index = index(of: token) { watches.remove(at: index) }
        }
    }

    private let clock: any MonotonicClock
    private let poll: Int32
    private let timer: Int32
    private let wakeup: WakeupEvent
    private let state = Mutex(State())
    private var thread: Thread?
    /// The loop's own thread, once it runs: what is asked for there is seen without a wake-up. No thread's is 0.
    private let ownThread = Atomic<UInt>(0)

    private static let timerToken: UInt64 = 0
    private static let wakeupToken: UInt64 = 1

    /// - Throws: `EngineError.host` where the host is out of descriptors.
    public init(clock: any MonotonicClock) throws(EngineError) {
        self.clock = clock
        poll = epoll_create1(chost_epoll_cloexec)
        guard poll >= 0 else { throw .host(call: "epoll_create1", errno: errno) }
        timer = timerfd_create(CLOCK_MONOTONIC, chost_timerfd_flags)
        guard timer >= 0 else {
            let code = errno
            close(poll)
            throw .host(call: "timerfd_create", errno: code)
        }
        guard let wakeup = WakeupEvent() else {
            let code = errno
            close(poll)
            close(timer)
            throw .host(call: "eventfd", errno: code)
        }
        self.wakeup = wakeup
        _ = control(EPOLL_CTL_ADD, timer, Self.timerToken, [.readable])
        _ = control(EPOLL_CTL_ADD, wakeup.descriptor, Self.wakeupToken, [.readable])
    }

    deinit {
        close(timer)
        close(poll)
    }

    /// Starts the thread. Once.
    public func start() throws(EngineError) {
        guard let thread = Thread(name: "event-loop", { [self] in run() }) else {
            throw .host(call: "pthread_create", errno: EAGAIN)
        }
        self.thread = thread
    }

    /// Ends the thread and waits for it. No handler runs afterwards.
    public func stop() {
        state.withLock { $0.stopping = true }
        wakeup.signal()
        thread?.join()
        thread = nil
    }

    /// Calls `work` soon on the loop's thread. Any thread.
    public func post(_ work: @escaping @Sendable () -> Void) {
        let isOwn = isOnLoop
        let needsWake = state.withLock { state in
            state.posted.append(work)
            return Self.asksForWake(isOwn, &state)
        }
        if needsWake { wakeup.signal() }
    }

    private final class LoopWork: Work, @unchecked Sendable {
        /// Guarded by the loop's lock.
        var isDue = false
        let handler: @Sendable () -> Void
        weak let loop: EventLoop?

        init(loop: EventLoop, handler: @escaping @Sendable () -> Void) {
            self.loop = loop
            self.handler = handler
        }

        func schedule() { loop?.schedule(self) }
    }

    public func makeWork(_ handler: @escaping @Sendable () -> Void) -> any Work { LoopWork(loop: self, handler: handler) }

    private func schedule(_ work: LoopWork) {
        let isOwn = isOnLoop
        let needsWake = state.withLock { state in
            guard !work.isDue else { return false }
            work.isDue = true
            state.due.append(work)
            return Self.asksForWake(isOwn, &state)
        }
        if needsWake { wakeup.signal() }
    }

    private var isOnLoop: Bool { ownThread.load(ordering: .relaxed) == UInt(pthread_self()) }

    private static func asksForWake(_ isOwn: Bool, _ state: inout State) -> Bool {
        guard !isOwn, !state.woken else { return false }
        state.woken = true
        return true
    }

    // MARK: Descriptors

    /// Calls `handler` on the loop's thread whenever the descriptor is ready.
    ///
    /// - Parameter readiness: what it is waited for; empty waits for nothing until `change` says otherwise.
    /// - Returns: a token for `change` and `unwatch`; nil where the descriptor cannot be waited for (a regular file).
    public func watch(
        _ descriptor: Int32, for readiness: Readiness, _ handler: @escaping @Sendable (Readiness) -> Void
    ) -> UInt64? {
        let token = state.withLock { state in
            let token = state.nextToken
            state.nextToken &+= 1
            state.watches.append(Watch(token: token, handler: handler))
            return token
        }
        guard control(EPOLL_CTL_ADD, descriptor, token, readiness) else {
            state.withLock { $0.removeWatch(token) }
            return nil
        }
        if readiness.isEmpty { change(descriptor, token: token, to: []) }
        return token
    }

    /// Changes what a watched descriptor is waited for. Empty waits for nothing, its end neither: the kernel would report
    /// that over and over, and there is nothing to be done about it before the next read or write.
    public func change(_ descriptor: Int32, token: UInt64, to readiness: Readiness) {
        if readiness.isEmpty {
            _ = control(EPOLL_CTL_DEL, descriptor, token, [])
        } else if !control(EPOLL_CTL_MOD, descriptor, token, readiness) {
            _ = control(EPOLL_CTL_ADD, descriptor, token, readiness)
        }
    }

    public func unwatch(_ descriptor: Int32, token: UInt64) {
        _ = control(EPOLL_CTL_DEL, descriptor, token, [])
        state.withLock { $0.removeWatch(token) }
    }

    private func control(_ operation: Int32, _ descriptor: Int32, _ token: UInt64, _ readiness: Readiness) -> Bool {
        var event = unsafe epoll_event()
        unsafe event.events = readiness.rawValue
        unsafe event.data.u64 = token
        return unsafe epoll_ctl(poll, operation, descriptor, &event) == 0
    }

    // MARK: Alarms

    private final class LoopAlarm: Alarm, @unchecked Sendable {
        /// Guarded by the loop's lock.
        var deadline: UInt64?
        let handler: @Sendable () -> Void
        weak let loop: EventLoop?

        init(loop: EventLoop, handler: @escaping @Sendable () -> Void) {
            self.loop = loop
            self.handler = handler
        }

        func set(deadline: UInt64?) { loop?.set(self, to: deadline) }
    }

    public func makeAlarm(_ handler: @escaping @Sendable () -> Void) -> any Alarm {
        LoopAlarm(loop: self, handler: handler)
    }

    private func set(_ alarm: LoopAlarm, to deadline: UInt64?) {
        state.withLock { state in
            if deadline == nil {
                state.alarms.removeAll { $0 === alarm }
            } else if alarm.deadline == nil {
                state.alarms.append(alarm)
            }
            alarm.deadline = deadline
            // A deadline that is later than the one armed needs no call: the loop looks again when it wakes.
            if let deadline, state.armed.map({ deadline < $0 }) ?? true { arm(deadline, &state) }
        }
    }

    private func arm(_ deadline: UInt64?, _ state: inout State) {
        guard deadline != state.armed else { return }
        state.armed = deadline
        var setting = itimerspec()
        if let deadline {
            // Zero would disarm; a deadline in the past fires at once.
            let time = max(deadline, 1)
            setting.it_value.tv_sec = Int(clamping: time / 1_000_000_000)
            setting.it_value.tv_nsec = Int(clamping: time % 1_000_000_000)
        }
        _ = unsafe timerfd_settime(timer, chost_timerfd_absolute, &setting, nil)
    }

    // MARK: The thread

    private func run() {
        ownThread.store(UInt(pthread_self()), ordering: .relaxed)
        var events = unsafe [epoll_event](repeating: epoll_event(), count: 32)
        var posted: [@Sendable () -> Void] = []
        var due: [LoopWork] = []
        while true {
            let isBusy = state.withLock { !$0.posted.isEmpty || !$0.due.isEmpty }
            let count = unsafe Int(epoll_wait(poll, &events, Int32(events.count), isBusy ? 0 : -1))
            if count < 0 {
                if errno == EINTR { continue }
                return
            }
            for unsafe event in unsafe events.prefix(count) {
                let token = unsafe event.data.u64
                switch token {
                case Self.timerToken:
                    var expirations: UInt64 = 0
                    _ = unsafe Glibc.read(timer, &expirations, 8)
                    fireAlarms()
                case Self.wakeupToken:
                    wakeup.clear()
                default:
                    let handler = state.withLock { state in state.index(of: token).map { state.watches[$0].handler } }
                    unsafe handler?(Readiness(rawValue: event.events))
                }
            }
            // The lists change places with empty ones, whose memory they have the next time.
            let isStopping = state.withLock { state in
                state.woken = false
                swap(&state.posted, &posted)
                swap(&state.due, &due)
                for work in due { work.isDue = false }
                return state.stopping
            }
            for item in posted { item() }
            for work in due { work.handler() }
            posted.removeAll(keepingCapacity: true)
            due.removeAll(keepingCapacity: true)
            if isStopping { return }
        }
    }

    private func fireAlarms() {
        let now = clock.now()
        let due = state.withLock { state in
            state.armed = nil
            var due: [LoopAlarm] = []
            for alarm in state.alarms {
                if let deadline = alarm.deadline, deadline <= now {
                    alarm.deadline = nil
                    due.append(alarm)
                }
            }
            state.alarms.removeAll { $0.deadline == nil }
            return due
        }
        for alarm in due { alarm.handler() }
        state.withLock { state in
            // Handlers may have armed an earlier one themselves.
            arm(state.alarms.compactMap(\.deadline).min(), &state)
        }
    }
}
