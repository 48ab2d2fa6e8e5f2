import Testing

@testable import Devices

/// A chip with one counter under test, in two-byte access, and the tick it is at.
private struct Rig {
    var chip = PIT8254()
    var tick: UInt64 = 0
    let counter: Int

    init(counter: Int = 0) { self.counter = counter }

    mutating func control(mode: Int, access: Int = 3, bcd: Bool = false) {
        write(3, UInt8(counter << 6 | access << 4 | mode << 1 | (bcd ? 1 : 0)))
    }
    mutating func write(_ register: Int, _ value: UInt8) {
        _ = chip.write(value, register: UInt8(register), at: tick)
    }
    mutating func count(_ value: Int) {
        write(counter, UInt8(value & 0xFF))
        write(counter, UInt8(value >> 8 & 0xFF))
    }
    mutating func read() -> UInt8 { chip.read(register: UInt8(counter), at: tick).value }
    mutating func readWord() -> Int {
        let low = Int(read())
        return low | Int(read()) << 8
    }
    mutating func latchedCount() -> Int {
        write(3, UInt8(counter << 6))
        return readWord()
    }
    mutating func status() -> UInt8 {
        write(3, 0xE0 | UInt8(2 << counter))
        return read()
    }
    mutating func advance(_ clocks: UInt64) -> PIT8254.Effects {
        tick += clocks
        return chip.advance(to: tick)
    }
    var out: Bool { chip.out(counter: counter) }
}

private func bcd(_ value: Int) -> Int {
    (value / 1000 % 10) << 12 | (value / 100 % 10) << 8 | (value / 10 % 10) << 4 | value % 10
}

@Suite struct PIT8254Tests {
    @Test(arguments: 0...5) func everySmallCountClockByClock(mode: Int) {
        for count in (mode == 2 || mode == 3 ? 2 : 1)...19 {
            for isBCD in [false, true] {
                var rig = Rig()
                rig.control(mode: mode, bcd: isBCD)
                var model = PITReferenceCounter(mode: mode, isBCD: isBCD, gate: true)
                rig.count(isBCD ? bcd(count) : count)
                model.write(count: count)
                if mode == 1 || mode == 5 {
                    for level in [false, true] {
                        _ = rig.chip.setGate(level, counter: 0, at: rig.tick)
                        model.set(gate: level)
                    }
                }
                for clock in 1...(4 * count + 8) {
                    let predicted = rig.chip.nextRise(counter: 0)
                    let wasHigh = model.out
                    let effects = rig.advance(1)
                    model.clock()
                    let place: Comment = "mode \(mode), count \(count), BCD \(isBCD), clock \(clock)"
                    #expect(rig.out == model.out, place)
                    #expect(effects.rose(0) == (model.out && !wasHigh), place)
                    #expect((predicted == rig.tick) == (model.out && !wasHigh), place)
                    #expect(rig.latchedCount() == (isBCD ? bcd(model.reading) : model.reading), place)
                    #expect((rig.status() & 0x40 != 0) == model.nullCount, place)
                }
            }
        }
    }

    /// Random writes, gates and leaps: a leap of n clocks must land where n single clocks do.
    @Test(arguments: 0...5, [UInt64(1), 2, 3, 4]) func randomHistoriesAgreeWithTheModel(mode: Int, seed: UInt64) {
        var random = SeededGenerator(seed: seed &* 1000 &+ UInt64(mode))
        let isBCD = seed % 2 == 0
        var rig = Rig()
        rig.control(mode: mode, bcd: isBCD)
        var model = PITReferenceCounter(mode: mode, isBCD: isBCD, gate: true)
        for step in 0..<4000 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0:
                let limit = Bool.random(using: &random) ? 12 : 9999
                let count = Int.random(in: 2...limit, using: &random)
                rig.count(isBCD ? bcd(count) : count)
                model.write(count: count)
            case 1, 2:
                let level = Bool.random(using: &random)
                _ = rig.chip.setGate(level, counter: 0, at: rig.tick)
                model.set(gate: level)
            default:
                let clocks = Int.random(in: 0..<20, using: &random) == 0
                    ? Int.random(in: 0...30_000, using: &random) : Int.random(in: 0...30, using: &random)
                let predicted = rig.chip.nextRise(counter: 0)
                var firstRise: UInt64?
                for clock in 0..<clocks {
                    let wasHigh = model.out
                    model.clock()
                    if model.out && !wasHigh, firstRise == nil { firstRise = rig.tick + UInt64(clock) + 1 }
                }
                let effects = rig.advance(UInt64(clocks))
                let place: Comment = "mode \(mode), seed \(seed), step \(step), \(clocks) clocks"
                #expect(effects.rose(0) == (firstRise != nil), place)
                if let firstRise { #expect(predicted == firstRise, place) }
                if let predicted, predicted <= rig.tick { #expect(firstRise == predicted, place) }
            }
            let reading = rig.latchedCount()
            if reading != (isBCD ? bcd(model.reading) : model.reading) || rig.out != model.out
                || (rig.status() & 0x40 != 0) != model.nullCount
            {
                Issue.record("mode \(mode), seed \(seed), step \(step): the chip and the model disagree")
                return
            }
        }
    }

    @Test func modeZeroCountsNPlusOneClocksAndWrapsAround() {
        var rig = Rig()
        rig.control(mode: 0)
        #expect(!rig.out)
        rig.count(3)
        _ = rig.advance(3)
        #expect(!rig.out)
        let effects = rig.advance(1)
        #expect(rig.out && effects.rose(0))
        _ = rig.advance(1)
        #expect(rig.latchedCount() == 0xFFFF)
        #expect(rig.chip.nextRise(counter: 0) == nil)
    }

