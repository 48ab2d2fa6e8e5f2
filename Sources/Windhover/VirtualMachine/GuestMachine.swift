internal import CHost
internal import Devices
internal import Glibc
internal import Logging
internal import Machine
internal import Synchronization
internal import VMCore
internal import Virtio

/// A machine with its devices, console and threads, that is started once and runs one life of a guest: what `hover exec` and
/// `VirtualMachine` are made of.
///
/// Any thread. A reset of the guest's is its end.
final class GuestMachine: @unchecked Sendable {
    /// How the life ended.
    struct End: Sendable {
        var outcome: MachineOutcome
        /// The panic's own line, where the guest's kernel panicked.
        var panic: String?
    }

    private struct State {
        var life: GuestLife?
        var isStarted = false
        var isClosed = false
    }

    let clock = HostClock()
    let loop: EventLoop
    let console: ConsoleRecord
    let engine: EngineSelection
    private let plan: MachinePlan
    private let devices: GuestDevices?
    private let state = Mutex(State())

    /// Chooses the engine and opens the devices.
    ///
    /// - Parameters:
    ///   - log: a descriptor that gets all the guest prints; it stays the caller's.
    ///   - notice: takes a line about what happens to a device later on.
    /// - Throws: a `ReportableError`. Nothing is left behind.
    init(_ plan: MachinePlan, log: Int32? = nil, notice: @escaping @Sendable (String) -> Void) throws {
        self.plan = plan
        do throws(EngineError) {
            engine = try EngineSelection(plan.clock == .instructions ? .interpreter : plan.engine.request)
            loop = try EventLoop(clock: clock)
        } catch {
            throw RunError(error)
        }
        console = ConsoleRecord(log: log.map { [loop, clock] in DescriptorSink(descriptor: $0, loop: loop, clock: clock) })
        devices = plan.devices.isEmpty ? nil : try GuestDevices(plan.devices, events: loop, clock: clock, notice: notice)
    }

    deinit { close() }

    /// Loads the guest and lets it run. Once.
    ///
    /// - Throws: a `ReportableError`.
    func start(_ material: BootMaterial) throws {
        let life = try GuestLife(
            plan, engine: engine,
            in: .init(
                loop: loop, clock: clock, console: console, consoleObserver: { [console] in console.observe($0) },
                devices: devices?.all ?? []),
            boot: material)
        state.withLock { state in
            state.life = life
            state.isStarted = true
        }
        life.run.start()
        do throws(EngineError) { try loop.start() } catch {
            life.run.stop()
            throw RunError(error)
        }
    }

    /// What has the guest give up memory.
    var balloon: BalloonDevice? { devices?.balloon }

    private var life: GuestLife? { state.withLock { $0.life } }

    /// Waits for the end of the guest's life. Any thread but the guest's and the loop's.
    /// - Returns: nil at the deadline, or before a start.
    func wait(until deadline: UInt64?) -> End? {
        guard let life, let outcome = life.run.wait(until: deadline) else { return nil }
        return End(outcome: outcome, panic: console.panic)
    }

    /// Ends the guest without waiting. Any thread.
    func requestStop() { life?.run.requestStop() }

    /// - Returns: whether it stands still.
    func pause() -> Bool { life?.run.pause() ?? false }

    func resume() { life?.run.resume() }

    func pressPowerButton() { life?.board.powerManagement.pressPowerButton() }

    /// Input for the serial console.
    /// - Returns: bytes taken; the guest takes the rest when it has read.
    func type(_ bytes: [UInt8]) -> Int { unsafe bytes.withUnsafeBytes { unsafe life?.board.serial.receive($0) ?? 0 } }

    /// Has `statistics` say how things stand now. May take some milliseconds, in which the guest stands still.
    func refreshStatistics() { life?.run.refreshStatistics() }

    var statistics: ExitStatistics { life?.run.statistics ?? ExitStatistics() }

    /// On the machine's clock.
    var firstInstructionTime: UInt64? { life?.run.firstInstructionTime }

    /// Resident KiB of this process but for the guest's RAM.
    var residentKiB: UInt64 { life.map { RunStatistics.residentOutside($0.memory) } ?? 0 }

    var deviceStatistics: [RunStatistics.Device] {
        life?.board.deviceStatistics.map { device in
            .init(kind: "\(device.kind)", counts: Dictionary(device.counts.map { ($0.name, $0.value) }, uniquingKeysWith: &+))
        } ?? []
    }

    /// Stops the guest, waits for its threads, and lets devices and the loop go. Once; again is harmless.
    /// - Returns: false where the host's KVM does not let a vCPU go.
    @discardableResult
    func close() -> Bool {
        let (life, isFirst) = state.withLock { state in
            defer { state.isClosed = true }
            return (state.life, !state.isClosed)
        }
        guard isFirst else { return true }
        life?.run.stop()
        let hasEnded = life?.run.hasEnded ?? true
        if hasEnded { life?.board.detachDevices() }
        console.flush()
        loop.stop()
        return hasEnded
    }
}
