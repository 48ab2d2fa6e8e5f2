internal import Glibc
internal import Logging
internal import Machine
internal import Synchronization
internal import VMCore

/// One life of a virtual machine's guest, from the start that is asked for to the end of its threads.
///
/// Any thread. Whoever has brought it up, or tried to, ends it.
final class VirtualMachineLife: @unchecked Sendable {
    private struct Parts {
        var machine: GuestMachine?
        var session: AgentSession?
        var watch: Thread?
        var kernelRelease: String?
        var isStopWanted = false
        var hasEnded = false
    }

    private let configuration: VirtualMachineConfiguration
    private let console: Console
    private let logger: Logger
    private let parts = Mutex(Parts())
    /// That the guest is up, or why it is not.
    let up = Promise<Void>()

    /// How long a start that is given up is waited for, where it fetches an image, say.
    private static let patience = Duration.seconds(2)

    init(_ configuration: VirtualMachineConfiguration, console: Console, logger: Logger) {
        self.configuration = configuration
        self.console = console
        self.logger = logger
    }

    /// The machine, once it has run.
    var machine: GuestMachine? { parts.withLock { $0.machine } }
    var session: AgentSession? { parts.withLock { $0.session } }
    /// Of the kernel that runs.
    var kernelRelease: String? { parts.withLock { $0.kernelRelease } }
    /// Whether its end was asked for.
    var isStopWanted: Bool { parts.withLock { $0.isStopWanted } }
    /// Whether the guest's life is over, for whatever reason.
    var hasEnded: Bool { parts.withLock { $0.hasEnded } }

    // MARK: Coming up

    /// Starts the guest on a thread of its own; `up` tells how it went. Once. What did not come up has ended by then.
    /// - Parameter onEnd: called when the guest's life is over, on a thread that may block.
    func begin(onEnd: @escaping @Sendable () -> Void) {
        Blocking.start { [self] in
            do {
                try bringUp(onEnd)
                // One that was given up is nobody's.
                if !up.resolve(.success(())) { end() }
            } catch {
                let reason: any Error = isStopWanted ? VirtualMachineError.stopped : error
                end()
                up.resolve(.failure(reason))
            }
        }
    }

    /// Ends a start that is under way: `up` is told soon.
    func giveUp() {
        requestStop()
        up.resolve(.failure(VirtualMachineError.stopped), after: Self.patience)
    }

    private func bringUp(_ onEnd: @escaping @Sendable () -> Void) throws {
        let store = try ImageStore()
        if configuration.kernel == .linux { _ = try store.fetch("linux", isCancelled: { [self] in isStopWanted }) }
        let kernel = try GuestKernel.locate(configuration.kernel, modules: configuration.modules, store: store)
        guard !isStopWanted else { throw VirtualMachineError.stopped }
        let guest = configuration.guest(kernel)
        let session = try AgentSession(clock: HostClock()) { [logger] in logger.warning("in the guest: \($0)") }
        let machine = try GuestMachine(guest.plan(session)) { [logger] in logger.warning("\($0)") }
        parts.withLock { parts in
            parts.machine = machine
            parts.session = session
        }
        if let notice = machine.engine.notice { logger.notice("\(notice)") }
        let material = try guest.material(logger)
        console.follow(machine)
        try machine.start(material)
        let watch = Thread(name: "machine-end") { [self] in
            _ = machine.wait(until: nil)
            session.machineEnded()
            console.end(machine)
            parts.withLock { $0.hasEnded = true }
            onEnd()
        }
        guard let watch else { throw AgentError.host(call: "pthread_create", errno: EAGAIN) }
        // What was asked for before the machine ran did not reach it.
        let isTooLate = parts.withLock { parts in
            parts.watch = watch
            return parts.isStopWanted
        }
        if isTooLate { machine.requestStop() }
        try greet(session, machine, guest)
    }

    private func greet(_ session: AgentSession, _ machine: GuestMachine, _ guest: AgentGuest) throws {
        let deadline = HostClock().now() &+ configuration.bootTimeLimit.nanoseconds
        do throws(AgentError) {
            let hello = try session.waitForHello(until: deadline)
            // A guest says anything, and messages tell it.
            parts.withLock { $0.kernelRelease = hello.release }
            try session.setUp(guest.setup(time: HostClock().unixNanoseconds()), until: deadline)
        } catch {
            if isStopWanted { throw VirtualMachineError.stopped }
            if case .timedOut = error { throw PostMortem(machine: machine).neverUp(within: "\(configuration.bootTimeLimit)") }
            throw PostMortem(machine: machine).failure(error, isUp: false)
        }
    }

    // MARK: Ending

    /// Ends the guest without waiting.
    func requestStop() {
        let machine = parts.withLock { parts in
            parts.isStopWanted = true
            return parts.machine
        }
        machine?.requestStop()
    }

    /// Ends the guest in good order, as far as it takes part: its commands are killed, and what they wrote is with the host.
    /// - Parameter grace: how long the guest may take.
    func shutDown(grace: Duration) {
        let (machine, session) = parts.withLock { parts in
            parts.isStopWanted = true
            return (parts.machine, parts.session)
        }
        // A guest that stands still would not hear it.
        machine?.resume()
        if configuration.writesToHost { try? session?.shutDown(until: HostClock().now() &+ grace.nanoseconds) }
        end()
    }

    /// Ends the guest, and waits for its threads.
    func end() {
        let (machine, session, watch) = parts.withLock { parts in
            defer { parts.watch = nil }
            return (parts.machine, parts.session, parts.watch)
        }
        machine?.requestStop()
        session?.close()
        watch?.join()
        if let machine {
            if !machine.close() { logger.warning("the host's KVM does not let a vCPU go; it ends with this process") }
            console.end(machine)
        }
    }

    // MARK: What there is to tell

    /// What remains of a life when its machine is gone.
    struct Record: Sendable {
        var engine: String
        var engineReason: String
        var kernelRelease: String?
        var statistics: MachineStatistics
    }

    /// nil before there was a machine.
    var record: Record? {
        let (machine, release) = parts.withLock { ($0.machine, $0.kernelRelease) }
        guard let machine else { return nil }
        return Record(
            engine: machine.engine.name, engineReason: machine.engine.reason, kernelRelease: release,
            statistics: MachineStatistics(machine))
    }
}
