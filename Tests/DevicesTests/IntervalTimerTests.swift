import Devices
import Testing
import VMCore
import MonitorTesting

@Suite struct IntervalTimerTests {
    let clock = FakeClock(time: 12_345)
    let line = RecordingLine()

    private func makeTimer() -> IntervalTimer { IntervalTimer(line: line, clock: clock, alarms: clock) }

    private func program(_ timer: IntervalTimer, control: UInt64, count: UInt64) {
        timer.write(offset: 3, width: .byte, value: control)
        let counter = control >> 6
        timer.write(offset: counter, width: .byte, value: count & 0xFF)
        timer.write(offset: counter, width: .byte, value: count >> 8)
    }

    @Test func nothingHappensBeforeItIsProgrammed() {
        let timer = makeTimer()
        for offset in UInt64(0)..<4 { _ = timer.read(offset: offset, width: .byte) }
        clock.advance(by: 1_000_000_000)
        #expect(line.risingEdges == 0)
        program(timer, control: 0x34, count: 1000)
        #expect(line.risingEdges == 0)
        clock.advance(by: 900_000)
        #expect(line.risingEdges == 1)
    }

    @Test func periodicTicksDoNotDrift() {
        let timer = makeTimer()
        // HZ = 100: 11,932 ticks. In 88 s there are exactly 105,000,000 ticks.
        program(timer, control: 0x34, count: 11_932)
        let before = line.risingEdges
        for _ in 0..<880 { clock.advance(by: 100_000_000) }
        #expect(line.risingEdges - before == 105_000_000 / 11_932)
        #expect(line.isHigh)
    }

    @Test func squareWaveAlsoInterruptsOncePerPeriod() {
        let timer = makeTimer()
        program(timer, control: 0x36, count: 0)
        let before = line.risingEdges
        // 65,536 ticks are 54.925 ms.
        clock.advance(by: 1_000_000_000)
        #expect(line.risingEdges - before == 18)
    }

    @Test func oneShotAsLinuxProgramsIt() {
        let timer = makeTimer()
        program(timer, control: 0x38, count: 1193)
        let before = line.risingEdges
        clock.advance(by: 999_000)
        #expect(line.risingEdges == before)
        clock.advance(by: 10_000)
        #expect(line.risingEdges == before + 1)
        clock.advance(by: 1_000_000_000)
        #expect(line.risingEdges == before + 1)
        #expect(clock.nextDeadline == nil)
    }

    @Test func tinyCountsCannotStormTheHost() {
        let timer = makeTimer()
        for control: UInt64 in [0x34, 0x36] {
            program(timer, control: control, count: 2)
            let before = line.risingEdges
            clock.advance(by: 1_000_000_000)
            let edges = line.risingEdges - before
            #expect((4990...5001).contains(edges), "mode \(control >> 1 & 7): \(edges)")
        }
        // And a sane count afterwards is exact again.
        program(timer, control: 0x34, count: 11_932)
        clock.advance(by: 1_000_000_000)
        let before = line.risingEdges
        clock.advance(by: 88_000_000_000)
        #expect(abs(line.risingEdges - before - 8800) <= 1)
    }

    @Test func alarmsAreOnlySetWhileTheCounterWillRise() {
        let timer = makeTimer()
        #expect(clock.nextDeadline == nil)
        timer.write(offset: 3, width: .byte, value: 0x34)
        #expect(clock.nextDeadline == nil)
        program(timer, control: 0x34, count: 100)
        #expect(clock.nextDeadline != nil)
        timer.write(offset: 3, width: .byte, value: 0x34)
        #expect(clock.nextDeadline == nil)
    }

    /// What Linux does to learn the processor's frequency: counter 2 in mode 0, gated and watched through port 0x61.
    @Test func calibrationThroughPortB() {
        let timer = makeTimer()
        let portB = SystemControlPortB(timer: timer)
        portB.write(offset: 0, width: .byte, value: (portB.read(offset: 0, width: .byte) & ~2) | 1)
        let latch: UInt64 = 59_659  // 50 ms
        program(timer, control: 0xB0, count: latch)
        let start = clock.now()
        var polls = 0
        while portB.read(offset: 0, width: .byte) & 0x20 == 0, polls < 1_000_000 {
            clock.advance(by: 500)
            polls += 1
        }
        let elapsed = clock.now() - start
        // N + 1 pulses, and one poll's grain.
        #expect((49_999_000...50_002_000).contains(elapsed))
    }

    @Test func gateTwoStopsTheCounter() {
        let timer = makeTimer()
        let portB = SystemControlPortB(timer: timer)
        program(timer, control: 0xB0, count: 100)
        clock.advance(by: 1_000_000)
        #expect(portB.read(offset: 0, width: .byte) & 0x2F == 0)
        portB.write(offset: 0, width: .byte, value: 0xFF)
        #expect(portB.read(offset: 0, width: .byte) & 0xCF == 0x0F)
        clock.advance(by: 90_000)
        #expect(portB.read(offset: 0, width: .byte) & 0x20 != 0)
    }

    @Test func refreshTogglesAboutEveryFifteenMicroseconds() {
        let portB = SystemControlPortB(timer: makeTimer())
        var toggles = 0
        var last = portB.read(offset: 0, width: .byte) & 0x10
        for _ in 0..<10_000 {
            clock.advance(by: 1000)
            let now = portB.read(offset: 0, width: .byte) & 0x10
            if now != last { toggles += 1 }
            last = now
        }
        #expect((660...665).contains(toggles))
    }

    @Test func hostileAccessesOfEveryWidth() {
        for seed in UInt64(1)...5 {
            var random = SeededGenerator(seed: seed)
            let timer = makeTimer()
            let portB = SystemControlPortB(timer: timer)
            for _ in 0..<5000 {
                let device: any BusDevice = Bool.random(using: &random) ? timer : portB
                let width = AccessWidth.allCases.randomElement(using: &random) ?? .byte
                let offset = UInt64.random(in: 0...8, using: &random)
                if Bool.random(using: &random) {
                    _ = device.read(offset: offset, width: width)
                } else {
                    device.write(offset: offset, width: width, value: .random(in: 0...(.max), using: &random))
                }
                clock.advance(by: .random(in: 0...100_000, using: &random))
            }
        }
    }
}
