internal import Glibc
internal import Synchronization
internal import VMCore

/// A console device's ports and their lock: what the device and the hosts' ends of its ports share.
final class ConsoleBoard: Sendable {
    struct Port {
        let sink: any ByteSink
        let fullSink: FullSink
        let name: [UInt8]
        /// The request that is being sent, as far as `buffer` and `offset` say.
        let chain = DescriptorChain()
        var isSending = false
        var buffer = 0
        var offset: UInt64 = 0

        var owed: OwedMessages = []
        /// The host's wish, and the guest's knowledge: it was told of the port.
        var isPlugged = true
        var isAdded = false
        /// The guest has taken the port into use.
        var isReady = false
        var isHostOpen = true
        var isGuestOpen = false

        /// A caller of `receive` was left with bytes.
        var isCallerWaiting = false
        var roomHandler: (@Sendable () -> Void)?
        var roomIsDue = false
        var openHandler: (@Sendable (Bool) -> Void)?
        /// What the handler was last told.
        var toldOpen = false
    }

    struct State {
        var session: DeviceSession?
        var usesControl = false
        var ports: [Port]
        var size: ConsoleSize
        /// A driver without control messages does not say when it listens. It does when it writes, or has done nothing for
        /// `quietTime`: while it fills its receive queue it may still throw away what it finds there, as Linux does.
        var isListening = false
        var signal: DeviceSignal?
        var alarm: (any Alarm)?
        var sent: UInt64 = 0
        var received: UInt64 = 0
        var lost: UInt64 = 0
        var ignored: UInt64 = 0
    }

    /// A port's bytes and requests in one turn.
    static let fairBytes = 65_536
    static let fairRequests = 32
    /// How long a driver without control messages must have been quiet to be taken for set up, in nanoseconds.
    static let quietTime: UInt64 = 100_000_000

    private let state: Mutex<State>
    private let work = WorkSlot()
    private let clock: any MonotonicClock
    /// For requests that are done with as soon as they are taken. Only with the lock held.
    let scratch = DescriptorChain()

    init(_ channels: [ConsoleChannel], size: ConsoleSize, _ events: any EventService, _ clock: any MonotonicClock) {
        self.clock = clock
        let ports = channels.map { Port(sink: $0.sink, fullSink: $0.fullSink, name: Array($0.name.utf8)) }
        state = Mutex(State(ports: ports, size: size))
        work.connect(events) { [weak self] in self?.serve() }
        let alarm = events.makeAlarm { [weak self] in self?.fellQuiet() }
        state.withLock { $0.alarm = alarm }
        for channel in channels { channel.sink.setSpaceHandler { [work] in work.schedule() } }
    }

    // MARK: The device's calls

    func schedule() { work.schedule() }

    func start(_ session: DeviceSession) {
        state.withLock { state in
            state.session = session
            state.signal = session.signal
            state.usesControl = session.features.contains(.consoleMultiport)
            if !state.usesControl { state.ports[0].isGuestOpen = true }
        }
        work.schedule()
    }

    func stop() {
        state.withLock { state in
            state.session = nil
            state.isListening = false
            state.alarm?.set(deadline: nil)
            for index in state.ports.indices {
                state.ports[index].isSending = false
                state.ports[index].owed = []
                state.ports[index].isAdded = false
                state.ports[index].isReady = false
                state.ports[index].isGuestOpen = false
            }
        }
        // There is no session any more, but there may be handlers to tell.
        work.schedule()
    }

    var size: ConsoleSize { state.withLock { $0.size } }

    func resize(_ size: ConsoleSize) {
        state.withLock { state in
            guard state.size != size else { return }
            state.size = size
            guard state.session?.features.contains(.consoleSize) ?? true else { return }
            state.signal?.configurationChanged()
            if state.ports[0].isReady { state.ports[0].owed.insert(.resize) }
        }
        work.schedule()
    }

    func writeEmergency(_ byte: UInt8) {
        state.withLock { state in
            let taken = unsafe withUnsafeBytes(of: byte) { unsafe state.ports[0].sink.write($0) }
            if taken > 0 { state.sent &+= 1 } else { state.lost &+= 1 }
        }
    }

    var bytesSent: UInt64 { state.withLock { $0.sent } }

    var statistics: [(name: String, value: UInt64)] {
        state.withLock {
            [
                ("bytesSent", $0.sent), ("bytesReceived", $0.received), ("bytesLost", $0.lost),
                ("messagesIgnored", $0.ignored),
            ]
        }
    }

    // MARK: The ports' calls

