public import VMCore
public import Virtio

/// What a device can be behind: a test that is given each of them shows that the device does not know.
public enum TransportKind: CaseIterable, Sendable {
    case mmio, pci

    /// What a rig puts its device behind that is told nothing else. Tests change it for what they run.
    @TaskLocal public static var current: TransportKind = .mmio

    /// A driver's end of the transport, with the device behind it.
    public func driver(device: any VirtioDevice, memory: GuestMemory) throws -> any DriverTransport {
        switch self {
        case .mmio: MMIODriver(device: device, memory: memory)
        case .pci: try PCIDriver(device: device, memory: memory)
        }
    }
}
