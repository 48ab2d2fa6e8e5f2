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

    /// What a running machine consists of.
    private struct Life: Sendable {
        var machine: GuestMachine
        var session: AgentSession
        var guest: AgentGuest
        var watch: Thread?
        var kernelRelease = ""
    }

    private struct Shared {
        var state = State.stopped
        var life: Life?
        var failure: GuestFailure?
        var observers: [UInt64: AsyncStream<State>.Continuation] = [:]
        var nextObserver: UInt64 = 0
    }

    public let configuration: VirtualMachineConfiguration
    /// What the guest's kernel says on its serial console, all lives after another.
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
        if let life { Self.end(life) }
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

    /// Why the state is `failed`.
    public var failure: GuestFailure? { shared.withLock { $0.failure } }

    /// "kvm" or "interpreter"; nil before the first start.
    public var engine: String? { shared.withLock { $0.life?.machine.engine.name } }

    /// Why that engine.
    public var engineReason: String? { shared.withLock { $0.life?.machine.engine.reason } }

    /// Of the kernel that runs, such as `6.1.0-40-cloud-amd64`.
    public var kernelRelease: String? { shared.withLock { $0.life?.kernelRelease } }

    /// Numbers of this life so far.
    public var statistics: MachineStatistics? {
        guard let machine = shared.withLock({ $0.life?.machine }) else { return nil }
        return MachineStatistics(machine)
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
    }

    // MARK: Starting and stopping

    /// Starts the guest, and returns when it is up: commands can be run.
    ///
    /// The image that the kernel is of is fetched if it is not there yet.
    /// - Throws: a `ReportableError` for what cannot be started; `GuestFailure` for a guest that did not come up;
    ///   `VirtualMachineError.wrongState`; `CancellationError`.
    public func start() async throws {
        try Task.checkCancellation()
        try move(from: [.stopped, .failed], to: .starting)
        do {
            try await withTaskCancellationHandler {
                try await Blocking.run { try self.bringUp() }
            } onCancel: {
                self.shared.withLock { $0.life }?.machine.requestStop()
            }
        } catch {
            let (life, failure) = shared.withLock { shared in
                defer { shared.life = nil }
                shared.failure = error as? GuestFailure
                Self.set(.failed, &shared)
                return (shared.life, shared.failure)
            }
            if let life { await Blocking.run { Self.end(life) } }
            try Task.checkCancellation()
            throw failure ?? error
        }
    }

    /// On a thread that may block.
    private func bringUp() throws {
        let kernel = try GuestKernel.locate(configuration.kernel, modules: configuration.modules, store: ImageStore())
        let guest = configuration.guest(kernel)
        let session = try AgentSession(clock: HostClock()) { [logger] in logger.warning("in the guest: \($0)") }
        let machine = try GuestMachine(guest.plan(session)) { [logger] in logger.warning("\($0)") }
        console.follow(machine)
        let material = try guest.material(logger)
        if let notice = machine.engine.notice { logger.notice("\(notice)") }
        var life = Life(machine: machine, session: session, guest: guest)
        shared.withLock { $0.life = life }
        try machine.start(material)
        life.watch = Thread(name: "machine-end") { [weak self, console] in
            let end = machine.wait(until: nil)
            session.machineEnded()
            console.end()
            if end != nil { self?.hasEnded(machine) }
        }
        shared.withLock { $0.life = life }
        let deadline = HostClock().now() &+ configuration.bootTimeLimit.nanoseconds
        do throws(AgentError) {
            life.kernelRelease = try session.waitForHello(until: deadline).release
            try session.setUp(guest.setup(time: HostClock().unixNanoseconds()), until: deadline)
        } catch {
            if case .timedOut = error {
                throw PostMortem(machine: machine).neverUp(within: "\(configuration.bootTimeLimit)")
            }
            throw PostMortem(machine: machine).failure(error, isUp: false)
        }
        shared.withLock { shared in
            shared.life = life
            shared.failure = nil
            if shared.state == .starting { Self.set(.running, &shared) }
        }
    }

    /// The guest's life is over, and nobody here asked for it.
    private func hasEnded(_ machine: GuestMachine) {
        guard state == .running || state == .paused else { return }
        let failure = PostMortem(machine: machine).failure(.machineEnded, isUp: true)
        shared.withLock { shared in
            guard shared.life?.machine === machine, shared.state == .running || shared.state == .paused else { return }
            shared.failure = failure
            Self.set(.failed, &shared)
        }
    }

    /// Ends the guest: its commands are killed, what they wrote to the host's directories and disks is there, and the machine is gone.
    /// A guest that does not answer is stopped all the same, after `grace`. Of a machine that does not run, nothing.
    public func stop(grace: Duration = .seconds(10)) async {
        let life = shared.withLock { shared -> Life? in
            guard let life = shared.life, shared.state != .stopping else { return nil }
            if shared.state != .failed { Self.set(.stopping, &shared) }
            return life
        }
        guard let life else { return }
        await Blocking.run {
            life.machine.resume()
            if life.guest.writesToHost { try? life.session.shutDown(until: HostClock().now() &+ grace.nanoseconds) }
            Self.end(life)
        }
        shared.withLock { shared in
            guard shared.life?.machine === life.machine else { return }
            shared.life = nil
            Self.set(.stopped, &shared)
        }
    }

    private static func end(_ life: Life) {
        life.machine.requestStop()
        life.session.close()
        life.watch?.join()
        life.machine.close()
    }

    /// Presses the power button, for a guest whose system listens to it.
    public func pressPowerButton() { shared.withLock { $0.life }?.machine.pressPowerButton() }

    /// Stops all processors between two instructions. Nothing is lost.
    /// - Throws: `VirtualMachineError.wrongState` for one that does not run.
    public func pause() async throws {
        try move(from: [.running], to: .pausing)
        let machine = shared.withLock { $0.life?.machine }
        let isStill = await Blocking.run { machine?.pause() ?? false }
        shared.withLock { shared in
            if shared.state == .pausing { Self.set(isStill ? .paused : .failed, &shared) }
        }
        if !isStill { throw VirtualMachineError.wrongState(state) }
    }

    /// Lets a paused machine go on.
    public func resume() async throws {
        try move(from: [.paused], to: .resuming)
        shared.withLock { $0.life }?.machine.resume()
        shared.withLock { if $0.state == .resuming { Self.set(.running, &$0) } }
    }

    // MARK: For commands

    /// The session of a machine that runs.
    func running() throws -> (session: AgentSession, machine: GuestMachine) {
        let (state, life, failure) = shared.withLock { ($0.state, $0.life, $0.failure) }
        if let failure { throw failure }
        guard state == .running || state == .paused, let life else { throw VirtualMachineError.wrongState(state) }
        return (life.session, life.machine)
    }
}

/// Why something cannot be done with a virtual machine now.
public enum VirtualMachineError: Error, Hashable, Sendable, CustomStringConvertible {
    /// It is in a state in which that has no meaning.
    case wrongState(VirtualMachine.State)
    /// What was waited for did not come in time.
    case timedOut(waitingFor: String)
    /// The console ended before what was waited for.
    case consoleEnded(waitingFor: String)

    public var description: String {
        switch self {
        case .wrongState(let state): "the virtual machine is \(state.rawValue): that cannot be done now"
        case .timedOut(let what): "\(what) did not come in time"
        case .consoleEnded(let what): "the guest ended before \(what) came"
        }
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
