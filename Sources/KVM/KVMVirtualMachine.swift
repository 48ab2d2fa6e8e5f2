internal import CKVM
internal import Glibc
public import VMCore

/// Which interrupt controllers the kernel emulates.
public enum IRQChip: String, Hashable, Sendable, CaseIterable {
    /// None at all, local APICs neither: for bare tests of one vCPU.
    case none
    /// Local APICs, I/O APIC, 8259A pair and PIT in the kernel.
    case kernel
    /// Local APICs in the kernel; the I/O APIC, the 8259A pair and the PIT are the machine's devices.
    case split
}

/// One virtual machine of the host's KVM: memory slots and interrupt controllers.
///
/// The corresponding ioctl is `KVM_CREATE_VM`.
public final class KVMVirtualMachine: Sendable {
    let system: KVMSystem
    let descriptor: KVMDescriptor

    /// - Throws: `EngineError.host`; also where the host is out of memory for another guest.
    public init(system: KVMSystem) throws(EngineError) {
        self.system = system
        let raw = try system.descriptor.call(CKVM_CREATE_VM, "KVM_CREATE_VM")
        _ = fcntl(raw, F_SETFD, FD_CLOEXEC)
        descriptor = KVMDescriptor(owning: raw)
    }

    /// Gives the guest its RAM: one slot a region. The memory must outlive the machine.
    ///
    /// The corresponding ioctl is `KVM_SET_USER_MEMORY_REGION`.
    public func setMemory(_ memory: GuestMemory) throws(EngineError) {
        for (slot, region) in memory.regions.enumerated() {
            var argument = kvm_userspace_memory_region()
            argument.slot = UInt32(slot)
            argument.guest_phys_addr = region.base.rawValue
            argument.memory_size = region.count
            unsafe argument.userspace_addr = UInt64(UInt(bitPattern: region.host))
            try descriptor.call(CKVM_SET_USER_MEMORY_REGION, "KVM_SET_USER_MEMORY_REGION", &argument)
        }
    }

    /// Three pages and one that VT-x needs for real mode, in the hole below 4 GiB where the guest has nothing.
    ///
    /// The corresponding ioctls are `KVM_SET_TSS_ADDR` and `KVM_SET_IDENTITY_MAP_ADDR`.
    public func reserveRealModePages(at address: GuestAddress) throws(EngineError) {
        var identity = address.rawValue
        try descriptor.call(CKVM_SET_IDENTITY_MAP_ADDR, "KVM_SET_IDENTITY_MAP_ADDR", &identity)
        try descriptor.call(CKVM_SET_TSS_ADDR, "KVM_SET_TSS_ADDR", UInt(address.rawValue &+ 0x1000))
    }

    /// Makes the kernel's interrupt controllers. Before the first vCPU.
    ///
    /// The corresponding ioctls are `KVM_CREATE_IRQCHIP`, `KVM_CREATE_PIT2` and, for split, `KVM_ENABLE_CAP`.
    public func createInterruptControllers(_ kind: IRQChip) throws(EngineError) {
        switch kind {
        case .none:
            return
        case .kernel:
            try descriptor.call(CKVM_CREATE_IRQCHIP, "KVM_CREATE_IRQCHIP")
            if system.check(.pit2) > 0 {
                var configuration = kvm_pit_config()
                // Port 0x61 too: its gate and refresh bits belong to the same chip.
                configuration.flags = UInt32(KVM_PIT_SPEAKER_DUMMY)
                try descriptor.call(CKVM_CREATE_PIT2, "KVM_CREATE_PIT2", &configuration)
            }
            try setRouting(Self.isaRouting())
        case .split:
            guard system.check(.splitIRQChip) > 0 else {
                throw .unsupported(
                    reason: "the host's KVM lacks KVM_CAP_SPLIT_IRQCHIP", remedy: "use --irqchip kernel")
            }
            // The routes of the first 24 GSIs belong to the device layer's I/O APIC.
            try enable(.splitIRQChip, argument: UInt64(Self.ioapicPins))
        }
    }

    static let ioapicPins = 24

