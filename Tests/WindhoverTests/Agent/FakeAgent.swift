import Glibc
import Machine
import Testing
import VMCore
import MonitorTesting

@testable import Windhover

/// Both ends of a Unix stream socket.
func socketPair() -> (Int32, Int32) {
    var ends: [Int32] = [-1, -1]
    socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends)
    return (ends[0], ends[1])
}

/// Both ends of a pipe, the reader's first.
func pipePair() -> (Int32, Int32) {
    var ends: [Int32] = [-1, -1]
    pipe(&ends)
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    return (ends[0], ends[1])
}

func isReadable(_ descriptor: Int32, within milliseconds: Int32) -> Bool {
    var polls = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&polls, 1, milliseconds) > 0
}

/// Bytes until the end of a descriptor, or until it says nothing for ten seconds.
func readToEnd(_ descriptor: Int32, limit: Int = .max) -> [UInt8] {
    var result: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    while result.count < limit, isReadable(descriptor, within: 10_000) {
        let count = read(descriptor, &buffer, min(buffer.count, limit - result.count))
        guard count > 0 else { break }
        result += buffer[..<count]
    }
    return result
}

/// Writes all of the bytes.
/// - Returns: false where the reader has gone.
@discardableResult
func writeAll(_ descriptor: Int32, _ bytes: [UInt8]) -> Bool {
    var start = 0
    while start < bytes.count {
        let count = bytes.withUnsafeBytes { whole in
            let rest = UnsafeRawBufferPointer(rebasing: whole[start...])
            let sent = send(descriptor, rest.baseAddress, rest.count, Int32(MSG_NOSIGNAL))
            return sent < 0 && errno == ENOTSOCK ? write(descriptor, rest.baseAddress, rest.count) : sent
        }
        guard count > 0 else { return false }
        start += count
    }
    return true
}

func after(_ seconds: Double) -> UInt64 { HostClock().now() + UInt64(seconds * 1e9) }

/// How many seconds something takes.
func seconds(_ body: () throws -> Void) rethrows -> Double {
    let start = HostClock().now()
    try body()
    return Double(HostClock().now() - start) / 1e9
}

/// What a call throws.
func agentError<Result>(_ body: () throws(AgentError) -> Result) -> AgentError? {
    do throws(AgentError) {
        _ = try body()
        return nil
    } catch {
        return error
    }
}

extension AgentMessage {
    /// As the agent would send it.
    var frame: AgentFrame {
        var fields = AgentFieldWriter()
        let kind: Kind
        switch self {
        case .hello(let hello):
            kind = .hello
            fields.add(1, AgentHello.version)
            fields.add(2, hello.release)
            fields.add(3, UInt32(hello.processors))
        case .ready: kind = .ready
        case .setUpFailed(let code, let what, let module):
            kind = .setUpFailed
            fields.add(1, UInt32(code))
            fields.add(2, what)
            if let module { fields.add(3, module) }
        case .note(let text):
            kind = .note
            fields.add(1, text)
        case .started(let command, let processID):
            kind = .started
            fields.add(1, command)
            fields.add(2, processID)
        case .notStarted(let command, let stage, let code, let name):
            kind = .notStarted
            fields.add(1, command)
            fields.add(2, stage)
            fields.add(3, UInt32(code))
            fields.add(4, name)
        case .ended(let command, let exit):
            kind = .ended
            fields.add(1, command)
            switch exit.cause {
            case .status(let status): fields.add(2, UInt32(status))
            case .signal(let signal, let dumped):
                fields.add(3, UInt32(signal))
                if dumped { fields.add(4, 1) }
            }
            if exit.outOfMemory { fields.add(5, 1) }
        case .goodbye: kind = .goodbye
        case .output(let command, let stream, let bytes):
            kind = .output
            fields.add(1, command)
            fields.add(2, stream)
            fields.add(3, bytes)
        }
        return AgentFrame(kind: kind.rawValue, payload: fields.payload)
    }
}

/// An agent that does what a test says, in the guest's place.
final class FakeAgent: @unchecked Sendable {
    let session: AgentSession
    private(set) var control: Int32
    private var decoder = AgentFrameDecoder(longest: AgentFrame.longestFromHost)

    /// Connects.
    init(_ session: AgentSession) {
        self.session = session
        let (host, guest) = socketPair()
        control = guest
        session.acceptControl(host)
    }

    deinit {
        close()
        session.close()
    }

    func close() {
        if control >= 0 { Glibc.close(control) }
        control = -1
    }

    @discardableResult
    func say(_ message: AgentMessage) -> Bool { writeAll(control, message.frame.encoded) }

    @discardableResult
    func say(_ bytes: [UInt8]) -> Bool { writeAll(control, bytes) }

    /// The host's next frame; nil where none comes within ten seconds.
    func hear() -> AgentFrame? {
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            if let frame = try? decoder.next() { return frame }
            guard isReadable(control, within: 10_000) else { return nil }
            let count = read(control, &buffer, buffer.count)
            guard count > 0 else { return nil }
            decoder.append(buffer[..<count])
        }
    }

    /// Connects a stream, and says whose it is.
    func connect(_ command: UInt32, _ stream: UInt32) -> Int32 {
        let guest = connectSilently()
        var bytes: [UInt8] = []
        bytes.appendLittleEndian(command)
        bytes.appendLittleEndian(stream)
        writeAll(guest, bytes)
        return guest
    }

    func connectSilently() -> Int32 {
        let (host, guest) = socketPair()
        session.acceptStream(host)
        return guest
    }

    /// From hello to ready.
    static func ready(onNote: @escaping @Sendable (String) -> Void = { _ in }) throws -> (AgentSession, FakeAgent) {
        let session = try AgentSession(clock: HostClock(), onNote: onNote)
        let agent = FakeAgent(session)
        agent.say(.hello(AgentHello(release: "6.1.0", processors: 2)))
        _ = try session.waitForHello(until: after(10))
        let setUp = Background { agentError { () throws(AgentError) in try session.setUp(GuestSetup(unixNanoseconds: 0), until: after(10)) } }
        try #require(agent.hear()?.kind == HostMessage.Kind.setUp.rawValue)
        agent.say(.ready)
        try #require(setUp.wait() == .some(nil))
        return (session, agent)
    }
}

/// Runs something on a thread of its own, and waits for what comes of it.
final class Background<Result: Sendable>: @unchecked Sendable {
    private let condition = Monitor()
    private var result: Result?

    init(_ body: @escaping @Sendable () -> Result) {
        Thread(name: "test") { [self] in
            let result = body()
            condition.locked {
                self.result = result
                condition.wakeAll()
            }
        }?.detach()
    }

    /// nil where it takes longer.
    func wait(_ seconds: Double = 20) -> Result? {
        let deadline = after(seconds)
        return condition.locked {
            while result == nil { if !condition.wait(until: deadline) { break } }
            return result
        }
    }
}
