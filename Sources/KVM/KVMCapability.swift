internal import CKVM

/// A KVM extension that the engine asks for, with what it is used for.
///
/// The corresponding ioctl is `KVM_CHECK_EXTENSION`. Source: [KVM-API §4.4].
public struct KVMCapability: Hashable, Sendable {
    /// The kernel's name, for example "KVM_CAP_SPLIT_IRQCHIP".
    public let name: String
    /// What is lost without it.
    public let purpose: String
    /// Whether the engine refuses to start without it.
    public let isRequired: Bool
    let number: Int32

    init(_ name: String, _ number: Int32, required: Bool = false, _ purpose: String) {
        self.name = name
        self.number = number
        self.isRequired = required
        self.purpose = purpose
    }

    static let irqChip = KVMCapability(
        "KVM_CAP_IRQCHIP", KVM_CAP_IRQCHIP, required: true, "interrupt controllers in the kernel")
    static let userMemory = KVMCapability(
        "KVM_CAP_USER_MEMORY", KVM_CAP_USER_MEMORY, required: true, "guest memory from the monitor's own")
    static let setTSSAddress = KVMCapability(
        "KVM_CAP_SET_TSS_ADDR", KVM_CAP_SET_TSS_ADDR, required: true, "real mode on VT-x")
    static let identityMap = KVMCapability(
        "KVM_CAP_SET_IDENTITY_MAP_ADDR", KVM_CAP_SET_IDENTITY_MAP_ADDR, required: true, "code without paging on VT-x")
    static let extendedCPUID = KVMCapability(
        "KVM_CAP_EXT_CPUID", KVM_CAP_EXT_CPUID, required: true, "choosing what CPUID tells the guest")
    static let mpState = KVMCapability(
        "KVM_CAP_MP_STATE", KVM_CAP_MP_STATE, required: true, "starting application processors")
    static let immediateExit = KVMCapability(
        "KVM_CAP_IMMEDIATE_EXIT", KVM_CAP_IMMEDIATE_EXIT, required: true,
        "stopping a vCPU without losing the request")
    static let pit2 = KVMCapability("KVM_CAP_PIT2", KVM_CAP_PIT2, "the interval timer in the kernel")
    static let splitIRQChip = KVMCapability(
        "KVM_CAP_SPLIT_IRQCHIP", KVM_CAP_SPLIT_IRQCHIP, "--irqchip split")
    static let irqRouting = KVMCapability(
        "KVM_CAP_IRQ_ROUTING", KVM_CAP_IRQ_ROUTING, "message-signalled interrupts")
    static let signalMSI = KVMCapability("KVM_CAP_SIGNAL_MSI", KVM_CAP_SIGNAL_MSI, "--irqchip split")
    static let doorbells = KVMCapability(
        "KVM_CAP_IOEVENTFD", KVM_CAP_IOEVENTFD, "disks and networks that are told of requests while the guest runs on")
    static let syncRegisters = KVMCapability(
        "KVM_CAP_SYNC_REGS", KVM_CAP_SYNC_REGS, "reading and setting registers in one call")
    static let tscDeadline = KVMCapability(
        "KVM_CAP_TSC_DEADLINE_TIMER", KVM_CAP_TSC_DEADLINE_TIMER, "a local timer that needs no calibration")
    static let tscFrequency = KVMCapability(
        "KVM_CAP_GET_TSC_KHZ", KVM_CAP_GET_TSC_KHZ, "telling the guest its clock rate")
    static let userSpaceMSR = KVMCapability(
        "KVM_CAP_X86_USER_SPACE_MSR", KVM_CAP_X86_USER_SPACE_MSR, "naming registers that KVM does not know")
    static let emulationFailure = KVMCapability(
        "KVM_CAP_EXIT_ON_EMULATION_FAILURE", KVM_CAP_EXIT_ON_EMULATION_FAILURE,
        "naming instructions that KVM cannot emulate")
    static let xsave = KVMCapability("KVM_CAP_XSAVE", KVM_CAP_XSAVE, required: true, "saving the extended registers")
    static let xsave2 = KVMCapability("KVM_CAP_XSAVE2", KVM_CAP_XSAVE2, "extended registers over 4 KiB")
    static let xcrs = KVMCapability("KVM_CAP_XCRS", KVM_CAP_XCRS, required: true, "saving XCR0")
    static let debugRegisters = KVMCapability(
        "KVM_CAP_DEBUGREGS", KVM_CAP_DEBUGREGS, required: true, "saving the debug registers")
    static let vcpuEvents = KVMCapability(
        "KVM_CAP_VCPU_EVENTS", KVM_CAP_VCPU_EVENTS, required: true, "saving interrupts that are on their way")
    static let maximumVCPUs = KVMCapability("KVM_CAP_MAX_VCPUS", KVM_CAP_MAX_VCPUS, "the most CPUs a guest can have")
    static let memorySlots = KVMCapability("KVM_CAP_NR_MEMSLOTS", KVM_CAP_NR_MEMSLOTS, "regions of guest memory")

    /// All of them, the required ones first: what `hover doctor` lists.
    public static let all: [KVMCapability] = [
        .userMemory, .irqChip, .setTSSAddress, .identityMap, .extendedCPUID, .mpState, .immediateExit,
        .xsave, .xcrs, .debugRegisters, .vcpuEvents,
        .pit2, .splitIRQChip, .irqRouting, .signalMSI, .doorbells, .syncRegisters, .tscDeadline, .tscFrequency,
        .userSpaceMSR, .emulationFailure, .xsave2, .maximumVCPUs, .memorySlots,
    ]
}
