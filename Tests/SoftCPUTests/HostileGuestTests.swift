import Testing
import VMCore

@testable import SoftCPU

/// What only a hostile or broken guest does. Each ends in an exception for the guest, or in its death: never in ours.
@Suite struct HostileGuestTests {
    private typealias Machine = BareMachine
    private static let nowhere: UInt64 = 0x40_0000_0000
    /// MOV EAX, [0x12000]; HLT.
    private static let load: [UInt8] = [0x8B, 0x04, 0x25, 0x00, 0x20, 0x01, 0x00, 0xF4]

    // MARK: Page tables

    @Test func rootsOutsideMemoryEndInATripleFault() throws {
        for root in [Self.nowhere, Machine.device, 0x20_0000, 0xFEE0_0000] as [UInt64] {
            let machine = try BareMachine()
            machine.system.cr3 = root
            #expect(try machine.run(Self.load).vector == -2, "CR3 0x\(String(root, radix: 16))")
        }
    }

    /// What nobody drives reads as ones: a present entry whose reserved bits are set.
    @Test func aTablePastMemoryIsAFaultOfReservedBits() throws {
        let machine = try BareMachine()
        try machine.write(Self.nowhere | 7, at: 0x3008)
        // MOV EAX, [0x200000].
        let outcome = try machine.run([0x8B, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00, 0xF4])
        #expect(outcome == .init(vector: 14, top: 9, cr2: 0x20_0000))
    }

    /// Entries that a device answers are entries: read, followed, and not marked.
    @Test func aTableInADeviceTranslates() throws {
        let machine = try BareMachine()
        machine.device.set([0x07, 0x20, 0x01], at: 0)
        try machine.write(Machine.device | 7, at: 0x3008)
        try machine.write(0x1122_3344, at: Machine.data)
        let outcome = try machine.run([0x8B, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00, 0xF4])
        #expect(outcome.vector == -1)
        #expect(machine.cpu.generalRegisters.rax == 0x1122_3344)
        #expect(machine.device.word(0) == 0x1_2007)
        #expect(machine.device.writes.load(ordering: .relaxed) == 0)
    }

    @Test func aPageAtADeviceAndAPagePastMemoryAreAccessedAsSuch() throws {
        let machine = try BareMachine()
        try machine.write(Machine.device | 7, at: Machine.table + 0x12 * 8)
        machine.device.set([0x78, 0x56, 0x34, 0x12])
        #expect(try machine.run(Self.load).vector == -1)
        #expect(machine.cpu.generalRegisters.rax == 0x1234_5678)
        try machine.write(Self.nowhere | 7, at: Machine.table + 0x12 * 8)
        #expect(try machine.run(Self.load).vector == -1)
        #expect(machine.cpu.generalRegisters.rax == 0xFFFF_FFFF)
    }

    // MARK: Code

    @Test func codeThatRewritesTheNextInstruction() throws {
        let machine = try BareMachine()
        // MOV BYTE [rip+1], 2; MOV EAX, 1; HLT.
        let outcome = try machine.run([0xC6, 0x05, 0x01, 0x00, 0x00, 0x00, 0x02, 0xB8, 0x01, 0x00, 0x00, 0x00, 0xF4])
        #expect(outcome.vector == -1)
        #expect(machine.cpu.generalRegisters.rax == 2)
    }

    /// A store over itself takes effect when it is come to again.
    @Test func codeThatRewritesItself() throws {
        let machine = try BareMachine()
        // INC ECX; MOV BYTE [rip-9], 0xF4, which makes the INC a HLT; JMP back to it.
        let outcome = try machine.run([0xFF, 0xC1, 0xC6, 0x05, 0xF7, 0xFF, 0xFF, 0xFF, 0xF4, 0xEB, 0xF5])
        #expect(outcome.vector == -1)
        #expect(machine.cpu.generalRegisters.rcx == 1)
        #expect(machine.cpu.generalRegisters.rip == Machine.code + 1)
    }

