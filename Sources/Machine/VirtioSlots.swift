internal import Boot
internal import PCI
internal import VMCore
internal import Virtio

/// How a guest reaches its virtio devices.
public enum VirtioTransportKind: String, Hashable, Sendable, CaseIterable {
    /// Registers at fixed addresses, announced by ACPI.
    case mmio
    /// Functions of a PCI bus.
    case pci
}

/// The virtio devices of one machine, behind their transport and on its buses.
struct VirtioSlots: Sendable {
    /// Most devices that a machine has: a bus has 32 places, and the bridge has one of them.
    static let capacity = 31

    private let devices: [any VirtioDevice]
    private let transports: Transports
    private let doorbells: Doorbells?

    private enum Transports: Sendable {
        case mmio([MMIOTransport])
        case pci([PCITransport], PCIHostBridge)
    }

    /// No devices, and no bus for any.
    init() {
        devices = []
        transports = .mmio([])
        doorbells = nil
    }

    /// - Parameters:
    ///   - line: the wire to a global system interrupt; slots share those of `AddressMap.sharedGSIs`.
    ///   - resetControl: what a PCI bus's configuration ports have in their midst.
    ///   - doorbells: what the engine rings without leaving the guest; nil for none.
    init(
        _ devices: [any VirtioDevice], behind kind: VirtioTransportKind, engine: any Engine, memory: GuestMemory,
        line: (UInt32) -> any InterruptLine, resetControl: any BusDevice, doorbells: Doorbells?, ports: inout BusMap,
        mmio: inout BusMap
    ) throws(MainboardError) {
        guard devices.count <= Self.capacity else { throw .tooManyDevices(devices.count, most: Self.capacity) }
        let wires = AddressMap.sharedGSIs.map { SharedLine(line($0)) }
        self.devices = devices
        self.doorbells = doorbells
        switch kind {
        case .mmio:
            let made = devices.enumerated().map { slot, device in
                MMIOTransport(device: device, memory: memory, line: wires[slot % wires.count].input())
            }
            for (slot, transport) in made.enumerated() {
                do throws(BusError) {
                    try mmio.add(
                        transport, name: "virtio \(transport.registers.device.kind)", base: Self.base(of: slot),
                        count: MMIOTransport.length, widest: .long)
                } catch { throw .bus(error) }
                let registers = transport.registers
                // Before DRIVER_OK nothing comes of a notification.
                for queue in 0..<UInt32(truncatingIfNeeded: registers.queueCount) {
                    let place = GuestAddress(Self.base(of: slot) &+ MMIOTransport.notifyOffset)
                    doorbells?.add(Doorbell(address: place, width: .long, value: queue)) { registers.notify(queue: queue) }
                }
            }
            transports = .mmio(made)
        case .pci:
            let made = devices.enumerated().map { slot, device in
                PCITransport(
                    device: device, memory: memory, line: wires[Self.wire(ofPCI: slot + 1)].input(), messages: engine.messages)
            }
            let bridge: PCIHostBridge
            do throws(PCIError) {
                let window = try PCIWindow(base: AddressMap.pciWindow.rawValue, size: AddressMap.pciWindowSize)
                bridge = try PCIHostBridge(made, window: window, observer: doorbells.map { DoorbellMover($0) })
            } catch { throw .pci(error) }
            do throws(BusError) { try Self.add(bridge, resetControl, &ports, &mmio) } catch { throw .bus(error) }
            transports = .pci(made, bridge)
        }
    }

    private static func add(
        _ bridge: PCIHostBridge, _ resetControl: any BusDevice, _ ports: inout BusMap, _ mmio: inout BusMap
    ) throws(BusError) {
        try ports.add(
            ConfigurationPorts(bridge: bridge, resetControl: resetControl), name: "PCI configuration ports",
            base: ConfigurationPorts.base, count: ConfigurationPorts.length, widest: .long)
        try mmio.add(
            EnhancedConfiguration(bridge: bridge), name: "PCI configuration", base: AddressMap.pciConfiguration.rawValue,
            count: EnhancedConfiguration.length, widest: .long)
        try mmio.add(
            RegionWindow(bridge: bridge), name: "PCI window", base: AddressMap.pciWindow.rawValue, count: AddressMap.pciWindowSize,
            widest: .quad)
    }

    private static func base(of slot: Int) -> UInt64 {
        AddressMap.virtio.rawValue &+ UInt64(truncatingIfNeeded: slot) &* MMIOTransport.length
    }

    /// Which of the shared wires a device of the bus has.
    private static func wire(ofPCI device: Int) -> Int { (device - 1) % AddressMap.sharedGSIs.count }

    /// What ACPI says of them.
    func describe(in acpi: inout ACPIConfiguration) {
        switch transports {
        case .mmio(let transports):
            acpi.extraDevices += transports.indices.map { slot in
                DeviceTerms.virtioMMIO(
                    index: slot, base: UInt32(truncatingIfNeeded: Self.base(of: slot)), count: UInt32(MMIOTransport.length),
                    gsi: AddressMap.sharedGSIs[slot % AddressMap.sharedGSIs.count])
            }
        case .pci(let transports, _):
            let ecam = ACPIConfiguration.ECAM(base: UInt32(truncatingIfNeeded: AddressMap.pciConfiguration.rawValue))
            acpi.ecam = ecam
            let first = UInt32(truncatingIfNeeded: AddressMap.pciWindow.rawValue)
            acpi.extraDevices += DeviceTerms.pciHostBridge(
                window: first...(first &+ UInt32(truncatingIfNeeded: AddressMap.pciWindowSize) &- 1), ecam: ecam,
                interrupts: transports.indices.map { slot in
                    .init(device: UInt8(slot + 1), gsi: AddressMap.sharedGSIs[Self.wire(ofPCI: slot + 1)])
                })
        }
    }

    /// As if each driver reset its device: nothing of the guest's memory is touched afterwards.
    func reset() {
        doorbells?.remove()
        switch transports {
        case .mmio(let transports): for transport in transports { transport.registers.reset() }
        case .pci(let transports, _): for transport in transports { transport.reset() }
        }
    }

    /// What each device has done, for `--stats`.
    var statistics: [(kind: DeviceKind, counts: [(name: String, value: UInt64)])] { devices.map { ($0.kind, $0.statistics) } }
}

/// Has the engine ring where a PCI function's doorbells are at the moment.
private final class DoorbellMover: DoorbellObserver {
    private let doorbells: Doorbells

    init(_ doorbells: Doorbells) { self.doorbells = doorbells }

    func doorbellsMoved(of function: any PCIFunction, device: Int, from old: DoorbellRange?, to new: DoorbellRange?) {
        if let old {
            doorbells.remove { $0.address.rawValue &- old.base.rawValue < old.count &* old.stride }
        }
        guard let new, let transport = function as? PCITransport else { return }
        let registers = transport.registers
        for queue in 0..<new.count {
            // Any width, so that a guest that writes 16 bits and one that writes 32 ring alike.
            for width in [AccessWidth.word, .long] {
                doorbells.add(Doorbell(address: new[queue], width: width)) {
                    registers.notify(queue: UInt32(truncatingIfNeeded: queue))
                }
            }
        }
    }
}
