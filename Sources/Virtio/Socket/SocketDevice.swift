internal import Synchronization
public import VMCore

/// Stream sockets between the guest's address family VSOCK and Unix sockets of the host's, or services of this process.
///
/// The host connects to a path, writes `CONNECT <port>` and a newline, and reads `OK <port>` once the guest has accepted:
/// what it writes and reads from then on is the connection's. A guest that connects to the host's port P (context 2) is
/// connected to the service of that port, or else to the Unix socket at the path with `_P` behind it. Without a path the
/// device leaves nothing on disk, and no one but its services can be reached.
///
/// Not emulated: datagrams and SOCK_SEQPACKET; contexts other than the host's.
///
/// Source: [VIRTIO1.2 §5.10]. The protocol on the host's side is [FC-VSOCK].
public final class SocketDevice: VirtioDevice {
    public let kind = DeviceKind.socket
    /// Streams, and nothing else. Source: [VIRTIO1.2 §5.10.3].
    public let features: FeatureSet = [.common, .inOrder, FeatureSet(bit: 0)]
    public let queueSizes: [UInt16] = [256, 256, 16]

    enum Queue {
        static let receive = 0, transmit = 1, event = 2
    }

    /// What the host gives at most.
    public struct Limits: Sendable {
        /// Connections at once, those among them whose last bytes the host has yet to take.
        public var connections = 1024
        /// Of the host's: those that have not sent a whole CONNECT line yet. More wait in the listener's backlog.
        public var handshakes = 64
        /// Bytes that a connection keeps for the host's side; at least 4.
        public var window: UInt32 = 256 << 10
        /// How many connections have windows of that size; those beyond have the smaller one.
        public var wideConnections = 64
        public var narrowWindow: UInt32 = 16 << 10
        /// Nanoseconds for a CONNECT line, for the guest's answer to it, for the guest's RST at the end, and for the host to
        /// take what is left when the guest has gone.
        public var handshakeTime: UInt64 = 5_000_000_000
        public var acceptTime: UInt64 = 10_000_000_000
        public var closeTime: UInt64 = 10_000_000_000
        public var lingerTime: UInt64 = 30_000_000_000
        /// Ports of the guest's from which services can be reached. Those below 1024 a guest's kernel gives to root alone.
        public var servicePeers: ClosedRange<UInt32> = 0...UInt32.max
        public init() {}
    }

    let guestCID: UInt64
    let path: String?
    let services: [UInt32: SocketService]
    let limits: Limits
    let events: any EventService
    let clock: any MonotonicClock
    let state: Mutex<State>
    let work: WorkSlot

    /// Packets each way, and connections taken, before others have their turn.
    static let fairShare = 32
    /// Most data of one packet.
    static let largestPacket: UInt32 = 64 << 10
    /// RSTs for packets of no connection that wait for the guest to make room; beyond them nothing more is taken from it.
    /// Source: [VIRTIO1.2 §5.10.6.1.2].
    static let largestRefusalBacklog = 256
    /// How long the listener rests when the host is out of descriptors.
    static let restTime: UInt64 = 100_000_000

    enum Role {
        case free
        /// The host has connected, and not said where to.
        case handshake
        case connection
        /// Over for the guest; the host has yet to take the last bytes.
        case lingering
    }

    /// What a place of the host's table is used for.
    struct Peer {
        var role = Role.free
        var line = ConnectLine()
        var connection = Connection(fromHost: 0, toGuest: 0, window: 0)
        /// Whether it has one of the large windows.
        var isWide = false
        /// Whether the host's side is a service of this process.
        var isService = false
        /// When the place is cleared by force.
        var deadline: UInt64?
    }

    struct State {
        var session: DeviceSession?
        /// A queue is broken: nothing goes on before the reset.
        var isBroken = false
        /// The host's side is gone for good.
        var isClosed = false
        var sockets: HostSocketTable
        var peers: [Peer]
        /// Places of connections, by guest's port and host's.
        var byPorts: [UInt64: Int] = [:]
        /// The host's ports of connections that the host asked for.
        var localPorts: Set<UInt32> = []
        var nextLocalPort = SocketDevice.firstLocalPort
        var handshakes = 0
        var wide = 0

        var listener: SocketListener?
        var listenerToken: UInt64?
        var isListening = false
        /// When to look at the listener again.
        var rest: UInt64?
        var alarm: (any Alarm)?
        var alarmDeadline: UInt64?

        var ready: ReadyQueue
        var refusals: [SocketPacket] = []
        /// A buffer of the rx queue's that is taken and not given back: there was nothing for it after all.
        var holdsReceiveBuffer = false
        var isTransmitStalled = false
        var owesTransportReset = false
        /// Connections that their services have yet to be told of, which is done without the lock.
        var arrivals: [Arrival] = []
        var statistics = Statistics()

        var isServing: Bool { session != nil && !isBroken }
    }

    /// A connection's end for its service.
    struct Arrival {
        let service: SocketService
        let descriptor: Int32
    }

    struct Statistics {
        var connections: UInt64 = 0
        var refused: UInt64 = 0
        var bytesToHost: UInt64 = 0
        var bytesToGuest: UInt64 = 0
        var resets: UInt64 = 0
        var dropped: UInt64 = 0
    }

    // Guarded by the state's lock.
    let receiveChain = DescriptorChain()
    let transmitChain = DescriptorChain()

    /// Connections that the host asks for have ports of the host's from here to 2^31.
    static let firstLocalPort: UInt32 = 1 << 30

