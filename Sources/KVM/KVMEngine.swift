internal import CKVM
internal import Synchronization
public import VMCore

/// The engine that runs guests on the processor itself, through the host's KVM.
public final class KVMEngine: Engine {
    public let name = "kvm"
    let machine: KVMVirtualMachine
    let memory: GuestMemory
    let irqChip: IRQChip
    let cpuid: GuestCPUID
    let supportedCPUID: [CPUIDEntry]

    /// What vCPUs look up on their way into the guest, set before the first of them runs.
    struct Connections: Sendable {
        var ports = Bus(BusMap())
        var mmio = Bus(BusMap())
        var externalInterrupts: (any ExternalInterruptSource)?
        var endOfInterrupt: (any EndOfInterruptListener)?
        var bootKicker: KVMKicker?
        var rescue: (any InstructionRescue)?
    }
    let connections = Mutex(Connections())
    private let routes = Mutex<[InterruptRoute?]>([])

    /// - Parameters:
    ///   - memory: becomes the guest's RAM; kept alive by the engine.
    ///   - vcpuCount: what CPUID tells the guest; at most `system.maximumVCPUs`.
    ///   - realModePages: four pages in the device hole that the guest must not use.
    /// - Throws: `EngineError`.
    public init(
        system: KVMSystem, memory: GuestMemory, vcpuCount: Int,
        irqChip: IRQChip = .kernel, realModePages: GuestAddress = GuestAddress(0xFFFB_C000)
    ) throws(EngineError) {
        guard vcpuCount >= 1, vcpuCount <= system.maximumVCPUs else {
            throw .unsupported(
                reason: "\(vcpuCount) CPUs asked for; this host's KVM runs 1 to \(system.maximumVCPUs) in a guest",
                remedy: "use --cpus within that")
        }
        machine = try KVMVirtualMachine(system: system)
        self.memory = memory
        self.irqChip = irqChip
        // Memory first: once interrupt routes exist, the kernel waits a grace period for each change of the slots.
        try machine.setMemory(memory)
        try machine.reserveRealModePages(at: realModePages)
        try machine.createInterruptControllers(irqChip)
        // Without these, a failure is still reported, only with less in it.
        if system.check(.emulationFailure) > 0 { try? machine.enable(.emulationFailure, argument: 1) }
        if system.check(.userSpaceMSR) > 0 {
            try? machine.enable(.userSpaceMSR, argument: UInt64(KVM_MSR_EXIT_REASON_UNKNOWN))
        }
        supportedCPUID = try system.supportedCPUID()
        cpuid = GuestCPUID(
            count: vcpuCount, tscKilohertz: nil,
            hasTSCDeadline: irqChip != .none && system.check(.tscDeadline) > 0)
    }

    public func connect(ports: Bus, mmio: Bus) {
        connections.withLock { connections in
            connections.ports = ports
            connections.mmio = mmio
        }
    }

    /// Connects what executes the instructions that KVM itself cannot. Before the first run; without it they end the guest.
    public func connect(rescue: any InstructionRescue) {
        connections.withLock { $0.rescue = rescue }
    }

    public func makeVCPU(index: Int) throws(EngineError) -> any VCPU { try makeKVMVCPU(index: index) }

    /// As `makeVCPU`, with the engine's own type.
    public func makeKVMVCPU(index: Int) throws(EngineError) -> KVMVCPU {
        let vcpu = try KVMVCPU(engine: self, index: index)
        if index == 0 { connections.withLock { $0.bootKicker = vcpu.kvmKicker } }
        return vcpu
    }

    public func interruptLine(gsi: UInt32) -> (any InterruptLine)? {
        guard irqChip == .kernel, gsi < UInt32(KVMVirtualMachine.ioapicPins) else { return nil }
        return KVMLine(machine: machine, gsi: gsi)
    }

    public var messages: (any InterruptMessageSink)? { irqChip == .none ? nil : KVMMessages(machine: machine) }

    public func connect(externalInterrupts source: any ExternalInterruptSource) {
        connections.withLock { $0.externalInterrupts = source }
    }

    public func externalInterruptsChanged() {
        connections.withLock { $0.bootKicker }?.wake()
    }

    public func connect(endOfInterrupt listener: any EndOfInterruptListener) {
        connections.withLock { $0.endOfInterrupt = listener }
    }

    public func attach(_ doorbell: Doorbell, to descriptor: Int32) -> Bool {
        guard machine.system.check(.doorbells) > 0 else { return false }
        do { try machine.setDoorbell(doorbell, descriptor: descriptor, isAttached: true) } catch { return false }
        return true
    }

    public func detach(_ doorbell: Doorbell, from descriptor: Int32) {
        // It fails only for one that is not attached.
        try? machine.setDoorbell(doorbell, descriptor: descriptor, isAttached: false)
    }

    public func disconnect() { connections.withLock { $0 = Connections() } }

    /// Level-triggered routes are told to the kernel, so that it reports their EOIs; the rest it need not know.
    ///
    /// The corresponding ioctl is `KVM_SET_GSI_ROUTING`.
    public func setRoutes(_ routes: [InterruptRoute?]) {
        guard irqChip == .split else { return }
        self.routes.withLock { current in
            let wanted = routes.prefix(KVMVirtualMachine.ioapicPins).map { route in
                route.flatMap { $0.isLevelTriggered ? $0 : nil }
            }
            // Each change makes the kernel wait for all vCPUs: edge routes, which are most, need none.
            guard wanted != current else { return }
            var entries: [kvm_irq_routing_entry] = []
            for (gsi, route) in wanted.enumerated() {
                guard let route else { continue }
                var entry = kvm_irq_routing_entry()
                entry.gsi = UInt32(gsi)
                entry.type = UInt32(KVM_IRQ_ROUTING_MSI)
                unsafe entry.u.msi.address_lo = UInt32(truncatingIfNeeded: route.message.address)
                unsafe entry.u.msi.address_hi = UInt32(truncatingIfNeeded: route.message.address >> 32)
                unsafe entry.u.msi.data = route.message.data
                entries.append(entry)
            }
            // The guest chose these words; the kernel refusing them loses EOIs of a route that leads nowhere, until the next change.
            do { try machine.setRouting(entries) } catch { return }
            current = wanted
        }
    }
}

private final class KVMLine: InterruptLine {
    let machine: KVMVirtualMachine
    let gsi: UInt32
    init(machine: KVMVirtualMachine, gsi: UInt32) {
        self.machine = machine
        self.gsi = gsi
    }
    func setLevel(_ isHigh: Bool) { machine.setLine(gsi: gsi, isHigh: isHigh) }
}

private final class KVMMessages: InterruptMessageSink {
    let machine: KVMVirtualMachine
    init(machine: KVMVirtualMachine) { self.machine = machine }
    func send(_ message: InterruptMessage) { machine.signal(message) }
}
