import Testing
import VMCore

@testable import Boot

private func words(_ values: [UInt32]) -> [UInt8] {
    var image = ImageBuilder()
    for (index, value) in values.enumerated() { image.put(value, at: index * 4) }
    return image.bytes
}

/// A Multiboot 1 header with these flags and the words after its checksum.
private func header1(_ flags: UInt32, _ rest: [UInt32] = []) -> [UInt8] {
    words([0x1BAD_B002, flags, 0 &- 0x1BAD_B002 &- flags] + rest)
}

/// A Multiboot 2 header: tags are type, flags, contents.
private func header2(_ tags: [(UInt16, UInt16, [UInt32])]) -> [UInt8] {
    var image = ImageBuilder()
    image.put([UInt8](repeating: 0, count: 16), at: 0)
    for (type, flags, contents) in tags + [(0, 0, [])] {
        let start = image.bytes.count
        image.put(type, at: start)
        image.put(flags, at: start + 2)
        image.put(UInt32(8 + contents.count * 4), at: start + 4)
        image.put(words(contents), at: start + 8)
        while image.bytes.count % 8 != 0 { image.bytes.append(0) }
    }
    let length = UInt32(image.bytes.count)
    image.put(words([0xE852_50D6, 0, length, 0 &- 0xE852_50D6 &- length]), at: 0)
    return image.bytes
}

private func elf(_ header: [UInt8]) -> [UInt8] {
    TestELF(
        is64Bit: false, machine: 3, entry: 0x10_0004, segments: [.init(physical: 0x10_0000, contents: [UInt8](1...20))],
        extra: header
    ).bytes
}

private func load(
    _ bytes: [UInt8], _ change: (inout BootConfiguration) -> Void = { _ in }
) throws -> (GuestMemory, EntryPoint) {
    let memory = try GuestMemory(size: 64 << 20)
    var configuration = BootConfiguration()
    change(&configuration)
    return (memory, try BootImage(ImageBytes(bytes)).load(into: memory, configuration))
}

@Suite struct PackedMultibootTests {
    /// Packed as a whole it is what it is inside: Linux's words are not for it.
    @Test func isSeenWhenUnpacked() throws {
        let image = try BootImage(ImageBytes(Packed.gzip(elf(header1(3)))))
        #expect(try image.unpacked(limit: 1 << 20).kind == .multiboot1)
        #expect(try !image.unpacked(limit: 1 << 20).isLinux)
        let twice = try BootImage(ImageBytes(Packed.gzip(Packed.gzip(elf(header1(3))))))
        #expect(throws: BootError.self) { try twice.unpacked(limit: 1 << 20) }
        #expect(throws: BootError.self) { try twice.load(into: try GuestMemory(size: 64 << 20)) }
    }

    /// A header reaches to no more than the first 32768 bytes, whatever length it states.
    @Test func aHeaderIsShort() throws {
        var image = ImageBuilder()
        let length: UInt32 = 64 << 20
        image.put(words([0xE852_50D6, 0, length, 0 &- 0xE852_50D6 &- length]), at: 0)
        image.put(words([0x1_0001, length - 16]), at: 16)
        image.put([0], at: Int(length) - 1)
        let start = ContinuousClock.now
        #expect(throws: BootError.self) { try load(image.bytes) }
        #expect(ContinuousClock.now - start < .seconds(1))
    }
}

@Suite struct Multiboot1Tests {
    @Test func elfKernelGetsItsInformation() throws {
        let (memory, entry) = try load(elf(header1(3))) {
            $0.commandLine = "one two"
            $0.initrds = [
                ImageBytes([9, 9, 9], name: "/home/me/first.bin"), ImageBytes([8], name: "second"),
            ]
        }
        #expect(entry.method == "Multiboot")
        #expect(entry.mode == .protected32(eip: 0x10_0004, eax: 0x2BAD_B002, ebx: 0x1_0000, esi: 0))
        #expect(try memory.read(at: GuestAddress(0x10_0000), count: 20) == [UInt8](1...20))
        let base = BootLayout.information.rawValue
        func word(_ offset: UInt64) throws -> UInt32 { try memory.load(UInt32.self, at: GuestAddress(base + offset)) }
        func text(_ address: UInt32) throws -> String {
            String(
                decoding: try memory.read(at: GuestAddress(UInt64(address)), count: 64).prefix { $0 != 0 },
                as: UTF8.self)
        }
        #expect(try word(0) & 0x4D == 0x4D)
        #expect(try word(4) == 639)
        #expect(try word(8) == 63 << 10)
        #expect(try text(try word(16)) == "one two")
        #expect(try word(20) == 2)
        let list = UInt64(try word(24))
        let first = try memory.load(UInt32.self, at: GuestAddress(list))
        #expect(first % 4096 == 0)
        #expect(try memory.load(UInt32.self, at: GuestAddress(list + 4)) == first + 3)
        #expect(try text(try memory.load(UInt32.self, at: GuestAddress(list + 8))) == "first.bin")
        #expect(try text(try memory.load(UInt32.self, at: GuestAddress(list + 24))) == "second")
        #expect(try memory.read(at: GuestAddress(UInt64(first)), count: 3) == [9, 9, 9])
        #expect(try text(try word(64)) == "Windhover")
        // The map: entries that name their own size, the first one low RAM.
        let map = UInt64(try word(48))
        #expect(try word(44) == 4 * 24)
        #expect(try memory.load(UInt32.self, at: GuestAddress(map)) == 20)
        #expect(try memory.load(UInt64.self, at: GuestAddress(map + 12)) == 0x9_FC00)
        #expect(try memory.load(UInt32.self, at: GuestAddress(map + 20)) == 1)
    }

