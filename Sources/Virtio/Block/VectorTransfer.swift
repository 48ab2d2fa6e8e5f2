internal import CHost
internal import Glibc
internal import Synchronization

/// An image whose bytes are one descriptor's at the same offsets, so that the host's kernel can be asked for them without a
/// thread that waits.
protocol DescriptorImage: BlockImage {
    var descriptor: Int32 { get }
    /// What offsets, lengths and buffers of a direct call have to be a multiple of.
    var alignment: UInt32 { get }
    /// What a call of fdatasync(2) for the image returned, 0 or an errno.
    /// - Returns: what to tell the guest.
    func flushed(_ code: Int32) -> Int32
}

/// Reads and writes of whole vectors through calls that may be interrupted, and do less than they were asked to.
enum VectorTransfer {
    /// Interruptions in a row without a byte moved, after which the call is given up.
    static let mostRetries = 64
    /// Vectors that one call takes. Source: readv(2), IOV_MAX.
    static let mostVectors = 1024

    enum Fit { case aligned, unalignedBuffers, unalignedRange }

    @inline(__always)
    static func count(_ vectors: UnsafeMutableBufferPointer<iovec>) -> UInt64 {
        var sum: UInt64 = 0
        for unsafe vector in unsafe vectors { unsafe sum &+= UInt64(vector.iov_len) }
        return sum
    }

    static func fit(_ vectors: UnsafeMutableBufferPointer<iovec>, at offset: UInt64, alignment: UInt32) -> Fit {
        guard alignment > 1 else { return .aligned }
        let mask = UInt64(alignment) &- 1
        guard offset & mask == 0, unsafe count(vectors) & mask == 0 else { return .unalignedRange }
        for unsafe vector in unsafe vectors
        where unsafe (UInt64(UInt(bitPattern: vector.iov_base)) | UInt64(vector.iov_len)) & mask != 0 {
            return .unalignedBuffers
        }
        return .aligned
    }

    /// Transfers all of the vectors, whose entries it changes.
    static func run(
        _ descriptor: Int32, _ vectors: UnsafeMutableBufferPointer<iovec>, at offset: UInt64, isWrite: Bool
    ) throws(BlockError) {
        var rest = unsafe vectors
        var place = offset
        var retries = 0
        while unsafe advance(&rest, by: 0) {
            let number = Int32(min(rest.count, mostVectors))
            let result = unsafe isWrite
                ? pwritev(descriptor, rest.baseAddress, number, off_t(place))
                : preadv(descriptor, rest.baseAddress, number, off_t(place))
            if result < 0 {
                let code = errno
                retries += 1
                guard code == EINTR || code == EAGAIN, retries < mostRetries else { throw .host(errno: code) }
                continue
            }
            // The file ends before the image does: somebody has cut it.
            guard result > 0 else { throw .host(errno: EIO) }
            retries = 0
            place &+= UInt64(result)
            unsafe _ = advance(&rest, by: result)
        }
    }

    /// Drops the first `count` bytes, and vectors without bytes.
    /// - Returns: whether anything is left.
    static func advance(_ vectors: inout UnsafeMutableBufferPointer<iovec>, by count: Int) -> Bool {
        var skip = count
        var index = 0
        while index < vectors.count {
            let length = unsafe vectors[index].iov_len
            if skip < length {
                if skip > 0, let base = unsafe vectors[index].iov_base {
                    unsafe vectors[index] = iovec(iov_base: base + skip, iov_len: length &- skip)
                }
                break
            }
            skip &-= length
            index &+= 1
        }
        unsafe vectors = UnsafeMutableBufferPointer(rebasing: vectors[index...])
        return !vectors.isEmpty
    }
}

/// Aligned memory that transfers to and from buffers go through which a direct call would not take. One request at a time.
@safe final class BounceBuffer: Sendable {
    private static let size = 256 << 10
    private let alignment: Int
    /// Made when it is first needed.
    private let buffer = Mutex<UInt>(0)

    init(alignment: Int) { self.alignment = max(alignment, 512) }

    deinit { unsafe UnsafeMutableRawPointer(bitPattern: buffer.withLock { $0 })?.deallocate() }

    func run(
        _ descriptor: Int32, _ vectors: UnsafeMutableBufferPointer<iovec>, at offset: UInt64, isWrite: Bool
    ) throws(BlockError) {
        try buffer.withLock { place throws(BlockError) in
            if place == 0 {
                place = UInt(bitPattern: UnsafeMutableRawPointer.allocate(byteCount: Self.size, alignment: alignment))
            }
            try unsafe Self.run(
                descriptor, vectors, at: offset, isWrite: isWrite,
                through: UnsafeMutableRawBufferPointer(
                    start: UnsafeMutableRawPointer(bitPattern: place), count: Self.size))
        }
    }

    private static func run(
        _ descriptor: Int32, _ vectors: UnsafeMutableBufferPointer<iovec>, at offset: UInt64, isWrite: Bool,
        through bytes: UnsafeMutableRawBufferPointer
    ) throws(BlockError) {
        var rest = unsafe vectors
        var place = offset
        var total = unsafe VectorTransfer.count(vectors)
        while total > 0 {
            let part = min(Int(clamping: total), bytes.count)
            let piece = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[..<part])
            if isWrite { unsafe copy(&rest, piece, toVectors: false) }
            var vector = unsafe iovec(iov_base: piece.baseAddress, iov_len: part)
            try unsafe withUnsafeMutablePointer(to: &vector) { vector throws(BlockError) in
                try unsafe VectorTransfer.run(
                    descriptor, UnsafeMutableBufferPointer(start: vector, count: 1), at: place, isWrite: isWrite)
            }
            if !isWrite { unsafe copy(&rest, piece, toVectors: true) }
            place &+= UInt64(part)
            total &-= UInt64(part)
        }
    }

    /// Copies between the piece and the first bytes of the vectors, and drops those.
    private static func copy(
        _ vectors: inout UnsafeMutableBufferPointer<iovec>, _ piece: UnsafeMutableRawBufferPointer, toVectors: Bool
    ) {
        guard let start = piece.baseAddress else { return }
        var done = 0
        while done < piece.count, unsafe VectorTransfer.advance(&vectors, by: 0) {
            let part = unsafe min(vectors[0].iov_len, piece.count &- done)
            guard let base = unsafe vectors[0].iov_base else { return }
            if toVectors {
                unsafe base.copyMemory(from: start + done, byteCount: part)
            } else {
                unsafe (start + done).copyMemory(from: base, byteCount: part)
            }
            done &+= part
            unsafe _ = VectorTransfer.advance(&vectors, by: part)
        }
    }
}
