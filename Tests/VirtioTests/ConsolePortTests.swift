import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// Several ports, and the control queues.
@Suite(.behindEachTransport) struct ConsolePortTests {
    private typealias Message = ConsoleRig.Message
    private let abc: [UInt8] = Array("abc".utf8)

    @Test(arguments: ringKinds) func portsAreAnnouncedNamedAndOpened(ring: FeatureSet) throws {
        let rig = try ConsoleRig(channels: ["one", "org.example.two"])
        #expect(rig.driver.start(ring.union([ConsoleRig.size, ConsoleRig.multiport])))
        #expect(rig.transport.readConfiguration(offset: 4, width: .long) == 3)
        #expect(rig.driver.queues.count == 8)
        try rig.provideControlBuffers(16)
        #expect(try rig.messages().isEmpty)
        try rig.send(Message(.max, 0, 1))
        #expect(try rig.messages() == [Message(0, 1, 0), Message(1, 1, 0), Message(2, 1, 0)])
        try rig.send(Message(0, 3, 1))
        #expect(try rig.messages() == [Message(0, 4, 1), Message(0, 5, 0, [80, 0, 25, 0]), Message(0, 6, 1)])
        try rig.send(Message(2, 3, 1))
        #expect(try rig.messages() == [Message(2, 7, 1, Array("org.example.two".utf8)), Message(2, 6, 1)])
        #expect(!rig.device.ports[2].isOpenInGuest)
        try rig.send(Message(2, 6, 1))
        #expect(rig.device.port(named: "org.example.two")?.isOpenInGuest == true)
        #expect(rig.device.port(named: "three") == nil)
        rig.device.resize(ConsoleSize(columns: 0x102, rows: 0x304))
        rig.events.run()
        #expect(try rig.messages() == [Message(0, 5, 0, [2, 1, 4, 3])])
        #expect(rig.statistic("messagesIgnored") == 0)
    }

