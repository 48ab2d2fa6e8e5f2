import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// Resets while requests are under way, and limits, which hold requests back.
@Suite(.behindEachTransport) struct BlockResetTests {
    private let directory = ScratchDirectory()
    private let capacity = 256 << 10
    private let second: UInt64 = 1_000_000_000

    /// After a reset neither rings nor buffers change, whoever has the requests at that moment.
    @Test(arguments: BlockBackend.here) func nothingIsTouchedAfterwards(backend: BlockBackend) throws {
        let rig = try BlockRig(backend, in: directory, capacity: capacity)
        for round in 0..<10 {
            rig.driver.start(BlockRig.allFeatures)
            let queue = rig.driver.queues[0]
            for index in 0..<60 { try queue.add(readable: [BlockRig.header(0, UInt64(index))], writable: [4096, 1]) }
            try queue.kick()
            for _ in 0..<(round % 3) { rig.events.turn() }
            rig.transport.writeStatus([])
            // All that this round has used.
            let before = try rig.memory.read(at: queue.layout.descriptors, count: 512 << 10)
            for _ in 0..<3 { rig.events.poll(milliseconds: 5) }
            #expect(try difference(of: rig.memory.read(at: queue.layout.descriptors, count: 512 << 10), from: before) == nil)
        }
        rig.driver.start(BlockRig.allFeatures)
        #expect(try difference(of: rig.read(0, 512), from: pattern(0..<512)) == nil)
        #expect(rig.statistic("hungResets") == 0)
    }

    @Test func aResetWaitsForTheHost() throws {
        let image = MemoryImage(capacity: capacity)
        let rig = try BlockRig(image)
        image.hold()
        let buffer = rig.driver.allocate(512)
        let header = rig.driver.allocate(16)
        try rig.memory.write(BlockRig.header(0, 3), at: header)
        for _ in 0..<20 { try rig.driver.queues[0].add([(header, 16)], [(buffer, 512), (rig.driver.allocate(1), 1)]) }
        try rig.driver.queues[0].kick()
        rig.events.run()
        #expect(rig.events.run(until: { image.heldCalls == 4 }), "as many as there are threads")
        let start = Monitor.now()
        #expect(WorkerThread.start { usleep(50_000); image.letGo() })
        rig.transport.writeStatus([])
        #expect(Monitor.now() - start >= 40_000_000)
        #expect(image.calls.count == 4, "what had not begun did not begin")
        #expect(try rig.memory.load(UInt16.self, at: GuestAddress(rig.driver.queues[0].layout.deviceArea.rawValue + 2)) == 0)
        #expect(rig.statistic("hungResets") == 0 && rig.statistic("reads") == 0)
    }

    /// A disk that hangs holds up a reset for so long and no longer; what comes next waits until it is over.
    @Test func aDiskThatHangs() throws {
        let image = MemoryImage(capacity: capacity)
        var options = BlockOptions()
        options.resetLimit = 30
        let rig = try BlockRig(image, options)
        image.hold()
        try rig.driver.queues[0].add(readable: [BlockRig.header(0, 3)], writable: [512, 1])
        try rig.driver.queues[0].kick()
        #expect(rig.events.run(until: { image.heldCalls == 1 }))
        rig.transport.writeStatus([])
        #expect(rig.statistic("hungResets") == 1)

        // A new session, and a second one: neither is served, nor waited for.
        rig.driver.start(BlockRig.allFeatures)
        rig.driver.start(BlockRig.allFeatures)
        #expect(rig.statistic("hungResets") == 1)
        let queue = rig.driver.queues[0]
        try queue.add(readable: [BlockRig.header(0, 9)], writable: [512, 1])
        try queue.kick()
        rig.events.run()
        #expect(try queue.completions().isEmpty && image.heldCalls == 1 && !rig.events.hasWork)
        image.letGo()
        let done = try rig.completions(1)
        #expect(difference(of: Array(done[0].bytes.dropLast()), from: pattern(9 * 512..<10 * 512)) == nil)
        #expect(image.calls == ["read 3", "read 9"] && rig.statistic("reads") == 1)
        // And the device ends as quickly while one hangs.
        image.hold()
        try queue.add(readable: [BlockRig.header(0, 3)], writable: [512, 1])
        try queue.kick()
        #expect(rig.events.run(until: { image.heldCalls == 1 }))
        rig.transport.registers.reset()
        image.letGo()
    }

    /// A flush that a reset has taken back says nothing of the disk.
    @Test(arguments: BlockBackend.here) func flushesWorkAfterResets(backend: BlockBackend) throws {
        let rig = try BlockRig(backend, in: directory, capacity: capacity)
        for round in 0..<20 {
            rig.driver.start(BlockRig.allFeatures)
            for _ in 0..<8 {
                let data = [UInt8](repeating: UInt8(round), count: 4096)
                try rig.driver.queues[0].add(readable: [BlockRig.header(1), data], writable: [1])
                try rig.driver.queues[0].add(readable: [BlockRig.header(4)], writable: [1])
            }
            try rig.driver.queues[0].kick()
            rig.events.turn()
            rig.transport.writeStatus([])
        }
        rig.driver.start(BlockRig.allFeatures)
        #expect(try rig.write(0, [UInt8](repeating: 1, count: 512)) == 0)
        #expect(try rig.flush() == 0)
    }

