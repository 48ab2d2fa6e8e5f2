import Testing
import VMCore

@testable import Boot

@Suite struct ELFTests {
    private func load(
        _ elf: TestELF, size: UInt64 = 64 << 20, entry: BootConfiguration.Entry = .automatic
    ) throws -> (GuestMemory, EntryPoint) {
        let memory = try GuestMemory(size: size)
        var configuration = BootConfiguration()
        configuration.entry = entry
        return (memory, try BootImage(ImageBytes(elf.bytes)).load(into: memory, configuration))
    }

    @Test func linuxStartsAtIts64BitEntry() throws {
        let elf = TestELF(notes: [TestELF.linuxNote, TestELF.pvhNote(0x100_0001)])
        let (memory, entry) = try load(elf)
        #expect(entry.mode == .long64(rip: 0x100_0000, rsi: 0x7000))
        #expect(try memory.read(at: GuestAddress(0x100_0000), count: 3) == [0x90, 0xF4, 0])
    }

    @Test func pvhNoteIsTakenWhereAskedForOrNothingElseFits() throws {
        var elf = TestELF(notes: [TestELF.linuxNote, TestELF.pvhNote(0x100_0001)])
        let pvh = EntryPoint.Mode.protected32(eip: 0x100_0001, eax: 0, ebx: 0x7000, esi: 0)
        #expect(try load(elf, entry: .pvh).1.mode == pvh)
        elf.notes = [TestELF.pvhNote(0x100_0001)]
        #expect(try load(elf).1.mode == pvh)
        elf.is64Bit = false
        elf.machine = 3
        #expect(try load(elf).1.mode == pvh)
        elf.notes = []
        #expect(throws: BootError.self) { try load(elf) }
        #expect(throws: BootError.self) { try load(TestELF(), entry: .pvh) }
    }

    /// FreeBSD's kernels name a dynamic linker that there is not; so do all programs, which are no kernels.
    @Test func kernelsMayNameALinker() throws {
        var elf = TestELF(notes: [TestELF.pvhNote(0x100_0001)])
        elf.segments.append(.init(type: 3, physical: 0, contents: Array("/red/herring\0".utf8)))
        #expect(try load(elf).1.mode == .protected32(eip: 0x100_0001, eax: 0, ebx: 0x7000, esi: 0))
        elf.notes = []
        #expect(throws: BootError.self) { try load(elf) }
    }

    @Test func linuxIsToldFromOthers() throws {
        let directory = try TemporaryDirectory()
        for (elf, isLinux) in [
            (TestELF(notes: [TestELF.linuxNote]), true), (TestELF(notes: [("Xen", 6, Array("linux\0".utf8))]), true),
            (TestELF(notes: [TestELF.pvhNote(0x100_0001)]), false), (TestELF(), false),
        ] {
            #expect(try BootImage(ImageBytes(elf.bytes)).isLinux == isLinux)
            let path = "\(directory.path)/prepared"
            try PreparedKernel.write(ImageBytes(elf.bytes), to: path)
            #expect(try BootImage(ImageBytes(file: path)).isLinux == isLinux)
        }
    }

    @Test func linkedEntryIsTranslated() throws {
        let elf = TestELF(
            entry: 0xFFFF_FFFF_8020_0001,
            segments: [.init(virtual: 0xFFFF_FFFF_8020_0000, physical: 0x20_0000, contents: [1, 2, 3])])
        #expect(try load(elf).1.mode == .long64(rip: 0x20_0001, rsi: 0x7000))
    }

    @Test func entryOutsideItsSegmentsIsRefused() {
        #expect(throws: BootError.self) { try load(TestELF(entry: 0x100_0002)) }
        #expect(throws: BootError.self) { try load(TestELF(entry: .max)) }
        #expect(throws: BootError.self) { try load(TestELF(notes: [TestELF.pvhNote(0x20)])) }
        #expect(throws: BootError.self) { try load(TestELF(notes: [("Xen", 18, [1])])) }
    }

    @Test(arguments: [(183, "64-bit ARM"), (243, "RISC-V"), (22, "IBM S/390"), (4242, "4242")] as [(UInt16, String)])
    func otherArchitecturesAreNamed(machine: UInt16, name: String) {
        #expect { try load(TestELF(machine: machine)) } throws: { "\($0)".contains(name) }
    }

