import MonitorTesting
import Testing
import VMCore

@testable import Boot

/// The kernel proper inside the tests' bzImages: recognisable bytes, more than one LZ4 block.
private let vmlinux: TestELF = {
    var generator = SeededGenerator(seed: 1)
    let noise = (0..<100_000).map { _ in UInt8.random(in: 0...3, using: &generator) }
    return TestELF(
        segments: [
            .init(virtual: 0xFFFF_FFFF_8100_0000, physical: 0x100_0000, contents: noise),
            .init(virtual: 0xFFFF_FFFF_8200_0000, physical: 0x200_0000, contents: [7, 8, 9], memoryCount: 0x1_0000),
        ], notes: [TestELF.linuxNote, TestELF.pvhNote(0x100_0010)])
}()

private func zeroPage(_ memory: GuestMemory) throws -> ImageBytes {
    ImageBytes(try memory.read(at: BootLayout.parameters, count: 4096))
}

@Suite struct BzImageTests {
    @Test(arguments: Packed.all.map(\.name)) func isUnpackedOnTheHost(format: String) throws {
        let packing = try #require(Packed.all.first { $0.name == format })
        let elf = vmlinux.bytes
        let packed = packing.pack(elf)
        var image = TestBzImage()
        image.payload = packing.sizeIsInside ? packed : Packed.withSize(packed, elf.count)
        let memory = try GuestMemory(size: 64 << 20)
        let boot = try BootImage(ImageBytes(image.bytes))
        #expect(boot.kind == .bzImage)
        let entry = try boot.load(into: memory)
        #expect(entry.mode == .long64(rip: 0x100_0000, rsi: 0x7000))
        #expect(entry.method == "Linux 64-bit")
        #expect(try difference(of: memory.read(at: GuestAddress(0x100_0000), count: 100_000), from: vmlinux.segments[0].contents) == nil)
        #expect(try memory.read(at: GuestAddress(0x200_0000), count: 4) == [7, 8, 9, 0])
    }

