import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// The device, its errors, and the session: what comes before the first file.
@Suite(.behindEachTransport) struct ShareDeviceTests {
    @Test(arguments: ringKinds, TransportKind.allCases)
    func everyTransport(ring: FeatureSet, kind: TransportKind) throws {
        let rig = try ShareRig(transport: kind, ring: ring)
        let client = rig.client
        let directory = try client.makeDirectory(1, "d")
        let (file, opened) = try client.create(directory.node, "f")
        let data = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        #expect(try client.write(file.node, opened.handle, at: 10, data) == 100_000)
        #expect(try difference(of: client.read(file.node, opened.handle, at: 0, 200_000), from: [UInt8](repeating: 0, count: 10) + data) == nil)
        #expect(Tree.read(rig.tree.share + "/d/f").count == 100_010)
        #expect(client.transport.takeInterrupts().used)
        try client.forget(file.node)
        #expect(client.statistic("bytesRead") == 100_010 && client.statistic("bytesWritten") == 100_000)
        #expect(client.statistic("openFiles") == 1 && !rig.needsReset)
    }

    @Test func configurationSpace() throws {
        let rig = try ShareRig { $0.queueCount = 3 }
        let bytes = rig.device.configuration()
        #expect(bytes == Array("test".utf8) + [UInt8](repeating: 0, count: 32) + [3, 0, 0, 0])
        #expect(rig.device.queueSizes == [64, 512, 512, 512])
        #expect(rig.device.kind.rawValue == 26)
        let tree = Tree()
        let longest = String(repeating: "x", count: 36)
        let device = try FileSystemDevice(
            directory: tree.share, tag: longest, isReadOnly: true, events: rig.events, clock: rig.events.clock)
        #expect(Array(device.configuration()[..<36]) == Array(longest.utf8))
    }

    @Test func everyQueueWorks() throws {
        let rig = try ShareRig { $0.queueCount = 3 }
        for queue in 0...3 {
            let answer = try rig.client.send(17, node: 1, queue: queue)
            #expect(answer.error == 0 && answer.bytes.count == 80)
        }
    }

    @Test func whatCannotBeShared() throws {
        let events = ManualEvents()
        let tree = Tree()
        func error(_ path: String, tag: String = "t") -> ShareError? {
            do throws(ShareError) {
                _ = try FileSystemDevice(directory: path, tag: tag, isReadOnly: true, events: events, clock: events.clock)
                return nil
            } catch { return error }
        }
        #expect(error(tree.share + "/no") == .missing(path: tree.share + "/no"))
        #expect(error(tree.outside + "/secret") == .notADirectory(path: tree.outside + "/secret"))
        #expect(error(tree.share, tag: "") == .emptyTag)
        let long = String(repeating: "é", count: 19)
        #expect(error(tree.share, tag: long) == .tagTooLong(tag: long, bytes: 38))
        #expect(error(tree.share, tag: "a\0b") == .badTag(tag: "a\0b"))
        #expect(error("/proc/self") == .kernelFiles(path: "/proc/self"))
        #expect(error("/sys") == .kernelFiles(path: "/sys"))
        #expect(error(tree.share) == nil)
        #expect("\(ShareError.missing(path: "/x"))" == "there is no directory '/x' to share: give one that is there")
    }

    @Test func versionsAreNegotiated() throws {
        let rig = try ShareRig(mounts: false)
        let client = rig.client
        #expect(try client.send(1, node: 1, Array("x\0".utf8)).error == EIO, "nothing is mounted yet")
        try client.mount(minor: 31)
        #expect(client.minor == 31)
        try client.mount(minor: 99)
        #expect(client.minor == 38)
        #expect(client.mostWritten == 1 << 20)
        // Reads and writes at once, large ones; parallel look-ups; entries with attributes.
        #expect(client.flags & 0x47_6029 == 0x44_6029)
        #expect(client.flags & (1 << 1 | 1 << 16 | 1 << 10 | 1 << 20) == 0, "no locks, writeback, flock or ACLs")
        try client.mount(minor: 31, flags: 1)
        #expect(client.flags == 1 && client.mostWritten == 131_072)
        #expect(throws: FUSEFailure(EPROTO)) { try client.mount(minor: 26) }
        #expect(throws: FUSEFailure(EPROTO)) { try client.mount(major: 6) }
        // A newer guest asks again.
        try client.mount(major: 8)
        try client.mount()
        try client.unmount()
        #expect(try client.send(1, node: 1, Array("x\0".utf8)).error == EIO)
    }

