public import Glibc

/// What an image could not do: an errno of the host's, or a fault of the image itself.
public enum BlockError: Error, Hashable, Sendable {
    /// The host refused: no space, an I/O error.
    case host(errno: Int32)
    /// The range is not within the image.
    case outOfRange(offset: UInt64, count: UInt64)
    /// The image's own tables say what cannot be. What is in the file stays as it is.
    case corrupt(String)
    /// The image was opened for reading only.
    case readOnly
}

/// A disk's bytes, whatever file or format they are in: what a block device reads and writes. Knows nothing of queues.
///
/// Calls block; several threads call at once, also for ranges that overlap: then either's bytes may be the ones that stay.
/// Every range is checked: none of them is trusted.
public protocol BlockImage: AnyObject, Sendable {
    /// Bytes, a multiple of 512. Does not change while the image is open.
    var capacity: UInt64 { get }
    var isReadOnly: Bool { get }
    /// What the host's file does best in one piece, in bytes; a power of two from 512 on.
    var preferredBlockSize: UInt32 { get }

    /// Reads as many bytes as the vectors have room for. What was never written reads as zero.
    func read(at offset: UInt64, into vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError)

    /// Writes all bytes of the vectors.
    func write(at offset: UInt64, from vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError)

    /// Everything written before, by any thread, survives the host's power failing once this returns.
    func flush() throws(BlockError)

    /// The bytes are not needed any more: the host may have their space back. What they read as afterwards is zero or what was
    /// there.
    func discard(at offset: UInt64, count: UInt64) throws(BlockError)

    /// The bytes read as zero afterwards.
    /// - Parameter mayUnmap: whether the space may go, too.
    func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(BlockError)
}
