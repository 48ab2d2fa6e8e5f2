/// Makes an image's calls on a few threads, started as they are needed. For images of any format, and hosts without io_uring.
final class ThreadExecutor: BlockExecutor {
    let kind = BlockExecution.threads
    private let image: any BlockImage
    private let workers: WorkerPool<BlockRequest, Void>

    /// - Parameters:
    ///   - threads: how many there are at most; at least 1.
    ///   - finished: is scheduled when there is something to take.
    init(_ image: any BlockImage, threads: Int, finished: WorkSlot) {
        self.image = image
        workers = WorkerPool(threads: threads, named: "disk", finished: finished, scratch: {}) { request, _ in
            request.result = request.perform(on: image)
        }
    }

    func submit(_ request: BlockRequest) -> Bool {
        guard workers.submit(request) == .refused else { return false }
        // No thread to be had: better late than never.
        request.result = request.perform(on: image)
        return true
    }

    func commit() {}
    func takeFinished() -> BlockRequest? { workers.takeFinished() }
    func drain(milliseconds: UInt64) -> Bool { workers.drain(milliseconds: milliseconds) }
}
