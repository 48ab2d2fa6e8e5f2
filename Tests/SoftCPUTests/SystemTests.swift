import Testing
import VMCore

@testable import SoftCPU

/// Single facts of the manuals that no guest of guests/ happens to rest on.
@Suite struct SystemTests {
    /// Code runs to its segment's limit and not on, in a block that was made under a wider limit too.
    @Test func codeEndsAtItsLimit() throws {
        let machine = try BareMachine()
        try machine.memory.write([UInt8](repeating: 0x90, count: 0x210) + [0xF4], at: GuestAddress(BareMachine.code))
        machine.general.rip = BareMachine.code + 0x1F0
        machine.system.cs.long = false
        machine.system.cs.big = true
        #expect(try machine.run().vector == -1)
        machine.system.cs.limit = UInt32(BareMachine.code) + 0x1FF
        machine.system.cs.granular = false
        let outcome = try machine.run()
        #expect(outcome.vector == 13)
        #expect(outcome.top == 0)
        // The instruction that straddles it is not executed either: mov $0, %eax from 0x1FD on.
        try machine.memory.write([0xB8, 0, 0, 0, 0], at: GuestAddress(BareMachine.code + 0x1FD))
        machine.general.rax = 0x1234
        #expect(try machine.run().vector == 13)
        #expect(machine.cpu.generalRegisters.rax == 0x1234)
    }

    /// LAR of a trap gate: ZF is clear. Source: [SDM2 LAR, table 3-53].
    @Test(arguments: [(2, true), (5, false), (9, true), (0xB, true), (0xC, true), (0xE, false), (0xF, false)] as [(UInt64, Bool)])
    func systemDescriptorsThatHaveAccessRights(type: UInt64, has: Bool) throws {
        let machine = try BareMachine()
        try machine.write((0x8000 | type << 8) << 32, at: 0x8018)
        machine.system.gdtr.limit = 0x27
        machine.general.rax = 0x18
        // lar %eax, %ebx; hlt
        #expect(try machine.run([0x0F, 0x02, 0xD8, 0xF4]).vector == -1)
        #expect((machine.cpu.generalRegisters.rflags & 0x40 != 0) == has)
    }

    @Test(arguments: [
        (0x2FF, 0xC06, true), (0x2FF, .max, false), (0x2FF, 2, false), (0x250, 0x0606_0606_0606_0606, true), (0x250, 0x3, false),
        (0x200, 0x8000_0006, true), (0x200, 0x8000_0106, false), (0x201, 0xFF_8000_0800, true), (0x201, 1 << 40, false), (0x48, 1, true),
        (0x48, 8, false), (0x140, 0, true), (0x140, 1, false),
    ] as [(UInt64, UInt64, Bool)])
    func registersWithReservedBits(index: UInt64, value: UInt64, isLegal: Bool) throws {
        let machine = try BareMachine()
        machine.general.rcx = index
        machine.general.rax = value & 0xFFFF_FFFF
        machine.general.rdx = value >> 32
        // wrmsr; hlt
        #expect(try machine.run([0x0F, 0x30, 0xF4]).vector == (isLegal ? -1 : 13))
    }

    /// CPUID says that the time-stamp counter can be adjusted, as it can: Linux trusts such a counter.
    @Test func theAdjustmentOfTheTimeStampIsAnnounced() throws {
        let machine = try BareMachine()
        (machine.general.rax, machine.general.rcx) = (7, 0)
        // cpuid; mov %ebx, %esi; mov $0x3b, %ecx; rdmsr; hlt
        #expect(try machine.run([0x0F, 0xA2, 0x89, 0xDE, 0xB9, 0x3B, 0, 0, 0, 0x0F, 0x32, 0xF4]).vector == -1)
        #expect(machine.cpu.generalRegisters.rsi & 2 != 0)
    }

    /// A state that is put back has the time-stamp counter that it was taken with.
    @Test func theTimeStampComesBack() throws {
        let machine = try BareMachine()
        var state = try machine.cpu.state()
        let index = try #require(state.msrs.firstIndex { $0.index == 0x10 })
        let adjust = try #require(state.msrs.firstIndex { $0.index == 0x3B })
        state.msrs[index].value = 0x1234_5678_9ABC_DEF0
        state.msrs[adjust].value = 0x1_0000_0000
        try machine.cpu.setState(state)
        let now = try machine.cpu.state()
        #expect(now.msrs[index].value &- state.msrs[index].value < 1 << 36)
        #expect(now.msrs[adjust].value == 0x1_0000_0000)
    }

    /// A gate that leads nowhere is #GP while it is passed, and so #DF for a fault. Source: [SDM2 INT n].
    @Test func aGateToNoAddress() throws {
        let machine = try BareMachine()
        try machine.write(0x0000_8000, at: 0x6000 + 6 * 16 + 8)
        // ud2: a benign fault, so the #GP comes by itself, with EXT.
        let outcome = try machine.run([0x0F, 0x0B])
        #expect(outcome.vector == 13)
        #expect(outcome.top == 1)
    }

    /// A frame is pushed from the top: what there is room for is written, and CR2 is where there is none.
    /// Source: [SDM2 INT n], which pushes SS first.
    @Test func aFrameIsPushedFromTheTop() throws {
        let machine = try BareMachine()
        try machine.write(0, at: BareMachine.table + 0x14 * 8)
        machine.general.rsp = 0x15010
        // The page fault has a stack of its own.
        try machine.write(0x12800, at: 0x9000 + 0x24)
        let gate: UInt64 = 0x6000 + 14 * 16
        try machine.write(machine.read(gate) | 1 << 32, at: gate)
        // ud2
        let outcome = try machine.run([0x0F, 0x0B])
        #expect(outcome.vector == 14)
        #expect(outcome.top == 2)
        #expect(outcome.cr2 == 0x14FF8)
        #expect(try machine.read(0x15008) == 0x10)
        #expect(try machine.read(0x15000) == 0x15010)
    }

    /// Whoever handles #DB may touch the debug registers: that of INT1 too, not that of INT n. Source: [SDM3 §18.2.4].
    @Test(arguments: [([0xF1], 0x400), ([0xCD, 0x01], 0x2400)] as [([UInt8], UInt64)])
    func generalDetectEndsWithADebugException(code: [UInt8], dr7: UInt64) throws {
        let machine = try BareMachine()
        machine.general.rax = 0x2400
        // mov %rax, %dr7
        #expect(try machine.run([0x0F, 0x23, 0xF8] + code).vector == 1)
        #expect(try machine.cpu.state().debug.dr7 == dr7)
    }

    /// The stores of a repetition that lie within the segment are made before the one that does not faults.
    @Test func aRepetitionRunsToTheLimit() throws {
        let machine = try BareMachine()
        machine.system.cs.long = false
        machine.system.cs.big = true
        machine.system.es.limit = UInt32(BareMachine.data) + 9
        machine.system.es.granular = false
        machine.general.rdi = BareMachine.data
        machine.general.rcx = 100
        machine.general.rax = 0x55
        // rep stosb; hlt
        #expect(try machine.run([0xF3, 0xAA, 0xF4]).vector == 13)
        #expect(machine.cpu.generalRegisters.rcx == 90)
        #expect(try machine.read(BareMachine.data + 2) == 0x5555_5555_5555_5555)
    }
}