    /// The store's own bytes: its immediate becomes what the next turn stores.
    @Test func aStoreOverItsOwnBytes() throws {
        let machine = try BareMachine()
        // MOV BYTE [rip-1], 7, whose last byte is the immediate; MOV AL, [rip-7], which reads it; HLT.
        let outcome = try machine.run([0xC6, 0x05, 0xFF, 0xFF, 0xFF, 0xFF, 0x05, 0x8A, 0x05, 0xF9, 0xFF, 0xFF, 0xFF, 0xF4])
        #expect(outcome.vector == -1)
        #expect(machine.cpu.generalRegisters.rax & 0xFF == 5)
    }

    /// REP STOS that runs over itself and over what follows it: the bytes that follow are the new ones.
    @Test func aStringStoreOverTheCodeThatFollows() throws {
        let machine = try BareMachine()
        machine.general.rax = 0xF4
        machine.general.rcx = 64
        machine.general.rdi = Machine.code + 2
        // REP STOSB; then UD2s, which become HLTs.
        let outcome = try machine.run([0xF3, 0xAA] + [UInt8](repeating: 0x0F, count: 64))
        #expect(outcome.vector == -1)
        #expect(machine.cpu.generalRegisters.rip == Machine.code + 3)
    }

    @Test func anInstructionAcrossPagesNeedsBoth() throws {
        let machine = try BareMachine()
        // MOV EAX, imm32 of which two bytes lie in the second page; HLT.
        let bytes: [UInt8] = [0x90, 0xB8, 0x11, 0x22, 0x33, 0x44, 0xF4]
        let start = Machine.code + 0x1000 - 4
        #expect(try machine.run(bytes, at: start).vector == -1)
        #expect(machine.cpu.generalRegisters.rax == 0x4433_2211)
        // The second page elsewhere in memory.
        try machine.memory.write([0x55, 0x66, 0xF4], at: GuestAddress(Machine.data))
        try machine.write(Machine.data | 7, at: Machine.table + 0x11 * 8)
        #expect(try machine.run(bytes, at: start).vector == -1)
        #expect(machine.cpu.generalRegisters.rax == 0x6655_2211)
        // No second page.
        try machine.write(0, at: Machine.table + 0x11 * 8)
        let outcome = try machine.run(bytes, at: start)
        #expect(outcome.vector == 14 && outcome.cr2 == Machine.code + 0x1000)
        // The second page rewritten, between two runs of the same bytes.
        try machine.write(0x11007, at: Machine.table + 0x11 * 8)
        try machine.memory.write([0x77, 0x88, 0xF4], at: GuestAddress(Machine.code + 0x1000))
        #expect(try machine.run([], at: start).vector == -1)
        #expect(machine.cpu.generalRegisters.rax == 0x8877_2211)
    }

    /// A loop over the edge, whose part behind the edge rewrites the part before it.
    @Test func aLoopAcrossPagesThatRewritesItself() throws {
        let machine = try BareMachine()
        machine.general.rcx = 5
        let start = Machine.code + 0x1000 - 8
        // ADD EAX, 1 (the page's last 3 bytes but 5) ... then: INC BYTE [the ADD's immediate]; DEC ECX; JNZ the ADD; HLT.
        var bytes: [UInt8] = [0x83, 0xC0, 0x01, 0x90, 0x90, 0x90, 0x90, 0x90]
        bytes += [0xFE, 0x05, 0xF4, 0xFF, 0xFF, 0xFF, 0xFF, 0xC9, 0x75, 0xEE, 0xF4]
        #expect(try machine.run(bytes, at: start).vector == -1)
        #expect(machine.cpu.generalRegisters.rax == 1 + 2 + 3 + 4 + 5)
    }

    @Test func codeInADeviceExecutes() throws {
        let machine = try BareMachine()
        machine.device.set([0xB8, 0x2A, 0x00, 0x00, 0x00, 0xF4], at: 0x100)
        machine.general.rip = Machine.device + 0x100
        #expect(try machine.run().vector == -1)
        #expect(machine.cpu.generalRegisters.rax == 42)
        // Over the device's end nobody answers: FF FF is no instruction.
        machine.device.set([0x90, 0x90], at: 0xFFE)
        machine.general.rip = Machine.device + 0xFFE
        #expect(try machine.run().vector == 6)
    }

