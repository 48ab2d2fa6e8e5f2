/// Intel 8254 programmable interval timer: three 16-bit counters in six modes.
///
/// The chip counts pulses of CLK and knows nothing of seconds: every call says how many pulses there have been.
/// A call at tick `t` happens after pulse `t` and before pulse `t + 1`, so a count written at `t` is loaded by
/// pulse `t + 1`, as in the datasheet's timing diagrams.
///
/// Any stretch of time is crossed in constant time, whatever the counts.
///
/// Not emulated: a count of 1 in modes 2 and 3, which the datasheet forbids, counts as 2. BCD digits above 9,
/// also forbidden, count with their weight. A counter that has a mode and no count stands still, its OUT
/// as the mode begins. Source: [8254].
public struct PIT8254: Hashable, Sendable {
    /// What a call did to the outputs.
    public struct Effects: Hashable, Sendable {
        /// Bit n: OUT n rose, at least once, since the last call.
        public var rising: UInt8 = 0
        /// Whether OUT of `counter` rose.
        public func rose(_ counter: Int) -> Bool { rising >> UInt8(truncatingIfNeeded: counter & 7) & 1 != 0 }
    }

    private var counters = [PITCounter](repeating: PITCounter(), count: 3)
    private var tick: UInt64

    /// As after power-on: no mode has been set, every OUT is high, and GATE 0 and 1 are tied high as on a PC.
    public init(tick: UInt64 = 0) {
        self.tick = tick
        counters[2].gate = false
    }

    /// Brings the chip to `tick`. An earlier tick than the last is taken for the last.
    public mutating func advance(to tick: UInt64) -> Effects {
        count(to: tick)
        return takeEffects()
    }

    private mutating func count(to tick: UInt64) {
        guard tick > self.tick else { return }
        let clocks = tick &- self.tick
        for index in counters.indices { counters[index].advance(by: clocks) }
        self.tick = tick
    }

    private mutating func takeEffects() -> Effects {
        var effects = Effects()
        for index in counters.indices where counters[index].rose {
            counters[index].rose = false
            effects.rising |= 1 << UInt8(index)
        }
        return effects
    }

    /// Reads one register.
    ///
    /// - Parameter register: 0-2 a counter, 3 the control word, which cannot be read: all ones. Higher bits are ignored.
    /// Side effects: consumes a latched status or count, and moves on from the low byte to the high one.
    public mutating func read(register: UInt8, at tick: UInt64) -> (value: UInt8, effects: Effects) {
        let effects = advance(to: tick)
        let index = Int(register & 3)
        guard index < counters.count else { return (0xFF, effects) }
        return (counters[index].read(), effects)
    }

    /// Writes one register: 0-2 a counter's count, 3 the control word. Higher bits of `register` are ignored.
    public mutating func write(_ value: UInt8, register: UInt8, at tick: UInt64) -> Effects {
        count(to: tick)
        let index = Int(register & 3)
        if index < counters.count {
            counters[index].writeCount(value)
        } else {
            writeControl(value)
        }
        return takeEffects()
    }

    /// Drives a GATE pin.
    public mutating func setGate(_ isHigh: Bool, counter: Int, at tick: UInt64) -> Effects {
        count(to: tick)
        if counters.indices.contains(counter) { counters[counter].setGate(isHigh) }
        return takeEffects()
    }

    /// The level of OUT, as of the last call. A counter that does not exist is low.
    public func out(counter: Int) -> Bool { counters.indices.contains(counter) && counters[counter].out }

    /// The tick at which OUT will next rise if nobody touches the chip; nil if it never will.
    public func nextRise(counter: Int) -> UInt64? {
        guard counters.indices.contains(counter), let clocks = counters[counter].clocksToRise() else { return nil }
        let (sum, overflow) = tick.addingReportingOverflow(clocks)
        return overflow ? nil : sum
    }

    /// The control word.
    /// ```
    ///  7  6   5  4   3  2  1   0
    /// [ SC ] [ RW ] [  mode ] BCD     RW = 0: latch the count of SC
    ///  1  1  /C /S   2  1  0   0      read-back: /C latch counts, /S latch statuses, of the counters selected
    /// ```
    private mutating func writeControl(_ value: UInt8) {
        let select = Int(value >> 6)
        guard select == 3 else {
            if value & 0x30 == 0 {
                counters[select].latchCount()
            } else {
                counters[select].setMode(control: value & 0x3F)
            }
            return
        }
        for index in counters.indices where value >> UInt8(index + 1) & 1 != 0 {
            if value & 0x20 == 0 { counters[index].latchCount() }
            if value & 0x10 == 0 { counters[index].latchStatus() }
        }
    }
}