    @Test func damagedPayloadIsRefused() throws {
        let elf = vmlinux.bytes
        for packing in Packed.all {
            var packed = packing.pack(elf)
            for index in stride(from: packed.count / 2, to: packed.count / 2 + 64, by: 1) { packed[index] ^= 0x5A }
            var image = TestBzImage()
            image.payload = packing.sizeIsInside ? packed : Packed.withSize(packed, elf.count)
            let memory = try GuestMemory(size: 64 << 20)
            // LZ4 and its like have no checksum inside blocks: damage may also surface as a damaged ELF file.
            #expect(throws: BootError.self, "\(packing.name)") {
                let entry = try BootImage(ImageBytes(image.bytes)).load(into: memory)
                let loaded = try memory.read(at: GuestAddress(0x100_0000), count: 100_000)
                if loaded != vmlinux.segments[0].contents { throw BootError.unrecognized(image: "\(entry)") }
            }
        }
    }

    @Test func statedSizeBoundsABomb() throws {
        let bomb = [UInt8](repeating: 0, count: 32 << 20)
        for packing in Packed.all where !packing.sizeIsInside {
            var image = TestBzImage()
            image.payload = Packed.withSize(packing.pack(bomb), 1000)
            let memory = try GuestMemory(size: 64 << 20)
            #expect(throws: BootError.self, "\(packing.name)") {
                try BootImage(ImageBytes(image.bytes)).load(into: memory)
            }
        }
        // One that states its size truly, and more than the guest has.
        var image = TestBzImage()
        image.payload = Packed.withSize(Packed.zstd(bomb), bomb.count)
        let memory = try GuestMemory(size: 16 << 20)
        #expect(throws: BootError.unpacksTooLarge(image: "image", format: "zstd", limit: 16 << 20)) {
            try BootImage(ImageBytes(image.bytes)).load(into: memory)
        }
    }

    @Test func unknownPackingIsLeftToTheGuest() throws {
        var image = TestBzImage()
        image.payload = Array("BZh91AY&SY".utf8) + [1, 2, 3, 4]
        let memory = try GuestMemory(size: 64 << 20)
        let entry = try BootImage(ImageBytes(image.bytes)).load(into: memory)
        #expect(entry.mode == .long64(rip: 0x100_0200, rsi: 0x7000))
        #expect(try memory.load(UInt8.self, at: GuestAddress(0x100_0200)) == 0xCC)
    }

    @Test func guestUnpacksWhenAsked() throws {
        let elf = vmlinux.bytes
        var image = TestBzImage()
        image.payload = Packed.withSize(Packed.lz4Legacy(elf), elf.count)
        var configuration = BootConfiguration()
        configuration.unpacking = .guest
        let memory = try GuestMemory(size: 64 << 20)
        let entry = try BootImage(ImageBytes(image.bytes)).load(into: memory, configuration)
        #expect(entry.mode == .long64(rip: 0x100_0200, rsi: 0x7000))
    }

    @Test func kernelWithout64BitEntryStartsIn32BitMode() throws {
        let memory = try GuestMemory(size: 64 << 20)
        let entry = try BootImage(ImageBytes(TestBzImage(extendedFlags: 0).bytes)).load(into: memory)
        #expect(entry.mode == .protected32(eip: 0x100_0000, eax: 0, ebx: 0, esi: 0x7000))
    }

    @Test func oldProtocolsAreRefusedByNumber() throws {
        for image in [TestBzImage(version: 0x205), TestBzImage(version: 0x20C, loadFlags: 0)] {
            #expect {
                try BootImage(ImageBytes(image.bytes)).load(into: GuestMemory(size: 64 << 20))
            } throws: {
                "\($0)".contains("boot protocol is 2.0") || "\($0)".contains("boot protocol is 2.12")
            }
        }
    }

    /// iPXE's lkrn: a header to be loaded by, real-mode code that calls a BIOS, and no kernel behind it.
    @Test func aProgramWithoutAKernelIsRefused() throws {
        var program = TestBzImage(version: 0x207, extendedFlags: 0)
        program.start32 = 0
        #expect {
            try BootImage(ImageBytes(program.bytes)).load(into: GuestMemory(size: 64 << 20))
        } throws: {
            "\($0)".contains("real mode")
        }
    }

    /// Before 2.10 there was no preferred address, and the last paragraph was not filled up; Memtest86+, of 2.12, does not either.
    @Test(arguments: [0x208, 0x20C] as [UInt16]) func theLastParagraphNeedNotBeFull(version: UInt16) throws {
        var kernel = TestBzImage()
        kernel.version = version
        kernel.alignment = 16 << 20
        let bytes = kernel.bytes
        for short in [0, 1, 15] {
            let memory = try GuestMemory(size: 64 << 20)
            _ = try BootImage(ImageBytes(Array(bytes.dropLast(short)))).load(into: memory)
        }
        #expect(throws: BootError.self) {
            try BootImage(ImageBytes(Array(bytes.dropLast(16)))).load(into: try GuestMemory(size: 64 << 20))
        }
    }

    @Test func everyTruncationIsRefused() throws {
        let elf = vmlinux.bytes
        var image = TestBzImage()
        image.payload = Packed.withSize(Packed.zstd(elf), elf.count)
        let bytes = image.bytes
        let memory = try GuestMemory(size: 64 << 20)
        // The zeros that fill the last paragraph up may be missing.
        let end = 4 * 512 + TestBzImage.payloadOffset + image.payload.count
        for count in stride(from: 0, to: end, by: 7) + [end - 1] {
            #expect(throws: BootError.self, "cut to \(count)") {
                try BootImage(ImageBytes(Array(bytes[..<count]))).load(into: memory)
            }
        }
    }

    @Test func kernelThatNeedsMoreMemorySaysSo() throws {
        let memory = try GuestMemory(size: 16 << 20)
        #expect {
            try BootImage(ImageBytes(TestBzImage().bytes)).load(into: memory)
        } throws: {
            "\($0)".contains("--memory") && "\($0)".contains("16 MiB")
        }
    }
}

