internal import CHost
internal import Glibc
internal import VMCore

/// The threads that make a share's calls to the host, which may block: a few, started as they are needed; and calls that do not, on
/// other threads.
final class FileWorkers: Sendable {
    private let crew: Crew

    /// - Parameter finished: is scheduled when there is something to take.
    init(threads: Int, finished: WorkSlot) { crew = Crew(most: max(1, threads), announcement: finished) }

    // Threads that the host does not let go of keep what they need, and end when it does.
    deinit { crew.close() }

    enum Submission { case begun, waits, refused }

    /// Takes a request.
    /// - Returns: `waits` where all threads are busy, `refused` where none is to be had.
    func submit(_ request: FileRequest) -> Submission { crew.submit(request) }

    /// Counts a call that its caller makes itself, at once; `drain` waits for it. Allowed with any lock held.
    func begin() { crew.begin() }
    func end() { crew.end() }

    /// Requests that no thread has taken yet, and how many have been taken ever.
    var backlog: (waiting: Int, taken: UInt64) { crew.backlog }

    /// Starts a thread beside the usual ones, all of which the host does not let go of. It ends when it is no longer needed.
    /// - Parameter limit: for how many threads there may be at all.
    func relieve(limit: Int) { crew.relieve(limit: limit) }

    /// A request that has finished, if there is one.
    func takeFinished() -> FileRequest? { crew.takeFinished() }

    /// Waits until nothing is under way any more. What has not begun is finished without having been done.
    /// - Returns: false where the host still has some of it when the time is over.
    func drain(milliseconds: UInt64) -> Bool { crew.drain(milliseconds: milliseconds) }

    /// What the threads share.
    private final class Crew: @unchecked Sendable {
        private let most: Int
        private let announcement: WorkSlot
        private let work = Monitor()
        private var waiting = FileRequestList()
        private var waitingCount = 0
        private var taken: UInt64 = 0
        private var finished = FileRequestList()
        private var threads = 0
        private var idle = 0
        private var running = 0
        private var drainers = 0
        private var isAnnounced = false
        private var isClosed = false

        init(most: Int, announcement: WorkSlot) {
            self.most = most
            self.announcement = announcement
        }

        func submit(_ request: FileRequest) -> Submission {
            work.lock()
            defer { work.unlock() }
            var isTaken = idle > waitingCount
            if !isTaken, threads < most, WorkerThread.start(named: "share", { self.serve() }) {
                threads &+= 1
                isTaken = true
            }
            guard threads > 0 else { return .refused }
            waiting.append(request)
            waitingCount &+= 1
            if idle > 0 { work.wakeOne() }
            return isTaken ? .begun : .waits
        }

        func begin() {
            work.lock()
            running &+= 1
            work.unlock()
        }

        func end() {
            work.lock()
            running &-= 1
            if running == 0, drainers > 0 { work.wakeAll() }
            work.unlock()
        }

        var backlog: (waiting: Int, taken: UInt64) {
            work.lock()
            defer { work.unlock() }
            return (waitingCount, taken)
        }

        func relieve(limit: Int) {
            work.lock()
            defer { work.unlock() }
            guard waitingCount > 0, threads < limit, WorkerThread.start(named: "share", { self.serve() }) else { return }
            threads &+= 1
        }

        private func serve() {
            // Modes are the guest's to mask, and are masked already.
            _ = chost_thread_unmask()
            let scratch = FileScratch()
            work.lock()
            while true {
                guard let request = waiting.popFirst() else {
                    // One beside the usual ones stays while those are not let go of.
                    if isClosed || threads > most && idle > 0 { break }
                    idle &+= 1
                    work.wait()
                    idle &-= 1
                    continue
                }
                waitingCount &-= 1
                taken &+= 1
                running &+= 1
                work.unlock()
                _ = request.server?.perform(request, scratch, mayWait: true)
                // Here, where it may take its time: the session may have ended, and much be closed with it.
                request.server = nil
                work.lock()
                running &-= 1
                finished.append(request)
                let isFirst = !isAnnounced
                isAnnounced = true
                if running == 0, drainers > 0 { work.wakeAll() }
                if isFirst {
                    work.unlock()
                    announcement.schedule()
                    work.lock()
                }
            }
            threads &-= 1
            work.unlock()
        }

        func takeFinished() -> FileRequest? {
            work.lock()
            defer { work.unlock() }
            let request = finished.popFirst()
            if finished.isEmpty { isAnnounced = false }
            return request
        }

        func drain(milliseconds: UInt64) -> Bool {
            let deadline = Monitor.now() &+ milliseconds &* 1_000_000
            work.lock()
            defer { work.unlock() }
            waitingCount = 0
            while let request = waiting.popFirst() {
                request.outcome = .answered
                request.written = 0
                request.server = nil
                finished.append(request)
            }
            drainers &+= 1
            defer { drainers &-= 1 }
            while running > 0 {
                guard work.wait(until: deadline) else { return running == 0 }
            }
            return true
        }

        func close() {
            work.lock()
            isClosed = true
            work.wakeAll()
            work.unlock()
        }
    }
}