    @Test func codePastMemoryIsNoInstruction() throws {
        let machine = try BareMachine()
        try machine.write(Self.nowhere | 7, at: Machine.table + 0x20 * 8)
        machine.general.rip = 0x20000
        #expect(try machine.run().vector == 6)
        // Off memory's end, with no page there.
        machine.general.rip = 0x1F_FFFE
        try machine.memory.write([0x90, 0x90], at: GuestAddress(0x1F_FFFE))
        let outcome = try machine.run()
        // A fetch: bit 4 of the code, as EFER.NXE is set.
        #expect(outcome == .init(vector: 14, top: 16, cr2: 0x20_0000))
    }

    // MARK: Stacks

    @Test func aStackInADevice() throws {
        let machine = try BareMachine()
        machine.general.rsp = Machine.device + 0x800
        machine.general.rax = 0x1122_3344_5566_7788
        // PUSH RAX; POP RCX; CALL +1; HLT; RET.
        let outcome = try machine.run([0x50, 0x59, 0xE8, 0x01, 0x00, 0x00, 0x00, 0xF4, 0xC3])
        #expect(outcome.vector == -1)
        #expect(machine.cpu.generalRegisters.rcx == 0x1122_3344_5566_7788)
        #expect(machine.device.word(0x7F8) == Machine.code + 7)
        // An exception's frame.
        machine.general.rsp = Machine.device + 0x800
        #expect(try machine.run([0x0F, 0x0B]).vector == 6)
        #expect(machine.device.word(0x7F8) == 16 && machine.device.word(0x7D8) == Machine.code)
    }

    @Test func aStackPastMemoryAndOneThatIsNoAddress() throws {
        let machine = try BareMachine()
        try machine.write(Self.nowhere | 7, at: Machine.table + 0x20 * 8)
        machine.general.rsp = 0x20800
        // What is pushed is lost, and the return finds ones: not a canonical address, #GP; the handler halts all the same.
        #expect(try machine.run([0x50, 0x59, 0xE8, 0x01, 0x00, 0x00, 0x00, 0xF4, 0xC3]).vector != -3)
        // A non-canonical stack cannot take a frame: #SS, then a double fault, then the end.
        machine.general.rsp = 0x8000_0000_0000_0000
        #expect(try machine.run([0x0F, 0x0B]).vector == -2)
    }

    // MARK: Delivery

    @Test func aFaultInsideDeliveryIsADoubleFault() throws {
        let machine = try BareMachine()
        // #GP's gate is not present: #NP while #GP is delivered.
        try machine.write(0, at: 0x6000 + 13 * 16)
        // MOV AL, [a non-canonical address].
        let bytes: [UInt8] = [0x48, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x8A, 0x00]
        #expect(try machine.run(bytes) == .init(vector: 8, top: 0, cr2: 0))
        // And the double fault's is not either.
        try machine.write(0, at: 0x6000 + 8 * 16)
        #expect(try machine.run(bytes).vector == -2)
    }

    @Test func aPageFaultInsideAPageFaultIsADoubleFault() throws {
        let machine = try BareMachine()
        // The IDT's page fault gate leads to a code segment past the GDT's end, and the GDT's page is gone.
        try machine.write(0, at: Machine.table + 8 * 8)
        let missing: [UInt8] = [0x8B, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00]
        // Every gate needs the GDT: page fault, page fault, double fault, triple.
        #expect(try machine.run(missing).vector == -2)
        // With an IST stack that is not there, only the page fault's delivery fails.
        try machine.write(0x8007, at: Machine.table + 8 * 8)
        try machine.write(Machine.handlers + 14 * 16 | 0x8 << 16 | 0x8E01 << 32, at: 0x6000 + 14 * 16)
        try machine.write(0x30_0000, at: 0x9000 + 0x24)
        let outcome = try machine.run(missing)
        #expect(outcome.vector == 8 && outcome.top == 0)
        #expect(outcome.cr2 == 0x30_0000 - 8 || outcome.cr2 == 0x30_0000 - 48)
    }

    @Test func aBenignFaultInsideDeliveryIsDeliveredByItself() throws {
        let machine = try BareMachine()
        // INT 0x30 has no gate: #GP with the vector's selector.
        #expect(try machine.run([0xCD, 0x30]) == .init(vector: 13, top: 0x30 * 8 + 2, cr2: 0))
        // #UD, whose gate is not present: #NP, delivered.
        try machine.write(0, at: 0x6000 + 6 * 16)
        #expect(try machine.run([0x0F, 0x0B]).vector == 13)
    }

