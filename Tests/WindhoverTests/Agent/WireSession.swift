import Glibc
import Testing

@testable import Windhover

/// A frame of docs/agent.md, by the page and not by the host's code.
struct WireFrame: CustomStringConvertible {
    enum Kind: UInt16 {
        case hello = 1, ready, setUpFailed, note, started, notStarted, ended, goodbye, output
        case setUp = 129, start, signal, resize, shutDown
    }

    var kind: UInt16
    var fields: [(tag: UInt16, bytes: [UInt8])] = []

    init(_ kind: Kind) { self.kind = kind.rawValue }

    /// Takes the first whole one from bytes.
    init?(from bytes: inout [UInt8]) {
        func number(_ offset: Int, _ size: Int) -> Int { (0..<size).reduce(0) { $0 | Int(bytes[offset + $1]) << (8 * $1) } }
        guard bytes.count >= 8, bytes.count >= 8 + number(0, 4) else { return nil }
        let end = 8 + number(0, 4)
        kind = UInt16(number(4, 2))
        var offset = 8
        while offset + 8 <= end, offset + 8 + number(offset + 4, 4) <= end {
            let next = offset + 8 + number(offset + 4, 4)
            fields.append((UInt16(number(offset, 2)), Array(bytes[offset + 8..<next])))
            offset = next
        }
        bytes.removeFirst(end)
    }

    mutating func add(_ tag: UInt16, _ bytes: [UInt8]) { fields.append((tag, bytes)) }
    mutating func add(_ tag: UInt16, _ text: String) { add(tag, Array(text.utf8)) }
    mutating func add(_ tag: UInt16, _ value: UInt32) { add(tag, Self.bytes(value)) }

    func with(_ tag: UInt16, _ value: UInt32) -> WireFrame {
        var frame = self
        frame.add(tag, value)
        return frame
    }

    func number(_ tag: UInt16) -> UInt32? {
        guard let bytes = fields.first(where: { $0.tag == tag })?.bytes, bytes.count == 4 else { return nil }
        return bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }

    func text(_ tag: UInt16) -> String? { fields.first { $0.tag == tag }.map { String(decoding: $0.bytes, as: UTF8.self) } }

    static func bytes(_ value: some FixedWidthInteger & Sendable) -> [UInt8] {
        withUnsafeBytes(of: value.littleEndian) { Array($0) }
    }

    var bytes: [UInt8] {
        let payload = fields.reduce(into: [UInt8]()) { payload, field in
            payload += Self.bytes(field.tag) + [0, 0] + Self.bytes(UInt32(field.bytes.count)) + field.bytes
        }
        return Self.bytes(UInt32(payload.count)) + Self.bytes(kind) + [0, 0] + payload
    }

    var description: String { "\(Kind(rawValue: kind).map { "\($0)" } ?? "\(kind)") \(fields.map { "\($0.tag): \($0.bytes.prefix(64))" })" }
}

/// What the host asks to start.
struct AgentCommand {
    var arguments: [String]
    var environment = ["PATH=/usr/bin:/bin"]
    var directory: String?
    var user: String?
    /// Rows and columns.
    var terminal: (UInt32, UInt32)?
    var streams: UInt32 = 7
    var operation: UInt32?
    /// Outputs that come in frames first.
    var collected: UInt32 = 0

    init(_ arguments: String...) { self.arguments = arguments }
    /// A shell's line.
    init(shell line: String) { arguments = ["sh", "-c", line] }

    func frame(_ number: UInt32) -> WireFrame {
        var frame = WireFrame(.start)
        frame.add(1, number)
        for argument in arguments { frame.add(2, argument) }
        for word in environment { frame.add(3, word) }
        if let directory { frame.add(4, directory) }
        if let user { frame.add(5, user) }
        if let (rows, columns) = terminal { frame.add(6, WireFrame.bytes(rows) + WireFrame.bytes(columns)) }
        if terminal == nil { frame.add(7, streams) }
        if let operation { frame.add(8, operation) }
        if collected != 0 { frame.add(9, collected) }
        return frame
    }
}

/// The agent as a process of this host's, and the host that it serves: `agent --connect DESCRIPTOR PATH`.
///
/// Everything happens in `wait`, in one thread: what has come is kept, what is to be sent is sent as it is taken.
final class WireSession {
    struct StreamKey: Hashable {
        var command: UInt32
        var stream: UInt32
    }

    struct Stream {
        var descriptor: Int32
        var received: [UInt8] = []
        var isAtEnd = false
        var unsent: ArraySlice<UInt8> = []
        var endsAfterUnsent = false
    }

    struct TimedOut: Error, CustomStringConvertible {
        var description: String
    }

