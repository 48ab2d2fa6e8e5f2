import Devices
import Synchronization
import Testing
import VMCore
import MonitorTesting

private final class RecordingMachine: MachineControl {
    private let log = Mutex<[MachineRequest]>([])
    func request(_ request: MachineRequest) { log.withLock { $0.append(request) } }
    var requests: [MachineRequest] { log.withLock { $0 } }
}

@Suite struct ACPIPowerManagementTests {
    private let clock = FakeClock(time: 99)
    private let sci = RecordingLine()
    private let machine = RecordingMachine()

    private func make(wide: Bool = true) -> ACPIPowerManagement {
        ACPIPowerManagement(sci: sci, machine: machine, clock: clock, alarms: clock, timerIs32Bit: wide)
    }

    @Test func alwaysInACPIMode() {
        let device = make()
        #expect(device.read(offset: 4, width: .word) == 1)
        device.write(offset: 4, width: .word, value: 0)
        #expect(device.read(offset: 4, width: .word) == 1)
        device.write(offset: 4, width: .word, value: 0x2002 | 3 << 10)
        #expect(device.read(offset: 4, width: .word) == 0x0C03, "SLP_EN reads as 0")
        #expect(machine.requests.isEmpty)
    }

    @Test func softOff() {
        let device = make()
        device.write(offset: 4, width: .word, value: 5 << 10)
        #expect(machine.requests.isEmpty)
        device.write(offset: 4, width: .word, value: 5 << 10 | 1 << 13)
        #expect(machine.requests == [.powerOff])
        device.write(offset: 5, width: .byte, value: 5 << 2 | 1 << 5)
        #expect(machine.requests == [.powerOff, .powerOff])
    }

    @Test func resetRegister() {
        let device = make()
        device.write(offset: ACPIPowerManagement.resetOffset, width: .byte, value: 1)
        #expect(machine.requests.isEmpty)
        device.write(
            offset: ACPIPowerManagement.resetOffset, width: .byte, value: UInt64(ACPIPowerManagement.resetValue))
        #expect(machine.requests == [.reset])
    }

    @Test func powerButton() {
        let device = make()
        device.pressPowerButton()
        #expect(!sci.isHigh)
        #expect(device.read(offset: 0, width: .word) == 0x100)
        device.write(offset: 2, width: .word, value: 0xFFFF)
        #expect(sci.isHigh)
        #expect(device.read(offset: 2, width: .word) == 0x521, "only events there are can be enabled")
        device.write(offset: 0, width: .word, value: 0xFEFF)
        #expect(sci.isHigh)
        device.write(offset: 0, width: .word, value: 0x100)
        #expect(!sci.isHigh)
        device.pressPowerButton()
        #expect(sci.isHigh && sci.risingEdges == 2)
    }

    @Test func realTimeClockStatus() {
        let device = make()
        device.write(offset: 3, width: .byte, value: 4)
        device.raiseRealTimeClockAlarm()
        #expect(sci.isHigh)
        device.write(offset: 1, width: .byte, value: 4)
        #expect(!sci.isHigh)
    }

    @Test func generalEvents() {
        let device = make()
        device.raiseGeneralEvent(9)
        device.raiseGeneralEvent(16)
        #expect(device.read(offset: 0x20, width: .long) == 0x200)
        device.write(offset: 0x23, width: .byte, value: 0x02)
        #expect(sci.isHigh)
        device.write(offset: 0x21, width: .byte, value: 0x02)
        #expect(!sci.isHigh)
        #expect(device.read(offset: 0x20, width: .long) == 0x0200_0000)
    }

    @Test func theTimerIsExactAndOfItsWidth() {
        for wide in [true, false] {
            let device = make(wide: wide)
            // 315,000,000 ticks in 88 s.
            clock.advance(by: 88_000_000_000)
            let expected: UInt64 = wide ? 315_000_000 : 315_000_000 & 0xFF_FFFF
            #expect(device.read(offset: 8, width: .long) == expected)
            clock.advance(by: 88_000_000_000 * 100_000)
            #expect(device.read(offset: 8, width: .long) == 315_000_000 * 100_001 & (wide ? 0xFFFF_FFFF : 0xFF_FFFF))
        }
    }

    @Test func timerOverflowInterruptsAtEachTurnOfTheHighestBit() {
        for (wide, half): (Bool, UInt64) in [(true, 1 << 31), (false, 1 << 23)] {
            let device = make(wide: wide)
            let before = sci.risingEdges
            #expect(clock.nextDeadline == nil)
            device.write(offset: 2, width: .word, value: 1)
            for turn in 1...3 {
                let period = half * 17_600 / 63
                clock.advance(by: period - 1_000_000)
                #expect(!sci.isHigh)
                clock.advance(by: 1_000_001)
                #expect(sci.isHigh && sci.risingEdges == before + turn)
                let count = device.read(offset: 8, width: .long)
                #expect((count & half != 0) == (turn % 2 == 1))
                device.write(offset: 0, width: .word, value: 1)
                #expect(!sci.isHigh)
            }
            device.write(offset: 2, width: .word, value: 0)
            #expect(clock.nextDeadline == nil)
        }
    }

    @Test func statusIsSetWithoutItsEnable() {
        let device = make(wide: false)
        clock.advance(by: 3_000_000_000)
        #expect(device.read(offset: 0, width: .byte) == 1)
        device.write(offset: 2, width: .byte, value: 1)
        #expect(sci.isHigh)
    }

    @Test func hostileAccesses() {
        for seed in UInt64(1)...10 {
            var random = SeededGenerator(seed: seed)
            let device = make(wide: seed % 2 == 0)
            for _ in 0..<3000 {
                let width = AccessWidth.allCases.randomElement(using: &random) ?? .byte
                let offset = [UInt64.random(in: 0...0x30, using: &random), .max, .max - 3].randomElement(using: &random) ?? 0
                if Bool.random(using: &random) {
                    _ = device.read(offset: offset, width: width)
                } else {
                    device.write(offset: offset, width: width, value: .random(in: 0...(.max), using: &random))
                }
                device.raiseGeneralEvent(.random(in: 0...255, using: &random))
                clock.advance(by: .random(in: 0...1_000_000_000, using: &random))
            }
        }
    }

    @Test func resetControlPort() {
        let port = ResetControl(machine: machine)
        port.write(offset: 0, width: .byte, value: 0x02)
        #expect(machine.requests.isEmpty)
        #expect(port.read(offset: 0, width: .byte) == 0x02)
        port.write(offset: 0, width: .byte, value: 0x06)
        #expect(machine.requests == [.reset])
        #expect(port.read(offset: 0, width: .byte) == 0x02)
        port.write(offset: 0, width: .byte, value: 0xFF)
        #expect(machine.requests == [.reset, .reset])
    }
}

@Suite struct FanOutLineTests {
    @Test func everyBranchFollows() {
        let branches = [RecordingLine(), RecordingLine()]
        let line = FanOutLine(branches)
        line.setLevel(true)
        #expect(branches.allSatisfy { $0.isHigh })
        line.setLevel(false)
        #expect(branches.allSatisfy { !$0.isHigh && $0.risingEdges == 1 })
    }
}
