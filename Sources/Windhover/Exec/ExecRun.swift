internal import Glibc
public import Logging
internal import Machine
internal import Synchronization
internal import VMCore
internal import Virtio

/// One `hover exec`: a machine of its own for one command, whose streams, signals and exit status are the caller's.
///
/// Threads: the caller's, which waits; the machine's; one a stream; one that waits for the machine's end. Signals and the
/// terminal's size come by the event loop.
public final class ExecRun: @unchecked Sendable {
    private struct Shared {
        var process: GuestProcess?
        /// Signals that were handed to the command.
        var forwarded = 0
        /// The signal that ends the run.
        var interruption: Int32?
    }

    private let configuration: ExecConfiguration
    private let kernel: GuestKernel
    private let logger: Logger
    private let notice: @Sendable (String) -> Void
    private let clock = HostClock()
    private let shared = Mutex(Shared())

    /// - Parameter notice: takes a line that a person is told while the command runs.
    public init(
        _ configuration: ExecConfiguration, kernel: GuestKernel, logger: Logger,
        notice: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        self.configuration = configuration
        self.kernel = kernel
        self.logger = logger
        self.notice = notice
    }

    /// Runs the command to its end.
    ///
    /// - Throws: a `ReportableError` for what could not be started.
    public func run() throws -> RunResult {
        let started = clock.now()
        let statisticsFile = try configuration.statistics.map { path throws(StatisticsError) in
            do throws(OutputFile.Failure) { return try OutputFile(path) } catch { throw StatisticsError(path: path, errno: error.errno) }
        }
        defer { statisticsFile?.close() }
        let log = try configuration.consoleLog.map { path throws(ConsoleError) in
            do throws(OutputFile.Failure) { return try OutputFile(path) } catch { throw ConsoleError(path: path, errno: error.errno) }
        }
        defer { log?.close() }

        let guest = guest
        let session = try AgentSession(clock: clock, onNote: { [notice] in notice("in the guest: \($0)") })
        defer { session.close() }
        let machine = try GuestMachine(guest.plan(session), log: log?.descriptor, notice: notice)
        defer { machine.close() }
        let material = try guest.material(logger)
        log?.begin()
        let signals = SignalWatch(loop: machine.loop, others: [SIGWINCH, SIGUSR1, SIGUSR2]) { [self] in hear($0, machine) }
        defer { withExtendedLifetime(signals) {} }
        try machine.start(material)
        if let text = machine.engine.notice { notice(text) }
        // Without it nobody would be told of a guest that dies.
        guard let watch = Thread(name: "machine-end", {
            _ = machine.wait(until: nil)
            session.machineEnded()
        }) else { throw RunError(EngineError.host(call: "pthread_create", errno: EAGAIN)) }
        defer {
            machine.close()
            watch.join()
        }

        var progress = ExecProgress(started: started)
        let deadline = configuration.timeout.map { started &+ $0.milliseconds &* 1_000_000 }
        let ending = converse(session, machine, guest, deadline: deadline, &progress)
        var (result, word) = ExecJudgement(configuration: configuration).judge(ending)
        result.notes += progress.notes
        if progress.isIncomplete, result.status == 0 { result.status = ExitStatus.guestCrashed.rawValue }
        Terminal.restore()
        if !machine.close() { logger.warning("the host's KVM does not let a vCPU go; it ends with this process") }
        if let lost = machine.console.lostLog {
            result.notes.append("some of the console is missing in '\(configuration.consoleLog ?? "")': \(lost)")
        }
        if let file = statisticsFile {
            let statistics = ExecStatistics(
                engine: machine.engine.name, engineReason: machine.engine.reason, outcome: word, exitStatus: result.status,
                secondsToReady: progress.secondsToReady, secondsToStart: progress.secondsToStart,
                wallSeconds: Double(clock.now() &- started) / 1e9, exits: .init(machine.statistics),
                instructions: machine.statistics.instructions, devices: machine.deviceStatistics,
                residentKiBOutsideGuestMemory: machine.residentKiB)
            do throws(OutputFile.Failure) { try file.replaceContents(with: statistics.encoded) } catch {
                let failure = StatisticsError(path: configuration.statistics ?? "", errno: error.errno)
                result.notes.append(failure.description)
                if result.status == 0 { result.status = failure.exitStatus.rawValue }
            }
        }
        return result
    }

