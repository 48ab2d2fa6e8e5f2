/// A standard stream of a command in a guest. A terminal's is one, `input`, for both directions.
public enum GuestStream: UInt32, Hashable, Sendable, CaseIterable {
    case input = 0
    case output = 1
    case error = 2
}

/// A command to be run in a guest, or a file to be written or read there.
public struct GuestCommand: Hashable, Sendable {
    public enum Operation: UInt32, Hashable, Sendable {
        /// Runs a program: the first argument, looked for in the environment's PATH unless it has a slash.
        case run = 0
        /// Writes the standard input to a file.
        case write = 1
        /// Reads a file to the standard output.
        case read = 2
    }

    public struct TerminalSize: Hashable, Sendable {
        public var rows: UInt16
        public var columns: UInt16

        public init(rows: UInt16, columns: UInt16) {
            self.rows = rows
            self.columns = columns
        }
    }

    public let operation: Operation
    public var arguments: [CommandWord]
    /// Words `NAME=value`.
    public var environment: [CommandWord]
    /// nil: `/`.
    public var directory: String?
    /// `NAME` or `UID`, each with `:GROUP` or `:GID` if wanted; nil: root.
    public var user: String?
    /// A terminal of this size for all three streams; nil: pipes.
    public var terminal: TerminalSize?
    /// The streams that are wanted where there is no terminal; the others are /dev/null.
    public var streams: Set<GuestStream>
    /// Output and error that are pipes all the same where there is a terminal; what is not is the terminal.
    public var pipesBesideTerminal: Set<GuestStream> = []
    /// Of the pipes, outputs whose first bytes come with what else the agent says of the command. Only what is more takes a connection:
    /// most commands print less, and making connections is most of the work that is not the command's own. They go to collectors.
    var collected: Set<GuestStream> = []

    /// So many bytes of each come so.
    static let collectedLimit = 16 << 10

    /// A program to be run.
    public init(
        _ arguments: [CommandWord], environment: [CommandWord] = [], directory: String? = nil, user: String? = nil,
        terminal: TerminalSize? = nil, streams: Set<GuestStream> = [.input, .output, .error]
    ) {
        operation = .run
        self.arguments = arguments
        self.environment = environment
        self.directory = directory
        self.user = user
        self.terminal = terminal
        self.streams = streams
    }

    private init(_ operation: Operation, _ arguments: [CommandWord], user: String?, streams: Set<GuestStream>) {
        self.operation = operation
        self.arguments = arguments
        environment = []
        self.user = user
        self.streams = streams
    }

    /// A file to be written: its contents are the standard input.
    /// - Parameter mode: permissions of a file that is made.
    public static func write(_ path: String, mode: UInt16 = 0o644, user: String? = nil) -> GuestCommand {
        GuestCommand(.write, [CommandWord(path), CommandWord(String(mode & 0o7777, radix: 8))], user: user, streams: [.input])
    }

    /// A file to be read: its contents are the standard output.
    public static func read(_ path: String, user: String? = nil) -> GuestCommand {
        GuestCommand(.read, [CommandWord(path)], user: user, streams: [.output])
    }

    /// The streams whose connections the agent makes.
    var connections: Set<GuestStream> { terminal == nil ? streams : pipes.union([.input]) }

    /// The streams that are pipes.
    var pipes: Set<GuestStream> { terminal == nil ? streams : pipesBesideTerminal.subtracting([.input]) }
}

/// How a command in a guest ended.
public struct GuestExit: Hashable, Sendable {
    public enum Cause: Hashable, Sendable {
        /// Of a file's operation: 0, or the errno of what went wrong after the file was opened.
        case status(Int32)
        case signal(Int32, coreDumped: Bool)
    }

    public var cause: Cause
    /// The guest ran out of memory while it ran, and its kernel killed something.
    public var outOfMemory: Bool

    /// As a shell has it: the status, or 128 plus the signal.
    public var shellStatus: Int32 {
        switch cause {
        case .status(let status): status
        case .signal(let signal, _): ShellStatus.signal(signal)
        }
    }

    public init(cause: Cause, outOfMemory: Bool = false) {
        self.cause = cause
        self.outOfMemory = outOfMemory
    }
}
