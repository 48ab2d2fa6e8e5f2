import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// Reception stops where there are no buffers, and must always go on: a flood has frozen other monitors for good.
@Suite(.behindEachTransport) struct NetworkReceiveStallTests {
    @Test(arguments: ringKinds) func withoutBuffersFramesWait(ring: FeatureSet) throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start(ring, size: 8)
        link.bring([.frame(1), .frame(2)])
        rig.events.run()
        #expect(link.incoming.count == 2)
        #expect(!link.awaited.contains(.readable), "or the loop would call for ever")
        #expect(!rig.events.hasWork)
        try rig.give(1)
        #expect(try rig.frames().map(\.payload) == [.frame(1)])
        try rig.give(3)
        #expect(try rig.frames().map(\.payload) == [.frame(2)])
        #expect(link.awaited == .readable)
        #expect(rig.count("receivesWaiting") == 2)
    }

    /// The last look of a turn finds no buffers: the driver is asked to tell of more all the same. HG-28.
    @Test(arguments: ringKinds) func buffersRunOutAtTheTurnsEnd(ring: FeatureSet) throws {
        for given in NetworkLane.fairFrames - 4...NetworkLane.fairFrames + 2 {
            let link = FakeLink()
            let rig = try NetworkRig([link])
            rig.driver.start(ring, size: 256)
            link.bring([.frame(0)])
            rig.events.run()
            // The device has asked for buffers, has got one, and needs not be told of the next ones.
            try rig.give(1)
            for _ in 0..<given { try rig.receive.add(writable: [256]) }
            link.bring((1...given + 3).map { .frame($0) })
            rig.events.run()
            #expect(try rig.frames().count == 1 + given)
            try rig.give(8)
            #expect(try rig.frames().map(\.payload) == (given + 1...given + 3).map { .frame($0) }, "\(given) buffers")
        }
    }

    /// A receive queue that is broken takes nothing: the link is not waited for, which would report its frames over and over.
    @Test(arguments: ringKinds) func aBrokenQueueIsNotWaitedFor(ring: FeatureSet) throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start(ring, size: 8)
        try rig.receive.add(readable: [[1, 2, 3]])
        rig.driver.transport.notify(queue: 0)
        link.bring([.frame(1)])
        rig.events.run()
        #expect(rig.driver.transport.readStatus().contains(.needsReset))
        #expect(link.awaited == [])
        // The other direction goes on, and does not wait for it either.
        try rig.send([.frame(2)])
        #expect(link.awaited == [] && link.sent == [.frame(2)])
        rig.driver.start(ring, size: 8)
        rig.events.run()
        try rig.give(1)
        #expect(try rig.frames().map(\.payload) == [.frame(1)])
        #expect(link.awaited == .readable)
    }

    /// Fill, drain and refill, and a notification that means nothing, in every order of five steps: afterwards
    /// all that came in is there.
    @Test(arguments: [[], .eventIndex, .packedRing, [.packedRing, .eventIndex, .netMergeableBuffers]] as [FeatureSet])
    func everyOrderGoesOn(features: FeatureSet) throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        for order in 0..<(1 << 10) {
            rig.driver.start(features, size: 4)
            var (sent, got) = (0, 0)
            for step in 0..<5 {
                switch order >> (2 * step) & 3 {
                case 0: try rig.give(step & 1 + 1, of: 128)
                case 1:
                    link.bring((0..<3).map { .frame(sent + $0) })
                    sent += 3
                case 2: for frame in try rig.frames() { #expect(frame.payload == .frame(got)); got += 1 }
                default:
                    // Buffers of which the device is not told, though it may want to be; then a notification for another queue.
                    _ = try rig.receive.add(writable: [128])
                    rig.driver.transport.notify(queue: 1)
                }
                rig.events.run()
            }
            for _ in 0..<6 {
                for frame in try rig.frames() { #expect(frame.payload == .frame(got)); got += 1 }
                try rig.give(4, of: 128)
                link.ready(.readable)
                rig.events.run()
            }
            for frame in try rig.frames() { #expect(frame.payload == .frame(got)); got += 1 }
            #expect(got == sent, "order \(order)")
            #expect(link.incoming.isEmpty)
            link.incoming = []
        }
    }

    @Test(arguments: ringKinds) func aFloodIsSurvived(ring: FeatureSet) throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start(ring, size: 64)
        var random = SeededRandom(seed: 28)
        var (sent, got) = (0, 0)
        for _ in 0..<300 {
            let count = Int.random(in: 0..<20, using: &random)
            link.bring((0..<count).map { .frame(sent + $0, count: 64) })
            sent += count
            try rig.give(Int.random(in: 0..<20, using: &random), of: 80)
            if Bool.random(using: &random) { rig.driver.transport.notify(queue: UInt16.random(in: 0..<2, using: &random)) }
            for frame in try rig.frames() { #expect(frame.payload == .frame(got, count: 64)); got += 1 }
        }
        while got < sent {
            try rig.give(64, of: 80)
            let frames = try rig.frames()
            guard !frames.isEmpty else { break }
            got += frames.count
        }
        #expect(got == sent)
    }

    /// Where a driver gives fewer buffers than a frame needs and waits for them to be used, the frame must not stay.
    @Test(arguments: ringKinds) func aFrameForWhichThereAreTooFewBuffersGivesUp(ring: FeatureSet) throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start(ring.union(.netMergeableBuffers), size: 16)
        try rig.give(3, of: 1000)
        link.bring([.frame(1, count: 5000), .frame(2, count: 100)])
        rig.events.run()
        #expect(try rig.frames().isEmpty, "there may be more buffers soon")
        #expect(!link.awaited.contains(.readable) && !rig.events.hasWork)
        rig.clock.advance(by: NetworkLane.patience)
        rig.events.run()
        #expect(try rig.frames().map(\.payload) == [.frame(2, count: 100)])
        #expect(rig.count("receivesNoRoom") == 1)

        // With more buffers in time it is delivered.
        link.bring([.frame(3, count: 5000)])
        rig.events.run()
        rig.clock.advance(by: NetworkLane.patience / 2)
        try rig.give(4, of: 1000)
        #expect(try rig.frames().map(\.payload) == [.frame(3, count: 5000)])
        #expect(rig.count("receivesNoRoom") == 1)
    }

    @Test func withoutAnyBuffersNothingIsGivenUp() throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start([.netMergeableBuffers])
        link.bring([.frame(1, count: 5000)])
        rig.clock.advance(by: 10 * NetworkLane.patience)
        rig.events.run()
        try rig.give(10, of: 1000)
        #expect(try rig.frames().count == 1)
    }

    /// Buffers of a few bytes each must not make the device hold without bound.
    @Test(arguments: ringKinds) func tinyBuffersAreHeldUpToABound(ring: FeatureSet) throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start(ring.union(.netMergeableBuffers))
        try rig.give(200, of: 12)
        link.bring([.frame(1, count: 9000), .frame(2, count: 60)])
        rig.events.run()
        #expect(rig.count("receivesNoRoom") == 1)
        #expect(try rig.frames().map(\.payload) == [.frame(2, count: 60)])
        #expect(rig.receive.outstanding == 200 - 6)
    }

    /// A driver that changes its rings at random while frames come and go: nothing traps, and a reset mends all.
    @Test(arguments: ringKinds) func ringsThatChangeAtRandom(ring: FeatureSet) throws {
        var random = SeededRandom(seed: 1)
        let link = FakeLink()
        let rig = try NetworkRig([link])
        for _ in 0..<60 {
            rig.driver.start(ring.union(.netMergeableBuffers), size: 16)
            link.incoming = []
            try rig.give(8, of: 200)
            for _ in 0..<4 { _ = try rig.transmit.add(readable: [.zeros(12) + .frame(1)]) }
            for _ in 0..<6 {
                let layout = rig.driver.queues[Int.random(in: 0..<2, using: &random)].layout
                let areas: [(GuestAddress, UInt64)] = [
                    (layout.descriptors, 256), (layout.driverArea, 40), (layout.deviceArea, 136),
                ]
                let (base, count) = areas.randomElement(using: &random) ?? areas[0]
                let place = GuestAddress(base.rawValue + UInt64.random(in: 0..<count, using: &random))
                try rig.memory.store(UInt8.random(in: 0...255, using: &random), at: place)
                link.bring([.frame(1, count: Int.random(in: 14..<3000, using: &random))])
                rig.driver.transport.notify(queue: UInt16.random(in: 0..<2, using: &random))
                #expect(rig.events.run(limit: 1000) < 1000)
            }
        }
        link.incoming = []
        link.sent = []
        rig.driver.start(ring, size: 16)
        try rig.send([.frame(5)])
        #expect(link.sent == [.frame(5)])
    }
}
