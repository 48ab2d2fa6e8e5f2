/// Devices that a guest does not find by itself, as the terms that announce them: for `ACPIConfiguration.extraDevices`.
public enum DeviceTerms {
    /// A PCI function's INTA and where it is wired to.
    public struct PCIInterrupt: Hashable, Sendable {
        /// The function's device number, 0 to 31.
        public var device: UInt8
        public var gsi: UInt32

        public init(device: UInt8, gsi: UInt32) {
            self.device = device
            self.gsi = gsi
        }
    }

    /// A PCI host bridge, `PCI0`, and a reservation for its configuration space in memory, without which Linux does not
    /// believe the MCFG table.
    ///
    /// The bridge takes the ports of configuration mechanism #1 for itself and passes on bus numbers and a window of memory.
    /// Interrupts are level-triggered and, as PCI's are, active low; they go to their GSIs directly: there are no link
    /// devices, because nothing can route them.
    ///
    /// - Parameters:
    ///   - window: the guest physical addresses that the bridge decodes for its bus, both ends included.
    ///   - ecam: what `ACPIConfiguration.ecam` is; nil for a bridge without.
    ///   - interrupts: one for each device that has a pin.
    /// Source: [PCIFW3.0 §4.1.2], [ACPI6.5 §6.2.13].
    public static func pciHostBridge(
        window: ClosedRange<UInt32>, ecam: ACPIConfiguration.ECAM?, interrupts: [PCIInterrupt]
    ) -> [AML] {
        let routes = interrupts.map { interrupt in
            // Any function of the device; pin A; no link device; its GSI.
            AML.package([
                .integer(UInt64(interrupt.device & 31) << 16 | 0xFFFF), .integer(0), .integer(0),
                .integer(UInt64(interrupt.gsi)),
            ])
        }
        let bridge = AML.device(
            "PCI0",
            [
                .name("_HID", .eisaID("PNP0A08")),
                .name("_CID", .eisaID("PNP0A03")),
                .name("_UID", .integer(0)),
                .name(
                    "_CRS",
                    .resources([
                        .busNumbers(first: UInt16(ecam?.firstBus ?? 0), last: UInt16(ecam?.lastBus ?? 0)),
                        .ports(0xCF8, count: 8),
                        .memoryWindow32(first: window.lowerBound, last: window.upperBound),
                    ])),
                .name("_PRT", .package(routes)),
            ])
        guard let ecam else { return [bridge] }
        let reservation = AML.device(
            "ECAM",
            [
                .name("_HID", .eisaID("PNP0C02")),
                .name("_UID", .string("ECAM")),
                .name("_CRS", .resources([.memory32(ecam.firstAddress, count: ecam.length)])),
            ])
        return [bridge, reservation]
    }

    /// A virtio device behind memory-mapped registers, by the identifier that Linux's driver looks for.
    ///
    /// - Parameters:
    ///   - index: counts such devices; 0 to 4095, each once.
    ///   - base: the registers' guest physical address; `count` bytes of them.
    ///   - gsi: its wire: level-triggered, active high.
    /// Source: [VIRTIO1.2 §4.2].
    public static func virtioMMIO(index: Int, base: UInt32, count: UInt32, gsi: UInt32) -> AML {
        let digits = String(index & 0xFFF, radix: 16, uppercase: true)
        return .device(
            "V" + String(repeating: "0", count: 3 - digits.count) + digits,
            [
                .name("_HID", .string("LNRO0005")),
                .name("_UID", .integer(UInt64(index & 0xFFF))),
                .name("_CRS", .resources([.memory32(base, count: count), .interrupt(gsi: gsi, edgeTriggered: false)])),
            ])
    }
}
