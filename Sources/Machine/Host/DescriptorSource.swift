internal import Glibc
internal import Synchronization
public import VMCore

/// One of the host's descriptors (a keyboard's, a pipe's, a file's) as a guest's input.
///
/// Bounded: what the guest has no room for stays in the descriptor, but for `capacity` bytes; of a keyboard, which must
/// be heard whatever the guest does, `keyboardCapacity` bytes wait here. What is typed before a guest is ready is not
/// lost, nor is it when the guest reboots.
public final class DescriptorSource: @unchecked Sendable {
    private struct State {
        var pending: [UInt8] = []
        var receiver: (any ByteReceiver)?
        var token: UInt64?
        var isWatching = false
        var isEnded = false
        /// A regular file: always readable, and not to be waited for.
        var isFile = false
    }

    private let descriptor: Int32
    private let loop: EventLoop
    private let capacity: Int
    private let isKeyboard: Bool
    /// Bytes that wait for a guest that takes none; what is typed beyond them is lost, as on a terminal's own queue.
    private static let keyboardCapacity = 64 << 10
    private let filter: @Sendable ([UInt8]) -> [UInt8]
    private let state = Mutex(State())

    /// - Parameters:
    ///   - descriptor: stays the caller's.
    ///   - isKeyboard: it is read whether the guest takes its bytes or not: `filter` has keys of its own to see.
    ///   - filter: sees all that is read, on the event loop's thread, and returns what is for the guest.
    public init(
        descriptor: Int32, loop: EventLoop, capacity: Int = 4096, isKeyboard: Bool = false,
        filter: @escaping @Sendable ([UInt8]) -> [UInt8] = { $0 }
    ) {
        self.descriptor = descriptor
        self.loop = loop
        self.capacity = capacity
        self.isKeyboard = isKeyboard
        self.filter = filter
    }

    /// Starts reading.
    public func start() {
        let token = loop.watch(descriptor, for: .readable) { [weak self] _ in self?.pump() }
        state.withLock { state in
            state.token = token
            state.isWatching = token != nil
            state.isFile = token == nil
        }
        if token == nil { loop.post { [weak self] in self?.pump() } }
    }

    /// Stops reading for good.
    public func stop() {
        let token = state.withLock { state in
            state.isEnded = true
            state.receiver = nil
            defer { state.token = nil }
            return state.token
        }
        if let token { loop.unwatch(descriptor, token: token) }
    }

    /// The device is gone: what comes now is the next one's.
    public func disconnect() {
        state.withLock { $0.receiver = nil }
    }

    /// Says which device the input is for: the next life's, after a reboot.
    public func connect(_ receiver: any ByteReceiver) {
        state.withLock { $0.receiver = receiver }
        receiver.setRoomHandler { [weak self] in
            guard let self else { return }
            loop.post { [weak self] in self?.pump() }
        }
        loop.post { [weak self] in self?.pump() }
    }

    /// Moves bytes on: from the descriptor to `pending`, from there to the device. On the loop's thread.
    private func pump() {
        // A file could feed for ever: other handlers get their turn after each round.
        for _ in 0..<16 {
            let isFull = deliver()
            guard !isFull || isKeyboard else { break }
            guard readMore() else { return }
        }
        let again = state.withLock { $0.isFile && !$0.isEnded && $0.pending.isEmpty }
        if again { loop.post { [weak self] in self?.pump() } }
    }

    /// Gives the device what it takes.
    /// - Returns: whether bytes are left over, for want of room or of a device.
    private func deliver() -> Bool {
        let (receiver, bytes) = state.withLock { state in
            // Nobody there: then a pipe's bytes stay in the pipe.
            if state.receiver == nil, !state.pending.isEmpty { setWatching(isKeyboard, &state) }
            return (state.receiver, state.pending)
        }
        guard !bytes.isEmpty else { return false }
        guard let receiver else { return true }
        // Not under our lock: the device takes its own, and may call the room handler.
        let taken = unsafe bytes.withUnsafeBytes { unsafe receiver.receive($0) }
        return state.withLock { state in
            state.pending.removeFirst(min(taken, state.pending.count))
            let isFull = !state.pending.isEmpty
            setWatching(!isFull || isKeyboard, &state)
            return isFull
        }
    }

    private func setWatching(_ wanted: Bool, _ state: inout State) {
        guard let token = state.token, wanted != state.isWatching else { return }
        state.isWatching = wanted
        loop.change(descriptor, token: token, to: wanted ? .readable : [])
    }

    /// Reads once, where reading does not block.
    /// - Returns: whether anything came.
    private func readMore() -> Bool {
        guard !state.withLock({ $0.isEnded }) else { return false }
        var ready = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard unsafe poll(&ready, 1, 0) > 0 else { return false }
        var buffer = [UInt8](repeating: 0, count: capacity)
        let count = unsafe Glibc.read(descriptor, &buffer, buffer.count)
        if count < 0, errno == EINTR || errno == EAGAIN { return false }
        guard count > 0 else {
            // The end of the input is not the end of the guest.
            let token = state.withLock { state in
                state.isEnded = true
                defer { state.token = nil }
                return state.token
            }
            if let token { loop.unwatch(descriptor, token: token) }
            return false
        }
        let forGuest = filter(Array(buffer.prefix(count)))
        state.withLock { state in
            let room = isKeyboard ? max(0, Self.keyboardCapacity - state.pending.count) : .max
            state.pending.append(contentsOf: forGuest.prefix(room))
        }
        return true
    }
}
