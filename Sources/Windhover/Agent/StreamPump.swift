internal import Glibc
internal import Machine
internal import VMCore

/// Where a command's standard input comes from.
public enum StreamSource: Sendable {
    /// A file, pipe, socket or terminal. It stays the caller's, with its flags, and may be closed once it was given.
    case descriptor(Int32)
    case bytes([UInt8])
}

/// Where a command's output goes to.
public enum StreamSink: Sendable {
    /// A file, pipe, socket or terminal. It stays the caller's, with its flags, and may be closed once it was given.
    case descriptor(Int32)
    case collector(OutputCollector)
    /// It is read, and dropped.
    case nothing
}

/// Copies one direction of a stream between guest and host, on a thread of its own: who does not read holds back
/// nobody else.
final class StreamPump: @unchecked Sendable {
    enum Outcome: Hashable, Sendable {
        /// All that the source had is where it was to go.
        case finished
        /// Whoever read it has closed his end.
        case readerGone
        /// The guest had nothing more to say, and did not end its stream.
        case stalled
        /// It was ended from another thread.
        case stopped
        case failed(call: String, errno: Int32)
    }

    enum Origin: Sendable {
        case descriptor(StreamDescriptor)
        case bytes([UInt8])
    }

    enum Target: Sendable {
        case descriptor(StreamDescriptor)
        case collector(OutputCollector)
        case nothing
    }

    private enum Order: Int {
        case run
        /// The guest has said all it had to say: what is under way still comes, soon.
        case finish
        /// What is here already is copied, as far as nobody has to be waited for.
        case takeRest
        case stop
    }

    private enum Wait {
        case ready
        /// Look at the order again.
        case woken
        /// The guest has closed its end of an input.
        case guestGone
        case tooLong
    }

    private static let bufferSize = 64 << 10
    /// Milliseconds that a guest which has ended its command may pause with what it printed, at once and in all.
    private static let patience: Int32 = 5_000
    private static let totalPatience: UInt64 = 30_000_000_000
    /// Bytes that may come after the end of the command, which are those that were on their way; and after the machine's.
    private static let mostAfterEnd = 64 << 20
    private static let mostOfRest = 4 << 20

    private let isTowardsGuest: Bool
    /// What the guest is given when the source has ended.
    private let ending: [UInt8]
    private let wakeup: WakeupEvent
    private let clock = HostClock()
    private let condition = Monitor()
    // Guarded by the condition.
    private var order = Order.run
    private var outcome: Outcome?
    // The pump's thread's own.
    private var origin: Origin?
    private var target: Target?
    private var stream: StreamDescriptor?
    private var onEnd: (@Sendable (Outcome) -> Void)?
    private var bytesAfterEnd = 0
    private var waitedAfterEnd: UInt64 = 0

    private init(
        stream: StreamDescriptor, from origin: Origin, to target: Target, isTowardsGuest: Bool, ending: [UInt8] = [],
        onEnd: @escaping @Sendable (Outcome) -> Void
    ) throws(AgentError) {
        self.stream = stream
        self.origin = origin
        self.target = target
        self.isTowardsGuest = isTowardsGuest
        self.ending = ending
        self.onEnd = onEnd
        guard let wakeup = WakeupEvent() else { throw .host(call: "eventfd", errno: errno) }
        self.wakeup = wakeup
        guard let thread = Thread(name: isTowardsGuest ? "guest-input" : "guest-output", { [self] in run() }) else {
            throw .host(call: "pthread_create", errno: EAGAIN)
        }
        thread.detach()
    }

    /// Copies a source to the guest, and ends the guest's input where the source ends.
    /// - Parameters:
    ///   - ending: comes behind all that the source had.
    ///   - onEnd: called once, on the pump's thread, with no lock held.
    static func input(
        from source: Origin, to stream: StreamDescriptor, ending: [UInt8] = [], onEnd: @escaping @Sendable (Outcome) -> Void
    ) throws(AgentError) -> StreamPump {
        try StreamPump(stream: stream, from: source, to: .descriptor(stream), isTowardsGuest: true, ending: ending, onEnd: onEnd)
    }

    /// Copies what the guest prints to a sink. Where that is closed, so is the guest's stream, as a pipe would be.
    /// - Parameter onEnd: called once, on the pump's thread, with no lock held.
    static func output(
        from stream: StreamDescriptor, to sink: Target, onEnd: @escaping @Sendable (Outcome) -> Void
    ) throws(AgentError) -> StreamPump {
        try StreamPump(stream: stream, from: .descriptor(stream), to: sink, isTowardsGuest: false, onEnd: onEnd)
    }

    /// The command has ended: of its output what is on its way is waited for, within bounds; input ends at once. Any thread.
    func finish() { give(isTowardsGuest ? .stop : .finish) }
    /// Nothing more comes: what is here is copied without waiting for anybody. Any thread.
    func takeRest() { give(isTowardsGuest ? .stop : .takeRest) }
    /// Ends it at once. Any thread.
    func stop() { give(.stop) }

