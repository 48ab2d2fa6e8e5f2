internal import CHost
internal import Glibc
internal import VMCore

/// One range of a discard or write-zeroes request, as the guest lays it out. Source: [VIRTIO1.2 §5.2.6].
struct BlockSegment: BitwiseCopyable {
    var sector: UInt64
    var sectors: UInt32
    var flags: UInt32

    static let unmap: UInt32 = 1
}

/// One request of the guest's, from its queue to the host and back. Used over and over: holds all the memory that it needs.
///
/// Whoever has it is the only one to touch it: the device, or the executor between `submit` and `takeFinished`.
@safe final class BlockRequest: WorkerRequest, @unchecked Sendable {
    enum Operation { case read, write, flush, discard, writeZeroes }

    let chain = DescriptorChain()
    var queue = 0
    /// Of which session; completions of earlier ones touch nothing.
    var generation: UInt64 = 0
    var isThrottled = false
    var next: BlockRequest?

    var operation = Operation.flush
    /// Nothing is volatile: what was written is on the disk before the request is complete.
    var flushesAfter = false
    var offset: UInt64 = 0
    /// Bytes to be transferred or zeroed.
    var bytes: UInt64 = 0
    var segmentCount = 0
    /// 0 or an errno.
    var result: Int32 = 0
    /// Calls in a row that moved nothing.
    var retries = 0

    nonisolated(unsafe) private let vectors: UnsafeMutablePointer<iovec>
    nonisolated(unsafe) private let segments: UnsafeMutablePointer<BlockSegment>
    /// Where the status goes: the last byte of the last writable buffer.
    nonisolated(unsafe) private var status: UnsafeMutablePointer<UInt8>?
    /// What is yet to be transferred.
    nonisolated(unsafe) var rest: UnsafeMutableBufferPointer<iovec>

    init() {
        unsafe vectors = .allocate(capacity: DescriptorChain.capacity)
        unsafe segments = .allocate(capacity: Int(BlockLimits.discardSegments))
        unsafe rest = UnsafeMutableBufferPointer(start: vectors, count: 0)
    }

    deinit {
        unsafe vectors.deallocate()
        unsafe segments.deallocate()
    }

    // MARK: The buffers

    /// Finds the status byte. Guest memory's host addresses are not nil, and no buffer is empty.
    /// - Returns: false where the chain has no room for one.
    @inline(__always)
    func locateStatus() -> Bool {
        let writable = unsafe chain.writable
        guard writable.count > 0 else { return false }
        let last = unsafe writable[writable.count &- 1]
        guard let base = unsafe last.iov_base else { return false }
        unsafe status = (base + (last.iov_len &- 1)).assumingMemoryBound(to: UInt8.self)
        return true
    }

    @inline(__always)
    func store(status value: UInt8) { unsafe status?.pointee = value }

    /// The writable buffers but for the status byte become what is to be filled.
    @inline(__always)
    func useWritable() {
        let writable = unsafe chain.writable
        for index in 0..<writable.count { unsafe vectors[index] = writable[index] }
        let last = writable.count &- 1
        unsafe vectors[last].iov_len &-= 1
        unsafe rest = UnsafeMutableBufferPointer(start: vectors, count: vectors[last].iov_len > 0 ? last &+ 1 : last)
    }

    /// The readable buffers behind the first `skipped` bytes become what is to be written.
    @inline(__always)
    func useReadable(after skipped: Int) {
        let readable = unsafe chain.readable
        for index in 0..<readable.count { unsafe vectors[index] = readable[index] }
        unsafe rest = UnsafeMutableBufferPointer(start: vectors, count: readable.count)
        _ = unsafe VectorTransfer.advance(&rest, by: skipped)
    }

    /// Takes the segments of a discard or write-zeroes request, once.
    func loadSegments(_ count: Int) -> Bool {
        let place = unsafe UnsafeMutableRawBufferPointer(start: segments, count: count &* MemoryLayout<BlockSegment>.size)
        segmentCount = count
        return unsafe chain.read(at: BlockHeader.byteCount, into: place) == place.count
    }

    /// - Parameter index: below `segmentCount`.
    func segment(_ index: Int) -> BlockSegment { unsafe segments[index] }

    // MARK: The work

    func cancel() { result = ECANCELED }

    /// Does all of it, and waits for the host.
    /// - Returns: 0 or an errno.
    func perform(on image: any BlockImage) -> Int32 {
        do throws(BlockError) {
            switch operation {
            case .read: try unsafe image.read(at: offset, into: rest)
            case .write: try unsafe image.write(at: offset, from: rest)
            case .flush: try image.flush()
            case .discard:
                for index in 0..<segmentCount {
                    let range = segment(index)
                    try image.discard(at: range.sector &* 512, count: UInt64(range.sectors) &* 512)
                }
            case .writeZeroes:
                for index in 0..<segmentCount {
                    let range = segment(index)
                    try image.writeZeroes(
                        at: range.sector &* 512, count: UInt64(range.sectors) &* 512,
                        mayUnmap: range.flags & BlockSegment.unmap != 0)
                }
            }
            if flushesAfter { try image.flush() }
            return 0
        } catch {
            switch error {
            case .host(let code): return code != 0 ? code : EIO
            case .outOfRange: return EINVAL
            case .corrupt: return EIO
            case .readOnly: return EROFS
            }
        }
    }
}