/// One counter of an 8254. CR and CE are the datasheet's count register and counting element.
struct PITCounter: Hashable, Sendable {
    /// RW, mode and BCD, as the status byte shows them.
    private var control: UInt8 = 0x36
    /// A count is written in one byte or two; the low one waits here.
    private var lowByte: UInt8?
    private var cr: UInt64 = 0
    /// A count has been written since the mode was.
    private var hasCount = false
    /// Counts down to 0. Loaded with 65,536 (10,000) for a written 0, which reads the same.
    private var ce: UInt64 = 0
    /// CE holds a count of this mode.
    private var isLoaded = false
    /// The next CLK moves CR into CE.
    private var loadPending = false
    private var nullCount = false
    /// Mode 0, between the two bytes of a count: counting is off.
    private var halted = false
    /// Modes 4 and 5: the strobe of this load is still to come.
    private var strobeArmed = false
    /// Mode 3: the count of this half-cycle was odd, so a high half lasts one CLK longer.
    private var isOdd = false

    private var latchedCount: UInt16?
    private var latchedStatus: UInt8?
    private var readsHighByte = false
    private var readsHighLatch = false

    var gate = true
    private(set) var out = true
    /// OUT rose since somebody cleared this.
    var rose = false

    /// Modes 6 and 7 are 2 and 3: the top bit is not decoded there. Source: [8254], Control Word Format.
    private var mode: UInt8 {
        let bits = control >> 1 & 7
        return bits > 5 ? bits & 3 : bits
    }
    private var isBCD: Bool { control & 1 != 0 }
    private var modulus: UInt64 { isBCD ? 10_000 : 65_536 }

    private mutating func setOut(_ level: Bool) {
        if level && !out { rose = true }
        out = level
    }

    // MARK: What the bus does

    mutating func setMode(control: UInt8) {
        self.control = control
        lowByte = nil
        hasCount = false
        isLoaded = false
        loadPending = false
        nullCount = true
        halted = false
        strobeArmed = false
        latchedCount = nil
        latchedStatus = nil
        readsHighByte = false
        readsHighLatch = false
        setOut(mode != 0)
    }

    mutating func writeCount(_ value: UInt8) {
        // Mode 0: OUT falls with the first byte written. Source: [8254], Mode 0.
        if mode == 0 { setOut(false) }
        switch control >> 4 & 3 {
        case 1: finishCount(UInt16(value))
        case 2: finishCount(UInt16(value) << 8)
        default:
            if let low = lowByte {
                lowByte = nil
                finishCount(UInt16(value) << 8 | UInt16(low))
            } else {
                lowByte = value
                if mode == 0 { halted = true }
            }
        }
    }

    private mutating func finishCount(_ raw: UInt16) {
        let count = isBCD ? Self.fromBCD(raw) : UInt64(raw)
        cr = count == 0 ? modulus : count
        if cr == 1, mode == 2 || mode == 3 { cr = 2 }
        halted = false
        nullCount = true
        hasCount = true
        switch mode {
        case 0, 4: loadPending = true
        // A new count waits for the end of the cycle; only the first is loaded at once.
        case 2, 3: if !isLoaded { loadPending = true }
        // Waits for a trigger.
        default: break
        }
    }

    mutating func setGate(_ isHigh: Bool) {
        guard isHigh != gate else { return }
        gate = isHigh
        switch mode {
        case 1, 5:
            if isHigh && hasCount { loadPending = true }
        case 2, 3:
            if isHigh {
                if hasCount { loadPending = true }
            } else {
                setOut(true)
            }
        default: break
        }
    }

    mutating func latchCount() {
        guard latchedCount == nil else { return }
        latchedCount = currentCount
        readsHighLatch = false
    }

    /// ```
    ///  7    6     5  4   3  2  1   0
    /// OUT  null  [ RW ] [  mode ] BCD
    /// ```
    mutating func latchStatus() {
        guard latchedStatus == nil else { return }
        latchedStatus = (out ? 0x80 : 0) | (nullCount ? 0x40 : 0) | control
    }

    mutating func read() -> UInt8 {
        if let status = latchedStatus {
            latchedStatus = nil
            return status
        }
        let access = control >> 4 & 3
        if let count = latchedCount {
            let high = access == 2 || (access == 3 && readsHighLatch)
            if access == 3 && !readsHighLatch { readsHighLatch = true } else { latchedCount = nil }
            return UInt8(truncatingIfNeeded: high ? count >> 8 : count)
        }
        let high = access == 2 || (access == 3 && readsHighByte)
        if access == 3 { readsHighByte.toggle() }
        return UInt8(truncatingIfNeeded: high ? currentCount >> 8 : currentCount)
    }

