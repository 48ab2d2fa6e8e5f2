internal import Synchronization
public import VMCore

/// Rescues by the interpreter: it executes, on the state and the memory of another engine's vCPU, the instruction that this
/// engine could not.
///
/// A processor of its own stands in for each vCPU. It takes the state, executes one instruction without any of the caches
/// that the interpreter lives by (what they know, the other engine's vCPUs may have changed), and gives it back. The memory
/// is the guest's, and atomic operations on it are the host's, so that other vCPUs may run meanwhile. Exceptions are
/// delivered here, to the handler's first instruction.
@safe public final class SoftwareRescue: InstructionRescue {
    private let memory: GuestMemory
    private let vcpuCount: Int
    /// Made with the first rescuer: most guests need none.
    private let engine = Mutex<SoftEngine?>(nil)

    /// - Parameters:
    ///   - memory: the rescued engine's.
    ///   - vcpuCount: of the rescued engine; 1 to 255.
    public init(memory: GuestMemory, vcpuCount: Int) {
        self.memory = memory
        self.vcpuCount = vcpuCount
    }

    public func makeRescuer(_ setting: RescueSetting) throws(EngineError) -> any InstructionRescuer {
        let engine = try self.engine.withLock { known throws(EngineError) -> SoftEngine in
            if let known { return known }
            let made = try SoftEngine(memory: memory, vcpuCount: vcpuCount)
            made.connect(ports: setting.ports, mmio: setting.mmio)
            known = made
            return made
        }
        return SoftRescuer(try engine.makeSoftVCPU(index: setting.index), setting)
    }
}

/// One vCPU's.
@safe final class SoftRescuer: InstructionRescuer {
    private let vcpu: SoftVCPU
    private let context: RescueContext
    private var cpu: CPU { vcpu.cpu }

    init(_ vcpu: SoftVCPU, _ setting: RescueSetting) {
        self.vcpu = vcpu
        context = RescueContext(setting)
        vcpu.rescue = context
        vcpu.cpu.s.rescuing = 1
        vcpu.cpu.s.reservedPhysical = context.reservedPhysical
    }

    func rescue(_ state: inout VCPUState, of rescued: any RescuedVCPU) -> RescueOutcome {
        if let reason = Self.hindrance(state) { return .refused(reason) }
        do throws(EngineError) {
            try take(state)
        } catch {
            return .refused("the vCPU's state: \(error)")
        }
        context.begin(state, rescued)
        defer { context.rescued = nil }
        cpu.s.refused = 0
        // Protection keys' rights are in the extended state.
        if state.system.cr4 & CR4.pke != 0, cpu.loadExtendedState(context) { cpu.s.pkru = context.protectionKeyRights }
        let lives = cpu.s.refused != 0 || cpu.executeUnstopped()
        if cpu.s.refused == 0, lives, !context.giveBases(cpu) { cpu.refuse("its MSR cannot be written") }
        if cpu.s.refused != 0 { return .refused(context.refusal) }
        guard lives else { return .shutdown }
        give(&state)
        return .executed(dropsTranslations: context.dropsTranslations)
    }

    /// What no instruction can be rescued in.
    private static func hindrance(_ state: VCPUState) -> String? {
        let events = state.events
        if events.inSystemManagement { return "the vCPU is in system-management mode" }
        if events.exceptionInjected || events.exceptionPending || events.interruptInjected || events.nmiInjected {
            return "the vCPU is on its way to a handler"
        }
        if state.system.cr4 & CR4.la57 != 0 { return "the guest uses page tables of five levels" }
        if state.system.cr4 & CR4.cet != 0 { return "the guest uses shadow stacks or branch tracking" }
        return nil
    }

    // MARK: State in

    private func take(_ state: VCPUState) throws(EngineError) {
        let cpu = self.cpu
        cpu.generalState = state.general
        var system = state.system
        system.cr0 &= 0xFFFF_FFFF
        system.cr4 &= CR4.allowed
        system.efer &= EFER.allowed
        try cpu.setSystem(system)
        // Bits that the interpreter offers no guest of its own come along: some mean something to it all the same.
        cpu.s.cr0 = state.system.cr0
        cpu.s.cr4 = state.system.cr4
        cpu.s.efer = state.system.efer
        cpu.s.cr8 = state.system.cr8
        cpu.s.dr = (state.debug.dr0, state.debug.dr1, state.debug.dr2, state.debug.dr3)
        cpu.s.dr6 = state.debug.dr6
        cpu.s.dr7 = state.debug.dr7
        cpu.s.pendingDebug = 0
        cpu.s.injected = 0
        cpu.s.shadow = state.events.shadow & 3
        cpu.s.nmiPending = 0
        cpu.s.nmiMasked = state.events.nmiMasked ? 1 : 0
        cpu.s.runState = 0
        cpu.s.leave = Leave.next
        cpu.refreshAccessMode()
    }

