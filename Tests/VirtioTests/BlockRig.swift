import Glibc
import Synchronization
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// An image in memory that a test can make fail, or hold up. Not safe to be looked at while the device works.
final class MemoryImage: BlockImage, @unchecked Sendable {
    let capacity: UInt64
    let isReadOnly: Bool
    let preferredBlockSize: UInt32

    private let monitor = Monitor()
    private var storage: [UInt8]
    private var isHeld = false
    private var held = 0
    private var failure: BlockError?
    private var log: [String] = []
    private var dirty = false

    init(capacity: Int, isReadOnly: Bool = false, preferredBlockSize: UInt32 = 4096) {
        self.capacity = UInt64(capacity)
        self.isReadOnly = isReadOnly
        self.preferredBlockSize = preferredBlockSize
        storage = pattern(0..<capacity)
    }

    private func locked<Result>(_ body: () -> Result) -> Result {
        monitor.lock()
        defer { monitor.unlock() }
        return body()
    }

    /// What was called, in order.
    var calls: [String] { locked { log } }
    var bytes: [UInt8] { locked { storage } }
    /// Whether anything was written since the last flush.
    var isDirty: Bool { locked { dirty } }
    /// Calls that are held up right now.
    var heldCalls: Int { locked { held } }
    func fail(with error: BlockError?) { locked { failure = error } }
    func hold() { locked { isHeld = true } }
    func letGo() {
        locked {
            isHeld = false
            monitor.wakeAll()
        }
    }

    private func call(_ name: String, _ body: () -> Void) throws(BlockError) {
        let error = locked { () -> BlockError? in
            held += 1
            while isHeld { monitor.wait() }
            held -= 1
            log.append(name)
            if failure == nil { body() }
            return failure
        }
        if let error { throw error }
    }

    func read(at offset: UInt64, into vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) {
        try call("read \(offset / 512)") {
            var place = Int(offset)
            for vector in vectors {
                storage.withUnsafeBytes {
                    vector.iov_base!.copyMemory(from: $0.baseAddress! + place, byteCount: vector.iov_len)
                }
                place += vector.iov_len
            }
        }
    }

    func write(at offset: UInt64, from vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) {
        try call("write \(offset / 512)") {
            var place = Int(offset)
            dirty = true
            for vector in vectors {
                storage.withUnsafeMutableBytes {
                    ($0.baseAddress! + place).copyMemory(from: vector.iov_base!, byteCount: vector.iov_len)
                }
                place += vector.iov_len
            }
        }
    }

    func flush() throws(BlockError) { try call("flush") { dirty = false } }

    func discard(at offset: UInt64, count: UInt64) throws(BlockError) {
        try call("discard \(offset / 512)+\(count / 512)") { dirty = true }
    }

    func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(BlockError) {
        try call("zero \(offset / 512)+\(count / 512)\(mayUnmap ? " unmap" : "")") {
            dirty = true
            for index in Int(offset)..<Int(offset + count) { storage[index] = 0 }
        }
    }
}

/// The same, whose calls the event loop makes itself.
final class ImmediateMemoryImage: ImmediateImage, @unchecked Sendable {
    let inner: MemoryImage
    init(_ inner: MemoryImage) { self.inner = inner }
    var capacity: UInt64 { inner.capacity }
    var isReadOnly: Bool { inner.isReadOnly }
    var preferredBlockSize: UInt32 { inner.preferredBlockSize }
    func read(at offset: UInt64, into vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) {
        try inner.read(at: offset, into: vectors)
    }
    func write(at offset: UInt64, from vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) {
        try inner.write(at: offset, from: vectors)
    }
    func flush() throws(BlockError) { try inner.flush() }
    func discard(at offset: UInt64, count: UInt64) throws(BlockError) { try inner.discard(at: offset, count: count) }
    func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(BlockError) {
        try inner.writeZeroes(at: offset, count: count, mayUnmap: mayUnmap)
    }
}

typealias ScratchDirectory = TemporaryDirectory

extension ScratchDirectory {
    /// A file of `size` bytes, of the same pattern as `MemoryImage`.
    func file(_ name: String = "disk.raw", size: Int) -> String { file(name, pattern(0..<size), mode: 0o600) }

    static func contents(_ path: String) -> [UInt8] {
        let descriptor = open(path, O_RDONLY)
        defer { close(descriptor) }
        var status = stat()
        fstat(descriptor, &status)
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        let count = bytes.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
        return Array(bytes.prefix(max(0, count)))
    }
}

/// What is behind a device under test.
enum BlockBackend: String, CaseIterable, CustomTestStringConvertible {
    case immediate, memoryThreads, fileThreads, fileRing, directThreads, directRing
    /// With the event loop copying what the page cache holds, as it is where nobody says otherwise.
    case fileCached

    var testDescription: String { rawValue }
    var execution: BlockExecution? {
        switch self {
        case .immediate: .immediate
        case .memoryThreads, .fileThreads, .directThreads, .fileCached: .threads
        case .fileRing, .directRing: .ring
        }
    }
    /// Whether the host lets us use io_uring.
    static let hasRing = RingExecutor(
        DescriptorDouble("/dev/zero"), requests: 8, threads: 1, events: ManualEvents(), finished: WorkSlot()) != nil

