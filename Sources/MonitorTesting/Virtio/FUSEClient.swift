internal import Glibc
public import VMCore
public import Virtio

/// An errno that a share answered with.
public struct FUSEFailure: Error, Hashable, CustomStringConvertible {
    public var code: Int32
    public init(_ code: Int32) { self.code = code }
    public var description: String { HostError.message(code) }
}

/// A guest's file system driver without a guest: it speaks FUSE to a `FileSystemDevice` through a mock driver's queues.
///
/// Requests are laid out here byte by byte, after the protocol's definition and not after the device's own structures.
/// The operations are in files of their own.
public final class FUSEClient {
    public let device: FileSystemDevice
    public let events: ManualEvents
    public let memory: GuestMemory
    public let transport: any DriverTransport
    public let driver: MockDriver
    /// What the server said at INIT.
    public private(set) var flags: UInt64 = 0
    public private(set) var minor: UInt32 = 0
    public private(set) var mostWritten: UInt32 = 0

    /// A request's answer.
    public struct Answer {
        public var unique: UInt64
        /// 0 or an errno.
        public var error: Int32
        /// What is behind the header.
        public var bytes: [UInt8]
    }

    /// The server broke the protocol, or does not answer.
    public struct Broken: Error, CustomStringConvertible { public let description: String }

    private var nextUnique: UInt64 = 2
    private let request: GuestAddress
    private let reply: GuestAddress
    private static let bufferBytes = (1 << 20) + 65_536

    /// - Parameter ring: features of the rings.
    public init(
        _ device: FileSystemDevice, events: ManualEvents, transport kind: TransportKind = .current,
        ring: FeatureSet = [.indirectDescriptors]
    ) throws {
        self.device = device
        self.events = events
        memory = try GuestMemory(size: 256 << 20)
        transport = try kind.driver(device: device, memory: memory)
        driver = MockDriver(transport, memory: memory)
        guard driver.start(ring) else { throw Broken(description: "the device does not take the features") }
        request = driver.allocate(Self.bufferBytes, alignment: 4096)
        reply = driver.allocate(Self.bufferBytes, alignment: 4096)
        events.run()
    }

    /// Resets the device and starts it again. Nothing is mounted then.
    public func restart(_ ring: FeatureSet = [.indirectDescriptors]) throws {
        guard driver.start(ring) else { throw Broken(description: "the device does not take the features") }
        events.run()
    }

    // MARK: Requests

    /// A request's header and body.
    public static func message(
        _ opcode: UInt32, _ unique: UInt64, node: UInt64, _ body: [UInt8], length: UInt32? = nil
    ) -> [UInt8] {
        var bytes = Bytes()
        bytes.add(length ?? UInt32(40 + body.count), opcode, unique, node, UInt32(0), UInt32(0), UInt32(1), UInt32(0))
        return bytes.bytes + body
    }

    /// Sends a request, and waits for its answer.
    /// - Parameter room: bytes for the answer beside its header.
    public func send(_ opcode: UInt32, node: UInt64, _ body: [UInt8] = [], room: Int = 4096, queue: Int = 1) throws -> Answer {
        let unique = takeUnique()
        let bytes = Self.message(opcode, unique, node: node, body)
        guard max(bytes.count, room + 16) <= Self.bufferBytes else { throw Broken(description: "too long a request") }
        try memory.write(bytes, at: request)
        // Header and body, header and payload: as a driver has them.
        var readable = [(address: request, count: 40)]
        if !body.isEmpty { readable.append((GuestAddress(request.rawValue + 40), body.count)) }
        var writable = [(address: reply, count: 16)]
        if room > 0 { writable.append((GuestAddress(reply.rawValue + 16), room)) }
        _ = try driver.queues[queue].add(readable, writable)
        try driver.queues[queue].kick()
        guard let answer = try wait(for: 1, queue: queue).first else { throw Broken(description: "no answer") }
        guard answer.unique == unique else { throw Broken(description: "the answer to another request: \(answer.unique)") }
        return answer
    }

    /// Sends a request as somebody else has made it.
    /// - Returns: the answer, with its header; nil where there is none.
    public func forward(_ message: [UInt8], room: Int, queue: Int) throws -> [UInt8]? {
        guard max(message.count, room + 16) <= Self.bufferBytes else { throw Broken(description: "too long a request") }
        try memory.write(message, at: request)
        _ = try driver.queues[queue].add([(request, message.count)], room > 0 ? [(reply, 16 + room)] : [])
        try driver.queues[queue].kick()
        guard let answer = try wait(for: 1, queue: queue).first else { return nil }
        return Bytes(UInt32(16 + answer.bytes.count), -answer.error, answer.unique).bytes + answer.bytes
    }

    /// As `send`, and an error is thrown.
    @discardableResult
    public func call(_ opcode: UInt32, node: UInt64, _ body: [UInt8] = [], room: Int = 4096) throws -> [UInt8] {
        let answer = try send(opcode, node: node, body, room: room)
        guard answer.error == 0 else { throw FUSEFailure(answer.error) }
        return answer.bytes
    }

