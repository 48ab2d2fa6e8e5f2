public import VMCore

/// Where the loaders put what they make: all of it in the first 640 KiB, where no kernel is linked to lie.
///
///     0x00000  interrupt vector table and BIOS data area (real-mode and Multiboot images)
///     0x00500  GDT
///     0x07000  boot parameters (Linux) or start information (PVH)
///     0x08000  a stack for kernels that bring none, growing down from 0x8FF0
///     0x09000  PML4, PDPT and four page directories: 4 GiB mapped one to one in 2 MiB pages
///     0x10000  memory map and module list (PVH), boot information (Multiboot)
///     0x20000  command line
///     0x9FC00  extended BIOS data area: reserved, empty
///     0xE0000  ACPI tables, the RSDP first
public enum BootLayout {
    public static let gdt = GuestAddress(0x500)
    /// Linux boot parameters, or the PVH start information.
    public static let parameters = GuestAddress(0x7000)
    public static let stackTop = GuestAddress(0x8FF0)
    public static let pageTables = GuestAddress(0x9000)
    /// Where a real-mode boot sector is loaded and started.
    public static let bootSector = GuestAddress(0x7C00)
    /// Where a flat real-mode image is loaded: segment 0x1000, offset 0.
    public static let flat = GuestAddress(0x1_0000)
    public static let information = GuestAddress(0x1_0000)
    static let informationLimit: UInt64 = 0x1_0000
    public static let commandLine = GuestAddress(0x2_0000)
    static let commandLineLimit: UInt64 = 0x1_0000
    public static let extendedBIOSData = GuestAddress(0x9_FC00)
    /// Video memory and option ROMs on a PC; nothing here, and no RAM for the guest.
    public static let video = GuestAddress(0xA_0000)
    public static let acpi = GuestAddress(0xE_0000)
    public static let highMemory = GuestAddress(0x10_0000)
}
