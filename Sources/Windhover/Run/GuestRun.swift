internal import Boot
internal import CHost
internal import Devices
internal import Glibc
public import Logging
internal import Machine
internal import Synchronization
internal import VMCore
internal import Virtio

/// The files a run boots from, found and there.
public struct GuestFiles: Hashable, Sendable {
    /// The kernel, or whatever else is bootable; nil for the built-in guest.
    public var kernel: String?
    /// The kernel's fast form, where its image has one.
    public var preparedKernel: String?
    public var initrd: String?
    /// An archive with the drivers of virtio devices, for a machine that has some: it is unpacked behind the initrd.
    public var modules: String?
    /// Whether it is an image of the store, whose command line is ours to begin.
    public var isOurs: Bool

    public init(
        kernel: String? = nil, preparedKernel: String? = nil, initrd: String? = nil, modules: String? = nil, isOurs: Bool = false
    ) {
        self.kernel = kernel
        self.preparedKernel = preparedKernel
        self.initrd = initrd
        self.modules = modules
        self.isOurs = isOurs
    }
}

/// How a run ended, as the command's contract has it.
public struct RunResult: Sendable {
    /// The process's exit status.
    public var status: Int32
    /// What is to be said on standard error; empty for an orderly end.
    public var message: String = ""
    /// What else went wrong beside the guest, a line each.
    public var notes: [String] = []
    /// The signal that ended the run: the process ends with it.
    public var signal: Int32?
}

/// One `hover run`: lives of a guest, its console, the time limit, signals, and the numbers at the end.
public final class GuestRun: @unchecked Sendable {
    private enum Interruption: Sendable {
        case left
        case signal(Int32)
    }

    private struct Shared {
        var life: MachineRun?
        /// Of that life: what the console's keys reach.
        var board: Mainboard?
        /// Of all lives.
        var balloon: BalloonDevice?
        var interruption: Interruption?
    }

    private let configuration: RunConfiguration
    /// On the run's own thread only.
    private var files: HeldFiles
    private let logger: Logger
    private let notice: @Sendable (String) -> Void
    private let clock = HostClock()
    private let shared = Mutex(Shared())

    /// - Parameter notice: takes the one line that a person is told who did not choose the engine.
    public init(
        _ configuration: RunConfiguration, files: GuestFiles, logger: Logger,
        notice: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        self.configuration = configuration
        self.files = HeldFiles(files)
        self.logger = logger
        self.notice = notice
    }

