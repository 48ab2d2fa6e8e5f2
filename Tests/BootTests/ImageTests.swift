import Glibc
import MonitorTesting
import Testing
import VMCore

@testable import Boot

/// A directory of its own, gone with the test.
final class TemporaryDirectory {
    let path: String
    init() throws {
        var template = Array("/tmp/windhover-boot-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw BootError.unrecognized(image: "mkdtemp") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
    func file(_ name: String, _ bytes: [UInt8]) throws -> String {
        let file = "\(path)/\(name)"
        let descriptor = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        guard descriptor >= 0, write(descriptor, bytes, bytes.count) == bytes.count, close(descriptor) == 0 else {
            throw BootError.unrecognized(image: file)
        }
        return file
    }
    var contents: [String] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }
    deinit {
        for name in contents { unlink("\(path)/\(name)") }
        rmdir(path)
    }
}

@Suite struct ImageBytesTests {
    @Test func badFilesAreToldApart() throws {
        let directory = try TemporaryDirectory()
        let missing = "\(directory.path)/missing"
        #expect(throws: BootError.noSuchFile(path: missing)) { try ImageBytes(file: missing) }
        #expect(throws: BootError.notRegularFile(path: directory.path, kind: "a directory")) {
            try ImageBytes(file: directory.path)
        }
        let empty = try directory.file("empty", [])
        #expect(throws: BootError.emptyFile(path: empty)) { try ImageBytes(file: empty) }
        #expect(throws: BootError.noSuchFile(path: "\(empty)/x")) { try ImageBytes(file: "\(empty)/x") }
        #expect(throws: BootError.notRegularFile(path: "/dev/null", kind: "a device")) {
            try ImageBytes(file: "/dev/null")
        }
        let pipe = "\(directory.path)/pipe"
        #expect(mkfifo(pipe, 0o600) == 0)
        #expect(throws: BootError.notRegularFile(path: pipe, kind: "a pipe")) { try ImageBytes(file: pipe) }
    }

    @Test func offsetsAreChecked() throws {
        let bytes = ImageBytes([1, 2, 3, 4, 5])
        #expect(bytes.integer(UInt32.self, at: 1) == 0x0504_0302)
        for offset in [2, 5, 6, .max - 3, .max] as [UInt64] { #expect(bytes.integer(UInt32.self, at: offset) == nil) }
        #expect(bytes.slice(at: 5, count: 0)?.count == 0)
        #expect(bytes.slice(at: 6, count: 0) == nil)
        #expect(bytes.slice(at: 1, count: .max) == nil)
        let inner = try #require(bytes.slice(at: 1, count: 3))
        #expect(inner.array == [2, 3, 4])
        #expect(inner.integer(UInt8.self, at: 3) == nil)
        #expect(!inner.holds("\u{04}\u{05}", at: 2))
    }

    @Test func fileIsMappedOverGuestMemory() throws {
        let directory = try TemporaryDirectory()
        let bytes = (0..<10_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        let path = try directory.file("initrd", bytes)
        let memory = try GuestMemory(size: 16 << 20)
        try ImageBytes(file: path).place(in: memory, at: GuestAddress(0x20_0000))
        #expect(try difference(of: memory.read(at: GuestAddress(0x20_0000), count: 10_001), from: bytes + [0]) == nil)
        // The guest's writes stay its own.
        try memory.store(UInt8(0xFF), at: GuestAddress(0x20_0001))
        #expect(try ImageBytes(file: path).integer(UInt8.self, at: 1) == 7)
    }
}

@Suite struct ImageKindTests {
    private func failure(_ change: (inout ImageBuilder) -> Void) -> String {
        var image = ImageBuilder(bytes: [UInt8](repeating: 0, count: 0x9000))
        change(&image)
        do throws(BootError) {
            let boot = try BootImage(ImageBytes(image.bytes))
            let memory = try placing { () throws(GuestMemoryError) in try GuestMemory(size: 64 << 20) }
            _ = try boot.load(into: memory)
            return "started as \(boot.kind)"
        } catch {
            return "\(error)"
        }
    }

    @Test func foreignImagesAreNamed() {
        #expect(failure { $0.put(Array("ARM\u{64}".utf8), at: 0x38) }.contains("64-bit ARM"))
        #expect(failure { $0.put(Array("RSC\u{05}".utf8), at: 0x38) }.contains("RISC-V"))
        #expect(failure { $0.put(UInt32(0x016F_2818), at: 0x24) }.contains("32-bit ARM"))
        #expect(failure { $0.put([0x27, 0x05, 0x19, 0x56], at: 0) }.contains("U-Boot"))
        #expect(failure { $0.put(Array("070701".utf8), at: 0) }.contains("--initrd"))
        #expect(failure { $0.put(Array("CD001".utf8), at: 0x8001) }.contains("CD image"))
        #expect(failure { $0.put([0x51, 0x46, 0x49, 0xFB], at: 0) }.contains("qcow2"))
        #expect(failure { $0.put(Array("EFI PART".utf8), at: 512) }.contains("disk image"))
        func efi(_ machine: UInt16) -> String {
            failure {
                $0.put(Array("MZ".utf8), at: 0)
                $0.put(UInt32(0x80), at: 0x3C)
                $0.put(Array("PE\0\0".utf8), at: 0x80)
                $0.put(machine, at: 0x84)
            }
        }
        #expect(efi(0xAA64).contains("64-bit ARM"))
        #expect(efi(0x8664).contains("an EFI program"))
        // Xen's holds the Multiboot header of the ELF file that it was made from, which gives no addresses.
        let xen = failure {
            $0.put(Array("MZ".utf8), at: 0)
            $0.put(UInt32(0x80), at: 0x3C)
            $0.put(Array("PE\0\0".utf8), at: 0x80)
            $0.put(UInt16(0x8664), at: 0x84)
            $0.put(UInt32(0x1BAD_B002), at: 0x1000)
            $0.put(UInt32(3), at: 0x1004)
            $0.put(0 &- 0x1BAD_B002 &- 3 as UInt32, at: 0x1008)
        }
        #expect(xen.contains("an EFI program"))
        #expect(failure { _ in }.contains("not a kernel"))
        #expect(failure { $0.put(Array("#!/bin/sh\n".utf8), at: 0) }.contains("not a kernel"))
    }

    @Test func randomFilesAreRefused() {
        var generator = SeededGenerator(seed: 42)
        for size in [1, 100, 4096, 70_000, 1 << 20] {
            var bytes = (0..<size).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
            // What one file in a hundred would begin with is a flat image's business.
            if [0xFA, 0xEB, 0xE9].contains(bytes[0]) { bytes[0] = 0x55 }
            #expect(throws: BootError.unrecognized(image: "image"), "\(size) bytes") {
                try BootImage(ImageBytes(bytes))
            }
        }
    }
}

