internal import CKVM
internal import Glibc
internal import Synchronization
public import VMCore

/// One vCPU of the host's KVM.
///
/// The corresponding ioctl is `KVM_CREATE_VCPU`.
@safe public final class KVMVCPU: VCPU {
    public let index: Int
    let engine: KVMEngine
    let descriptor: KVMDescriptor
    /// The area shared with the kernel.
    let run_: UnsafeMutablePointer<kvm_run>
    let kvmKicker: KVMKicker
    var dispatcher: KVMExitDispatcher
    private let hasSyncRegisters: Bool
    /// Whether every exit brings the registers: from the first rescue on.
    private var bringsRegisters = false
    let exitsOnEmulationFailure: Bool
    private let extendedSize: Int
    /// What CPUID tells the guest.
    private(set) var cpuidEntries: [CPUIDEntry] = []
    /// An exit that came while state was read: the next `run` returns it.
    private var heldExit: VCPUExit?
    /// Made at the first instruction that KVM cannot emulate.
    var rescuer: (any InstructionRescuer)?

    public var kicker: any VCPUKicker { kvmKicker }
    public var statistics: ExitStatistics { dispatcher.statistics }

    init(engine: KVMEngine, index: Int) throws(EngineError) {
        self.engine = engine
        self.index = index
        let system = engine.machine.system
        descriptor = try engine.machine.createVCPU(index: index)
        let size = system.runAreaSize
        let mapped = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor.raw, 0)
        guard let mapped = unsafe mapped, unsafe mapped != MAP_FAILED else {
            throw .host(call: "mmap of a vCPU", errno: errno)
        }
        unsafe run_ = mapped.assumingMemoryBound(to: kvm_run.self)
        unsafe kvmKicker = KVMKicker(run: run_)
        let buses = engine.connections.withLock { ($0.ports, $0.mmio) }
        dispatcher = KVMExitDispatcher(ports: buses.0, mmio: buses.1, runAreaSize: size)
        let wanted = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS
        hasSyncRegisters = UInt(system.check(.syncRegisters)) & wanted == wanted
        exitsOnEmulationFailure = system.check(.emulationFailure) > 0
        extendedSize = max(4096, Int(system.check(.xsave2)))
        try setCPUID()
        try setResetState()
    }

    deinit {
        kvmKicker.detach()
        _ = unsafe munmap(run_, engine.machine.system.runAreaSize)
    }

    // MARK: Running

    /// Runs the guest until a reason that concerns the whole machine; ports and memory-mapped devices are served inside.
    ///
    /// The corresponding ioctl is `KVM_RUN`.
    public func run() -> VCPUExit {
        if let exit = heldExit {
            heldExit = nil
            return exit
        }
        let connections = engine.connections.withLock { $0 }
        dispatcher.endOfInterrupt = connections.endOfInterrupt
        // Only the boot processor's INTR pin is wired to the 8259A pair.
        let external = index == 0 && engine.irqChip != .kernel ? connections.externalInterrupts : nil
        let mask = kvmKicker.enter()
        defer { kvmKicker.leave(restoring: mask) }
        let fd = descriptor.raw
        while true {
            if kvmKicker.isRequested {
                unsafe ckvm_set_immediate_exit(run_, 0)
                if kvmKicker.consume() {
                    dispatcher.statistics.kicks &+= 1
                    return .kicked
                }
            }
            if let external, let failure = injectExternal(from: external) { return .failed(failure) }
            let result = ckvm_ioctl(fd, CKVM_RUN, 0)
            if result < 0 {
                switch -result {
                case EINTR, EAGAIN:
                    // A kick, a wake-up, or a signal of no concern: all are looked at on the way back in.
                    unsafe ckvm_set_immediate_exit(run_, 0)
                    continue
                default:
                    return .failed(.host(errno: -result, call: "KVM_RUN"))
                }
            }
            guard let exit = unsafe dispatcher.dispatch(run_) else { continue }
            guard case .failed(.internal(suberror: 1, _, _)) = exit, let service = connections.rescue else { return exit }
            if let exit = rescueInstruction(exit, service) { return exit }
        }
    }

    /// The interrupt-acknowledge cycle that a processor does on its own: KVM leaves it to us where the 8259A is ours.
    ///
    /// The corresponding ioctl is `KVM_INTERRUPT`.
    ///
    /// - Returns: why the interrupt, which the 8259A has in service by then, did not get in.
    private func injectExternal(from source: any ExternalInterruptSource) -> VCPUFailure? {
        guard source.isPending else {
            unsafe run_.pointee.request_interrupt_window = 0
            return nil
        }
        if unsafe run_.pointee.ready_for_interrupt_injection != 0, unsafe run_.pointee.if_flag != 0 {
            var interrupt = kvm_interrupt()
            interrupt.irq = UInt32(source.acknowledge())
            let result = unsafe withUnsafeMutablePointer(to: &interrupt) { pointer in
                unsafe ckvm_ioctl_pointer(descriptor.raw, CKVM_INTERRUPT, pointer)
            }
            if result < 0 { return .host(errno: -result, call: "KVM_INTERRUPT") }
            unsafe run_.pointee.request_interrupt_window = source.isPending ? 1 : 0
        } else {
            unsafe run_.pointee.request_interrupt_window = 1
        }
        return nil
    }

    /// Finishes the access that the last exit was for, without running on: what state is read after must be whole.
    /// With sync registers it also brings the registers.
    private func completeAccess() {
        let kept = unsafe run_.pointee.kvm_valid_regs
        unsafe run_.pointee.kvm_valid_regs = validRegisters
        unsafe ckvm_set_immediate_exit(run_, 1)
        defer {
            unsafe ckvm_set_immediate_exit(run_, 0)
            unsafe run_.pointee.kvm_valid_regs = kept
        }
        while heldExit == nil {
            let result = ckvm_ioctl(descriptor.raw, CKVM_RUN, 0)
            // -EINTR is its success. An access of several parts, across pages or of 16 bytes, has an exit for each.
            if result == 0 {
                heldExit = unsafe dispatcher.dispatch(run_)
            } else {
                if result != -EINTR, result != -EAGAIN { heldExit = .failed(.host(errno: -result, call: "KVM_RUN")) }
                return
            }
        }
    }

    private var validRegisters: UInt64 {
        hasSyncRegisters ? UInt64(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS) : 0
    }

    // MARK: Registers, for a rescue

    /// General and system registers and events, after an exit that left no access to be completed.
    func readRegisters(_ state: inout VCPUState) throws(EngineError) {
        if hasSyncRegisters, !bringsRegisters {
            completeAccess()
            bringsRegisters = true
            unsafe run_.pointee.kvm_valid_regs = validRegisters
        }
        try takeRegisters(&state)
    }

    /// - Parameters:
    ///   - system, events: nil where they are as they were.
    ///   - now: by calls, not with the next `KVM_RUN`.
    func writeRegisters(
        general: GeneralRegisters, system: SystemRegisters?, events: PendingEvents?, now: Bool
    ) throws(EngineError) {
        if hasSyncRegisters, !now {
            let sync = unsafe ckvm_sync_regs(run_)
            var dirty = KVM_SYNC_X86_REGS
            unsafe sync.pointee.regs = general.kernel
            if let system {
                // An interrupt that KVM has on its way stays there.
                let pending = unsafe sync.pointee.sregs.interrupt_bitmap
                unsafe sync.pointee.sregs = system.kernel
                unsafe sync.pointee.sregs.interrupt_bitmap = pending
                dirty |= KVM_SYNC_X86_SREGS
            }
            if let events {
                unsafe sync.pointee.events = events.kernel
                dirty |= KVM_SYNC_X86_EVENTS
            }
            unsafe run_.pointee.kvm_dirty_regs = UInt64(dirty)
            return
        }
        if let system {
            var current = kvm_sregs()
            try descriptor.call(CKVM_GET_SREGS, "KVM_GET_SREGS", &current)
            var kernel = system.kernel
            kernel.interrupt_bitmap = current.interrupt_bitmap
            try descriptor.call(CKVM_SET_SREGS, "KVM_SET_SREGS", &kernel)
        }
        var registers = general.kernel
        try descriptor.call(CKVM_SET_REGS, "KVM_SET_REGS", &registers)
        if let events {
            var kernel = events.kernel
            try descriptor.call(CKVM_SET_VCPU_EVENTS, "KVM_SET_VCPU_EVENTS", &kernel)
        }
    }

    // MARK: Setting up

    /// The corresponding ioctl is `KVM_SET_CPUID2`.
    private func setCPUID() throws(EngineError) {
        var cpuid = engine.cpuid
        let frequency = ckvm_ioctl(descriptor.raw, CKVM_GET_TSC_KHZ, 0)
        if frequency > 0 { cpuid.tscKilohertz = UInt32(frequency) }
        let entries = cpuid.entries(supported: engine.supportedCPUID, index: index)
        cpuidEntries = entries
        let list = KVMList<kvm_cpuid2, kvm_cpuid_entry2>(capacity: entries.count)
        unsafe list.header.pointee.nent = UInt32(entries.count)
        let target = unsafe ckvm_cpuid_entries(list.header)
        for (position, entry) in entries.enumerated() { unsafe target[position] = entry.kernelEntry }
        try unsafe descriptor.call(CKVM_SET_CPUID2, "KVM_SET_CPUID2", at: list.header)
    }

    /// What firmware would have set up before a kernel runs: memory types, and NMI on the local APIC's LINT1.
    private func setResetState() throws(EngineError) {
        guard engine.irqChip != .none else { return }
        // IA32_MISC_ENABLE: fast strings. IA32_MTRR_DEF_TYPE: enabled, write-back. Source: [SDM4], [SDM3 §12.11.2.1].
        try setMSRs([
            ModelSpecificRegister(index: 0x1A0, value: 1), ModelSpecificRegister(index: 0x2FF, value: 0x806),
        ])
        var apic = kvm_lapic_state()
        try descriptor.call(CKVM_GET_LAPIC, "KVM_GET_LAPIC", &apic)
        unsafe withUnsafeMutableBytes(of: &apic.regs) { registers in
            // LVT LINT0: ExtINT; LINT1: NMI. Source: [SDM3 §11.5.1] local vector table.
            unsafe registers.storeBytes(of: 0x700, toByteOffset: 0x350, as: UInt32.self)
            unsafe registers.storeBytes(of: 0x400, toByteOffset: 0x360, as: UInt32.self)
        }
        try descriptor.call(CKVM_SET_LAPIC, "KVM_SET_LAPIC", &apic)
    }

    // MARK: State

    public func state() throws(EngineError) -> VCPUState {
        completeAccess()
        var state = VCPUState()
        try takeRegisters(&state)
        var debug = kvm_debugregs()
        try descriptor.call(CKVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS", &debug)
        state.debug = DebugRegisters(debug)
        state.extended = try extendedState()
        var controls = kvm_xcrs()
        try descriptor.call(CKVM_GET_XCRS, "KVM_GET_XCRS", &controls)
        if controls.nr_xcrs > 0 { state.xcr0 = controls.xcrs.0.value }
        state.msrs = try stateMSRs()
        if engine.irqChip != .none {
            var apic = kvm_lapic_state()
            try descriptor.call(CKVM_GET_LAPIC, "KVM_GET_LAPIC", &apic)
            state.localAPIC = unsafe withUnsafeBytes(of: apic.regs) { unsafe [UInt8]($0) }
            var mp = kvm_mp_state()
            try descriptor.call(CKVM_GET_MP_STATE, "KVM_GET_MP_STATE", &mp)
            state.runState = RunState(rawValue: UInt8(truncatingIfNeeded: mp.mp_state)) ?? .runnable
        }
        return state
    }

    /// From where the last exit left them, or by calls.
    private func takeRegisters(_ state: inout VCPUState) throws(EngineError) {
        if hasSyncRegisters {
            let sync = unsafe ckvm_sync_regs(run_)
            state.general = GeneralRegisters(unsafe sync.pointee.regs)
            state.system = SystemRegisters(unsafe sync.pointee.sregs)
            state.events = PendingEvents(unsafe sync.pointee.events)
        } else {
            var registers = kvm_regs()
            try descriptor.call(CKVM_GET_REGS, "KVM_GET_REGS", &registers)
            state.general = GeneralRegisters(registers)
            var system = kvm_sregs()
            try descriptor.call(CKVM_GET_SREGS, "KVM_GET_SREGS", &system)
            state.system = SystemRegisters(system)
            var events = kvm_vcpu_events()
            try descriptor.call(CKVM_GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS", &events)
            state.events = PendingEvents(events)
        }
    }

    public func setState(_ state: VCPUState) throws(EngineError) {
        // A pending access would overwrite what is set here.
        completeAccess()
        var system = state.system.kernel
        // Where the local APIC is the kernel's, its base is state of that; zero in ours means "as it is".
        if state.system.apicBase == 0 {
            var current = kvm_sregs()
            try descriptor.call(CKVM_GET_SREGS, "KVM_GET_SREGS", &current)
            system.apic_base = current.apic_base
        }
        try descriptor.call(CKVM_SET_SREGS, "KVM_SET_SREGS", &system)
        // Without a local APIC in the kernel KVM takes CR8 from here at every KVM_RUN, whatever KVM_SET_SREGS said.
        unsafe run_.pointee.cr8 = state.system.cr8
        var registers = state.general.kernel
        try descriptor.call(CKVM_SET_REGS, "KVM_SET_REGS", &registers)
        if !state.extended.isEmpty { try setExtendedState(state.extended, xcr0: state.xcr0) }
        var debug = state.debug.kernel
        try descriptor.call(CKVM_SET_DEBUGREGS, "KVM_SET_DEBUGREGS", &debug)
        if !state.msrs.isEmpty { try setMSRs(state.msrs) }
        if engine.irqChip != .none {
            if !state.localAPIC.isEmpty {
                var apic = kvm_lapic_state()
                guard state.localAPIC.count == MemoryLayout.size(ofValue: apic.regs) else {
                    throw .badState("a local APIC page of \(state.localAPIC.count) bytes, not 1024")
                }
                unsafe withUnsafeMutableBytes(of: &apic.regs) { unsafe $0.copyBytes(from: state.localAPIC) }
                try descriptor.call(CKVM_SET_LAPIC, "KVM_SET_LAPIC", &apic)
            }
            var mp = kvm_mp_state(mp_state: UInt32(state.runState.rawValue))
            try descriptor.call(CKVM_SET_MP_STATE, "KVM_SET_MP_STATE", &mp)
        }
        var events = state.events.kernel
        try descriptor.call(CKVM_SET_VCPU_EVENTS, "KVM_SET_VCPU_EVENTS", &events)
    }

    public func setEntry(general: GeneralRegisters, system: SystemRegisters) throws(EngineError) {
        var kernel = system.kernel
        var current = kvm_sregs()
        try descriptor.call(CKVM_GET_SREGS, "KVM_GET_SREGS", &current)
        kernel.apic_base = current.apic_base
        unsafe run_.pointee.cr8 = system.cr8
        if hasSyncRegisters {
            // Taken over by the first KVM_RUN: no call of their own.
            let sync = unsafe ckvm_sync_regs(run_)
            unsafe sync.pointee.regs = general.kernel
            unsafe sync.pointee.sregs = kernel
            unsafe run_.pointee.kvm_dirty_regs = UInt64(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS)
        } else {
            try descriptor.call(CKVM_SET_SREGS, "KVM_SET_SREGS", &kernel)
            var registers = general.kernel
            try descriptor.call(CKVM_SET_REGS, "KVM_SET_REGS", &registers)
        }
    }

    /// The corresponding ioctls are `KVM_GET_XSAVE2` and `KVM_GET_XSAVE`.
    func extendedState() throws(EngineError) -> [UInt8] {
        let size = extendedSize
        let area = KVMList<kvm_xsave, UInt8>(capacity: size)
        if size > 4096 {
            try unsafe descriptor.call(CKVM_GET_XSAVE2, "KVM_GET_XSAVE2", at: area.header)
        } else {
            try unsafe descriptor.call(CKVM_GET_XSAVE, "KVM_GET_XSAVE", at: area.header)
        }
        return unsafe [UInt8](UnsafeRawBufferPointer(start: area.header, count: size))
    }

    /// The corresponding ioctls are `KVM_GET_XCRS`, `KVM_SET_XCRS` and `KVM_SET_XSAVE`.
    func setExtendedState(_ bytes: [UInt8], xcr0: UInt64) throws(EngineError) {
        let size = extendedSize
        guard bytes.count >= 576, bytes.count <= size else {
            throw .badState("an extended register area of \(bytes.count) bytes; this host takes 576 to \(size)")
        }
        var controls = kvm_xcrs()
        try descriptor.call(CKVM_GET_XCRS, "KVM_GET_XCRS", &controls)
        if controls.nr_xcrs > 0 {
            controls.nr_xcrs = 1
            controls.xcrs.0.xcr = 0
            controls.xcrs.0.value = xcr0
            try descriptor.call(CKVM_SET_XCRS, "KVM_SET_XCRS", &controls)
        } else if xcr0 != VCPUState().xcr0 {
            // A host without XSAVE has no XCR0, and refuses even the value of a reset.
            throw .badState("XCR0 is 0x\(String(xcr0, radix: 16)), and this host's processor has no XSAVE")
        }
        let area = KVMList<kvm_xsave, UInt8>(capacity: size)
        unsafe UnsafeMutableRawBufferPointer(start: area.header, count: size).copyBytes(from: bytes)
        try unsafe descriptor.call(CKVM_SET_XSAVE, "KVM_SET_XSAVE", at: area.header)
    }

    /// Every state MSR that can be read; ones the kernel lists but refuses are left out.
    ///
    /// The corresponding ioctl is `KVM_GET_MSRS`.
    private func stateMSRs() throws(EngineError) -> [ModelSpecificRegister] {
        var wanted = try engine.machine.system.stateMSRs()[...]
        var result: [ModelSpecificRegister] = []
        while !wanted.isEmpty {
            let batch = wanted.prefix(128)
            let list = KVMList<kvm_msrs, kvm_msr_entry>(capacity: batch.count)
            unsafe list.header.pointee.nmsrs = UInt32(batch.count)
            let entries = unsafe ckvm_msr_entries(list.header)
            for (position, index) in batch.enumerated() { unsafe entries[position].index = index }
            let done = Int(try unsafe descriptor.call(CKVM_GET_MSRS, "KVM_GET_MSRS", at: list.header))
            for position in 0..<min(done, batch.count) {
                result.append(
                    unsafe ModelSpecificRegister(index: entries[position].index, value: entries[position].data))
            }
            // It stops at the first it refuses: that one is skipped.
            wanted = wanted.dropFirst(done < batch.count ? done + 1 : done)
        }
        return result
    }

    /// - Returns: nil where the kernel does not know the register.
    ///
    /// The corresponding ioctl is `KVM_GET_MSRS`.
    func value(ofMSR index: UInt32) throws(EngineError) -> UInt64? {
        let list = KVMList<kvm_msrs, kvm_msr_entry>(capacity: 1)
        unsafe list.header.pointee.nmsrs = 1
        let entry = unsafe ckvm_msr_entries(list.header)
        unsafe entry.pointee.index = index
        let done = try unsafe descriptor.call(CKVM_GET_MSRS, "KVM_GET_MSRS", at: list.header)
        return done == 1 ? unsafe entry.pointee.data : nil
    }

    /// The corresponding ioctl is `KVM_SET_MSRS`.
    /// - Throws: `badState` naming the first register that was refused.
    func setMSRs(_ registers: [ModelSpecificRegister]) throws(EngineError) {
        var rest = registers[...]
        while !rest.isEmpty {
            let batch = rest.prefix(128)
            let list = KVMList<kvm_msrs, kvm_msr_entry>(capacity: batch.count)
            unsafe list.header.pointee.nmsrs = UInt32(batch.count)
            let entries = unsafe ckvm_msr_entries(list.header)
            for (position, register) in batch.enumerated() {
                unsafe entries[position].index = register.index
                unsafe entries[position].data = register.value
            }
            let done = Int(try unsafe descriptor.call(CKVM_SET_MSRS, "KVM_SET_MSRS", at: list.header))
            rest = rest.dropFirst(done)
            guard done < batch.count, let refused = rest.popFirst() else { continue }
            // KVM reads some registers that it lets nobody write, as MSR_KVM_ASYNC_PF_INT without a local APIC:
            // no harm where the register holds the value as it is.
            guard try value(ofMSR: refused.index) == refused.value else {
                throw .badState(
                    "the host's KVM refuses 0x\(String(refused.value, radix: 16)) in MSR 0x\(String(refused.index, radix: 16))")
            }
        }
    }
}
