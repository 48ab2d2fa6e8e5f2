import Testing
import VMCore
import MonitorTesting

@testable import Virtio

@Suite(.behindEachTransport) struct NetworkControlTests {
    private static let multiqueue: FeatureSet = [.netControlQueue, .netMultiqueue]

    /// - Returns: the device's answer, or nil where there is none.
    private func command(_ rig: NetworkRig, _ bytes: [UInt8], queue: Int, room: Int = 1) throws -> UInt8? {
        let control = rig.driver.queues[queue]
        // A command's parts are descriptors of their own, as drivers have it.
        let parts = bytes.count > 2 ? [Array(bytes[..<2]), Array(bytes[2...])] : [bytes]
        _ = try control.add(readable: parts, writable: [room])
        try control.kick()
        rig.events.run()
        return try control.completions().first.flatMap { $0.written == 1 ? $0.bytes[0] : nil }
    }

    @Test(arguments: ringKinds) func pairsComeAndGo(ring: FeatureSet) throws {
        let links = (0..<3).map { _ in FakeLink() }
        let rig = try NetworkRig(links)
        #expect(rig.device.queueSizes == [256, 256, 256, 256, 256, 256, 64])
        #expect(rig.driver.transport.readConfiguration(offset: 8, width: .word) == 3)
        rig.driver.start(ring.union(Self.multiqueue), size: 16)
        // One pair is in use until the driver says otherwise. Source: [VIRTIO1.2 §5.1.5].
        for queue in [0, 2, 4] {
            for _ in 0..<8 { _ = try rig.driver.queues[queue].add(writable: [200]) }
        }
        links[1].bring([.frame(1)])
        rig.events.run()
        #expect(try rig.driver.queues[2].completions().isEmpty)

        for pairs in [3, 2, 1, 3] {
            let active = (0..<3).map { $0 < pairs }
            #expect(try command(rig, [4, 0, UInt8(pairs), 0], queue: 6) == 0)
            #expect(links.map(\.isActive) == active)
            #expect(links.map { $0.awaited.contains(.readable) } == active)
        }
        #expect(try rig.driver.queues[2].completions().map(\.written) == [112])
        for (number, link) in links.enumerated() {
            _ = try rig.driver.queues[number * 2 + 1].add(readable: [.zeros(12) + .frame(number)])
            rig.driver.transport.notify(queue: UInt16(number * 2 + 1))
            rig.events.run()
            #expect(link.sent == [.frame(number)])
        }
    }

    @Test func framesOfAPairThatIsNotInUseAreDropped() throws {
        let links = (0..<2).map { _ in FakeLink() }
        let rig = try NetworkRig(links, transmitLimits: RateLimits(operations: Rate(perSecond: 1)))
        rig.driver.start(Self.multiqueue)
        for _ in 0..<3 { _ = try rig.driver.queues[3].add(readable: [.zeros(12) + .frame(1)]) }
        rig.driver.transport.notify(queue: 3)
        rig.events.run()
        #expect(links[1].sent.isEmpty)
        #expect(try rig.driver.queues[3].completions().count == 3)
        #expect(rig.count("sendsLinkDown") == 3)
    }

    @Test(arguments: [
        [4, 0, 0, 0], [4, 0, 3, 0], [4, 0, 0, 0x80], [4, 0, 2], [4, 0], [4], [4, 1, 1, 0], [0, 0, 1], [1, 1, 2, 0, 0, 0, 0, 1],
        [2, 0, 1, 0], [3, 0], [5, 0, 0, 0, 0, 0, 0, 0, 0, 0], [255, 255],
    ] as [[UInt8]])
    func unknownCommandsAreAnsweredWithAnError(bytes: [UInt8]) throws {
        let links = (0..<2).map { _ in FakeLink() }
        let rig = try NetworkRig(links)
        rig.driver.start(Self.multiqueue)
        #expect(try command(rig, bytes, queue: 4) == 1)
        #expect(!rig.driver.transport.readStatus().contains(.needsReset))
        #expect(try command(rig, [4, 0, 2, 0], queue: 4) == 0)
    }

    @Test func aCommandWithoutRoomForItsAnswerAsksForAReset() throws {
        let rig = try NetworkRig([FakeLink(), FakeLink()])
        rig.driver.start(Self.multiqueue)
        _ = try rig.driver.queues[4].add(readable: [[4, 0, 2, 0]])
        try rig.driver.queues[4].kick()
        rig.events.run()
        #expect(rig.driver.transport.readStatus().contains(.needsReset))
    }

    /// Without several pairs, the control queue is the third one. Source: [VIRTIO1.2 §5.1.2].
    @Test func theControlQueueIsFoundWithoutSeveralPairs() throws {
        let links = (0..<2).map { _ in FakeLink() }
        let rig = try NetworkRig(links)
        rig.driver.start([.netControlQueue], queueCount: 3)
        #expect(try command(rig, [4, 0, 1, 0], queue: 2) == 1)
        #expect(links[1].sent.isEmpty && !links[1].awaited.contains(.readable))
    }

