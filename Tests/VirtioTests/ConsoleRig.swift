import Testing
import VMCore
import Virtio
import MonitorTesting

/// A console device with its driver, and what a driver of consoles does.
final class ConsoleRig {
    let memory: GuestMemory
    let events = ManualEvents()
    let sink: MemorySink
    let channelSinks: [MemorySink]
    /// The first channel's sink, where it is a socket.
    let socket: PortSocket?
    let device: ConsoleDevice
    let transport: any DriverTransport
    let driver: MockDriver

    /// - Parameter sink: makes a channel's sink, in place of one in memory.
    init(
        _ kind: TransportKind = .current, capacity: Int = 65_536, fullSink: FullSink = .waits,
        size: ConsoleSize? = ConsoleSize(columns: 80, rows: 25), channels: [String] = [],
        sink makeSink: ((String, ManualEvents) throws -> any ByteSink)? = nil
    ) throws {
        memory = try GuestMemory(size: 64 << 20)
        sink = MemorySink(capacity: capacity)
        let sinks = channels.map { _ in MemorySink(capacity: capacity) }
        channelSinks = sinks
        let turns = events
        let made: [any ByteSink] = if let makeSink { try channels.map { try makeSink($0, turns) } } else { sinks }
        socket = made.first as? PortSocket
        device = try ConsoleDevice(
            sink: sink, fullSink: fullSink, size: size,
            channels: zip(channels, made).map { ConsoleChannel(name: $0, sink: $1, fullSink: fullSink) },
            events: events, clock: events.clock)
        transport = try kind.driver(device: device, memory: memory)
        driver = MockDriver(transport, memory: memory)
    }

    static let size = FeatureSet(bit: 0), multiport = FeatureSet(bit: 1), emergency = FeatureSet(bit: 2)

    /// Control messages: port, event, value.
    struct Message: Hashable {
        var port: UInt32
        var event: UInt16
        var value: UInt16
        var rest: [UInt8] = []
        init(_ port: UInt32, _ event: UInt16, _ value: UInt16, _ rest: [UInt8] = []) {
            (self.port, self.event, self.value, self.rest) = (port, event, value, rest)
        }
        init(_ bytes: [UInt8]) {
            func number(_ from: Int, _ count: Int) -> UInt32 {
                (0..<count).reduce(0) { $0 | UInt32(bytes[from + $1]) << (8 * $1) }
            }
            self.init(number(0, 4), UInt16(number(4, 2)), UInt16(number(6, 2)), Array(bytes[8...]))
        }
        var bytes: [UInt8] {
            (0..<4).map { UInt8(truncatingIfNeeded: port >> (8 * $0)) }
                + [event, value].flatMap { [UInt8(truncatingIfNeeded: $0), UInt8($0 >> 8)] } + rest
        }
    }

    func provideControlBuffers(_ count: Int, bytes: Int = 128) throws {
        for _ in 0..<count { try driver.queues[2].add(writable: [bytes]) }
        try driver.queues[2].kick()
        events.run()
    }

    func send(_ messages: Message...) throws {
        for message in messages { try driver.queues[3].add(readable: [message.bytes]) }
        try driver.queues[3].kick()
        events.run()
        _ = try driver.queues[3].completions()
    }

    /// What the device has sent.
    func messages() throws -> [Message] {
        try driver.queues[2].completions().filter { $0.written > 0 }.map { Message(Array($0.bytes[..<Int($0.written)])) }
    }

    /// Up to the point where every port is open.
    func open(_ ring: FeatureSet = []) throws {
        #expect(driver.start(ring.union([Self.size, Self.multiport])))
        try provideControlBuffers(32)
        try send(Message(.max, 0, 1))
        for port in 0..<UInt32(device.ports.count) { try send(Message(port, 3, 1), Message(port, 6, 1)) }
        _ = try messages()
    }

    func receiveQueue(_ port: Int) -> DriverQueue { driver.queues[port == 0 ? 0 : 2 * port + 2] }
    func transmitQueue(_ port: Int) -> DriverQueue { driver.queues[port == 0 ? 1 : 2 * port + 3] }

    func transmit(_ bytes: [UInt8], port: Int = 0) throws {
        try transmitQueue(port).add(readable: [bytes])
        try transmitQueue(port).kick()
        events.run()
    }

    func receive(_ bytes: [UInt8], port: Int = 0) -> Int { bytes.withUnsafeBytes { device.ports[port].receive($0) } }

    func statistic(_ name: String) -> UInt64? { device.statistics.first { $0.name == name }?.value }
}

/// Counts calls, from any thread's handler.
final class Tally: @unchecked Sendable {
    var count = 0
    var values: [Bool] = []
}