    @Test func theDeviceGoesWhileTheHostHasRequests() throws {
        let image = MemoryImage(capacity: capacity)
        weak var gone: BlockDevice?
        var events: ManualEvents?
        do {
            var options = BlockOptions()
            options.resetLimit = 20
            let rig = try BlockRig(image, options)
            gone = rig.device
            events = rig.events
            image.hold()
            try rig.driver.queues[0].add(readable: [BlockRig.header(0, 3)], writable: [512, 1])
            try rig.driver.queues[0].kick()
            #expect(rig.events.run(until: { image.heldCalls == 1 }))
        }
        #expect(gone == nil)
        image.letGo()
        #expect(events?.run(until: { image.calls == ["read 3"] }) == true)
    }

    // MARK: Limits

    @Test func aRateHoldsRequestsBack() throws {
        var options = BlockOptions()
        options.limits = RateLimits(operations: Rate(perSecond: 10, burst: 2))
        let image = MemoryImage(capacity: capacity)
        let rig = try BlockRig(ImmediateMemoryImage(image), options)
        let queue = rig.driver.queues[0]
        for sector in 0..<5 as Range<UInt64> { try queue.add(readable: [BlockRig.header(0, sector)], writable: [512, 1]) }
        try queue.add(readable: [BlockRig.header(4)], writable: [1])
        try queue.kick()
        rig.events.run()
        #expect(try queue.completions().count == 2)
        #expect(!rig.events.hasWork && rig.events.clock.nextDeadline == second / 10)
        // Notifications do not help, and make no other work than a look.
        for _ in 0..<10 {
            rig.transport.notify(queue: 0)
            #expect(rig.events.run() == 1)
        }
        #expect(try queue.completions().isEmpty)
        for step in 0..<4 {
            rig.events.clock.advance(by: second / 10 - 1)
            rig.events.run()
            #expect(try queue.completions().isEmpty, "step \(step)")
            rig.events.clock.advance(by: 1)
            rig.events.run()
            #expect(try queue.completions().count == 1)
        }
        #expect(image.calls == ["read 0", "read 1", "read 2", "read 3", "read 4", "flush"], "in their order")
        #expect(rig.statistic("throttled") == 4)
        #expect(rig.events.clock.nextDeadline == nil && !rig.events.hasWork)
    }

    @Test func bytesAreLimitedAcrossQueues() throws {
        var options = BlockOptions()
        options.queueCount = 2
        options.limits = RateLimits(bytes: Rate(perSecond: 8192, burst: 4096))
        let rig = try BlockRig(ImmediateMemoryImage(MemoryImage(capacity: capacity)), options)
        for queue in rig.driver.queues {
            for _ in 0..<4 { try queue.add(readable: [BlockRig.header(0)], writable: [4096, 1]) }
            try queue.kick()
        }
        var done = [0, 0]
        for half in 0...8 {
            rig.events.run()
            for queue in 0..<2 { done[queue] += try rig.driver.queues[queue].completions().count }
            #expect(done[0] + done[1] == min(8, half + 1))
            rig.events.clock.advance(by: second / 2)
        }
        #expect(done == [4, 4])
    }

    @Test func aResetForgetsWhatWaits() throws {
        var options = BlockOptions()
        options.limits = RateLimits(operations: Rate(perSecond: 1, burst: 1))
        let image = MemoryImage(capacity: capacity)
        let rig = try BlockRig(ImmediateMemoryImage(image), options)
        for sector in 0..<3 as Range<UInt64> {
            try rig.driver.queues[0].add(readable: [BlockRig.header(0, sector)], writable: [512, 1])
        }
        try rig.driver.queues[0].kick()
        rig.events.run()
        rig.transport.writeStatus([])
        #expect(rig.events.clock.nextDeadline == nil)
        rig.events.clock.advance(by: 10 * second)
        rig.events.run()
        #expect(image.calls == ["read 0"])
        rig.driver.start(BlockRig.allFeatures)
        #expect(try difference(of: rig.read(7, 512), from: pattern(7 * 512..<8 * 512)) == nil)
    }

    /// Memory is made once for as many requests as are under way together, and used again.
    @Test(arguments: BlockBackend.here(.immediate, .fileRing, .fileThreads, .fileCached))
    func memoryIsBounded(backend: BlockBackend) throws {
        let rig = try BlockRig(backend, in: directory, capacity: capacity)
        let header = rig.driver.allocate(16)
        let data = rig.driver.allocate(513)
        try rig.memory.write(BlockRig.header(0, 5), at: header)
        for _ in 0..<40 {
            for _ in 0..<100 { try rig.driver.queues[0].add([(header, 16)], [(data, 513)]) }
            try rig.driver.queues[0].kick()
            _ = try rig.completions(rig.driver.queues[0].outstanding)
        }
        #expect(rig.device.requestsMade <= BlockDevice.mostRequests)
        if backend == .immediate { #expect(rig.device.requestsMade == 1) }
    }
}
