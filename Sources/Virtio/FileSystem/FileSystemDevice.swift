internal import Synchronization
public import VMCore

/// A directory of the host's for the guest: a FUSE server behind virtio queues.
///
/// A request that the host's own disks or memory answer soon is done at once, on the event loop. All others are done on a few
/// threads; they finish in any order. What is under way is bounded. A reset waits for
/// the host; see `stop`. Each session knows nothing of the ones before it.
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

    /// Requests that are taken, and nanoseconds, before others have their turn.
    private static let fairShare = 64
    private static let fairTime: UInt64 = 2_000_000
    /// Requests under way at once, and those of them that have come by the queue for urgent ones.
    static let mostRequests = 64
    static let mostUrgent = 16

    private let shared: SharedDirectory
    let clock: any MonotonicClock
    private let work = WorkSlot()
    let workers: FileWorkers
    /// A thread for urgent requests, which are not to wait for others. Source: [VIRTIO1.2 §5.11.6.2.1].
    private let urgentWorkers: FileWorkers
    let retry: any Alarm
    let relief: any Alarm
    private let counters = FileCounters()
    /// Queues to be looked at, a bit each.
    private let asked = Atomic<UInt32>(0)
    let state = Mutex(State())

    struct State {
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
        /// Requests that were to be interrupted while they did not wait: one that is just trying its lock anew comes back. The last few,
        /// by their unique numbers.
        var interrupted: [UInt64] = []
        var retriesAt: UInt64?
        /// When it is looked at whether any of the threads is let go of by the host, and what they had taken by then.
        var relievesAt: UInt64?
        var takenBefore: UInt64 = 0
        /// Memory for those who do requests themselves.
        var scratch: [FileScratch] = []
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
        relief = events.makeAlarm { slot.schedule() }
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
        // Not here, on a vCPU's thread: a guest that has several requests under way makes more of them meanwhile, and is interrupted
        // once for all that are done by then.
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
            state.interrupted.removeAll(keepingCapacity: true)
            state.retriesAt = nil
            state.relievesAt = nil
            // What was waited for in vain once is not waited for again.
            let isBusy = state.inFlight > 0 && !state.isHeld
            state.isHeld = state.inFlight > 0
            return (isBusy, server)
        }
        retry.set(deadline: nil)
        relief.set(deadline: nil)
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

    // MARK: Requests

    /// What one thread is at: some requests, one after the other.
    private struct Turn {
        /// Queues to be looked at, and those that were told not to notify meanwhile; a bit each.
        var asked: UInt32 = 0
        var quiet: UInt32 = 0
        var rest = FileSystemDevice.fairShare
        let end = Monitor.now() &+ FileSystemDevice.fairTime
        var scratch: FileScratch?
        /// The one that was just performed.
        var request: FileRequest?
        var isDone = true
    }

    /// A turn of the event loop.
    private func serve() {
        var turn = Turn()
        let scratch = state.withLock { state in
            collect(&state)
            relieve(&state)
            retryLocks(&state)
            turn.asked = asked.exchange(0, ordering: .acquiringAndReleasing)
            return state.scratch.popLast()
        } ?? FileScratch()
        turn.scratch = scratch
        while let request = state.withLock({ next(&turn, &$0) }) {
            // Without the lock: neither resets nor other queues wait for the host.
            turn.isDone = request.server?.perform(request, scratch, mayWait: false) ?? true
            if turn.isDone { request.server = nil }
            workers.end()
            turn.request = request
        }
    }

    /// Takes back what was performed, and gives the next one to be.
    private func next(_ turn: inout Turn, _ state: inout State) -> FileRequest? {
        if let request = turn.request {
            turn.request = nil
            state.inFlight &-= 1
            if turn.isDone || request.generation != state.generation || state.session == nil {
                finish(request, &state)
            } else {
                submit(request, &state)
            }
            settle(&state)
        }
        if let session = state.session, !state.isHeld {
            while turn.asked != 0 {
                guard turn.rest > 0, turn.rest == Self.fairShare || Monitor.now() < turn.end else {
                    asked.bitwiseOr(turn.asked, ordering: .acquiringAndReleasing)
                    work.schedule()
                    break
                }
                let index = turn.asked.trailingZeroBitCount
                if index < queueSizes.count, let queue = session.queue(index),
                    let request = take(index, queue, session, &turn, &state)
                {
                    turn.rest &-= 1
                    return request
                }
                turn.asked &= ~(1 &<< UInt32(truncatingIfNeeded: index))
            }
            signal(session, &state)
        } else if turn.asked != 0 {
            // Whoever comes next.
            asked.bitwiseOr(turn.asked, ordering: .acquiringAndReleasing)
        }
        if let scratch = turn.scratch { state.scratch.append(scratch) }
        turn.scratch = nil
        return nil
    }

    /// The next request of a queue; nil where there is none, or no room for it.
    private func take(
        _ index: Int, _ queue: Virtqueue, _ session: DeviceSession, _ turn: inout Turn, _ state: inout State
    ) -> FileRequest? {
        let bit = 1 &<< UInt32(truncatingIfNeeded: index)
        if turn.quiet & bit == 0 { queue.disableNotifications() }
        turn.quiet |= bit
        guard let request = takeRequest(index, &state) else {
            // Whatever comes back has the queue looked at again.
            asked.bitwiseOr(bit, ordering: .acquiringAndReleasing)
            return nil
        }
        while true {
            switch queue.next(request.chain) {
            case .request:
                request.queue = index
                request.generation = state.generation
                request.server = state.server
                if index == 0 { state.urgent &+= 1 }
                state.inFlight &+= 1
                // With the lock: a reset that comes now waits for it.
                workers.begin()
                return request
            case .empty:
                if queue.enableNotifications() {
                    queue.disableNotifications()
                    continue
                }
                turn.quiet &= ~bit
            case .broken: session.fail()
            }
            state.free.append(request)
            return nil
        }
    }

    private func takeRequest(_ queue: Int, _ state: inout State) -> FileRequest? {
        let busy = state.inFlight + state.waiting.count
        // Those that are urgent find room when nobody else does.
        guard queue == 0 ? state.urgent < Self.mostUrgent : busy - state.urgent < Self.mostRequests else { return nil }
        if let request = state.free.popLast() { return request }
        state.made &+= 1
        return FileRequest()
    }

    /// Has a request done by a thread that may wait.
    func submit(_ request: FileRequest, _ state: inout State) {
        request.server = state.server
        switch (request.queue == 0 ? urgentWorkers : workers).submit(request) {
        case .begun: break
        case .waits: if request.queue != 0 { watchThreads(&state) }
        case .refused:
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
        settle(&state)
    }

    /// Of a session that has ended nothing is under way any more: the next one is served.
    private func settle(_ state: inout State) {
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
            interrupt(unique, &state)
            giveBack(request, &state)
        }
    }

    private func recycle(_ request: FileRequest, _ state: inout State) {
        if request.queue == 0 { state.urgent &-= 1 }
        request.waitsUntil = 0
        state.free.append(request)
    }

    func giveBack(_ request: FileRequest, _ state: inout State) {
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
}
