import Testing
import VMCore
import MonitorTesting

@testable import SoftCPU

/// One instruction on the state of another engine's vCPU.
@Suite struct RescueTests {
    static let done = RescueOutcome.executed(dropsTranslations: false)

    // MARK: State

    /// What the instruction does not touch comes back to the bit, also what the interpreter has no use for.
    @Test func stateComesBackAsItWas() throws {
        let machine = try RescueMachine()
        machine.state.system.cr4 |= 0x2_2000  // PCIDE, VMXE
        machine.state.system.efer |= 0x1000  // SVME
        machine.state.system.cr8 = 5
        machine.state.system.gs.unusable = true
        machine.state.system.cr2 = 0xDEAD
        machine.state.general.rflags = 0x20_0AD7
        machine.state.debug.dr0 = 0x1111
        machine.state.debug.dr7 = 0x400
        machine.state.events.nmiMasked = true
        machine.state.events.nmiPending = true
        for index in 160..<416 { machine.state.extended[index] = UInt8(truncatingIfNeeded: index * 3) }
        for index in 416..<512 { machine.state.extended[index] = 0x5A }
        for index in 576..<832 { machine.state.extended[index] = UInt8(truncatingIfNeeded: index * 5) }
        machine.state.extended[512] = 7
        for number in 0..<8 { machine.state.general.r8 = UInt64(number) }
        let before = machine.state
        #expect(try machine.run(0x0F, 0x18, 0x00) == Self.done)  // prefetchnta [rax]
        var wanted = before
        wanted.general.rip = 0x1003
        #expect(machine.state == wanted)
    }

    @Test func aComponentThatIsNotInUseIsInitial() throws {
        let machine = try RescueMachine()
        // The area holds what was there before; XSTATE_BV says that it counts for nothing.
        for index in 160..<416 { machine.state.extended[index] = 0xEE }
        machine.state.extended[512] = 0
        machine.state.general.rax = RescueMachine.data
        try machine.store([1, 2], at: RescueMachine.data)
        #expect(try machine.run(0x66, 0x0F, 0xEF, 0xC1) == Self.done)  // pxor xmm0, xmm1
        #expect(try machine.run(0x66, 0x0F, 0xD4, 0x08) == Self.done)  // paddq xmm1, [rax]
        #expect(machine[xmm: 1] == [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0])
        #expect(machine[xmm: 2] == [UInt8](repeating: 0, count: 16))
        #expect(machine.state.extended[512] & 2 == 2)
    }

    @Test func theShadowEndsAndAnotherBegins() throws {
        let machine = try RescueMachine()
        machine.state.events.shadow = 1
        try machine.run(0x0F, 0x18, 0x00)
        #expect(machine.state.events.shadow == 0)
        try machine.run(0xFB)  // sti
        #expect(machine.state.events.shadow == 1)
        #expect(machine.state.general.rflags & 0x200 != 0)
    }

    // MARK: Instructions

    @Test func compareExchange16() throws {
        let machine = try RescueMachine()
        try machine.store([1, 2], at: RescueMachine.data)
        (machine.state.general.rax, machine.state.general.rdx) = (1, 2)
        (machine.state.general.rbx, machine.state.general.rcx) = (3, 4)
        machine.state.general.rsi = RescueMachine.data
        #expect(try machine.run(0xF0, 0x48, 0x0F, 0xC7, 0x0E) == Self.done)
        #expect(try machine.word(RescueMachine.data) == 3 && machine.word(RescueMachine.data + 8) == 4)
        #expect(machine.state.general.rflags & 0x40 != 0)
        // Accessed and dirty, as the processor's own walk marks it.
        #expect(try machine.entry(RescueMachine.data) & 0x60 == 0x60)
        #expect(try machine.run(0xF0, 0x48, 0x0F, 0xC7, 0x0E) == Self.done)
        #expect(machine.state.general.rax == 3 && machine.state.general.rdx == 4)
        #expect(machine.state.general.rflags & 0x40 == 0)
    }

