import Testing
@testable import KVM

@Suite struct GuestCPUIDTests {
    private let intel: [CPUIDEntry] = [
        CPUIDEntry(leaf: 0, eax: 0x1F, ebx: 0x756E_6547, ecx: 0x6C65_746E, edx: 0x4965_6E69),
        CPUIDEntry(leaf: 1, eax: 0x506F1, ebx: 0x0720_0800, ecx: 0, edx: 1),
        CPUIDEntry(leaf: 4, subleaf: 0, hasSubleaves: true, eax: 0x1C00_4121),
        CPUIDEntry(leaf: 4, subleaf: 3, hasSubleaves: true, eax: 0x1C03_C163),
        CPUIDEntry(leaf: 4, subleaf: 4, hasSubleaves: true),
        CPUIDEntry(leaf: 0xB, subleaf: 0, hasSubleaves: true, edx: 5),
        CPUIDEntry(leaf: 0x4000_0000, eax: 0x4000_0001, ebx: 0x4B4D_564B, ecx: 0x564B_4D56, edx: 0x4D),
    ]

    private func leaf(_ entries: [CPUIDEntry], _ leaf: UInt32, _ subleaf: UInt32 = 0) -> CPUIDEntry? {
        entries.first { $0.leaf == leaf && (!$0.hasSubleaves || $0.subleaf == subleaf) }
    }

    @Test(arguments: [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4), (64, 6), (256, 8)])
    func topologyTellsCoresApart(count: Int, bits: Int) {
        let cpuid = GuestCPUID(count: count, tscKilohertz: 2_600_000, hasTSCDeadline: true)
        for index in [0, count - 1] {
            let entries = cpuid.entries(supported: intel, index: index)
            for number: UInt32 in [0xB, 0x1F] {
                #expect(leaf(entries, number, 0)?.ebx == 1)
                let cores = leaf(entries, number, 1)
                #expect(cores?.eax == UInt32(bits))
                #expect(cores?.ebx == UInt32(count))
                #expect(cores?.edx == UInt32(index))
                #expect(leaf(entries, number, 2)?.ecx == 2)
            }
            let one = leaf(entries, 1)!
            #expect(one.ebx >> 24 == UInt32(index & 0xFF))
            #expect(one.ebx >> 16 & 0xFF == UInt32(min(count, 255)))
            #expect(one.ecx >> 31 == 1)
            #expect(one.ecx >> 24 & 1 == 1)
            #expect(one.edx >> 28 & 1 == (count > 1 ? 1 : 0))
        }
    }

    @Test func cachesAreSharedAsFarAsTheirLevel() {
        let entries = GuestCPUID(count: 4, tscKilohertz: nil, hasTSCDeadline: false).entries(supported: intel, index: 0)
        #expect(leaf(entries, 4, 0)!.eax >> 14 & 0xFFF == 0)
        #expect(leaf(entries, 4, 3)!.eax >> 14 & 0xFFF == 3)
        #expect(leaf(entries, 4, 0)!.eax >> 26 == 3)
        #expect(leaf(entries, 4, 4)!.eax == 0)
    }

    @Test func frequencyLeavesAgree() {
        let entries = GuestCPUID(count: 1, tscKilohertz: 2_595_124, hasTSCDeadline: true).entries(supported: intel, index: 0)
        let timing = leaf(entries, 0x15)!
        let rate = UInt64(timing.ecx) * UInt64(timing.ebx) / UInt64(timing.eax)
        #expect(abs(Int(rate) - 2_595_124_000) < 2_595)
        #expect(!UInt32(1_000_000).multipliedReportingOverflow(by: timing.ebx).overflow, "Linux multiplies in 32 bits")
        #expect(leaf(entries, 0x4000_0010)!.eax == 2_595_124)
        #expect(leaf(entries, 0x4000_0000)!.eax == 0x4000_0010)
    }

    @Test func amdCoreCountAndIdentity() {
        let amd: [CPUIDEntry] = [
            CPUIDEntry(leaf: 0, eax: 0xD, ebx: 0x6874_7541, ecx: 0x444D_4163, edx: 0x6974_6E65),
            CPUIDEntry(leaf: 1, ebx: 0x0404_0800),
            CPUIDEntry(leaf: 0x8000_0001, ecx: 0),
            CPUIDEntry(leaf: 0x8000_0008, eax: 0x3030, ecx: 0x2007),
            CPUIDEntry(leaf: 0x8000_001D, subleaf: 3, hasSubleaves: true, eax: 0x1C163),
            CPUIDEntry(leaf: 0x8000_001E, eax: 9, ebx: 0x104, ecx: 0x301),
        ]
        let entries = GuestCPUID(count: 6, tscKilohertz: 3_000_000, hasTSCDeadline: true).entries(supported: amd, index: 5)
        #expect(leaf(entries, 0x8000_0001)!.ecx & 2 == 2)
        #expect(leaf(entries, 0x8000_0008)!.ecx & 0xF0FF == 0x3005)
        #expect(leaf(entries, 0x8000_001D, 3)!.eax >> 14 & 0xFFF == 5)
        #expect(leaf(entries, 0x8000_001E)! == CPUIDEntry(leaf: 0x8000_001E, eax: 5, ebx: 5, ecx: 0))
        #expect(leaf(entries, 0x15) == nil)
    }

    @Test func zeroOrNegativeCountsDoNotTrap() {
        for count in [0, -1, Int.min, Int.max] {
            _ = GuestCPUID(count: count, tscKilohertz: .max, hasTSCDeadline: true).entries(supported: intel, index: count)
        }
    }
}
