import Synchronization
import Testing
import VMCore
import MonitorTesting

@testable import SoftCPU

/// Writes that the monitor makes into pages of decoded code: a device's DMA, a loader.
@Suite struct HostWriteTests {
    @Test func aWriteBetweenTwoRunsIsSeen() throws {
        let machine = try BareMachine()
        for value in 1...20 as ClosedRange<UInt8> {
            #expect(try machine.run([0xB8, value, 0x00, 0x00, 0x00, 0xF4]).vector == -1)
            #expect(machine.cpu.generalRegisters.rax == UInt64(value))
        }
    }

    /// The guest calls a function over and over until a flag is set. Another thread rewrites the function, then sets the
    /// flag: the call after the loop finds what was written before the flag.
    @Test func aWriteFromAnotherThreadIsSeenBeforeWhatFollowsIt() throws {
        let machine = try BareMachine()
        let function = BareMachine.code + 0x200
        for round in 0..<40 as Range<UInt8> {
            try machine.memory.store(0 as UInt64, at: GuestAddress(BareMachine.data))
            try machine.memory.write([0xB8, 0xFF, 0x00, 0x00, 0x00, 0xC3], at: GuestAddress(function))
            // again: CALL function; CMP BYTE [data], 0; JE again; CALL function; HLT.
            let code: [UInt8] = [
                0xE8, 0xFB, 0x01, 0x00, 0x00, 0x80, 0x3C, 0x25, 0x00, 0x20, 0x01, 0x00, 0x00, 0x74, 0xF1, 0xE8, 0xEC, 0x01, 0x00, 0x00, 0xF4,
            ]
            try machine.memory.write(code, at: GuestAddress(BareMachine.code))
            var state = VCPUState()
            state.general = machine.general
            state.system = machine.system
            try machine.cpu.setState(state)
            let memory = machine.memory
            let kicker = machine.cpu.kicker
            let writer = TestWriter {
                for _ in 0..<(Int(round) * 500) { _ = passTime() }
                try? memory.write([round], at: GuestAddress(function + 1))
                try? memory.store(1 as UInt8, at: GuestAddress(BareMachine.data))
            } onTimeout: {
                kicker.kick()
            }
            let exit = machine.cpu.run()
            writer.join()
            #expect(exit == .halted)
            #expect(machine.cpu.generalRegisters.rax == UInt64(round), "round \(round)")
        }
    }

    /// What is told costs no one anything where there is no code, and reaches those pages alone that hold some.
    @Test func onlyPagesOfCodeAreTold() throws {
        let machine = try BareMachine()
        #expect(try machine.run([0xB8, 0x01, 0x00, 0x00, 0x00, 0xF4]).vector == -1)
        try machine.memory.zero(at: GuestAddress(BareMachine.data), count: 0x1000)
        #expect(!machine.cpu.attention.bits.contains(.code))
        try machine.memory.write([1], at: GuestAddress(BareMachine.code + 0x800))
        #expect(!machine.cpu.attention.bits.contains(.code))
        try machine.memory.write([1, 2, 3], at: GuestAddress(BareMachine.code - 2))
        #expect(machine.cpu.attention.bits.contains(.code))
    }

    /// An engine that is gone hears nothing; its memory lives on.
    @Test func anEngineThatIsGoneIsToldNothing() throws {
        let memory = try GuestMemory(size: 1 << 20)
        weak var gone: SoftEngine?
        do {
            let engine = try SoftEngine(memory: memory, vcpuCount: 2)
            gone = engine
        }
        #expect(gone == nil)
        try memory.write([1, 2, 3], at: GuestAddress(0x1000))
        #expect(try memory.read(at: GuestAddress(0x1000), count: 3) == [1, 2, 3])
    }
}
