import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// What a driver must not do, and a guest does all the same.
@Suite(.behindEachTransport) struct BlockHostileTests {
    private let directory = ScratchDirectory()
    private let capacity = 64 << 10

    /// A chain without room for a status comes back, and the next one is served.
    @Test(arguments: ringKinds) func aHeaderAlone(ring: FeatureSet) throws {
        let image = MemoryImage(capacity: capacity)
        let rig = try BlockRig(image, ring: ring, size: 4)
        for _ in 0..<10 {
            for readable in [[BlockRig.header(0)], [BlockRig.header(1), [UInt8](repeating: 1, count: 512)], [[1, 2, 3]]] {
                _ = try #require(try rig.driver.queues[0].add(readable: readable))
                try rig.driver.queues[0].kick()
                #expect(try rig.completions(1).map(\.written) == [0])
            }
        }
        #expect(image.calls.isEmpty && rig.statistic("errors") == 30 && !rig.needsReset)
        #expect(try difference(of: rig.read(0, 512), from: pattern(0..<512)) == nil)
    }

    @Test func aHeaderThatIsTooShort() throws {
        let image = MemoryImage(capacity: capacity)
        let rig = try BlockRig(image)
        for count in 0..<16 {
            let header = Array(BlockRig.header(1)[..<count])
            let answer = try rig.send(count == 0 ? [] : [header], [513])
            #expect(answer.status == 1 && answer.written == 0)
        }
        #expect(image.calls.isEmpty && rig.statistic("errors") == 16)
    }

    @Test func unknownRequests() throws {
        let image = MemoryImage(capacity: capacity)
        let rig = try BlockRig(image)
        for type in [2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 25, 0x8000_0000, 0xFFFF_FFFF] as [UInt32] {
            #expect(try rig.send([BlockRig.header(type), [UInt8](repeating: 0, count: 64)], [512, 1]).status == 2)
        }
        #expect(image.calls.isEmpty && rig.statistic("unsupported") == 13)
        // What the driver did not negotiate is as unknown.
        let bare = try BlockRig(image, features: [])
        #expect(try bare.send([BlockRig.header(11), BlockRig.segment(0, 8)]).status == 2)
        #expect(try bare.send([BlockRig.header(13), BlockRig.segment(0, 8)]).status == 2)
        #expect(image.calls.isEmpty)
    }

