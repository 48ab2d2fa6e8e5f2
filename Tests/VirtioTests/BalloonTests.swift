import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

@Suite(.behindEachTransport) struct BalloonTests {
    private let mebibyte: UInt64 = 1 << 20

    /// To half the memory and back, in lists of 256 pages as Linux makes them.
    @Test(arguments: ringKinds, TransportKind.allCases) func halfTheMemoryGoesAndComesBack(ring: FeatureSet, kind: TransportKind) throws {
        let rig = try BalloonRig(kind)
        let all = 32 * mebibyte..<64 * mebibyte
        try rig.touch(all)
        #expect(rig.resident(all) == 32 * mebibyte)
        #expect(rig.driver.start(ring, size: 16))
        _ = rig.transport.takeInterrupts()
        rig.device.setTarget(bytes: 32 * mebibyte)
        #expect(rig.transport.takeInterrupts().configuration)
        #expect(rig.transport.readConfiguration(offset: 0, width: .long) == 8192)
        for list in 0..<UInt32(32) {
            try rig.inflate((0..<256).map { 8192 + list * 256 + ($0 ^ 3) })
            #expect(try rig.driver.queues[0].completions().map(\.written) == [0])
            #expect(rig.transport.takeInterrupts().used)
            rig.transport.writeConfiguration(offset: 4, width: .long, value: UInt64((list + 1) * 256))
        }
        #expect(rig.device.actual == 32 * mebibyte)
        #expect(rig.resident(all) == 0)
        #expect(rig.statistic("bytesReleased") == 32 * mebibyte)
        rig.device.setTarget(bytes: 0)
        #expect(rig.transport.takeInterrupts().configuration)
        for list in 0..<UInt32(32) {
            try rig.driver.queues[1].add(readable: [rig.list((0..<256).map { 8192 + list * 256 + $0 })])
            try rig.driver.queues[1].kick()
            rig.events.run()
            #expect(try rig.driver.queues[1].completions().count == 1)
        }
        rig.transport.writeConfiguration(offset: 4, width: .long, value: 0)
        #expect(rig.device.actual == 0)
        #expect(try rig.memory.load(UInt64.self, at: GuestAddress(40 * mebibyte)) == 0)
        try rig.touch(all)
        #expect(rig.resident(all) == 32 * mebibyte)
        #expect(rig.statistic("bytesDeflated") == 32 * mebibyte)
    }

    @Test func pagesThatLieTogetherGoTogether() throws {
        let rig = try BalloonRig()
        let writes = Writes()
        #expect(rig.driver.start([]))
        var random = SeededRandom(seed: 5)
        var pages = Array(4096..<4796 as Range<UInt32>)
        pages += stride(from: 8192 as UInt32, to: 8792, by: 2)
        pages.shuffle(using: &random)
        try rig.driver.queues[0].add(readable: [rig.list(pages + pages[..<24])])
        rig.memory.add(observer: writes)
        rig.driver.transport.notify(queue: 0)
        rig.events.run()
        rig.memory.remove(observer: writes)
        // An interpreter's copies of what was there are void.
        var expected: [Range<UInt64>] = [4096 << 12..<4796 << 12]
        for page: UInt64 in stride(from: 8192, to: 8792, by: 2) { expected.append(page << 12..<(page + 1) << 12) }
        let told = writes.ranges.filter { $0.lowerBound >= 16 << 20 }
        #expect(told == expected)
        #expect(rig.statistic("bytesReleased") == 1000 * 4096)
    }

    private final class Writes: GuestMemoryObserver, @unchecked Sendable {
        var ranges: [Range<UInt64>] = []
        func memoryWritten(at address: GuestAddress, count: UInt64) {
            ranges.append(address.rawValue..<address.rawValue + count)
        }
    }

