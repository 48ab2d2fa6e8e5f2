/// What executes guests: KVM, or a software CPU. One per machine, made for that machine's memory and buses.
///
/// A caller wires devices to it and asks for vCPUs; it never sees the devices themselves.
public protocol Engine: AnyObject, Sendable {
    /// The engine's name in messages and statistics: "kvm", "interpreter".
    var name: String { get }

    /// Connects the buses that the guest's accesses go to. Once, before the first vCPU is made: an engine comes
    /// before the devices, which need its interrupt lines, and those before the buses.
    func connect(ports: Bus, mmio: Bus)

    /// Makes a vCPU. Call it on the thread that will run that vCPU.
    ///
    /// vCPU 0 is the boot processor; the others wait for INIT and SIPI.
    /// - Throws: `EngineError`, with the host's reason.
    func makeVCPU(index: Int) throws(EngineError) -> any VCPU

    /// The wire to a global system interrupt: 0-15 the ISA interrupts, 16-23 the rest of the first I/O APIC.
    /// nil where the engine has no interrupt controllers of its own and the machine's devices serve instead.
    func interruptLine(gsi: UInt32) -> (any InterruptLine)?

    /// Where MSIs and a device-layer I/O APIC's messages go; nil where the machine has no local APICs.
    var messages: (any InterruptMessageSink)? { get }

    /// Connects the 8259A pair of the device layer to the boot processor. Before its first run.
    func connect(externalInterrupts source: any ExternalInterruptSource)

    /// Tells the boot processor that the source's pin may have changed. Any thread; holds no device lock back.
    func externalInterruptsChanged()

    /// Connects the device layer's I/O APIC to the local APICs' EOI broadcasts. Before the first run.
    func connect(endOfInterrupt listener: any EndOfInterruptListener)

    /// Has writes to a doorbell counted by an eventfd in place of passed to the memory bus: the vCPU need not leave the guest.
    ///
    /// - Returns: false where the engine cannot, and they go to the bus as before.
    func attach(_ doorbell: Doorbell, to descriptor: Int32) -> Bool

    /// Undoes `attach`, with the same words.
    func detach(_ doorbell: Doorbell, from descriptor: Int32)

    /// Lets go of all that was connected, which holds the engine in its turn. After the last vCPU has ended.
    func disconnect()

    /// Tells the engine which vectors need an EOI broadcast: the I/O APIC's level-triggered routes.
    /// - Parameter routes: for each redirection entry, in order, the message it would send and whether it is level-triggered;
    ///   nil when masked with no EOI due.
    func setRoutes(_ routes: [InterruptRoute?])
}

extension Engine {
    /// An engine that serves accesses on the vCPU's own thread has nothing to gain.
    public func attach(_ doorbell: Doorbell, to descriptor: Int32) -> Bool { false }
    public func detach(_ doorbell: Doorbell, from descriptor: Int32) {}
}

/// One redirection entry of an I/O APIC that is unmasked, or masked with its EOI still due.
public struct InterruptRoute: Hashable, Sendable, BitwiseCopyable {
    public var message: InterruptMessage
    public var isLevelTriggered: Bool
    public init(message: InterruptMessage, isLevelTriggered: Bool) {
        self.message = message
        self.isLevelTriggered = isLevelTriggered
    }
}

/// One virtual CPU. Used on one thread only, but for `kicker`.
///
/// Port and memory-mapped accesses go to the buses the engine was made with, inside `run`.
public protocol VCPU: AnyObject {
    var index: Int { get }

    /// Runs the guest until a reason that concerns the whole machine.
    func run() -> VCPUExit

    /// Makes `run` return `.kicked` soon, now or at its next call; never lost. Any thread.
    var kicker: any VCPUKicker { get }

    /// - Throws: `EngineError` naming the state that could not be read.
    func state() throws(EngineError) -> VCPUState

    /// Replaces everything that `state()` reads. Empty parts (`extended`, `msrs`, `localAPIC`) are left as they are.
    func setState(_ state: VCPUState) throws(EngineError)

    /// Sets where the guest starts: general and system registers. All else stays as reset left it.
    /// Cheaper than `setState`, for the way to the first instruction. A zero `apicBase` is left as it is.
    func setEntry(general: GeneralRegisters, system: SystemRegisters) throws(EngineError)

    /// Exits so far, by kind.
    var statistics: ExitStatistics { get }
}

/// Interrupts a vCPU's `run` from another thread.
public protocol VCPUKicker: AnyObject, Sendable {
    func kick()
}

/// Why a vCPU stopped running.
public enum VCPUExit: Hashable, Sendable {
    /// Somebody called `kick`.
    case kicked
    /// HLT on an engine without interrupt controllers: nothing inside the vCPU can ever wake it.
    case halted
    /// A triple fault: the processor's shutdown cycle.
    case shutdown
    /// The guest asked through the hypervisor interface, not through a device.
    case systemEvent(SystemEvent)
    /// A breakpoint or single step asked for by `setState`'s owner; the guest is unharmed.
    case debug
    /// The vCPU cannot go on.
    case failed(VCPUFailure)

