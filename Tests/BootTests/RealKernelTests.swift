import Glibc
import Testing
import VMCore

@testable import Boot

/// The path of a real bzImage, where there is one: these tests are skipped without.
private let kernelPath = getenv("WINDHOVER_TEST_KERNEL").map { String(cString: $0) }

@Suite(.enabled(if: kernelPath != nil)) struct RealKernelTests {
    @Test func isUnpackedOnTheHost() throws {
        let path = try #require(kernelPath)
        let memory = try GuestMemory(size: 256 << 20)
        let image = try BootImage(try ImageBytes(file: path))
        #expect(image.kind == .bzImage)
        var configuration = BootConfiguration()
        configuration.commandLine = "console=ttyS0"
        let entry = try image.load(into: memory, configuration)
        guard case .long64(let rip, let rsi) = entry.mode else {
            Issue.record("not started in 64-bit mode")
            return
        }
        #expect(rip >= 0x100_0000)
        #expect(rsi == BootLayout.parameters.rawValue)
        #expect(try memory.load(UInt8.self, at: GuestAddress(rip)) != 0)
    }

    @Test func isPlacedPacked() throws {
        let memory = try GuestMemory(size: 256 << 20)
        var configuration = BootConfiguration()
        configuration.unpacking = .guest
        let image = try BootImage(try ImageBytes(file: try #require(kernelPath)))
        let entry = try image.load(into: memory, configuration)
        #expect(entry.mode == .long64(rip: 0x100_0200, rsi: BootLayout.parameters.rawValue))
    }
}

extension RealKernelTests {
    @Test func isTheSameWhenPrepared() throws {
        let directory = try TemporaryDirectory()
        let path = "\(directory.path)/prepared"
        let kernel = try ImageBytes(file: try #require(kernelPath))
        try PreparedKernel.write(kernel, to: path)
        let prepared = try GuestMemory(size: 256 << 20)
        let entry = try BootImage(ImageBytes(file: path)).load(into: prepared)
        let direct = try GuestMemory(size: 256 << 20)
        #expect(try BootImage(kernel).load(into: direct) == entry)
        #expect(memcmp(direct.regions[0].host, prepared.regions[0].host, 256 << 20) == 0)
    }

    @Test func hasAPVHEntry() throws {
        let memory = try GuestMemory(size: 256 << 20)
        var configuration = BootConfiguration()
        configuration.entry = .pvh
        let entry = try BootImage(ImageBytes(file: try #require(kernelPath))).load(into: memory, configuration)
        #expect(entry.method == "PVH")
    }
}
