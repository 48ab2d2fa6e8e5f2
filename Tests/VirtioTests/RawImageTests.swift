import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

@Suite struct RawImageTests {
    private let directory = ScratchDirectory()
    /// Through the host's page cache, and past it where the file system can.
    private static let bothWays = BlockBackend.here.contains(.directThreads) ? [false, true] : [false]
    private static let alignments: [UInt32?] = bothWays.count > 1 ? [nil, 0, 4096, 16_384] : [nil]
    private let capacity = 1 << 20

    private func error(_ path: String, _ options: RawImageOptions = RawImageOptions()) -> RawImageError? {
        do throws(RawImageError) {
            _ = try RawImage(path: path, options: options)
            return nil
        } catch { return error }
    }

    // MARK: Opening

    @Test func whatCannotBeADisk() throws {
        let missing = directory.path + "/nothing"
        #expect(error(missing) == .missing(path: missing))
        #expect(error(missing + "/below") == .missing(path: missing + "/below"))
        #expect(error(directory.path) == .notADisk(path: directory.path, kind: "a directory"))
        #expect(error("/dev/null") == .notADisk(path: "/dev/null", kind: "a character device"))
        let pipe = directory.file("pipe", size: 0)
        unlink(pipe)
        #expect(mkfifo(pipe, 0o600) == 0)
        #expect(error(pipe) == .notADisk(path: pipe, kind: "a pipe"))
        let empty = directory.file("empty", size: 0)
        #expect(error(empty) == .empty(path: empty))
        let odd = directory.file("odd", size: 1000)
        #expect(error(odd) == .notWholeSectors(path: odd, bytes: 1000))
        #expect(error(odd, RawImageOptions(isReadOnly: true)) == .notWholeSectors(path: odd, bytes: 1000))
    }