    public enum SystemEvent: Hashable, Sendable {
        case powerOff
        case reset
        case crash
        case other(UInt32)
    }
}

/// Why a vCPU cannot go on, with what the hardware or the host's kernel said.
public enum VCPUFailure: Error, Hashable, Sendable {
    /// The processor refused to enter the guest.
    case entry(reason: UInt64)
    /// The hypervisor's own trouble: its sub-error and data words, and the instruction bytes where it gave them.
    case `internal`(suberror: UInt32, data: [UInt64], instruction: [UInt8])
    /// The hypervisor could not emulate an instruction, and nor could its rescuer: why, and the bytes where they are known.
    case notRescued(reason: String, instruction: [UInt8])
    /// An exit this engine has no meaning for.
    case unhandled(reason: UInt32, name: String)
    /// The call that runs the guest failed.
    case host(errno: Int32, call: String)
}

extension VCPUFailure: CustomStringConvertible {
    public var description: String {
        func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
        switch self {
        case .entry(let reason):
            return "the processor refused to enter the guest, hardware reason \(hex(reason))"
        case .internal(let suberror, let data, let instruction):
            let kind: String
            switch suberror {
            case 1: kind = "KVM could not emulate an instruction"
            case 2: kind = "an exception came while another was being delivered"
            case 3: kind = "an exit came while an event was being delivered"
            case 4: kind = "KVM met an exit reason it does not know"
            default: kind = "KVM reported an internal error"
            }
            var text = "\(kind) (KVM_EXIT_INTERNAL_ERROR, suberror \(suberror))"
            if !instruction.isEmpty {
                text += Self.words(instruction)
            }
            if !data.isEmpty {
                text += ", data " + data.map(hex).joined(separator: " ")
            }
            return text
        case .notRescued(let reason, let instruction):
            return "KVM could not emulate an instruction (KVM_EXIT_INTERNAL_ERROR, suberror 1), nor could the software CPU: "
                + reason + (instruction.isEmpty ? "" : Self.words(instruction))
        case .unhandled(let reason, let name):
            return "the vCPU stopped with \(name) (reason \(reason)), which this engine does not handle"
        case .host(let code, let call):
            return "\(call) failed: \(HostError.message(code))"
        }
    }

    private static func words(_ instruction: [UInt8]) -> String {
        let bytes = instruction.map { $0 < 16 ? "0" + String($0, radix: 16) : String($0, radix: 16) }
        return ", instruction bytes " + bytes.joined(separator: " ")
    }
}

/// Exits counted by kind: what `--stats` prints. Plain words, bumped without a lock by the vCPU's own thread.
public struct ExitStatistics: Hashable, Sendable, BitwiseCopyable {
    public var portReads: UInt64 = 0
    public var portWrites: UInt64 = 0
    public var memoryReads: UInt64 = 0
    public var memoryWrites: UInt64 = 0
    public var halts: UInt64 = 0
    public var interruptWindows: UInt64 = 0
    public var endOfInterrupts: UInt64 = 0
    public var msrs: UInt64 = 0
    public var kicks: UInt64 = 0
    public var other: UInt64 = 0
    /// Instructions executed, by engines that count them.
    public var instructions: UInt64 = 0
    /// Instructions that the software CPU executed, or raised the exception of, because the hardware engine could not.
    public var rescues: UInt64 = 0

    public init() {}

    public static func + (left: Self, right: Self) -> Self {
        var sum = left
        sum.portReads &+= right.portReads
        sum.portWrites &+= right.portWrites
        sum.memoryReads &+= right.memoryReads
        sum.memoryWrites &+= right.memoryWrites
        sum.halts &+= right.halts
        sum.interruptWindows &+= right.interruptWindows
        sum.endOfInterrupts &+= right.endOfInterrupts
        sum.msrs &+= right.msrs
        sum.kicks &+= right.kicks
        sum.other &+= right.other
        sum.instructions &+= right.instructions
        sum.rescues &+= right.rescues
        return sum
    }
}

/// Why an engine, or a part of it, could not be made or asked.
public enum EngineError: Error, Hashable, Sendable {
    /// The host has no such engine: what is missing, and what would mend it.
    case unavailable(reason: String, remedy: String)
    /// The host has it, but this user may not use it.
    case notPermitted(reason: String, remedy: String)
    /// The host is too old or too small for what is asked.
    case unsupported(reason: String, remedy: String)
    /// A call to the host failed.
    case host(call: String, errno: Int32)
    /// State from outside that no vCPU can hold.
    case badState(String)
}

extension EngineError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .unavailable(let reason, let remedy), .notPermitted(let reason, let remedy),
            .unsupported(let reason, let remedy):
            remedy.isEmpty ? reason : "\(reason); \(remedy)"
        case .host(let call, let code):
            "\(call) failed: \(HostError.message(code))"
        case .badState(let what):
            what
        }
    }
}
