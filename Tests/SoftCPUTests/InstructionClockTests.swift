import Synchronization
import Testing
import VMCore

@testable import SoftCPU

/// Time that counts instructions.
@Suite struct InstructionClockTests {
    @Test func oneCPUOnly() throws {
        let memory = try GuestMemory(size: 1 << 20)
        #expect(throws: EngineError.self) { try SoftEngine(memory: memory, vcpuCount: 2, instructionClock: InstructionClock()) }
    }

    @Test func alarmsRingInTheOrderOfTheirDeadlines() {
        let clock = InstructionClock()
        let rung = Mutex<[Int]>([])
        let alarms = (0..<3).map { index in
            clock.makeAlarm {
                rung.withLock { $0.append(index) }
            }
        }
        alarms[0].set(deadline: 300)
        alarms[1].set(deadline: 100)
        alarms[2].set(deadline: 100)
        #expect(!clock.isDue)
        #expect(clock.skipToNextAlarm())
        #expect(clock.now() == 100 && clock.isDue)
        clock.ring()
        #expect(rung.withLock { $0 } == [1, 2])
        alarms[0].set(deadline: nil)
        #expect(!clock.skipToNextAlarm())
        alarms[0].set(deadline: .max - 1)
        #expect(!clock.skipToNextAlarm())
        #expect(clock.now() == 100)
    }

    /// RDTSC, RDRAND and the count itself: twice the same.
    @Test func twoRunsAreIdentical() throws {
        func run() throws -> [UInt64] {
            let memory = try GuestMemory(size: 1 << 20)
            let clock = InstructionClock()
            let engine = try SoftEngine(memory: memory, vcpuCount: 1, alarms: clock, instructionClock: clock)
            let cpu = try engine.makeSoftVCPU(index: 0)
            // Real mode: MOV CX, 1000; again: RDTSC; ADD EBX, EAX; RDRAND EDX; ADD ESI, EDX; LOOP again; JMP $.
            let bytes: [UInt8] = [
                0xB9, 0xE8, 0x03, 0x0F, 0x31, 0x66, 0x01, 0xC3, 0x66, 0x0F, 0xC7, 0xF2, 0x66, 0x01, 0xD6, 0xE2, 0xF2, 0xEB, 0xFE,
            ]
            try memory.write(bytes, at: GuestAddress(0x1000))
            var state = try cpu.state()
            state.system.cs.base = 0
            state.system.cs.selector = 0
            state.general.rip = 0x1000
            state.msrs = []
            state.localAPIC = []
            try cpu.setState(state)
            #expect(cpu.run(count: 20_000) == nil)
            let general = cpu.generalRegisters
            #expect(clock.now() >= 20_000 && clock.now() < 20_100)
            return [general.rbx, general.rsi, general.rip, cpu.statistics.instructions, clock.now()]
        }
        let first = try run()
        #expect(first == (try run()))
        #expect(first[0] != 0 && first[1] != 0)
    }

    /// A processor that halts with interrupts on goes on at the alarm that wakes it, with no time lost waiting.
    @Test func aHaltGoesOnAtTheNextAlarm() throws {
        let memory = try GuestMemory(size: 1 << 20)
        let clock = InstructionClock()
        let engine = try SoftEngine(memory: memory, vcpuCount: 1, alarms: clock, instructionClock: clock)
        let cpu = try engine.makeSoftVCPU(index: 0)
        let attention = cpu.attention
        let alarm = clock.makeAlarm { attention.raise(.nmi) }
        alarm.set(deadline: 3_600_000_000_000)
        // HLT; the NMI's vector leads to INC AX; JMP $.
        try memory.write([0xF4], at: GuestAddress(0x1000))
        try memory.write([0x40, 0xEB, 0xFE], at: GuestAddress(0x2000))
        try memory.store(0x2000 as UInt32, at: GuestAddress(8))
        var state = try cpu.state()
        state.system.cs.base = 0
        state.system.cs.selector = 0
        state.general.rip = 0x1000
        state.general.rsp = 0x8000
        state.msrs = []
        state.localAPIC = []
        try cpu.setState(state)
        #expect(cpu.run(count: 100) == nil)
        #expect(cpu.generalRegisters.rax & 0xFF == 1)
        #expect(clock.now() >= 3_600_000_000_000)
    }
}
