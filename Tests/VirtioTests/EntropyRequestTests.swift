import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// Requests of every shape, and what a hostile driver makes of them.
@Suite(.behindEachTransport) struct EntropyRequestTests {
    private struct Rig {
        let memory: GuestMemory
        let events = ManualEvents()
        let device: EntropyDevice
        let transport: any DriverTransport
        let driver: MockDriver

        init() throws {
            memory = try GuestMemory(size: 64 << 20)
            device = EntropyDevice(events: events)
            transport = try TransportKind.current.driver(device: device, memory: memory)
            driver = MockDriver(transport, memory: memory)
        }
    }

    /// Source: [VIRTIO1.2 §5.4.6.2]: one or more bytes, wherever there is room, and their number is told.
    @Test(arguments: ringKinds) func whereThereIsRoomThereAreBytes(ring: FeatureSet) throws {
        let rig = try Rig()
        #expect(rig.driver.start(ring))
        for count in [1, 2, 15, 4096, 65_535, 65_536] {
            try rig.driver.queues[0].add(writable: [count])
            try rig.driver.queues[0].kick()
            rig.events.run()
            #expect(try rig.driver.queues[0].completions().map(\.written) == [UInt32(count)])
        }
    }

    @Test func bytesDiffer() throws {
        let rig = try Rig()
        #expect(rig.driver.start([]))
        for _ in 0..<32 { try rig.driver.queues[0].add(writable: [32]) }
        try rig.driver.queues[0].kick()
        rig.events.run()
        let answers = try rig.driver.queues[0].completions().map(\.bytes)
        #expect(Set(answers).count == 32)
        // 8192 bits, half of them set, give or take seven standard deviations.
        let bits = answers.joined().reduce(0) { $0 + $1.nonzeroBitCount }
        #expect((3780...4412).contains(bits))
    }

    /// List item 30: the same 64 KiB a thousand times over are 64 MiB to fill for no memory of the guest's own.
    @Test(arguments: [FeatureSet.indirectDescriptors, [.indirectDescriptors, .packedRing]])
    func oneRequestGetsSoMuchAndNoMore(ring: FeatureSet) throws {
        let rig = try Rig()
        #expect(rig.driver.start(ring))
        let buffer = (address: rig.driver.allocate(65_536), count: 65_536)
        try rig.driver.queues[0].add([], Array(repeating: buffer, count: 1000))
        try rig.driver.queues[0].kick()
        rig.events.run()
        #expect(rig.device.statistics.map(\.value) == [1, EntropyDevice.largestAnswer])
        // What is behind stays as it was.
        let wide = (address: GuestAddress(16 << 20), count: 32 << 20)
        try rig.driver.queues[0].add([], [wide])
        try rig.driver.queues[0].kick()
        rig.events.run()
        let behind = GuestAddress(wide.address.rawValue + EntropyDevice.largestAnswer)
        #expect(try rig.memory.read(at: behind, count: 1 << 20).allSatisfy { $0 == 0 })
        #expect(rig.device.statistics.map(\.value) == [2, 2 * EntropyDevice.largestAnswer])
    }

    @Test(arguments: ringKinds) func requestsWithoutRoomComeBack(ring: FeatureSet) throws {
        let rig = try Rig()
        #expect(rig.driver.start(ring))
        try rig.driver.queues[0].add(readable: [[1, 2, 3]])
        try rig.driver.queues[0].add(writable: [0])
        try rig.driver.queues[0].add(readable: [[7]], writable: [8])
        try rig.driver.queues[0].kick()
        rig.events.run()
        let done = try rig.driver.queues[0].completions()
        #expect(done.map(\.written) == [0, 0, 8])
        // What the device may only read it leaves alone.
        #expect(try rig.memory.load(UInt8.self, at: done[2].request.readable[0].address) == 7)
        #expect(!rig.transport.readStatus().contains(.needsReset))
    }

    @Test func aTurnHasItsShare() throws {
        let rig = try Rig()
        #expect(rig.driver.start([]))
        for _ in 0..<64 { try rig.driver.queues[0].add(writable: [1]) }
        rig.driver.transport.notify(queue: 0)
        rig.events.turn()
        #expect(rig.device.statistics[0].value == UInt64(EntropyDevice.fairShare))
        #expect(rig.events.hasWork)
        rig.events.run()
        #expect(try rig.driver.queues[0].completions().count == 64)
    }

    @Test func nothingIsTouchedAfterAReset() throws {
        let rig = try Rig()
        #expect(rig.driver.start([]))
        rig.events.run()
        let buffer = rig.driver.allocate(64)
        try rig.driver.queues[0].add([], [(buffer, 64)])
        rig.driver.transport.notify(queue: 0)
        rig.transport.writeStatus([])
        rig.events.run()
        #expect(try rig.memory.read(at: buffer, count: 64).allSatisfy { $0 == 0 })
        #expect(rig.device.statistics.map(\.value) == [0, 0])
    }

    @Test func theDeviceHasNoConfiguration() throws {
        let rig = try Rig()
        #expect(rig.transport.readDeviceID() == 4)
        #expect(rig.transport.readConfiguration(offset: 0, width: .long) == 0)
        rig.transport.writeConfiguration(offset: 0, width: .quad, value: .max)
        #expect(rig.transport.readConfiguration(offset: 0, width: .quad) == 0)
    }

    @Test(arguments: 0..<8) func hostileDrivers(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed) &+ 31)
        let rig = try Rig()
        for _ in 0..<15 {
            #expect(rig.driver.start(ringKinds[random.below(ringKinds.count)], size: 8))
            let queue = rig.driver.queues[0]
            for _ in 0..<60 {
                switch random.below(4) {
                case 0: try queue.add(readable: [[UInt8](repeating: 1, count: random.below(9))], writable: [random.below(99)])
                case 1: try queue.add([], [(GuestAddress(UInt64(random.below(80 << 20))), random.below(1 << 20))])
                case 2 where random.oneIn(4):
                    let base = [queue.layout.descriptors, queue.layout.driverArea, queue.layout.deviceArea][random.below(3)]
                    try rig.memory.store(random.next(), at: GuestAddress(base.rawValue + UInt64(random.below(12)) * 4))
                default: try queue.add(writable: [random.below(300), random.below(300)])
                }
                rig.driver.transport.notify(queue: UInt16(random.below(3)))
                #expect(rig.events.run(limit: 50) < 50)
            }
        }
        let fresh = MockDriver(rig.transport, memory: rig.memory, buffers: GuestAddress(48 << 20))
        #expect(fresh.start([]))
        try fresh.queues[0].add(writable: [16])
        try fresh.queues[0].kick()
        rig.events.run()
        #expect(try fresh.queues[0].completions().map(\.written) == [16])
    }
}