    // MARK: Descriptor tables

    @Test func descriptorTablesOutsideMemory() throws {
        // MOV AX, 0x10; MOV DS, AX; HLT.
        let load: [UInt8] = [0x66, 0xB8, 0x10, 0x00, 0x8E, 0xD8, 0xF4]
        let machine = try BareMachine()
        try machine.write(Self.nowhere | 7, at: Machine.table + 0x20 * 8)
        // Ones are a descriptor: conforming, readable code, present.
        machine.system.gdtr = TableState(base: 0x20000, limit: 0x17)
        #expect(try machine.run(load).vector == -1)
        #expect(machine.cpu.systemRegisters.ds.limit == 0xFFFF_FFFF)
        // Zeros are a system descriptor of no type: #GP(0x10), whose delivery finds no code segment: the end.
        machine.system.gdtr = TableState(base: Machine.device, limit: 0x17)
        #expect(try machine.run(load).vector == -2)
        // The same descriptors in the device, which is then marked as accessed.
        machine.device.set([0xFF, 0xFF, 0, 0, 0, 0x9B, 0xAF, 0, 0xFF, 0xFF, 0, 0, 0, 0x92, 0xCF, 0], at: 8)
        #expect(try machine.run(load).vector == -1)
        #expect(machine.device.word(0x10) == 0x00CF_9300_0000_FFFF)
        // No page there at all, and a base that is no address.
        machine.system.gdtr = TableState(base: 0x30_0000, limit: 0x17)
        #expect(try machine.run(load).vector == -2)
        machine.system.gdtr = TableState(base: 0x8000_0000_0000, limit: 0x17)
        #expect(try machine.run(load).vector == -2)
    }

    @Test func interruptTablesOutsideMemory() throws {
        let machine = try BareMachine()
        try machine.write(Self.nowhere | 7, at: Machine.table + 0x20 * 8)
        for base in [0x20000, Machine.device, 0x30_0000, 0x8000_0000_0000, ~0] as [UInt64] {
            machine.system.idtr = TableState(base: base, limit: 0xFFFF)
            #expect(try machine.run([0x0F, 0x0B]).vector == -2, "IDT at 0x\(String(base, radix: 16))")
        }
        // A gate in a device is a gate.
        let gate: UInt64 = (Machine.handlers + 6 * 16) | 0x8 << 16 | 0x8E00 << 32
        machine.device.set((0..<8).map { UInt8(truncatingIfNeeded: gate >> ($0 * 8)) }, at: 6 * 16)
        machine.system.idtr = TableState(base: Machine.device, limit: 0x1FF)
        #expect(try machine.run([0x0F, 0x0B]).vector == 6)
    }

    @Test func aTaskStateOutsideMemory() throws {
        let machine = try BareMachine()
        try machine.write(Machine.handlers + 6 * 16 | 0x8 << 16 | 0x8E01 << 32, at: 0x6000 + 6 * 16)
        for base in [Self.nowhere, 0x30_0000, 0x8000_0000_0000] as [UInt64] {
            machine.system.tr.base = base
            // No IST stack for #UD: what comes instead has a stack, or the guest ends; nothing of ours does.
            #expect([8, 10, 12, 13, 14].contains(try machine.run([0x0F, 0x0B]).vector), "TSS at 0x\(String(base, radix: 16))")
        }
    }

    // MARK: Operands

    /// Alignment before canonicality, as processors do it.
    @Test func aMisalignedPairAtAStackAddressThatIsNone() throws {
        let machine = try BareMachine()
        machine.general.rbp = 0x8000_0000_0000_0004
        // CMPXCHG16B [rbp].
        #expect(try machine.run([0x48, 0x0F, 0xC7, 0x4D, 0x00]).vector == 13)
        machine.general.rbp = 0x8000_0000_0000_0000
        #expect(try machine.run([0x48, 0x0F, 0xC7, 0x4D, 0x00]).vector == 12)
    }
}
