internal import Boot
internal import Devices
internal import VMCore
internal import Virtio

/// How a guest reaches its virtio devices.
enum VirtioTransportKind: String, Hashable, Sendable, CaseIterable {
    /// Registers at fixed addresses, announced by ACPI.
    case mmio
}

/// The virtio devices of one machine, put behind their transport.
struct VirtioSlots: Sendable {
    /// In the order in which the guest meets them.
    let transports: [MMIOTransport]

    /// Most devices that a machine has.
    static let capacity = 32

    /// No devices.
    init() { transports = [] }

    /// Puts the devices on the memory bus, each in a slot of its own; slots share the interrupts from 16 on.
    init(
        _ devices: [any VirtioDevice], memory: GuestMemory, line: (UInt32) -> any InterruptLine, mmio: inout BusMap
    ) throws(BusError) {
        let wires = AddressMap.virtioGSIs.map { SharedLine(line($0)) }
        var transports: [MMIOTransport] = []
        for (slot, device) in devices.prefix(Self.capacity).enumerated() {
            let transport = MMIOTransport(device: device, memory: memory, line: wires[slot % wires.count].input())
            try mmio.add(
                transport, name: "virtio \(device.kind)", base: Self.base(of: slot), count: MMIOTransport.length, widest: .long)
            transports.append(transport)
        }
        self.transports = transports
    }

    private static func base(of slot: Int) -> UInt64 {
        AddressMap.virtio.rawValue &+ UInt64(truncatingIfNeeded: slot) &* MMIOTransport.length
    }

    /// Has the engine ring for notifications where it can: before DRIVER_OK nothing comes of them.
    func attach(_ doorbells: Doorbells) {
        for (slot, transport) in transports.enumerated() {
            let registers = transport.registers
            for queue in 0..<UInt32(truncatingIfNeeded: registers.queueCount) {
                let place = GuestAddress(Self.base(of: slot) &+ MMIOTransport.notifyOffset)
                doorbells.add(Doorbell(address: place, width: .long, value: queue)) { registers.notify(queue: queue) }
            }
        }
    }

    /// One LNRO0005 device a slot, as Linux looks for them. Source: [LINUX-VIRTIO-MMIO].
    var terms: [AML] {
        transports.indices.map { slot in
            .device(
                "VR\(slot < 10 ? "0" : "")\(slot)",
                [
                    .name("_HID", .string("LNRO0005")),
                    .name("_UID", .integer(UInt64(slot))),
                    .name("_CCA", .integer(1)),
                    .name(
                        "_CRS",
                        .resources([
                            .memory32(
                                UInt32(truncatingIfNeeded: Self.base(of: slot)), count: UInt32(MMIOTransport.length)),
                            .interrupt(
                                gsi: AddressMap.virtioGSIs[slot % AddressMap.virtioGSIs.count], edgeTriggered: false, shared: true),
                        ])),
                ])
        }
    }

    /// As if each driver reset its device: nothing of the guest's memory is touched afterwards.
    func reset() {
        for transport in transports { transport.registers.reset() }
    }

    /// What each device has done, for `--stats`.
    var statistics: [(kind: DeviceKind, counts: [(name: String, value: UInt64)])] {
        transports.map { ($0.registers.device.kind, $0.registers.device.statistics) }
    }
}
