internal import Glibc
internal import Machine
internal import Synchronization
internal import VMCore

/// What became of a command in a guest.
public struct CommandResult: Hashable, Sendable {
    /// As a shell has it: the exit status, or 128 and the signal.
    public let status: Int32
    public let exit: GuestExit
    /// Up to `CommandOptions.outputLimit` bytes each.
    public let standardOutput: [UInt8]
    public let standardError: [UInt8]
    /// Bytes beyond the limit, of both together.
    public let droppedBytes: UInt64

    /// Whether the command ended with status 0.
    public var isSuccess: Bool { exit.cause == .status(0) }
    /// Standard output as text.
    public var output: String { String(decoding: standardOutput, as: UTF8.self) }
    /// Standard error as text.
    public var errorOutput: String { String(decoding: standardError, as: UTF8.self) }
}

/// How a command is run.
public struct CommandOptions: Hashable, Sendable {
    /// Words `NAME=value`. What is not said is not there: the host's environment is not the guest's.
    public var environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb"]
    public var directory = "/"
    /// `NAME` or `UID`, with `:GROUP` if wanted; nil: root.
    public var user: String?
    /// Given to it as standard input.
    public var input: [UInt8] = []
    /// Then it is killed.
    public var timeLimit: Duration?
    /// Bytes of output and of error output that are kept, each.
    public var outputLimit = 16 << 20

    public init() {}
}

extension VirtualMachine {
    /// Runs a command in the guest, and returns when it has ended. Any number at once.
    ///
    /// A task that is cancelled has its command killed.
    /// - Parameter arguments: the program, looked for in the environment's PATH unless it has a slash, and its arguments.
    /// - Throws: `GuestFailure`: the guest died, the command could not be started, or its time was over;
    ///   `VirtualMachineError.wrongState`; `CancellationError`.
    public func run(_ arguments: [String], _ options: CommandOptions = CommandOptions()) async throws -> CommandResult {
        try Task.checkCancellation()
        var command = GuestCommand(arguments.map { CommandWord($0) })
        command.environment = options.environment.map { CommandWord($0) }
        command.directory = options.directory
        command.user = options.user
        // Without an input there is none to connect: a third less to be done in the guest before it starts.
        if options.input.isEmpty { command.streams = [.output, .error] }
        let (output, error) = (OutputCollector(limit: options.outputLimit), OutputCollector(limit: options.outputLimit))
        let exit = try await perform(
            command, input: .bytes(options.input), output: .collector(output), error: .collector(error), timeLimit: options.timeLimit)
        return CommandResult(
            status: exit.shellStatus, exit: exit, standardOutput: output.bytes, standardError: error.bytes,
            droppedBytes: output.droppedCount &+ error.droppedCount)
    }

    /// As above, word by word.
    public func run(_ arguments: String..., options: CommandOptions = CommandOptions()) async throws -> CommandResult {
        try await run(arguments, options)
    }

    /// Runs a script by the guest's `/bin/sh`.
    public func shell(_ script: String, _ options: CommandOptions = CommandOptions()) async throws -> CommandResult {
        try await run(["/bin/sh", "-c", script], options)
    }

    /// Writes a file of the guest's: a new one, or in place of what was in it.
    /// - Parameter permissions: of a new one.
    public func write(_ contents: [UInt8], to path: String, permissions: UInt16 = 0o644) async throws {
        let exit = try await perform(.write(path, mode: permissions), input: .bytes(contents), output: nil, error: nil, timeLimit: nil)
        guard exit.cause == .status(0) else { throw Self.fileFailure("written", path, exit) }
    }

    /// Reads a file of the guest's.
    /// - Parameter limit: bytes; a longer one is an error.
    public func read(_ path: String, limit: Int = 64 << 20) async throws -> [UInt8] {
        let contents = OutputCollector(limit: limit)
        let exit = try await perform(.read(path), input: nil, output: .collector(contents), error: nil, timeLimit: nil)
        guard exit.cause == .status(0) else { throw Self.fileFailure("read", path, exit) }
        guard contents.droppedCount == 0 else {
            throw GuestFailure(
                kind: .notStarted(status: 125), description: "'\(path)' in the guest has more than \(limit) bytes: read it with a larger limit")
        }
        return contents.bytes
    }

    private static func fileFailure(_ what: String, _ path: String, _ exit: GuestExit) -> GuestFailure {
        GuestFailure(kind: .notStarted(status: 125), description: "'\(path)' in the guest could not be \(what) to its end (\(exit.shellStatus))")
    }

    /// How long the end of a command that was killed is waited for.
    private static let patience = Duration.seconds(2)

    private func perform(
        _ command: GuestCommand, input: StreamSource?, output: StreamSink?, error: StreamSink?, timeLimit: Duration?
    ) async throws -> GuestExit {
        let (life, session, machine) = try running()
        var command = command
        command.collected = command.streams.subtracting([.input])
        let process: GuestProcess
        do throws(AgentError) {
            process = try session.start(command)
            do throws(AgentError) { try process.attach(input: input, output: output, error: error) } catch {
                try? process.send(signal: SIGKILL)
                throw error
            }
        } catch {
            throw await Blocking.run { self.failure(error, life, machine) }
        }
        let exit = try await Blocking.run(patience: Self.patience, onCancel: { try? process.send(signal: SIGKILL) }) { () -> GuestExit? in
            do throws(AgentError) {
                if let exit = try process.wait(until: timeLimit.map { HostClock().now() &+ $0.nanoseconds }) { return exit }
                try process.send(signal: SIGKILL)
                // What it left in its pipes is of no use to anybody.
                _ = try process.wait(until: HostClock().now() &+ Self.patience.nanoseconds)
                return nil
            } catch {
                throw self.failure(error, life, machine)
            }
        }
        try Task.checkCancellation()
        guard let exit else {
            if let panic = PostMortem(machine: machine).panic { throw panic }
            throw Self.tooLong(command, timeLimit, [output, error])
        }
        // Nobody but `stop` ended it.
        if case .signal(SIGKILL, _) = exit.cause, life.isStopWanted { throw VirtualMachineError.stopped }
        return exit
    }

    /// Its time is over; the last of what it said may tell why.
    private static func tooLong(_ command: GuestCommand, _ limit: Duration?, _ sinks: [StreamSink?]) -> GuestFailure {
        var text = "'\(PlainText.line(command.arguments.first?.bytes ?? []))' was killed: it did not end within \(limit.map { "\($0)" } ?? "its time")"
        for (sink, name) in zip(sinks, ["output", "error output"]) {
            guard case .collector(let collector) = sink else { continue }
            let lines = PlainText.lines(collector.bytes.suffix(4096)).suffix(12)
            if !lines.isEmpty { text += "; the last of its \(name):\n" + lines.map { "  " + $0 }.joined(separator: "\n") }
        }
        return GuestFailure(kind: .timedOut, description: text)
    }
}