    /// What a mount knew and had open is nothing to the next one.
    @Test func sessionsAreOfTheirOwn() throws {
        let rig = try ShareRig()
        let client = rig.client
        let (file, opened) = try client.create(1, "f")
        try client.unmount()
        try client.mount()
        #expect(client.statistic("openFiles") == 0 && client.statistic("inodes") == 1)
        #expect(throws: FUSEFailure(ESTALE)) { try client.attributes(file.node) }
        #expect(throws: FUSEFailure(EBADF)) { try client.read(file.node, opened.handle, at: 0, 10) }
        let again = try client.lookUp(1, "f")
        try client.restart()
        #expect(client.statistic("openFiles") == 0 && client.statistic("inodes") == 1)
        #expect(try client.send(3, node: again.node, Bytes(UInt32(0), UInt32(0), UInt64(0)).bytes).error == EIO)
        try client.mount()
        #expect(try client.lookUp(1, "f").attributes.size == 0)
    }

    @Test func cachingIsAsAskedFor() throws {
        let tree = Tree()
        Tree.write("x", to: tree.share + "/f")
        var times = [timeval(tv_sec: 1_000_000_000, tv_usec: 0), timeval(tv_sec: 1_000_000_000, tv_usec: 0)]
        for caching in ShareCaching.allCases {
            let rig = try ShareRig(tree) { $0.caching = caching }
            let entry = try rig.client.lookUp(1, "f")
            let expected: UInt64 = caching == .none ? 0 : caching == .auto ? 1 : 86_400
            #expect(entry.entryValid == expected && entry.attributesValid == expected)
            let missing = try rig.client.send(1, node: 1, Array("no\0".utf8))
            #expect(missing.error == (caching == .always ? 0 : ENOENT))
            let flags = try rig.client.open(entry.node, flags: 0).flags
            #expect(flags & 1 == (caching == .none ? 1 : 0), "past the page cache")
            #expect(flags & 2 == (caching == .always ? 2 : 0), "what is cached stays good")
        }
        // An old file that nobody changes between two openings keeps what the guest has of it.
        let rig = try ShareRig(tree)
        let entry = try rig.client.lookUp(1, "f")
        var flags: [UInt32] = []
        for round in 0..<3 {
            // The change time cannot be set: wait until it is past.
            if round == 0 { usleep(150_000) }
            flags.append(try rig.client.open(entry.node, flags: 0).flags & 2)
            if round == 1 {
                Tree.write("longer", to: tree.share + "/f")
                utimes(tree.share + "/f", &times)
            }
        }
        #expect(flags == [0, 2, 0])
    }

    @Test func ownersAreMapped() throws {
        let tree = Tree()
        let rig = try ShareRig(tree)
        let client = rig.client
        // What the server's user has is the guest's root's, and stays the server's.
        let made = try client.create(1, "mine").entry
        #expect(made.attributes.user == 0 && made.attributes.group == 0)
        #expect(Tree.status(tree.share + "/mine")?.st_uid == geteuid())
        #expect(try client.change(made.node) { $0.user = 0; $0.group = 0 }.user == 0)
        let same = try ShareRig(tree) { $0.ownership = .same }
        #expect(try same.client.lookUp(1, "mine").attributes.user == geteuid())
        guard geteuid() == 0 else {
            #expect(throws: FUSEFailure(EPERM)) { try client.change(made.node) { $0.user = 1234 } }
            return
        }
        Tree.write("x", to: tree.share + "/f")
        chown(tree.share + "/f", 1234, 99)
        let entry = try client.lookUp(1, "f")
        #expect(entry.attributes.user == 1234 && entry.attributes.group == 99)
        let changed = try client.change(entry.node) { $0.user = 0 }
        #expect(changed.user == 0 && changed.group == 99)
        #expect(Tree.status(tree.share + "/f")?.st_uid == 0)
    }
}
