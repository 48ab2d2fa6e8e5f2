import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// What the event loop copies itself; that it reads and writes as every other way does is in `BlockDeviceTests`.
@Suite struct CacheReaderTests {
    private let directory = ScratchDirectory()
    private let capacity = 3 << 20

    /// A file of a file system that is memory.
    private final class MemoryFile {
        let path: String
        init?(size: Int) {
            path = "/dev/shm/windhover-\(getpid())-\(UInt32.random(in: 0...(.max)))"
            let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
            guard descriptor >= 0 else { return nil }
            let bytes = pattern(0..<size)
            _ = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
            close(descriptor)
        }
        deinit { unlink(path) }
    }

    private func rig(_ path: String) throws -> BlockRig {
        var options = BlockOptions()
        options.execution = .threads
        return try BlockRig(RawImage(path: path), options)
    }

    /// One turn of the event loop, and it is done.
    @Test(.enabled(if: access("/dev/shm", W_OK) == 0, "this host has no /dev/shm")) func memoryIsReadAtOnce() throws {
        let file = try #require(MemoryFile(size: capacity))
        let rig = try rig(file.path)
        for sector in [0, 5, 4096] as [UInt64] {
            try rig.driver.queues[0].add(readable: [BlockRig.header(0, sector)], writable: [300, 65_236, 1])
            try rig.driver.queues[0].kick()
            rig.events.turn()
            let done = try #require(try rig.driver.queues[0].completions().first)
            #expect(done.written == 65_537 && done.bytes.last == 0)
            #expect(difference(of: done.bytes.dropLast(), from: pattern(Int(sector) * 512..<Int(sector) * 512 + 65_536)) == nil)
        }
        #expect(rig.statistic("readsFromCache") == 3 && rig.statistic("reads") == 3)
        #expect(rig.statistic("bytesRead") == 3 * 65_536)
        #expect(try rig.write(5, [UInt8](repeating: 0xA5, count: 512)) == 0)
        let expected = pattern(2048..<2560) + [UInt8](repeating: 0xA5, count: 512) + pattern(3072..<3584)
        #expect(try difference(of: rig.read(4, 1536), from: expected) == nil)
    }

    /// A request that would hold the event loop up is somebody else's.
    @Test(.enabled(if: access("/dev/shm", W_OK) == 0, "this host has no /dev/shm")) func longReadsAreNot() throws {
        let file = try #require(MemoryFile(size: capacity))
        let rig = try rig(file.path)
        let most = Int(CacheReader.mostBytes)
        #expect(try difference(of: rig.read(1, most), from: pattern(512..<512 + most)) == nil)
        #expect(rig.statistic("readsFromCache") == 1)
        #expect(try difference(of: rig.read(1, most + 512), from: pattern(512..<1024 + most)) == nil)
        #expect(rig.statistic("readsFromCache") == 1 && rig.statistic("reads") == 2)
    }

    /// What the host holds only a part of is read whole, by whomever.
    @Test func aPartIsCached() throws {
        let path = directory.file(size: capacity)
        let descriptor = open(path, O_RDWR)
        defer { close(descriptor) }
        #expect(fsync(descriptor) == 0)
        for kept in [0, 4096, 70_000, 1 << 20] {
            #expect(posix_fadvise(descriptor, off_t(kept), 0, POSIX_FADV_DONTNEED) == 0)
            let rig = try rig(path)
            #expect(try difference(of: rig.read(0, 1 << 20), from: pattern(0..<1 << 20)) == nil)
            #expect(try difference(of: rig.read(3, 4096), from: pattern(1536..<5632)) == nil)
            #expect(rig.statistic("reads") == 2 && rig.statistic("errors") == 0)
        }
    }

    /// A range that the file no longer has is an error, what is before it is not.
    @Test(.enabled(if: access("/dev/shm", W_OK) == 0, "this host has no /dev/shm")) func aFileThatIsCut() throws {
        let file = try #require(MemoryFile(size: capacity))
        let rig = try rig(file.path)
        #expect(truncate(file.path, 8192) == 0)
        #expect(try rig.send([BlockRig.header(0, 0)], [8192, 1]).status == 0)
        #expect(try rig.send([BlockRig.header(0, 8)], [8192, 1]).status == 1)
        #expect(rig.statistic("readsFromCache") == 1 && rig.statistic("errors") == 1)
    }

    /// Whoever asks that the page cache be left out gets that.
    @Test(.enabled(if: BlockBackend.here.contains(.directThreads), "no direct access here")) func directImagesAreNot() throws {
        let image = try RawImage(path: directory.file(size: capacity), options: RawImageOptions(isDirect: true))
        #expect(CacheReader(image) == nil)
    }
}
