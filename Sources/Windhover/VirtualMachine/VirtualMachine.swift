internal import Glibc
public import Logging
internal import Machine
internal import Synchronization
internal import VMCore

/// A virtual machine with Linux in it, in which commands are run: made of a configuration, then started and stopped, as often as wanted.
///
/// ```swift
/// let machine = try VirtualMachine(VirtualMachineConfiguration())
/// try await machine.start()
/// let result = try await machine.run("uname", "-r")
/// print(result.output)
/// await machine.stop()
/// ```
///
/// Any task, any thread. A machine that nobody holds any more is stopped.
public final class VirtualMachine: Sendable {
    public enum State: String, Hashable, Sendable, CaseIterable {
        /// Not started, or stopped.
        case stopped
        case starting
        /// Up: commands can be run.
        case running
        case pausing
        case paused
        case resuming
        case stopping
        /// It ended by itself, or did not come up.
        case failed
    }

    private struct Shared {
        var state = State.stopped
        /// The life that is, or was last; nil after a stop.
        var life: VirtualMachineLife?
        /// Of the life before.
        var record: VirtualMachineLife.Record?
        var failure: (any Error)?
        var observers: [UInt64: AsyncStream<State>.Continuation] = [:]
        var nextObserver: UInt64 = 0
        /// They want to look at the state again when it has changed.
        var waiters: [CheckedContinuation<Void, Never>] = []
    }

    public let configuration: VirtualMachineConfiguration
    /// What the guest says on its serial console, all lives after another.
    public let console: Console
    private let logger: Logger
    private let shared = Mutex(Shared())

    /// - Parameters:
    ///   - configuration: is validated.
    ///   - logger: gets what is worth knowing: warnings, and notes of the guest's.
    /// - Throws: a `ReportableError`, one line that names the thing, the reason and the way out.
    public init(_ configuration: VirtualMachineConfiguration, logger: Logger = Logger(label: "windhover")) throws {
        try configuration.validate()
        self.configuration = configuration
        self.logger = logger
        console = Console()
    }

    deinit {
        let (life, observers) = shared.withLock { ($0.life, Array($0.observers.values)) }
        for observer in observers { observer.finish() }
        guard let life else { return console.close() }
        // Whoever held it last is not to wait for the end of threads, of which it may be one.
        Blocking.start { [console] in
            life.end()
            console.close()
        }
    }

    // MARK: State

    /// What it is doing now.
    public var state: State { shared.withLock { $0.state } }

    /// The state now, and each later one, until nobody listens or the machine goes.
    public var states: AsyncStream<State> {
        let (stream, continuation) = AsyncStream.makeStream(of: State.self, bufferingPolicy: .bufferingNewest(16))
        let token = shared.withLock { shared in
            continuation.yield(shared.state)
            let token = shared.nextObserver
            shared.nextObserver &+= 1
            shared.observers[token] = continuation
            return token
        }
        continuation.onTermination = { [weak self] _ in _ = self?.shared.withLock { $0.observers.removeValue(forKey: token) } }
        return stream
    }

    /// Why the state is `failed`: a `GuestFailure`, or a `ReportableError` for what could not be started.
    public var failure: (any Error)? { shared.withLock { $0.failure } }

    /// "kvm" or "interpreter", of this life or the last; nil before the first start.
    public var engine: String? { record?.engine }

    /// Why that engine.
    public var engineReason: String? { record?.engineReason }

    /// Of the kernel that runs or ran, such as `6.1.0-40-cloud-amd64`.
    public var kernelRelease: String? { record?.kernelRelease }

    private var record: VirtualMachineLife.Record? {
        let (life, last) = shared.withLock { ($0.life, $0.record) }
        return life?.record ?? last
    }

    /// Numbers of this life so far, or of the last; nil before the first start. The guest stands still for an instant.
    public func statistics() async -> MachineStatistics? {
        let (life, last) = shared.withLock { ($0.life, $0.record) }
        return await Blocking.run { () -> VirtualMachineLife.Record? in
            life?.machine?.refreshStatistics()
            return life?.record ?? last
        }?.statistics
    }

    /// Goes from one of some states to another.
    private func move(from: Set<State>, to state: State) throws(VirtualMachineError) {
        let now = shared.withLock { shared -> State? in
            guard from.contains(shared.state) else { return shared.state }
            Self.set(state, &shared)
            return nil
        }
        if let now { throw .wrongState(now) }
    }

    private static func set(_ state: State, _ shared: inout Shared) {
        guard shared.state != state else { return }
        shared.state = state
        for observer in shared.observers.values { observer.yield(state) }
        for waiter in shared.waiters { waiter.resume() }
        shared.waiters = []
    }

    /// Returns when the state is another one.
    private func waitForChange(of state: State) async {
        await withCheckedContinuation { continuation in
            let hasChanged = shared.withLock { shared in
                guard shared.state == state else { return true }
                shared.waiters.append(continuation)
                return false
            }
            if hasChanged { continuation.resume() }
        }
    }

    // MARK: Starting and stopping

