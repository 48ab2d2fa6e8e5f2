public import VMCore

/// The ACPI tables of a PC: RSDP, RSDT, XSDT, FADT, FACS, MADT, DSDT, and MCFG where there is what it describes.
///
/// The platform is always in ACPI mode: there is no SMI command port, so SCI_EN must read as one.
/// The power button is the fixed-feature one. Absent: HPET (nothing to describe), SRAT (one node).
public struct ACPITables: Sendable {
    /// The tables as they lie in memory, from `BootLayout.acpi` on; the RSDP first.
    public let bytes: [UInt8]
    /// The RSDP's address.
    public let rsdp: GuestAddress

    /// Most processors that 8-bit and 32-bit APIC identifiers and three-digit names go round for.
    static let processorLimit = 4096

    /// Builds the tables.
    ///
    /// - Throws: `acpi` where there is no processor, more than 4096, or more than fits the BIOS area's 128 KiB.
    public init(_ configuration: ACPIConfiguration) throws(BootError) {
        guard !configuration.apicIDs.isEmpty else { throw .acpi(problem: "the machine has no processor") }
        guard configuration.apicIDs.count <= Self.processorLimit else {
            throw .acpi(problem: "\(configuration.apicIDs.count) processors, and \(Self.processorLimit) are the most")
        }
        let base = UInt32(truncatingIfNeeded: BootLayout.acpi.rawValue)
        guard configuration.serialPorts.count <= 9 else {
            throw .acpi(problem: "\(configuration.serialPorts.count) serial ports, and 9 are the most")
        }
        rsdp = BootLayout.acpi
        let limit = Int(BootLayout.highMemory.rawValue - BootLayout.acpi.rawValue)

        // The RSDP goes in last, when the addresses are known; its 36 bytes are kept free.
        var area = LittleEndianBytes(count: 64)
        func place(_ table: [UInt8], alignment: Int = 16) -> UInt32 {
            area.align(to: alignment)
            let address = base + UInt32(area.count)
            area.append(table)
            return address
        }
        let facs = place(Self.facs(), alignment: 64)
        let dsdt = place(Self.table("DSDT", revision: 2, AML(DSDT.terms(configuration)).bytes))
        let fadt = place(Self.fadt(configuration, facs: facs, dsdt: dsdt))
        let madt = place(Self.madt(configuration))
        var addresses = [fadt, madt]
        if let ecam = configuration.ecam { addresses.append(place(Self.mcfg(ecam))) }
        let rsdt = place(Self.table("RSDT", revision: 1, addresses.flatMap { AML.little(UInt64($0), 4) }))
        let xsdt = place(Self.table("XSDT", revision: 1, addresses.flatMap { AML.little(UInt64($0), 8) }))
        area.store(Self.rsdp(rsdt: rsdt, xsdt: UInt64(xsdt)), at: 0)
        guard area.count <= limit else {
            throw .acpi(
                problem:
                    "\(configuration.apicIDs.count) processors and \(configuration.extraDevices.count) further devices "
                    + "take \(area.count) bytes, and the BIOS area has \(limit); configure fewer")
        }
        bytes = area.bytes
    }

    /// Writes the tables into guest memory.
    /// - Returns: the RSDP's address.
    public func install(in memory: GuestMemory) throws(BootError) -> GuestAddress {
        let (bytes, rsdp) = (bytes, rsdp)
        try placing { () throws(GuestMemoryError) in try memory.write(bytes, at: rsdp) }
        return rsdp
    }

    // MARK: Tables

    private static let oemID = Array("WNDHVR".utf8)
    private static let oemTableID = Array("HOVER   ".utf8)
    private static let creatorID = Array("WHVR".utf8)

    /// The byte that makes `bytes` sum to zero.
    static func checksum(_ bytes: some Sequence<UInt8>) -> UInt8 { 0 &- bytes.reduce(0, &+) }

    /// A table: the common header and its body. Source: [ACPI6.5 §5.2.6].
    static func table(_ signature: StaticString, revision: UInt8, _ body: [UInt8]) -> [UInt8] {
        var table = LittleEndianBytes()
        table.append(Array("\(signature)".utf8))
        table.append(UInt32(36 + body.count))
        table.append(revision)
        table.append(UInt8(0))  // checksum
        table.append(oemID)
        table.append(oemTableID)
        table.append(UInt32(1))
        table.append(creatorID)
        table.append(UInt32(1))
        table.append(body)
        table.store(checksum(table.bytes), at: 9)
        return table.bytes
    }

    /// Source: [ACPI6.5 §5.2.5.3].
    private static func rsdp(rsdt: UInt32, xsdt: UInt64) -> [UInt8] {
        var table = LittleEndianBytes()
        table.append(Array("RSD PTR ".utf8))
        table.append(UInt8(0))  // checksum of the first 20 bytes
        table.append(oemID)
        table.append(UInt8(2))
        table.append(rsdt)
        table.append(UInt32(36))
        table.append(xsdt)
        table.append(UInt32(0))  // checksum of all, reserved
        table.store(checksum(table.bytes.prefix(20)), at: 8)
        table.store(checksum(table.bytes), at: 32)
        return table.bytes
    }

