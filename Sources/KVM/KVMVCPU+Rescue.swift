internal import CKVM
internal import Synchronization
public import VMCore

/// An instruction that KVM stops at because its emulator lacks it: the state goes to the rescuer and comes back, and the guest goes on.
///
/// KVM leaves the vCPU as it was before the instruction. Only what the instruction changed is written back: setting the
/// system registers, for one, makes KVM forget its shadow page tables. A call costs more than the instruction, so from the
/// first rescue on the registers come and go with `KVM_RUN`, and the extended state only where it is asked for.
extension KVMVCPU: RescuedVCPU {
    /// - Parameter failure: how the run ends where nothing can be done.
    /// - Returns: nil where the guest can go on.
    func rescueInstruction(_ failure: VCPUExit, _ service: any InstructionRescue) -> VCPUExit? {
        do throws(EngineError) {
            let rescuer = try preparedRescuer(service)
            let before = try rescueState()
            var after = before
            switch rescuer.rescue(&after, of: self) {
            case .executed(let dropsTranslations):
                try replace(before, by: after, now: dropsTranslations)
                if dropsTranslations { try dropTranslations() }
                dispatcher.statistics.rescues &+= 1
                return nil
            case .shutdown:
                return .shutdown
            case .refused(let reason):
                guard case .failed(.internal(_, _, let bytes)) = failure else { return failure }
                return .failed(.notRescued(reason: reason, instruction: bytes))
            }
        } catch {
            guard case .failed(.internal(_, _, let bytes)) = failure else { return failure }
            return .failed(.notRescued(reason: error.description, instruction: bytes))
        }
    }

    private func preparedRescuer(_ service: any InstructionRescue) throws(EngineError) -> any InstructionRescuer {
        if let rescuer { return rescuer }
        let connections = engine.connections.withLock { $0 }
        let entries = currentCPUID()
        let setting = RescueSetting(
            index: index, ports: connections.ports, mmio: connections.mmio,
            // Where the I/O APIC is the kernel's, so are its registers.
            ownPages: engine.irqChip == .kernel ? [GuestAddress(0xFEC0_0000)] : []
        ) { leaf, subleaf in
            guard let entry = entries.first(where: { $0.leaf == leaf && (!$0.hasSubleaves || $0.subleaf == subleaf) })
            else { return RescueSetting.Answer() }
            return RescueSetting.Answer(eax: entry.eax, ebx: entry.ebx, ecx: entry.ecx, edx: entry.edx)
        }
        let made = try service.makeRescuer(setting)
        rescuer = made
        return made
    }

    /// What CPUID tells the guest by now: hosts that cannot hide a feature put back what was left out.
    ///
    /// The corresponding ioctl is `KVM_GET_CPUID2`.
    private func currentCPUID() -> [CPUIDEntry] {
        let capacity = 1024
        let list = KVMList<kvm_cpuid2, kvm_cpuid_entry2>(capacity: capacity)
        unsafe list.header.pointee.nent = UInt32(capacity)
        guard (try? unsafe descriptor.call(CKVM_GET_CPUID2, "KVM_GET_CPUID2", at: list.header)) != nil else { return cpuidEntries }
        let entries = unsafe ckvm_cpuid_entries(list.header)
        return unsafe (0..<min(Int(list.header.pointee.nent), capacity)).map { unsafe CPUIDEntry(entries[$0]) }
    }

    // MARK: State

    private func rescueState() throws(EngineError) -> VCPUState {
        var state = VCPUState()
        try readRegisters(&state)
        // Without KVM_CAP_EXIT_ON_EMULATION_FAILURE, KVM has queued the #UD that it takes the instruction for.
        if !exitsOnEmulationFailure, state.events.exceptionVector == 6 {
            state.events.exceptionInjected = false
            state.events.exceptionPending = false
        }
        var debug = kvm_debugregs()
        try descriptor.call(CKVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS", &debug)
        state.debug = DebugRegisters(debug)
        return state
    }

    /// - Parameter now: by calls, not with the next `KVM_RUN`.
    private func replace(_ before: VCPUState, by after: VCPUState, now: Bool) throws(EngineError) {
        if !after.extended.isEmpty { try setExtendedState(after.extended, xcr0: after.xcr0) }
        if after.debug != before.debug {
            var debug = after.debug.kernel
            try descriptor.call(CKVM_SET_DEBUGREGS, "KVM_SET_DEBUGREGS", &debug)
        }
        // What `run` goes by before the next exit tells anew: whether an interrupt of the 8259A pair may be injected.
        unsafe run_.pointee.if_flag = after.general.rflags & 1 << 9 != 0 ? 1 : 0
        if after.events.shadow != 0 { unsafe run_.pointee.ready_for_interrupt_injection = 0 }
        try writeRegisters(
            general: after.general, system: after.system == before.system ? nil : after.system,
            events: after.events == before.events ? nil : after.events, now: now)
    }

    /// KVM flushes where CR3 is set to another value than it had. Source: [KVM-API §4.12].
    private func dropTranslations() throws(EngineError) {
        var system = kvm_sregs()
        try descriptor.call(CKVM_GET_SREGS, "KVM_GET_SREGS", &system)
        let cr3 = system.cr3
        system.cr3 = cr3 ^ 0x1000
        try descriptor.call(CKVM_SET_SREGS, "KVM_SET_SREGS", &system)
        system.cr3 = cr3
        try descriptor.call(CKVM_SET_SREGS, "KVM_SET_SREGS", &system)
    }

    // MARK: For the rescuer

    public func rescuedExtendedState() throws(EngineError) -> (area: [UInt8], xcr0: UInt64) {
        let area = try extendedState()
        var controls = kvm_xcrs()
        try descriptor.call(CKVM_GET_XCRS, "KVM_GET_XCRS", &controls)
        return (area, controls.nr_xcrs > 0 ? controls.xcrs.0.value : 1)
    }

    public func readMSR(_ index: UInt32) -> UInt64? { (try? value(ofMSR: index)) ?? nil }

    public func writeMSR(_ index: UInt32, _ value: UInt64) -> Bool {
        (try? setMSRs([ModelSpecificRegister(index: index, value: value)])) != nil
    }
}
