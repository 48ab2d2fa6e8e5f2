import Glibc
import Synchronization
import VMCore
import MonitorTesting

@testable import Virtio

/// A guest's driver and sockets, as far as the tests need them, over a device with a path of its own.
final class SocketGuest {
    static let cid: UInt32 = 3

    let directory: TemporaryDirectory
    let memory: GuestMemory
    let events = ManualEvents()
    let device: SocketDevice
    let transport: any DriverTransport
    let driver: MockDriver
    var path: String { directory.path + "/v" }

    /// Whether buffers that the device gave back are offered again.
    var offersBuffers = true
    /// All packets that came, without their data.
    private(set) var packets: [SocketPacket] = []
    private(set) var streams: [UInt64: GuestStream] = [:]
    /// Ports at which connections are accepted.
    var listening: Set<UInt32> = []
    private(set) var badEvents = 0
    private(set) var transportResets = 0

    private var heldBuffers: [[(address: GuestAddress, count: Int)]] = []
    private var freeTransmit: [GuestAddress] = []
    private var transmitLimit = 0

    init(
        ring: FeatureSet = [], limits: SocketDevice.Limits = .init(), buffers: Int = 16, bufferSize: Int = 4096,
        isSplit: Bool = false, size: UInt16 = 64, services: [UInt32: SocketService] = [:], hasPath: Bool = true
    ) throws {
        directory = TemporaryDirectory()
        memory = try GuestMemory(size: 256 << 20)
        device = try SocketDevice(
            guestCID: Self.cid, path: hasPath ? directory.path + "/v" : nil, services: services, events: events,
            clock: events.clock, limits: limits)
        transport = try TransportKind.current.driver(device: device, memory: memory)
        driver = MockDriver(transport, memory: memory)
        start(ring: ring, buffers: buffers, bufferSize: bufferSize, isSplit: isSplit, size: size)
    }

    /// (Re)starts the driver. `bufferSize` is what a packet's data has room for.
    func start(ring: FeatureSet = [], buffers: Int = 16, bufferSize: Int = 4096, isSplit: Bool = false, size: UInt16 = 64) {
        precondition(driver.start(ring, size: size))
        streams = [:]
        packets = []
        heldBuffers = []
        for _ in 0..<buffers {
            if isSplit {
                // The header apart, and in two pieces itself; the data in three.
                let header = driver.allocate(44)
                let data = driver.allocate(bufferSize)
                let third = max(1, bufferSize / 3)
                var parts = [(header, 10), (GuestAddress(header.rawValue + 10), 34), (data, third)]
                if bufferSize > third { parts.append((GuestAddress(data.rawValue + UInt64(third)), bufferSize - third)) }
                heldBuffers.append(parts)
            } else {
                heldBuffers.append([(driver.allocate(44 + bufferSize), 44 + bufferSize)])
            }
        }
        freeTransmit = (0..<16).map { _ in driver.allocate(44 + 65_536) }
        offer()
        for _ in 0..<2 { try! driver.queues[2].add(writable: [8]) }
        events.run()
    }

    /// Gives the device the buffers that it does not have.
    func offer() {
        while let parts = heldBuffers.popLast() {
            guard try! driver.queues[0].add([], parts) != nil else {
                heldBuffers.append(parts)
                break
            }
        }
        try! driver.queues[0].kick()
    }

    /// Sends a packet; false where the queue has no room. Data that is said to be there need not be.
    @discardableResult
    func send(_ packet: SocketPacket, _ data: [UInt8] = []) -> Bool {
        guard let buffer = freeTransmit.popLast() else { return false }
        try! memory.store(packet.wire, at: buffer)
        let body = GuestAddress(buffer.rawValue + 44)
        if !data.isEmpty { try! memory.write(data, at: body) }
        let parts = data.isEmpty ? [(buffer, 44)] : [(buffer, 44), (body, data.count)]
        guard try! driver.queues[1].add(parts, []) != nil else {
            freeTransmit.append(buffer)
            return false
        }
        try! driver.queues[1].kick()
        return true
    }

    func packet(
        _ operation: SocketPacket.Operation, from guestPort: UInt32, to hostPort: UInt32, count: Int = 0, flags: UInt32 = 0,
        bufAlloc: UInt32 = 65_536, fwdCnt: UInt32 = 0
    ) -> SocketPacket {
        SocketPacket(
            sourceCID: UInt64(Self.cid), destinationCID: 2, sourcePort: guestPort, destinationPort: hostPort,
            count: UInt32(count), type: 1, operation: operation.rawValue, flags: flags, bufAlloc: bufAlloc, fwdCnt: fwdCnt)
    }

