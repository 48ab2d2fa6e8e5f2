public import Glibc
internal import Synchronization
public import VMCore

/// A link to the outside through passt, a process that has the host's sockets do what the guest's frames ask for. Needs no
/// privileges. No headers: the guest's checksums are its own.
///
/// When passt ends, or breaks the protocol, the link is down, and stays so.
///
/// Source: [PASST].
@safe public final class PasstBackend: NetworkBackend, @unchecked Sendable {
    public let carriesHeader = false

    /// Octets of the longest packet, for both sides to know: the link is the host's own memory, and whoever is beyond it gets segments
    /// and fragments of passt's making. Many packets of 1500 octets cost a guest several times what few long ones do. Not the longest
    /// possible: without checksum offload Linux copies a packet into one piece of memory before it sends it, and pieces of 16 KiB are to
    /// be had when larger ones no longer are.
    public static let mtu: UInt16 = 15_000

    private var stream: FrameStream
    /// Behind a lock of its own: it is reaped on the event loop, with the device's lock not held.
    private let process: Mutex<PasstProcess?>
    private let onEnd: @Sendable (String) -> Void

    private var events: (any EventService)?
    private var clock: (any MonotonicClock)?
    private var token: UInt64?
    private var reaper: (any Alarm)?
    private var hasEnded = false

    /// Starts passt.
    ///
    /// - Parameters:
    ///   - forwards: ports of the host's that lead to the guest.
    ///   - arguments: more of passt's own.
    ///   - onEnd: told once, in words, when passt ends by itself; on the event loop with the device's lock held, so that it
    ///     must not block or call back.
    /// - Throws: `PasstError`.
    public convenience init(
        forwards: [PortForward] = [], arguments: [String] = [], program: String = "passt",
        onEnd: @escaping @Sendable (String) -> Void = { _ in }
    ) throws(PasstError) {
        for forward in forwards { try forward.check() }
        let process = try PasstProcess(
            program: program, arguments: ["--mtu", "\(Self.mtu)"] + forwards.flatMap(\.arguments) + arguments)
        self.init(descriptor: process.socket, process: process, onEnd: onEnd)
    }

    /// Over a stream socket that somebody else serves.
    /// - Parameter descriptor: connected; closed with this.
    public convenience init(descriptor: Int32, onEnd: @escaping @Sendable (String) -> Void = { _ in }) {
        self.init(descriptor: descriptor, process: nil, onEnd: onEnd)
    }

    private init(descriptor: Int32, process: PasstProcess?, onEnd: @escaping @Sendable (String) -> Void) {
        stream = FrameStream(descriptor: descriptor)
        self.process = Mutex(process)
        self.onEnd = onEnd
    }

    deinit { if let token { events?.unwatch(stream.descriptor, token: token) } }

    public var isUp: Bool { !hasEnded }

    /// passt's process number, while it runs.
    public var processIdentifier: Int32? { process.withLock { $0?.identifier } }

    public func connect(
        _ events: any EventService, clock: any MonotonicClock, _ handler: @escaping @Sendable (Readiness) -> Void
    ) {
        self.events = events
        self.clock = clock
        token = events.watch(stream.descriptor, for: [], handler)
        reaper = events.makeAlarm { [weak self] in self?.reap() }
    }

    public func wait(for readiness: Readiness) {
        if let token { events?.change(stream.descriptor, token: token, to: readiness) }
    }

    public func send(_ frame: UnsafeMutableBufferPointer<iovec>, count: Int) -> NetworkSendResult {
        if stream.isClosed { end() }
        guard !hasEnded else { return .down }
        // passt takes a length of up to 65,535, and loses its place in the stream at longer ones.
        guard count <= 65_535 else { return .refused }
        return unsafe stream.append(frame, count: count) ? .sent : .full
    }

    public func flush() -> Bool {
        guard !hasEnded else { return true }
        let isDone = stream.flush()
        if stream.isClosed { end() }
        return isDone
    }

    public func nextFrame() -> UnsafeRawBufferPointer? {
        guard !hasEnded else { return nil }
        if let frame = unsafe stream.next() { return unsafe frame }
        if stream.isClosed { end() }
        return nil
    }

    public func removeFrame() { stream.remove() }

    public func close() {
        unwatch()
        hasEnded = true
        shutdown(stream.descriptor, Int32(SHUT_RDWR))
        reaper?.set(deadline: nil)
        _ = process.withLock { process in
            defer { process = nil }
            return process
        }
    }

    private func unwatch() {
        if let token { events?.unwatch(stream.descriptor, token: token) }
        token = nil
    }

    /// The other end is gone, or is to be.
    private func end() {
        guard !hasEnded else { return }
        hasEnded = true
        unwatch()
        shutdown(stream.descriptor, Int32(SHUT_RDWR))
        let what = stream.isBroken ? "passt sent a frame of an impossible length" : "passt has ended"
        let words = process.withLock { process in
            guard let process else { return "" }
            defer { process.kill() }
            return process.messages()
        }
        setReaper()
        onEnd(words.isEmpty ? what : "\(what): \(words)")
    }

    // MARK: After its end

    private func setReaper() {
        guard let clock, let reaper else { return }
        reaper.set(deadline: clock.now() &+ 10_000_000)
    }

    private func reap() {
        if process.withLock({ $0?.reap() }) == false { setReaper() }
    }
}