    @Test func segmentsMustLieInFreeRAM() {
        func segments(_ physical: UInt64, _ memory: UInt64) -> TestELF {
            TestELF(
                segments: [
                    .init(physical: 0x100_0000, contents: [0x90]),
                    .init(physical: physical, contents: [1], memoryCount: memory),
                ])
        }
        for (physical, memory) in [
            (0x100_0000, 1),  // on the first one
            (0xFF_FFFF, 2),
            (0x7000, 1),  // on the boot parameters
            (0x9_F000, 0x1000),  // on the EBDA
            (0xA_0000, 1), (0xF_0000, 1),
            (64 << 20, 1), (0x100_0001, 64 << 20),  // past the RAM
            (0xC000_0000, 1), (0xFEE0_0000, 1),  // on devices
            (UInt64.max, 1), (UInt64.max, 2), (0x20_0000, .max), (0x20_0000, .max - 0x20_0000),
        ] as [(UInt64, UInt64)] {
            #expect(throws: BootError.self, "\(physical) \(memory)") { try load(segments(physical, memory)) }
        }
    }

    @Test func deviceHoleIsNamed() {
        let elf = TestELF(entry: 0xC000_0000, segments: [.init(physical: 0xC000_0000, contents: [1])])
        #expect { try load(elf, size: 4 << 30) } throws: { "\($0)".contains("kept for devices") }
    }

    @Test func segmentSmallerThanItsContentsIsRefused() {
        let elf = TestELF(segments: [.init(physical: 0x100_0000, contents: [1, 2, 3], memoryCount: 2)])
        #expect(throws: BootError.self) { try load(elf) }
    }

    @Test func everyTruncationIsRefused() throws {
        let bytes = TestELF(notes: [TestELF.pvhNote(0x100_0000)]).bytes
        let memory = try GuestMemory(size: 64 << 20)
        // The last bytes are padding of the note.
        for count in 0..<bytes.count - 4 {
            #expect(throws: BootError.self, "cut to \(count)") {
                try BootImage(ImageBytes(Array(bytes[..<count]))).load(into: memory)
            }
        }
    }

    @Test func objectFilesAreRefused() {
        var bytes = ImageBuilder(bytes: TestELF().bytes)
        bytes.put(UInt16(1), at: 16)
        #expect { try BootImage(ImageBytes(bytes.bytes)) } throws: { "\($0)".contains("object file") }
    }

    @Test func compressedVmlinuxIsUnpacked() throws {
        for packing in Packed.all {
            let memory = try GuestMemory(size: 64 << 20)
            let image = try BootImage(ImageBytes(packing.pack(TestELF().bytes)))
            #expect(try image.load(into: memory).mode == .long64(rip: 0x100_0000, rsi: 0x7000), "\(packing.name)")
        }
        // Twice is nobody's kernel, and a bomb stops at the guest's memory.
        for bytes in [Packed.gzip(Packed.zstd(TestELF().bytes)), Packed.zstd([UInt8](repeating: 0, count: 32 << 20))] {
            #expect(throws: BootError.self) { try BootImage(ImageBytes(bytes)).load(into: GuestMemory(size: 16 << 20)) }
        }
    }
}

@Suite struct PVHTests {
    @Test func startInformationIsComplete() throws {
        let memory = try GuestMemory(size: 64 << 20)
        var configuration = BootConfiguration()
        configuration.commandLine = "hello"
        configuration.initrds = [ImageBytes([5, 6, 7])]
        configuration.rsdp = BootLayout.acpi
        let image = TestELF(notes: [TestELF.pvhNote(0x100_0001)])
        let entry = try BootImage(ImageBytes(image.bytes)).load(into: memory, configuration)
        #expect(entry.method == "PVH")
        let start = ImageBytes(try memory.read(at: BootLayout.parameters, count: 56))
        #expect(start.integer(UInt32.self, at: 0) == 0x336E_C578)
        #expect(start.integer(UInt32.self, at: 4) == 1)
        #expect(start.integer(UInt32.self, at: 12) == 1)
        let modules = try #require(start.integer(UInt64.self, at: 16))
        let module = try memory.load(UInt64.self, at: GuestAddress(modules))
        #expect(try memory.read(at: GuestAddress(module), count: 3) == [5, 6, 7])
        #expect(try memory.load(UInt64.self, at: GuestAddress(modules + 8)) == 3)
        let line = try #require(start.integer(UInt64.self, at: 24))
        #expect(try memory.read(at: GuestAddress(line), count: 6) == Array("hello".utf8) + [0])
        #expect(start.integer(UInt64.self, at: 32) == BootLayout.acpi.rawValue)
        let map = try #require(start.integer(UInt64.self, at: 40))
        #expect(start.integer(UInt32.self, at: 48) == 4)
        #expect(try memory.load(UInt64.self, at: GuestAddress(map + 8)) == 0x9_FC00)
        #expect(try memory.load(UInt32.self, at: GuestAddress(map + 24 + 16)) == 2)
    }
}
