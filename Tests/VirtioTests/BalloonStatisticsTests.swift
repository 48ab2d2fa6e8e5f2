import Testing
import VMCore
import MonitorTesting

@testable import Virtio

@Suite(.behindEachTransport) struct BalloonStatisticsTests {
    private let mebibyte: UInt64 = 1 << 20

    private func entries(_ values: [(UInt16, UInt64)]) -> [UInt8] {
        values.flatMap { tag, value in
            [UInt8(truncatingIfNeeded: tag), UInt8(tag >> 8)] + (0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
        }
    }

    /// Source: [VIRTIO1.2 §5.5.6.3.2].
    @Test(arguments: ringKinds) func statisticsAreAskedForAtIntervals(ring: FeatureSet) throws {
        let rig = try BalloonRig(interval: 1_000_000_000)
        #expect(rig.driver.start(ring.union(BalloonRig.statistics)))
        #expect(rig.device.guestStatistics == nil)
        for round in 1...4 as ClosedRange<UInt64> {
            // Any order, and tags that nobody knows.
            try rig.driver.queues[2].add(readable: [entries([(9, 90), (0xFFFF, 1), (4, 100 * round), (0, 7), (10, 3)])])
            try rig.driver.queues[2].kick()
            rig.events.run()
            let statistics = try #require(rig.device.guestStatistics)
            #expect(statistics.free == 100 * round)
            #expect(statistics.swappedIn == 7)
            #expect(statistics.hugePageFailures == 90)
            #expect(statistics.total == nil)
            #expect(statistics.updates == round)
            _ = rig.transport.takeInterrupts()
            // The buffer stays until the time is up.
            rig.events.clock.advance(by: 999_999_999)
            rig.events.run()
            #expect(try rig.driver.queues[2].completions().isEmpty)
            rig.events.clock.advance(by: 1)
            rig.events.run()
            #expect(try rig.driver.queues[2].completions().map(\.written) == [0])
            #expect(rig.transport.takeInterrupts().used)
        }
        rig.transport.writeStatus([])
        #expect(rig.events.clock.nextDeadline == nil)
        #expect(rig.device.guestStatistics == nil)
    }

    @Test func statisticsOnRequest() throws {
        let rig = try BalloonRig()
        rig.device.requestStatistics()
        #expect(rig.driver.start([BalloonRig.statistics]))
        #expect(rig.events.clock.nextDeadline == nil)
        // Asked for before there were any: the first ones answer.
        try rig.driver.queues[2].add(readable: [entries((0..<10).map { ($0, UInt64($0) + 1) })])
        try rig.driver.queues[2].kick()
        rig.events.run()
        rig.driver.transport.notify(queue: 2)
        rig.events.run()
        #expect(try rig.driver.queues[2].completions().isEmpty)
        var expected = BalloonStatistics()
        (expected.swappedIn, expected.swappedOut, expected.majorFaults, expected.minorFaults) = (1, 2, 3, 4)
        (expected.free, expected.total, expected.available, expected.caches) = (5, 6, 7, 8)
        (expected.hugePageAllocations, expected.hugePageFailures, expected.updates) = (9, 10, 1)
        #expect(rig.device.guestStatistics == expected)
        rig.device.requestStatistics()
        rig.events.run()
        #expect(try rig.driver.queues[2].completions().count == 1)
    }

    /// List item 31: statistics of a length that no statistics have, and more buffers than one.
    @Test func statisticsOfAHostileDriver() throws {
        let rig = try BalloonRig(mebibytes: 256)
        #expect(rig.driver.start([BalloonRig.statistics]))
        let buffer = (address: GuestAddress(128 * mebibyte), count: 64 << 20)
        try rig.driver.queues[2].add([buffer, buffer], [])
        for count in [0, 1, 9, 11, 640, 650] { try rig.driver.queues[2].add(readable: [[UInt8](repeating: 0, count: count)]) }
        rig.driver.transport.notify(queue: 2)
        #expect(rig.events.run() == 1)
        #expect(rig.device.guestStatistics?.updates == 1)
        for expected in 2...7 as ClosedRange<UInt64> {
            rig.device.requestStatistics()
            rig.events.run()
            #expect(rig.device.guestStatistics?.updates == expected)
        }
        #expect(rig.device.guestStatistics?.swappedIn == 0)
        #expect(!rig.transport.readStatus().contains(.needsReset))
    }

    @Test func anIntervalOfNothingIsNotABusyLoop() throws {
        let rig = try BalloonRig(interval: 0)
        #expect(rig.driver.start([BalloonRig.statistics]))
        #expect(rig.events.clock.nextDeadline == BalloonDevice.shortestInterval)
        rig.events.clock.advance(by: 1_000_000_000)
        #expect(rig.events.run() < 10)
    }
}