    /// Runs the guest to its end.
    ///
    /// - Throws: a `ReportableError` for what could not be started.
    public func run() throws -> RunResult {
        let started = clock.now()
        // What went before `main` was CPU time: the loader's and the language's own start.
        let processStart = started &- min(started, HostClock.processTime())
        let statisticsFile = try configuration.statistics.map { path throws(StatisticsError) in
            do throws(OutputFile.Failure) { return try OutputFile(path) } catch {
                throw StatisticsError(path: path, errno: error.errno)
            }
        }
        defer { statisticsFile?.close() }
        let engine = try chooseEngine()
        let loop = try starting { () throws(EngineError) in try EventLoop(clock: clock) }
        let console = try GuestConsole(configuration.console, loop: loop, clock: clock) { [self] command in obey(command) }
        defer {
            console.close()
            loop.stop()
        }
        let devices = configuration.hasVirtioDevices
            ? try GuestDevices(configuration.plan.devices, events: loop, clock: clock, notice: notice) : nil
        shared.withLock { $0.balloon = devices?.balloon }
        // Until the first life is made a signal does what it always does: what a kernel's unpacking takes nobody has to wait for.
        var signals: SignalWatch?
        defer { withExtendedLifetime(signals) {} }
        chost_single_arena()

        let deadline = configuration.timeout.map { started &+ $0.milliseconds &* 1_000_000 }
        var totals = ExitStatistics()
        var boots = 0
        var firstInstruction: UInt64?
        while true {
            let life = try beginLife(engine, loop: loop, console: console, devices: devices)
            files.hold()
            boots += 1
            // Before there is a thread beside this one.
            if boots == 1 { signals = SignalWatch(loop: loop) { [self] number in interrupt(.signal(number)) } }
            // Only now: a run that cannot start has one line to say, and it is not this.
            if boots == 1, let text = engine.notice { notice(text) }
            let interrupted = shared.withLock { shared in
                shared.life = life.run
                shared.board = life.board
                return shared.interruption != nil
            }
            life.run.start()
            if interrupted { life.run.requestStop() }
            var outcome: MachineOutcome?
            if boots == 1 {
                // Not before: its thread would be in the way of the guest's first instruction. Signals and input that came
                // meanwhile wait in their descriptors.
                do throws(EngineError) { try loop.start() } catch {
                    life.run.stop()
                    throw RunError(error)
                }
                let settled = clock.now() &+ Self.settlingTime
                outcome = life.run.wait(until: min(settled, deadline ?? settled))
                // Argument parsing, image loading and set-up are behind us: megabytes of code not needed again.
                if outcome == nil { chost_release_code() }
            }
            outcome = outcome ?? life.run.wait(until: deadline)
            let timedOut = outcome == nil
            if timedOut {
                life.run.stop()
                outcome = .stopped
            }
            life.run.join()
            if life.run.hasEnded {
                devices?.ports?.drain(isHasty: shared.withLock { $0.interruption != nil })
                life.board.detachDevices()
            }
            console.disconnect()
            if !life.run.hasEnded {
                logger.warning("the host's KVM does not let a vCPU go; it ends with this process")
            }
            shared.withLock { shared in
                shared.life = nil
                shared.board = nil
            }
            totals = totals + life.run.statistics
            firstInstruction = firstInstruction ?? life.run.firstInstructionTime
            console.sink?.flush()
            let interruption = shared.withLock { $0.interruption }
            if case .reset = outcome, console.panic == nil, interruption == nil, !timedOut, !configuration.noReboot,
                life.run.hasEnded
            {
                logger.info("the guest reset; starting it anew")
                continue
            }
            var (result, word) = judge(
                outcome ?? .stopped, timedOut: timedOut, interruption: interruption, panic: console.panic)
            if let file = statisticsFile {
                let first = firstInstruction ?? clock.now()
                let statistics = RunStatistics(
                    engine: engine.name, engineReason: engine.reason, outcome: word, exitStatus: result.status,
                    microsecondsToFirstInstruction: (first &- processStart) / 1000,
                    firstInstructionNanoseconds: first,
                    wallSeconds: Double(clock.now() &- started) / 1e9, boots: boots, exits: .init(totals),
                    instructions: totals.instructions, rescues: totals.rescues,
                    devices: life.board.deviceStatistics.map { device in
                        .init(
                            kind: "\(device.kind)",
                            counts: Dictionary(device.counts.map { ($0.name, $0.value) }, uniquingKeysWith: &+))
                    },
                    residentKiBOutsideGuestMemory: RunStatistics.residentOutside(life.memory))
                do throws(OutputFile.Failure) {
                    try file.replaceContents(with: statistics.encoded)
                } catch {
                    // The guest ran all the same: what became of it is not lost for the numbers.
                    let failure = StatisticsError(path: configuration.statistics ?? "", errno: error.errno)
                    result.notes.append(failure.description)
                    if result.status == 0 { result.status = failure.exitStatus.rawValue }
                }
            }
            console.close(isHasty: interruption != nil)
            if let lost = console.lostOutput { result.notes.append(lost) }
            result.notes += devices?.ports?.finish(isHasty: interruption != nil) ?? []
            return result
        }
    }

    /// Nanoseconds after which a guest is well under way: what its start needed need not stay in memory.
    private static let settlingTime: UInt64 = 50_000_000

    /// Ends the process as a signal that ended the run would have.
    public static func die(of signal: Int32) -> Never { SignalWatch.die(of: signal) }

    // MARK: Parts of a run

    private func chooseEngine() throws(RunError) -> EngineSelection {
        let selection = try starting { () throws(EngineError) in
            // Only the interpreter counts.
            try EngineSelection(configuration.clock == .instructions ? .interpreter : configuration.engine.request)
        }
        logger.debug("engine \(selection.name): \(selection.reason)")
        return selection
    }

    /// Makes a machine with the guest in it, and connects the console.
    private func beginLife(
        _ selection: EngineSelection, loop: EventLoop, console: GuestConsole, devices: GuestDevices?
    ) throws -> GuestLife {
        let life = try GuestLife(
            configuration.plan, engine: selection,
            in: .init(
                loop: loop, clock: clock, console: console.sink, consoleObserver: { [console] in console.observe($0) },
                devices: devices?.all ?? []),
            boot: bootMaterial)
        console.connect(life.board.serial)
        devices?.ports?.begin()
        return life
    }