@Suite struct BootParameterTests {
    @Test func holdsWhatTheProtocolAsksFor() throws {
        let memory = try GuestMemory(size: 4 << 30)
        var configuration = BootConfiguration()
        configuration.commandLine = "console=ttyS0 quiet"
        configuration.initrds = [ImageBytes([UInt8](repeating: 0xAB, count: 5000))]
        configuration.rsdp = BootLayout.acpi
        _ = try BootImage(ImageBytes(TestBzImage().bytes)).load(into: memory, configuration)
        let page = try zeroPage(memory)
        #expect(page.integer(UInt64.self, at: 0x70) == 0xE_0000)
        #expect(page.integer(UInt8.self, at: 0x1EF) == 0)  // sentinel
        #expect(page.holds("HdrS", at: 0x202))
        #expect(page.integer(UInt16.self, at: 0x206) == 0x20F)
        #expect(page.integer(UInt8.self, at: 0x210) == 0xFF)
        #expect(page.integer(UInt32.self, at: 0x228) == 0x2_0000)
        let text = Array("console=ttyS0 quiet".utf8) + [0]
        #expect(try memory.read(at: GuestAddress(0x2_0000), count: text.count) == text)
        // The initrd ends at the limit of 2 GiB, on whole pages.
        #expect(page.integer(UInt32.self, at: 0x218) == 0x7FFF_E000)
        #expect(page.integer(UInt32.self, at: 0x21C) == 5000)
        #expect(try memory.load(UInt8.self, at: GuestAddress(0x7FFF_E000 + 4999)) == 0xAB)
        // E820: low RAM, EBDA, BIOS, high RAM, RAM above 4 GiB.
        let expected: [(UInt64, UInt64, UInt32)] = [
            (0, 0x9_FC00, 1), (0x9_FC00, 0x400, 2), (0xE_0000, 0x2_0000, 2), (0x10_0000, 0xBFF0_0000, 1),
            (0x1_0000_0000, 0x4000_0000, 1),
        ]
        #expect(page.integer(UInt8.self, at: 0x1E8) == UInt8(expected.count))
        for (index, (base, count, kind)) in expected.enumerated() {
            let offset = UInt64(0x2D0 + index * 20)
            #expect(page.integer(UInt64.self, at: offset) == base)
            #expect(page.integer(UInt64.self, at: offset + 8) == count)
            #expect(page.integer(UInt32.self, at: offset + 16) == kind)
        }
    }

    @Test func setupDataPointerOfAFileIsNotPassedOn() throws {
        var bytes = ImageBuilder(bytes: TestBzImage().bytes)
        bytes.put(UInt64(0xDEAD_BEEF), at: 0x250)
        let memory = try GuestMemory(size: 64 << 20)
        _ = try BootImage(ImageBytes(bytes.bytes)).load(into: memory)
        #expect(try zeroPage(memory).integer(UInt64.self, at: 0x250) == 0)
    }

    @Test func severalInitrdsLieOnPagesOneAfterTheOther() throws {
        let memory = try GuestMemory(size: 64 << 20)
        var configuration = BootConfiguration()
        configuration.initrds = [ImageBytes([UInt8](repeating: 1, count: 4097)), ImageBytes([2, 2])]
        _ = try BootImage(ImageBytes(TestBzImage().bytes)).load(into: memory, configuration)
        let page = try zeroPage(memory)
        let start = try #require(page.integer(UInt32.self, at: 0x218))
        #expect(start == (64 << 20) - 3 * 4096)
        #expect(page.integer(UInt32.self, at: 0x21C) == 8194)
        #expect(try memory.read(at: GuestAddress(UInt64(start) + 4096), count: 2) == [1, 0])
        #expect(try memory.read(at: GuestAddress(UInt64(start) + 8192), count: 3) == [2, 2, 0])
    }