    @Test(arguments: ringKinds) func portsAreStreamsOfTheirOwn(ring: FeatureSet) throws {
        let rig = try ConsoleRig(channels: ["one", "two"])
        try rig.open(ring)
        for port in 0..<3 { try rig.transmit(Array("from \(port)".utf8), port: port) }
        #expect(rig.sink.bytes == Array("from 0".utf8))
        #expect(rig.channelSinks.map(\.bytes) == [Array("from 1".utf8), Array("from 2".utf8)])
        for port in 0..<3 { try rig.receiveQueue(port).add(writable: [16]) }
        for port in 0..<3 { #expect(rig.receive([UInt8(port), 7], port: port) == 2) }
        for port in 0..<3 {
            let done = try rig.receiveQueue(port).completions()
            #expect(done.map { Array($0.bytes[..<Int($0.written)]) } == [[UInt8(port), 7]])
        }
    }

    @Test func oneFullSinkStopsNoOtherPort() throws {
        let rig = try ConsoleRig(capacity: 4, channels: ["one"])
        try rig.open()
        try rig.transmit(Array(0..<9))
        try rig.transmit(abc, port: 1)
        #expect(rig.channelSinks[0].bytes == abc)
        #expect(rig.sink.bytes == [0, 1, 2, 3])
        #expect(rig.sink.drain() + rig.sink.drain() + rig.sink.drain() == [0, 1, 2, 3])
        rig.events.run()
        #expect(rig.sink.drain() == [4, 5, 6, 7])
    }

    @Test func inputWaitsForThePortToBeOpened() throws {
        let rig = try ConsoleRig(channels: ["one"])
        let (room, open) = (Tally(), Tally())
        rig.device.ports[1].setRoomHandler { room.count += 1 }
        rig.device.ports[1].setOpenHandler { open.values.append($0) }
        #expect(rig.driver.start([ConsoleRig.multiport]))
        try rig.provideControlBuffers(16)
        try rig.receiveQueue(1).add(writable: [64])
        try rig.receiveQueue(1).kick()
        rig.events.run()
        #expect(rig.receive(abc, port: 1) == 0)
        try rig.send(Message(.max, 0, 1))
        try rig.send(Message(1, 3, 1))
        #expect(rig.receive(abc, port: 1) == 0)
        rig.events.run()
        #expect(room.count == 0)
        #expect(open.values == [])
        try rig.send(Message(1, 6, 1))
        #expect(room.count == 1)
        #expect(open.values == [true])
        #expect(rig.receive(abc, port: 1) == 3)
        try rig.send(Message(1, 6, 0))
        try rig.receiveQueue(1).add(writable: [64])
        #expect(rig.receive(abc, port: 1) == 0)
        #expect(open.values == [true, false])
        try rig.send(Message(1, 6, 1))
        rig.transport.writeStatus([])
        rig.events.run()
        #expect(open.values == [true, false, true, false])
    }

    @Test func theHostsEndOpensAndCloses() throws {
        let rig = try ConsoleRig(channels: ["one"])
        rig.device.ports[1].setHostOpen(false)
        #expect(rig.driver.start([ConsoleRig.multiport]))
        try rig.provideControlBuffers(16)
        try rig.send(Message(.max, 0, 1))
        try rig.send(Message(1, 3, 1), Message(1, 6, 1))
        #expect(try rig.messages().suffix(2) == [Message(1, 7, 1, Array("one".utf8)), Message(1, 6, 0)])
        // Nobody hears it.
        try rig.transmit(abc, port: 1)
        #expect(try rig.transmitQueue(1).completions().count == 1)
        #expect(rig.channelSinks[0].bytes.isEmpty)
        #expect(rig.statistic("bytesLost") == 3)
        rig.device.ports[1].setHostOpen(true)
        rig.device.ports[1].setHostOpen(true)
        rig.events.run()
        #expect(try rig.messages() == [Message(1, 6, 1)])
        try rig.transmit(abc, port: 1)
        #expect(rig.channelSinks[0].bytes == abc)
        // Its closing lets go what waits for its sink.
        rig.channelSinks[0].pause()
        try rig.transmit(abc, port: 1)
        #expect(try rig.transmitQueue(1).completions().count == 1)
        #expect(rig.transmitQueue(1).outstanding == 1)
        rig.device.ports[1].setHostOpen(false)
        rig.events.run()
        #expect(try rig.transmitQueue(1).completions().count == 1)
    }

    /// The device must not remove what was not added, nor add what is there. Source: [VIRTIO1.2 §5.3.6.2.1].
    @Test func portsComeAndGo() throws {
        let rig = try ConsoleRig(capacity: 2, channels: ["one"])
        let port = rig.device.ports[1]
        port.setPlugged(false)
        #expect(rig.driver.start([ConsoleRig.multiport]))
        try rig.provideControlBuffers(32)
        try rig.send(Message(.max, 0, 1), Message(.max, 0, 1))
        #expect(try rig.messages() == [Message(0, 1, 0)])
        port.setPlugged(true)
        rig.events.run()
        #expect(try rig.messages() == [Message(1, 1, 0)])
        try rig.send(Message(1, 3, 1), Message(1, 6, 1), Message(.max, 0, 1))
        #expect(try rig.messages().count == 2)
        try rig.transmit(abc, port: 1)
        // Its queues are the driver's again: what was being sent comes back, and nothing more is touched.
        port.setPlugged(false)
        #expect(try rig.transmitQueue(1).completions().count == 1)
        rig.events.run()
        #expect(try rig.messages() == [Message(1, 2, 0)])
        try rig.transmit(abc, port: 1)
        try rig.receiveQueue(1).add(writable: [16])
        #expect(rig.receive(abc, port: 1) == 0)
        #expect(try rig.transmitQueue(1).completions().isEmpty)
        #expect(!port.isOpenInGuest)
        // Its old driver's words come too late.
        try rig.send(Message(1, 6, 1), Message(1, 3, 1))
        #expect(!port.isOpenInGuest)
        port.setPlugged(true)
        rig.events.run()
        #expect(try rig.messages() == [Message(1, 1, 0)])
        // Out, in and out again before the driver heard of the first.
        port.setPlugged(false)
        port.setPlugged(true)
        port.setPlugged(false)
        rig.events.run()
        #expect(try rig.messages() == [Message(1, 2, 0)])
        port.setPlugged(true)
        port.setPlugged(false)
        rig.events.run()
        #expect(try rig.messages().isEmpty)
        port.setPlugged(true)
        rig.events.run()
        port.setPlugged(false)
        port.setPlugged(true)
        rig.events.run()
        #expect(try rig.messages() == [Message(1, 1, 0), Message(1, 2, 0), Message(1, 1, 0)])
    }

    /// Messages are kept as state: a thousand changes that nobody reads are one message.
    @Test func messagesWaitForBuffersAndDoNotPileUp() throws {
        let rig = try ConsoleRig(channels: ["one"])
        #expect(rig.driver.start([ConsoleRig.size, ConsoleRig.multiport]))
        try rig.send(Message(.max, 0, 1))
        try rig.provideControlBuffers(2)
        #expect(try rig.messages() == [Message(0, 1, 0), Message(1, 1, 0)])
        try rig.send(Message(0, 3, 1), Message(1, 3, 1))
        for index in 0..<1000 {
            rig.device.resize(ConsoleSize(columns: UInt16(index), rows: 1))
            rig.device.ports[1].setHostOpen(index % 2 == 0)
            try rig.send(Message(0, 3, 1))
        }
        try rig.provideControlBuffers(16)
        #expect(try rig.messages() == [
            Message(0, 4, 1), Message(0, 5, 0, [0xE7, 3, 1, 0]), Message(0, 6, 1),
            Message(1, 7, 1, Array("one".utf8)), Message(1, 6, 0),
        ])
    }

    @Test func buffersThatAreTooSmallComeBackEmpty() throws {
        let rig = try ConsoleRig(channels: ["a name"])
        #expect(rig.driver.start([ConsoleRig.multiport]))
        try rig.send(Message(.max, 0, 1))
        try rig.provideControlBuffers(10, bytes: 7)
        let done = try rig.driver.queues[2].completions()
        #expect(done.count == 10)
        #expect(done.allSatisfy { $0.written == 0 })
        try rig.provideControlBuffers(3, bytes: 8)
        #expect(try rig.messages() == [Message(0, 1, 0), Message(1, 1, 0)])
        try rig.send(Message(1, 3, 1))
        #expect(try rig.driver.queues[2].completions().map(\.written) == [0])
        try rig.provideControlBuffers(2, bytes: 14)
        #expect(try rig.messages() == [Message(1, 7, 1, Array("a name".utf8)), Message(1, 6, 1)])
    }

    @Test func messagesThatMeanNothingAreIgnored() throws {
        let rig = try ConsoleRig(channels: ["one"])
        #expect(rig.driver.start([ConsoleRig.multiport]))
        try rig.provideControlBuffers(16)
        // Before the ports were announced, and then for ports that are not there, with events that are the device's or none.
        try rig.send(Message(0, 3, 1), Message(1, 6, 1), Message(0, 0, 0), Message(0, 0, 2))
        #expect(rig.statistic("messagesIgnored") == 4)
        try rig.send(Message(0, 0, 1))
        #expect(try rig.messages().count == 2)
        var count: UInt64 = 4
        for message in [Message(2, 3, 1), Message(.max, 6, 1), Message(0x8000_0000, 3, 1), Message(1, 6, 2)] {
            try rig.send(message)
            count += 1
            #expect(rig.statistic("messagesIgnored") == count)
        }
        for event: UInt16 in [1, 2, 4, 5, 7, 8, .max] { try rig.send(Message(1, event, 1)) }
        for bytes in 0..<8 { try rig.driver.queues[3].add(readable: [[UInt8](repeating: 0, count: bytes)]) }
        try rig.driver.queues[3].add(writable: [8])
        try rig.driver.queues[3].kick()
        rig.events.run()
        #expect(try rig.driver.queues[3].completions().count == 9)
        #expect(rig.statistic("messagesIgnored") == count + 16)
        #expect(try rig.messages().isEmpty)
        #expect(!rig.device.ports.contains { $0.isOpenInGuest })
        #expect(!rig.transport.readStatus().contains(.needsReset))
        // A port that the driver could not make is not used.
        try rig.send(Message(1, 3, 0))
        try rig.transmit(abc, port: 1)
        #expect(rig.channelSinks[0].bytes.isEmpty)
    }

    /// Source: [VIRTIO1.2 §5.3.2]: without the feature there is port 0.
    @Test func withoutControlMessagesOnlyTheConsoleLives() throws {
        let rig = try ConsoleRig(channels: ["one"])
        #expect(rig.driver.start([]))
        try rig.transmit(abc, port: 1)
        try rig.receiveQueue(1).add(writable: [16])
        try rig.driver.queues[3].add(readable: [Message(0, 0, 1).bytes])
        try rig.driver.queues[2].add(writable: [64])
        for queue: UInt16 in 2..<6 { rig.driver.transport.notify(queue: queue) }
        rig.events.run()
        #expect(rig.receive(abc, port: 1) == 0)
        #expect(rig.channelSinks[0].bytes.isEmpty)
        for queue in 2..<6 { #expect(try rig.driver.queues[queue].completions().isEmpty) }
        #expect(rig.device.console.isOpenInGuest)
        try rig.transmit(abc)
        #expect(rig.sink.bytes == abc)
    }

    /// Random drivers: the rings' own words, messages, buffers, resets and host calls in any order. What holds throughout: the
    /// process lives, turns end, and after a reset the device works.
    @Test(arguments: 0..<8) func hostileDrivers(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed) &+ 77)
        let rig = try ConsoleRig(capacity: 256, channels: ["one", "two", "three"])
        for _ in 0..<12 {
            let ring = ringKinds[random.below(ringKinds.count)]
            #expect(rig.driver.start(ring.union([ConsoleRig.size, ConsoleRig.multiport]), size: 8))
            for _ in 0..<150 {
                let queue = rig.driver.queues[random.below(rig.driver.queues.count)]
                switch random.below(11) {
                case 0: try queue.add(readable: [(0..<random.below(40)).map { _ in UInt8(truncatingIfNeeded: random.next()) }])
                case 1: try queue.add(writable: [random.below(40)])
                case 2: try queue.add(readable: [[1, 2]], writable: [random.below(9), 3])
                case 3, 4:
                    let ids: [UInt32] = [0, 1, 2, 3, 4, .max, UInt32(truncatingIfNeeded: random.next())]
                    let message = Message(ids[random.below(7)], UInt16(random.below(9)), UInt16(random.below(3)))
                    try rig.driver.queues[3].add(readable: [message.bytes])
                case 5 where random.oneIn(6):
                    let layout = queue.layout
                    let base = [layout.descriptors, layout.driverArea, layout.deviceArea][random.below(3)]
                    try rig.memory.store(random.next(), at: GuestAddress(base.rawValue + UInt64(random.below(12)) * 4))
                case 6: _ = rig.receive((0..<random.below(80)).map { _ in 1 }, port: random.below(4))
                case 7: rig.device.ports[random.below(4)].setPlugged(random.oneIn(2))
                case 8: rig.device.ports[random.below(4)].setHostOpen(random.oneIn(2))
                case 9: rig.device.resize(ConsoleSize(columns: UInt16(random.below(200)), rows: 9))
                default: (random.oneIn(2) ? rig.sink : rig.channelSinks[random.below(3)]).drain(random.below(200))
                }
                rig.driver.transport.notify(queue: UInt16(random.below(12)))
                #expect(rig.events.run(limit: 200) < 200)
            }
        }
        for port in rig.device.ports {
            port.setPlugged(true)
            port.setHostOpen(true)
        }
        rig.sink.drain()
        for sink in rig.channelSinks { sink.drain() }
        let fresh = MockDriver(rig.transport, memory: rig.memory, buffers: GuestAddress(32 << 20))
        #expect(fresh.start([]))
        try fresh.queues[1].add(readable: [abc])
        try fresh.queues[1].kick()
        rig.events.run()
        #expect(rig.sink.bytes == abc)
    }
}
