internal import CHost
internal import Synchronization
public import VMCore

/// The engine that runs guests by interpreting them: it needs nothing of its host but threads.
@safe public final class SoftEngine: Engine {
    public let name = "interpreter"
    let memory: GuestMemory
    let vcpuCount: Int
    let codePages: CodePages
    let time: TimeSource
    /// x87, MMX and SSE on the host's own unit; nil where the host forbids executable memory: then they raise #UD.
    let hostOperations: HostOperations
    /// One a vCPU, made before them, so that nothing that is sent to one that is not there yet gets lost.
    let attentions: [Attention]

    struct Connections: Sendable {
        var ports = Bus(BusMap())
        var mmio = Bus(BusMap())
        var externalInterrupts: (any ExternalInterruptSource)?
    }
    let connections = Mutex(Connections())
    /// The local APICs; nil where the machine has none.
    let fabric: InterruptFabric?
    /// What takes the host's clocks' place where two runs are to be identical.
    let instructionClock: InstructionClock?

    /// - Parameters:
    ///   - memory: becomes the guest's RAM; kept alive by the engine.
    ///   - vcpuCount: what CPUID tells the guest; 1 to 255.
    ///   - alarms: rings at the local APICs' deadlines, on the host's CLOCK_MONOTONIC; nil makes a machine without local
    ///     APICs, whose processors an interrupt source alone reaches.
    ///   - instructionClock: makes the time-stamp counter and the local APIC's timer count instructions. The machine's
    ///     devices are to use it as their clock and alarm service too. One CPU only.
    /// - Throws: `EngineError`.
    public init(
        memory: GuestMemory, vcpuCount: Int, alarms: (any AlarmService)? = nil, instructionClock: InstructionClock? = nil
    ) throws(EngineError) {
        guard vcpuCount >= 1, vcpuCount <= 255 else {
            throw .unsupported(reason: "\(vcpuCount) CPUs asked for; the interpreter runs 1 to 255", remedy: "use --cpus within that")
        }
        guard instructionClock == nil || vcpuCount == 1 else {
            throw .unsupported(
                reason: "the clock that counts instructions is one CPU's, and \(vcpuCount) are asked for",
                remedy: "use --cpus 1, or the host's clock")
        }
        self.instructionClock = instructionClock
        self.memory = memory
        self.vcpuCount = vcpuCount
        attentions = (0..<vcpuCount).map { _ in Attention() }
        // One that has not run yet has nothing that the others would have to wait for.
        for attention in attentions { attention.raise(.outside) }
        codePages = CodePages(memory, attentions)
        guard codePages.owners != 0, codePages.chunks != 0 else { throw .host(call: "mmap of the code page table", errno: 12) }
        time = TimeSource(instructionClock)
        if let reason = HostFeatures().lack {
            throw .unsupported(reason: "the interpreter executes vector instructions by the host's, and this \(reason)", remedy: "use a newer host")
        }
        do throws(HostOperationsError) { hostOperations = try HostOperations.open() } catch {
            throw .unsupported(
                reason: "the interpreter needs memory that it can make executable, and this host gives none: \(error)",
                remedy: "allow this process executable memory")
        }
        if let instructionClock, alarms != nil {
            fabric = InterruptFabric(
                attentions: attentions,
                clock: SteadyProcessorClock(instructionClock, tscKilohertz: InstructionClock.kilohertz),
                alarms: instructionClock)
        } else if let alarms {
            fabric = InterruptFabric(attentions: attentions, clock: HostProcessorClock(time), alarms: alarms)
        } else {
            fabric = nil
        }
        memory.add(observer: codePages)
    }

    deinit { memory.remove(observer: codePages) }

    public func connect(ports: Bus, mmio: Bus) {
        connections.withLock { connections in
            connections.ports = ports
            connections.mmio = mmio
        }
    }

    public func makeVCPU(index: Int) throws(EngineError) -> any VCPU { try makeSoftVCPU(index: index) }

    /// As `makeVCPU`, with the engine's own type.
    public func makeSoftVCPU(index: Int) throws(EngineError) -> SoftVCPU { try SoftVCPU(engine: self, index: index) }

    public func interruptLine(gsi: UInt32) -> (any InterruptLine)? { nil }

    public var messages: (any InterruptMessageSink)? { fabric }

    public func connect(externalInterrupts source: any ExternalInterruptSource) {
        connections.withLock { $0.externalInterrupts = source }
        fabric?.connect(externalInterrupts: source)
    }

    public func externalInterruptsChanged() {
        guard let fabric else { return attentions[0].raise(.interrupt) }
        fabric.externalInterruptsChanged()
    }

    public func connect(endOfInterrupt listener: any EndOfInterruptListener) {
        fabric?.connect(endOfInterrupt: listener)
    }

    public func disconnect() {
        connections.withLock { $0 = Connections() }
        fabric?.disconnect()
    }

    /// Nothing to do: an interrupt comes with its trigger mode, and TMR keeps it until the EOI.
    public func setRoutes(_ routes: [InterruptRoute?]) {}
}

/// Where the guest's time-stamp counter comes from: the host's, or the count of instructions. RDTSC and the timers ask here
/// and nowhere else.
struct TimeSource: Sendable {
    /// Ticks a second of `ticks`, in kHz.
    let kilohertz: UInt32

    private let instructions: InstructionClock?

    init(_ instructions: InstructionClock? = nil) {
        self.instructions = instructions
        kilohertz = instructions == nil ? TimeSource.measured : InstructionClock.kilohertz
    }

    @inline(__always) var ticks: UInt64 { instructions?.now() ?? chost_rdtsc() }

    private static let measured: UInt32 = chost_tsc_kilohertz()
}
