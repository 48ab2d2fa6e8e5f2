internal import Glibc

/// One request of the guest's, from its queue to the host and back. Used over and over.
///
/// Whoever has it is the only one to touch it: the device, or the workers between `submit` and `takeFinished`.
final class FileRequest: WorkerRequest, @unchecked Sendable {
    enum Outcome {
        /// There is an answer, or none is wanted.
        case answered
        /// A lock that others have: to be tried again.
        case waits
        /// The guest no longer waits for the request with this number.
        case interrupts(UInt64)
    }

    let chain = DescriptorChain()
    var queue = 0
    /// Of which session; completions of earlier ones touch nothing.
    var generation: UInt64 = 0
    /// The session's; nil once nobody is to work on it.
    var server: FileServer?
    var next: FileRequest?

    var outcome = Outcome.answered
    /// The guest's number for it.
    var unique: UInt64 = 0
    /// Bytes from the first writable one on that hold the answer.
    var written: UInt64 = 0
    /// Bytes that may have been written beside the answer.
    var touched: UInt64 = 0
    /// When waiting for a lock ends.
    var waitsUntil: UInt64 = 0

    func cancel() {
        outcome = .answered
        written = 0
        server = nil
    }

    /// Answers with an errno, or with 0 for success without more to say.
    func answer(error code: Int32) {
        written = 0
        let length = UInt32(truncatingIfNeeded: FUSEAnswerHeader.byteCount)
        guard chain.writableBytes >= FUSEAnswerHeader.byteCount,
            chain.store(FUSEAnswerHeader(length: length, error: 0 &- code, unique: unique), at: 0)
        else { return }
        written = FUSEAnswerHeader.byteCount
    }
}

/// Memory that a worker has for the request that it is at.
@safe final class FileScratch: @unchecked Sendable {
    /// An extended attribute's value, a link's target, a piece of a directory.
    static let byteCount = 64 << 10
    nonisolated(unsafe) let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: FileScratch.byteCount + 64, alignment: 16)
    nonisolated(unsafe) let vectors = UnsafeMutableBufferPointer<iovec>.allocate(capacity: DescriptorChain.capacity)

    deinit {
        unsafe bytes.deallocate()
        unsafe vectors.deallocate()
    }
}