    /// Those that there are on this host, and on the file system of temporary files.
    static let here: [BlockBackend] = {
        let directory = ScratchDirectory()
        let hasDirect = (try? RawImage(path: directory.file(size: 4096), options: RawImageOptions(isDirect: true))) != nil
        return allCases.filter { ($0.execution != .ring || hasRing) && (!$0.isDirect || hasDirect) }
    }()

    static func here(_ some: BlockBackend...) -> [BlockBackend] { some.filter { here.contains($0) } }

    var isDirect: Bool { self == .directThreads || self == .directRing }
}

/// A block device with a driver, and requests in the terms of a disk.
final class BlockRig {
    let memory: GuestMemory
    let events = ManualEvents()
    let device: BlockDevice
    let transport: any DriverTransport
    let driver: MockDriver

    static let allFeatures: FeatureSet = [
        BlockFeature.segmentsMax, BlockFeature.readOnly, BlockFeature.blockSize, BlockFeature.flush, BlockFeature.topology,
        BlockFeature.writeCacheControl, BlockFeature.multipleQueues, BlockFeature.discard, BlockFeature.writeZeroes,
    ]

    init(
        _ image: any BlockImage, _ options: BlockOptions = BlockOptions(), ring: FeatureSet = [],
        features: FeatureSet = BlockRig.allFeatures, size: UInt16? = nil
    ) throws {
        memory = try GuestMemory(size: 64 << 20)
        device = BlockDevice(image: image, options: options, events: events, clock: events.clock)
        transport = try TransportKind.current.driver(device: device, memory: memory)
        driver = MockDriver(transport, memory: memory)
        #expect(driver.start(ring.union(features), size: size))
        events.run()
    }

    /// A rig over one of the backends, whose bytes are those of `MemoryImage`.
    convenience init(
        _ backend: BlockBackend, in directory: ScratchDirectory, capacity: Int, options: BlockOptions = BlockOptions(),
        ring: FeatureSet = [], features: FeatureSet = BlockRig.allFeatures
    ) throws {
        var options = options
        options.execution = backend.execution
        options.readsFromCache = backend == .fileCached
        let image: any BlockImage
        switch backend {
        case .immediate: image = ImmediateMemoryImage(MemoryImage(capacity: capacity))
        case .memoryThreads: image = MemoryImage(capacity: capacity)
        case .fileThreads, .fileRing, .directThreads, .directRing, .fileCached:
            image = try RawImage(
                path: directory.file(size: capacity), options: RawImageOptions(isDirect: backend.isDirect))
        }
        try self.init(image, options, ring: ring, features: features)
        #expect(device.execution == backend.execution)
    }

    static func header(_ type: UInt32, _ sector: UInt64 = 0) -> [UInt8] {
        bytes(type) + bytes(UInt32(0)) + bytes(sector)
    }

    static func segment(_ sector: UInt64, _ sectors: UInt32, flags: UInt32 = 0) -> [UInt8] {
        bytes(sector) + bytes(sectors) + bytes(flags)
    }

    static func bytes<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
        withUnsafeBytes(of: value.littleEndian) { Array($0) }
    }

    /// Waits until so many requests have come back on a queue.
    func completions(_ count: Int, queue: Int = 0) throws -> [DriverQueue.Completion] {
        var all: [DriverQueue.Completion] = []
        var failure: (any Error)?
        let isDone = events.run(
            until: {
                do { all += try driver.queues[queue].completions() } catch { failure = error }
                return all.count >= count || failure != nil
            }, milliseconds: 5000)
        if let failure { throw failure }
        #expect(isDone, "\(all.count) of \(count) came back")
        return all
    }

    /// Sends one request, split as it is given, and waits for it.
    /// - Returns: the data, the status, and the length that the device reports.
    @discardableResult
    func send(_ readable: [[UInt8]], _ writable: [Int] = [1], queue: Int = 0) throws
        -> (data: [UInt8], status: UInt8, written: UInt32)
    {
        _ = try #require(try driver.queues[queue].add(readable: readable, writable: writable))
        try driver.queues[queue].kick()
        let done = try #require(try completions(1, queue: queue).first)
        return (Array(done.bytes.dropLast()), done.bytes.last ?? 255, done.written)
    }

    func read(_ sector: UInt64, _ count: Int) throws -> [UInt8] {
        let answer = try send([Self.header(0, sector)], [count, 1])
        #expect(answer.status == 0)
        #expect(answer.written == UInt32(count + 1))
        return answer.data
    }

    func write(_ sector: UInt64, _ bytes: [UInt8]) throws -> UInt8 {
        try send([Self.header(1, sector), bytes]).status
    }

    func flush() throws -> UInt8 { try send([Self.header(4)]).status }

    func statistic(_ name: String) -> UInt64 { device.statistics.first { $0.name == name }?.value ?? .max }
    var needsReset: Bool { transport.readStatus().contains(.needsReset) }
}

private let wholePattern: [UInt8] = {
    // It repeats itself after 256 sectors.
    let part = (0..<(128 << 10)).map { UInt8(truncatingIfNeeded: $0 / 512 &+ $0) }
    return (0..<24).reduce(into: []) { whole, _ in whole += part }
}()

/// What a disk of the tests holds at first: every sector differs from its neighbours.
func pattern(_ range: Range<Int>) -> [UInt8] { Array(wholePattern[range]) }