    // MARK: The conversation

    /// From the guest's first word to the command's end.
    private func converse(
        _ session: AgentSession, _ machine: GuestMachine, _ guest: AgentGuest, deadline: UInt64?, _ progress: inout ExecProgress
    ) -> ExecEnding {
        let bootDeadline = clock.now() &+ configuration.bootTimeout.milliseconds &* 1_000_000
        let upDeadline = min(bootDeadline, deadline ?? bootDeadline)
        let death = PostMortem(machine: machine)
        var isUp = false
        do throws(AgentError) {
            let hello = try session.waitForHello(until: upDeadline)
            logger.debug("the guest runs Linux \(hello.release)")
            try session.setUp(guest.setup(time: clock.unixNanoseconds()), until: upDeadline)
            progress.ready = clock.now()
            isUp = true
            let isTerminal = wantsTerminal
            // Not before: while the guest comes up, Ctrl-C is hover's.
            let typed = isTerminal && Terminal.isTerminal(STDIN_FILENO) ? try makeRaw(machine) : nil
            defer { typed?.end() }
            let process = try session.start(command(isTerminal: isTerminal))
            let isInterrupted = shared.withLock { shared in
                shared.process = process
                return shared.interruption != nil
            }
            defer { shared.withLock { $0.process = nil } }
            guard !isInterrupted else { throw .closed }
            try process.attach(
                input: .descriptor(typed?.descriptor ?? STDIN_FILENO), output: .descriptor(STDOUT_FILENO), error: .descriptor(STDERR_FILENO),
                terminal: .descriptor(Terminal.isTerminal(STDIN_FILENO) ? STDIN_FILENO : STDOUT_FILENO))
            _ = try process.waitForStart(until: deadline)
            progress.start = clock.now()
            guard let exit = try process.wait(until: deadline) else {
                if death.panic == nil { takeRest(of: process, machine) }
                throw .timedOut(waitingFor: "the command's end")
            }
            progress.notes = process.losses
            progress.isIncomplete = !progress.notes.isEmpty
            if guest.writesToHost { giveBack(session, &progress) }
            return .exited(exit)
        } catch {
            if let signal = shared.withLock({ $0.interruption }) { return .interrupted(signal) }
            guard case .timedOut = error else { return .failed(death.failure(error, isUp: isUp)) }
            // Its own limit, or the one of the guest's start.
            if isUp || deadline.map({ $0 <= clock.now() }) ?? false { return death.panic.map { .failed($0) } ?? .timedOut }
            return .failed(death.neverUp(within: "\(configuration.bootTimeout) (--boot-timeout)"))
        }
    }

    /// Has the guest write what it still keeps of the host's files. The command has ended, and its status stands.
    private func giveBack(_ session: AgentSession, _ progress: inout ExecProgress) {
        do throws(AgentError) { try session.shutDown(until: clock.now() &+ Self.shutDownTime) } catch {
            progress.isIncomplete = true
            progress.notes.append("some of what the command wrote may not be there: \(error)")
        }
    }

    /// Ends the machine of a command whose time is over. What it has printed by then is written, as far as nobody has to be waited for.
    private func takeRest(of process: GuestProcess, _ machine: GuestMachine) {
        machine.requestStop()
        _ = try? process.wait(until: clock.now() &+ Self.restTime)
    }

    /// Nanoseconds that the guest may take to give back what was written.
    private static let shutDownTime: UInt64 = 30_000_000_000
    /// Nanoseconds that a machine may take to stop.
    private static let restTime: UInt64 = 2_000_000_000

