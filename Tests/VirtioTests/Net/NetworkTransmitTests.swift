import Testing
import VMCore
import MonitorTesting

@testable import Virtio

@Suite(.behindEachTransport) struct NetworkTransmitTests {
    @Test(arguments: ringKinds) func framesGoOutWithoutTheirHeaders(ring: FeatureSet) throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start(ring, size: 32)
        for round in 0..<20 {
            let frames = (0..<10).map { [UInt8].frame(round * 10 + $0, count: 60 + $0 * 100) }
            try rig.send(frames)
            #expect(link.sent == frames)
            link.sent = []
            let done = try rig.transmit.completions()
            #expect(done.count == 10 && done.allSatisfy { $0.written == 0 })
            #expect(rig.driver.transport.takeInterrupts().used)
        }
        #expect(rig.count("framesSent") == 200)
        #expect(rig.count("bytesSent") == 200 * 510)
    }

    @Test func aLinkWithHeadersGetsThem() throws {
        let link = FakeLink(carriesHeader: true)
        let rig = try NetworkRig([link])
        rig.driver.start([.netChecksum, .netHostTSO4])
        let header: [UInt8] = [1, 1, 54, 0, 0xDC, 5, 34, 0, 16, 0, 0, 0]
        try rig.send([.frame(1, count: 40_000)], header: header)
        #expect(link.sent == [header + .frame(1, count: 40_000)])
    }

    /// A driver may put header and frame into descriptors as it likes. Source: [VIRTIO1.2 §2.6.4].
    @Test(arguments: [[1, 11, 1, 63], [5, 20, 51], [76], [12, 64], [11, 65], [13, 63], [4, 4, 4, 32, 32]])
    func headersAreFoundInAnyDescriptors(cuts: [Int]) throws {
        for carriesHeader in [false, true] {
            let link = FakeLink(carriesHeader: carriesHeader)
            let rig = try NetworkRig([link])
            rig.driver.start([.indirectDescriptors])
            let bytes = [UInt8](repeating: 0xAA, count: 12) + .frame(3, count: 64)
            var parts: [[UInt8]] = []
            var place = 0
            for cut in cuts {
                parts.append(Array(bytes[place..<(place + cut)]))
                place += cut
            }
            _ = try rig.transmit.add(readable: parts)
            try rig.transmit.kick()
            rig.events.run()
            #expect(link.sent == [carriesHeader ? bytes : .frame(3, count: 64)])
        }
    }

    /// Frames shorter than their headers, and longer than any, have ended other monitors.
    @Test(arguments: [1, 11, 12, 13, 25, 65_563, 70_000, 2_000_000]) func malformedFramesAreDropped(count: Int) throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start([])
        _ = try rig.transmit.add(readable: [.zeros(count)])
        try rig.send([.frame(1)])
        #expect(link.sent == [.frame(1)])
        #expect(try rig.transmit.completions().count == 2)
        #expect(rig.count("sendsMalformed") == 1)
        #expect(!rig.driver.transport.readStatus().contains(.needsReset))
    }

    @Test(arguments: [26, 65_562]) func theShortestAndTheLongestGoOut(count: Int) throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start([])
        _ = try rig.transmit.add(readable: [.zeros(count)])
        try rig.transmit.kick()
        rig.events.run()
        #expect(link.sent == [.zeros(count - 12)])
    }

    @Test func aRequestWithoutReadableBuffersIsNoFrame() throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start([])
        _ = try rig.transmit.add(writable: [100])
        try rig.transmit.kick()
        rig.events.run()
        #expect(link.sent.isEmpty && rig.count("sendsMalformed") == 1)
        #expect(try rig.transmit.completions().first?.written == 0)
    }

    @Test(arguments: ringKinds) func aFullLinkIsWaitedFor(ring: FeatureSet) throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start(ring, size: 16)
        link.room = 3
        try rig.send((0..<5).map { .frame($0) })
        #expect(link.sent.count == 3)
        #expect(try rig.transmit.completions().count == 3)
        #expect(link.awaited.contains(.writable))
        // More from the driver makes it no busier, and none goes ahead of the one that waits.
        try rig.send((5..<8).map { .frame($0) })
        rig.driver.transport.notify(queue: 1)
        #expect(rig.events.run(limit: 50) < 5)
        #expect(link.sent.count == 3)
        link.room = 2
        link.ready(.writable)
        rig.events.run()
        #expect(link.sent.count == 5)
        link.room = .max
        link.ready(.writable)
        rig.events.run()
        #expect(link.sent == (0..<8).map { .frame($0) })
        #expect(try rig.transmit.completions().count == 5)
        #expect(!link.awaited.contains(.writable))
        try rig.send([.frame(8)])
        #expect(link.sent.last == .frame(8))
    }

    @Test func whatTheHostRefusesIsCounted() throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start([])
        link.answer = .refused
        try rig.send([.frame(1), .frame(2)])
        link.answer = .down
        try rig.send([.frame(3)])
        #expect(rig.count("sendsRefused") == 2 && rig.count("sendsLinkDown") == 1)
        #expect(try rig.transmit.completions().count == 3)
    }

    @Test func aLinkThatGoesDownIsToldAndEndsNothing() throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start([.netStatus])
        #expect(rig.driver.transport.readConfiguration(offset: 6, width: .word) == 1)
        link.room = 0
        try rig.send([.frame(1), .frame(2)])
        #expect(try rig.transmit.completions().isEmpty)
        let generation = rig.driver.transport.registers.generation
        link.isUp = false
        link.ready([.writable, .hangup])
        rig.events.run()
        #expect(rig.driver.transport.takeInterrupts().configuration)
        #expect(rig.driver.transport.registers.generation != generation)
        #expect(rig.driver.transport.readConfiguration(offset: 6, width: .word) == 0)
        #expect(try rig.transmit.completions().count == 2, "what the link did not take is dropped")
        #expect(link.awaited.isEmpty)
        try rig.send([.frame(3)])
        #expect(try rig.transmit.completions().count == 1)
        #expect(rig.count("sendsLinkDown") == 3 && rig.count("linkFailures") == 1)
        #expect(!rig.driver.transport.takeInterrupts().configuration)
    }

    @Test func othersHaveTheirTurn() throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start([])
        for number in 0..<200 { _ = try rig.transmit.add(readable: [.zeros(12) + .frame(number)]) }
        rig.driver.transport.notify(queue: 1)
        rig.events.turn()
        #expect(link.sent.count <= NetworkLane.fairFrames)
        #expect(rig.events.hasWork)
        rig.events.run()
        #expect(link.sent.count == 200)
    }

    @Test func manyBytesAreATurnToo() throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start([])
        for number in 0..<40 { _ = try rig.transmit.add(readable: [.zeros(12) + .frame(number, count: 60_000)]) }
        rig.driver.transport.notify(queue: 1)
        rig.events.turn()
        #expect(link.sent.count <= NetworkLane.fairBytes / 60_000 + 1)
        rig.events.run()
        #expect(link.sent.count == 40)
    }

    @Test func whatIsSentKeepsToItsLimit() throws {
        let link = FakeLink()
        let rate = Rate(perSecond: 10_000, burst: 1000)
        let rig = try NetworkRig([link], transmitLimits: RateLimits(bytes: rate))
        rig.driver.start([.eventIndex])
        try rig.send((0..<50).map { .frame($0) })
        #expect(link.sent.count == 10)
        #expect(rig.events.run(limit: 50) < 5, "nothing is done over and over")
        // The other direction has no limit.
        try rig.give(40)
        link.bring((0..<30).map { .frame($0) })
        #expect(try rig.frames().count == 30)
        rig.pass(milliseconds: 200)
        #expect(link.sent.count == 30)
        rig.pass(milliseconds: 300)
        #expect(link.sent == (0..<50).map { .frame($0) })
        #expect(try rig.transmit.completions().count == 50)
    }

    @Test func aFrameThatWaitedForTheLinkIsNotPaidTwice() throws {
        let link = FakeLink()
        let rig = try NetworkRig([link], transmitLimits: RateLimits(operations: Rate(perSecond: 1, burst: 2)))
        rig.driver.start([])
        link.room = 0
        try rig.send([.frame(0), .frame(1)])
        link.ready(.writable)
        link.ready(.writable)
        link.room = 2
        link.ready(.writable)
        rig.events.run()
        #expect(link.sent.count == 2)
    }

    @Test func theResetForgetsWhatWaits() throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start([])
        link.room = 0
        try rig.send([.frame(1)])
        rig.driver.transport.writeStatus([])
        #expect(link.awaited.isEmpty)
        link.room = 5
        link.ready([.writable, .readable])
        rig.events.run()
        #expect(link.sent.isEmpty)
        rig.driver.start([.packedRing])
        try rig.send([.frame(2)])
        #expect(link.sent == [.frame(2)])
    }

    @Test func aBrokenQueueAsksForAReset() throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start([])
        _ = try rig.transmit.add([(GuestAddress(0x7FFF_FFFF_FFFF), 100)], [])
        try rig.transmit.kick()
        rig.events.run()
        #expect(rig.driver.transport.readStatus().contains(.needsReset))
        rig.driver.start([])
        try rig.send([.frame(2)])
        #expect(link.sent == [.frame(2)])
    }
}
