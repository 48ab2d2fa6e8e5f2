import MonitorTesting
import Testing
import VMCore

@testable import Boot

/// Devices that are announced: a PCI host bridge, its MCFG table, virtio's memory-mapped registers.
@Suite struct DeviceTermsTests {
    private static let ecam = ACPIConfiguration.ECAM(base: 0xE000_0000)

    private func walk(_ configuration: ACPIConfiguration) throws -> TableWalk {
        let memory = try GuestMemory(size: 2 << 20)
        return try TableWalk(memory, rsdp: try ACPITables(configuration).install(in: memory))
    }

    /// Where `part` begins in `whole`.
    private func find(_ part: [UInt8], in whole: [UInt8]) -> Int? {
        guard whole.count >= part.count else { return nil }
        return (0...whole.count - part.count).first { whole[$0..<$0 + part.count].elementsEqual(part) }
    }

    @Test func mcfgSaysWhereConfigurationSpaceIs() throws {
        var configuration = ACPIConfiguration(cpuCount: 1)
        configuration.ecam = .init(base: 0xE000_0000, firstBus: 2, lastBus: 0x7F)
        let table = try #require(try walk(configuration).tables["MCFG"])
        #expect(table.count == 60)
        #expect(table.integer(UInt8.self, at: 8) == 1)
        #expect(table.integer(UInt64.self, at: 36) == 0)
        #expect(table.integer(UInt64.self, at: 44) == 0xE000_0000)
        #expect(table.integer(UInt16.self, at: 52) == 0)
        #expect(table.integer(UInt8.self, at: 54) == 2 && table.integer(UInt8.self, at: 55) == 0x7F)
        #expect(table.integer(UInt32.self, at: 56) == 0)
    }

    /// It is one table more, and changes no other but the two that list them.
    @Test func withoutPCINothingChanges() throws {
        var configuration = ACPIConfiguration(cpuCount: 2)
        let without = try walk(configuration).tables
        #expect(without["MCFG"] == nil)
        configuration.ecam = Self.ecam
        let with = try walk(configuration).tables
        #expect(Set(with.keys).subtracting(without.keys) == ["MCFG"])
        for (name, table) in without where name != "RSDT" && name != "XSDT" {
            #expect(difference(of: with[name]?.array ?? [], from: table.array) == nil, "\(name)")
        }
    }

    @Test func bridgeDescribesItsWindows() {
        let terms = DeviceTerms.pciHostBridge(
            window: 0xC000_0000...0xDFFF_FFFF, ecam: Self.ecam,
            interrupts: [.init(device: 1, gsi: 16), .init(device: 31, gsi: 23)])
        #expect(terms.count == 2)
        let bytes = terms[0].bytes
        #expect(find(AML.name("_HID", .eisaID("PNP0A08")).bytes, in: bytes) != nil)
        #expect(find(AML.name("_CID", .eisaID("PNP0A03")).bytes, in: bytes) != nil)
        // Bus 0 alone; the ports of mechanism #1; the window.
        #expect(find([0x88, 13, 0, 2, 0x0C, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], in: bytes) != nil)
        #expect(find([0x47, 1, 0xF8, 0x0C, 0xF8, 0x0C, 1, 8], in: bytes) != nil)
        #expect(
            find(
                [0x87, 23, 0, 0, 0x0C, 1, 0, 0, 0, 0, 0, 0, 0, 0xC0, 0xFF, 0xFF, 0xFF, 0xDF, 0, 0, 0, 0, 0, 0, 0, 0x20],
                in: bytes)
                != nil)
        // Each route: any function of the device, pin A, no link, its GSI.
        let routes = AML.name(
            "_PRT",
            .package([
                .package([.integer(0x1_FFFF), .integer(0), .integer(0), .integer(16)]),
                .package([.integer(0x1F_FFFF), .integer(0), .integer(0), .integer(23)]),
            ]))
        #expect(find(routes.bytes, in: bytes) != nil)
    }

    @Test func configurationSpaceInMemoryIsReserved() {
        let ecam = ACPIConfiguration.ECAM(base: 0xB000_0000, firstBus: 1, lastBus: 4)
        let terms = DeviceTerms.pciHostBridge(window: 0xC000_0000...0xC0FF_FFFF, ecam: ecam, interrupts: [])
        let bytes = terms[1].bytes
        #expect(find(AML.name("_HID", .eisaID("PNP0C02")).bytes, in: bytes) != nil)
        #expect(find([0x86, 9, 0, 1, 0, 0, 0x10, 0xB0, 0, 0, 0x40, 0], in: bytes) != nil)
        // All buses.
        #expect(ACPIConfiguration.ECAM(base: 0xE000_0000, lastBus: 255).length == 0x1000_0000)
        #expect(DeviceTerms.pciHostBridge(window: 0xC000_0000...0xC0FF_FFFF, ecam: nil, interrupts: []).count == 1)
    }

    @Test func virtioRegistersAreAnnounced() {
        let bytes = DeviceTerms.virtioMMIO(index: 10, base: 0xD000_A000, count: 0x1000, gsi: 21).bytes
        #expect(bytes.starts(with: [0x5B, 0x82]))
        #expect(find(Array("V00A".utf8), in: bytes) == 3)
        #expect(find(AML.name("_HID", .string("LNRO0005")).bytes, in: bytes) != nil)
        #expect(find(AML.name("_UID", .integer(10)).bytes, in: bytes) != nil)
        // Level-triggered, active high, consumed.
        #expect(find([0x86, 9, 0, 1, 0, 0xA0, 0, 0xD0, 0, 0x10, 0, 0, 0x89, 6, 0, 1, 1, 21, 0, 0, 0], in: bytes) != nil)
    }
}