    /// A file never grows, and nothing of a request that does not fit is written.
    @Test(arguments: BlockBackend.here) func rangesBeyondTheEnd(backend: BlockBackend) throws {
        let rig = try BlockRig(backend, in: directory, capacity: capacity)
        let sectors = UInt64(capacity / 512)
        let data = [UInt8](repeating: 0xAA, count: 512)
        for sector in [sectors, sectors + 1, 1 << 55, (1 << 55) - 1, .max, .max / 512, .max / 512 + 1, 1 << 63] as [UInt64] {
            #expect(try rig.write(sector, data) == 1)
            #expect(try rig.send([BlockRig.header(0, sector)], [512, 1]).status == 1)
            #expect(try rig.send([BlockRig.header(13), BlockRig.segment(sector, 1)]).status == 1)
            #expect(try rig.send([BlockRig.header(11), BlockRig.segment(sector, 1)]).status == 1)
        }
        #expect(try rig.send([BlockRig.header(1, sectors - 1)] + [[UInt8]](repeating: data, count: 20)).status == 1)
        #expect(try rig.send([BlockRig.header(0, sectors - 1)], [512, 512, 1]).status == 1)
        // No whole sectors.
        for count in [1, 511, 513, 1000] {
            #expect(try rig.send([BlockRig.header(1, 0), [UInt8](repeating: 1, count: count)]).status == 1)
            #expect(try rig.send([BlockRig.header(0, 0)], [count, 1]).status == 1)
        }
        // None at all is none to fail.
        #expect(try rig.send([BlockRig.header(1, 0)]).status == 0)
        #expect(try difference(of: rig.read(0, capacity), from: pattern(0..<capacity)) == nil)
        #expect(!rig.needsReset)
        if rig.device.image is RawImage { #expect(ScratchDirectory.contents(directory.path + "/disk.raw").count == capacity) }
    }

    @Test func segmentsBeyondWhatIsAllowed() throws {
        let image = MemoryImage(capacity: capacity)
        let rig = try BlockRig(image)
        let good = BlockRig.segment(0, 1)
        let bad: [(UInt32, [UInt8])] = [
            (11, []), (11, Array(good.dropLast())), (11, good + [0]),
            (11, Array([[UInt8]](repeating: good, count: 33).joined())),
            (13, good + good), (13, BlockRig.segment(0, .max)), (11, BlockRig.segment(0, .max)),
            (11, BlockRig.segment(.max, .max)), (11, BlockRig.segment(1 << 55, 8)), (13, BlockRig.segment(.max, 1)),
            // The first is good: still nothing is done.
            (11, good + BlockRig.segment(0, 4096)), (11, good + BlockRig.segment(128, 1)),
        ]
        for (type, segments) in bad {
            #expect(try rig.send([BlockRig.header(type)] + (segments.isEmpty ? [] : [segments])).status == 1)
        }
        #expect(image.calls.isEmpty && image.bytes == pattern(0..<capacity))
        let most = Array([[UInt8]](repeating: good, count: 32).joined())
        #expect(try rig.send([BlockRig.header(11), most]).status == 0)
        #expect(image.calls.count == 32)
    }

    /// The longest chain there can be, of many buffers over the same memory, through every way to the host.
    @Test(arguments: BlockBackend.here) func theLongestChain(backend: BlockBackend) throws {
        var options = BlockOptions()
        options.queueSize = 1024
        let rig = try BlockRig(backend, in: directory, capacity: 1 << 20, options: options, ring: .indirectDescriptors)
        let header = rig.driver.allocate(16)
        let buffer = rig.driver.allocate(1024)
        let status = rig.driver.allocate(1)
        try rig.memory.write(BlockRig.header(0, 0), at: header)
        let writable = [(address: GuestAddress, count: Int)](repeating: (buffer, 1024), count: 1022) + [(status, 1)]
        try rig.driver.queues[0].add([(header, 16)], writable)
        try rig.driver.queues[0].kick()
        let done = try rig.completions(1)
        #expect(done[0].written == 1022 * 1024 + 1 && done[0].bytes.last == 0)
        // One more is one too many, for the queue and for us.
        try rig.driver.queues[0].add([(header, 16)], writable + [(status, 1), (status, 1)])
        try rig.driver.queues[0].kick()
        rig.events.run()
        #expect(rig.needsReset)
    }

    /// The same descriptors twice, both under way at once: both come back, and nothing else happens.
    @Test func theSameHeadTwice() throws {
        let image = MemoryImage(capacity: capacity)
        let rig = try BlockRig(image)
        image.hold()
        let queue = rig.driver.queues[0]
        let head = try #require(try queue.add(readable: [BlockRig.header(0, 1)], writable: [512, 1]))
        for index in 1..<8 as Range<UInt64> {
            try rig.memory.store(head, at: GuestAddress(queue.layout.driverArea.rawValue + 4 + index * 2))
        }
        try rig.memory.store(UInt16(8), at: GuestAddress(queue.layout.driverArea.rawValue + 2))
        try queue.kick()
        rig.events.run()
        image.letGo()
        let area = queue.layout.deviceArea.rawValue
        func used() -> UInt16 { (try? rig.memory.load(UInt16.self, at: GuestAddress(area + 2))) ?? 0 }
        #expect(rig.events.run(until: { used() == 8 }, milliseconds: 5000))
        for index in 0..<8 as Range<UInt64> {
            #expect(try rig.memory.load(UInt32.self, at: GuestAddress(area + 4 + index * 8)) == UInt32(head))
        }
        #expect(image.calls == [String](repeating: "read 1", count: 8) && !rig.needsReset)
    }

    /// More made available than the queue can hold, while what it did hold is still with the host.
    @Test(arguments: BlockBackend.here(.memoryThreads, .fileRing, .fileThreads, .immediate))
    func moreThanTheQueueHolds(backend: BlockBackend) throws {
        let rig = try BlockRig(backend, in: directory, capacity: capacity)
        let queue = rig.driver.queues[0]
        let image = rig.device.image as? MemoryImage
        image?.hold()
        for index in 0..<80 { try queue.add(readable: [BlockRig.header(0, UInt64(index))], writable: [512, 1]) }
        try queue.kick()
        rig.events.turn()
        try rig.memory.store(UInt16(20_000), at: GuestAddress(queue.layout.driverArea.rawValue + 2))
        rig.transport.notify(queue: 0)
        rig.events.turn()
        #expect(rig.needsReset)
        image?.letGo()
        // The reset ends it, and the device is as good as new.
        rig.driver.start(BlockRig.allFeatures)
        #expect(try difference(of: rig.read(0, 512), from: pattern(0..<512)) == nil)
        #expect(!rig.needsReset)
    }

    /// As many requests as sixteen full queues hold are more than a ring has room for.
    @Test(arguments: BlockBackend.here(.fileRing, .memoryThreads)) func allQueuesFull(backend: BlockBackend) throws {
        var options = BlockOptions()
        options.queueCount = 16
        let rig = try BlockRig(backend, in: directory, capacity: capacity, options: options, ring: .indirectDescriptors)
        let header = rig.driver.allocate(16)
        try rig.memory.write(BlockRig.header(0, 5), at: header)
        let data = rig.driver.allocate(512)
        let image = rig.device.image as? MemoryImage
        image?.hold()
        for queue in rig.driver.queues {
            for _ in 0..<256 { #expect(try queue.add([(header, 16)], [(data, 512), (rig.driver.allocate(1), 1)]) != nil) }
            try queue.kick()
        }
        rig.events.run()
        image?.letGo()
        for queue in 0..<16 {
            let done = try rig.completions(256, queue: queue)
            #expect(done.count == 256 && done.allSatisfy { $0.bytes.last == 0 && $0.written == 513 })
        }
        #expect(try difference(of: rig.memory.read(at: data, count: 512), from: pattern(5 * 512..<6 * 512)) == nil)
    }

    /// Whatever the rings and requests hold, the device ends each turn and can be reset.
    @Test(arguments: BlockBackend.here(.immediate, .fileRing, .fileThreads, .fileCached)) func anything(backend: BlockBackend) throws {
        var random = SeededRandom(seed: 20)
        let rig = try BlockRig(backend, in: directory, capacity: capacity)
        for round in 0..<150 {
            #expect(rig.driver.start(BlockRig.allFeatures.union(ringKinds[round % ringKinds.count]), size: 16))
            let queue = rig.driver.queues[0]
            for _ in 0..<(random.next() % 6) {
                let type = [0, 1, 4, 8, 11, 13, UInt32(truncatingIfNeeded: random.next())][Int(random.next() % 7)]
                let sector = random.next() % 4 == 0 ? random.next() : random.next() % 140
                var readable = [BlockRig.header(type, sector)]
                if random.next() % 2 == 0 {
                    readable.append((0..<(random.next() % 1100)).map { UInt8(truncatingIfNeeded: $0) })
                }
                if random.next() % 8 == 0 { readable[0].removeLast() }
                try queue.add(readable: readable, writable: random.next() % 8 == 0 ? [] : [Int(random.next() % 1100), 1])
            }
            // And a word of the rings that is anything.
            let areas = [queue.layout.descriptors, queue.layout.driverArea, queue.layout.deviceArea]
            let place = areas[Int(random.next() % 3)].rawValue + random.next() % 32 * 4
            try rig.memory.store(UInt32(truncatingIfNeeded: random.next()), at: GuestAddress(place))
            rig.transport.notify(queue: 0)
            for _ in 0..<10 { rig.events.turn() }
        }
        rig.driver.start(BlockRig.allFeatures)
        rig.events.run()
        #expect(try rig.send([BlockRig.header(0, 0)], [512, 1]).status == 0)
        if rig.device.image is RawImage { #expect(ScratchDirectory.contents(directory.path + "/disk.raw").count == capacity) }
    }
}
