internal import CHost

/// The threads that make a share's calls to the host.
typealias FileWorkers = WorkerPool<FileRequest, FileScratch>

extension WorkerPool where Request == FileRequest, Scratch == FileScratch {
    /// - Parameter finished: is scheduled when there is something to take.
    convenience init(threads: Int, finished: WorkSlot) {
        self.init(
            threads: threads, named: "share", finished: finished,
            scratch: {
                // Modes are the guest's to mask, and are masked already.
                _ = chost_thread_unmask()
                return FileScratch()
            },
            perform: { request, scratch in
                _ = request.server?.perform(request, scratch, mayWait: true)
                // Here, where it may take its time: the session may have ended, and much be closed with it.
                request.server = nil
            })
    }
}
