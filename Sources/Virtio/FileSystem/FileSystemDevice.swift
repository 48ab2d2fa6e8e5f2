internal import Synchronization
public import VMCore

/// A directory of the host's for the guest: a FUSE server behind virtio queues.
///
/// Requests are taken on the event loop, done on a few threads, and finish in any order. What is under way is bounded. A
/// reset waits for the host; see `stop`. Each session knows nothing of the ones before it.
///
/// Not emulated: the DAX window, notifications, per-user creation of files (what the guest makes is the server's), and the
/// requests that `FileServer` does not know.
///
/// Source: [VIRTIO1.2 §5.11].
public final class FileSystemDevice: VirtioDevice {
    public let kind = DeviceKind.fileSystem
    public let features = FeatureSet.common
    public let queueSizes: [UInt16]
    public let tag: String

    /// Requests of one queue that are taken before others have their turn.
    static let fairShare = 64
    /// Requests under way at once, and those of them that have come by the queue for urgent ones.
    static let mostRequests = 64
    static let mostUrgent = 16
    /// Requests that wait for a lock at once.
    static let mostWaiting = 32
    /// How often a lock is tried again, and for how long, in nanoseconds.
    private static let lockInterval: UInt64 = 20_000_000
    private static let lockPatience: UInt64 = 60_000_000_000

    private let shared: SharedDirectory
    private let clock: any MonotonicClock
    private let work = WorkSlot()
    private let workers: FileWorkers
    /// A thread for urgent requests, which are not to wait for others. Source: [VIRTIO1.2 §5.11.6.2.1].
    private let urgentWorkers: FileWorkers
    private let retry: any Alarm
    private let counters = FileCounters()
    /// Queues to be looked at, a bit each.
    private let asked = Atomic<UInt32>(0)
    private let state = Mutex(State())

    private struct State {
        var session: DeviceSession?
        var server: FileServer?
        /// Counts sessions: a request of an earlier one touches nothing.
        var generation: UInt64 = 0
        /// What a session before this one has left with the host; until it is back nothing is done.
        var isHeld = false
        /// Guest memory that the host may still write to, after a reset did not get it to finish.
        var kept: GuestMemory?
        var free: [FileRequest] = []
        var made = 0
        var inFlight = 0
        var urgent = 0
        /// Requests for locks that others have.
        var waiting: [FileRequest] = []
        var retriesAt: UInt64?
        var touched: UInt32 = 0
        var hungResets: UInt64 = 0
    }

    /// - Parameters:
    ///   - directory: the host's directory; a symbolic link there is followed, once, now.
    ///   - tag: what the guest mounts it by: 1 to 36 bytes.
    ///   - clock: the one that the event service's alarms go by.
    /// - Throws: `ShareError` where there is nothing to share, or no such tag.
    public init(
        directory: String, tag: String, isReadOnly: Bool, options: ShareOptions = ShareOptions(),
        events: any EventService, clock: any MonotonicClock
    ) throws(ShareError) {
        guard !tag.isEmpty else { throw .emptyTag }
        guard tag.utf8.count <= FileSystemConfiguration.tagBytes else { throw .tagTooLong(tag: tag, bytes: tag.utf8.count) }
        guard !tag.utf8.contains(0) else { throw .badTag(tag: tag) }
        shared = try SharedDirectory(directory, isReadOnly: isReadOnly, options)
        self.tag = tag
        self.clock = clock
        let queues = min(max(options.queueCount, 1), 8)
        var size: UInt16 = 2
        while size < min(options.queueSize, 1024) { size &*= 2 }
        queueSizes = [64] + [UInt16](repeating: size, count: queues)
        workers = FileWorkers(threads: min(max(options.threads, 1), 64), finished: work)
        urgentWorkers = FileWorkers(threads: 1, finished: work)
        let slot = work
        retry = events.makeAlarm { slot.schedule() }
        work.connect(events) { [weak self] in self?.serve() }
    }

    deinit {
        // The machine goes. What the host still has of the guest's memory must not be given to anybody else.
        stop()
        work.disconnect()
        if let memory = state.withLock({ $0.kept }) { _ = unsafe Unmanaged.passRetained(memory) }
    }