    /// Where the wires go on a PC: each ISA interrupt to its pin of the 8259A pair and to the I/O APIC's pin of
    /// that number, but for the timer, whose I/O APIC pin is 2. Source: [ACPI6.5 §5.2.12.5] interrupt source override.
    private static func isaRouting() -> [kvm_irq_routing_entry] {
        var entries: [kvm_irq_routing_entry] = []
        for gsi in 0..<UInt32(ioapicPins) {
            if gsi < 16, gsi != 2 {
                var entry = kvm_irq_routing_entry()
                entry.gsi = gsi
                entry.type = UInt32(KVM_IRQ_ROUTING_IRQCHIP)
                unsafe entry.u.irqchip.irqchip = UInt32(gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE)
                unsafe entry.u.irqchip.pin = gsi & 7
                entries.append(entry)
            }
            if gsi == 2 { continue }
            var entry = kvm_irq_routing_entry()
            entry.gsi = gsi
            entry.type = UInt32(KVM_IRQ_ROUTING_IRQCHIP)
            unsafe entry.u.irqchip.irqchip = UInt32(KVM_IRQCHIP_IOAPIC)
            unsafe entry.u.irqchip.pin = gsi == 0 ? 2 : gsi
            entries.append(entry)
        }
        return entries
    }

    /// Replaces all interrupt routes.
    ///
    /// The corresponding ioctl is `KVM_SET_GSI_ROUTING`.
    func setRouting(_ entries: [kvm_irq_routing_entry]) throws(EngineError) {
        let list = KVMList<kvm_irq_routing, kvm_irq_routing_entry>(capacity: entries.count)
        unsafe list.header.pointee.nr = UInt32(entries.count)
        let target = unsafe ckvm_routing_entries(list.header)
        for (index, entry) in entries.enumerated() { unsafe target[index] = entry }
        try unsafe descriptor.call(CKVM_SET_GSI_ROUTING, "KVM_SET_GSI_ROUTING", at: list.header)
    }

    /// The corresponding ioctl is `KVM_ENABLE_CAP`.
    func enable(_ capability: KVMCapability, argument: UInt64) throws(EngineError) {
        var request = kvm_enable_cap()
        request.cap = UInt32(bitPattern: capability.number)
        request.args.0 = argument
        try descriptor.call(CKVM_ENABLE_CAP, "KVM_ENABLE_CAP(\(capability.name))", &request)
    }

    /// Drives a global system interrupt's wire.
    ///
    /// The corresponding ioctl is `KVM_IRQ_LINE`.
    func setLine(gsi: UInt32, isHigh: Bool) {
        var level = kvm_irq_level()
        level.irq = gsi
        level.level = isHigh ? 1 : 0
        // It fails only for a wire that does not exist, which `interruptLine(gsi:)` has ruled out.
        _ = unsafe withUnsafeMutablePointer(to: &level) { pointer in
            unsafe ckvm_ioctl_pointer(descriptor.raw, CKVM_IRQ_LINE, pointer)
        }
    }

    /// Sends one message to the local APICs; one that names none is dropped.
    ///
    /// The corresponding ioctl is `KVM_SIGNAL_MSI`.
    func signal(_ message: InterruptMessage) {
        var argument = kvm_msi()
        argument.address_lo = UInt32(truncatingIfNeeded: message.address)
        argument.address_hi = UInt32(truncatingIfNeeded: message.address >> 32)
        argument.data = message.data
        _ = unsafe withUnsafeMutablePointer(to: &argument) { pointer in
            unsafe ckvm_ioctl_pointer(descriptor.raw, CKVM_SIGNAL_MSI, pointer)
        }
    }

    /// Has writes to a memory-mapped doorbell counted by an eventfd, or no longer so.
    ///
    /// The corresponding ioctl is `KVM_IOEVENTFD`.
    func setDoorbell(_ doorbell: Doorbell, descriptor eventfd: Int32, isAttached: Bool) throws(EngineError) {
        var argument = kvm_ioeventfd()
        argument.addr = doorbell.address.rawValue
        argument.len = UInt32(doorbell.width.rawValue)
        argument.fd = eventfd
        if let value = doorbell.value {
            argument.datamatch = UInt64(value)
            argument.flags |= 1 << UInt32(kvm_ioeventfd_flag_nr_datamatch)
        }
        if !isAttached { argument.flags |= 1 << UInt32(kvm_ioeventfd_flag_nr_deassign) }
        try descriptor.call(CKVM_IOEVENTFD, "KVM_IOEVENTFD", &argument)
    }

    /// The corresponding ioctl is `KVM_CREATE_VCPU`.
    func createVCPU(index: Int) throws(EngineError) -> KVMDescriptor {
        let raw = try descriptor.call(CKVM_CREATE_VCPU, "KVM_CREATE_VCPU", UInt(index))
        _ = fcntl(raw, F_SETFD, FD_CLOEXEC)
        return KVMDescriptor(owning: raw)
    }
}