    /// - Parameter deadline: nanoseconds of the host's monotonic clock.
    /// - Returns: nil at the deadline.
    func wait(until deadline: UInt64? = nil) -> Outcome? {
        condition.locked {
            while outcome == nil { if !condition.wait(until: deadline) { break } }
            return outcome
        }
    }

    private func give(_ next: Order) {
        let isNew = condition.locked {
            guard next.rawValue > order.rawValue else { return false }
            order = next
            return true
        }
        // To be woken for nothing would begin its patience anew.
        if isNew { wakeup.signal() }
    }

    // MARK: The thread

    private func run() {
        var buffer = [UInt8](repeating: 0, count: Self.bufferSize)
        var result = unsafe buffer.withUnsafeMutableBytes { unsafe copy(through: $0) }
        if result == .finished, !ending.isEmpty { result = unsafe ending.withUnsafeBytes { unsafe deliver($0) } ?? .finished }
        if isTowardsGuest {
            // A source that fails has ended all the same.
            if result != .stopped { stream?.endWriting() }
        } else if result != .finished {
            stream?.endBoth()
        }
        stream = nil
        origin = nil
        target = nil
        condition.locked {
            outcome = result
            condition.wakeAll()
        }
        onEnd?(result)
        // Whoever made the pump may be kept by it, and keep it.
        onEnd = nil
    }

    private func copy(through buffer: UnsafeMutableRawBufferPointer) -> Outcome {
        guard let origin else { return .stopped }
        switch origin {
        case .bytes(let bytes): return unsafe bytes.withUnsafeBytes { unsafe deliver($0) } ?? .finished
        case .descriptor(let source):
            while true {
                let current = condition.locked { order }
                if current == .stop { return .stopped }
                if current != .run, bytesAfterEnd >= (current == .finish ? Self.mostAfterEnd : Self.mostOfRest) { return .stalled }
                // What a guest that reads no more would lose is left to whoever reads it next.
                if isTowardsGuest {
                    switch waitForSource(source, current) {
                    case .ready: break
                    case .woken: continue
                    case .guestGone: return .readerGone
                    case .tooLong: return .stopped
                    }
                }
                let count = unsafe source.read(into: buffer)
                if count > 0 {
                    if current != .run { bytesAfterEnd += count }
                    if let end = unsafe deliver(UnsafeRawBufferPointer(rebasing: buffer[..<count])) { return end }
                    continue
                }
                if count == 0 { return .finished }
                guard count == -Int(EAGAIN) else {
                    // A peer that went away without a word has ended its stream.
                    if count == -Int(ECONNRESET), !isTowardsGuest { return .finished }
                    return .failed(call: "read", errno: Int32(-count))
                }
                if isTowardsGuest { continue }
                switch waitForSource(source, current) {
                case .ready, .woken, .guestGone: break
                case .tooLong: return current == .finish ? .stalled : .stopped
                }
            }
        }
    }

    /// Writes all of the bytes, as long as it takes.
    /// - Returns: nil, or why there is no use in going on.
    private func deliver(_ bytes: UnsafeRawBufferPointer) -> Outcome? {
        switch target {
        case nil, .nothing: return nil
        case .collector(let collector):
            unsafe collector.append(bytes)
            return nil
        case .descriptor(let sink):
            var start = 0
            while start < bytes.count {
                let current = condition.locked { order }
                if current == .stop { return .stopped }
                let count = unsafe sink.write(UnsafeRawBufferPointer(rebasing: bytes[start...]))
                if count > 0 {
                    start += count
                    continue
                }
                switch Int32(-count) {
                case EAGAIN:
                    if wait(for: POLLOUT, of: sink, milliseconds: current == .takeRest ? 0 : -1) == .tooLong { return .stopped }
                case EPIPE, ECONNRESET: return .readerGone
                default: return .failed(call: "write", errno: count == 0 ? EIO : Int32(-count))
                }
            }
            return nil
        }
    }

    private func waitForSource(_ source: StreamDescriptor, _ current: Order) -> Wait {
        switch current {
        case .run: return wait(for: POLLIN, of: source, milliseconds: -1)
        case .finish:
            guard waitedAfterEnd < Self.totalPatience else { return .tooLong }
            let before = clock.now()
            let result = wait(for: POLLIN, of: source, milliseconds: Self.patience)
            waitedAfterEnd &+= clock.now() &- before
            return result
        case .takeRest, .stop: return .tooLong
        }
    }

    private func wait(for events: Int32, of descriptor: StreamDescriptor, milliseconds: Int32) -> Wait {
        var polls = [
            pollfd(fd: wakeup.descriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: descriptor.number, events: Int16(events), revents: 0),
            // The guest's end of an input: it may be closed while the source has nothing.
            pollfd(fd: isTowardsGuest ? stream?.number ?? -1 : -1, events: 0, revents: 0),
        ]
        let count = unsafe poll(&polls, nfds_t(polls.count), milliseconds)
        guard count > 0 else { return count == 0 ? .tooLong : .woken }
        if polls[0].revents != 0 {
            wakeup.clear()
            return .woken
        }
        return polls[2].revents != 0 ? .guestGone : .ready
    }
}