@Suite struct FlatTests {
    @Test func bootSectorStartsAsABIOSWouldStartIt() throws {
        var image = ImageBuilder(bytes: [0xF4] + [UInt8](repeating: 0, count: 2047))
        image.put(UInt16(0xAA55), at: 510)
        image.put(UInt8(0x77), at: 1024)
        let memory = try GuestMemory(size: 1 << 20)
        let boot = try BootImage(ImageBytes(image.bytes))
        #expect(boot.kind == .bootSector)
        let entry = try boot.load(into: memory)
        #expect(entry.mode == .real16(cs: 0, ip: 0x7C00, sp: 0x7C00, dx: 0x80))
        #expect(try memory.load(UInt8.self, at: GuestAddress(0x7C00)) == 0xF4)
        #expect(try memory.load(UInt8.self, at: GuestAddress(0x8000)) == 0x77)
        // A BIOS call comes back.
        let vector = try memory.load(UInt32.self, at: GuestAddress(0x10 * 4))
        #expect(try memory.load(UInt8.self, at: GuestAddress(UInt64((vector >> 16) * 16 + vector & 0xFFFF))) == 0xCF)
        let state = entry.initialState()
        #expect(state.system.cs.base == 0 && state.general.rip == 0x7C00 && state.general.rdx == 0x80)
        #expect(state.system.cr0 & 1 == 0 && state.system.ss.limit == 0xFFFF)
    }