    @Test func queuesThatAreNotSetUpAreLeftAlone() throws {
        let links = (0..<2).map { _ in FakeLink() }
        let rig = try NetworkRig(links)
        rig.driver.start(Self.multiqueue, queueCount: 2)
        // The driver has set up one pair and no control queue: there is none to ask.
        rig.driver.transport.notify(queue: 4)
        rig.driver.transport.notify(queue: 3)
        rig.events.run()
        #expect(!rig.driver.transport.readStatus().contains(.needsReset))
        try rig.send([.frame(1)])
        #expect(links[0].sent == [.frame(1)])
    }

    @Test func manyCommandsTakeTurns() throws {
        let rig = try NetworkRig([FakeLink(), FakeLink()])
        rig.driver.start(Self.multiqueue)
        for _ in 0..<30 { _ = try rig.driver.queues[4].add([(GuestAddress(0x1000), 4)], [(GuestAddress(0x2000), 1)]) }
        rig.driver.transport.notify(queue: 4)
        rig.events.turn()
        #expect(rig.events.hasWork)
        #expect(try rig.driver.queues[4].completions().count <= 16)
    }
}

@Suite(.behindEachTransport) struct NetworkConfigurationTests {
    private static let offloads: FeatureSet = [
        .netChecksum, .netGuestChecksum, .netHostTSO4, .netHostTSO6, .netGuestTSO4, .netGuestTSO6,
    ]

    @Test func whatIsOffered() throws {
        let plain = try NetworkRig([FakeLink()]).driver.transport.readFeatures()
        #expect(plain.isSuperset(of: [.netMAC, .netStatus, .netMergeableBuffers]))
        #expect(plain.isDisjoint(with: Self.offloads.union([.netControlQueue, .netMultiqueue, .netMTU])))
        let full = try NetworkRig([FakeLink(carriesHeader: true), FakeLink(carriesHeader: true)], mtu: 9000)
            .driver.transport.readFeatures()
        #expect(full.isSuperset(of: Self.offloads.union([.netControlQueue, .netMultiqueue, .netMTU])))
        // UFO, ECN, filters, VLANs, announcements, RSS: bits 9, 10, 13, 14, 18-21, 57, 60.
        for bit in [2, 9, 10, 13, 14, 18, 19, 20, 21, 23, 57, 60, 63] as [UInt64] {
            #expect(!full.contains(FeatureSet(bit: bit)))
        }
    }

    @Test func theConfigurationIsReadOnly() throws {
        let rig = try NetworkRig([FakeLink()], mtu: 1500)
        let transport = rig.driver.transport
        for offset in 0..<12 as Range<UInt64> { transport.writeConfiguration(offset: offset, width: .quad, value: .max) }
        let bytes = (0..<16 as Range<UInt64>).map { transport.readConfiguration(offset: $0, width: .byte) }
        #expect(bytes == [2, 0, 0, 1, 2, 3, 1, 0, 1, 0, 0xDC, 5, 0, 0, 0, 0])
        #expect(transport.readConfiguration(offset: .max, width: .quad) == 0)
    }

    @Test func anMTUIsNeverTooSmall() throws {
        #expect(try NetworkRig([FakeLink()], mtu: 3).driver.transport.readConfiguration(offset: 10, width: .word) == 68)
    }

    @Test func addresses() {
        #expect(MACAddress("02:00:aB:1f:00:ff")?.description == "02:00:ab:1f:00:ff")
        let others = [
            "", "02", "02:00:00:00:00", "02:00:00:00:00:00:00", "2:0:0:0:0:1", "02-00-00-00-00-01", "03:00:00:00:00:01",
            "ff:ff:ff:ff:ff:ff", "02:00:00:00:00:0g", "02:00:00:00:00:+1", "02:00:00::00:01",
        ]
        for text in others { #expect(MACAddress(text) == nil, "\(text)") }
        let addresses = Set((0..<100).map { _ in MACAddress.random() })
        #expect(addresses.count == 100)
        #expect(addresses.allSatisfy { $0.bytes[0] == 2 })
    }

    /// Buffers that make one frame appear together: a driver that polls never sees a part. Source: [VIRTIO1.2 §5.1.6.4.1].
    @Test(arguments: [FeatureSet(), .packedRing]) func stagedBuffersAppearTogether(ring: FeatureSet) throws {
        let rig = try NetworkRig([FakeLink()])
        rig.driver.start(ring, size: 8)
        // The device has stopped; the queue is used by hand.
        let layout = rig.receive.layout
        rig.driver.transport.registers.reset()
        let queue = try Virtqueue(layout, features: ring.union(.version1), memory: rig.memory)
        let chains = (0..<3).map { _ in DescriptorChain() }
        for _ in 0..<20 {
            for chain in chains {
                _ = try rig.receive.add(writable: [100])
                #expect(queue.next(chain) == .request)
            }
            for chain in chains {
                queue.stage(chain, written: 50)
                #expect(try rig.receive.completions().isEmpty)
            }
            queue.publish()
            #expect(try rig.receive.completions().map(\.written) == [50, 50, 50])
        }
    }

    @Test func nothingKeepsADeviceAlive() throws {
        weak var device: NetworkDevice?
        weak var link: FakeLink?
        do {
            let made = FakeLink()
            let rig = try NetworkRig([made])
            rig.driver.start([])
            (device, link) = (rig.device, made)
            #expect(device != nil)
        }
        #expect(device == nil && link == nil)
    }
}
