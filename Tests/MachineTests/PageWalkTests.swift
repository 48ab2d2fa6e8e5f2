import Testing
import VMCore
@testable import Machine

@Suite struct PageWalkTests {
    private func memory() throws -> GuestMemory { try GuestMemory(size: 4 << 20) }

    @Test func withoutPagingAnAddressIsItself() throws {
        let system = SystemRegisters()
        #expect(try PageWalk.translate(0x1_0000_1234, system, memory()) == GuestAddress(0x1234))
    }

    @Test func fourLevelsWithEveryPageSize() throws {
        let memory = try memory()
        var system = SystemRegisters()
        system.cr0 = 1 << 31 | 1
        system.cr4 = 1 << 5
        system.efer = 1 << 10
        system.cr3 = 0x1000 | 0x18
        let no: UInt64 = 1 << 63
        try memory.store(UInt64(0x2000) | 3 | no, at: GuestAddress(0x1000 + 511 * 8))
        try memory.store(UInt64(0x3000) | 3, at: GuestAddress(0x2000))
        try memory.store(UInt64(0x8000_0000) | 0x83, at: GuestAddress(0x2008))
        try memory.store(UInt64(0x4000) | 3, at: GuestAddress(0x3000))
        try memory.store(UInt64(0x60_0000) | 0x83 | no, at: GuestAddress(0x3008))
        try memory.store(UInt64(0x7000) | 1, at: GuestAddress(0x4000 + 5 * 8))
        let top: UInt64 = 0xFFFF_FF80_0000_0000
        #expect(PageWalk.translate(top + 0x5ABC, system, memory) == GuestAddress(0x7ABC))
        #expect(PageWalk.translate(top + 0x20_1234, system, memory) == GuestAddress(0x60_1234))
        #expect(PageWalk.translate(top + 0x4000_0042, system, memory) == GuestAddress(0x8000_0042))
        #expect(PageWalk.translate(top + 0x6000, system, memory) == nil)
        #expect(PageWalk.translate(0, system, memory) == nil)
    }

    @Test func thirtyTwoBitPages() throws {
        let memory = try memory()
        var system = SystemRegisters()
        system.cr0 = 1 << 31 | 1
        system.cr4 = 1 << 4
        system.cr3 = 0x1000
        try memory.store(UInt32(0x2000 | 1), at: GuestAddress(0x1000 + 4))
        try memory.store(UInt32(0x9000 | 1), at: GuestAddress(0x2000 + 4 * 3))
        try memory.store(UInt32(0x0040_0000 | 2 << 13 | 0x81), at: GuestAddress(0x1000 + 8))
        #expect(PageWalk.translate(0x40_3123, system, memory) == GuestAddress(0x9123))
        #expect(PageWalk.translate(0x80_0001, system, memory) == GuestAddress(0x2_0040_0001))
    }

    @Test func tablesAnywhereNeverTrap() throws {
        let memory = try memory()
        var random = SystemRandomNumberGenerator()
        let page = (0..<512).map { _ in random.next() | 1 }
        for base in stride(from: UInt64(0), to: 4 << 20, by: 4096) {
            for (index, value) in page.enumerated() { try memory.store(value, at: GuestAddress(base + UInt64(index) * 8)) }
        }
        for _ in 0..<20_000 {
            var system = SystemRegisters()
            system.cr0 = random.next()
            system.cr3 = random.next()
            system.cr4 = random.next()
            system.efer = random.next()
            _ = PageWalk.translate(random.next(), system, memory)
        }
    }
}
