internal import VMCore

/// A request that threads work on. Whoever has it is the only one to touch it: the device, or the pool between `submit` and
/// `takeFinished`.
protocol WorkerRequest: ListedRequest, Sendable {
    /// It will not be done any more.
    func cancel()
}

/// Threads that make calls to the host, which may block: a few, started as they are needed; and calls that do not, on other threads.
final class WorkerPool<Request: WorkerRequest, Scratch>: Sendable {
    private let crew: Crew

    /// - Parameters:
    ///   - threads: how many there are at most; at least 1.
    ///   - name: the threads', for ps and debuggers; at most 15 bytes.
    ///   - finished: is scheduled when there is something to take.
    ///   - scratch: makes what a thread has for itself; called on it, once.
    ///   - perform: does a request, on one of the threads. It is let go of with the pool, whatever the host still has of the requests.
    init(
        threads: Int, named name: StaticString, finished: WorkSlot, scratch: @escaping @Sendable () -> Scratch,
        perform: @escaping @Sendable (Request, Scratch) -> Void
    ) {
        crew = Crew(most: max(1, threads), name: name, announcement: finished, scratch: scratch, perform: perform)
    }

    // Threads that the host does not let go of keep what they need, and end when it does.
    deinit { crew.close() }

    enum Submission { case begun, waits, refused }

    /// Takes a request.
    /// - Returns: `waits` where all threads are busy, `refused` where none is to be had.
    func submit(_ request: Request) -> Submission { crew.submit(request) }

    /// Counts a call that its caller makes itself, at once; `drain` waits for it. Allowed with any lock held.
    func begin() { crew.begin() }
    func end() { crew.end() }

    /// Requests that no thread has taken yet, and how many have been taken ever.
    var backlog: (waiting: Int, taken: UInt64) { crew.backlog }

    /// Starts a thread beside the usual ones, all of which the host does not let go of. It ends when it is no longer needed.
    /// - Parameter limit: for how many threads there may be at all.
    func relieve(limit: Int) { crew.relieve(limit: limit) }

    /// A request that has finished, if there is one.
    func takeFinished() -> Request? { crew.takeFinished() }

    /// Waits until nothing is under way any more. What has not begun is cancelled, and so finished.
    /// - Returns: false where the host still has some of it when the time is over.
    func drain(milliseconds: UInt64) -> Bool { crew.drain(milliseconds: milliseconds) }

    /// What the threads share.
    private final class Crew: @unchecked Sendable {
        private let most: Int
        private let name: StaticString
        private let announcement: WorkSlot
        private let scratch: @Sendable () -> Scratch
        private let work = Monitor()
        /// nil once nobody is to use it any more.
        private var perform: (@Sendable (Request, Scratch) -> Void)?
        private var waiting = RequestList<Request>()
        private var waitingCount = 0
        private var taken: UInt64 = 0
        private var finished = RequestList<Request>()
        private var threads = 0
        private var idle = 0
        private var running = 0
        private var drainers = 0
        private var isAnnounced = false

        init(
            most: Int, name: StaticString, announcement: WorkSlot, scratch: @escaping @Sendable () -> Scratch,
            perform: @escaping @Sendable (Request, Scratch) -> Void
        ) {
            self.most = most
            self.name = name
            self.announcement = announcement
            self.scratch = scratch
            self.perform = perform
        }

        func submit(_ request: Request) -> Submission {
            work.lock()
            defer { work.unlock() }
            let isTaken = idle > waitingCount || threads < most && startThread()
            guard threads > 0 else { return .refused }
            waiting.append(request)
            waitingCount &+= 1
            // Those who drain wait too, but not while anything is submitted.
            if idle > 0 { work.wakeOne() }
            return isTaken ? .begun : .waits
        }

        private func startThread() -> Bool {
            guard WorkerThread.start(named: name, { self.serve() }) else { return false }
            threads &+= 1
            return true
        }

        func begin() {
            work.lock()
            running &+= 1
            work.unlock()
        }

        func end() {
            work.lock()
            endOne()
            work.unlock()
        }

        private func endOne() {
            running &-= 1
            if running == 0, drainers > 0 { work.wakeAll() }
        }

        var backlog: (waiting: Int, taken: UInt64) {
            work.lock()
            defer { work.unlock() }
            return (waitingCount, taken)
        }

        func relieve(limit: Int) {
            work.lock()
            defer { work.unlock() }
            if waitingCount > 0, threads < limit { _ = startThread() }
        }

        private func serve() {
            let scratch = scratch()
            work.lock()
            while true {
                guard let request = waiting.popFirst() else {
                    // One beside the usual ones stays while those are not let go of.
                    if perform == nil || threads > most && idle > 0 { break }
                    idle &+= 1
                    work.wait()
                    idle &-= 1
                    continue
                }
                waitingCount &-= 1
                taken &+= 1
                running &+= 1
                let perform = perform
                work.unlock()
                perform?(request, scratch)
                work.lock()
                finished.append(request)
                endOne()
                let isFirst = !isAnnounced
                isAnnounced = true
                if isFirst {
                    work.unlock()
                    announcement.schedule()
                    work.lock()
                }
            }
            threads &-= 1
            work.unlock()
        }

        func takeFinished() -> Request? {
            work.lock()
            defer { work.unlock() }
            let request = finished.popFirst()
            if finished.isEmpty { isAnnounced = false }
            return request
        }

        private func cancelWaiting() {
            waitingCount = 0
            while let request = waiting.popFirst() {
                request.cancel()
                finished.append(request)
            }
        }

        func drain(milliseconds: UInt64) -> Bool {
            let deadline = Monitor.now() &+ milliseconds &* 1_000_000
            work.lock()
            defer { work.unlock() }
            cancelWaiting()
            drainers &+= 1
            defer { drainers &-= 1 }
            while running > 0 {
                guard work.wait(until: deadline) else { return running == 0 }
            }
            return true
        }

        func close() {
            work.lock()
            cancelWaiting()
            perform = nil
            work.wakeAll()
            work.unlock()
        }
    }
}
