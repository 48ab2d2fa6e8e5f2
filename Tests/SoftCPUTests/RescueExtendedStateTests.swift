import MonitorTesting
import Testing
import VMCore

@testable import SoftCPU

/// XSAVE and its kin, on the rescued vCPU's CPUID and XCR0.
@Suite struct RescueExtendedStateTests {
    static let done = RescueOutcome.executed(dropsTranslations: false)
    static let area = RescueMachine.data
    // [rsi]
    static let xsave: [UInt8] = [0x48, 0x0F, 0xAE, 0x26]
    static let xrstor: [UInt8] = [0x48, 0x0F, 0xAE, 0x2E]
    static let xsaveopt: [UInt8] = [0x48, 0x0F, 0xAE, 0x36]
    static let xsavec: [UInt8] = [0x48, 0x0F, 0xC7, 0x26]
    static let xsaves: [UInt8] = [0x48, 0x0F, 0xC7, 0x2E]
    static let xrstors: [UInt8] = [0x48, 0x0F, 0xC7, 0x1E]

    private func machine() throws -> RescueMachine {
        let machine = try RescueMachine()
        machine.state.general.rsi = Self.area
        machine.state.general.rax = 7
        for number in 0..<16 { machine[xmm: number] = (0..<16).map { UInt8(number * 16 + $0) } }
        for index in 0..<256 { machine.state.extended[576 + index] = UInt8(index ^ 0x5A) }
        machine.state.extended[512] = 6
        return machine
    }

    private func run(_ machine: RescueMachine, _ code: [UInt8]) throws {
        try machine.memory.write(code, at: GuestAddress(0x1000))
        machine.state.general.rip = 0x1000
        #expect(machine.rescue() == Self.done)
    }

    private func expectDone(_ machine: RescueMachine, _ code: [UInt8]) throws {
        try run(machine, code)
        #expect(machine.state.general.rip == 0x1000 + UInt64(code.count))
    }

    private func expectFault(_ machine: RescueMachine, _ code: [UInt8], _ vector: UInt64) throws {
        let rsp = machine.state.general.rsp
        try run(machine, code)
        #expect(machine.state.general.rip == RescueMachine.handler(vector))
        machine.state.general.rsp = rsp
    }

    private func bytes(_ machine: RescueMachine, _ offset: UInt64, _ count: Int) throws -> [UInt8] {
        try (0..<UInt64(count)).map { try machine.memory.load(UInt8.self, at: GuestAddress(Self.area + offset + $0)) }
    }

    @Test func control() throws {
        let machine = try machine()
        machine.state.general.rcx = 0
        try expectDone(machine, [0x0F, 0x01, 0xD0])
        #expect(machine.state.general.rax == 7 && machine.state.general.rdx == 0)
        machine.state.general.rcx = 1
        try expectDone(machine, [0x0F, 0x01, 0xD0])
        #expect(machine.state.general.rax == 6)
        machine.state.general.rcx = 0
        machine.state.general.rax = 0x203
        machine.state.general.rdx = 0
        try expectDone(machine, [0x0F, 0x01, 0xD1])
        #expect(machine.state.xcr0 == 0x203)
        for bad in [0, 2, 5, 0xB, 0x103] as [UInt64] {
            machine.state.general.rax = bad
            try expectFault(machine, [0x0F, 0x01, 0xD1], 13)
            #expect(machine.state.xcr0 == 0x203)
        }
        machine.state.general.rcx = 2
        try expectFault(machine, [0x0F, 0x01, 0xD0], 13)
        machine.state.system.cr4 &= ~0x4_0000
        try expectFault(machine, [0x0F, 0x01, 0xD0], 6)
        try expectFault(machine, Self.xsave, 6)
    }

    @Test func standardForm() throws {
        let machine = try machine()
        try machine.store([UInt64](repeating: 0xA5A5_A5A5_A5A5_A5A5, count: 128), at: Self.area)
        try machine.store([UInt64](repeating: 0, count: 8), at: Self.area + 512)
        try machine.memory.store(0x200 as UInt64, at: GuestAddress(Self.area + 512))
        try expectDone(machine, Self.xsave)
        #expect(try machine.word(Self.area + 512) == 0x206)
        #expect(try machine.word(Self.area + 520) == 0)
        #expect(try bytes(machine, 160, 256) == Array(machine.state.extended[160..<416]))
        #expect(try bytes(machine, 576, 256) == Array(machine.state.extended[576..<832]))
        #expect(try bytes(machine, 416, 96) == [UInt8](repeating: 0xA5, count: 96))
        #expect(try machine.word(Self.area + 24) == 0xFFFF_0000_1F80)

        let before = machine.state
        machine[xmm: 3] = [UInt8](repeating: 1, count: 16)
        for index in 576..<832 { machine.state.extended[index] = 0 }
        try machine.memory.store(6 as UInt64, at: GuestAddress(Self.area + 512))
        try expectDone(machine, Self.xrstor)
        #expect(difference(of: machine.state.extended, from: before.extended) == nil)
        // Components whose bits are clear become initial, those not asked for stay.
        try machine.memory.store(0 as UInt64, at: GuestAddress(Self.area + 512))
        machine.state.general.rax = 4
        try expectDone(machine, Self.xrstor)
        #expect(machine.state.extended[576..<832].allSatisfy { $0 == 0 })
        #expect(machine[xmm: 3] == before.extended[208..<224].map { $0 })
        #expect(machine.state.extended[512] == 2)
    }

