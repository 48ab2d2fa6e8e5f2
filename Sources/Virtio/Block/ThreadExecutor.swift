internal import Glibc
internal import VMCore

/// Makes an image's calls on a few threads, started as they are needed. For images of any format, and hosts without io_uring.
final class ThreadExecutor: BlockExecutor {
    let kind = BlockExecution.threads
    private let crew: Crew

    /// - Parameters:
    ///   - threads: how many there are at most; at least 1.
    ///   - finished: is scheduled when there is something to take.
    init(_ image: any BlockImage, threads: Int, finished: WorkSlot) {
        crew = Crew(image, most: max(1, threads), announcement: finished)
    }

    // Threads that the host does not let go of keep what they need, and end when it does.
    deinit { crew.close() }

    func submit(_ request: BlockRequest) -> Bool { crew.submit(request) }
    func commit() {}
    func takeFinished() -> BlockRequest? { crew.takeFinished() }
    func drain(milliseconds: UInt64) -> Bool { crew.drain(milliseconds: milliseconds) }

    /// What the threads share.
    private final class Crew: @unchecked Sendable {
        /// nil once nobody is to use it any more: it closes with its last call, whenever the threads end.
        private var image: (any BlockImage)?
        private let most: Int
        private let announcement: WorkSlot
        private let work = Monitor()
        private var waiting = RequestList()
        private var waitingCount = 0
        private var finished = RequestList()
        private var threads = 0
        private var idle = 0
        private var running = 0
        private var drainers = 0
        private var isAnnounced = false
        private var isClosed = false

        init(_ image: any BlockImage, most: Int, announcement: WorkSlot) {
            self.image = image
            self.most = most
            self.announcement = announcement
        }

        func submit(_ request: BlockRequest) -> Bool {
            work.lock()
            defer { work.unlock() }
            if idle <= waitingCount, threads < most, WorkerThread.start({ self.serve() }) { threads &+= 1 }
            guard threads > 0 else {
                // No thread to be had: better late than never.
                request.result = Self.perform(request, image)
                return true
            }
            waiting.append(request)
            waitingCount &+= 1
            // Those who drain wait too, but not while anything is submitted.
            if idle > 0 { work.wakeOne() }
            return false
        }

        private func serve() {
            work.lock()
            while true {
                guard let request = waiting.popFirst() else {
                    if isClosed { break }
                    idle &+= 1
                    work.wait()
                    idle &-= 1
                    continue
                }
                waitingCount &-= 1
                running &+= 1
                perform(request)
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

        /// Gives the lock up for as long as the host takes.
        private func perform(_ request: BlockRequest) {
            let image = image
            work.unlock()
            request.result = Self.perform(request, image)
            work.lock()
        }

        private static func perform(_ request: BlockRequest, _ image: (any BlockImage)?) -> Int32 {
            guard let image else { return ECANCELED }
            return request.perform(on: image)
        }

        func takeFinished() -> BlockRequest? {
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
                request.result = ECANCELED
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
            image = nil
            work.wakeAll()
            work.unlock()
        }
    }
}