    public func configuration() -> [UInt8] { FileSystemConfiguration.bytes(tag: tag, queues: queueSizes.count - 1) }

    public var statistics: [(name: String, value: UInt64)] {
        let server = server
        return [
            ("requests", counters.requests.load(ordering: .relaxed)),
            ("bytesRead", counters.bytesRead.load(ordering: .relaxed)),
            ("bytesWritten", counters.bytesWritten.load(ordering: .relaxed)),
            ("errors", counters.errors.load(ordering: .relaxed)),
            ("openFiles", UInt64(server?.openFiles ?? 0)), ("inodes", UInt64(server?.inodes ?? 0)), 
            ("hungResets", state.withLock { $0.hungResets }),
        ]
    }

    /// For how many requests there is memory.
    var requestsMade: Int { state.withLock { $0.made } }
    /// The session's server.
    var server: FileServer? { state.withLock { $0.server } }

    // MARK: Sessions

    public func start(_ session: DeviceSession) {
        let known = Int(truncatingIfNeeded: min(max(session.memory.size >> 10, 1 << 16), 1 << 20))
        let server = FileServer(shared, counters, nodeLimit: shared.options.inodeLimit ?? known)
        state.withLock { state in
            state.session = session
            state.server = server
        }
        asked.store(.max, ordering: .releasing)
        work.schedule()
    }

    public func notify(queue: Int) {
        asked.bitwiseOr(1 &<< UInt32(truncatingIfNeeded: queue), ordering: .acquiringAndReleasing)
        work.schedule()
    }

    /// Ends the session, with all that the guest knew and had open. What has not begun does not begin; what the host is at is
    /// waited for, at most `ShareOptions.resetLimit`.
    ///
    /// If the host hangs for longer, it may still write what it reads to where the guest wanted it; that memory is kept for
    /// it. The next session is then served no request before the last of this one has come back, which goes to no queue.
    public func stop() {
        let (isBusy, server) = state.withLock { state in
            let server = state.server
            if let session = state.session, state.inFlight > 0, state.kept == nil { state.kept = session.memory }
            state.session = nil
            state.server = nil
            state.generation &+= 1
            for request in state.waiting { recycle(request, &state) }
            state.waiting.removeAll(keepingCapacity: true)
            state.retriesAt = nil
            // What was waited for in vain once is not waited for again.
            let isBusy = state.inFlight > 0 && !state.isHeld
            state.isHeld = state.inFlight > 0
            return (isBusy, server)
        }
        retry.set(deadline: nil)
        if isBusy {
            // Without the lock: the event loop must not wait for the host.
            // Both, in any case: what has not begun must not begin.
            let isDrained = workers.drain(milliseconds: shared.options.resetLimit)
            let isUrgentDrained = urgentWorkers.drain(milliseconds: shared.options.resetLimit)
            state.withLock { state in
                collect(&state)
                if !isDrained || !isUrgentDrained, state.inFlight > 0 { state.hungResets &+= 1 }
            }
        }
        withExtendedLifetime(server) {}
    }

    // MARK: The event loop

    private func serve() {
        state.withLock { state in
            collect(&state)
            guard let session = state.session, !state.isHeld else { return }
            retryLocks(&state)
            let asked = asked.exchange(0, ordering: .acquiringAndReleasing)
            for index in 0..<queueSizes.count where asked & 1 &<< UInt32(index) != 0 {
                if let queue = session.queue(index) { serve(index, queue, session, &state) }
            }
            collect(&state)
            signal(session, &state)
        }
    }

    private func serve(_ index: Int, _ queue: Virtqueue, _ session: DeviceSession, _ state: inout State) {
        queue.disableNotifications()
        for _ in 0..<Self.fairShare {
            guard let request = takeRequest(index, &state) else {
                // Whatever comes back has the queue looked at again.
                asked.bitwiseOr(1 &<< UInt32(index), ordering: .acquiringAndReleasing)
                return
            }
            switch queue.next(request.chain) {
            case .request:
                request.queue = index
                request.generation = state.generation
                submit(request, &state)
            case .empty:
                state.free.append(request)
                guard queue.enableNotifications() else { return }
                queue.disableNotifications()
            case .broken:
                state.free.append(request)
                return session.fail()
            }
        }
        asked.bitwiseOr(1 &<< UInt32(index), ordering: .acquiringAndReleasing)
        work.schedule()
    }