    /// Source: [ACPI6.5 §5.2.10]. Has no checksum: it is the guest's to write.
    private static func facs() -> [UInt8] {
        var table = LittleEndianBytes(count: 64)
        table.store(Array("FACS".utf8), at: 0)
        table.store(UInt32(64), at: 4)
        table.store(UInt8(2), at: 32)
        return table.bytes
    }

    /// A generic address: I/O space, its bits, its access size in the ACPI code (1 byte, 2 word, 3 long).
    /// Source: [ACPI6.5 §5.2.3.2].
    private static func port(_ address: UInt16, bits: UInt8, access: UInt8) -> [UInt8] {
        [1, bits, 0, access] + AML.little(UInt64(address), 8)
    }

    /// Source: [ACPI6.5 §5.2.9]; offsets are from the table's start.
    private static func fadt(_ configuration: ACPIConfiguration, facs: UInt32, dsdt: UInt32) -> [UInt8] {
        var table = LittleEndianBytes(count: 276)
        table.store(facs, at: 36)
        table.store(dsdt, at: 40)
        table.store(UInt16(configuration.sciGSI), at: 46)
        table.store(UInt32(configuration.pm1aEvent), at: 56)
        table.store(UInt32(configuration.pm1aControl), at: 64)
        table.store(UInt32(configuration.pmTimer), at: 76)
        table.store(UInt32(configuration.gpe0), at: 80)
        table.store(UInt8(4), at: 88)  // PM1_EVT_LEN
        table.store(UInt8(2), at: 89)  // PM1_CNT_LEN
        table.store(UInt8(4), at: 91)  // PM_TMR_LEN
        table.store(UInt8(4), at: 92)  // GPE0_BLK_LEN
        table.store(UInt16(0xFFFF), at: 96)  // P_LVL2_LAT: no C2
        table.store(UInt16(0xFFFF), at: 98)  // P_LVL3_LAT: no C3
        table.store(UInt8(0x32), at: 108)  // CENTURY: the CMOS byte for it
        var bootFlags: UInt16 = 1 << 0 | 1 << 2  // legacy devices; no VGA
        if configuration.hasKeyboardController { bootFlags |= 1 << 1 }
        if !configuration.hasRTC { bootFlags |= 1 << 5 }
        table.store(bootFlags, at: 109)
        // WBINVD works; C1 on all; no sleep button, no RTC wake; a reset register.
        var flags: UInt32 = 1 << 0 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 10
        if configuration.pmTimerIs32Bit { flags |= 1 << 8 }
        table.store(flags, at: 112)
        table.store(port(configuration.resetPort, bits: 8, access: 1), at: 116)
        table.store(configuration.resetValue, at: 128)
        table.store(UInt8(4), at: 131)  // minor revision: 6.4
        table.store(UInt64(dsdt), at: 140)
        table.store(port(configuration.pm1aEvent, bits: 32, access: 2), at: 148)
        table.store(port(configuration.pm1aControl, bits: 16, access: 2), at: 172)
        table.store(port(configuration.pmTimer, bits: 32, access: 3), at: 208)
        table.store(port(configuration.gpe0, bits: 32, access: 1), at: 220)
        return Self.table("FACP", revision: 6, Array(table.bytes[36...]))
    }

    /// Source: [ACPI6.5 §5.2.12].
    private static func madt(_ configuration: ACPIConfiguration) -> [UInt8] {
        var body = LittleEndianBytes()
        body.append(configuration.localAPICAddress)
        body.append(UInt32(1))  // a PC's 8259A pair is there too
        for (uid, id) in configuration.apicIDs.enumerated() {
            if id < 0xFF, uid < 0xFF {
                body.append([0, 8, UInt8(uid), UInt8(id)])
                body.append(UInt32(1))  // enabled
            } else {
                body.append([9, 16, 0, 0])
                body.append(id)
                body.append(UInt32(1))
                body.append(UInt32(uid))
            }
        }
        body.append([1, 12, configuration.ioAPICID, 0])
        body.append(configuration.ioAPICAddress)
        body.append(UInt32(0))  // its first GSI
        // The timer's wire goes to pin 2, as on every PC and in KVM's own wiring.
        body.append([2, 10, 0, 0])
        body.append(UInt32(2))
        body.append(UInt16(0))
        body.append([2, 10, 0, configuration.sciGSI])
        body.append(UInt32(configuration.sciGSI))
        body.append(UInt16(0xD))  // active high, level-triggered
        body.append([4, 6, 0xFF, 0, 0, 1])  // NMI on LINT1 of every processor
        if configuration.apicIDs.contains(where: { $0 >= 0xFF }) {
            body.append([0xA, 12, 0, 0])
            body.append(UInt32.max)
            body.append([1, 0, 0, 0])
        }
        return Self.table("APIC", revision: 5, body.bytes)
    }

    /// One segment's configuration space. Source: [PCIFW3.0 §4.1.2].
    private static func mcfg(_ ecam: ACPIConfiguration.ECAM) -> [UInt8] {
        var body = LittleEndianBytes(count: 8)  // reserved
        body.append(UInt64(ecam.base))
        body.append(UInt16(0))  // segment
        body.append([ecam.firstBus, ecam.lastBus])
        body.append(UInt32(0))  // reserved
        return Self.table("MCFG", revision: 1, body.bytes)
    }
}