    private var wantsTerminal: Bool {
        switch configuration.terminal {
        case .auto: Terminal.isTerminal(STDIN_FILENO)
        case .always: true
        case .never: false
        }
    }

    /// A signal that hover gets is the command's; a second one that ends, or one before there is a command, ends the machine.
    private func hear(_ number: Int32, _ machine: GuestMachine) {
        let (process, ends) = shared.withLock { shared -> (GuestProcess?, Bool) in
            guard SignalWatch.ending.contains(number) else { return (shared.process, false) }
            if shared.process != nil, shared.forwarded == 0 {
                shared.forwarded += 1
                return (shared.process, false)
            }
            if shared.interruption == nil { shared.interruption = number }
            return (nil, true)
        }
        if ends { return machine.requestStop() }
        guard let process else { return }
        if number == SIGWINCH {
            if let size = terminalSize { try? process.resize(size) }
        } else {
            try? process.send(signal: number)
        }
    }

    // MARK: What is asked of machine and guest

    private var guest: AgentGuest {
        AgentGuest(
            kernel: kernel, root: configuration.root, writesThrough: configuration.writesThrough, shares: configuration.shares,
            disks: configuration.disks, networks: configuration.networks,
            // Files belong to whom they belong where the command is somebody; otherwise its root is the caller.
            ownership: configuration.user == nil ? .userIsRoot : .same, memory: configuration.memory, cpus: configuration.cpus,
            engine: configuration.engine, transport: configuration.transport, append: configuration.append,
            isQuiet: configuration.consoleLog == nil)
    }

    private func command(isTerminal: Bool) -> GuestCommand {
        var command = GuestCommand(configuration.command)
        command.environment = configuration.environment
        command.directory = configuration.directory
        command.user = configuration.user
        if isTerminal {
            command.terminal = terminalSize ?? .init(rows: 24, columns: 80)
            // What goes elsewhere is not the terminal's: it has neither its line ends nor what was typed.
            if Terminal.isTerminal(STDIN_FILENO) {
                if !Terminal.isTerminal(STDOUT_FILENO) { command.pipesBesideTerminal.insert(.output) }
                if !Terminal.isTerminal(STDERR_FILENO) { command.pipesBesideTerminal.insert(.error) }
            }
        }
        return command
    }

    private var terminalSize: GuestCommand.TerminalSize? {
        (Terminal.size(of: STDIN_FILENO) ?? Terminal.size(of: STDOUT_FILENO)).map {
            .init(rows: UInt16(clamping: $0.rows), columns: UInt16(clamping: $0.columns))
        }
    }

    private func makeRaw(_ machine: GuestMachine) throws(AgentError) -> TerminalInput {
        do throws(Terminal.Failure) {
            // What the output is piped into may show it there.
            try Terminal.makeRaw(STDIN_FILENO, endingOnSignals: false, withOutput: Terminal.isTerminal(STDOUT_FILENO))
        } catch {
            throw .host(call: "making the terminal raw", errno: error.errno)
        }
        return try TerminalInput(from: STDIN_FILENO) { [self] in
            shared.withLock { if $0.interruption == nil { $0.interruption = SIGINT } }
            machine.requestStop()
        }
    }
}

/// When what happened, on the run's clock.
struct ExecProgress {
    var started: UInt64
    var ready: UInt64?
    var start: UInt64?
    /// What of the command's streams or files was lost, a line each.
    var notes: [String] = []
    /// Whether something was: a full disk on the host must not look like success.
    var isIncomplete = false

    init(started: UInt64) { self.started = started }

    /// From the run's start until the guest's root was there.
    var secondsToReady: Double? { ready.map { Double($0 &- started) / 1e9 } }
    /// From the run's start until the command ran.
    var secondsToStart: Double? { start.map { Double($0 &- started) / 1e9 } }
}
