import Testing
import VMCore
import MonitorTesting

@testable import Virtio

@Suite(.behindEachTransport) struct NetworkReceiveTests {
    @Test(arguments: ringKinds, [false, true]) func framesComeIn(ring: FeatureSet, isMergeable: Bool) throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start(isMergeable ? ring.union(.netMergeableBuffers) : ring, size: 32)
        try rig.give(32)
        for round in 0..<20 {
            let frames = (0..<10).map { [UInt8].frame(round * 10 + $0, count: 60 + $0 * 100) }
            link.bring(frames)
            rig.events.run()
            let got = try rig.frames()
            #expect(got.map(\.payload) == frames)
            #expect(got.allSatisfy { $0.header == .zeros(10) + [1, 0] })
            #expect(rig.driver.transport.takeInterrupts().used)
            try rig.give(10)
        }
        #expect(rig.count("framesReceived") == 200)
        #expect(rig.count("bytesReceived") == 200 * 510)
    }

    @Test(arguments: ringKinds) func buffersMayBeInPieces(ring: FeatureSet) throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start(ring, size: 16)
        for pieces in [[12, 2000], [1, 11, 500, 500, 500], [13, 1, 1, 1999], [2012]] {
            _ = try rig.receive.add(writable: pieces)
            try rig.receive.kick()
            link.bring([.frame(7, count: 1500)])
            rig.events.run()
            #expect(try rig.frames().map(\.payload) == [.frame(7, count: 1500)])
        }
    }

    /// Source: [VIRTIO1.2 §5.1.6.4.1].
    @Test(arguments: ringKinds) func aLongFrameIsSpreadOverBuffers(ring: FeatureSet) throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start(ring.union(.netMergeableBuffers), size: 128)
        try rig.give(100, of: 1536)
        let frames: [[UInt8]] = [.frame(1, count: 1524), .frame(2, count: 1525), .frame(3, count: 65_550), .frame(4, count: 60)]
        link.bring(frames)
        rig.events.run()
        var sizes: [[Int]] = []
        var rest = 0
        for completion in try rig.receive.completions() {
            if rest == 0 {
                rest = Int(completion.bytes[10]) | Int(completion.bytes[11]) << 8
                sizes.append([])
            }
            sizes[sizes.count - 1].append(Int(completion.written))
            rest -= 1
        }
        #expect(rest == 0)
        #expect(sizes.map(\.count) == [1, 2, 43, 1])
        for list in sizes { #expect(list.dropLast().allSatisfy { $0 == 1536 }, "each but the last is full") }
        #expect(sizes.map { $0.reduce(0, +) - 12 } == frames.map(\.count))
    }

    @Test func aLongFrameIsWhole() throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start([.netMergeableBuffers])
        for size in [1100, 1536, 4096, 30_000] {
            try rig.give(60, of: size)
            link.bring([.frame(size, count: 65_550)])
            rig.events.run()
            #expect(try rig.frames().map(\.payload) == [.frame(size, count: 65_550)])
            // The buffers of this size that are left go to others.
            while rig.receive.outstanding > 0 {
                link.bring([.frame(1)])
                rig.events.run()
                #expect(try rig.frames().count == 1)
            }
        }
    }

    @Test func withoutMergingWhatDoesNotFitIsDropped() throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start([])
        try rig.give(4, of: 1526)
        link.bring([.frame(1, count: 1515), .frame(2, count: 1514), .frame(3, count: 9000), .frame(4)])
        rig.events.run()
        #expect(try rig.frames().map(\.payload) == [.frame(2, count: 1514), .frame(4)])
        #expect(rig.count("receivesNoRoom") == 2)
        #expect(link.incoming.isEmpty)
    }

    @Test func framesThatAreNoneAreDropped() throws {
        for carriesHeader in [false, true] {
            let link = FakeLink(carriesHeader: carriesHeader)
            let rig = try NetworkRig([link])
            rig.driver.start([.netMergeableBuffers])
            try rig.give(100)
            let header: [UInt8] = carriesHeader ? .zeros(12) : []
            link.bring([[], [1], header + .zeros(13), header + .zeros(65_551), header + .frame(1)])
            rig.events.run()
            #expect(try rig.frames().map(\.payload) == [.frame(1)])
            #expect(rig.count("receivesMalformed") == 4)
        }
    }

    /// Source: [VIRTIO1.2 §5.1.4.1].
    @Test func anMTUThatWasAgreedOnIsKept() throws {
        for isAgreed in [true, false] {
            let link = FakeLink()
            let rig = try NetworkRig([link], mtu: 1400)
            rig.driver.start(isAgreed ? [.netMergeableBuffers, .netMTU] : [.netMergeableBuffers])
            #expect(rig.driver.transport.readConfiguration(offset: 10, width: .word) == 1400)
            try rig.give(100)
            var tagged = [UInt8].frame(3, count: 1418)
            tagged[12...13] = [0x81, 0]
            link.bring([.frame(1, count: 1414), .frame(2, count: 1415), tagged])
            rig.events.run()
            #expect(try rig.frames().count == (isAgreed ? 2 : 3))
            #expect(rig.count("receivesMalformed") == (isAgreed ? 1 : 0))
        }
    }

    @Test func headersShowOnlyWhatWasAgreedOn() throws {
        let segment: [UInt8] = [0x85, 0x81, 54, 0, 0xDC, 5, 34, 0, 16, 0, 0x77, 0x77]
        let cases: [(FeatureSet, NetworkOffloads, [UInt8])] = [
            ([], [], [0, 0, 54, 0, 0, 0, 34, 0, 16, 0, 1, 0]),
            ([.netGuestChecksum], [.checksum], [1, 0, 54, 0, 0, 0, 34, 0, 16, 0, 1, 0]),
            // Segments without checksums are not to be had. Source: [VIRTIO1.2 §5.1.3.1].
            ([.netGuestTSO4], [], [0, 0, 54, 0, 0, 0, 34, 0, 16, 0, 1, 0]),
            ([.netGuestChecksum, .netGuestTSO6], [.checksum, .segmentation6], [1, 0, 54, 0, 0, 0, 34, 0, 16, 0, 1, 0]),
            ([.netGuestChecksum, .netGuestTSO4], [.checksum, .segmentation4], [1, 1, 54, 0, 0xDC, 5, 34, 0, 16, 0, 1, 0]),
        ]
        for (features, offloads, header) in cases {
            let link = FakeLink(carriesHeader: true)
            let rig = try NetworkRig([link])
            rig.driver.start(features)
            #expect(link.offloads == offloads)
            try rig.give(2)
            link.bring([segment + .frame(1)])
            rig.events.run()
            let got = try rig.frames()
            #expect(got.map(\.header) == [header] && got.map(\.payload) == [.frame(1)])
            rig.driver.transport.writeStatus([])
            #expect(link.offloads == [])
        }
    }

    @Test func whatComesInKeepsToItsLimit() throws {
        let link = FakeLink()
        let rig = try NetworkRig([link], receiveLimits: RateLimits(operations: Rate(perSecond: 100, burst: 5)))
        rig.driver.start([.eventIndex])
        try rig.give(100)
        link.bring((0..<30).map { .frame($0) })
        rig.events.run()
        #expect(try rig.frames().count == 5)
        #expect(link.awaited.isEmpty, "a link that is not looked at is not waited for")
        // The other direction has no limit.
        try rig.send((0..<30).map { .frame($0) })
        #expect(link.sent.count == 30)
        rig.pass(milliseconds: 100)
        #expect(try rig.frames().count == 10)
        rig.pass(milliseconds: 200)
        #expect(link.incoming.isEmpty)
        #expect(link.awaited == .readable)
    }

    @Test func othersHaveTheirTurn() throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start([])
        try rig.give(250)
        link.bring((0..<250).map { .frame($0) })
        #expect(link.incoming.count >= 250 - NetworkLane.fairFrames)
        #expect(rig.events.hasWork)
        rig.events.run()
        #expect(try rig.frames().map(\.payload) == (0..<250).map { .frame($0) })
    }

    @Test func aLinkThatEndsIsNotWaitedForAnyMore() throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start([.netStatus])
        try rig.give(10)
        link.isUp = false
        link.ready([.readable, .hangup])
        rig.events.run()
        #expect(link.awaited.isEmpty)
        #expect(rig.driver.transport.readConfiguration(offset: 6, width: .word) == 0)
        #expect(rig.driver.transport.takeInterrupts().configuration)
    }

    /// Source: [VIRTIO1.2 §5.1.6.3.1].
    @Test func buffersThatAreNoneAskForAReset() throws {
        for isMergeable in [false, true] {
            for (readable, writable) in [([1, 1], [100]), ([], [11]), ([20], [])] as [([UInt8], [Int])] {
                let link = FakeLink()
                let rig = try NetworkRig([link])
                rig.driver.start(isMergeable ? [.netMergeableBuffers] : [])
                _ = try rig.receive.add(readable: readable.isEmpty ? [] : [readable], writable: writable)
                try rig.receive.kick()
                link.bring([.frame(1)])
                rig.events.run()
                #expect(rig.driver.transport.readStatus().contains(.needsReset))
            }
        }
    }

    @Test func theResetForgetsBuffersThatAreHeld() throws {
        let link = FakeLink()
        let rig = try NetworkRig([link])
        rig.driver.start([.netMergeableBuffers])
        link.incoming = [.frame(1, count: 5000)]
        try rig.give(2, of: 1536)
        #expect(try rig.frames().isEmpty)
        rig.driver.transport.writeStatus([])
        link.ready(.readable)
        rig.clock.advance(by: 1_000_000_000)
        rig.events.run()
        rig.driver.start([.netMergeableBuffers])
        try rig.give(4, of: 1536)
        #expect(try rig.frames().map(\.payload) == [.frame(1, count: 5000)])
    }
}