    func setRoomHandler(_ handler: @escaping @Sendable () -> Void, port: Int) {
        state.withLock { $0.ports[port].roomHandler = handler }
    }

    func setOpenHandler(_ handler: @escaping @Sendable (Bool) -> Void, port: Int) {
        state.withLock { $0.ports[port].openHandler = handler }
        work.schedule()
    }

    func isOpenInGuest(port: Int) -> Bool { state.withLock { $0.ports[port].isGuestOpen } }

    func setHostOpen(_ isOpen: Bool, port: Int) {
        state.withLock { state in
            guard state.ports[port].isHostOpen != isOpen else { return }
            state.ports[port].isHostOpen = isOpen
            if state.ports[port].isReady { state.ports[port].owed.insert(.open) }
        }
        work.schedule()
    }

    func setPlugged(_ isPlugged: Bool, port: Int) {
        state.withLock { state in
            guard state.ports[port].isPlugged != isPlugged else { return }
            state.ports[port].isPlugged = isPlugged
            guard state.usesControl, state.session != nil else { return }
            if isPlugged {
                // What was not yet told to have gone goes first: the driver learns of a new port, not of the old one.
                if state.ports[port].owed.contains(.remove) || !state.ports[port].isAdded { owe(.add, port, &state) }
            } else {
                finishSending(port, &state)
                state.ports[port].owed = state.ports[port].isAdded ? .remove : []
                state.ports[port].isGuestOpen = false
                state.ports[port].isReady = false
            }
        }
        work.schedule()
    }

    /// Only a driver that said that it is ready hears of ports.
    private func owe(_ message: OwedMessages, _ port: Int, _ state: inout State) {
        if state.isListening { state.ports[port].owed.insert(message) }
    }

    func receive(_ bytes: UnsafeRawBufferPointer, port: Int) -> Int {
        let taken = state.withLock { state -> Int in
            let taken = unsafe fill(bytes, port, &state)
            state.received &+= UInt64(taken)
            if taken < bytes.count { state.ports[port].isCallerWaiting = true }
            return taken
        }
        // The event loop sees when there is room.
        if taken < bytes.count { work.schedule() }
        return taken
    }

    private func isOpenForInput(_ port: Int, _ state: borrowing State) -> Bool {
        state.ports[port].isPlugged && state.ports[port].isHostOpen && state.ports[port].isGuestOpen
            && (state.usesControl || state.isListening)
    }

    private func fill(_ bytes: UnsafeRawBufferPointer, _ port: Int, _ state: inout State) -> Int {
        guard let session = state.session, isOpenForInput(port, state),
            let queue = session.queue(Self.receiveQueue(port))
        else { return 0 }
        var taken = 0
        var rounds = 0
        // As many buffers as there can be: a guest that adds them as fast as they are filled must not hold the caller.
        while taken < bytes.count, rounds < Int(queue.size) {
            rounds &+= 1
            let step = queue.next(scratch)
            if step == .request {
                let written = unsafe scratch.write(UnsafeRawBufferPointer(rebasing: bytes[taken...]), at: 0)
                queue.complete(scratch, written: UInt64(written))
                taken &+= written
            } else if step == .broken {
                session.fail()
                break
            } else if !queue.enableNotifications() {
                break
            }
        }
        session.signalUsed(Self.receiveQueue(port), queue)
        return taken
    }

    // MARK: On the event loop

    private func fellQuiet() {
        state.withLock { $0.isListening = $0.session != nil && ($0.isListening || !$0.usesControl) }
        work.schedule()
    }

    private func serve() {
        if state.withLock({ serve(&$0) }) { work.schedule() }
        tellHandlers()
    }

    func transmitWaiting() -> Bool {
        // Bounded, because the guest may still be writing.
        for _ in 0..<256 where !state.withLock({ serve(&$0) }) { break }
        work.schedule()
        return state.withLock { $0.ports.contains { $0.isSending } }
    }

    /// One turn.
    /// - Returns: whether there is more to do at once.
    private func serve(_ state: inout State) -> Bool {
        guard let session = state.session else { return false }
        var hasMore = false
        if state.usesControl {
            if takeControl(session, &state) { hasMore = true }
            if sendControl(session, &state) { hasMore = true }
        }
        for port in state.ports.indices {
            if state.usesControl ? state.ports[port].isReady : port == 0 {
                if transmit(port, session, &state) { hasMore = true }
            }
            lookForRoom(port, session, &state)
        }
        return hasMore
    }