    private func takeRequest(_ queue: Int, _ state: inout State) -> FileRequest? {
        let busy = state.inFlight + state.waiting.count
        // Those that are urgent find room when nobody else does.
        guard queue == 0 ? state.urgent < Self.mostUrgent : busy - state.urgent < Self.mostRequests else { return nil }
        if let request = state.free.popLast() { return request }
        state.made &+= 1
        return FileRequest()
    }

    private func submit(_ request: FileRequest, _ state: inout State) {
        request.server = state.server
        if request.queue == 0 { state.urgent &+= 1 }
        guard (request.queue == 0 ? urgentWorkers : workers).submit(request) else {
            request.server = nil
            request.unique = request.chain.load(FUSERequestHeader.self, at: 0)?.unique ?? 0
            request.outcome = .answered
            request.touched = 0
            request.answer(error: FileSystemConfiguration.outOfMemory)
            return giveBack(request, &state)
        }
        state.inFlight &+= 1
    }

    // MARK: Completion

    /// Takes back what the workers have finished.
    private func collect(_ state: inout State) {
        while state.inFlight > 0, let request = urgentWorkers.takeFinished() ?? workers.takeFinished() {
            state.inFlight &-= 1
            finish(request, &state)
        }
        guard state.inFlight == 0 else { return }
        state.kept = nil
        if state.isHeld {
            state.isHeld = false
            work.schedule()
        }
    }

    private func finish(_ request: FileRequest, _ state: inout State) {
        guard request.generation == state.generation, state.session != nil else { return recycle(request, &state) }
        switch request.outcome {
        case .answered: giveBack(request, &state)
        case .waits: wait(request, &state)
        case .interrupts(let unique):
            if let index = state.waiting.firstIndex(where: { $0.unique == unique }) {
                giveUp(state.waiting.remove(at: index), &state)
            }
            giveBack(request, &state)
        }
    }

    private func recycle(_ request: FileRequest, _ state: inout State) {
        if request.queue == 0 { state.urgent &-= 1 }
        request.waitsUntil = 0
        state.free.append(request)
    }

    private func giveBack(_ request: FileRequest, _ state: inout State) {
        if let session = state.session, let queue = session.queue(request.queue) {
            if request.touched > request.written { request.chain.tellWritten(request.touched, to: session.memory) }
            queue.complete(request.chain, written: request.written)
            state.touched |= 1 &<< UInt32(request.queue)
        }
        recycle(request, &state)
        // A queue that found no request free is looked at again.
        if asked.load(ordering: .relaxed) != 0 { work.schedule() }
    }

    private func signal(_ session: DeviceSession, _ state: inout State) {
        guard state.touched != 0 else { return }
        for index in 0..<queueSizes.count where state.touched & 1 &<< UInt32(index) != 0 {
            if let queue = session.queue(index) { session.signalUsed(index, queue) }
        }
        state.touched = 0
    }

    // MARK: Locks that others have

    private func wait(_ request: FileRequest, _ state: inout State) {
        let now = clock.now()
        if request.waitsUntil == 0 { request.waitsUntil = now &+ Self.lockPatience }
        guard state.waiting.count < Self.mostWaiting, now < request.waitsUntil else { return giveUp(request, &state) }
        state.waiting.append(request)
        guard state.retriesAt == nil else { return }
        state.retriesAt = now &+ Self.lockInterval
        retry.set(deadline: state.retriesAt)
    }

    /// A guest cannot interrupt a wait of its own: it is told that it was.
    private func giveUp(_ request: FileRequest, _ state: inout State) {
        request.answer(error: FileSystemConfiguration.interrupted)
        giveBack(request, &state)
    }

    private func retryLocks(_ state: inout State) {
        guard let time = state.retriesAt, clock.now() >= time else { return }
        state.retriesAt = nil
        let all = state.waiting
        state.waiting.removeAll(keepingCapacity: true)
        for request in all {
            // It was counted when it was first taken.
            if request.queue == 0 { state.urgent &-= 1 }
            submit(request, &state)
        }
    }
}