    @Test func x87AndFXSAVE() throws {
        let machine = try RescueMachine()
        machine.state.general.rax = RescueMachine.data
        #expect(try machine.run(0xD9, 0xEB) == Self.done)  // fldpi
        #expect(machine.state.extended[512] & 1 == 1)
        #expect(Array(machine.state.extended[32..<42]) == [0x35, 0xC2, 0x68, 0x21, 0xA2, 0xDA, 0x0F, 0xC9, 0, 0x40])
        machine[xmm: 15] = Array(1...16)
        #expect(try machine.run(0x48, 0x0F, 0xAE, 0x00) == Self.done)  // fxsave64 [rax]
        #expect(try machine.word(RescueMachine.data + 400) == 0x0807_0605_0403_0201)
        #expect(try machine.word(RescueMachine.data + 32) == 0xC90F_DAA2_2168_C235)
        machine[xmm: 15] = [UInt8](repeating: 0, count: 16)
        #expect(try machine.run(0x48, 0x0F, 0xAE, 0x08) == Self.done)  // fxrstor64 [rax]
        #expect(machine[xmm: 15] == Array(1...16))
    }

    @Test func softwareInterruptsAreDelivered() throws {
        let machine = try RescueMachine()
        #expect(try machine.run(0xCC) == Self.done)
        #expect(machine.state.general.rip == RescueMachine.handler(3))
        #expect(try machine.word(machine.state.general.rsp) == 0x1001)
    }

    @Test func segmentBasesAndRegisters() throws {
        let machine = try RescueMachine()
        machine.state.system.cr4 |= 0x1_0000
        #expect(try machine.run(0xF3, 0x48, 0x0F, 0xAE, 0xC0) == Self.done)  // rdfsbase rax
        #expect(machine.state.general.rax == 0x1234)
        machine.state.general.rax = 0x5678
        #expect(try machine.run(0xF3, 0x48, 0x0F, 0xAE, 0xD8) == Self.done)  // wrgsbase rax
        #expect(machine.state.system.gs.base == 0x5678)
        #expect(try machine.run(0x0F, 0x01, 0xF8) == Self.done)  // swapgs
        #expect(machine.state.system.gs.base == 0x9999 && machine.registers[0xC000_0102] == 0x5678)
        #expect(try machine.run(0x0F, 0x01, 0xF9) == Self.done)  // rdtscp
        #expect(machine.state.general.rcx == 9)
        // The counter goes on from the vCPU's own.
        #expect(machine.state.general.rax >= 5 && machine.state.general.rdx == 0)

        machine.registers[0x1234] = 0x1_0000_0002
        machine.state.general.rcx = 0x1234
        #expect(try machine.run(0x0F, 0x32) == Self.done)  // rdmsr
        #expect(machine.state.general.rax == 2 && machine.state.general.rdx == 1)
        machine.state.general.rax = 7
        #expect(try machine.run(0x0F, 0x30) == Self.done)  // wrmsr
        #expect(machine.registers[0x1234] == 0x1_0000_0007)
        machine.state.general.rcx = 0x4321
        #expect(try machine.run(0x0F, 0x32) == Self.done)
        #expect(machine.state.general.rip == RescueMachine.handler(13))
    }

    // MARK: Devices