    private var bootMaterial: BootMaterial {
        // Asked to unpack in the guest, the fast form is of no use.
        let fast = configuration.decompression == .host ? files.preparedKernel : nil
        let hasDevices = configuration.hasVirtioDevices
        var material = BootMaterial(
            kernel: (fast ?? files.kernel).map { .file($0) }
                ?? .bytes(ImageBytes(BuiltinGuest.image, name: "the built-in guest")),
            unpacking: configuration.decompression, isOurs: files.isOurs,
            commandLine: { [configuration, isOurs = files.isOurs] isLinux in
                GuestCommandLine.text(
                    isLinux: isLinux, isOurs: isOurs, hasPCI: hasDevices && configuration.transport == .pci,
                    hasDisk: !configuration.disks.isEmpty, portCount: configuration.ports.count, append: configuration.append,
                    terminal: Terminal.size(of: STDOUT_FILENO))
            },
            trace: { [logger] in logger.debug("\($0)") })
        if let initrd = files.initrd { material.initrds = [.file(initrd)] }
        // Drivers are worth the guest's time only where they have something to drive.
        if hasDevices, let modules = files.modules { material.initrds.append(.file(modules)) }
        return material
    }

    /// - Returns: what a person at the terminal is told.
    private func obey(_ command: GuestConsole.Command) -> String? {
        switch command {
        case .leave: interrupt(.left)
        case .powerButton: shared.withLock { $0.board }?.powerManagement.pressPowerButton()
        case .sendBreak: shared.withLock { $0.board }?.serial.sendBreak()
        case .lessMemory, .moreMemory: return moveMemory(isLess: command == .lessMemory)
        }
        return nil
    }

    /// An eighth of the guest's memory goes into its balloon, or out of it; one eighth it keeps.
    private func moveMemory(isLess: Bool) -> String {
        guard let balloon = shared.withLock({ $0.balloon }) else {
            return "\r\nWindhover: this guest has no balloon, which --balloon gives it\r\n"
        }
        let memory = configuration.memory.bytes
        // Whole pages.
        let step = memory / 8 & ~0xFFF
        let now = balloon.target
        balloon.setTarget(bytes: isLess ? max(now, min(now &+ step, memory &- step)) : now &- min(now, step))
        return "\r\nWindhover: the guest is to make do with \(ByteCount.text(memory &- balloon.target)) of \(ByteCount.text(memory))\r\n"
    }

    private func interrupt(_ interruption: Interruption) {
        let life = shared.withLock { shared in
            if shared.interruption == nil { shared.interruption = interruption }
            return shared.life
        }
        life?.requestStop()
    }

    /// The contract's exit status, and what is said.
    private func judge(
        _ outcome: MachineOutcome, timedOut: Bool, interruption: Interruption?, panic: String?
    ) -> (RunResult, String) {
        if case .signal(let number) = interruption {
            return (RunResult(status: ShellStatus.signal(number), signal: number), "signal")
        }
        if case .left = interruption { return (RunResult(status: 0), "left") }
        if let panic {
            if case .poweredOff = outcome {} else {
                return (
                    RunResult(
                        status: ExitStatus.guestPanicked.rawValue,
                        message: "the guest's kernel panicked: \(PlainText.line(panic.utf8, limit: PlainText.longestLine))"),
                    "panic"
                )
            }
        }
        if timedOut {
            let limit = configuration.timeout.map { "\($0)" } ?? ""
            return (
                RunResult(
                    status: ExitStatus.timedOut.rawValue,
                    message: "the guest was stopped: it did not end within \(limit) (--timeout)"), "timeout"
            )
        }
        switch outcome {
        case .poweredOff: return (RunResult(status: 0), "powered-off")
        case .reset: return (RunResult(status: 0), "reset")
        case .halted: return (RunResult(status: 0), "halted")
        case .stopped: return (RunResult(status: 0), "stopped")
        case .debugExit(let value):
            // 2n+1 of the low bits that an exit status has.
            return (RunResult(status: Int32((value &* 2 &+ 1) & 0xFF)), "debug-exit")
        case .crashed(let report):
            return (
                RunResult(
                    status: ExitStatus.guestCrashed.rawValue,
                    message: "\(report.summary)\n\(report.registerDump)\n\(report.advice)"), "crashed"
            )
        case .failed(let error):
            let failure = RunError(error)
            return (RunResult(status: failure.exitStatus.rawValue, message: failure.description), "failed")
        }
    }
}

/// Gives an engine's error its exit status.
private func starting<Value: ~Copyable>(_ body: () throws(EngineError) -> Value) throws(RunError) -> Value {
    do { return try body() } catch { throw RunError(error) }
}

extension EngineChoice {
    /// As the machine takes it.
    var request: EngineSelection.Request {
        switch self {
        case .auto: .automatic
        case .kvm: .kvm
        case .interpreter: .interpreter
        }
    }
}
