import Glibc
import Testing
import VMCore

@testable import Boot

/// Walks tables in guest memory as an operating system does: from the RSDP, by checksums and lengths.
struct TableWalk {
    var tables: [String: ImageBytes] = [:]

    init(_ memory: GuestMemory, rsdp address: GuestAddress) throws {
        let rsdp = ImageBytes(try memory.read(at: address, count: 36))
        #expect(address.rawValue % 16 == 0)
        #expect(rsdp.holds("RSD PTR ", at: 0))
        #expect(rsdp.array[..<20].reduce(0, &+) == 0)
        #expect(rsdp.array.reduce(0, &+) == 0)
        #expect(rsdp.integer(UInt8.self, at: 15) == 2)
        func table(_ address: UInt64) throws -> ImageBytes {
            let count = try memory.load(UInt32.self, at: GuestAddress(address + 4))
            let bytes = ImageBytes(try memory.read(at: GuestAddress(address), count: Int(count)))
            if !bytes.holds("FACS", at: 0) { #expect(bytes.array.reduce(0, &+) == 0) }
            #expect(address >= 0xE_0000 && address + UInt64(count) <= 0x10_0000)
            tables[String(decoding: bytes.array[..<4], as: UTF8.self)] = bytes
            return bytes
        }
        let rsdt = try table(UInt64(try #require(rsdp.integer(UInt32.self, at: 16))))
        let xsdt = try table(try #require(rsdp.integer(UInt64.self, at: 24)))
        for index in 0..<(xsdt.count - 36) / 8 {
            let address = try #require(xsdt.integer(UInt64.self, at: 36 + index * 8))
            #expect(rsdt.integer(UInt32.self, at: 36 + index * 4).map(UInt64.init) == address)
            _ = try table(address)
        }
        let fadt = try #require(tables["FACP"])
        _ = try table(try #require(fadt.integer(UInt64.self, at: 140)))
        let facs = UInt64(try #require(fadt.integer(UInt32.self, at: 36)))
        #expect(facs % 64 == 0)
        _ = try table(facs)
    }
}

@Suite struct ACPITablesTests {
    private func walk(_ configuration: ACPIConfiguration) throws -> TableWalk {
        let memory = try GuestMemory(size: 2 << 20)
        let rsdp = try ACPITables(configuration).install(in: memory)
        return try TableWalk(memory, rsdp: rsdp)
    }

    @Test func everyTableIsReachedFromTheRoot() throws {
        let walk = try walk(ACPIConfiguration(cpuCount: 2))
        #expect(Set(walk.tables.keys) == ["RSDT", "XSDT", "FACP", "APIC", "DSDT", "FACS"])
    }

    @Test func fadtDescribesTheFixedHardware() throws {
        var configuration = ACPIConfiguration(cpuCount: 1)
        configuration.pm1aEvent = 0x1230
        configuration.pmTimer = 0x4560
        let fadt = try #require(try walk(configuration).tables["FACP"])
        #expect(fadt.count == 276)
        #expect(fadt.integer(UInt8.self, at: 8) == 6)
        #expect(fadt.integer(UInt16.self, at: 46) == 9)
        #expect(fadt.integer(UInt32.self, at: 48) == 0)  // no SMI command port: always in ACPI mode
        #expect(fadt.integer(UInt32.self, at: 56) == 0x1230)
        // The old field and the generic address agree.
        for (old, new) in [(56, 148), (64, 172), (76, 208), (80, 220)] as [(UInt64, UInt64)] {
            #expect(fadt.integer(UInt32.self, at: old).map(UInt64.init) == fadt.integer(UInt64.self, at: new + 4))
            #expect(fadt.integer(UInt8.self, at: new) == 1)
        }
        #expect(fadt.integer(UInt16.self, at: 109) == 0b111)
        let flags = try #require(fadt.integer(UInt32.self, at: 112))
        #expect(flags >> 4 & 1 == 0)  // the power button is a fixed feature
        #expect(flags >> 10 & 1 == 1)
        #expect(flags >> 20 & 1 == 0)  // not hardware-reduced
        #expect(fadt.integer(UInt64.self, at: 120) == 0xCF9)
        #expect(fadt.integer(UInt8.self, at: 128) == 6)
        configuration.hasKeyboardController = false
        configuration.hasRTC = false
        let bare = try #require(try walk(configuration).tables["FACP"])
        #expect(bare.integer(UInt16.self, at: 109) == 0b100101)
    }

    /// The MADT's structures: type and contents.
    private func structures(_ madt: ImageBytes) throws -> [(UInt8, ImageBytes)] {
        var list: [(UInt8, ImageBytes)] = []
        var offset: UInt64 = 44
        while offset < madt.count {
            let count = UInt64(try #require(madt.integer(UInt8.self, at: offset + 1)))
            list.append(
                (try #require(madt.integer(UInt8.self, at: offset)), try #require(madt.slice(at: offset, count: count)))
            )
            offset += count
        }
        return list
    }

    @Test func madtListsProcessorsAndWires() throws {
        let madt = try #require(try walk(ACPIConfiguration(apicIDs: [0, 2, 300])).tables["APIC"])
        let list = try structures(madt)
        #expect(list.map(\.0) == [0, 0, 9, 1, 2, 2, 4, 10])
        #expect(list[1].1.array == [0, 8, 1, 2, 1, 0, 0, 0])
        #expect(list[2].1.array == [9, 16, 0, 0, 44, 1, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0])
        #expect(list[3].1.array == [1, 12, 0, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0])
        #expect(list[4].1.array == [2, 10, 0, 0, 2, 0, 0, 0, 0, 0])
        #expect(list[5].1.array == [2, 10, 0, 9, 9, 0, 0, 0, 0xD, 0])
    }

    @Test func sizesOfMachines() throws {
        #expect(throws: BootError.self) { try ACPITables(ACPIConfiguration(cpuCount: 0)) }
        #expect(throws: BootError.self) { try ACPITables(ACPIConfiguration(cpuCount: -1)) }
        #expect(throws: BootError.self) { try ACPITables(ACPIConfiguration(cpuCount: 5000)) }
        #expect(try walk(ACPIConfiguration(cpuCount: 1024)).tables.count == 6)
        var configuration = ACPIConfiguration(cpuCount: 1)
        configuration.extraDevices = [.name("BIG", .buffer([UInt8](repeating: 0, count: 140_000)))]
        #expect { try ACPITables(configuration) } throws: { "\($0)".contains("131072") }
    }
}

@Suite struct AMLTests {
    @Test func encodings() {
        #expect(AML.integer(0).bytes == [0])
        #expect(AML.integer(1).bytes == [1])
        #expect(AML.integer(2).bytes == [0x0A, 2])
        #expect(AML.integer(0x1234).bytes == [0x0B, 0x34, 0x12])
        #expect(AML.integer(0x1234_5678).bytes == [0x0C, 0x78, 0x56, 0x34, 0x12])
        #expect(AML.integer(1 << 40).bytes == [0x0E, 0, 0, 0, 0, 0, 1, 0, 0])
        #expect(AML.eisaID("PNP0501").bytes == [0x0C, 0x41, 0xD0, 0x05, 0x01])
        #expect(AML.nameString("\\_SB.COM1") == Array("\\".utf8) + [0x2E] + Array("_SB_COM1".utf8))
        #expect(AML.nameString("^A.B.C") == Array("^".utf8) + [0x2F, 3] + Array("A___B___C___".utf8))
        #expect(AML.nameString("\\") == [0x5C, 0])
        #expect(AML.name("_S5", .package([.integer(5)])).bytes == [8] + Array("_S5_".utf8) + [0x12, 4, 1, 0x0A, 5])
        #expect(
            AML.method("_STA", [.return(.integer(0xF))]).bytes == [0x14, 9] + Array("_STA".utf8) + [0, 0xA4, 0x0A, 0xF])
        #expect(AML.string("aé").bytes == [0x0D, 0x61, 0x3F, 0x3F, 0])
    }

    /// At each size where the length takes a byte more.
    @Test(arguments: [0, 62, 63, 64, 4093, 4094, 4095, 1_048_571, 1_048_572, 1_048_573])
    func packageLengthsDecode(count: Int) {
        let bytes = AML.sized([UInt8](repeating: 7, count: count))
        let extra = Int(bytes[0] >> 6)
        var length = extra == 0 ? Int(bytes[0] & 0x3F) : Int(bytes[0] & 0xF)
        for index in 0..<extra { length |= Int(bytes[1 + index]) << (4 + 8 * index) }
        #expect(length == bytes.count)
        #expect(bytes.count == count + 1 + extra)
    }

    @Test func resources() {
        #expect(
            AML.resources([.ports(0x3F8, count: 8), .isaInterrupt(4)]).bytes
                == [0x11, 16, 0x0A, 13, 0x47, 1, 0xF8, 3, 0xF8, 3, 1, 8, 0x22, 0x10, 0, 0x79, 0])
        #expect(Resource.interrupt(gsi: 20, edgeTriggered: false).bytes == [0x89, 6, 0, 1, 1, 20, 0, 0, 0])
        #expect(Resource.memory32(0xD000_0000, count: 512).bytes == [0x86, 9, 0, 1, 0, 0, 0, 0xD0, 0, 2, 0, 0])
        #expect(Resource.memoryWindow64(first: 1 << 40, last: .max).bytes.count == 46)
        #expect(Resource.memoryWindow32(first: 0, last: .max).bytes.count == 26)
        #expect(Resource.busNumbers(first: 0, last: 255).bytes.count == 16)
    }
}

/// ACPICA's compiler, where it is installed: a second opinion on every table.
private let disassembler: String? = {
    let paths = (getenv("PATH").map { String(cString: $0) } ?? "").split(separator: ":").map { "\($0)/iasl" }
    return paths.first { access($0, X_OK) == 0 }
}()

@Suite(.enabled(if: disassembler != nil)) struct DisassemblerTests {
    private func run(_ arguments: [String]) throws -> Int32 {
        var child: pid_t = 0
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
        var argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for pointer in argv { free(pointer) } }
        guard posix_spawn(&child, arguments[0], &actions, nil, &argv, environ) == 0 else { return -1 }
        var status: Int32 = 0
        waitpid(child, &status, 0)
        return status
    }

    @Test func everyTableDisassemblesAndTheDSDTCompilesAgain() throws {
        let iasl = try #require(disassembler)
        let directory = try TemporaryDirectory()
        var configuration = ACPIConfiguration(apicIDs: [0, 1, 2, 400])
        let ecam = ACPIConfiguration.ECAM(base: 0xE000_0000, lastBus: 0)
        configuration.ecam = ecam
        configuration.extraDevices = [
            DeviceTerms.virtioMMIO(index: 0, base: 0xD000_0000, count: 512, gsi: 20),
            DeviceTerms.virtioMMIO(index: 0xABC, base: 0xD000_1000, count: 4096, gsi: 21),
            .device(
                "PCI1",
                [
                    .name("_HID", .eisaID("PNP0A08")), .name("_CID", .eisaID("PNP0A03")), .name("_UID", .integer(1)),
                    .name(
                        "_CRS",
                        .resources([
                            .busNumbers(first: 1, last: 255), .portWindow(first: 0x1000, last: 0xFFFF),
                            .memoryWindow64(first: 1 << 40, last: (1 << 41) - 1),
                        ])),
                    .method("_STA", [.return(.integer(0xF))]),
                ]),
        ]
        configuration.extraDevices += DeviceTerms.pciHostBridge(
            window: 0xC000_0000...0xDFFF_FFFF, ecam: ecam,
            interrupts: (1...31).map { DeviceTerms.PCIInterrupt(device: $0, gsi: 16 + UInt32($0) % 8) })
        let memory = try GuestMemory(size: 2 << 20)
        let walk = try TableWalk(memory, rsdp: try ACPITables(configuration).install(in: memory))
        for (name, table) in walk.tables where name != "FACS" {
            let path = try directory.file("\(name).dat", table.array)
            #expect(try run([iasl, "-d", path]) == 0, "\(name)")
            let source = "\(directory.path)/\(name).dsl"
            let text = String(decoding: try ImageBytes(file: source).array, as: UTF8.self)
            #expect(!text.contains("Invalid") && !text.contains("ncorrect checksum"), "\(name)")
        }
        // Errors and warnings both count.
        #expect(try run([iasl, "-we", "-p", "\(directory.path)/again", "\(directory.path)/DSDT.dsl"]) == 0)
        let again = try ImageBytes(file: "\(directory.path)/again.aml").array
        let original = try #require(walk.tables["DSDT"]).array
        #expect(again.dropFirst(36).elementsEqual(original.dropFirst(36)))
    }
}