    @Test func aDeviceIsReachedOnce() throws {
        let machine = try RescueMachine()
        machine.state.general.rax = RescueMachine.device
        machine[xmm: 1] = Array(1...16)
        #expect(try machine.run(0x66, 0x0F, 0x7F, 0x48, 0x10) == Self.done)  // movdqa [rax+16], xmm1
        #expect(try machine.run(0xF3, 0x0F, 0x6F, 0x10) == Self.done)  // movdqu xmm2, [rax]
        #expect(
            machine.device.accesses == [
                BusAccess(write: 16, .quad, 0x0807_0605_0403_0201), BusAccess(write: 24, .quad, 0x100F_0E0D_0C0B_0A09),
                BusAccess(read: 0, .quad, 0x1112_1314_1516_1718), BusAccess(read: 8, .quad, 0x1112_1314_1516_1720),
            ])
        #expect(machine[xmm: 2] == [0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0x20, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11])
        // A fault on the second page: the device on the first has seen nothing.
        try machine.setEntry(RescueMachine.device + 0x1000, 0)
        machine.state.general.rax = RescueMachine.device + 0xFF8
        #expect(try machine.run(0xF3, 0x0F, 0x7F, 0x08) == Self.done)  // movdqu [rax], xmm1
        #expect(machine.state.general.rip == RescueMachine.handler(14))
        #expect(machine.state.system.cr2 == RescueMachine.device + 0x1000)
        #expect(machine.device.accesses.count == 4)
    }

    /// What the engine's own interrupt controllers would do cannot be done from outside.
    @Test(arguments: [0xFEE0_0000, 0xFEC0_0000] as [UInt64])
    func theEnginesOwnDevicesAreRefused(_ physical: UInt64) throws {
        let machine = try RescueMachine()
        try machine.setEntry(RescueMachine.data, physical | 3)
        machine.state.general.rax = RescueMachine.data
        let before = machine.state
        guard case .refused(let reason) = try machine.run(0x66, 0x0F, 0x7E, 0x00) else {  // movd [rax], xmm0
            Issue.record("not refused")
            return
        }
        #expect(reason.contains("interrupt controller"))
        #expect(machine.state == before)
    }

    // MARK: Faults

    @Test func aPageFaultIsTheGuests() throws {
        let machine = try RescueMachine()
        try machine.setEntry(RescueMachine.data, RescueMachine.data | 5)
        machine.state.general.rax = RescueMachine.data + 0x18
        #expect(try machine.run(0x0F, 0x17, 0x00) == Self.done)  // movhps [rax], xmm0
        #expect(machine.state.general.rip == RescueMachine.handler(14))
        #expect(machine.state.system.cr2 == RescueMachine.data + 0x18)
        #expect(try machine.word(machine.state.general.rsp) == 3)
        #expect(try machine.word(machine.state.general.rsp + 8) == 0x1000)
    }

    @Test func supervisorAccessToUserPagesUnderSMAP() throws {
        let machine = try RescueMachine()
        machine.state.system.cr4 |= 0x20_0000
        for page in 0..<16 as Range<UInt64> { try machine.setEntry(page << 12, page << 12 | 3) }
        machine.state.general.rax = RescueMachine.data
        #expect(try machine.run(0x66, 0x0F, 0xEF, 0x00) == Self.done)  // pxor xmm0, [rax]
        #expect(machine.state.general.rip == RescueMachine.handler(14))
        #expect(try machine.word(machine.state.general.rsp) == 1)
        #expect(try machine.run(0x0F, 0x01, 0xCB) == Self.done)  // stac
        #expect(machine.state.general.rflags & 0x4_0000 != 0)
        #expect(try machine.run(0x66, 0x0F, 0xEF, 0x00) == Self.done)
        #expect(machine.state.general.rip == 0x1004)
        #expect(try machine.run(0x0F, 0x01, 0xCA) == Self.done)  // clac
        #expect(machine.state.general.rflags & 0x4_0000 == 0)
    }

    @Test func protectionKeys() throws {
        let machine = try RescueMachine()
        machine.state.system.cr4 |= 0x40_0000
        machine.state.xcr0 = 0x207
        machine.state.extended[513] = 2
        machine.state.extended[2688] = 8  // key 1 may not be written
        try machine.setEntry(RescueMachine.data, RescueMachine.data | 7 | 1 << 59)
        machine.state.general.rax = RescueMachine.data
        #expect(try machine.run(0x66, 0x0F, 0xEF, 0x00) == Self.done)
        #expect(machine.state.general.rip == 0x1004)
        #expect(try machine.run(0x0F, 0x17, 0x00) == Self.done)
        #expect(machine.state.general.rip == RescueMachine.handler(14))
        #expect(try machine.word(machine.state.general.rsp) == 0x23)
    }

    @Test func singleStepsAndUndefinedInstructions() throws {
        let machine = try RescueMachine()
        #expect(try machine.run(0x0F, 0x0B) == Self.done)  // ud2
        #expect(machine.state.general.rip == RescueMachine.handler(6))
        machine.state.general.rflags |= 0x100
        #expect(try machine.run(0x66, 0x0F, 0xEF, 0xC0) == Self.done)
        #expect(machine.state.general.rip == RescueMachine.handler(1))
        #expect(machine.state.debug.dr6 & 0x4000 != 0)
        #expect(try machine.word(machine.state.general.rsp) == 0x1004)
    }

    @Test func noHandlerIsAShutdown() throws {
        let machine = try RescueMachine()
        machine.state.system.idtr.limit = 0
        #expect(try machine.run(0x0F, 0x0B) == .shutdown)
    }

    // MARK: What is not there

    /// CPUID decides, not what the interpreter could do.
    @Test func aFeatureThatTheGuestLacksIsUndefined() throws {
        let machine = try RescueMachine { leaf, _, answer in if leaf == 1 { answer.ecx &= ~(1 << 13 | 1 << 26) } }
        machine.state.general.rsi = RescueMachine.data
        for code in [[0x48, 0x0F, 0xC7, 0x0E], [0x0F, 0x01, 0xD0]] as [[UInt8]] {
            try machine.memory.write(code, at: GuestAddress(0x1000))
            machine.state.general.rip = 0x1000
            #expect(machine.rescue() == Self.done)
            #expect(machine.state.general.rip == RescueMachine.handler(6))
        }
    }

    @Test func whatOnlyTheEngineCanDoIsRefusedByName() throws {
        let machine = try RescueMachine()
        let before = machine.state
        for (code, name) in [
            ([0xC5, 0xFC, 0x58, 0xC1], "vaddps"), ([0xF4], "hlt"), ([0xE4, 0x10], "in"), ([0x0F, 0xA2], "cpuid"),
            ([0x0F, 0x22, 0xD8], "mov cr3"),
        ] as [([UInt8], String)] {
            try machine.memory.write(code, at: GuestAddress(0x1000))
            guard case .refused(let reason) = machine.rescue() else {
                Issue.record("\(name) is not refused")
                continue
            }
            #expect(reason.contains(name), "\(reason)")
            #expect(machine.state == before)
        }
        machine.state.events.interruptInjected = true
        guard case .refused = try machine.run(0x90) else {
            Issue.record("an event on its way is not refused")
            return
        }
    }

    /// A guest with AVX-512 has instructions that the tables lack: those bytes are no #UD.
    @Test func unknownBytesAreUndefinedOnlyWhereNobodyKnowsThem() throws {
        let plain = try RescueMachine()
        #expect(try plain.run(0x62, 0xF1, 0x7C, 0x48, 0x58, 0xC1) == Self.done)
        #expect(plain.state.general.rip == RescueMachine.handler(6))
        let rich = try RescueMachine { leaf, _, answer in if leaf == 7 { answer.ebx |= 1 << 16 } }
        guard case .refused = try rich.run(0x62, 0xF1, 0x7C, 0x48, 0x58, 0xC1) else {
            Issue.record("not refused")
            return
        }
    }

    @Test func invalidationsAreTheEnginesToo() throws {
        let machine = try RescueMachine()
        machine.state.general.rax = 2
        machine.state.general.rsi = RescueMachine.data
        #expect(try machine.run(0x66, 0x0F, 0x38, 0x82, 0x06) == .executed(dropsTranslations: true))  // invpcid rax, [rsi]
    }

    // MARK: Bounds

    /// A repeated instruction over the whole address space is left unfinished, with RIP at it.
    @Test func aLongRepetitionReturns() throws {
        let machine = try RescueMachine()
        machine.state.general.rcx = ~0
        machine.state.general.rsi = RescueMachine.data
        machine.state.system.es.base = 0
        machine.state.general.rdi = RescueMachine.data
        // The page it reads is the page it writes: no fault ends it. It goes on at the same instruction.
        machine.state.general.rflags = 2
        let clock = ContinuousClock()
        let time = try clock.measure { _ = try machine.run(0xF3, 0xAC) }  // rep lodsb
        #expect(time < .seconds(5))
        #expect(machine.state.general.rip == 0x1000 || machine.state.general.rip == RescueMachine.handler(14))
    }

    /// Nothing that memory and registers hold traps us.
    @Test func anyStateAndAnyBytes() throws {
        let machine = try RescueMachine()
        let start = machine.state
        var random = SeededRandom(seed: 0x5EED)
        for _ in 0..<20_000 {
            machine.state = start
            let code = (0..<15).map { _ in UInt8.random(in: 0...255, using: &random) }
            try machine.memory.write(code, at: GuestAddress(0x1000))
            func word() -> UInt64 {
                switch UInt8.random(in: 0...3, using: &random) {
                case 0: UInt64.random(in: 0...UInt64.max, using: &random)
                case 1: RescueMachine.data + UInt64.random(in: 0...0x40, using: &random) * 64
                case 2: RescueMachine.device + UInt64.random(in: 0...0xFFF, using: &random)
                default: UInt64.random(in: 0...8, using: &random)
                }
            }
            machine.state.general.rax = word()
            machine.state.general.rcx = word()
            machine.state.general.rdx = word()
            machine.state.general.rsi = word()
            machine.state.general.rdi = word()
            if Bool.random(using: &random) {
                machine.state.system.cr0 = word()
                machine.state.system.cr4 = word() & ~0x80_1000
                machine.state.system.efer = word()
                machine.state.general.rflags = word()
                machine.state.xcr0 = word()
                machine.state.debug.dr7 = word()
                machine.state.system.apicBase = word()
            }
            for index in 0..<64 { machine.state.extended[index * 9] = UInt8.random(in: 0...255, using: &random) }
            _ = machine.rescue()
        }
    }
}
