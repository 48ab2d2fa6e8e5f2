/// The differentiated system description table: what devices there are and where.
enum DSDT {
    /// The table's terms.
    static func terms(_ configuration: ACPIConfiguration) -> [AML] {
        var devices: [AML] = processors(configuration)
        for (index, port) in configuration.serialPorts.enumerated() {
            devices.append(
                .device(
                    "COM\(index + 1)",
                    [
                        .name("_HID", .eisaID("PNP0501")),
                        .name("_UID", .integer(UInt64(index) + 1)),
                        .name("_CRS", .resources([.ports(port.base, count: 8), .isaInterrupt(port.irq)])),
                    ]))
        }
        if configuration.hasRTC {
            devices.append(
                .device(
                    "RTC",
                    [
                        .name("_HID", .eisaID("PNP0B00")),
                        .name("_CRS", .resources([.ports(0x70, count: 2), .isaInterrupt(8)])),
                    ]))
        }
        if configuration.hasKeyboardController {
            devices.append(
                .device(
                    "KBD",
                    [
                        .name("_HID", .eisaID("PNP0303")),
                        .name(
                            "_CRS",
                            .resources([.ports(0x60, count: 1), .ports(0x64, count: 1), .isaInterrupt(1)])),
                    ]))
        }
        devices += configuration.extraDevices
        let sleep = AML.integer(UInt64(configuration.softOffSleepType & 7))
        return [
            .name("_S5", .package([sleep, sleep, .integer(0), .integer(0)])),
            .scope("_SB", devices),
        ]
    }

    /// One ACPI0007 device a processor; its _UID is the MADT's processor UID.
    private static func processors(_ configuration: ACPIConfiguration) -> [AML] {
        configuration.apicIDs.indices.map { index in
            let digits = String(index, radix: 16, uppercase: true)
            let name = "C" + String(repeating: "0", count: max(0, 3 - digits.count)) + digits
            return .device(name, [.name("_HID", .string("ACPI0007")), .name("_UID", .integer(UInt64(index)))])
        }
    }
}
