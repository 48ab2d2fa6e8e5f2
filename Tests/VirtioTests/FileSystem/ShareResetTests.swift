import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// Resets while requests are under way.
@Suite(.behindEachTransport) struct ShareResetTests {
    /// Holds up the reading of a directory, as a host's disk would.
    private func hold(_ rig: ShareRig, _ handle: UInt64) throws -> StopFlag {
        let file = try #require(rig.device.server?.handles.withLock { $0.file(handle) })
        let flag = StopFlag()
        let isHeld = StopFlag()
        #expect(WorkerThread.start {
            file.reading.withLock { _ in
                isHeld.isSet = true
                while !flag.isSet { usleep(500) }
            }
            flag.hasEnded = true
        })
        while !isHeld.isSet { usleep(500) }
        return flag
    }

    private func readSlowly(_ rig: ShareRig, _ handle: UInt64) throws {
        let body = Bytes(handle, UInt64(0), UInt32(4096), UInt32(0), UInt64(0), UInt64(0))
        try rig.client.post(28, node: 1, body.bytes, room: 4096)
        rig.events.run()
        usleep(20_000)
        rig.events.run()
    }

    @Test func aResetWaitsForTheHost() throws {
        let rig = try ShareRig()
        let opened = try rig.client.openDirectory(1)
        let held = try hold(rig, opened.handle)
        try readSlowly(rig, opened.handle)
        // Begun, however busy the host is: what has not begun is not waited for.
        while rig.device.workers.backlog.waiting > 0 { usleep(500) }
        let queue = rig.client.driver.queues[1]
        let before = try rig.client.memory.load(UInt16.self, at: GuestAddress(queue.layout.deviceArea.rawValue + 2))
        let start = Monitor.now()
        #expect(WorkerThread.start { usleep(50_000); held.isSet = true })
        rig.client.transport.writeStatus([])
        #expect(Monitor.now() - start >= 30_000_000)
        // Nothing of the session's changes from now on.
        let bytes = try rig.client.memory.read(at: GuestAddress(0x10_0000), count: 1 << 19)
        for _ in 0..<3 { rig.events.poll(milliseconds: 5) }
        #expect(try difference(of: rig.client.memory.read(at: GuestAddress(0x10_0000), count: 1 << 19), from: bytes) == nil)
        #expect(try rig.client.memory.load(UInt16.self, at: GuestAddress(queue.layout.deviceArea.rawValue + 2)) == before)
        #expect(rig.client.statistic("hungResets") == 0)
        try rig.client.restart()
        try rig.client.mount()
        #expect(try rig.client.allEntries(1).count == 2)
    }

    /// All the threads for requests wait for the host: what is urgent does not.
    @Test func urgentRequestsDoNotWait() throws {
        let rig = try ShareRig { $0.threads = 1 }
        let directory = try rig.client.makeDirectory(1, "d")
        let opened = try rig.client.openDirectory(1)
        let held = try hold(rig, opened.handle)
        try readSlowly(rig, opened.handle)
        for round in 0..<20 {
            try rig.client.forget([(directory.node, 1)])
            try rig.client.post(36, node: 0, Bytes(UInt64(round)).bytes, queue: 0)
            _ = try rig.client.wait(for: 1, queue: 0)
        }
        #expect(rig.client.statistic("inodes") == 1)
        #expect(try rig.client.driver.queues[1].completions().isEmpty)
        held.isSet = true
        #expect(try rig.client.wait(for: 1).map(\.error) == [0])
    }

    /// The host does not let go of any thread: there is one more for those who have nothing to do with what hangs.
    @Test func threadsThatAreHeldUp() throws {
        let rig = try ShareRig { $0.threads = 2 }
        let client = rig.client
        var held: [StopFlag] = []
        for _ in 0..<5 {
            let opened = try client.openDirectory(1)
            held.append(try hold(rig, opened.handle))
            try readSlowly(rig, opened.handle)
        }
        // Two of them have the threads, the others wait behind. So does a change, for a while.
        let asked = try client.post(9, node: 1, Bytes(UInt32(0o755), UInt32(0)).bytes + Array("d\0".utf8), room: 128)
        let queue = client.driver.queues[1]
        rig.events.run()
        usleep(20_000)
        rig.events.run()
        #expect(try queue.completions().isEmpty && Tree.kind(rig.tree.share + "/d") == 0)
        var answered: [UInt64] = []
        for _ in 0..<1000 where answered.isEmpty {
            rig.events.clock.advance(by: 10_000_000)
            rig.events.run()
            usleep(1000)
            for done in try queue.completions() {
                var answer = Cursor(done.bytes)
                answer.place = 8
                answered.append(answer.next(UInt64.self))
            }
        }
        #expect(answered == [asked] && Tree.kind(rig.tree.share + "/d") == S_IFDIR)
        for flag in held { flag.isSet = true }
        #expect(try client.wait(for: 5).map(\.error) == [0, 0, 0, 0, 0])
        // None too many stays, and all works as before.
        for _ in 0..<20 { try client.removeDirectory(1, try { _ = try client.makeDirectory(1, "e"); return "e" }()) }
        #expect(try client.allEntries(1).count == 3)
    }

    /// A host that hangs holds up a reset for so long and no longer; what comes next waits until it is over.
    @Test func aHostThatHangs() throws {
        let rig = try ShareRig { $0.resetLimit = 30 }
        let opened = try rig.client.openDirectory(1)
        let held = try hold(rig, opened.handle)
        try readSlowly(rig, opened.handle)
        let start = Monitor.now()
        rig.client.transport.writeStatus([])
        #expect(rig.client.statistic("hungResets") == 1)
        // Neither served nor waited for.
        for _ in 0..<3 { try rig.client.restart() }
        #expect(Monitor.now() - start < 5_000_000_000)
        try rig.client.post(17, node: 1, room: 80)
        usleep(20_000)
        rig.events.run()
        #expect(try rig.client.driver.queues[1].completions().isEmpty)
        held.isSet = true
        #expect(try rig.client.wait(for: 1).map(\.error) == [EIO], "not mounted, but served")
        try rig.client.mount()
        #expect(try rig.client.allEntries(1).count == 2)
        #expect(rig.client.statistic("hungResets") == 1)
    }

    /// Resets at any moment, with requests on the way of which nobody knows how far they are.
    @Test(arguments: TransportKind.allCases) func resetsAtAnyMoment(kind: TransportKind) throws {
        let rig = try ShareRig(transport: kind)
        let client = rig.client
        let data = [UInt8](repeating: 7, count: 50_000)
        for round in 0..<12 {
            // The session's rings and buffers, all of them.
            let base = client.driver.queues[0].layout.descriptors
            let (file, opened) = try client.create(1, "f\(round)")
            try client.write(file.node, opened.handle, at: 0, data)
            for _ in 0..<40 {
                try client.post(
                    15, node: file.node, Bytes(opened.handle, UInt64(0), UInt32(50_000), UInt32(0), UInt64(0), UInt64(0)).bytes,
                    room: 50_000)
            }
            for _ in 0..<(round % 4) {
                rig.events.turn()
                usleep(100)
            }
            client.transport.writeStatus([])
            let count = Int(client.driver.allocate(0).rawValue - base.rawValue)
            let bytes = try client.memory.read(at: base, count: count)
            rig.events.poll(milliseconds: 2)
            #expect(try difference(of: client.memory.read(at: base, count: count), from: bytes) == nil, "round \(round)")
            #expect(client.statistic("openFiles") == 0)
            try client.restart()
            try client.mount()
        }
        #expect(rig.device.requestsMade <= 80)
    }
}