    /// Sends a request that nobody waits for here.
    /// - Parameter room: nil where no answer is wanted at all.
    @discardableResult
    public func post(_ opcode: UInt32, node: UInt64, _ body: [UInt8] = [], room: Int? = nil, queue: Int = 1) throws -> UInt64 {
        let unique = takeUnique()
        let writable = room.map { [16 + $0] } ?? []
        let message = Self.message(opcode, unique, node: node, body)
        guard try driver.queues[queue].add(readable: [message], writable: writable) != nil else {
            throw Broken(description: "no room in the queue")
        }
        try driver.queues[queue].kick()
        return unique
    }

    public func takeUnique() -> UInt64 {
        defer { nextUnique += 2 }
        return nextUnique
    }

    /// Waits until so many requests have come back on a queue. The requests without an answer count, and are not among the
    /// result.
    public func wait(for count: Int, queue: Int = 1, seconds: Int = 20) throws -> [Answer] {
        var all: [Answer] = []
        var got = 0
        var time = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        let end = time.tv_sec + seconds
        var idle = 0
        while true {
            events.run()
            for done in try driver.queues[queue].completions() {
                got += 1
                if let answer = try Self.answer(done) { all.append(answer) }
            }
            guard got < count else { return all }
            idle += 1
            // The threads that do the work need the processor more.
            if idle < 200 { sched_yield() } else { usleep(50) }
            if idle % 1000 == 0 {
                unsafe clock_gettime(CLOCK_MONOTONIC, &time)
                guard time.tv_sec < end else { throw Broken(description: "\(got) of \(count) requests came back") }
            }
        }
    }

    /// What an answer says, if it is one; it may not be longer than what was reported as written, nor shorter.
    private static func answer(_ done: DriverQueue.Completion) throws -> Answer? {
        guard done.written > 0 else { return nil }
        var bytes = Cursor(done.bytes)
        let (length, error, unique) = (bytes.next(UInt32.self), bytes.next(Int32.self), bytes.next(UInt64.self))
        guard length == done.written, length >= 16, Int(length) <= done.bytes.count, error <= 0, error > -512 else {
            throw Broken(description: "an answer of \(length) bytes, \(done.written) reported, error \(error)")
        }
        return Answer(unique: unique, error: -error, bytes: Array(done.bytes[16..<Int(length)]))
    }

    // MARK: The session

    /// INIT, as Linux 6.1 sends it.
    public func mount(major: UInt32 = 7, minor: UInt32 = 37, flags: UInt64 = 0x7FFF_FFFF) throws {
        var body = Bytes()
        body.add(major, minor, UInt32(131_072), UInt32(truncatingIfNeeded: flags), UInt32(truncatingIfNeeded: flags >> 32))
        for _ in 0..<11 { body.add(UInt32(0)) }
        var answer = Cursor(try call(26, node: 0, body.bytes))
        let version = answer.next(UInt32.self)
        guard version == 7 else { throw Broken(description: "major version \(version)") }
        self.minor = answer.next(UInt32.self)
        _ = answer.next(UInt32.self)
        self.flags = UInt64(answer.next(UInt32.self))
        _ = answer.next(UInt32.self)
        mostWritten = answer.next(UInt32.self)
    }

    public func unmount() throws { try call(38, node: 0) }

    public func forget(_ node: UInt64, _ count: UInt64 = 1) throws {
        try post(2, node: node, Bytes(count).bytes, queue: 0)
        _ = try wait(for: 1, queue: 0)
    }

    public func forget(_ all: [(node: UInt64, count: UInt64)], claimed: UInt32? = nil) throws {
        var body = Bytes(claimed ?? UInt32(all.count), UInt32(0))
        for one in all { body.add(one.node, one.count) }
        try post(42, node: 0, body.bytes, queue: 0)
        _ = try wait(for: 1, queue: 0)
    }

    public func statistic(_ name: String) -> UInt64 { device.statistics.first { $0.name == name }?.value ?? .max }
}

/// Little-endian bytes of integers, one after the other.
public struct Bytes {
    public private(set) var bytes: [UInt8] = []

    public init(_ values: any FixedWidthInteger...) { for value in values { add(one: value) } }

    public mutating func add(_ values: any FixedWidthInteger...) { for value in values { add(one: value) } }

    private mutating func add(one value: some FixedWidthInteger) {
        for index in 0..<(value.bitWidth / 8) { bytes.append(UInt8(truncatingIfNeeded: value >> (index * 8))) }
    }

    /// A name, and the zero that ends it.
    public mutating func add(name: String) { bytes += Array(name.utf8) + [0] }
    public mutating func add(raw: [UInt8]) { bytes += raw }
}

/// Integers out of little-endian bytes; zeros behind their end.
public struct Cursor {
    public let bytes: [UInt8]
    public var place = 0

    public init(_ bytes: [UInt8]) { self.bytes = bytes }

    public mutating func next<Value: FixedWidthInteger>(_ type: Value.Type) -> Value {
        var value: Value = 0
        for index in 0..<(Value.bitWidth / 8) where place + index < bytes.count {
            value |= Value(truncatingIfNeeded: bytes[place + index]) << (index * 8)
        }
        place += Value.bitWidth / 8
        return value
    }
}
