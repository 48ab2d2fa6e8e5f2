internal import CHost
internal import Glibc
internal import Synchronization
public import VMCore

/// A Unix socket as the host's end of a console port: whoever connects to it is at the other end of the port until both ways are
/// closed. One at a time; who comes next waits.
///
/// The guest hears of it: without a peer the port is closed at the host's end. Nothing that a peer has sent is lost while the
/// machine lives, though the peer may have gone: the guest takes it before the next one's. What the guest sends to a peer that has
/// gone is.
///
/// Locks: `write` is called with the device's. The other calls into the device are made with none.
public final class PortSocket: ByteSink {
    private struct State {
        /// The device holds this sink: not the other way round, too.
        weak var port: ConsolePort?
        var listenerToken: UInt64?
        /// Looks at the listener again when the host was out of descriptors.
        var alarm: (any Alarm)?
        var spaceHandler: (@Sendable () -> Void)?
        var peer: Peer?
    }

    private struct Peer {
        let descriptor: Int32
        let token: UInt64
        var interest = Readiness.readable
        /// What it has sent, and the guest has no room for.
        var pending: [UInt8] = []
        /// It takes nothing at the moment.
        var isFull = false
        /// It sends no more; it takes no more either.
        var isEnded = false
        var isGone = false
    }

    private let listener: SocketListener
    private let events: any EventService
    private let clock: any MonotonicClock
    private let state = Mutex(State())

    /// Bytes that are taken from a peer before the guest has taken them, and how often in one turn.
    static let portion = 4096
    static let fairPortions = 16
    /// How long the listener rests when the host is out of descriptors.
    static let restTime: UInt64 = 100_000_000

    /// - Parameters:
    ///   - path: a file that is there as long as this object, for this user alone to connect to.
    ///   - clock: the one that the service's alarms go by.
    /// - Throws: `SocketError`, in words for whoever gave the path.
    public init(path: String, events: any EventService, clock: any MonotonicClock) throws(SocketError) {
        listener = try SocketListener.open(path: path, suffix: 0)
        self.events = events
        self.clock = clock
        // Nobody is listened to before there is a port.
        guard let token = events.watch(listener.descriptor, for: [], { [weak self] _ in self?.accept() }) else {
            throw .host(call: "watching", path: path, errno: ENOSPC)
        }
        let alarm = events.makeAlarm { [weak self] in self?.listen(true) }
        state.withLock { state in
            state.listenerToken = token
            state.alarm = alarm
        }
    }

    /// Has the socket's peers speak with a port, whose sink this is. Once.
    public func connect(_ port: ConsolePort) {
        port.setHostOpen(false)
        port.setRoomHandler { [weak self] in self?.pump() }
        state.withLock { $0.port = port }
        listen(true)
    }

    deinit {
        state.withLock { state in
            if let token = state.listenerToken { events.unwatch(listener.descriptor, token: token) }
            state.alarm?.set(deadline: nil)
            leave(&state)
        }
    }

    // MARK: From the guest

    public func setSpaceHandler(_ handler: @escaping @Sendable () -> Void) { state.withLock { $0.spaceHandler = handler } }

    public func write(_ bytes: UnsafeRawBufferPointer) -> Int {
        state.withLock { state in
            guard let peer = state.peer else { return 0 }
            let count = unsafe peer.isGone ? -1 : send(peer.descriptor, bytes.baseAddress, bytes.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
            if count == bytes.count { return count }
            // Nobody takes it any more.
            if count < 0, peer.isGone || (errno != EAGAIN && errno != EINTR) { return bytes.count }
            state.peer?.isFull = true
            watch(&state)
            return max(0, count)
        }
    }

    // MARK: On the event loop

    private func listen(_ isWanted: Bool) {
        if let token = state.withLock({ $0.listenerToken }) { events.change(listener.descriptor, token: token, to: isWanted ? .readable : []) }
    }

    private func accept() {
        let descriptor = chost_accept(listener.descriptor)
        guard ![EAGAIN, EINTR, ECONNABORTED, EPROTO].contains(-descriptor) else { return }
        listen(false)
        guard descriptor >= 0, let token = events.watch(descriptor, for: .readable, { [weak self] in self?.ready($0) }) else {
            // The host is out of descriptors or memory, and would report the listener again at once, for ever.
            if descriptor >= 0 { close(descriptor) }
            let alarm = state.withLock { $0.alarm }
            alarm?.set(deadline: clock.now() &+ Self.restTime)
            return
        }
        let port = state.withLock { state in
            state.peer = Peer(descriptor: descriptor, token: token)
            return state.port
        }
        port?.setHostOpen(true)
    }

    private func ready(_ readiness: Readiness) {
        let handler = state.withLock { state -> (@Sendable () -> Void)? in
            if !readiness.isDisjoint(with: .hangup) { state.peer?.isGone = true }
            guard state.peer?.isFull == true, !readiness.isDisjoint(with: [.writable, .hangup]) else { return nil }
            state.peer?.isFull = false
            return state.spaceHandler
        }
        pump()
        handler?()
    }

    /// Hands on what the peer sends, as far as the guest takes it.
    private func pump() {
        for _ in 0..<Self.fairPortions {
            let (port, bytes) = state.withLock { state in
                read(&state)
                return (state.port, state.peer?.pending ?? [])
            }
            guard let port, !bytes.isEmpty else { break }
            let taken = unsafe bytes.withUnsafeBytes { unsafe port.receive($0) }
            state.withLock { state in _ = state.peer?.pending.removeFirst(taken) }
            // The port says when there is room.
            if taken < bytes.count { break }
        }
        let isOver = state.withLock { state in
            guard let peer = state.peer, peer.isGone, peer.isEnded, peer.pending.isEmpty else {
                watch(&state)
                return false
            }
            leave(&state)
            return true
        }
        guard isOver else { return }
        state.withLock { $0.port }?.setHostOpen(false)
        listen(true)
    }

    private func read(_ state: inout State) {
        guard let peer = state.peer, peer.pending.isEmpty, !peer.isEnded else { return }
        var buffer = [UInt8](repeating: 0, count: Self.portion)
        let count = unsafe recv(peer.descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
        if count > 0 {
            buffer.removeLast(buffer.count - count)
            state.peer?.pending = buffer
        } else if count == 0 || (errno != EAGAIN && errno != EINTR) {
            state.peer?.isEnded = true
        }
    }

    /// Waits for what the peer can do next. Its going is waited for by itself, unless it is known: it would be reported for ever.
    private func watch(_ state: inout State) {
        guard let peer = state.peer else { return }
        var interest: Readiness = peer.pending.isEmpty && !peer.isEnded ? .readable : peer.isGone ? [] : .hangup
        if peer.isFull, !peer.isGone { interest.insert(.writable) }
        guard interest != peer.interest else { return }
        state.peer?.interest = interest
        events.change(peer.descriptor, token: peer.token, to: interest)
    }

    private func leave(_ state: inout State) {
        guard let peer = state.peer else { return }
        events.unwatch(peer.descriptor, token: peer.token)
        close(peer.descriptor)
        state.peer = nil
    }
}
