internal import CHost
internal import Glibc
internal import Synchronization

/// Reads what the host has in memory anyway, while the event loop waits: no ring and no thread takes part, and nobody has to be woken.
///
/// preadv2(2) with RWF_NOWAIT fills what the page cache holds, and neither waits for a disk nor begins to read from one. A file
/// in tmpfs is memory whole and need not be asked so, which is as well: older kernels would refuse.
final class CacheReader: Sendable {
    /// Bytes of the longest request that is copied here; what is longer would hold others up.
    static let mostBytes: UInt64 = 2 << 20
    private let descriptor: Int32
    private let isMemory: Bool
    /// The file system knows the flag.
    private let isKnown = Atomic<Bool>(true)

    /// - Returns: nil where the page cache is not to be used.
    init?(_ image: any DescriptorImage) {
        guard image.alignment == 1 else { return nil }
        descriptor = image.descriptor
        isMemory = chost_file_is_memory(image.descriptor)
    }

    /// Fills a read's buffers as far as it goes; what it does not fill is what is left of the request.
    /// - Returns: whether that is all of it. An error is left to whoever tries the rest.
    @inline(__always)
    func fill(_ request: BlockRequest) -> Bool {
        guard request.operation == .read, request.bytes <= Self.mostBytes, isKnown.load(ordering: .relaxed) else { return false }
        return fillKnown(request)
    }

    private func fillKnown(_ request: BlockRequest) -> Bool {
        let vectors = unsafe request.rest
        let number = Int32(min(vectors.count, VectorTransfer.mostVectors))
        let result = unsafe chost_read_at_once(descriptor, vectors.baseAddress, number, request.offset, isMemory)
        guard result > 0 else {
            if result == -EOPNOTSUPP || result == -ENOSYS { isKnown.store(false, ordering: .relaxed) }
            return false
        }
        request.offset &+= UInt64(result)
        return unsafe !VectorTransfer.advance(&request.rest, by: result)
    }
}