    /// A kernel that was made for a BIOS's loader finds where conventional memory ends, and vectors that come back.
    @Test func itFindsABIOSDataArea() throws {
        for header in [header1(3), header2([])] {
            let (memory, entry) = try load(elf(header))
            #expect(try memory.load(UInt16.self, at: GuestAddress(0x413)) == 639)
            #expect(try memory.load(UInt16.self, at: GuestAddress(0x40E)) == 0x9FC0)
            #expect(try memory.load(UInt16.self, at: GuestAddress(0x400)) == 0x3F8)
            let vector = try memory.load(UInt32.self, at: GuestAddress(0x15 * 4))
            #expect(try memory.load(UInt8.self, at: GuestAddress(UInt64((vector >> 16) * 16 + vector & 0xFFFF))) == 0xCF)
            #expect(UInt64(vector) < entry.initialState().system.gdtr.base)
        }
    }

    @Test func addressFieldsLoadAFlatKernel() throws {
        // The header at 0x20 of the file; the file's first byte at 1 MiB; 0x30 bytes of bss.
        var image = ImageBuilder(bytes: [UInt8](repeating: 0x11, count: 0x80))
        image.put(header1(1 << 16, [0x10_0020, 0x10_0000, 0x10_0080, 0x10_00B0, 0x10_0040]), at: 0x20)
        let (memory, entry) = try load(image.bytes)
        #expect(entry.mode == .protected32(eip: 0x10_0040, eax: 0x2BAD_B002, ebx: 0x1_0000, esi: 0))
        #expect(try memory.read(at: GuestAddress(0x10_007F), count: 2) == [0x11, 0])
    }

    @Test(
        arguments: [
            [0x10_0020, 0x10_0021, 0x10_0080, 0, 0x10_0040],  // loads from behind its header
            [0x10_0041, 0x10_0000, 0x10_0080, 0, 0x10_0040],  // from before the file
            [0x10_0020, 0x10_0000, 0x0F_0000, 0, 0x10_0040],  // ends before it begins
            [0x10_0020, 0x10_0000, 0x10_0081, 0, 0x10_0040],  // past the file's end
            [0x10_0020, 0x10_0000, 0x10_0080, 0x10_007F, 0x10_0040],  // bss before the end
            [0x10_0020, 0x10_0000, 0x10_0080, 0xFFFF_FFFF, 0x10_0040],  // bss past the RAM
            [0x10_0020, 0x10_0000, 0x10_0080, 0, 0x0F_FFFF],  // starts outside
            [0xFFFF_FFFF, 0, 0, 0, 0],
            [0x7020, 0x7000, 0, 0, 0x7000],  // on the loader's tables
        ] as [[UInt32]]) func badAddressesAreRefused(fields: [UInt32])
    {
        var image = ImageBuilder(bytes: [UInt8](repeating: 0x11, count: 0x80))
        image.put(header1(1 << 16, fields), at: 0x20)
        #expect(throws: BootError.self) { try load(image.bytes) }
    }

    @Test func whatCannotBeGivenIsRefused() {
        #expect { try load(elf(header1(4))) } throws: { "\($0)".contains("video") }
        #expect { try load(elf(header1(0x8000))) } throws: { "\($0)".contains("0x8000") }
        // The high half is optional.
        #expect(throws: Never.self) { try load(elf(header1(0x8002_0000))) }
    }

    @Test func badChecksumIsNoHeader() throws {
        var bytes = header1(3)
        bytes[8] ^= 1
        #expect(throws: BootError.self) { try load(elf(bytes)) }
        #expect(throws: BootError.self) { try load([UInt8](repeating: 0, count: 64) + bytes) }
    }