    @Test func whatAnErrnoMeans() {
        func meaning(_ code: Int32, writing: Bool = true, readable: Bool = true) -> RawImageError {
            .opening("x", code, isForWriting: writing, isReadable: readable)
        }
        #expect(meaning(EACCES) == .readOnlyFile(path: "x"))
        #expect(meaning(EACCES, readable: false) == .notPermitted(path: "x"))
        #expect(meaning(EACCES, writing: false) == .notPermitted(path: "x"))
        #expect(meaning(EROFS) == .readOnlyFile(path: "x"))
        #expect(meaning(EBUSY) == .locked(path: "x", isForReading: false))
        #expect(meaning(ENOTDIR) == .missing(path: "x"))
        #expect(meaning(EMFILE) == .unusable(path: "x", errno: EMFILE))
        let all: [RawImageError] = [
            .missing(path: "/d"), .notADisk(path: "/d", kind: "a pipe"), .notPermitted(path: "/d"), .readOnlyFile(path: "/d"),
            .empty(path: "/d"), .notWholeSectors(path: "/d", bytes: 7), .locked(path: "/d", isForReading: true),
            .locked(path: "/d", isForReading: false), .notDirect(path: "/d"),
            .beyondFileSizeLimit(path: "/d", bytes: 9, limit: 8), .unusable(path: "/d", errno: EIO),
        ]
        for error in all { #expect(error.description.hasPrefix("the") && error.description.contains("'/d'")) }
        #expect(Set(all.map(\.description)).count == all.count)
    }

    @Test func aDiskHasOneWriterOrManyReaders() throws {
        let path = directory.file(size: capacity)
        let reading = RawImageOptions(isReadOnly: true)
        do {
            let writer = try RawImage(path: path)
            #expect(error(path) == .locked(path: path, isForReading: false))
            #expect(error(path, reading) == .locked(path: path, isForReading: true))
            #expect(error(path, RawImageOptions(isDirect: true)) == .locked(path: path, isForReading: false))
            #expect(writer.capacity == UInt64(capacity))
        }
        let first = try RawImage(path: path, options: reading)
        let second = try RawImage(path: path, options: reading)
        #expect(error(path) == .locked(path: path, isForReading: false))
        #expect(first.isReadOnly && second.isReadOnly)
    }

    /// Opening for reading does not need the right to write, nor take it.
    @Test func aReadOnlyDisk() throws {
        let path = directory.file(size: capacity)
        let image = try RawImage(path: path, options: RawImageOptions(isReadOnly: true))
        var bytes = [UInt8](repeating: 1, count: 512)
        #expect(throws: BlockError.readOnly) { try write(image, 0, &bytes) }
        #expect(throws: BlockError.readOnly) { try image.discard(at: 0, count: 512) }
        #expect(throws: BlockError.readOnly) { try image.writeZeroes(at: 0, count: 512, mayUnmap: true) }
        try image.flush()
        #expect(try difference(of: read(image, 512, 512), from: pattern(512..<1024)) == nil)
        #expect(difference(of: ScratchDirectory.contents(path), from: pattern(0..<capacity)) == nil)
    }

    /// A write beyond the process's limit would be a signal: such a disk is refused at once.
    @Test func aDiskLongerThanTheProcessMayWrite() throws {
        let path = directory.file(size: 512)
        #expect(truncate(path, 3 << 30) == 0)
        let resource = __rlimit_resource_t(RLIMIT_FSIZE.rawValue)
        var before = rlimit()
        getrlimit(resource, &before)
        var limit = rlimit(rlim_cur: min(1 << 30, before.rlim_max), rlim_max: before.rlim_max)
        #expect(setrlimit(resource, &limit) == 0)
        let found = error(path)
        let reading = error(path, RawImageOptions(isReadOnly: true))
        setrlimit(resource, &before)
        #expect(found == .beyondFileSizeLimit(path: path, bytes: 3 << 30, limit: UInt64(limit.rlim_cur)))
        #expect(reading == nil)
    }

    // MARK: Bytes

    private func read(_ image: RawImage, _ offset: UInt64, _ count: Int, skew: Int = 0, pieces: Int = 1) throws -> [UInt8] {
        let memory = UnsafeMutableRawPointer.allocate(byteCount: count + skew, alignment: 4096)
        defer { memory.deallocate() }
        var vectors = Self.cut(memory + skew, count, pieces)
        try vectors.withUnsafeMutableBufferPointer { try image.read(at: offset, into: $0) }
        return Array(UnsafeRawBufferPointer(start: memory + skew, count: count))
    }

    private func write(_ image: RawImage, _ offset: UInt64, _ bytes: inout [UInt8], skew: Int = 0, pieces: Int = 1) throws {
        let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes.count + skew, alignment: 4096)
        defer { memory.deallocate() }
        (memory + skew).copyMemory(from: bytes, byteCount: bytes.count)
        var vectors = Self.cut(memory + skew, bytes.count, pieces)
        try vectors.withUnsafeMutableBufferPointer { try image.write(at: offset, from: $0) }
    }

    private static func cut(_ start: UnsafeMutableRawPointer, _ count: Int, _ pieces: Int) -> [iovec] {
        (0..<pieces).map { piece in
            let (from, to) = (count * piece / pieces, count * (piece + 1) / pieces)
            return iovec(iov_base: start + from, iov_len: to - from)
        }
    }

    /// Offsets, lengths and addresses that O_DIRECT would not take, of every sort.
    @Test(arguments: alignments) func anyAlignment(alignment: UInt32?) throws {
        let path = directory.file(size: capacity)
        var expected = pattern(0..<capacity)
        var options = RawImageOptions(isDirect: alignment != nil)
        options.assumedAlignment = alignment == 0 ? nil : alignment
        let image = try RawImage(path: path, options: options)
        #expect(alignment == nil ? image.alignment == 1 : image.alignment >= max(512, alignment ?? 0))
        #expect(image.preferredBlockSize >= 512 && image.preferredBlockSize & (image.preferredBlockSize - 1) == 0)
        var byte: UInt8 = 0
        for (offset, count, skew, pieces) in [
            (0, 4096, 0, 1), (4096, 8192, 1, 1), (8192, 4096, 8, 3), (512, 512, 0, 1), (1536, 10_240, 3, 7),
            (65_536, 700 << 10, 5, 9),
            (capacity - 512, 512, 2, 1), (capacity - 4096, 4096, 0, 2),
        ] {
            byte &+= 17
            var data = (0..<count).map { UInt8(truncatingIfNeeded: $0 / 3) ^ byte }
            expected.replaceSubrange(offset..<(offset + count), with: data)
            try write(image, UInt64(offset), &data, skew: skew, pieces: pieces)
            #expect(try difference(of: read(image, UInt64(offset), count, skew: skew ^ 1, pieces: pieces), from: data) == nil)
            // Round about it too.
            let (from, to) = (max(0, offset - 1024), min(capacity, offset + count + 1024))
            #expect(try difference(of: read(image, UInt64(from), to - from, pieces: 2), from: Array(expected[from..<to])) == nil)
        }
        try image.flush()
        #expect(difference(of: ScratchDirectory.contents(path), from: expected) == nil)
    }