    private var currentCount: UInt16 {
        let count = ce % modulus
        return isBCD ? Self.toBCD(count) : UInt16(truncatingIfNeeded: count)
    }

    private static func fromBCD(_ raw: UInt16) -> UInt64 {
        let raw = UInt64(raw)
        return (raw >> 12) &* 1000 &+ (raw >> 8 & 15) &* 100 &+ (raw >> 4 & 15) &* 10 &+ (raw & 15)
    }

    private static func toBCD(_ count: UInt64) -> UInt16 {
        UInt16(truncatingIfNeeded: (count / 1000 % 10) << 12 | (count / 100 % 10) << 8 | (count / 10 % 10) << 4 | count % 10)
    }

    // MARK: What CLK does

    mutating func advance(by clocks: UInt64) {
        var clocks = clocks
        if loadPending, clocks > 0 {
            load()
            clocks &-= 1
        }
        guard clocks > 0 else { return }
        // A strobe lasts one CLK, whatever GATE does.
        if mode >= 4, !out { setOut(true) }
        if isCounting { count(clocks) }
    }

    /// CR into CE: takes the CLK it happens on.
    private mutating func load() {
        loadPending = false
        isLoaded = true
        nullCount = false
        ce = cr
        switch mode {
        case 0: break
        case 1: setOut(false)
        case 3: reloadSquareWave(high: true)
        case 4, 5:
            strobeArmed = true
            setOut(true)
        default: setOut(true)
        }
    }

    /// GATE's level stops modes 0, 2, 3 and 4; in modes 1 and 5 only its edges mean anything.
    private var isCounting: Bool { isLoaded && !halted && (gate || mode == 1 || mode == 5) }

    private mutating func count(_ clocks: UInt64) {
        switch mode {
        case 2: countRate(clocks)
        case 3: countSquareWave(clocks)
        default: countDown(clocks)
        }
    }

    /// Pulses until CE is 0: a whole round if it is 0 now.
    private var clocksToZero: UInt64 { ce == 0 ? modulus : ce }

    private mutating func countDown(_ clocks: UInt64) {
        let distance = clocksToZero
        guard clocks >= distance else {
            ce = distance &- clocks
            return
        }
        let past = (clocks &- distance) % modulus
        ce = past == 0 ? 0 : modulus &- past
        if mode < 4 {
            setOut(true)
        } else if strobeArmed {
            strobeArmed = false
            setOut(false)
            if clocks > distance { setOut(true) }
        }
    }

    /// Mode 2: N, N-1, ... 1, with OUT low at 1, and again.
    private mutating func countRate(_ clocks: UInt64) {
        var clocks = clocks
        if clocks >= ce {
            clocks = (clocks &- ce) % cr
            ce = cr
            nullCount = false
            // At its lowest CE was 1, so OUT was low, however briefly.
            setOut(false)
            setOut(true)
        }
        ce &-= clocks
        setOut(ce != 1)
    }

    /// Mode 3: CE goes down by two and is reloaded each time OUT turns over.
    private mutating func countSquareWave(_ clocks: UInt64) {
        var clocks = clocks
        // Two turns bring CR into both halves; from there on whole periods change nothing.
        for turn in 0... {
            let half = clocksToTurn
            guard clocks >= half else { break }
            clocks &-= half
            reloadSquareWave(high: !out)
            if turn == 1 {
                if clocks >= cr { rose = true }
                clocks %= cr
            }
        }
        ce &-= clocks &* 2
    }

    /// An even count holds OUT high and low for half each. An odd one is loaded less one, and holds OUT high
    /// for one CLK more. Source: [8254], Mode 3.
    private mutating func reloadSquareWave(high: Bool) {
        nullCount = false
        isOdd = cr & 1 != 0
        ce = cr & ~1
        setOut(high)
    }

    private var clocksToTurn: UInt64 { ce / 2 &+ (isOdd && out ? 1 : 0) }

    /// Pulses until OUT next rises; nil if it never will.
    func clocksToRise() -> UInt64? {
        var after = self
        var clocks: UInt64 = 0
        if loadPending {
            after.load()
            clocks = 1
            if after.out && !out { return 1 }
        }
        if mode >= 4, !after.out { return clocks &+ 1 }
        guard after.isCounting else { return nil }
        switch mode {
        case 0, 1: return after.out ? nil : clocks &+ after.clocksToZero
        case 2: return clocks &+ after.ce
        case 3:
            clocks &+= after.clocksToTurn
            guard after.out else { return clocks }
            after.reloadSquareWave(high: false)
            return clocks &+ after.clocksToTurn
        default: return after.strobeArmed ? clocks &+ after.clocksToZero &+ 1 : nil
        }
    }
}
