import CHost
import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// POSIX locks that the host's programs see.
@Suite(.behindEachTransport) struct ShareLockTests {
    @Test func ownersAndRanges() throws {
        let rig = try ShareRig { $0.sharesLocks = true }
        let client = rig.client
        #expect(client.flags & 2 != 0)
        let (file, one) = try client.create(1, "f")
        let other = try client.open(file.node)
        let node = file.node
        try client.setLock(node, one.handle, owner: 1, type: 1, 0...99)
        // An owner is in nobody's own way, by whichever handle.
        try client.setLock(node, other.handle, owner: 1, type: 1, 50...149)
        #expect(throws: FUSEFailure(EAGAIN)) { try client.setLock(node, other.handle, owner: 2, type: 0, 149...200) }
        try client.setLock(node, other.handle, owner: 2, type: 0, 150...200)
        let found = try client.testLock(node, one.handle, owner: 3, type: 1, 100...300)
        #expect(found.type == 1 && found.start == 0 && found.end == 149)
        #expect(try client.testLock(node, one.handle, owner: 3, type: 0, 160...300).type == 2)
        #expect(try client.testLock(node, one.handle, owner: 1, type: 1, 0...149).type == 2)
        // The host's programs, both ways.
        let host = open(rig.tree.share + "/f", O_RDWR)
        defer { close(host) }
        #expect(chost_file_lock(host, F_WRLCK, 20, 1) == -EAGAIN)
        #expect(chost_file_lock(host, F_WRLCK, 500, 0) == 0)
        #expect(throws: FUSEFailure(EAGAIN)) { try client.setLock(node, one.handle, owner: 1, type: 1) }
        let end = try client.testLock(node, one.handle, owner: 1, type: 1, 400...UInt64(Int64.max))
        #expect(end.start == 500 && end.end == UInt64(Int64.max))
        // Closing gives an owner's locks back, and nobody else's.
        try client.flush(node, other.handle, owner: 1)
        #expect(chost_file_lock(host, F_WRLCK, 20, 1) == 0)
        #expect(chost_file_lock(host, F_WRLCK, 160, 1) == -EAGAIN)
        try client.setLock(node, other.handle, owner: 2, type: 2, 150...170)
        #expect(chost_file_lock(host, F_WRLCK, 160, 1) == 0)
        #expect(chost_file_lock(host, F_WRLCK, 180, 1) == -EAGAIN)
        for bad in [(0, 7), (7, 0)] as [(UInt64, UInt32)] {
            let body = Bytes(one.handle, UInt64(1), bad.0 == 0 ? UInt64(0) : UInt64(10), UInt64(5), bad.1, UInt32(0), UInt64(0))
            #expect(try client.send(32, node: node, body.bytes).error == EINVAL)
        }
        try client.unmount()
        #expect(chost_file_lock(host, F_WRLCK, 0, 0) == 0, "nothing is left locked")
    }

    @Test func withoutTheOptionTheyAreTheGuestsOwn() throws {
        let rig = try ShareRig()
        let client = rig.client
        #expect(client.flags & 2 == 0)
        let (file, opened) = try client.create(1, "f")
        #expect(throws: FUSEFailure(ENOSYS)) { try client.setLock(file.node, opened.handle, owner: 1, type: 1) }
    }

    /// Waiting takes no thread, ends when the lock is free, when it is interrupted, and after a while.
    @Test func waiting() throws {
        let rig = try ShareRig { $0.sharesLocks = true; $0.threads = 1 }
        let (client, clock) = (rig.client, rig.events.clock)
        let (file, opened) = try client.create(1, "f")
        try client.setLock(file.node, opened.handle, owner: 1, type: 1)
        func wait(owner: UInt64) throws -> UInt64 {
            try client.post(33, node: file.node, FUSEClient.lock(opened.handle, owner, 1, 0...9), room: 0)
        }
        let first = try wait(owner: 2)
        let second = try wait(owner: 3)
        for _ in 0..<5 {
            try client.sync(file.node, opened.handle)
            #expect(try client.lookUp(1, "f").node == file.node, "the one thread is free")
            clock.advance(by: 20_000_000)
        }
        try client.setLock(file.node, opened.handle, owner: 1, type: 2)
        // Whoever was with the thread just then has to look once more.
        func granting() throws -> [FUSEClient.Answer] {
            for _ in 0..<200 {
                clock.advance(by: 20_000_000)
                if let answers = try? client.wait(for: 1, seconds: 0) { return answers }
            }
            return try client.wait(for: 1)
        }
        let granted = try granting()
        #expect(granted.map(\.error) == [0] && [first, second].contains(granted[0].unique))
        let rest = granted[0].unique == first ? second : first
        try client.post(36, node: 0, Bytes(UInt64(12345)).bytes, queue: 0)
        try client.post(36, node: 0, Bytes(rest).bytes, queue: 0)
        _ = try client.wait(for: 2, queue: 0)
        let interrupted = try client.wait(for: 1)
        #expect(interrupted.map(\.error) == [EINTR] && interrupted[0].unique == rest)

        // Also while it is just trying once more.
        for round in 0..<200 as Range<UInt64> {
            let unique = try wait(owner: 4)
            try client.sync(file.node, opened.handle)
            clock.advance(by: 20_000_000)
            if round % 2 == 0 { rig.events.run() }
            try client.post(36, node: 0, Bytes(unique).bytes, queue: 0)
            _ = try client.wait(for: 1, queue: 0)
            #expect(try client.wait(for: 1).map(\.error) == [EINTR])
        }

        // No more than so many wait, and none for ever.
        for owner in 10..<42 as Range<UInt64> { _ = try wait(owner: owner) }
        // The one thread has had them all before this.
        try client.sync(file.node, opened.handle)
        let over = try wait(owner: 99)
        #expect(try client.wait(for: 1).map(\.unique) == [over])
        clock.advance(by: 61_000_000_000)
        #expect(try client.wait(for: 32).allSatisfy { $0.error == EINTR })

        // A reset forgets those who wait.
        _ = try wait(owner: 50)
        try client.sync(file.node, opened.handle)
        try client.restart()
        clock.advance(by: 61_000_000_000)
        rig.events.run()
        try client.mount()
        #expect(client.driver.queues[1].outstanding == 0 && clock.nextDeadline == nil)
        #expect(try client.lookUp(1, "f").attributes.size == 0)
        #expect(rig.device.requestsMade < 80 + 3 * 200)
    }
}