    @Test func headerlessImageStartsInItsSegment() throws {
        for bytes: [UInt8] in [[0xFA, 0xF4], [0xEB, 0x01, 0, 0xF4], [0xE9, 1, 0, 0, 0xF4]] {
            let memory = try GuestMemory(size: 1 << 20)
            let boot = try BootImage(ImageBytes(bytes))
            #expect(boot.kind == .flat)
            let entry = try boot.load(into: memory)
            #expect(entry.mode == .real16(cs: 0x1000, ip: 0, sp: 0x8000, dx: 0))
            #expect(entry.initialState().system.cs.base == 0x1_0000)
            #expect(try memory.read(at: GuestAddress(0x1_0000), count: bytes.count) == bytes)
        }
        for bytes: [UInt8] in [[0xEB, 2, 0, 0], [0xEB, 0x80, 0, 0], [0xE9, 0, 0], [0xFA], [0xE9, 0xFF, 0xFF, 0]] {
            #expect(throws: BootError.self) { try BootImage(ImageBytes(bytes)) }
        }
    }

    @Test func diskImagesAndOptionsAreRefused() throws {
        var image = ImageBuilder(bytes: [UInt8](repeating: 0x90, count: 1 << 20))
        image.put(UInt16(0xAA55), at: 510)
        #expect { try BootImage(ImageBytes(image.bytes)).load(into: GuestMemory(size: 2 << 20)) } throws: {
            "\($0)".contains("disk image")
        }
        var configuration = BootConfiguration()
        configuration.commandLine = "x"
        #expect(throws: BootError.self) {
            try BootImage(ImageBytes([0xFA, 0xF4])).load(into: GuestMemory(size: 1 << 20), configuration)
        }
    }
}

@Suite struct EntryPointTests {
    /// Translates through the page tables in guest memory, as a processor would.
    private func translate(_ address: UInt64, _ memory: GuestMemory, root: UInt64) throws -> UInt64? {
        var table = root
        for shift: UInt64 in [39, 30, 21] {
            let entry = try memory.load(UInt64.self, at: GuestAddress(table + (address >> shift & 511) * 8))
            guard entry & 3 == 3 else { return nil }
            if entry & 0x80 != 0 { return entry & ~((1 << shift) - 1) | address & ((1 << shift) - 1) }
            table = entry & ~0xFFF
        }
        return nil
    }

    @Test func longModeMapsFourGibibytesOneToOne() throws {
        let memory = try GuestMemory(size: 64 << 20)
        let entry = try BootImage(ImageBytes(TestELF().bytes)).load(into: memory)
        let state = entry.initialState()
        for address: UInt64 in [0, 0x7000, 0x100_0000, 0x3FFF_FFFF, 0x4000_0000, 0xFEE0_0010, 0xFFFF_FFFF] {
            #expect(try translate(address, memory, root: state.system.cr3) == address)
        }
        #expect(try translate(0x1_0000_0000, memory, root: state.system.cr3) == nil)
        #expect(state.system.efer == 0x500 && state.system.cr4 == 0x20 && state.system.cr0 == 0x8000_0011)
        #expect(state.system.apicBase == 0xFEE0_0900)
        #expect(state.general.rflags == 2)
    }

    /// The hidden parts of the segments must be what the GDT says: a kernel may reload them.
    @Test(arguments: [true, false]) func segmentsAgreeWithTheGDT(long: Bool) throws {
        let memory = try GuestMemory(size: 64 << 20)
        let elf = TestELF(notes: long ? [] : [TestELF.pvhNote(0x100_0000)])
        let state = try BootImage(ImageBytes(elf.bytes)).load(into: memory).initialState()
        #expect(state.system.gdtr.limit == 47)
        for segment in [state.system.cs, state.system.ds, state.system.ss, state.system.tr] {
            let entry = try memory.load(
                UInt64.self, at: GuestAddress(state.system.gdtr.base + UInt64(segment.selector)))
            var limit = UInt32(truncatingIfNeeded: entry & 0xFFFF | entry >> 32 & 0xF_0000)
            let granular = entry >> 55 & 1 == 1
            if granular { limit = limit << 12 | 0xFFF }
            #expect(limit == segment.limit)
            #expect(UInt64(segment.base) == (entry >> 16 & 0xFF_FFFF) | ((entry >> 56) << 24))
            #expect(segment.type == UInt8(entry >> 40 & 0xF))
            #expect(segment.codeOrData == (entry >> 44 & 1 == 1))
            #expect(segment.dpl == 0 && entry >> 45 & 3 == 0)
            #expect(segment.present && entry >> 47 & 1 == 1)
            #expect(segment.long == (entry >> 53 & 1 == 1))
            #expect(segment.big == (entry >> 54 & 1 == 1))
            #expect(segment.granular == granular)
        }
        #expect(state.system.cs.long == long)
    }
}
