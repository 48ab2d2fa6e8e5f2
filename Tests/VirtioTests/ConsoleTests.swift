import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// One console port, without control messages.
@Suite(.behindEachTransport) struct ConsoleTests {
    private let abc: [UInt8] = Array("abc".utf8)

    @Test(arguments: ringKinds) func outputReachesTheSink(ring: FeatureSet) throws {
        let rig = try ConsoleRig()
        #expect(rig.driver.start(ring, size: 8))
        rig.events.run()
        var expected: [UInt8] = []
        for round in 0..<40 {
            let (one, two) = (Array("line \(round)".utf8), [UInt8](repeating: UInt8(round), count: 300))
            try rig.transmitQueue(0).add(readable: [one, two])
            try rig.transmitQueue(0).add(readable: [[10]])
            try rig.transmitQueue(0).kick()
            rig.events.run()
            #expect(try rig.transmitQueue(0).completions().map(\.written) == [0, 0])
            #expect(rig.transport.takeInterrupts().used)
            expected += one + two + [10]
        }
        #expect(difference(of: rig.sink.bytes, from: expected) == nil)
        #expect(rig.statistic("bytesSent") == UInt64(expected.count))
    }

    @Test(arguments: ringKinds) func inputFillsTheBuffersThatAreThere(ring: FeatureSet) throws {
        let rig = try ConsoleRig()
        #expect(rig.driver.start(ring, size: 8))
        try rig.transmit([0])
        _ = rig.transport.takeInterrupts()
        for round in 0..<20 {
            let text = (0..<100).map { UInt8(truncatingIfNeeded: $0 + round) }
            try rig.receiveQueue(0).add(writable: [10, 20])
            try rig.receiveQueue(0).add(writable: [30])
            try rig.receiveQueue(0).kick()
            rig.events.run()
            #expect(rig.receive(text) == 60)
            #expect(rig.transport.takeInterrupts().used)
            let done = try rig.receiveQueue(0).completions()
            #expect(done.map(\.written) == [30, 30])
            #expect(done.flatMap(\.bytes) == Array(text[..<60]))
            #expect(rig.receive([1]) == 0)
        }
        try rig.receiveQueue(0).add(writable: [64])
        #expect(rig.receive(abc) == 3)
        #expect(try rig.receiveQueue(0).completions().map { Array($0.bytes[..<Int($0.written)]) } == [abc])
    }

    /// While Linux fills its receive queue it throws away what it finds there.
    @Test func inputWaitsUntilTheGuestWrites() throws {
        let rig = try ConsoleRig()
        let tally = Tally()
        rig.device.console.setRoomHandler { tally.count += 1 }
        #expect(rig.receive(abc) == 0)
        #expect(rig.driver.start([]))
        try rig.receiveQueue(0).add(writable: [64])
        try rig.receiveQueue(0).kick()
        rig.events.run()
        #expect(rig.receive(abc) == 0)
        rig.events.run()
        #expect(tally.count == 0)
        try rig.transmit([33])
        #expect(tally.count == 1)
        #expect(rig.receive(abc) == 3)
    }

    @Test func inputWaitsUntilTheGuestHasBeenQuiet() throws {
        let rig = try ConsoleRig()
        let tally = Tally()
        rig.device.console.setRoomHandler { tally.count += 1 }
        #expect(rig.driver.start([]))
        #expect(rig.receive(abc) == 0)
        for _ in 0..<10 {
            try rig.receiveQueue(0).add(writable: [64])
            try rig.receiveQueue(0).kick()
            rig.events.run()
            rig.events.clock.advance(by: ConsoleBoard.quietTime - 1)
            rig.events.run()
            #expect(rig.receive([]) == 0)
        }
        #expect(tally.count == 0)
        rig.events.clock.advance(by: 1)
        rig.events.run()
        #expect(tally.count == 1)
        #expect(rig.receive(abc) == 3)
        // A reset is a new driver.
        #expect(rig.driver.start([]))
        try rig.receiveQueue(0).add(writable: [64])
        #expect(rig.receive(abc) == 0)
    }

