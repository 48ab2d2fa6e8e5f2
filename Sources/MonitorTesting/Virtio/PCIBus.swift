public import PCI
public import VMCore

/// A machine's PCI part and nothing else: a bridge on buses as a machine has them, reached only through their addresses.
public final class PCIBus {
    public static let ecamBase: UInt64 = 0xE000_0000
    public static let windowBase: UInt64 = 0xD000_0000
    public static let windowSize: UInt64 = 0x0100_0000

    public let bridge: PCIHostBridge
    public let ports: Bus
    public let memory: Bus

    public init(
        _ devices: [any PCIFunction], resetControl: (any BusDevice)? = nil, observer: (any DoorbellObserver)? = nil
    ) throws {
        bridge = try PCIHostBridge(
            devices, window: PCIWindow(base: Self.windowBase, size: Self.windowSize), observer: observer)
        var ports = BusMap()
        try ports.add(
            ConfigurationPorts(bridge: bridge, resetControl: resetControl), name: "PCI configuration",
            base: ConfigurationPorts.base, count: ConfigurationPorts.length, widest: .long)
        self.ports = Bus(ports)
        var memory = BusMap()
        try memory.add(
            EnhancedConfiguration(bridge: bridge), name: "ECAM", base: Self.ecamBase, count: EnhancedConfiguration.length,
            widest: .long)
        try memory.add(
            RegionWindow(bridge: bridge), name: "PCI window", base: Self.windowBase, count: Self.windowSize, widest: .quad)
        self.memory = Bus(memory)
    }

    // MARK: Configuration space, by either mechanism

    public func read(device: Int, _ register: UInt64, _ width: AccessWidth) -> UInt32 {
        UInt32(truncatingIfNeeded: memory.read(Self.ecamBase + UInt64(device) << 15 + register, width: width))
    }

    public func write(device: Int, _ register: UInt64, _ width: AccessWidth, _ value: UInt32) {
        memory.write(Self.ecamBase + UInt64(device) << 15 + register, width: width, value: UInt64(value))
    }

    public func readByPorts(device: Int, _ register: UInt64, _ width: AccessWidth) -> UInt32 {
        ports.write(0xCF8, width: .long, value: 1 << 31 | UInt64(device) << 11 | register & ~3)
        return UInt32(truncatingIfNeeded: ports.read(0xCFC + register & 3, width: width))
    }

    public func writeByPorts(device: Int, _ register: UInt64, _ width: AccessWidth, _ value: UInt32) {
        ports.write(0xCF8, width: .long, value: 1 << 31 | UInt64(device) << 11 | register & ~3)
        ports.write(0xCFC + register & 3, width: width, value: UInt64(value))
    }

    /// Where a 32-bit region is, as its register says.
    public func address(device: Int, bar: Int) -> UInt64 { UInt64(read(device: device, 0x10 + UInt64(bar) * 4, .long) & ~0xF) }

    /// The capabilities of a function in the order of its list: identifier, and where it is.
    public func capabilities(device: Int) -> [(identifier: UInt8, place: UInt64)] {
        guard read(device: device, 0x06, .word) & 0x10 != 0 else { return [] }
        var list: [(identifier: UInt8, place: UInt64)] = []
        var place = UInt64(read(device: device, 0x34, .byte))
        while place >= 0x40, list.count < 48 {
            list.append((UInt8(read(device: device, place, .byte)), place))
            place = UInt64(read(device: device, place + 1, .byte))
        }
        return list
    }
}