    let directory = TemporaryDirectory()
    let process: pid_t
    private let control: Int32
    private let listener: Int32
    private var unheard: [UInt8] = []
    /// All that has come and not been taken.
    private(set) var frames: [WireFrame] = []
    private(set) var controlIsAtEnd = false
    private(set) var streams: [StreamKey: Stream] = [:]
    /// Streams that are not read for now.
    var unread: Set<StreamKey> = []
    private var unsent: ArraySlice<UInt8> = []
    private var status: Int32?

    /// The program, written once.
    static let program: (directory: TemporaryDirectory, path: String) = {
        let directory = TemporaryDirectory()
        let path = directory.file("agent", "", mode: 0o755)
        let file = open(path, O_WRONLY | O_CLOEXEC)
        let image = GuestAgent.image
        _ = write(file, image, image.count)
        close(file)
        return (directory, path)
    }()

    init() throws {
        let path = directory.path + "/streams"
        listener = try Self.listener(path)
        var ends: [Int32] = [-1, -1]
        try #require(socketpair(AF_UNIX, Self.streamType, 0, &ends) == 0)
        control = ends[0]
        defer { close(ends[1]) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, ends[1], 3)
        let words = ["agent", "--connect", "3", path]
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) }
        arguments.append(nil)
        defer { for argument in arguments { free(argument) } }
        var process: pid_t = 0
        var result: Int32 = 0
        // A child that another thread is just making has the file open for writing until it runs its own program.
        for _ in 0..<100 {
            result = posix_spawn(&process, Self.program.path, &actions, nil, &arguments, environ)
            if result != ETXTBSY { break }
            usleep(1000)
        }
        try #require(result == 0, "the agent does not start: \(String(cString: strerror(result)))")
        self.process = process
    }

    deinit {
        close(control)
        close(listener)
        for stream in streams.values where stream.descriptor >= 0 { close(stream.descriptor) }
        if status == nil {
            kill(process, SIGKILL)
            waitpid(process, nil, 0)
        }
    }

    private static let streamType = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)

    private static func listener(_ path: String) throws -> Int32 {
        let listener = socket(AF_UNIX, streamType, 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
        let bound = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(listener, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
        try #require(bound == 0 && listen(listener, 128) == 0)
        return listener
    }

    // MARK: What the host does

    func send(_ frame: WireFrame) { send(bytes: frame.bytes) }
    func send(bytes: [UInt8]) { unsent = ArraySlice(Array(unsent) + bytes) }

    var isAllSent: Bool { unsent.isEmpty }

    func start(_ number: UInt32, _ command: AgentCommand) { send(command.frame(number)) }

    /// Says hello, and sets up what there is to set up without a machine.
    func setUp() throws -> WireFrame {
        let hello = try take(.hello)
        send(WireFrame(.setUp))
        _ = try take(.ready)
        return hello
    }

    func feed(_ bytes: [UInt8], to key: StreamKey, thenEnd: Bool) throws {
        try wait("stream \(key)") { $0.streams[key] != nil }
        let unsent = Array(streams[key]?.unsent ?? [])
        streams[key]?.unsent = ArraySlice(unsent + bytes)
        streams[key]?.endsAfterUnsent = thenEnd
    }

    /// Closes a stream for good.
    func hangUp(_ key: StreamKey) throws {
        try wait("stream \(key)") { $0.streams[key] != nil }
        if let descriptor = streams[key]?.descriptor, descriptor >= 0 { Glibc.close(descriptor) }
        streams[key]?.descriptor = -1
        streams[key]?.isAtEnd = true
    }

    func closeControl() { shutdown(control, Int32(SHUT_RDWR)) }

    // MARK: What comes

    /// The first frame of a kind, of a command if one is named; what came before it stays.
    func take(_ kinds: WireFrame.Kind..., command: UInt32? = nil) throws -> WireFrame {
        func index(_ session: WireSession) -> Int? {
            session.frames.firstIndex { frame in
                kinds.contains { $0.rawValue == frame.kind } && (command == nil || frame.number(1) == command)
            }
        }
        try wait("\(kinds) \(command.map { "of \($0)" } ?? "")") { index($0) != nil }
        return frames.remove(at: index(self)!)
    }

    func text(_ command: UInt32, _ stream: UInt32) -> String {
        String(decoding: streams[StreamKey(command: command, stream: stream)]?.received ?? [], as: UTF8.self)
    }

    struct Outcome {
        var frame: WireFrame
        var output: [UInt8]
        var error: [UInt8]
        var text: String { String(decoding: output, as: UTF8.self) }
        var status: UInt32? { frame.kind == WireFrame.Kind.ended.rawValue ? frame.number(2) : nil }
        var signal: UInt32? { frame.kind == WireFrame.Kind.ended.rawValue ? frame.number(3) : nil }
        /// Where it was not started: at which stage, and why.
        var failure: [UInt32?]? { frame.kind == WireFrame.Kind.notStarted.rawValue ? [frame.number(2), frame.number(3)] : nil }
    }

    /// Runs a command to its end, with all that it printed.
    func run(_ number: UInt32, _ command: AgentCommand, input: [UInt8] = []) throws -> Outcome {
        start(number, command)
        if command.streams & 1 != 0 { try feed(input, to: StreamKey(command: number, stream: 0), thenEnd: true) }
        return try outcome(number)
    }

    func outcome(_ number: UInt32) throws -> Outcome {
        let frame = try take(.ended, .notStarted, command: number)
        // Its streams were connected before that was said, and may still wait to be accepted.
        serve()
        let keys = (1...2).map { StreamKey(command: number, stream: $0) }
        try wait("the end of \(number)'s output") { session in keys.allSatisfy { session.streams[$0]?.isAtEnd ?? true } }
        let received = keys.map { streams[$0]?.received ?? [] }
        return Outcome(frame: frame, output: received[0], error: received[1])
    }

    /// The process's status as `waitpid` tells it.
    func exitStatus() throws -> Int32 {
        try wait("the process's end") { session in
            var status: Int32 = 0
            if session.status == nil, waitpid(session.process, &status, WNOHANG) == session.process { session.status = status }
            return session.status != nil
        }
        return status!
    }

    /// Serves everything until a condition holds.
    func wait(_ what: String, seconds: Int = 30, until condition: (WireSession) -> Bool) throws {
        let clock = ContinuousClock()
        let deadline = clock.now + .seconds(seconds)
        while !condition(self) {
            guard clock.now < deadline else { throw TimedOut(description: "\(what) did not come; there are \(frames)") }
            serve()
        }
    }

    private func serve() {
        var polls = [
            pollfd(fd: controlIsAtEnd ? -1 : control, events: Int16(POLLIN | (unsent.isEmpty ? 0 : POLLOUT)), revents: 0),
            pollfd(fd: listener, events: Int16(POLLIN), revents: 0),
        ]
        let keys = Array(streams.keys)
        for key in keys {
            let stream = streams[key]!
            let reads = !stream.isAtEnd && !unread.contains(key)
            let events = (reads ? POLLIN : 0) | (stream.unsent.isEmpty ? 0 : POLLOUT)
            polls.append(pollfd(fd: events == 0 && !stream.endsAfterUnsent ? -1 : stream.descriptor, events: Int16(events), revents: 0))
        }
        poll(&polls, nfds_t(polls.count), 10)
        if polls[0].revents != 0 { serveControl() }
        while acceptStream() {}
        for (key, poll) in zip(keys, polls.dropFirst(2)) where poll.fd >= 0 { serve(key, poll.revents) }
    }

    private func serveControl() {
        Self.push(&unsent, to: control)
        while let bytes = Self.pull(control) {
            if bytes.isEmpty { controlIsAtEnd = true; break }
            unheard += bytes
        }
        while let frame = WireFrame(from: &unheard) { frames.append(frame) }
    }

    private func acceptStream() -> Bool {
        let descriptor = accept(listener, nil, nil)
        guard descriptor >= 0 else { return false }
        var head = [UInt8](repeating: 0, count: 8)
        // The agent writes them at once.
        guard recv(descriptor, &head, 8, Int32(MSG_WAITALL)) == 8 else {
            Glibc.close(descriptor)
            return true
        }
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        func number(_ bytes: ArraySlice<UInt8>) -> UInt32 { bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) } }
        streams[StreamKey(command: number(head[..<4]), stream: number(head[4...]))] = Stream(descriptor: descriptor)
        return true
    }

    private func serve(_ key: StreamKey, _ events: Int16) {
        var stream = streams.removeValue(forKey: key)!
        if !stream.unsent.isEmpty, events != 0 { Self.push(&stream.unsent, to: stream.descriptor) }
        if stream.unsent.isEmpty, stream.endsAfterUnsent {
            stream.endsAfterUnsent = false
            shutdown(stream.descriptor, Int32(SHUT_WR))
        }
        if Int32(events) & (POLLIN | POLLHUP | POLLERR) != 0, !stream.isAtEnd, !unread.contains(key) {
            if let bytes = Self.pull(stream.descriptor) {
                stream.received += bytes
                stream.isAtEnd = bytes.isEmpty
            }
        }
        streams[key] = stream
    }

    /// What is taken of it; nothing more of it where nobody reads.
    private static func push(_ bytes: inout ArraySlice<UInt8>, to descriptor: Int32) {
        guard !bytes.isEmpty else { return }
        let sent = bytes.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        if sent >= 0 { bytes.removeFirst(sent) } else if errno != EAGAIN { bytes = [] }
    }

    /// What is there: nothing at the end, nil where nothing is there yet.
    private static func pull(_ descriptor: Int32) -> [UInt8]? {
        var room = [UInt8](repeating: 0, count: 65536)
        let got = recv(descriptor, &room, room.count, Int32(MSG_DONTWAIT))
        if got < 0 { return errno == EAGAIN || errno == EINTR ? nil : [] }
        return Array(room[..<got])
    }
}
