internal import Glibc

/// The agent's first word.
public struct AgentHello: Hashable, Sendable {
    /// Of the protocol.
    static let version: UInt32 = 2

    /// The guest's kernel, as uname(2) has its release.
    public var release: String
    public var processors: Int
}

/// What the agent says.
enum AgentMessage: Hashable, Sendable {
    case hello(AgentHello)
    case ready
    case setUpFailed(errno: Int32, what: String, missingModule: String?)
    case note(String)
    case started(command: UInt32, processID: UInt32)
    case notStarted(command: UInt32, stage: UInt32, errno: Int32, name: String)
    case ended(command: UInt32, GuestExit)
    case goodbye
    /// Of an output that is collected.
    case output(command: UInt32, stream: UInt32, [UInt8])

    enum Kind: UInt16, CaseIterable {
        case hello = 1
        case ready, setUpFailed, note, started, notStarted, ended, goodbye, output
    }

    /// - Returns: nil for a frame of a kind that is not known, which is skipped.
    static func decode(_ frame: AgentFrame) throws(AgentViolation) -> AgentMessage? {
        guard let kind = Kind(rawValue: frame.kind) else { return nil }
        let fields = try AgentFields(frame)
        switch kind {
        case .hello:
            let version = try fields.integer(1)
            guard version == AgentHello.version else { throw .version(version) }
            return .hello(AgentHello(release: try fields.text(2), processors: Int(try fields.integer(3))))
        case .ready: return .ready
        case .setUpFailed:
            let code = try fields.integer(1)
            return .setUpFailed(
                errno: Int32(truncatingIfNeeded: code), what: try fields.text(2), missingModule: fields.textIfPresent(3))
        case .note: return .note(try fields.text(1))
        case .started: return .started(command: try fields.integer(1), processID: try fields.integer(2))
        case .notStarted:
            return .notStarted(
                command: try fields.integer(1), stage: try fields.integer(2),
                errno: Int32(truncatingIfNeeded: try fields.integer(3)), name: fields.textIfPresent(4) ?? "")
        case .ended:
            let command = try fields.integer(1)
            let cause: GuestExit.Cause
            if let signal = try fields.integerIfPresent(3) {
                guard 1...64 ~= signal, try fields.integerIfPresent(2) == nil else { throw .badField(kind: frame.kind, tag: 3) }
                cause = .signal(Int32(signal), coreDumped: try fields.integerIfPresent(4) ?? 0 != 0)
            } else {
                let status = try fields.integer(2)
                guard status <= 255 else { throw .badField(kind: frame.kind, tag: 2) }
                cause = .status(Int32(status))
            }
            return .ended(
                command: command, GuestExit(cause: cause, outOfMemory: try fields.integerIfPresent(5) ?? 0 != 0))
        case .goodbye: return .goodbye
        case .output:
            guard let bytes = fields.bytes(3) else { throw .missingField(kind: frame.kind, tag: 3) }
            return .output(command: try fields.integer(1), stream: try fields.integer(2), Array(bytes))
        }
    }
}

/// What the host says.
enum HostMessage: Hashable, Sendable {
    case setUp(GuestSetup)
    case start(command: UInt32, GuestCommand)
    case signal(command: UInt32, signal: UInt32)
    case resize(command: UInt32, GuestCommand.TerminalSize)
    case shutDown

    enum Kind: UInt16, CaseIterable {
        case setUp = 129
        case start, signal, resize, shutDown
    }

    private var kind: Kind {
        switch self {
        case .setUp: .setUp
        case .start: .start
        case .signal: .signal
        case .resize: .resize
        case .shutDown: .shutDown
        }
    }

    /// - Throws: `AgentError.unsendable`.
    func encoded() throws(AgentError) -> [UInt8] {
        var fields = AgentFieldWriter()
        switch self {
        case .setUp(let setup): try Self.write(setup, to: &fields)
        case .start(let number, let command): try Self.write(command, number, to: &fields)
        case .signal(let command, let signal):
            fields.add(1, command)
            fields.add(2, signal)
        case .resize(let command, let size):
            fields.add(1, command)
            fields.add(2, UInt32(size.rows))
            fields.add(3, UInt32(size.columns))
        case .shutDown: break
        }
        let payload = fields.payload
        guard payload.count <= AgentFrame.longestFromHost else {
            throw .unsendable("what is to be sent to the guest is \(payload.count) bytes; \(AgentFrame.longestFromHost) is the most")
        }
        return AgentFrame(kind: kind.rawValue, payload: payload).encoded
    }

    private static func write(_ setup: GuestSetup, to fields: inout AgentFieldWriter) throws(AgentError) {
        let time = max(setup.unixNanoseconds, 0).quotientAndRemainder(dividingBy: 1_000_000_000)
        var clock: [UInt8] = []
        clock.appendLittleEndian(UInt64(time.quotient))
        clock.appendLittleEndian(UInt32(time.remainder))
        fields.add(1, clock)
        fields.add(2, try text(setup.hostname, "the guest's name"))
        switch setup.root {
        case .initramfs: fields.add(3, values: 0, 0)
        case .share(let tag, let writes):
            fields.add(3, values: 1, writes.rawValue, text: try text(tag, "the root's tag"))
        case .disk(let device, let type, let writes):
            fields.add(3, values: 2, writes.rawValue, text: try text(device, "the root's device"))
            if let type { fields.add(6, try text(type, "the type of the root's file system")) }
        }
        for share in setup.shares {
            let tag = try text(share.tag, "a share's tag")
            let path = try text(share.path, "a share's path")
            fields.add(4, values: share.isReadOnly ? 1 : 0, text: tag + "\0" + path)
        }
        fields.add(5, setup.network.rawValue)
    }

    private static func write(_ command: GuestCommand, _ number: UInt32, to fields: inout AgentFieldWriter) throws(AgentError) {
        guard let program = command.arguments.first, !program.bytes.isEmpty else {
            throw .unsendable("a command has a program's name")
        }
        fields.add(1, number)
        for argument in command.arguments { fields.add(2, try bytes(argument, "an argument")) }
        for word in command.environment {
            guard let equals = word.bytes.firstIndex(of: UInt8(ascii: "=")), equals > 0 else {
                throw .unsendable("the environment word '\(word)' is not NAME=value")
            }
            fields.add(3, try bytes(word, "an environment word"))
        }
        if let directory = command.directory { fields.add(4, try text(directory, "the working directory")) }
        if let user = command.user { fields.add(5, try text(user, "the user")) }
        if let size = command.terminal {
            fields.add(6, values: UInt32(size.rows), UInt32(size.columns))
        }
        if command.terminal == nil || !command.pipes.isEmpty { fields.add(7, bits(command.pipes)) }
        if command.operation != .run { fields.add(8, command.operation.rawValue) }
        if !command.collected.isEmpty { fields.add(9, bits(command.collected)) }
    }

    private static func bits(_ streams: Set<GuestStream>) -> UInt32 { streams.reduce(0) { $0 | 1 << $1.rawValue } }

    /// A word as it can be sent: a zero byte would end it early.
    private static func bytes(_ word: CommandWord, _ what: String) throws(AgentError) -> [UInt8] {
        guard !word.bytes.contains(0) else { throw .unsendable("\(what) has a zero byte in it") }
        return word.bytes
    }

    /// A text as it can be sent.
    private static func text(_ text: String, _ what: String) throws(AgentError) -> String {
        guard unsafe strlen(text) == text.utf8.count else { throw .unsendable("\(what) has a zero byte in it") }
        return text
    }
}