    @Test func headerPastEightKibibytesIsNone() {
        var image = ImageBuilder(bytes: [UInt8](repeating: 0, count: 8192 + 64))
        image.put(header1(1 << 16, [0x10_2000, 0x10_0000, 0, 0, 0x10_0000]), at: 8192)
        #expect(throws: BootError.unrecognized(image: "image")) { try load(image.bytes) }
        image.put(header1(1 << 16, [0x10_1FF4, 0x10_0000, 0, 0, 0x10_0000]), at: 8192 - 12)
        #expect(throws: Never.self) { try load(image.bytes) }
    }
}

@Suite struct Multiboot2Tests {
    /// The tags of the boot information: type and contents.
    private func tags(_ memory: GuestMemory) throws -> [(UInt32, ImageBytes)] {
        let total = try memory.load(UInt32.self, at: BootLayout.information)
        let bytes = ImageBytes(try memory.read(at: BootLayout.information, count: Int(total)))
        var list: [(UInt32, ImageBytes)] = []
        var offset: UInt64 = 8
        while let type = bytes.integer(UInt32.self, at: offset), let size = bytes.integer(UInt32.self, at: offset + 4) {
            list.append((type, try #require(bytes.slice(at: offset + 8, count: UInt64(size) - 8))))
            offset = (offset + UInt64(size) + 7) & ~7
        }
        #expect(offset == UInt64(total))
        return list
    }

    @Test func elfKernelGetsItsInformation() throws {
        let memory = try GuestMemory(size: 64 << 20)
        let tables = try ACPITables(ACPIConfiguration(cpuCount: 1))
        var configuration = BootConfiguration()
        configuration.rsdp = try tables.install(in: memory)
        configuration.commandLine = "arg"
        configuration.initrds = [ImageBytes([9, 9, 9], name: "dir/module")]
        let bytes = elf(header2([(1, 0, [1, 3, 6, 15]), (6, 0, [])]))
        let entry = try BootImage(ImageBytes(bytes)).load(into: memory, configuration)
        #expect(entry.mode == .protected32(eip: 0x10_0004, eax: 0x36D7_6289, ebx: 0x1_0000, esi: 0))
        let tags = try tags(memory)
        #expect(tags.map(\.0) == [1, 2, 3, 4, 6, 14, 15, 21, 0])
        #expect(tags[0].1.array == Array("arg".utf8) + [0])
        let module = tags[2].1
        let start = try #require(module.integer(UInt32.self, at: 0))
        #expect(module.integer(UInt32.self, at: 4) == start + 3)
        #expect(module.holds("module\0", at: 8))
        #expect(try memory.read(at: GuestAddress(UInt64(start)), count: 3) == [9, 9, 9])
        #expect(tags[4].1.integer(UInt32.self, at: 0) == 24)
        #expect(tags[4].1.integer(UInt64.self, at: 16) == 0x9_FC00)
        #expect(tags[6].1.array == Array(tables.bytes[..<36]))
        #expect(tags[7].1.integer(UInt32.self, at: 0) == 0x10_0000)
    }

    @Test func addressTagsLoadAFlatKernel() throws {
        var image = ImageBuilder(bytes: [UInt8](repeating: 0x22, count: 0x100))
        image.put(header2([(2, 0, [0x20_0010, 0x20_0000, 0, 0x20_1000]), (3, 0, [0x20_00F0])]), at: 0x10)
        let (memory, entry) = try load(image.bytes)
        #expect(entry.mode == .protected32(eip: 0x20_00F0, eax: 0x36D7_6289, ebx: 0x1_0000, esi: 0))
        #expect(try memory.read(at: GuestAddress(0x20_00FF), count: 2) == [0x22, 0])
    }

    @Test(
        arguments: [
            (1, [8]), (4, [1]), (5, [0, 0, 32]), (7, []), (77, []), (2, [0, 0xFFFF_FFFF, 0, 0]), (2, [0]),
        ] as [(UInt16, [UInt32])]) func whatCannotBeGivenIsRefused(type: UInt16, contents: [UInt32])
    {
        #expect(throws: BootError.self) { try load(elf(header2([(type, 0, contents)]))) }
        if type != 2 { #expect(throws: Never.self) { try load(elf(header2([(type, 1, contents)]))) } }
    }

    @Test func endlessTagsAreRefused() {
        #expect(throws: BootError.self) {
            try load(elf(header2([(UInt16, UInt16, [UInt32])](repeating: (6, 0, []), count: 100))))
        }
        var bytes = ImageBuilder(bytes: header2([(6, 0, [])]))
        bytes.put(UInt32(0), at: 20)  // a tag of no size
        #expect(throws: BootError.self) { try load(elf(bytes.bytes)) }
        bytes.put(UInt32.max, at: 20)
        #expect(throws: BootError.self) { try load(elf(bytes.bytes)) }
    }
}