    // MARK: State out

    private func give(_ state: inout VCPUState) {
        let cpu = self.cpu
        let apicBase = state.system.apicBase
        state.general = cpu.generalState
        state.system = cpu.systemState
        state.system.apicBase = apicBase
        state.debug = cpu.debugState
        state.events.shadow = cpu.s.shadow
        state.events.nmiMasked = cpu.s.nmiMasked != 0
        if let area = context.changedExtended(cpu) {
            state.extended = area
            state.xcr0 = context.xcr0
        }
    }
}

/// What a rescue knows beside the processor's state.
@safe final class RescueContext {
    static var xss: UInt32 { 0xDA0 }

    let features: GuestFeatures
    let layout: ExtendedLayout
    let reservedPhysical: UInt64
    private let ownPages: [UInt64]

    /// For the time of one rescue.
    weak var rescued: (any RescuedVCPU)?
    private var apicPage: UInt64 = ~0
    private(set) var refusal = ""
    var dropsTranslations = false

    // Extended state: what is not in the processor's own block. Empty until an instruction needs it.
    var extended: [UInt8] = []
    var extendedChanged = false
    /// XINUSE, but for x87 and SSE as last seen.
    var inUse: UInt64 = 0
    var xcr0: UInt64 = 1
    var imageBefore: [UInt8] = []
    /// IA32_KERNEL_GS_BASE as it was, where the instruction may change it.
    var kernelGSBase: UInt64?

    init(_ setting: RescueSetting) {
        features = GuestFeatures(setting.cpuid)
        layout = ExtendedLayout(setting.cpuid)
        ownPages = setting.ownPages.map { $0.rawValue & TLB.pageMask }
        let bits = UInt64(max(32, min(setting.cpuid(0x8000_0008, 0).eax & 0xFF, 52)))
        reservedPhysical = ~((1 &<< bits) &- 1) & 0x000F_FFFF_FFFF_F000
    }

    func begin(_ state: VCPUState, _ rescued: any RescuedVCPU) {
        self.rescued = rescued
        refusal = ""
        dropsTranslations = false
        // Enabled, and not in x2APIC mode. Source: [SDM3 §11.12.1].
        apicPage = state.system.apicBase & 0xC00 == 0x800 ? state.system.apicBase & TLB.pageMask & 0x000F_FFFF_FFFF_FFFF : ~0
        extended = []
        extendedChanged = false
        inUse = 0
        kernelGSBase = nil
    }

    func isOwn(_ physical: UInt64) -> Bool {
        let page = physical & TLB.pageMask
        return page == apicPage || ownPages.contains(page)
    }

    /// PKRU; no restriction where the vCPU has none.
    var protectionKeyRights: UInt32 {
        let component = layout.components[9]
        guard component.size >= 4, inUse &>> 9 & 1 != 0 else { return 0 }
        return UInt32(truncatingIfNeeded: ExtendedLayout.word(extended, component.offset))
    }

    func refuse(_ reason: String) { if refusal.isEmpty { refusal = reason } }

    /// Tells the engine what SWAPGS did.
    /// - Returns: false where it does not take it.
    fileprivate func giveBases(_ cpu: CPU) -> Bool {
        guard let before = kernelGSBase, before != cpu.s.kernelGSBase else { return true }
        return rescued?.writeMSR(MSR.kernelGSBase, cpu.s.kernelGSBase) ?? false
    }
}

extension CPU {
    func refuse(_ reason: String) {
        vcpu.rescue?.refuse(reason)
        s.refused = 1
    }

    /// The local APIC and what else is the engine's own: what the instruction would do there cannot be done from here.
    @inline(never)
    func refuseOwnDevice(_ physical: UInt64) -> Bool {
        guard let rescue = vcpu.rescue, rescue.isOwn(physical) else { return false }
        refuse("it reaches the engine's own interrupt controller at \(GuestAddress(physical))")
        return true
    }

    func noteDroppedTranslations() { if s.rescuing != 0 { vcpu.rescue?.dropsTranslations = true } }
}
