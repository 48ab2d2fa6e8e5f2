public import Glibc

/// An image whose calls never block: the event loop makes them itself.
protocol ImmediateImage: BlockImage {}

/// A disk with nothing behind it: it reads as zero, and writes vanish. For measuring what is in front of a disk.
public final class NullImage: ImmediateImage {
    public let capacity: UInt64
    public let isReadOnly: Bool
    public let preferredBlockSize: UInt32 = 4096

    /// - Parameter capacity: in bytes; rounded down to whole sectors.
    public init(capacity: UInt64, isReadOnly: Bool = false) {
        self.capacity = capacity & ~511
        self.isReadOnly = isReadOnly
    }

    public func read(at offset: UInt64, into vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) {
        var count: UInt64 = 0
        for unsafe vector in unsafe vectors { unsafe count &+= UInt64(vector.iov_len) }
        try check(offset, count)
        for unsafe vector in unsafe vectors {
            if let base = unsafe vector.iov_base { unsafe _ = memset(base, 0, vector.iov_len) }
        }
    }

    public func write(at offset: UInt64, from vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) {
        guard !isReadOnly else { throw .readOnly }
        try check(offset, unsafe VectorTransfer.count(vectors))
    }

    public func flush() throws(BlockError) {}

    public func discard(at offset: UInt64, count: UInt64) throws(BlockError) {
        guard !isReadOnly else { throw .readOnly }
        try check(offset, count)
    }

    public func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(BlockError) {
        try discard(at: offset, count: count)
    }

    private func check(_ offset: UInt64, _ count: UInt64) throws(BlockError) {
        guard offset <= capacity, count <= capacity &- offset else { throw .outOfRange(offset: offset, count: count) }
    }
}
