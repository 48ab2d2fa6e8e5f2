/// What the two sides of a console device tell each other about ports. Source: [VIRTIO1.2 §5.3.6.2].
///
/// ```
/// 0        4        6        8
/// | port   | event  | value  | a size or a name
/// ```
struct ControlMessage: Hashable, BitwiseCopyable {
    /// Bytes of a message without what follows it.
    static let byteCount: UInt64 = 8

    var port: UInt32
    var event: UInt16
    var value: UInt16

    static let deviceReady: UInt16 = 0
    static let portAdd: UInt16 = 1
    static let portRemove: UInt16 = 2
    static let portReady: UInt16 = 3
    static let consolePort: UInt16 = 4
    static let resize: UInt16 = 5
    static let portOpen: UInt16 = 6
    static let portName: UInt16 = 7

    init(port: Int, event: UInt16, value: UInt16) {
        self.port = UInt32(truncatingIfNeeded: port)
        self.event = event
        self.value = value
    }

    init(_ word: UInt64) {
        port = UInt32(truncatingIfNeeded: word)
        event = UInt16(truncatingIfNeeded: word >> 32)
        value = UInt16(truncatingIfNeeded: word >> 48)
    }

    /// The eight bytes as a little-endian number.
    var word: UInt64 { UInt64(port) | UInt64(event) << 32 | UInt64(value) << 48 }
}

/// The messages that a port owes the driver, each at most once: a set in place of a list, so that a driver that takes none
/// makes none pile up. What a message says is looked up as it goes out.
struct OwedMessages: OptionSet, BitwiseCopyable {
    let rawValue: UInt8
    static let remove = OwedMessages(rawValue: 1)
    static let add = OwedMessages(rawValue: 2)
    static let console = OwedMessages(rawValue: 4)
    static let name = OwedMessages(rawValue: 8)
    static let resize = OwedMessages(rawValue: 16)
    static let open = OwedMessages(rawValue: 32)

    /// The one that goes out first.
    var first: OwedMessages { OwedMessages(rawValue: rawValue & (~rawValue &+ 1)) }
}

/// The control queues. All with the lock held.
extension ConsoleBoard {
    func takeControl(_ session: DeviceSession, _ state: inout State) -> Bool {
        guard let queue = session.queue(Self.controlTransmitQueue) else { return false }
        var hasMore = true
        for _ in 0..<Self.fairRequests {
            let step = queue.next(scratch)
            if step == .request {
                // One that is too short is no message.
                if let word = scratch.load(UInt64.self, at: 0) {
                    if !take(ControlMessage(UInt64(littleEndian: word)), &state) { state.ignored &+= 1 }
                } else {
                    state.ignored &+= 1
                }
                queue.complete(scratch, written: 0)
            } else if step == .broken {
                session.fail()
                hasMore = false
                break
            } else if !queue.enableNotifications() {
                hasMore = false
                break
            }
        }
        session.signalUsed(Self.controlTransmitQueue, queue)
        return hasMore
    }

    /// - Returns: whether the message means anything.
    private func take(_ message: ControlMessage, _ state: inout State) -> Bool {
        if message.event == ControlMessage.deviceReady {
            guard message.value == 1 else { return false }
            state.isListening = true
            // Once more is no second port. Source: [VIRTIO1.2 §5.3.6.2.1].
            for port in state.ports.indices where state.ports[port].isPlugged && !state.ports[port].isAdded {
                state.ports[port].owed.insert(.add)
            }
            return true
        }
        guard let port = Int(exactly: message.port), port < state.ports.count, state.ports[port].isAdded,
            !state.ports[port].owed.contains(.remove)
        else { return false }
        switch message.event {
        case ControlMessage.portReady:
            state.ports[port].isReady = message.value == 1
            guard message.value == 1 else { return true }
            if port == 0 {
                state.ports[port].owed.formUnion([.console, .open])
                if state.session?.features.contains(.consoleSize) == true { state.ports[port].owed.insert(.resize) }
            } else {
                state.ports[port].owed.formUnion([.name, .open])
            }
        case ControlMessage.portOpen where message.value <= 1: state.ports[port].isGuestOpen = message.value == 1
        default: return false
        }
        return true
    }

    func sendControl(_ session: DeviceSession, _ state: inout State) -> Bool {
        guard let queue = session.queue(Self.controlReceiveQueue) else { return false }
        var port = 0
        var rounds = 0
        var hasMore = false
        while port < state.ports.count {
            let message = state.ports[port].owed.first
            guard !message.isEmpty else {
                port &+= 1
                continue
            }
            guard rounds < Self.fairRequests else {
                hasMore = true
                break
            }
            rounds &+= 1
            let step = queue.next(scratch)
            if step == .request {
                // A buffer that no message fits in goes back empty, and the message waits for a better one.
                let written = write(message, port, state)
                if written > 0 { sent(message, port, &state) }
                queue.complete(scratch, written: written)
            } else if step == .broken {
                session.fail()
                break
            } else if !queue.enableNotifications() {
                break
            }
        }
        session.signalUsed(Self.controlReceiveQueue, queue)
        return hasMore
    }

    /// Writes a message into the scratch chain.
    /// - Returns: bytes; 0 where it does not fit.
    private func write(_ message: OwedMessages, _ port: Int, _ state: borrowing State) -> UInt64 {
        let (event, value): (UInt16, UInt16) = switch message {
        case .remove: (ControlMessage.portRemove, 0)
        case .add: (ControlMessage.portAdd, 0)
        case .console: (ControlMessage.consolePort, 1)
        case .name: (ControlMessage.portName, 1)
        case .resize: (ControlMessage.resize, 0)
        default: (ControlMessage.portOpen, state.ports[port].isHostOpen ? 1 : 0)
        }
        let name = message == .name ? state.ports[port].name : []
        let count = ControlMessage.byteCount &+ (message == .resize ? 4 : UInt64(name.count))
        guard scratch.writableBytes >= count else { return 0 }
        scratch.store(ControlMessage(port: port, event: event, value: value).word.littleEndian, at: 0)
        if message == .resize {
            let size = UInt32(state.size.columns) | UInt32(state.size.rows) << 16
            scratch.store(size.littleEndian, at: ControlMessage.byteCount)
        }
        unsafe name.withUnsafeBytes { unsafe _ = scratch.write($0, at: ControlMessage.byteCount) }
        return count
    }

    private func sent(_ message: OwedMessages, _ port: Int, _ state: inout State) {
        state.ports[port].owed.remove(message)
        if message == .add { state.ports[port].isAdded = true }
        if message == .remove { state.ports[port].isAdded = false }
    }
}