    @Test(arguments: bothWays) func nothingBeyondTheEnd(isDirect: Bool) throws {
        let path = directory.file(size: capacity)
        let image = try RawImage(path: path, options: RawImageOptions(isDirect: isDirect))
        var data = [UInt8](repeating: 1, count: 1024)
        for offset in [capacity - 512, capacity, capacity + 1, .max - 511] {
            let range = BlockError.outOfRange(offset: UInt64(offset), count: 1024)
            #expect(throws: range) { try write(image, UInt64(offset), &data) }
            #expect(throws: range) { _ = try read(image, UInt64(offset), 1024) }
            #expect(throws: range) { try image.discard(at: UInt64(offset), count: 1024) }
            #expect(throws: range) { try image.writeZeroes(at: UInt64(offset), count: 1024, mayUnmap: false) }
        }
        #expect(throws: BlockError.self) { try image.discard(at: .max, count: .max) }
        #expect(throws: BlockError.self) { try image.writeZeroes(at: 512, count: .max, mayUnmap: true) }
        #expect(difference(of: ScratchDirectory.contents(path), from: pattern(0..<capacity)) == nil)
    }

    @Test func discardsGiveSpaceBack() throws {
        let path = directory.file(size: capacity)
        let image = try RawImage(path: path)
        try image.flush()
        func blocks() -> Int {
            var status = stat()
            stat(path, &status)
            #expect(status.st_size == capacity)
            return status.st_blocks
        }
        let full = blocks()
        try image.writeZeroes(at: 0, count: 256 << 10, mayUnmap: false)
        #expect(blocks() >= full - 16, "zeros that keep their space")
        try image.discard(at: 512 << 10, count: 256 << 10)
        let discarded = blocks()
        try image.writeZeroes(at: 256 << 10, count: 256 << 10, mayUnmap: true)
        let unmapped = blocks()
        // A file system that punches no holes keeps the space; the bytes are the same.
        #expect(discarded <= full && unmapped <= discarded)
        #expect(try read(image, 0, 512 << 10).allSatisfy { $0 == 0 })
        #expect(try difference(of: read(image, 768 << 10, 256 << 10), from: pattern(768 << 10..<capacity)) == nil)
    }

    /// Where the host knows no quicker way.
    @Test(arguments: bothWays) func zerosAreWritten(isDirect: Bool) throws {
        let path = directory.file(size: capacity)
        let image = try RawImage(path: path, options: RawImageOptions(isDirect: isDirect))
        try image.writeZeroBytes(at: 1024, count: 700 << 10)
        var expected = pattern(0..<capacity)
        expected.replaceSubrange(1024..<(1024 + 700 << 10), with: [UInt8](repeating: 0, count: 700 << 10))
        #expect(difference(of: ScratchDirectory.contents(path), from: expected) == nil)
    }