    /// Starts the guest, and returns when it is up: commands can be run.
    ///
    /// The image that the kernel is of is fetched if it is not there yet.
    /// - Throws: a `ReportableError` for what cannot be started; `GuestFailure` for a guest that did not come up;
    ///   `VirtualMachineError`: `wrongState`, or `stopped` where it was while it came up; `CancellationError`.
    public func start() async throws {
        try Task.checkCancellation()
        try move(from: [.stopped, .failed], to: .starting)
        let life = VirtualMachineLife(configuration, console: console, logger: logger)
        let old = shared.withLock { shared in
            shared.failure = nil
            defer { shared.life = life }
            return shared.life
        }
        // A machine that failed still has its disks.
        if let old { await Blocking.run { old.end() } }
        life.begin { [weak self, weak life] in
            if let self, let life { hasEnded(life) }
        }
        do {
            try await withTaskCancellationHandler {
                try await life.up.value
            } onCancel: {
                life.giveUp()
            }
        } catch {
            let record = life.record
            shared.withLock { shared in
                shared.life = nil
                shared.record = record
                shared.failure = life.isStopWanted ? nil : error
                Self.set(life.isStopWanted ? .stopped : .failed, &shared)
            }
            try Task.checkCancellation()
            throw error
        }
        shared.withLock { Self.set(.running, &$0) }
        // It may have ended, or been given up, before that was so.
        if life.hasEnded { hasEnded(life) }
        if Task.isCancelled {
            await stop(grace: .zero)
            throw CancellationError()
        }
        if life.isStopWanted { throw VirtualMachineError.stopped }
    }

    /// The guest's life is over, and nobody here asked for it. On a thread that may block.
    private func hasEnded(_ life: VirtualMachineLife) {
        guard let machine = life.machine, !life.isStopWanted else { return }
        fail(life, PostMortem(machine: machine).ended)
    }

    /// The machine is of no use any more.
    private func fail(_ life: VirtualMachineLife, _ failure: GuestFailure) {
        shared.withLock { shared in
            guard shared.life === life, [.running, .pausing, .paused, .resuming].contains(shared.state) else { return }
            shared.failure = failure
            Self.set(.failed, &shared)
        }
    }

    /// Ends the guest: its commands are killed, what they wrote to the host's directories and disks is there, and the machine is gone.
    ///
    /// A guest that does not answer is stopped all the same, after `grace`; a start that is under way is given up. Of a machine
    /// that does not run it makes a stopped one. A task that is cancelled stops it too.
    public func stop(grace: Duration = .seconds(10)) async {
        while true {
            let (state, life) = shared.withLock { shared -> (State, VirtualMachineLife?) in
                defer { if ![.stopped, .stopping, .starting].contains(shared.state) { Self.set(.stopping, &shared) } }
                return (shared.state, shared.life)
            }
            switch state {
            case .stopped: return
            case .starting:
                life?.giveUp()
                await waitForChange(of: .starting)
            case .stopping: await waitForChange(of: .stopping)
            case .running, .pausing, .paused, .resuming, .failed:
                let hadFailed = state == .failed
                let record = await Blocking.run { () -> VirtualMachineLife.Record? in
                    if hadFailed { life?.end() } else { life?.shutDown(grace: grace) }
                    return life?.record
                }
                return shared.withLock { shared in
                    shared.life = nil
                    shared.record = record ?? shared.record
                    shared.failure = nil
                    Self.set(.stopped, &shared)
                }
            }
        }
    }

    /// Presses the power button, for a guest whose system listens to it.
    public func pressPowerButton() { shared.withLock { $0.life }?.machine?.pressPowerButton() }

    /// Stops all processors between two instructions. Nothing is lost; commands go on after `resume`.
    /// - Throws: `VirtualMachineError.wrongState` for one that does not run; what `run` throws for one that ended meanwhile.
    public func pause() async throws {
        try move(from: [.running], to: .pausing)
        let machine = shared.withLock { $0.life }?.machine
        let isStill = await Blocking.run { machine?.pause() ?? false }
        let state = shared.withLock { shared in
            if shared.state == .pausing { Self.set(isStill ? .paused : .running, &shared) }
            return shared.state
        }
        guard state != .paused else { return }
        if let failure { throw failure }
        guard state == .running else { throw VirtualMachineError.wrongState(state) }
        // The host's KVM kept one: then the others are not to stand still either.
        machine?.resume()
        throw VirtualMachineError.timedOut(waitingFor: "the standstill of all processors")
    }

    /// Lets a paused machine go on.
    /// - Throws: `VirtualMachineError.wrongState` for one that is not paused.
    public func resume() async throws {
        try move(from: [.paused], to: .resuming)
        shared.withLock { $0.life }?.machine?.resume()
        shared.withLock { if $0.state == .resuming { Self.set(.running, &$0) } }
    }

    // MARK: For commands

    /// The life of a machine that runs.
    func running() throws -> (life: VirtualMachineLife, session: AgentSession, machine: GuestMachine) {
        let (state, life, failure) = shared.withLock { ($0.state, $0.life, $0.failure) }
        if let failure { throw failure }
        guard [.running, .pausing, .paused, .resuming].contains(state), let life, let session = life.session,
            let machine = life.machine
        else { throw VirtualMachineError.wrongState(state) }
        return (life, session, machine)
    }

    /// Why a command has not come to its end. May wait a moment for the guest's last words.
    func failure(_ error: AgentError, _ life: VirtualMachineLife, _ machine: GuestMachine) -> any Error {
        if life.isStopWanted { return VirtualMachineError.stopped }
        let failure = PostMortem(machine: machine).failure(error, isUp: true)
        if life.isStopWanted { return VirtualMachineError.stopped }
        switch error {
        case .machineEnded, .closed, .connectionLost, .violation, .backlog: fail(life, failure)
        case .timedOut, .setUpFailed, .notStarted, .unsendable, .host: break
        }
        return failure
    }
}

extension Duration {
    /// Whole nanoseconds, none for a negative duration.
    var nanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        let whole = UInt64(seconds).multipliedReportingOverflow(by: 1_000_000_000)
        return whole.overflow ? UInt64.max / 4 : min(whole.partialValue &+ UInt64(attoseconds) / 1_000_000_000, UInt64.max / 4)
    }
}
