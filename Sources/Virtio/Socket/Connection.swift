/// One stream between a port of the guest's and a port of the host's: who may still send, and how much.
///
/// A state machine without sockets or queues: what the guest sends and what befalls the host's socket goes in; what is to be
/// done with the socket comes out as effects, what is to be sent to the guest by `takeControl` and `allowance`.
///
/// All counts wrap, and the guest's are never believed beyond its own harm: a window that it overstates is one that it has.
///
/// Source: [VIRTIO1.2 §5.10.6].
struct Connection {
    /// Two streams in one connection; the bits are SHUTDOWN's flags: what the sender will do no more.
    struct Directions: OptionSet, Hashable, Sendable {
        let rawValue: UInt32
        static let receiving = Directions(rawValue: 1)
        static let sending = Directions(rawValue: 2)
        static let both: Directions = [.receiving, .sending]
    }

    /// What is to be done when a packet of the guest's has been received.
    struct Effects: OptionSet, Hashable, Sendable {
        let rawValue: UInt8
        /// The guest has taken the connection that the host asked for.
        static let accepted = Effects(rawValue: 1)
        /// The packet's data is the host's.
        static let deliver = Effects(rawValue: 2)
        /// The host is to see an end, behind all that was delivered.
        static let endWriting = Effects(rawValue: 4)
        /// The host is to see that nobody reads what it writes.
        static let endReading = Effects(rawValue: 8)
        /// The guest is to be sent a RST.
        static let reset = Effects(rawValue: 16)
        /// As far as the guest goes there is no connection any more, nor will there be a packet for it.
        static let over = Effects(rawValue: 32)
    }

    let guestPort: UInt32
    let hostPort: UInt32
    /// buf_alloc: bytes that are kept for the host's side to take.
    let window: UInt32

    private(set) var isEstablished: Bool
    /// What either side does no more. Only ever grows.
    private(set) var guestEnded: Directions = []
    private(set) var hostEnded: Directions = []

    // From guest to host: come, passed on, and how much of that the guest knows.
    private var received: UInt32 = 0
    private var forwarded: UInt32 = 0
    private var reported: UInt32 = 0
    // From host to guest.
    private var sent: UInt32 = 0
    private var guestBufAlloc: UInt32 = 0
    private var guestFwdCnt: UInt32 = 0
    private var hasAskedForCredit = false

    private var owed: Owed

    private struct Owed: OptionSet {
        let rawValue: UInt8
        static let request = Owed(rawValue: 1)
        static let response = Owed(rawValue: 2)
        static let creditUpdate = Owed(rawValue: 4)
        static let creditRequest = Owed(rawValue: 8)
        static let shutdown = Owed(rawValue: 16)
    }

    /// A connection that the host asks the guest for.
    init(fromHost hostPort: UInt32, toGuest guestPort: UInt32, window: UInt32) {
        self.guestPort = guestPort
        self.hostPort = hostPort
        self.window = window
        isEstablished = false
        owed = .request
    }

    /// A connection that the guest has asked for, and gets.
    init(accepting request: SocketPacket, window: UInt32) {
        guestPort = request.sourcePort
        hostPort = request.destinationPort
        self.window = window
        isEstablished = true
        owed = .response
        guestBufAlloc = request.bufAlloc
        guestFwdCnt = request.fwdCnt
    }

    // MARK: From the guest

    /// - Parameter available: bytes of data that came with the packet; it may say otherwise.
    mutating func receive(_ packet: SocketPacket, available: UInt64) -> Effects {
        guestBufAlloc = packet.bufAlloc
        guestFwdCnt = packet.fwdCnt
        if credit > 0 { hasAskedForCredit = false }
        switch SocketPacket.Operation(rawValue: packet.operation) {
        case .reset: return .over
        case .response where !isEstablished && !owed.contains(.request):
            isEstablished = true
            return .accepted
        case .creditUpdate: return []
        case .creditRequest where isEstablished:
            owed.insert(.creditUpdate)
            return []
        case .data where isEstablished: return receiveData(packet.count, available: available)
        case .shutdown where isEstablished: return receiveShutdown(Directions(rawValue: packet.flags & 3))
        // Anything else has no meaning here, or none at all: the two sides do not agree on what this connection is.
        default: return [.reset, .over]
        }
    }

    private mutating func receiveData(_ count: UInt32, available: UInt64) -> Effects {
        let pending = received &- forwarded
        guard UInt64(count) <= available, !guestEnded.contains(.sending), count <= window &- min(pending, window) else {
            return [.reset, .over]
        }
        guard count > 0 else { return [] }
        received &+= count
        if hostEnded.contains(.receiving) {
            // Sent before the guest could know. It is gone, and its room is free again.
            forwarded &+= count
            return []
        }
        return .deliver
    }