    @Test func initrdGoesAboveFourGibibytesOnlyWhereItMayAndMust() throws {
        let memory = try GuestMemory(size: 5 << 30)
        var configuration = BootConfiguration()
        configuration.initrds = [ImageBytes([UInt8](repeating: 3, count: 2 << 20))]
        // Below the limit of 32 MiB there is the kernel, and 1 MiB free before it.
        var image = TestBzImage(preferredAddress: 0x20_0000, initSize: 0x1E0_0000, initrdLimit: 0x1FF_FFFF)
        _ = try BootImage(ImageBytes(image.bytes)).load(into: memory, configuration)
        let page = try zeroPage(memory)
        let low = UInt64(try #require(page.integer(UInt32.self, at: 0x218)))
        let high = UInt64(try #require(page.integer(UInt32.self, at: 0xC0)))
        #expect(high << 32 | low == (6 << 30) - (2 << 20))
        image.extendedFlags = 1
        let fresh = try GuestMemory(size: 5 << 30)
        #expect(throws: BootError.self) { try BootImage(ImageBytes(image.bytes)).load(into: fresh, configuration) }
    }

    @Test func initrdLargerThanMemoryIsRefused() throws {
        var configuration = BootConfiguration()
        configuration.initrds = [ImageBytes([UInt8](repeating: 3, count: 40 << 20), name: "big.cpio")]
        #expect {
            try BootImage(ImageBytes(TestBzImage().bytes)).load(into: GuestMemory(size: 32 << 20), configuration)
        } throws: {
            "\($0)".contains("big.cpio") && "\($0)".contains("--memory")
        }
    }

    @Test func commandLineIsHeldToTheKernelsLimit() throws {
        var configuration = BootConfiguration()
        configuration.commandLine = String(repeating: "x", count: 2047)
        _ = try BootImage(ImageBytes(TestBzImage().bytes)).load(into: GuestMemory(size: 64 << 20), configuration)
        configuration.commandLine += "x"
        #expect(throws: BootError.commandLineTooLong(count: 2048, limit: 2047)) {
            try BootImage(ImageBytes(TestBzImage().bytes)).load(into: GuestMemory(size: 64 << 20), configuration)
        }
        // A hostile limit does not take the line past its place.
        configuration.commandLine = String(repeating: "x", count: 0x1_0000)
        #expect(throws: BootError.commandLineTooLong(count: 0x1_0000, limit: 0xFFFF)) {
            try BootImage(ImageBytes(TestBzImage(commandLineLimit: .max).bytes))
                .load(into: GuestMemory(size: 64 << 20), configuration)
        }
    }

    @Test(arguments: [0, 10, 13, 27, 127] as [UInt8]) func controlCharactersAreRefused(byte: UInt8) throws {
        var configuration = BootConfiguration()
        configuration.commandLine = "a" + String(UnicodeScalar(byte)) + "b"
        #expect(throws: BootError.commandLineByte(byte)) {
            try BootImage(ImageBytes(TestBzImage().bytes)).load(into: GuestMemory(size: 64 << 20), configuration)
        }
    }

    @Test func tooManyReservedRangesAreRefused() throws {
        var configuration = BootConfiguration()
        configuration.reserved = (0..<200).map {
            E820Entry(base: GuestAddress(0x200_0000 + $0 * 0x2000), count: 0x1000, kind: .reserved)
        }
        #expect(throws: BootError.self) {
            try BootImage(ImageBytes(TestBzImage().bytes)).load(into: GuestMemory(size: 64 << 20), configuration)
        }
    }
}

@Suite struct E820Tests {
    @Test func reservedRangesCutRAM() throws {
        let memory = try GuestMemory(size: 16 << 20)
        let map = try E820Map(
            memory: memory,
            reserved: [
                E820Entry(base: GuestAddress(0x80_0000), count: 0x1000, kind: .acpi),
                E820Entry(base: GuestAddress(0xFEC0_0000), count: 0x1000, kind: .reserved),
            ])
        #expect(
            map.entries.map { [$0.base.rawValue, $0.count, UInt64($0.kind.rawValue)] } == [
                [0, 0x9_FC00, 1], [0x9_FC00, 0x400, 2], [0xE_0000, 0x2_0000, 2], [0x10_0000, 0x70_0000, 1],
                [0x80_0000, 0x1000, 3], [0x80_1000, 0x7F_F000, 1], [0xFEC0_0000, 0x1000, 2],
            ])
        #expect(map.extendedKibibytes == 7 << 10)
    }

    @Test func badRangesAreRefused() throws {
        let memory = try GuestMemory(size: 16 << 20)
        for (base, count) in [(0x80_0000, 0), (UInt64.max - 1, 4), (0xE_1000, 0x1000), (.max, .max)]
            as [(UInt64, UInt64)]
        {
            #expect(throws: BootError.self) {
                try E820Map(memory: memory, reserved: [.init(base: GuestAddress(base), count: count, kind: .reserved)])
            }
        }
    }
}