    @Test func modeZeroStopsBetweenTheBytesOfACount() {
        var rig = Rig()
        rig.control(mode: 0)
        rig.count(100)
        _ = rig.advance(11)
        #expect(rig.latchedCount() == 90)
        rig.write(0, 50)
        #expect(!rig.out)
        _ = rig.advance(1000)
        #expect(rig.latchedCount() == 90)
        rig.write(0, 0)
        _ = rig.advance(1)
        #expect(rig.latchedCount() == 50)
    }

    @Test func zeroIsTheLargestCount() {
        for (isBCD, clocks) in [(false, UInt64(65_536)), (true, 10_000)] {
            var rig = Rig()
            rig.control(mode: 2, bcd: isBCD)
            rig.count(0)
            _ = rig.advance(1)
            #expect(rig.latchedCount() == 0)
            #expect(rig.chip.nextRise(counter: 0) == 1 + clocks)
            _ = rig.advance(1)
            #expect(rig.latchedCount() == (isBCD ? 0x9999 : 0xFFFF))
        }
    }

    @Test func forbiddenCountOfOneIsTwo() {
        for mode in [2, 3] {
            var rig = Rig()
            rig.control(mode: mode)
            rig.count(1)
            _ = rig.advance(1)
            #expect(rig.chip.nextRise(counter: 0) == 3)
            #expect(rig.advance(1_000_000_007).rose(0))
        }
    }

    @Test func oneByteAccess() {
        var rig = Rig()
        rig.control(mode: 2, access: 1)
        rig.write(0, 0x34)
        _ = rig.advance(1)
        #expect(rig.read() == 0x34)
        #expect(rig.read() == 0x34)
        rig.control(mode: 2, access: 2)
        rig.write(0, 0x12)
        _ = rig.advance(1)
        #expect(rig.read() == 0x12)
        _ = rig.advance(1)
        #expect(rig.read() == 0x11)
    }

    @Test func aLatchHoldsUntilRead() {
        var rig = Rig()
        rig.control(mode: 2)
        rig.count(1000)
        _ = rig.advance(1)
        rig.write(3, 0x00)
        _ = rig.advance(100)
        rig.write(3, 0x00)  // ignored: the first is not read yet
        #expect(rig.readWord() == 1000)
        #expect(rig.readWord() == 900)
    }

    @Test func readBackGivesStatusThenCount() {
        var rig = Rig(counter: 2)
        _ = rig.chip.setGate(true, counter: 2, at: 0)
        rig.control(mode: 3)
        #expect(rig.status() == 0x80 | 0x40 | 0x36)
        rig.count(0x1234)
        rig.tick += 1
        rig.write(3, 0xC8)
        _ = rig.advance(50)
        #expect(rig.read() == 0x80 | 0x36)
        #expect(rig.readWord() == 0x1234)
        #expect(rig.readWord() == 0x1234 - 100)
    }

    @Test func readBackServesSeveralCountersAtOnce() {
        var chip = PIT8254()
        for counter in UInt8(0)..<3 {
            _ = chip.write(counter << 6 | 0x14, register: 3, at: 0)
            _ = chip.write(10 + counter, register: counter, at: 0)
        }
        _ = chip.write(0xDE, register: 3, at: 1)
        // GATE 2 is low, which stops mode 2 but not the loading.
        #expect((0..<3).map { chip.read(register: $0, at: 5).value } == [10, 11, 12])
        #expect((0..<3).map { chip.read(register: $0, at: 5).value } == [6, 7, 12])
        #expect(chip.read(register: 3, at: 5).value == 0xFF)
    }

    @Test func modesSixAndSevenAreTwoAndThree() {
        for (alias, mode) in [(6, 2), (7, 3)] {
            var one = Rig()
            var other = Rig()
            one.control(mode: alias)
            other.control(mode: mode)
            for clocks in [UInt64(1), 1, 2, 3, 5, 8] {
                one.count(5)
                other.count(5)
                _ = one.advance(clocks)
                _ = other.advance(clocks)
                #expect(one.out == other.out)
                #expect(one.latchedCount() == other.latchedCount())
            }
            #expect(one.status() & 0x0E == UInt8(alias << 1))
        }
    }

    @Test func anyBytesAtAnyTimeAreHarmless() {
        for seed in UInt64(1)...20 {
            var random = SeededGenerator(seed: seed)
            var chip = PIT8254()
            var tick: UInt64 = 0
            for _ in 0..<5000 {
                switch Int.random(in: 0..<4, using: &random) {
                case 0: _ = chip.read(register: UInt8.random(in: 0...255, using: &random), at: tick)
                case 1: _ = chip.setGate(.random(using: &random), counter: .random(in: -1...3, using: &random), at: tick)
                default:
                    _ = chip.write(
                        .random(in: 0...255, using: &random), register: .random(in: 0...255, using: &random), at: tick)
                }
                tick &+= UInt64.random(in: 0...(1 << UInt64.random(in: 0...48, using: &random)), using: &random)
                for counter in -1...3 {
                    if let next = chip.nextRise(counter: counter) { #expect(next > 0) }
                }
            }
            _ = chip.advance(to: .max)
            for counter in 0..<3 { _ = chip.nextRise(counter: counter) }
        }
    }
}
