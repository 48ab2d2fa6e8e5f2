import Glibc
import Synchronization
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// A descriptor as an image, whatever it is; its flushes are counted.
final class DescriptorDouble: DescriptorImage {
    let capacity: UInt64 = 256 << 10
    let isReadOnly = false
    let preferredBlockSize: UInt32 = 4096
    let alignment: UInt32 = 1
    let descriptor: Int32
    let flushes = Atomic<Int>(0)
    let calls = Atomic<Int>(0)

    init(_ path: String) { descriptor = open(path, O_RDWR | O_CLOEXEC) }
    deinit { close(descriptor) }

    func flushed(_ code: Int32) -> Int32 {
        flushes.add(1, ordering: .relaxed)
        return code
    }

    // What the ring hands to a thread.
    func read(at offset: UInt64, into vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) {
        calls.add(1, ordering: .relaxed)
        try VectorTransfer.run(descriptor, vectors, at: offset, isWrite: false)
    }
    func write(at offset: UInt64, from vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) {
        calls.add(1, ordering: .relaxed)
        try VectorTransfer.run(descriptor, vectors, at: offset, isWrite: true)
    }
    func flush() throws(BlockError) { throw .host(errno: EIO) }
    func discard(at offset: UInt64, count: UInt64) throws(BlockError) { calls.add(1, ordering: .relaxed) }
    func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(BlockError) { throw .host(errno: ENOSPC) }
}

/// What is the ring's own; that it does what threads do is in `BlockDeviceTests`.
@Suite(.enabled(if: BlockBackend.hasRing, "this host allows no io_uring")) struct RingExecutorTests {
    private let directory = ScratchDirectory()

    private func rig(_ image: DescriptorDouble, features: FeatureSet = BlockRig.allFeatures) throws -> BlockRig {
        var options = BlockOptions()
        options.readsFromCache = false
        let rig = try BlockRig(image, options, features: features)
        try #require(rig.device.execution == .ring)
        return rig
    }

    /// /dev/full reads as zero, and is full.
    @Test func aFullDisk() throws {
        let image = DescriptorDouble("/dev/full")
        let rig = try rig(image)
        #expect(try difference(of: rig.read(8, 4096), from: [UInt8](repeating: 0, count: 4096)) == nil)
        for count in 1...10 as ClosedRange<UInt64> {
            #expect(try rig.write(8, [UInt8](repeating: 1, count: 4096)) == 1)
            #expect(rig.statistic("errors") == count)
        }
        #expect(try rig.send([BlockRig.header(13), BlockRig.segment(0, 8)]).status == 1)
        #expect(try rig.send([BlockRig.header(11), BlockRig.segment(0, 8)]).status == 0)
        #expect(try difference(of: rig.read(8, 4096), from: [UInt8](repeating: 0, count: 4096)) == nil)
        #expect(image.calls.load(ordering: .relaxed) == 1, "the discard; all else was the kernel's")
    }

    /// A device that cannot be flushed: the write that needed it is not complete.
    @Test func aFlushThatFails() throws {
        let image = DescriptorDouble("/dev/zero")
        let cached = try rig(image)
        #expect(try cached.write(0, [UInt8](repeating: 1, count: 4096)) == 0)
        #expect(try cached.flush() == 1)
        #expect(image.flushes.load(ordering: .relaxed) == 1)
        let through = try rig(image, features: [])
        #expect(try through.write(0, [UInt8](repeating: 1, count: 4096)) == 1)
        #expect(image.flushes.load(ordering: .relaxed) == 2)
    }

    @Test func writesAreFollowedByFlushesWhereTheyMust() throws {
        let image = DescriptorDouble(directory.file(size: 256 << 10))
        let rig = try rig(image, features: [])
        for count in 1...5 {
            #expect(try rig.write(UInt64(count), [UInt8](repeating: 1, count: 8192)) == 0)
            #expect(image.flushes.load(ordering: .relaxed) == count)
        }
        #expect(try difference(of: rig.read(1, 8192), from: [UInt8](repeating: 1, count: 8192)) == nil)
        #expect(image.flushes.load(ordering: .relaxed) == 5 && image.calls.load(ordering: .relaxed) == 0)
    }

    @Test func aDescriptorThatIsNone() throws {
        let rig = try rig(DescriptorDouble("/nowhere"))
        #expect(try rig.send([BlockRig.header(0)], [512, 1]).status == 1)
        #expect(try rig.flush() == 1)
    }

    /// A pipe that nobody writes to: such a read hangs until it is taken back. (Linux 5.19.)
    @Test func aReadThatHangsIsTakenBack() throws {
        var ends: [Int32] = [0, 0]
        #expect(pipe(&ends) == 0)
        defer { ends.forEach { close($0) } }
        let events = ManualEvents()
        let slot = WorkSlot()
        let image = DescriptorDouble("/proc/self/fd/\(ends[0])")
        let ring = try #require(RingExecutor(image, requests: 8, threads: 1, events: events, finished: slot))
        let request = BlockRequest()
        var byte: UInt8 = 0
        withUnsafeMutablePointer(to: &byte) { byte in
            var vector = iovec(iov_base: byte, iov_len: 1)
            withUnsafeMutablePointer(to: &vector) { vector in
                request.operation = .read
                request.bytes = 1
                // The position of a pipe.
                request.offset = .max
                request.rest = UnsafeMutableBufferPointer(start: vector, count: 1)
                #expect(!ring.submit(request))
                ring.commit()
                #expect(ring.takeFinished() == nil)
                let start = Monitor.now()
                #expect(ring.drain(milliseconds: 3000))
                #expect(Monitor.now() - start < 2_000_000_000)
            }
        }
        let finished = try #require(ring.takeFinished())
        #expect(finished === request && finished.result == ECANCELED)
    }
}
