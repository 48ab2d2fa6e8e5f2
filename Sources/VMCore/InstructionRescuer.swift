/// Makes rescuers for an engine's vCPUs. Nothing is made before a vCPU needs it: most never do.
public protocol InstructionRescue: AnyObject, Sendable {
    /// - Parameter setting: what the rescuer must know of the vCPU that it is for.
    /// - Throws: `EngineError` where the host gives no memory for it.
    func makeRescuer(_ setting: RescueSetting) throws(EngineError) -> any InstructionRescuer
}

/// Executes, on a vCPU's own state and memory, the instructions at which its engine gives up. Used on that vCPU's thread,
/// while it is outside the guest.
public protocol InstructionRescuer: AnyObject {
    /// Executes the instruction at RIP, or delivers the exception that it raises. Of a repeated string instruction it may be
    /// some iterations: RIP stays then.
    ///
    /// - Parameters:
    ///   - state: the vCPU's general, system and debug registers and events. Afterwards, unless it is refused, how it goes on;
    ///     `extended`, with `xcr0`, is there only where the instruction changed it.
    ///   - vcpu: for the rest, which few instructions need and an engine is slow to tell.
    /// - Complexity: bounded, whatever the guest's state and memory hold.
    func rescue(_ state: inout VCPUState, of vcpu: any RescuedVCPU) -> RescueOutcome
}

public enum RescueOutcome: Hashable, Sendable {
    /// The state is what the vCPU goes on with.
    /// - Parameter dropsTranslations: the instruction made translations invalid, which only the engine can do to its own.
    case executed(dropsTranslations: Bool)
    /// An exception could not be delivered, nor the double fault after it.
    case shutdown
    /// This instruction is none that can be rescued; why, as a phrase that begins with the instruction.
    case refused(String)
}

/// What a rescuer may ask of the vCPU beside the state that it is given.
public protocol RescuedVCPU: AnyObject {
    /// As `VCPUState.extended` and `VCPUState.xcr0`.
    func rescuedExtendedState() throws(EngineError) -> (area: [UInt8], xcr0: UInt64)
    /// - Returns: nil where reading it raises #GP.
    func readMSR(_ index: UInt32) -> UInt64?
    /// - Returns: false where writing it raises #GP.
    func writeMSR(_ index: UInt32, _ value: UInt64) -> Bool
}

/// What does not change of a vCPU while it runs.
public struct RescueSetting: Sendable {
    /// The answer of one CPUID leaf.
    public struct Answer: Hashable, Sendable, BitwiseCopyable {
        public var eax: UInt32
        public var ebx: UInt32
        public var ecx: UInt32
        public var edx: UInt32
        public init(eax: UInt32 = 0, ebx: UInt32 = 0, ecx: UInt32 = 0, edx: UInt32 = 0) {
            self.eax = eax
            self.ebx = ebx
            self.ecx = ecx
            self.edx = edx
        }
    }

    public var index: Int
    public var ports: Bus
    public var mmio: Bus
    /// Pages of device space that are the engine's own, not the bus's: an access there cannot be rescued. The local APIC's
    /// page is not among them; `SystemRegisters.apicBase` names it.
    public var ownPages: [GuestAddress]
    /// What CPUID tells the guest; zeros for leaves that there are not.
    public var cpuid: @Sendable (_ leaf: UInt32, _ subleaf: UInt32) -> Answer

    public init(
        index: Int, ports: Bus, mmio: Bus, ownPages: [GuestAddress],
        cpuid: @escaping @Sendable (_ leaf: UInt32, _ subleaf: UInt32) -> Answer
    ) {
        self.index = index
        self.ports = ports
        self.mmio = mmio
        self.ownPages = ownPages
        self.cpuid = cpuid
    }
}
