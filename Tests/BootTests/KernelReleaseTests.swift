import Testing
import VMCore

@testable import Boot

/// What a kernel's file says of its release.
@Suite struct KernelReleaseTests {
    private func release(_ bytes: [UInt8]) throws -> String? { try BootImage(ImageBytes(bytes, name: "kernel")).release() }

    /// A bzImage whose header leads to a text.
    private func bzImage(_ text: String, pointer: UInt16 = 0x300) -> [UInt8] {
        var image = ImageBuilder(bytes: TestBzImage().bytes)
        image.put(pointer, at: 0x20E)
        if pointer > 0 { image.put(Array(text.utf8) + [0], at: Int(pointer) + 0x200) }
        return image.bytes
    }

    private func vmlinux(_ text: String) -> [UInt8] {
        let contents = [UInt8](repeating: 0x4C, count: 5000) + Array(text.utf8) + [UInt8](repeating: 0, count: 100)
        return TestELF(segments: [.init(physical: 0x100_0000, contents: contents)], notes: [TestELF.linuxNote]).bytes
    }

    @Test func aBzImagesHeaderLeadsToIt() throws {
        #expect(try release(bzImage("6.1.0-40-cloud-amd64 (a@b) #1 SMP Debian")) == "6.1.0-40-cloud-amd64")
        #expect(try release(bzImage("6.8.0")) == "6.8.0")
        #expect(try release(bzImage("", pointer: 0)) == nil)
    }

    @Test func aVmlinuxHasItInItsGreeting() throws {
        #expect(try release(vmlinux("Linux version 6.12.3_1+ (me@here) (gcc) #2")) == "6.12.3_1+")
        // Another text that begins in the same way comes first.
        #expect(try release(vmlinux("LLinux version %s (%s)\0Linux version 5.10.0-rc1~x (a)")) == "5.10.0-rc1~x")
        #expect(try release(vmlinux("Linux versio")) == nil)
        #expect(try release(Packed.gzip(vmlinux("Linux version 6.6.1 (a)"))) == "6.6.1")
    }

    /// It becomes a directory's name.
    @Test(arguments: ["../../etc", "6/../..", "6.1\n", "", " 6.1", "x6.1", "6.1\u{E9}", String(repeating: "6", count: 65)])
    func whatIsNoReleaseIsNone(text: String) throws {
        #expect(try release(bzImage(text)) == nil)
        #expect(try release(vmlinux("Linux version \(text)")) == nil)
    }

    @Test func pointersThatLeadElsewhere() throws {
        var image = ImageBuilder(bytes: TestBzImage().bytes)
        for pointer in [1, 0x1FF, 0x7FFF, 0xFFFF] as [UInt16] {
            image.put(pointer, at: 0x20E)
            _ = try release(image.bytes)
        }
        // The file ends where the text begins, or in it.
        let whole = bzImage("6.1.0", pointer: UInt16(image.bytes.count - 0x200))
        for end in image.bytes.count..<whole.count { #expect(try release(Array(whole[..<end])) == nil, "\(end)") }
        #expect(try release(whole) == "6.1.0")
        let elf = vmlinux("Linux version 6.1.0")
        let start = 5000 + 0x1000
        for end in start..<start + 24 { _ = try? release(Array(elf[..<end])) }
    }

    @Test func anotherSystemHasNone() throws {
        #expect(try release(TestELF(notes: [TestELF.pvhNote(0x100_0000)]).bytes) == nil)
    }
}
