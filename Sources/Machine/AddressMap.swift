public import VMCore

/// Every address the machine decodes, in one place: the boot tables, the devices and the documentation read it here.
///
/// Guest physical, from low to high:
/// ```
/// 0x0000_0000  RAM, up to 3 GiB
/// 0x000A_0000  left to the legacy hole: E820 reserves it, as firmware does (boot tables at 0xE0000)
/// 0xC000_0000  hole for devices, 1 GiB
/// 0xD000_0000    virtio registers, a page a device
/// 0xD100_0000    PCI functions' regions, 16 MiB
/// 0xE000_0000    PCI configuration space, 1 MiB
/// 0xFEC0_0000    I/O APIC
/// 0xFEE0_0000    local APICs
/// 0xFFFB_C000    pages that VT-x needs for real mode
/// 0x1_0000_0000  RAM again, as much as did not fit below
/// ```
public enum AddressMap {
    // MARK: Memory-mapped
    public static let ioapic = GuestAddress(0xFEC0_0000)
    public static let localAPIC = GuestAddress(0xFEE0_0000)
    /// Four pages: the identity map's page and the three of the task state segment.
    public static let realModePages = GuestAddress(0xFFFB_C000)

    /// The first virtio device's registers; each has a page.
    public static let virtio = GuestAddress(0xD000_0000)

    /// Where PCI functions' regions are.
    public static let pciWindow = GuestAddress(0xD100_0000)
    public static let pciWindowSize: UInt64 = 0x0100_0000
    /// PCI configuration space of bus 0, which is the only one.
    public static let pciConfiguration = GuestAddress(0xE000_0000)

    // MARK: Ports
    public static let picMaster: UInt64 = 0x20
    public static let picSlave: UInt64 = 0xA0
    public static let picEdgeLevel: UInt64 = 0x4D0
    public static let pit: UInt64 = 0x40
    public static let keyboardData: UInt64 = 0x60
    public static let systemControlB: UInt64 = 0x61
    public static let keyboardCommand: UInt64 = 0x64
    public static let rtc: UInt64 = 0x70
    public static let postCode: UInt64 = 0x80
    public static let debugConsole: UInt64 = 0xE9
    public static let debugExit: UInt64 = 0xF4
    public static let serial: UInt64 = 0x3F8
    /// The ACPI power-management block; its parts' offsets are the device's.
    public static let powerManagement: UInt64 = 0x600
    public static let resetControl: UInt64 = 0xCF9

    // MARK: Global system interrupts
    public static let timerGSI: UInt32 = 2
    public static let keyboardGSI: UInt32 = 1
    public static let serialGSI: UInt32 = 4
    public static let rtcGSI: UInt32 = 8
    public static let sciGSI: UInt32 = 9
    public static let mouseGSI: UInt32 = 12
    /// What virtio devices and PCI functions share, in turn.
    public static let sharedGSIs: [UInt32] = [16, 17, 18, 19, 20, 21, 22, 23]
}