    private mutating func receiveShutdown(_ ended: Directions) -> Effects {
        let new = ended.subtracting(guestEnded)
        guestEnded.formUnion(ended)
        // Both directions: the guest is done, and waits for the RST that says that its address may be used again.
        if guestEnded == .both { return [.reset, .over] }
        var effects: Effects = []
        if new.contains(.sending) { effects.insert(.endWriting) }
        if new.contains(.receiving) { effects.insert(.endReading) }
        settle()
        return effects
    }

    // MARK: From the host

    /// The host's side has taken bytes that were delivered.
    mutating func hostTook(_ count: UInt32) { forwarded &+= min(count, received &- forwarded) }

    /// The host has sent its last.
    mutating func hostEndsSending() { endHost(.sending) }

    /// The host takes no more: what it has not taken is lost.
    mutating func hostEndsReceiving() {
        forwarded = received
        endHost(.receiving)
    }

    private mutating func endHost(_ ended: Directions) {
        let new = ended.subtracting(hostEnded)
        guard !new.isEmpty else { return }
        hostEnded.formUnion(new)
        owed.insert(.shutdown)
        settle()
    }

    /// When neither direction goes on, the host's side says so, whatever it could still do on its own.
    private mutating func settle() {
        let toGuestEnded = hostEnded.contains(.sending) || guestEnded.contains(.receiving)
        let toHostEnded = hostEnded.contains(.receiving) || guestEnded.contains(.sending)
        guard toGuestEnded, toHostEnded, hostEnded != .both else { return }
        hostEnded = .both
        owed.insert(.shutdown)
    }

    /// Whether all that is left is the guest's RST: the host's socket is of no use any more but for what it has yet to take.
    var isClosing: Bool { hostEnded == .both }

    /// Whether the guest has never heard of the connection.
    var isUnannounced: Bool { owed.contains(.request) }

    // MARK: To the guest

    /// How many bytes the guest has room for: peer_free. Source: [VIRTIO1.2 §5.10.6.3].
    private var credit: UInt32 {
        let inFlight = sent &- guestFwdCnt
        return inFlight < guestBufAlloc ? guestBufAlloc &- inFlight : 0
    }

    /// Whether what the host sends can ever reach the guest.
    var takesHostData: Bool {
        isEstablished && !hostEnded.contains(.sending) && !guestEnded.contains(.receiving)
    }

    /// How many bytes of the host's may be sent to the guest now.
    var allowance: UInt32 { takesHostData ? credit : 0 }

    /// The host has data. Where the guest has no room for it, it is asked once.
    mutating func hostHasData() {
        guard takesHostData, credit == 0, !hasAskedForCredit else { return }
        hasAskedForCredit = true
        owed.insert(.creditRequest)
    }

    /// Whether enough was passed on since the guest was last told: a quarter of the window.
    private var isReportDue: Bool {
        isEstablished && !guestEnded.contains(.sending) && !hostEnded.contains(.receiving)
            && forwarded &- reported >= max(1, window / 4)
    }

    var owesControl: Bool { !owed.isEmpty || isReportDue }

    /// The next packet without data that the guest is owed.
    mutating func takeControl(guestCID: UInt64) -> SocketPacket? {
        let operation: SocketPacket.Operation
        if owed.remove(.request) != nil {
            operation = .request
        } else if owed.remove(.response) != nil {
            operation = .response
        } else if owed.remove(.creditUpdate) != nil || isReportDue {
            operation = .creditUpdate
        } else if owed.remove(.creditRequest) != nil {
            operation = .creditRequest
        } else if owed.remove(.shutdown) != nil {
            operation = .shutdown
        } else {
            return nil
        }
        return header(operation, guestCID: guestCID)
    }

    /// The header of `count` bytes of data, which count as sent from now on.
    mutating func takeData(_ count: UInt32, guestCID: UInt64) -> SocketPacket {
        sent &+= count
        return header(.data, count: count, guestCID: guestCID)
    }

    /// What ends the connection at once.
    func reset(guestCID: UInt64) -> SocketPacket {
        SocketPacket(
            sourceCID: SocketPacket.hostCID, destinationCID: guestCID, sourcePort: hostPort, destinationPort: guestPort,
            count: 0, type: SocketPacket.stream, operation: SocketPacket.Operation.reset.rawValue, flags: 0, bufAlloc: window,
            fwdCnt: forwarded)
    }

    /// Every packet says how much room there is. Source: [VIRTIO1.2 §5.10.6.3.2].
    private mutating func header(
        _ operation: SocketPacket.Operation, count: UInt32 = 0, guestCID: UInt64
    ) -> SocketPacket {
        reported = forwarded
        return SocketPacket(
            sourceCID: SocketPacket.hostCID, destinationCID: guestCID, sourcePort: hostPort, destinationPort: guestPort,
            count: count, type: SocketPacket.stream, operation: operation.rawValue,
            flags: operation == .shutdown ? hostEnded.rawValue : 0, bufAlloc: window, fwdCnt: forwarded)
    }
}