    /// - Parameters:
    ///   - guestCID: the guest's context identifier, from 3 on.
    ///   - path: where the host connects; a file that is there until the device goes. Those that the guest connects to have
    ///     the port behind it. nil: the host's other programs are not reached, nor do they reach the guest.
    ///   - services: what the guest is connected to at the host's ports, before any socket at the path.
    /// - Throws: `SocketError`, in words for whoever gave the path.
    public init(
        guestCID: UInt32, path: String?, services: [UInt32: SocketService] = [:], events: any EventService,
        clock: any MonotonicClock, limits: Limits = Limits()
    ) throws(SocketError) {
        guard guestCID >= 3, guestCID != .max else { throw .reservedCID(guestCID) }
        let listener: SocketListener? = if let path { try SocketListener.open(path: path) } else { nil }
        self.guestCID = UInt64(guestCID)
        self.path = path
        self.services = services
        self.events = events
        self.clock = clock
        var limits = limits
        limits.connections = min(max(1, limits.connections), 32_768)
        limits.handshakes = min(max(1, limits.handshakes), 16_384)
        limits.window = max(4, limits.window)
        limits.narrowWindow = max(4, limits.narrowWindow)
        self.limits = limits
        let places = limits.connections + limits.handshakes
        state = Mutex(
            State(
                sockets: HostSocketTable(capacity: places, events: events),
                peers: Array(repeating: Peer(), count: places), ready: ReadyQueue(capacity: places)))
        let slot = WorkSlot()
        work = slot
        slot.connect(events) { [weak self] in self?.serve() }
        let alarm = events.makeAlarm { [weak self] in self?.expire() }
        state.withLock { $0.alarm = alarm }
        guard let listener else { return }
        let token = events.watch(listener.descriptor, for: .readable) { [weak self] _ in self?.acceptHosts() }
        guard let token else { throw .host(call: "watching", path: listener.path, errno: 28) }
        state.withLock { state in
            state.listener = listener
            state.listenerToken = token
            state.isListening = true
        }
    }

    deinit { close() }

    /// Closes every socket of the host's and removes the listener's file, for good: what the host does not take at this moment
    /// is lost. As when the device goes, for a program that ends without that. What the guest asks for afterwards is refused.
    ///
    /// A service loses nothing: what the guest sent is still there for it to read, with an end behind it. Where a socket's
    /// own room does not hold it, a thread hands it on, until the service closes its end or `lingerTime` is over.
    public func close() {
        var last: [LastBytes.Stream] = []
        state.withLock { state in
            if let listener = state.listener, let token = state.listenerToken {
                events.unwatch(listener.descriptor, token: token)
            }
            state.listener = nil
            state.isClosed = true
            state.isListening = false
            state.rest = nil
            state.alarm?.set(deadline: nil)
            state.alarmDeadline = nil
            endAll(&state)
            for index in state.peers.indices where state.peers[index].role != .free {
                if state.peers[index].isService, let stream = state.sockets.takeLastBytes(index) { last.append(stream) }
                release(index, &state)
            }
        }
        LastBytes.handOn(last, within: limits.lingerTime)
    }

    // MARK: As a device

    /// Source: [VIRTIO1.2 §5.10.4].
    public func configuration() -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: guestCID >> ($0 * 8)) } }

    public func start(_ session: DeviceSession) {
        state.withLock { state in
            state.session = session
            state.isBroken = false
            // Told of new buffers only when there are none.
            session.queue(Queue.receive)?.disableNotifications()
        }
        work.schedule()
    }

    public func notify(queue: Int) { work.schedule() }

    /// Every connection ends; what the guest had sent by then is still the host's.
    public func stop() {
        let arrivals = state.withLock { state in
            takeLastPackets(&state)
            endAll(&state)
            state.session = nil
            state.isBroken = false
            state.holdsReceiveBuffer = false
            state.isTransmitStalled = false
            state.owesTransportReset = false
            return takeArrivals(&state)
        }
        announce(arrivals)
    }

    /// Tells the guest that all connections have been interrupted, and interrupts them: its driver ends its own, and
    /// asks for its context identifier again.
    /// Source: [VIRTIO1.2 §5.10.6.7].
    public func resetTransport() {
        state.withLock { state in
            guard state.isServing else { return }
            endAll(&state)
            state.owesTransportReset = true
        }
        work.schedule()
    }

    public var statistics: [(name: String, value: UInt64)] {
        state.withLock { state in
            let counts = state.statistics
            return [
                ("connections", counts.connections), ("refused", counts.refused), ("bytesToHost", counts.bytesToHost),
                ("bytesToGuest", counts.bytesToGuest), ("resets", counts.resets), ("packetsDropped", counts.dropped),
            ]
        }
    }

    // MARK: A turn

    private func serve() {
        let arrivals = state.withLock { state in
            guard let session = state.session, !state.isBroken else { return [Arrival]() }
            serveTransmit(session, &state)
            serveReceive(session, &state)
            serveEvents(session, &state)
            return takeArrivals(&state)
        }
        announce(arrivals)
    }

    /// No device could go on from what the driver did.
    func fail(_ session: DeviceSession, _ state: inout State) {
        session.fail()
        endAll(&state)
        state.isBroken = true
    }

    /// Source: [VIRTIO1.2 §5.10.6.7].
    private func serveEvents(_ session: DeviceSession, _ state: inout State) {
        guard state.owesTransportReset, !state.isBroken, let queue = session.queue(Queue.event) else { return }
        // The transmit queue's chain is free between packets.
        var step = queue.next(transmitChain)
        if step == .empty, queue.enableNotifications() { step = queue.next(transmitChain) }
        switch step {
        case .empty: return
        case .broken: fail(session, &state)
        case .request:
            // An event's identifier: 0 is TRANSPORT_RESET.
            guard transmitChain.store(UInt32(0), at: 0) else { return fail(session, &state) }
            queue.complete(transmitChain, written: 4)
            state.owesTransportReset = false
            session.signalUsed(Queue.event, queue)
        }
    }
}
