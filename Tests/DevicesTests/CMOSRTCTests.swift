import Testing
import VMCore
import MonitorTesting

@testable import Devices

private let second = CMOSRTC.ticksPerSecond
private let ticksPerSecond = CMOSRTC.ticksPerSecond



extension CMOSRTC {
    fileprivate mutating func time(at tick: UInt64) -> [UInt8] {
        [0x32, 9, 8, 7, 4, 2, 0, 6].map { read($0, at: tick) }
    }
}

@Suite struct CalendarDateTests {
    /// Every day of the four centuries that the calendar repeats after, walked one by one.
    @Test func fourHundredYearsOfDays() {
        let lengths: [Int64] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        var seconds: Int64 = 0
        var weekday: Int64 = 4
        for year in Int64(1970)..<2370 {
            let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
            for month in Int64(1)...12 {
                for day in 1...(lengths[Int(month) - 1] + (isLeap && month == 2 ? 1 : 0)) {
                    let expected = CalendarDate(year: year, month: month, day: day, hour: 23, minute: 59, second: 58)
                    guard CalendarDate(secondsSince1970: seconds + 86_398) == expected,
                        expected.secondsSince1970 == seconds + 86_398,
                        CalendarDate.weekday(secondsSince1970: seconds) == weekday
                    else {
                        Issue.record("\(year)-\(month)-\(day)")
                        return
                    }
                    seconds += 86_400
                    weekday = (weekday + 1) % 7
                }
            }
        }
        #expect(seconds == 146_097 * 86_400)
    }

    @Test func beforeTheEpochAndAtTheEnds() {
        let date = CalendarDate(secondsSince1970: -1)
        #expect(date == CalendarDate(year: 1969, month: 12, day: 31, hour: 23, minute: 59, second: 59))
        for seconds in [Int64.min, .max] { _ = CalendarDate(secondsSince1970: seconds).secondsSince1970 }
    }
}

@Suite struct CMOSRTCTests {
    // 2024-02-29 12:34:56, a Thursday.
    private func chip() -> CMOSRTC { CMOSRTC(secondsSince1970: 1_709_210_096) }

    @Test func bcdTimeAndCentury() {
        var chip = chip()
        #expect(chip.time(at: 0) == [0x20, 0x24, 0x02, 0x29, 0x12, 0x34, 0x56, 5])
        #expect(chip.time(at: second * 4) == [0x20, 0x24, 0x02, 0x29, 0x12, 0x35, 0x00, 5])
        #expect(chip.time(at: second * 4 + second * 86_400) == [0x20, 0x24, 0x03, 0x01, 0x12, 0x35, 0x00, 6])
    }

