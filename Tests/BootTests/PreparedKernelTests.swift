import Glibc
import Testing
import VMCore

@testable import Boot

@Suite struct PreparedKernelTests {
    /// Two segments on one page, one with bss, one far away and not on a page's beginning.
    private static let elf = TestELF(
        entry: 0x100_0001,
        segments: [
            .init(physical: 0x100_0000, contents: [UInt8](repeating: 1, count: 5000)),
            .init(physical: 0x100_1400, contents: [UInt8](repeating: 2, count: 100), memoryCount: 0x5000),
            .init(physical: 0x180_0123, contents: [UInt8](repeating: 3, count: 9000)),
        ], notes: [TestELF.linuxNote, TestELF.pvhNote(0x100_0002)])

    @Test func loadsToTheSameMemoryAsTheKernel() throws {
        let directory = try TemporaryDirectory()
        let elf = Self.elf.bytes
        var image = TestBzImage(initSize: 0x200_0000)
        image.payload = Packed.withSize(Packed.zstd(elf), elf.count)
        for (index, kernel) in [elf, image.bytes].enumerated() {
            let path = "\(directory.path)/prepared\(index)"
            try PreparedKernel.write(ImageBytes(kernel), to: path)
            var configuration = BootConfiguration()
            configuration.commandLine = "a b"
            configuration.initrds = [ImageBytes([4, 5])]
            for entry in [BootConfiguration.Entry.automatic, .pvh] {
                configuration.entry = entry
                let direct = try GuestMemory(size: 64 << 20)
                let mapped = try GuestMemory(size: 64 << 20)
                let prepared = try BootImage(ImageBytes(file: path))
                #expect(prepared.kind == .prepared)
                #expect(
                    try prepared.load(into: mapped, configuration)
                        == BootImage(ImageBytes(kernel)).load(into: direct, configuration))
                #expect(memcmp(direct.regions[0].host, mapped.regions[0].host, 64 << 20) == 0)
            }
        }
        #expect(directory.contents.sorted() == ["prepared0", "prepared1"])
    }

    @Test func loadsFromBytesWithoutAFile() throws {
        let directory = try TemporaryDirectory()
        let path = "\(directory.path)/prepared"
        try PreparedKernel.write(ImageBytes(Self.elf.bytes), to: path)
        let bytes = try ImageBytes(file: path).array
        let memory = try GuestMemory(size: 64 << 20)
        _ = try BootImage(ImageBytes(bytes)).load(into: memory)
        #expect(try memory.load(UInt8.self, at: GuestAddress(0x180_0123)) == 3)
    }

    @Test func everyTruncationAndEveryChangedHeaderByteIsRefused() throws {
        let directory = try TemporaryDirectory()
        let path = "\(directory.path)/prepared"
        try PreparedKernel.write(ImageBytes(Self.elf.bytes), to: path)
        let bytes = try ImageBytes(file: path).array
        let memory = try GuestMemory(size: 64 << 20)
        for count in stride(from: 0, to: bytes.count, by: 61) {
            #expect(throws: BootError.self) { try BootImage(ImageBytes(Array(bytes[..<count]))).load(into: memory) }
        }
        // On disk as well: a mapping past the end would be a bus error.
        let cut = try directory.file("cut", Array(bytes.dropLast(1)))
        #expect(throws: BootError.self) { try BootImage(ImageBytes(file: cut)).load(into: memory) }
        for index in 0..<4096 {
            var changed = bytes
            changed[index] ^= 0x80
            #expect(throws: BootError.self, "byte \(index)") {
                try BootImage(ImageBytes(changed)).load(into: memory)
            }
        }
    }

    /// With a checksum that is right, only the checks behind it are left.
    @Test func hostileHeadersAreRefused() throws {
        let directory = try TemporaryDirectory()
        let path = "\(directory.path)/prepared"
        try PreparedKernel.write(ImageBytes(Self.elf.bytes), to: path)
        let bytes = try ImageBytes(file: path).array
        for (offset, value) in [
            (40, 65), (44, 65), (40, 0xFFFF_FFFF), (16, 1 << 40),
            (256, 0x100_0001), (256, 0x7000), (256, 0xE_0000), (256, 0xC000_0000), (256, UInt64.max - 4095),
            (256, 0x280_0000),
            (264, 1), (264, 1 << 62), (264, UInt64.max - 4095), (272, 0), (272, 1), (272, 1 << 30),
            (272, UInt64.max - 4095),
            (280, 0x100_0000), (1792, 0), (1792, 0x9_0000), (1800, 0), (1800, .max), (24, 0x7000), (24, .max),
            (32, 0x20),
        ] as [(Int, UInt64)] {
            var image = ImageBuilder(bytes: bytes)
            if offset == 40 || offset == 44 {
                image.put(UInt32(truncatingIfNeeded: value), at: offset)
            } else {
                image.put(value, at: offset)
            }
            let changed = PreparedKernel.sealed(image.bytes)
            let file = try directory.file("hostile", changed)
            #expect(throws: BootError.self, "\(offset) \(value)") {
                try BootImage(ImageBytes(file: file)).load(into: GuestMemory(size: 64 << 20))
            }
        }
    }

    @Test func whatCannotBePreparedLeavesNoFile() throws {
        let directory = try TemporaryDirectory()
        let path = "\(directory.path)/prepared"
        #expect(throws: BootError.self) { try PreparedKernel.write(ImageBytes(TestBzImage().bytes), to: path) }
        #expect(throws: BootError.self) { try PreparedKernel.write(ImageBytes([0xFA, 0xF4]), to: path) }
        #expect {
            try PreparedKernel.write(ImageBytes(Self.elf.bytes), to: "\(directory.path)/no/such")
        } throws: {
            "\($0)".contains("no/such")
        }
        #expect(directory.contents.isEmpty)
    }
}