    /// The host forgets what it could not write, and calls the next flush a success: the guest is not told so.
    @Test func aFailedFlushStaysFailed() throws {
        let image = try RawImage(path: directory.file(size: capacity))
        try image.flush()
        #expect(image.flushed(EINTR) == EINTR && image.flushed(ECANCELED) == ECANCELED && image.flushed(0) == 0)
        #expect(image.flushed(ENOSPC) == ENOSPC)
        #expect(image.flushed(0) == ENOSPC && image.flushed(EIO) == ENOSPC)
        #expect(throws: BlockError.host(errno: ENOSPC)) { try image.flush() }
    }

    @Test func shortTransfersGoOn() {
        var bytes = [UInt8](repeating: 0, count: 100)
        bytes.withUnsafeMutableBytes { memory in
            let start = memory.baseAddress!
            for step in 1...100 {
                var vectors = Self.cut(start, 100, 7) + [iovec(iov_base: start, iov_len: 0)]
                vectors.withUnsafeMutableBufferPointer { vectors in
                    var rest = vectors
                    var done = 0
                    while VectorTransfer.advance(&rest, by: 0) {
                        #expect(rest[0].iov_base == start + done && VectorTransfer.count(rest) == UInt64(100 - done))
                        let part = min(step, 100 - done)
                        _ = VectorTransfer.advance(&rest, by: part)
                        done += part
                    }
                    #expect(done == 100)
                }
            }
        }
    }

    private static let hasLoopDevices = getuid() == 0 && access("/dev/loop-control", R_OK | W_OK) == 0
        && access("/usr/sbin/losetup", X_OK) == 0

    private func output(_ command: String) -> String {
        guard let pipe = popen(command, "r") else { return "" }
        defer { pclose(pipe) }
        var line = [CChar](repeating: 0, count: 256)
        guard fgets(&line, Int32(line.count), pipe) != nil else { return "" }
        return String(decoding: line.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private static let executions: [BlockExecution] = BlockBackend.hasRing ? [.threads, .ring] : [.threads]

    @Test(.enabled(if: hasLoopDevices, "needs root and loop devices"), arguments: executions)
    func aBlockDevice(execution: BlockExecution) throws {
        let path = directory.file("\(execution)", size: capacity)
        let device = output("/usr/sbin/losetup -f --show \(path)")
        try #require(device.hasPrefix("/dev/loop"))
        defer { _ = output("/usr/sbin/losetup -d \(device)") }
        for isDirect in [false, true] {
            let image = try RawImage(path: device, options: RawImageOptions(isDirect: isDirect))
            #expect(image.capacity == UInt64(capacity))
            #expect(error(device) == .locked(path: device, isForReading: false))
            var options = BlockOptions()
            options.execution = execution
            let rig = try BlockRig(image, options)
            #expect(rig.device.execution == execution)
            #expect(try rig.write(3, [UInt8](repeating: 7, count: 4096)) == 0)
            #expect(try difference(of: rig.read(3, 4096), from: [UInt8](repeating: 7, count: 4096)) == nil)
            #expect(try rig.send([BlockRig.header(13), BlockRig.segment(100, 64)]).status == 0)
            #expect(try difference(of: rig.read(100, 32_768), from: [UInt8](repeating: 0, count: 32_768)) == nil)
            #expect(try rig.send([BlockRig.header(11), BlockRig.segment(1024, 128)]).status == 0)
            #expect(try difference(of: rig.read(512, 512), from: pattern(512 * 512..<513 * 512)) == nil)
            #expect(try rig.write(2047, [UInt8](repeating: 7, count: 1024)) == 1)
            #expect(try rig.flush() == 0)
        }
    }

    @Test func theNullDisk() throws {
        let image = NullImage(capacity: 4096 + 100)
        #expect(image.capacity == 4096)
        let rig = try BlockRig(image)
        #expect(rig.device.execution == .immediate)
        #expect(try rig.write(0, [UInt8](repeating: 1, count: 4096)) == 0)
        #expect(try difference(of: rig.read(0, 4096), from: [UInt8](repeating: 0, count: 4096)) == nil)
        #expect(try rig.write(1, [UInt8](repeating: 1, count: 4096)) == 1)
        #expect(try rig.flush() == 0)
        #expect(try rig.send([BlockRig.header(11), BlockRig.segment(0, 8)]).status == 0)
    }
}