    @Test func binaryAndTwelveHours() {
        var chip = chip()
        chip.write(0x06, 0x0B, at: 0)
        #expect(chip.time(at: 0) == [20, 24, 2, 29, 12, 34, 56, 5])
        chip.write(0x00, 0x0B, at: 0)
        var hours: [UInt8] = []
        for hour in UInt64(0)..<24 { hours.append(chip.read(4, at: hour * 3600 * second)) }
        #expect(
            hours == [
                0x92, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x90, 0x91,
                0x12, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x10, 0x11,
            ])
    }

    @Test func setStopsTheClockAndTheNewTimeRuns() {
        var chip = chip()
        chip.write(0x92, 0x0B, at: 0)
        #expect(chip.read(0x0B, at: 0) == 0x82, "SET clears UIE")
        #expect(chip.read(0, at: second * 10) == 0x56)
        // 1999-12-31 23:59:58, called a Sunday though it was a Friday.
        for (index, value) in [(9, 0x99), (8, 0x12), (7, 0x31), (6, 1), (4, 0x23), (2, 0x59), (0, 0x58), (0x32, 0x19)] {
            chip.write(UInt8(value), UInt8(index), at: second * 10)
        }
        #expect(chip.time(at: second * 20) == [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58, 1])
        chip.write(0x02, 0x0B, at: second * 20 + 5)
        #expect(chip.time(at: second * 21 - 1) == [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58, 1])
        #expect(chip.time(at: second * 21) == [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59, 1])
        #expect(chip.time(at: second * 22) == [0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00, 2])
    }

    @Test func updateInProgressLeadsTheUpdate() {
        var chip = chip()
        #expect(chip.read(0x0A, at: second - 9) & 0x80 == 0)
        for tick in (second - 8)..<second { #expect(chip.read(0x0A, at: tick) & 0x80 != 0) }
        #expect(chip.read(0, at: second - 1) == 0x56)
        #expect(chip.read(0x0A, at: second) & 0x80 == 0)
        #expect(chip.read(0, at: second) == 0x57)
        chip.write(0x82, 0x0B, at: second)
        #expect(chip.read(0x0A, at: 2 * second - 1) & 0x80 == 0)
    }

    @Test func theFirstUpdateAfterADividerResetIsHalfASecondAway() {
        var chip = chip()
        chip.write(0x76, 0x0A, at: 100)
        #expect(chip.read(0, at: second * 50) == 0x56)
        chip.write(0x26, 0x0A, at: second * 50 + 7)
        #expect(chip.read(0, at: second * 50 + 7 + second / 2 - 1) == 0x56)
        #expect(chip.read(0, at: second * 50 + 7 + second / 2) == 0x57)
    }

    @Test(arguments: 0...15) func periodicRates(rate: Int) {
        var chip = chip()
        chip.write(0x20 | UInt8(rate), 0x0A, at: 0)
        chip.write(0x42, 0x0B, at: 0)
        let hertz: [UInt64] = [0, 256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2]
        guard hertz[rate] > 0 else {
            #expect(chip.nextInterrupt == nil)
            return
        }
        var tick: UInt64 = 0
        var count: UInt64 = 0
        while let next = chip.nextInterrupt, next <= 3 * second {
            tick = next
            chip.advance(to: tick)
            #expect(chip.interrupt)
            #expect(chip.nextInterrupt == nil)
            #expect(chip.read(0x0C, at: tick) & 0xC0 == 0xC0)
            #expect(!chip.interrupt)
            #expect(chip.read(0x0C, at: tick) == 0)
            count += 1
        }
        #expect(count == 3 * hertz[rate])
    }

    @Test func flagsAreSetWithoutTheirEnablesAndInterruptWhenEnabled() {
        var chip = chip()
        chip.advance(to: second)
        #expect(!chip.interrupt)
        chip.write(0x12, 0x0B, at: second)
        #expect(chip.interrupt)
        #expect(chip.read(0x0C, at: second) & 0x90 == 0x90)
        #expect(chip.nextInterrupt == 2 * second)
    }

    @Test func alarms() {
        // (second, minute, hour alarm bytes, seconds from 12:34:56)
        let cases: [(UInt8, UInt8, UInt8, UInt64)] = [
            (0x57, 0x34, 0x12, 1), (0x56, 0x34, 0x12, 86_400), (0xFF, 0xFF, 0xFF, 1), (0x00, 0xC0, 0xFF, 4),
            (0x56, 0xFF, 0xFF, 60), (0x00, 0x00, 0xFF, 25 * 60 + 4), (0x00, 0x00, 0x12, 86_400 - 34 * 60 - 56),
            (0xFF, 0x34, 0x12, 1), (0xFF, 0x35, 0x12, 4), (0x10, 0x20, 0x13, 2714), (0xFF, 0xFF, 0x13, 25 * 60 + 4),
        ]
        for (second, minute, hour, distance) in cases {
            var chip = chip()
            chip.write(second, 1, at: 0)
            chip.write(minute, 3, at: 0)
            chip.write(hour, 5, at: 0)
            chip.write(0x22, 0x0B, at: 0)
            #expect(chip.nextInterrupt == distance * ticksPerSecond, "\(hour):\(minute):\(second)")
            chip.advance(to: distance * ticksPerSecond - 1)
            #expect(!chip.interrupt)
            chip.advance(to: distance * ticksPerSecond)
            #expect(chip.interrupt)
            #expect(chip.read(0x0C, at: distance * ticksPerSecond) & 0xA0 == 0xA0)
        }
    }

    @Test func alarmsThatAreNoTimeNeverCome() {
        for bytes: [UInt8] in [[0x60, 0, 0], [0, 0x60, 0], [0, 0, 0x24], [0xBF, 0, 0]] {
            var chip = chip()
            for (place, value) in bytes.enumerated() { chip.write(value, UInt8(place * 2 + 1), at: 0) }
            chip.write(0x22, 0x0B, at: 0)
            #expect(chip.nextInterrupt == nil)
            chip.advance(to: second * 200_000)
            #expect(!chip.interrupt)
        }
    }

    @Test func aLongSleepAlarmsOnce() {
        var chip = chip()
        chip.write(0x22, 0x0B, at: 0)
        chip.advance(to: second * 86_400 * 10_000)
        #expect(chip.interrupt)
        #expect(chip.read(0, at: second * 86_400 * 10_000) == 0x56)
    }

    @Test func memoryBytes() {
        var chip = chip()
        chip.setMemorySize(low: 256 << 20, high: 5 << 30)
        func word(_ index: UInt8) -> Int { Int(chip.read(index, at: 0)) | Int(chip.read(index + 1, at: 0)) << 8 }
        #expect(word(0x15) == 640)
        #expect(word(0x17) == 0xFFFF)
        #expect(word(0x30) == 0xFFFF)
        #expect(word(0x34) == 240 * 16)
        #expect(word(0x5B) == 5 << 14 & 0xFFFF)
        #expect(chip.read(0x5D, at: 0) == 1)
        chip.setMemorySize(low: 0, high: .max)
        chip.write(0x5A, 0x0F, at: 0)
        #expect(chip.read(0x0F, at: 0) == 0x5A)
        #expect(chip.read(0x0D, at: 0) == 0x80)
        chip.write(0, 0x0D, at: 0)
        #expect(chip.read(0x8D, at: 0) == 0x80)
    }

    @Test func anyDateTheGuestSetsIsHarmless() {
        for seed in UInt64(1)...40 {
            var random = SeededGenerator(seed: seed)
            var chip = chip()
            var tick: UInt64 = 0
            for _ in 0..<3000 {
                let index = UInt8.random(in: 0...255, using: &random) & (Bool.random(using: &random) ? 0x0F : 0xFF)
                if Int.random(in: 0..<4, using: &random) == 0 {
                    _ = chip.read(index, at: tick)
                } else {
                    chip.write(.random(in: 0...255, using: &random), index, at: tick)
                }
                if let next = chip.nextInterrupt { #expect(next > tick, "seed \(seed)") }
                tick &+= UInt64.random(in: 0...(1 << UInt64.random(in: 0...44, using: &random)), using: &random)
            }
            chip.write(0x26, 0x0A, at: tick)
            chip.write(0x22, 0x0B, at: tick)
            chip.advance(to: .max)
            _ = chip.time(at: .max)
            _ = chip.nextInterrupt
        }
    }

    /// What `nextInterrupt` promises is what `advance` does, whatever the state.
    @Test func predictionsHold() {
        for seed in UInt64(1)...200 {
            var random = SeededGenerator(seed: seed)
            var chip = CMOSRTC(
                secondsSince1970: .random(in: 0...4_000_000_000, using: &random),
                fraction: .random(in: 0..<second, using: &random))
            let mode: UInt8 = [0, 2, 4, 6].randomElement(using: &random) ?? 2
            for index: UInt8 in [1, 3, 5] { chip.write(.random(in: 0...255, using: &random), index, at: 0) }
            chip.write(mode | [0x20, 0x30, 0x70].randomElement(using: &random)!, 0x0B, at: 0)
            guard let next = chip.nextInterrupt else { continue }
            var early = chip
            early.advance(to: next - 1)
            #expect(!early.interrupt, "seed \(seed)")
            #expect(early.nextInterrupt == next, "seed \(seed)")
            chip.advance(to: next)
            #expect(chip.interrupt, "seed \(seed)")
        }
    }
}



@Suite struct RealTimeClockTests {
    let clock = FakeClock(time: 250_000_000)
    let line = RecordingLine()

    private func read(_ rtc: RealTimeClock, _ index: UInt64) -> UInt64 {
        rtc.write(offset: 0, width: .byte, value: index)
        return rtc.read(offset: 1, width: .byte)
    }
    private func write(_ rtc: RealTimeClock, _ index: UInt64, _ value: UInt64) {
        rtc.write(offset: 0, width: .byte, value: index)
        rtc.write(offset: 1, width: .byte, value: value)
    }
    private func make() -> RealTimeClock {
        RealTimeClock(line: line, clock: clock, wallClock: clock, alarms: clock, memoryBelow4GiB: 64 << 20)
    }

    @Test func startsAtTheWallClockWithItsFraction() {
        let rtc = make()
        #expect(read(rtc, 0) == 0x56)
        clock.advance(by: 749_000_000)
        #expect(read(rtc, 0) == 0x56)
        clock.advance(by: 2_000_000)
        #expect(read(rtc, 0x80) == 0x57)
        #expect(rtc.read(offset: 0, width: .byte) == 0xFF)
    }

    @Test func updateInterruptsComeOnceASecondAndWaitForTheGuest() {
        let rtc = make()
        write(rtc, 0x0B, 0x12)
        clock.advance(by: 10_000_000_000)
        #expect(line.risingEdges == 1)
        for count in 2...11 {
            #expect(read(rtc, 0x0C) & 0x90 == 0x90)
            #expect(!line.isHigh)
            clock.advance(by: 1_000_000_000)
            #expect(line.risingEdges == count)
        }
    }

    @Test func alarmInterrupts() {
        let rtc = make()
        for (index, value): (UInt64, UInt64) in [(1, 0x00), (3, 0x40), (5, 0xFF), (0x0B, 0x22)] { write(rtc, index, value) }
        clock.advance(by: 303_000_000_000)
        #expect(!line.isHigh)
        clock.advance(by: 1_000_000_000)
        #expect(line.isHigh)
        #expect(read(rtc, 2) == 0x40)
        write(rtc, 0x0B, 0x02)
        #expect(!line.isHigh)
        #expect(clock.nextDeadline == nil)
    }

    @Test func hostileAccesses() {
        for seed in UInt64(1)...10 {
            var random = SeededGenerator(seed: seed)
            let rtc = make()
            for _ in 0..<3000 {
                let width = AccessWidth.allCases.randomElement(using: &random) ?? .byte
                let offset = UInt64.random(in: 0...3, using: &random)
                if Bool.random(using: &random) {
                    _ = rtc.read(offset: offset, width: width)
                } else {
                    rtc.write(offset: offset, width: width, value: .random(in: 0...(.max), using: &random))
                }
                clock.advance(by: .random(in: 0...10_000_000, using: &random))
            }
        }
    }
}