    @Test func compactedForm() throws {
        let machine = try machine()
        machine.state.extended[32] = 1
        machine.state.extended[512] = 7
        try machine.store([UInt64](repeating: 0xA5A5_A5A5_A5A5_A5A5, count: 128), at: Self.area)
        machine.state.general.rax = 5
        try expectDone(machine, Self.xsavec)
        #expect(try machine.word(Self.area + 512) == 5)
        #expect(try machine.word(Self.area + 520) == 1 << 63 | 5)
        // SSE was not asked for, and the header's rest is nobody's.
        #expect(try machine.word(Self.area + 160) == 0xA5A5_A5A5_A5A5_A5A5)
        #expect(try machine.word(Self.area + 528) == 0xA5A5_A5A5_A5A5_A5A5)
        #expect(try bytes(machine, 576, 256) == Array(machine.state.extended[576..<832]))
        machine.state.general.rax = 7
        try expectFault(machine, Self.xrstor, 13)
        try machine.store([0, 0, 0, 0, 0, 0], at: Self.area + 528)
        let before = machine.state.extended
        try expectDone(machine, Self.xrstor)
        #expect(machine.state.extended[160..<416].allSatisfy { $0 == 0 }, "SSE becomes initial")
        #expect(Array(machine.state.extended[576..<832]) == Array(before[576..<832]))
        try machine.memory.store(2 as UInt64, at: GuestAddress(Self.area + 512))
        try expectFault(machine, Self.xrstor, 13)
    }

    @Test func initialComponentsAreLeftOut() throws {
        let machine = try machine()
        machine.state.extended[512] = 2
        try machine.store([UInt64](repeating: 0xA5A5_A5A5_A5A5_A5A5, count: 128), at: Self.area)
        try machine.store([UInt64](repeating: 0, count: 8), at: Self.area + 512)
        try expectDone(machine, Self.xsaveopt)
        #expect(try machine.word(Self.area + 512) == 2)
        #expect(try machine.word(Self.area + 576) == 0xA5A5_A5A5_A5A5_A5A5)
        #expect(try machine.word(Self.area) == 0xA5A5_A5A5_A5A5_A5A5)
        #expect(try bytes(machine, 160, 256) == Array(machine.state.extended[160..<416]))
    }

    @Test func supervisorForms() throws {
        let machine = try machine()
        try expectDone(machine, Self.xsaves)
        #expect(try machine.word(Self.area + 520) == 1 << 63 | 7)
        let before = machine.state.extended
        machine[xmm: 1] = [UInt8](repeating: 9, count: 16)
        try expectDone(machine, Self.xrstors)
        #expect(difference(of: machine.state.extended, from: before) == nil)
        try machine.memory.store(0 as UInt64, at: GuestAddress(Self.area + 520))
        try expectFault(machine, Self.xrstors, 13)
        // A component of IA32_XSS is nowhere that a rescuer reaches.
        machine.registers[0xDA0] = 0x800
        machine.state.general.rax = 0x807
        try machine.memory.write(Self.xsaves, at: GuestAddress(0x1000))
        machine.state.general.rip = 0x1000
        guard case .refused(let reason) = machine.rescue() else {
            Issue.record("not refused")
            return
        }
        #expect(reason.contains("component 11"))
    }

    @Test func faultsComeBeforeAnyChange() throws {
        let machine = try machine()
        machine.state.general.rsi = Self.area + 32
        try expectFault(machine, Self.xsave, 13)
        machine.state.general.rsi = Self.area
        machine.state.system.cr0 |= 8
        try expectFault(machine, Self.xsave, 7)
        machine.state.system.cr0 &= ~8

        // The area's second page is missing: nothing is written to the first, nothing loaded from it.
        let edge = Self.area + 0x1000 - 576
        machine.state.general.rsi = edge
        try machine.store([UInt64](repeating: 0xA5A5_A5A5_A5A5_A5A5, count: 64), at: edge)
        try machine.store([7, 0, 0, 0, 0, 0, 0, 0], at: edge + 512)
        try machine.setEntry(Self.area + 0x1000, 0)
        let before = machine.state.extended
        try expectFault(machine, Self.xsave, 14)
        #expect(machine.state.system.cr2 == Self.area + 0x1000)
        #expect(try machine.word(edge + 160) == 0xA5A5_A5A5_A5A5_A5A5)
        try machine.memory.store(0x1F80 as UInt64, at: GuestAddress(edge + 24))
        try expectFault(machine, Self.xrstor, 14)
        #expect(difference(of: machine.state.extended, from: before) == nil)

        machine.state.general.rsi = Self.area
        for header in [[0x400, 0], [1, 1], [0, 1 << 63 | 0x400], [2, 1 << 63 | 1]] as [[UInt64]] {
            try machine.store(header, at: Self.area + 512)
            try expectFault(machine, Self.xrstor, 13)
        }
        try machine.store([2, 0], at: Self.area + 512)
        try machine.memory.store(0x1_0000 as UInt64, at: GuestAddress(Self.area + 24))
        try expectFault(machine, Self.xrstor, 13)
        #expect(difference(of: machine.state.extended, from: before) == nil)
    }
}