    /// The sort that merging goes by, against the standard library's.
    @Test func runsAreWhatASetOfPagesSays() throws {
        let rig = try BalloonRig()
        #expect(rig.driver.start([]))
        var random = SeededRandom(seed: 9)
        for count in [0, 1, 2, 3, 17, 256, 1000, 1024] {
            let pages = (0..<count).map { _ in UInt32(random.below(count * 2)) &- UInt32(random.below(2)) }
            let chain = DescriptorChain()
            let address = rig.driver.allocate(4096)
            try rig.memory.write(rig.list(pages), at: address)
            #expect(chain.append(address: address, count: UInt32(count * 4), isWritable: false, memory: rig.memory) == nil)
            var runs = PageRuns()
            #expect(runs.fill(chain, at: 0) == UInt64(count * 4))
            var found: [UInt64] = []
            var last: UInt64?
            runs.forEach { address, bytes in
                // Runs do not touch.
                if let last { #expect(address > last) }
                last = address + bytes
                found += stride(from: address, to: address + bytes, by: 4096)
            }
            #expect(difference(of: found, from: Set(pages).sorted().map { UInt64($0) << 12 }) == nil)
        }
    }

    /// List items 31 and 32: addresses behind memory, in the hole, and a list as long as a list can be.
    @Test func pagesThatAreNoMemoryAreIgnored() throws {
        let rig = try BalloonRig()
        #expect(rig.driver.start([]))
        try rig.touch(63 * mebibyte..<64 * mebibyte)
        try rig.inflate([.max, .max - 1, 16384, 16383, 0xC0000, 0xFFFFF, 0x100000])
        #expect(try rig.driver.queues[0].completions().count == 1)
        #expect(rig.statistic("bytesOutsideMemory") == 6 * 4096)
        #expect(rig.statistic("bytesReleased") == 4096)
        #expect(rig.resident(63 * mebibyte..<64 * mebibyte) == mebibyte - 4096)
        // Less than a number, and bytes that are left over.
        for bytes in [0, 1, 3, 5] { try rig.driver.queues[0].add(readable: [[UInt8](repeating: 0xFF, count: bytes)]) }
        try rig.driver.queues[0].add(writable: [64])
        rig.driver.transport.notify(queue: 0)
        rig.events.run()
        #expect(try rig.driver.queues[0].completions().count == 5)
        #expect(rig.statistic("bytesInflated") == 8 * 4096)
        #expect(!rig.transport.readStatus().contains(.needsReset))
    }

    @Test func aLongListTakesManyTurns() throws {
        let rig = try BalloonRig(mebibytes: 256)
        #expect(rig.driver.start([]))
        // The same 64 MiB sixty-three times over: nearly 4 GiB of list, all of it the number zero.
        let buffer = (address: GuestAddress(128 * mebibyte), count: 64 << 20)
        try rig.driver.queues[0].add([(address: buffer.address, count: 1 << 20)], [])
        rig.driver.transport.notify(queue: 0)
        rig.events.turn()
        #expect(rig.events.hasWork)
        #expect(rig.statistic("bytesInflated") == UInt64(PageRuns.capacity * 4096))
        #expect((255...256).contains(rig.events.run()))
        #expect(try rig.driver.queues[0].completions().count == 1)
        // The longest: the other queues go on meanwhile, and a reset ends it.
        try rig.driver.queues[0].add([(address: buffer.address, count: 64 << 20)] + (0..<62).map { _ in buffer }, [])
        try rig.driver.queues[1].add(readable: [[0, 0, 0, 0]])
        rig.driver.transport.notify(queue: 0)
        rig.driver.transport.notify(queue: 1)
        rig.events.turn()
        #expect(try rig.driver.queues[1].completions().count == 1)
        #expect(rig.events.run(limit: 100) == 100)
        rig.transport.writeStatus([])
        #expect(rig.events.run() <= 1)
        #expect(rig.driver.start([]))
        try rig.driver.queues[0].add(readable: [rig.list([8192])])
        rig.driver.transport.notify(queue: 0)
        #expect(rig.events.run(limit: 10) < 10)
        #expect(try rig.driver.queues[0].completions().count == 1)
    }

    @Test(arguments: ringKinds) func reportedPagesGo(ring: FeatureSet) throws {
        let rig = try BalloonRig()
        let all = 32 * mebibyte..<34 * mebibyte
        try rig.touch(all)
        #expect(rig.driver.start(ring.union([BalloonRig.statistics, BalloonRig.reporting]), size: 32))
        try rig.report([(32 * mebibyte, 64 << 10), (32 * mebibyte + (64 << 10), 64 << 10), (33 * mebibyte, 128 << 10)])
        #expect(rig.transport.takeInterrupts().used)
        #expect(rig.resident(all) == 2 * mebibyte - (256 << 10))
        #expect(rig.resident(33 * mebibyte..<33 * mebibyte + (128 << 10)) == 0)
        #expect(rig.statistic("bytesReported") == 256 << 10)
        // Only now, because it looks into the buffers, and what is looked at is there again.
        let done = try rig.driver.queues[4].completions()
        #expect(done.map(\.written) == [0])
        #expect(done[0].bytes.allSatisfy { $0 == 0 })
    }

    /// Drivers that leave out queues disagree on the numbers of those behind: the report is taken wherever it comes.
    @Test(arguments: [
        ([BalloonRig.reporting], 2), ([BalloonRig.reporting], 3), ([BalloonRig.reporting], 4),
        ([BalloonRig.reporting, BalloonRig.statistics], 3), ([BalloonRig.reporting, BalloonRig.statistics], 4),
    ] as [(FeatureSet, Int)]) func theReportingQueueMayMove(features: FeatureSet, queue: Int) throws {
        let rig = try BalloonRig()
        try rig.touch(32 * mebibyte..<33 * mebibyte)
        #expect(rig.driver.start(features))
        try rig.report([(32 * mebibyte, 1 << 20)], queue: queue)
        #expect(rig.resident(32 * mebibyte..<33 * mebibyte) == 0)
        #expect(try rig.driver.queues[queue].completions().count == 1)
    }

    @Test func withoutTheFeatureNothingIsReported() throws {
        let rig = try BalloonRig()
        try rig.touch(32 * mebibyte..<33 * mebibyte)
        #expect(rig.driver.start([BalloonRig.poison]))
        try rig.report([(32 * mebibyte, 1 << 20)])
        #expect(try rig.driver.queues[4].completions().isEmpty)
        #expect(rig.resident(32 * mebibyte..<33 * mebibyte) == mebibyte)
    }

    /// Source: [VIRTIO1.2 §5.5.6.7.2].
    @Test(arguments: [(0, true, 0), (0xAAAA_AAAA, true, 0xA5), (0xAAAA_AAAA, false, 0)] as [(UInt64, Bool, UInt8)])
    func pagesReportedWithAPoisonKeepIt(poison: UInt64, isNegotiated: Bool, expected: UInt8) throws {
        let rig = try BalloonRig()
        try rig.touch(32 * mebibyte..<33 * mebibyte)
        rig.transport.writeConfiguration(offset: 12, width: .long, value: poison)
        #expect(rig.transport.readConfiguration(offset: 12, width: .long) == poison)
        // The mock driver's reset, of a device that no driver has used, leaves it.
        #expect(rig.driver.start(BalloonRig.reporting.union(isNegotiated ? BalloonRig.poison : [])))
        // Not while it runs.
        rig.transport.writeConfiguration(offset: 12, width: .long, value: 0x5555)
        #expect(rig.transport.readConfiguration(offset: 12, width: .long) == poison)
        try rig.report([(32 * mebibyte, 1 << 20)])
        #expect(try rig.memory.load(UInt8.self, at: GuestAddress(32 * mebibyte)) == expected)
        rig.transport.writeStatus([])
        #expect(rig.transport.readConfiguration(offset: 12, width: .long) == 0)
    }

    /// Pages under which a file was mapped: a guest that clears what it frees finds zeros, not the file.
    @Test func aFileUnderMemoryDoesNotShowThrough() throws {
        let rig = try BalloonRig()
        var name = Array("/tmp/windhover-balloon-XXXXXX".utf8CString)
        let file = mkstemp(&name)
        defer {
            close(file)
            unlink(name)
        }
        let bytes = [UInt8](repeating: 0x5A, count: 1 << 20)
        #expect(write(file, bytes, bytes.count) == bytes.count)
        try rig.memory.map(file: file, offset: 0, count: 1 << 20, at: GuestAddress(32 * mebibyte))
        try rig.memory.zero(at: GuestAddress(32 * mebibyte), count: 1 << 20)
        #expect(rig.driver.start([BalloonRig.reporting, BalloonRig.poison]))
        try rig.report([(32 * mebibyte, 1 << 19)])
        try rig.inflate((0..<128).map { 8192 + 128 + $0 })
        #expect(rig.resident(32 * mebibyte..<33 * mebibyte) == 0)
        #expect(try rig.memory.read(at: GuestAddress(32 * mebibyte), count: 1 << 20).allSatisfy { $0 == 0 })
    }

    @Test func aReportOfMuchMemoryTakesManyTurns() throws {
        let rig = try BalloonRig(mebibytes: 2048)
        #expect(rig.driver.start([BalloonRig.reporting, .indirectDescriptors]))
        let ranges = (0..<1000).map { _ in (GuestAddress(64 * mebibyte), 1 << 20) }
        try rig.driver.queues[4].add([], ranges)
        rig.driver.transport.notify(queue: 4)
        rig.events.turn()
        #expect(rig.statistic("bytesReported") == BalloonDevice.fairBytes)
        rig.events.run()
        #expect(rig.statistic("bytesReported") == 1000 * mebibyte)
        // One descriptor of nearly 2 GiB.
        try rig.driver.queues[4].add([], [(GuestAddress(64 * mebibyte), 1984 << 20)])
        rig.driver.transport.notify(queue: 4)
        #expect((62...63).contains(rig.events.run()))
        #expect(rig.statistic("bytesReported") == 2984 * mebibyte)
        // Many buffers of hardly a byte.
        try rig.driver.queues[4].add([], (0..<1000).map { _ in (GuestAddress(64 * mebibyte + 5), 1) })
        rig.driver.transport.notify(queue: 4)
        #expect((4...5).contains(rig.events.run()))
        #expect(rig.statistic("bytesKept") == 1000)
    }

    // MARK: Configuration

    @Test func theHostSetsTheTarget() throws {
        let rig = try BalloonRig()
        rig.device.setTarget(bytes: 3 * mebibyte + 4095)
        #expect(rig.device.target == 3 * mebibyte)
        #expect(rig.transport.readConfiguration(offset: 0, width: .long) == 768)
        #expect(rig.driver.start([]))
        _ = rig.transport.takeInterrupts()
        let generation = rig.transport.registers.generation
        rig.device.setTarget(bytes: 3 * mebibyte)
        #expect(!rig.transport.takeInterrupts().configuration)
        rig.device.setTarget(bytes: .max)
        #expect(rig.transport.takeInterrupts().configuration)
        #expect(rig.transport.registers.generation != generation)
        #expect(rig.transport.readConfiguration(offset: 0, width: .long) == 0xFFFF_FFFF)
        // It is the host's word, and no driver's; it outlasts a reset.
        rig.transport.writeConfiguration(offset: 0, width: .long, value: 0)
        rig.transport.writeStatus([])
        #expect(rig.device.target == 0xFFFF_FFFF << 12)
    }

    @Test func theDriverWritesActualInAnyPieces() throws {
        let rig = try BalloonRig()
        #expect(rig.driver.start([]))
        for (offset, byte) in [(4, 0x78), (5, 0x56), (6, 0x34), (7, 0x12)] as [(UInt64, UInt64)] {
            rig.transport.writeConfiguration(offset: offset, width: .byte, value: byte)
        }
        #expect(rig.device.actual == 0x1234_5678 << 12)
        rig.transport.writeConfiguration(offset: 6, width: .long, value: 0xFFFF_0000)
        #expect(rig.transport.readConfiguration(offset: 0, width: .quad) == 0x5678 << 32)
        for offset: UInt64 in [8, 16, 17, 1 << 32, .max - 1, .max] {
            rig.transport.writeConfiguration(offset: offset, width: .quad, value: .max)
        }
        #expect(rig.transport.readConfiguration(offset: 8, width: .long) == 0)
        #expect(rig.device.actual == 0x5678 << 12)
        rig.transport.writeStatus([])
        #expect(rig.device.actual == 0)
    }

    @Test func whatIsOffered() throws {
        let rig = try BalloonRig()
        #expect(rig.transport.readFeatures().isSuperset(of: [
            BalloonRig.statistics, BalloonRig.deflate, BalloonRig.poison, BalloonRig.reporting,
        ]))
        #expect(rig.transport.readFeatures().isDisjoint(with: [FeatureSet(bit: 0), FeatureSet(bit: 3)]))
        let strict = BalloonDevice(deflatesOnPressure: false, events: rig.events, clock: rig.events.clock)
        #expect(!strict.features.contains(BalloonRig.deflate))
    }

    // MARK: Hostility

    @Test(arguments: 0..<5) func aBrokenQueueNeedsAReset(queue: Int) throws {
        let rig = try BalloonRig()
        #expect(rig.driver.start([BalloonRig.statistics, BalloonRig.reporting]))
        try rig.driver.queues[queue].add([(GuestAddress(1 << 40), 16)], [])
        rig.driver.transport.notify(queue: UInt16(queue))
        rig.events.run()
        #expect(rig.transport.readStatus().contains(.needsReset))
        #expect(rig.driver.start([]))
        try rig.inflate([8192])
        #expect(try rig.driver.queues[0].completions().count == 1)
    }

    @Test(arguments: 0..<8) func hostileDrivers(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed) &+ 123)
        let rig = try BalloonRig(interval: 20_000_000)
        for _ in 0..<10 {
            let ring = ringKinds[random.below(ringKinds.count)]
            let features = FeatureSet(rawValue: UInt64(random.below(64)) & 0x36)
            #expect(rig.driver.start(ring.union(features), size: 8))
            for _ in 0..<120 {
                let queue = rig.driver.queues[random.below(5)]
                switch random.below(8) {
                case 0:
                    let pages = (0..<random.below(60)).map { _ in UInt32(12288 + random.below(8192)) }
                    try queue.add(readable: [rig.list(pages)])
                case 1: try queue.add(readable: [(0..<random.below(99)).map { _ in UInt8(truncatingIfNeeded: random.next()) }])
                case 2:
                    // Anywhere, its own rings too.
                    try queue.add([], (0...random.below(4)).map { _ in
                        (GuestAddress(UInt64(random.below(60 << 20))), random.below(4 << 20))
                    })
                case 3: try queue.add(readable: [[1]], writable: [random.below(5000)])
                case 4 where random.oneIn(6):
                    let layout = queue.layout
                    let base = [layout.descriptors, layout.driverArea, layout.deviceArea][random.below(3)]
                    try rig.memory.store(random.next(), at: GuestAddress(base.rawValue + UInt64(random.below(12)) * 4))
                case 5: rig.device.setTarget(bytes: random.next())
                case 6: rig.device.requestStatistics()
                default:
                    rig.transport.writeConfiguration(
                        offset: UInt64(random.below(20)), width: random.oneIn(2) ? .long : .quad, value: random.next())
                }
                rig.driver.transport.notify(queue: UInt16(random.below(7)))
                rig.events.clock.advance(by: UInt64(random.below(10_000_000)))
                #expect(rig.events.run(limit: 500) < 500)
            }
        }
        let fresh = MockDriver(rig.transport, memory: rig.memory, buffers: GuestAddress(48 << 20))
        #expect(fresh.start([]))
        try fresh.queues[0].add(readable: [rig.list([8192])])
        try fresh.queues[0].kick()
        rig.events.run()
        #expect(try fresh.queues[0].completions().count == 1)
    }
}