    /// Connects to a port of the host's.
    func connect(from guestPort: UInt32, to hostPort: UInt32, window: UInt32 = 65_536) -> GuestStream {
        let stream = GuestStream(self, guestPort: guestPort, hostPort: hostPort, window: window)
        streams[SocketDevice.key(guestPort: guestPort, hostPort: hostPort)] = stream
        stream.send(.request)
        return stream
    }

    var defaultWindow: UInt32 = 65_536

    /// Takes what the device gave back, and has sockets served.
    func pump() {
        events.poll()
        take()
    }

    func take() {
        for done in try! driver.queues[1].completions() { freeTransmit.append(done.request.readable[0].address) }
        for done in try! driver.queues[0].completions() {
            heldBuffers.append(done.request.writable)
            receive(done.bytes, Int(done.written))
        }
        for done in try! driver.queues[2].completions() {
            if done.written == 4, done.bytes.prefix(4).allSatisfy({ $0 == 0 }) { transportResets += 1 } else { badEvents += 1 }
        }
        if offersBuffers, !heldBuffers.isEmpty { offer() }
        for stream in streams.values { stream.sendQueued() }
        events.run()
    }

    private func receive(_ bytes: [UInt8], _ written: Int) {
        precondition(written >= 44, "a packet has a header")
        let wire = bytes.withUnsafeBytes { $0.loadUnaligned(as: SocketPacket.Wire.self) }
        let packet = SocketPacket(wire)
        packets.append(packet)
        precondition(packet.destinationCID == UInt64(Self.cid) && written == 44 + Int(packet.count))
        let key = SocketDevice.key(guestPort: packet.destinationPort, hostPort: packet.sourcePort)
        if packet.operation == 1 {
            guard listening.contains(packet.destinationPort) else {
                send(packet.refusal)
                return
            }
            let stream = GuestStream(
                self, guestPort: packet.destinationPort, hostPort: packet.sourcePort, window: defaultWindow)
            stream.isOpen = true
            streams[key] = stream
            stream.hear(packet, [])
            stream.send(.response)
            return
        }
        streams[key]?.hear(packet, Array(bytes[44..<written]))
    }

    func run(until condition: () -> Bool, turns: Int = 200_000) -> Bool {
        for _ in 0..<turns {
            pump()
            if condition() { return true }
        }
        return false
    }

    func count(_ operation: SocketPacket.Operation) -> Int { packets.count { $0.operation == operation.rawValue } }
    func statistic(_ name: String) -> UInt64 { device.statistics.first { $0.name == name }!.value }
    /// Places of the device's table that are taken, and those of them that have an open socket.
    var places: Int { device.state.withLock { $0.sockets.inUse } }
    var openSockets: Int { device.state.withLock { $0.sockets.sockets.count { $0.descriptor >= 0 } } }
    var needsReset: Bool { transport.readStatus().contains(.needsReset) }
}

/// One socket of the guest's.
final class GuestStream {
    private unowned let guest: SocketGuest
    let guestPort: UInt32
    let hostPort: UInt32
    let window: UInt32
    var isOpen = false
    private(set) var isReset = false
    private(set) var hostEnded: UInt32 = 0
    /// What came, as far as the test has not taken it.
    private(set) var inbox: [UInt8] = []
    /// What is to be sent as the host's credit allows.
    var outbox: ArraySlice<UInt8> = []
    /// Whether what comes counts as taken at once.
    var readsAtOnce = true
    /// Sends this when the outbox is empty.
    var finalShutdown: UInt32 = 0
    var largest = 65_536
    private(set) var forwarded: UInt32 = 0
    private var reported: UInt32 = 0
    private(set) var sent: UInt32 = 0
    private(set) var peerBufAlloc: UInt32 = 0
    private(set) var peerFwdCnt: UInt32 = 0
    /// The device sent more than there was credit for.
    private(set) var isOverrun = false

    init(_ guest: SocketGuest, guestPort: UInt32, hostPort: UInt32, window: UInt32) {
        self.guest = guest
        self.guestPort = guestPort
        self.hostPort = hostPort
        self.window = window
    }

    @discardableResult
    func send(_ operation: SocketPacket.Operation, flags: UInt32 = 0, _ data: [UInt8] = []) -> Bool {
        let packet = guest.packet(
            operation, from: guestPort, to: hostPort, count: data.count, flags: flags, bufAlloc: window, fwdCnt: forwarded)
        guard guest.send(packet, data) else { return false }
        reported = forwarded
        sent &+= UInt32(data.count)
        return true
    }