    @Test func theRoomHandlerComesOnceForEachRefusal() throws {
        let rig = try ConsoleRig()
        let tally = Tally()
        rig.device.console.setRoomHandler { tally.count += 1 }
        #expect(rig.driver.start([]))
        try rig.transmit([0])
        #expect(rig.receive(abc) == 0)
        rig.events.run()
        #expect(tally.count == 0)
        for expected in 1...3 {
            try rig.receiveQueue(0).add(writable: [2])
            try rig.receiveQueue(0).kick()
            rig.events.run()
            #expect(tally.count == expected)
            rig.events.run()
            #expect(tally.count == expected)
            #expect(rig.receive(abc) == 2)
        }
        // All taken: nobody waits.
        try rig.receiveQueue(0).add(writable: [2])
        try rig.receiveQueue(0).kick()
        rig.events.run()
        #expect(tally.count == 4)
        #expect(rig.receive([1]) == 1)
        try rig.receiveQueue(0).add(writable: [2])
        try rig.receiveQueue(0).kick()
        rig.events.run()
        #expect(tally.count == 4)
    }

    /// List item 33: a flood, and nobody who reads.
    @Test(arguments: ringKinds) func aFullSinkKeepsTheGuestWaiting(ring: FeatureSet) throws {
        let rig = try ConsoleRig(capacity: 1000)
        #expect(rig.driver.start(ring, size: 16))
        let text = (0..<3000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        try rig.transmitQueue(0).add(readable: [Array(text[..<1500]), Array(text[1500...])])
        while try rig.transmitQueue(0).add(readable: [[1, 2, 3]]) != nil {}
        rig.driver.transport.notify(queue: 1)
        #expect(rig.events.run() < 5)
        #expect(try rig.transmitQueue(0).completions().isEmpty)
        let writes = rig.sink.writes
        // Notifications without room cost a look each, and no more.
        for _ in 0..<100 {
            rig.driver.transport.notify(queue: 1)
            rig.events.run()
        }
        #expect(rig.sink.writes <= writes + 100)
        #expect(rig.sink.bytes.count == 1000)
        var out: [UInt8] = []
        for _ in 0..<20 {
            out += rig.sink.drain(700)
            rig.events.run()
        }
        #expect(difference(of: Array(out[..<3000]), from: text) == nil)
        #expect(out.count == 3000 + 3 * ((out.count - 3000) / 3))
        _ = try rig.transmitQueue(0).completions()
        #expect(rig.transmitQueue(0).outstanding == 0)
        #expect(rig.statistic("bytesLost") == 0)
    }

    @Test func aSinkThatLosesLosesOnlyWhatDoesNotFit() throws {
        let rig = try ConsoleRig(capacity: 10, fullSink: .loses)
        #expect(rig.driver.start([]))
        try rig.transmit(Array(0..<25))
        try rig.transmit([99])
        #expect(rig.sink.bytes == Array(0..<10))
        #expect(try rig.transmitQueue(0).completions().count == 2)
        #expect(rig.statistic("bytesLost") == 16)
    }

    @Test func whatWaitsCanBeSentBeforeTheEnd() throws {
        let rig = try ConsoleRig()
        #expect(rig.driver.start([]))
        for _ in 0..<60 { try rig.transmitQueue(0).add(readable: [abc]) }
        rig.driver.transport.notify(queue: 1)
        #expect(!rig.device.transmitWaiting())
        #expect(rig.sink.bytes.count == 180)
        #expect(rig.device.bytesSent == 180)
    }

    /// Whoever ends the machine is told of what its sinks have yet to take.
    @Test func whatIsLeftBeforeTheEndIsTold() throws {
        let rig = try ConsoleRig(capacity: 4)
        #expect(rig.driver.start([]))
        for _ in 0..<2 { try rig.transmitQueue(0).add(readable: [abc]) }
        rig.driver.transport.notify(queue: 1)
        #expect(rig.device.transmitWaiting())
        #expect(rig.device.transmitWaiting())
        #expect(rig.sink.bytes.count == 4 && rig.device.bytesSent == 4)
        rig.sink.drain()
        #expect(!rig.device.transmitWaiting())
        #expect(rig.device.bytesSent == 6)
    }

    /// Source: [VIRTIO1.2 §5.3.4].
    @Test func theConfigurationGivesTheSize() throws {
        let rig = try ConsoleRig()
        #expect(rig.transport.readFeatures().isSuperset(of: [ConsoleRig.size, ConsoleRig.emergency]))
        #expect(!rig.transport.readFeatures().contains(ConsoleRig.multiport))
        #expect(rig.transport.readConfiguration(offset: 0, width: .word) == 80)
        #expect(rig.transport.readConfiguration(offset: 2, width: .word) == 25)
        #expect(rig.transport.readConfiguration(offset: 4, width: .long) == 1)
        #expect(rig.transport.readConfiguration(offset: 8, width: .long) == 0)
        #expect(rig.transport.readConfiguration(offset: 12, width: .long) == 0)
        #expect(rig.transport.readConfiguration(offset: .max, width: .long) == 0)
        #expect(rig.driver.start([ConsoleRig.size]))
        _ = rig.transport.takeInterrupts()
        let generation = rig.transport.registers.generation
        rig.device.resize(ConsoleSize(columns: 300, rows: 1000))
        #expect(rig.transport.takeInterrupts().configuration)
        #expect(rig.transport.registers.generation != generation)
        #expect(rig.transport.readConfiguration(offset: 0, width: .long) == 300 | 1000 << 16)
        rig.device.resize(ConsoleSize(columns: 300, rows: 1000))
        #expect(!rig.transport.takeInterrupts().configuration)
        // A driver that did not ask is not told.
        #expect(rig.driver.start([]))
        rig.device.resize(ConsoleSize(columns: 1, rows: 1))
        #expect(!rig.transport.takeInterrupts().configuration)
    }

    @Test func withoutASizeThereIsNoFeature() throws {
        let rig = try ConsoleRig(size: nil)
        #expect(!rig.transport.readFeatures().contains(ConsoleRig.size))
        rig.device.resize(ConsoleSize(columns: 9, rows: 9))
        #expect(rig.transport.readConfiguration(offset: 0, width: .long) == 0)
    }

    /// Source: [VIRTIO1.2 §5.3.5.1].
    @Test func emergencyWritesGoOutAtAnyTime() throws {
        let rig = try ConsoleRig(capacity: 4)
        rig.transport.writeConfiguration(offset: 8, width: .long, value: 0x1234_5641)
        rig.transport.writeConfiguration(offset: 8, width: .byte, value: 0x42)
        #expect(rig.driver.start([]))
        rig.transport.writeConfiguration(offset: 8, width: .long, value: 0x43)
        for offset: UInt64 in [0, 4, 7, 9, 12, .max] {
            rig.transport.writeConfiguration(offset: offset, width: .long, value: 0x58)
        }
        rig.transport.writeStatus([])
        for _ in 0..<3 { rig.transport.writeConfiguration(offset: 8, width: .long, value: 0x44) }
        #expect(rig.sink.bytes == Array("ABCD".utf8))
        #expect(rig.statistic("bytesLost") == 2)
    }

    /// Buffers that go the wrong way are given back untouched, and what is right goes on.
    @Test(arguments: ringKinds) func buffersOfTheWrongDirection(ring: FeatureSet) throws {
        let rig = try ConsoleRig()
        #expect(rig.driver.start(ring, size: 8))
        try rig.transmitQueue(0).add(writable: [16])
        try rig.transmitQueue(0).add(readable: [abc], writable: [4])
        try rig.transmitQueue(0).kick()
        rig.events.run()
        #expect(try rig.transmitQueue(0).completions().map(\.written) == [0, 0])
        #expect(rig.sink.bytes == abc)
        for _ in 0..<3 { try rig.receiveQueue(0).add(readable: [abc]) }
        try rig.receiveQueue(0).add(readable: [abc], writable: [8])
        #expect(rig.receive(abc) == 3)
        #expect(try rig.receiveQueue(0).completions().map(\.written) == [0, 0, 0, 3])
        #expect(!rig.transport.readStatus().contains(.needsReset))
    }

    /// One request of far more than a share, and many without a byte: others have their turn in between.
    @Test func aTurnHasItsShare() throws {
        let rig = try ConsoleRig(capacity: 8 << 20)
        #expect(rig.driver.start([]))
        let count = 4 << 20
        try rig.transmitQueue(0).add([(rig.driver.allocate(count), count)], [])
        rig.driver.transport.notify(queue: 1)
        rig.events.turn()
        #expect(rig.sink.bytes.count == ConsoleBoard.fairBytes)
        #expect(rig.events.run() >= count / ConsoleBoard.fairBytes - 1)
        #expect(rig.sink.bytes.count == count)
        // Requests without bytes have their share, too.
        while try rig.transmitQueue(0).add([(rig.driver.allocate(1), 0)], []) != nil {}
        rig.driver.transport.notify(queue: 1)
        rig.events.turn()
        #expect(rig.events.hasWork)
        rig.events.run()
        _ = try rig.transmitQueue(0).completions()
        #expect(rig.transmitQueue(0).outstanding == 0)
    }

    @Test func aResetForgetsWhatWasBeingSent() throws {
        let rig = try ConsoleRig(capacity: 10)
        #expect(rig.driver.start([]))
        try rig.transmit(Array(0..<30))
        #expect(rig.driver.start([]))
        rig.sink.drain()
        rig.events.run()
        #expect(rig.sink.bytes.isEmpty)
        try rig.transmit(abc)
        #expect(rig.sink.bytes == abc)
        rig.transport.writeStatus([])
        rig.events.run()
        #expect(rig.receive(abc) == 0)
        #expect(!rig.device.console.isOpenInGuest)
    }

    @Test(arguments: [0, 1] as [UInt16]) func aBrokenQueueNeedsAReset(queue: UInt16) throws {
        let rig = try ConsoleRig()
        #expect(rig.driver.start([]))
        try rig.transmit(abc)
        _ = rig.transport.takeInterrupts()
        try rig.driver.queues[Int(queue)].add([(GuestAddress(1 << 40), 16)], [])
        rig.driver.transport.notify(queue: queue)
        rig.events.run()
        _ = rig.receive(abc)
        rig.events.run()
        #expect(rig.transport.readStatus().contains(.needsReset))
        #expect(rig.transport.takeInterrupts().configuration)
        #expect(rig.driver.start([]))
        try rig.transmit(abc)
        #expect(rig.sink.bytes == abc + abc)
    }

    @Test func theDeviceOutlivesNobody() throws {
        let sink = MemorySink(capacity: 1)
        let events = ManualEvents()
        var device: ConsoleDevice? = try ConsoleDevice(sink: sink, events: events, clock: events.clock)
        weak let board = device?.console.board
        #expect(board != nil)
        device = nil
        #expect(board == nil)
        sink.resume()
        events.run()
    }

    @Test func channelsThatCannotBe() throws {
        let events = ManualEvents()
        func make(_ names: [String]) throws {
            _ = try ConsoleDevice(
                sink: MemorySink(), channels: names.map { ConsoleChannel(name: $0, sink: MemorySink()) }, events: events,
                clock: events.clock)
        }
        #expect(throws: ConsoleDeviceError.tooManyChannels(32)) { try make((0..<32).map { "port\($0)" }) }
        #expect(throws: ConsoleDeviceError.badName("")) { try make([""]) }
        #expect(throws: ConsoleDeviceError.badName("a")) { try make(["a", "a"]) }
        let long = String(repeating: "x", count: 65)
        #expect(throws: ConsoleDeviceError.badName(long)) { try make([long]) }
        try make((0..<31).map { "port\($0)" })
    }
}
