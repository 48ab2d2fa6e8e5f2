import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// A link that a test holds the other end of.
final class FakeLink: NetworkBackend, @unchecked Sendable {
    let carriesHeader: Bool
    var isUp = true
    var isActive = true
    /// What the guest has sent.
    var sent: [[UInt8]] = []
    /// How many more frames it takes before it is full.
    var room = Int.max
    /// What it says of frames in place of taking them.
    var answer: NetworkSendResult?
    /// What is still to come in.
    var incoming: [[UInt8]] = []
    var awaited: Readiness = []
    var offloads: NetworkOffloads = []
    /// How often it was asked for frames.
    var looks = 0
    private var handler: (@Sendable (Readiness) -> Void)?
    private let frame = UnsafeMutableRawBufferPointer.allocate(byteCount: 70_000, alignment: 16)

    init(carriesHeader: Bool = false) { self.carriesHeader = carriesHeader }
    deinit { frame.deallocate() }

    func connect(_ events: any EventService, clock: any MonotonicClock, _ handler: @escaping @Sendable (Readiness) -> Void) {
        self.handler = handler
    }
    func wait(for readiness: Readiness) { awaited = readiness }
    func setOffloads(_ offloads: NetworkOffloads) { self.offloads = offloads }
    func setActive(_ isActive: Bool) { self.isActive = isActive }

    func send(_ parts: UnsafeMutableBufferPointer<iovec>, count: Int) -> NetworkSendResult {
        if let answer { return answer }
        guard isUp else { return .down }
        guard room > 0 else { return .full }
        room -= 1
        sent.append(parts.flatMap { Array(UnsafeRawBufferPointer(start: $0.iov_base, count: $0.iov_len)) })
        return .sent
    }

    func nextFrame() -> UnsafeRawBufferPointer? {
        looks += 1
        guard isUp, let next = incoming.first else { return nil }
        frame.copyBytes(from: next)
        return UnsafeRawBufferPointer(rebasing: frame[..<next.count])
    }
    func removeFrame() { incoming.removeFirst() }
    func close() { isUp = false }

    /// Tells the device, if it waits for that.
    func ready(_ readiness: Readiness) {
        if !awaited.intersection(readiness).isEmpty { handler?(readiness.intersection(awaited)) }
    }

    /// Frames come in.
    func bring(_ frames: [[UInt8]]) {
        incoming += frames
        ready(.readable)
    }
}

/// A device, its links, a driver and the turns between them.
final class NetworkRig {
    let events = ManualEvents()
    let memory: GuestMemory
    let device: NetworkDevice
    let driver: MockDriver
    var clock: FakeClock { events.clock }

    init(
        _ links: [any NetworkBackend], mtu: UInt16? = nil, transmitLimits: RateLimits = RateLimits(),
        receiveLimits: RateLimits = RateLimits()
    ) throws {
        memory = try GuestMemory(size: 64 << 20)
        device = NetworkDevice(
            links: links, address: MACAddress(2, 0, 0, 1, 2, 3), mtu: mtu, transmitLimits: transmitLimits,
            receiveLimits: receiveLimits, events: events, clock: events.clock)
        driver = MockDriver(try TransportKind.current.driver(device: device, memory: memory), memory: memory)
    }

    var receive: DriverQueue { driver.queues[0] }
    var transmit: DriverQueue { driver.queues[1] }

    /// Sends frames, headers zero, and notifies.
    func send(_ frames: [[UInt8]], header: [UInt8] = .zeros(12)) throws {
        for frame in frames { _ = try #require(try transmit.add(readable: [header + frame]), "the ring has room") }
        try transmit.kick()
        events.run()
    }

    /// Gives receive buffers and notifies if that is wanted.
    @discardableResult
    func give(_ count: Int, of bytes: Int = 2048) throws -> Int {
        var given = 0
        while given < count, try receive.add(writable: [bytes]) != nil { given += 1 }
        try receive.kick()
        events.run()
        return given
    }

    /// Frames that the driver has got, each put together from its buffers, and their headers.
    func frames() throws -> [(header: [UInt8], payload: [UInt8])] {
        var result: [(header: [UInt8], payload: [UInt8])] = []
        var rest = 0
        for completion in try receive.completions() {
            let bytes = Array(completion.bytes.prefix(Int(completion.written)))
            if rest > 0 {
                result[result.count - 1].payload += bytes
                rest -= 1
            } else {
                result.append((Array(bytes.prefix(12)), Array(bytes.dropFirst(12))))
                rest = Int(bytes[10]) + Int(bytes[11]) << 8 - 1
            }
        }
        #expect(rest == 0, "\(rest) buffers of a frame are missing")
        return result
    }

    /// Time goes by, a millisecond at a time.
    func pass(milliseconds: Int) {
        for _ in 0..<milliseconds {
            clock.advance(by: 1_000_000)
            events.run()
        }
    }

    func count(_ name: String) -> UInt64 { device.statistics.first { $0.name == name }?.value ?? .max }
}

extension Array where Element == UInt8 {
    static func zeros(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }
    /// A frame that is like no other of another number.
    static func frame(_ number: Int, count: Int = 100) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ number &* 13 &+ $0 >> 8) }
    }
}