    var credit: UInt32 { peerBufAlloc &- (sent &- peerFwdCnt) }

    func sendQueued() {
        guard isOpen, !isReset else { return }
        while !outbox.isEmpty, credit > 0 {
            let part = Array(outbox.prefix(min(largest, Int(credit))))
            guard send(.data, part) else { break }
            outbox.removeFirst(part.count)
        }
        if outbox.isEmpty, finalShutdown != 0, send(.shutdown, flags: finalShutdown) { finalShutdown = 0 }
        if forwarded != reported, window < 4 || forwarded &- reported >= window / 4 { send(.creditUpdate) }
    }

    /// Takes what came, and tells the host's side.
    func read(_ count: Int = .max) -> [UInt8] {
        let part = Array(inbox.prefix(count))
        inbox.removeFirst(part.count)
        if !readsAtOnce { forwarded &+= UInt32(part.count) }
        return part
    }

    func hear(_ packet: SocketPacket, _ data: [UInt8]) {
        peerBufAlloc = packet.bufAlloc
        peerFwdCnt = packet.fwdCnt
        switch SocketPacket.Operation(rawValue: packet.operation) {
        case .response: isOpen = true
        case .reset:
            isReset = true
            isOpen = false
        case .shutdown: hostEnded |= packet.flags
        case .data:
            inbox += data
            if readsAtOnce { forwarded &+= UInt32(data.count) } else if inbox.count > Int(window) { isOverrun = true }
        case .creditRequest: send(.creditUpdate)
        default: break
        }
    }
}

/// A program on the host: one end of a Unix socket, never blocking.
final class HostPeer {
    private(set) var descriptor: Int32
    private(set) var inbox: [UInt8] = []
    var outbox: ArraySlice<UInt8> = []
    private(set) var isAtEnd = false
    private(set) var isBroken = false

    init(_ descriptor: Int32) {
        self.descriptor = descriptor
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
    }

    convenience init(path: String) throws {
        let descriptor = UnixSocket.make()
        let code = UnixSocket.connect(descriptor, to: path)
        guard code == 0 else {
            close(descriptor)
            throw Failed(errno: -code)
        }
        self.init(descriptor)
    }

    struct Failed: Error, Equatable { var errno: Int32 }

    deinit { leave() }

    func leave() {
        if descriptor >= 0 { close(descriptor) }
        descriptor = -1
    }

    func end(_ how: Int) { _ = shutdown(descriptor, Int32(how)) }

    /// Moves bytes both ways as far as that goes.
    func pump(reading: Bool = true) {
        while descriptor >= 0, !outbox.isEmpty, !isBroken {
            let count = outbox.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            guard count > 0 else {
                if errno != EAGAIN { isBroken = true }
                break
            }
            outbox.removeFirst(count)
        }
        while reading, descriptor >= 0, !isAtEnd {
            var bytes = [UInt8](repeating: 0, count: 65_536)
            let count = recv(descriptor, &bytes, bytes.count, 0)
            guard count > 0 else {
                if count == 0 || errno != EAGAIN { isAtEnd = true }
                break
            }
            inbox += bytes.prefix(count)
        }
    }

    func write(_ text: String) { outbox += Array(text.utf8) }

    func take(_ count: Int = .max) -> [UInt8] {
        let part = Array(inbox.prefix(count))
        inbox.removeFirst(part.count)
        return part
    }

    var text: String { String(decoding: inbox, as: UTF8.self) }
}

/// A service of the host's at `<path>_<port>`.
final class HostService {
    let descriptor: Int32
    init(_ guest: SocketGuest, port: UInt32, backlog: Int32 = 64) {
        descriptor = UnixSocket.make()
        precondition(UnixSocket.bind(descriptor, to: "\(guest.path)_\(port)") == 0)
        listen(descriptor, backlog)
    }
    deinit { close(descriptor) }

    func accept() -> HostPeer? {
        let peer = Glibc.accept(descriptor, nil, nil)
        return peer >= 0 ? HostPeer(peer) : nil
    }
}

/// Bytes that show where one is missing.
func pattern(_ count: Int, seed: UInt64) -> [UInt8] {
    var random = SeededRandom(seed: seed)
    var bytes = [UInt8]()
    bytes.reserveCapacity(count + 8)
    while bytes.count < count { withUnsafeBytes(of: random.next()) { bytes.append(contentsOf: $0) } }
    return Array(bytes.prefix(count))
}