    private func tellHandlers() {
        for port in state.withLock({ $0.ports.indices }) {
            let (room, open, isOpen) = state.withLock { state -> ((@Sendable () -> Void)?, (@Sendable (Bool) -> Void)?, Bool) in
                let isRoomDue = state.ports[port].roomIsDue
                state.ports[port].roomIsDue = false
                let isOpen = state.ports[port].isGuestOpen
                let isOpenDue = state.ports[port].toldOpen != isOpen && state.ports[port].openHandler != nil
                if isOpenDue { state.ports[port].toldOpen = isOpen }
                return (
                    isRoomDue ? state.ports[port].roomHandler : nil, isOpenDue ? state.ports[port].openHandler : nil, isOpen
                )
            }
            open?(isOpen)
            room?()
        }
    }

    private func lookForRoom(_ port: Int, _ session: DeviceSession, _ state: inout State) {
        guard state.ports[port].isCallerWaiting, let queue = session.queue(Self.receiveQueue(port)),
            queue.enableNotifications()
        else { return }
        if isOpenForInput(port, state) {
            state.ports[port].isCallerWaiting = false
            state.ports[port].roomIsDue = true
        } else if port == 0, !state.usesControl, !state.isListening {
            state.alarm?.set(deadline: clock.now() &+ Self.quietTime)
        }
    }

    // MARK: Output

    private enum Sent { case all, full, share }

    /// - Returns: whether the port's share ended before its work.
    private func transmit(_ port: Int, _ session: DeviceSession, _ state: inout State) -> Bool {
        guard let queue = session.queue(Self.transmitQueue(port)) else { return false }
        let chain = state.ports[port].chain
        var bytes = Self.fairBytes
        var rounds = 0
        var hasMore = false
        serving: while true {
            guard rounds < Self.fairRequests else {
                hasMore = true
                break
            }
            rounds &+= 1
            if !state.ports[port].isSending {
                let step = queue.next(chain)
                if step == .broken {
                    session.fail()
                    break
                }
                guard step == .request else {
                    if queue.enableNotifications() { continue }
                    break
                }
                if !state.usesControl { state.isListening = true }
                state.ports[port].isSending = true
                state.ports[port].buffer = 0
                state.ports[port].offset = 0
            }
            switch send(port, &bytes, &state) {
            case .all:
                state.ports[port].isSending = false
                queue.complete(chain, written: 0)
            case .full: break serving
            case .share:
                hasMore = true
                break serving
            }
        }
        session.signalUsed(Self.transmitQueue(port), queue)
        return hasMore
    }

    /// Sends from where the request's sending has come to.
    private func send(_ port: Int, _ share: inout Int, _ state: inout State) -> Sent {
        let chain = state.ports[port].chain
        let isHeard = state.ports[port].isHostOpen
        while state.ports[port].buffer < chain.readableBuffers {
            let buffer = unsafe chain.readable[state.ports[port].buffer]
            let rest = unsafe UInt64(buffer.iov_len) &- state.ports[port].offset
            let count = Int(min(rest, UInt64(share)))
            guard count > 0 else { return .share }
            var taken = 0
            if isHeard, let base = unsafe buffer.iov_base {
                let place = unsafe base + Int(state.ports[port].offset)
                taken = unsafe min(count, state.ports[port].sink.write(UnsafeRawBufferPointer(start: place, count: count)))
                state.sent &+= UInt64(taken)
            }
            if taken < count, !isHeard || state.ports[port].fullSink == .loses {
                state.lost &+= UInt64(count &- taken)
                taken = count
            }
            share &-= taken
            state.ports[port].offset &+= UInt64(taken)
            guard taken == count else { return .full }
            if UInt64(count) == rest {
                state.ports[port].buffer &+= 1
                state.ports[port].offset = 0
            }
        }
        return .all
    }

    /// Gives back what was being sent, because the port's queues are the driver's again.
    private func finishSending(_ port: Int, _ state: inout State) {
        guard state.ports[port].isSending, let session = state.session,
            let queue = session.queue(Self.transmitQueue(port))
        else { return }
        state.ports[port].isSending = false
        queue.complete(state.ports[port].chain, written: 0)
        session.signalUsed(Self.transmitQueue(port), queue)
    }

    // MARK: Queue numbers. Source: [VIRTIO1.2 §5.3.2].

    static func receiveQueue(_ port: Int) -> Int { port == 0 ? 0 : 2 &* port &+ 2 }
    static func transmitQueue(_ port: Int) -> Int { receiveQueue(port) &+ 1 }
    static let controlReceiveQueue = 2
    static let controlTransmitQueue = 3
}
