/// Motorola MC146818A real-time clock, with the 128 bytes of battery-backed memory that a PC/AT has around it.
///
/// The chip counts pulses of its 32,768 Hz crystal and knows nothing of nanoseconds: every call says how many
/// there have been.
///
/// Differs from the datasheet: the update takes no time, so UIP is high only for the 244 microseconds that lead up to
/// it. Time bytes that are no date (the 40th, 25 o'clock) are read back as written until the next update, which makes
/// a date of them. The day of the week goes on from whatever was written, 1-7; else from the date's own.
/// Leap years are the calendar's, century byte included.
///
/// Not emulated: the two faster crystals (any divider setting but 010 stops the clock), the square-wave pin and daylight
/// saving (SQWE and DSE are only kept), and loss of power: VRT is always 1. Source: [MC146818A].
public struct CMOSRTC: Hashable, Sendable {
    /// Pulses in a second.
    public static let ticksPerSecond: UInt64 = 32_768
    /// UIP goes high this many pulses, 244 microseconds, before an update.
    private static let updateLead: UInt64 = 8

    private enum Register {
        static let secondAlarm: UInt8 = 1
        static let minuteAlarm: UInt8 = 3
        static let hourAlarm: UInt8 = 5
        static let a: UInt8 = 0x0A
        static let b: UInt8 = 0x0B
        static let c: UInt8 = 0x0C
        static let d: UInt8 = 0x0D
    }

    /// Where the time bytes are: second, minute, hour, day of week, day, month, year, century.
    private static let timeRegisters: [UInt8] = [0, 2, 4, 6, 7, 8, 9, 0x32]

    private enum A {
        static let uip: UInt8 = 0x80
        static let dividerMask: UInt8 = 0x70
        static let dividerRuns: UInt8 = 0x20
    }
    private enum B {
        static let set: UInt8 = 0x80
        static let uie: UInt8 = 0x10
        static let binary: UInt8 = 0x04
        static let hours24: UInt8 = 0x02
    }
    /// Flags in register C; each enable in B has its flag's place.
    private enum Flag {
        static let periodic: UInt8 = 0x40
        static let alarm: UInt8 = 0x20
        static let update: UInt8 = 0x10
        static let all: UInt8 = 0x70
    }

    /// All 128 bytes; the time registers, C and D have their truth elsewhere.
    private var memory = [UInt8](repeating: 0, count: 128)
    /// A: 32,768 Hz, periodic rate 1,024 Hz. B: 24-hour BCD. As a PC's firmware leaves them.
    private var a: UInt8 = 0x26
    private var b: UInt8 = B.hours24
    private var flags: UInt8 = 0

    private var tick: UInt64
    /// The divider chain is at zero, and an update due, whenever `tick - dividerStart` is a whole second.
    private var dividerStart: UInt64
    /// The time as of the last update. Superseded by `raw`.
    private var seconds: Int64
    /// Days that the day of the week is ahead of the calendar's.
    private var weekdayShift: Int64 = 0
    /// The time bytes as the guest left them: while SET stops the clock, and after a write until the next update.
    private var raw: [UInt8]?

    /// - Parameters:
    ///   - secondsSince1970: the time of day to start from.
    ///   - fraction: how far into that second, in pulses.
    ///   - tick: pulses so far.
    public init(secondsSince1970: Int64, fraction: UInt64 = 0, tick: UInt64 = 0) {
        seconds = secondsSince1970
        self.tick = tick
        dividerStart = tick &- (fraction % Self.ticksPerSecond)
    }

    /// Tells a guest that asks here how much memory there is, as a PC's firmware does.
    ///
    /// - Parameters:
    ///   - low: bytes below 4 GiB.
    ///   - high: bytes from 4 GiB on.
    /// Source: [CMOSMAP] 0x15-0x18, 0x30-0x31, 0x34-0x35, 0x5B-0x5D.
    public mutating func setMemorySize(low: UInt64, high: UInt64) {
        func store(_ value: UInt64, _ limit: UInt64, at registers: [Int]) {
            var value = min(value, limit)
            for register in registers where memory.indices.contains(register) {
                memory[register] = UInt8(truncatingIfNeeded: value)
                value >>= 8
            }
        }
        let mebibyte: UInt64 = 1 << 20
        // KiB below 640 KiB; KiB from 1 MiB on, twice; then 64 KiB units from 16 MiB, and from 4 GiB.
        store(low >> 10, 640, at: [0x15, 0x16])
        let extended = (low &- min(low, mebibyte)) >> 10
        store(extended, 0xFFFF, at: [0x17, 0x18])
        store(extended, 0xFFFF, at: [0x30, 0x31])
        store((low &- min(low, 16 &* mebibyte)) >> 16, 0xFFFF, at: [0x34, 0x35])
        store(high >> 16, 0xFF_FFFF, at: [0x5B, 0x5C, 0x5D])
    }

    // MARK: Interrupts

    /// IRQ, active high. The one place that decides it.
    public var interrupt: Bool { flags & b & Flag.all != 0 }

    /// The pulse at which IRQ will rise if nobody touches the chip; nil if it will not, or is high already.
    public var nextInterrupt: UInt64? {
        guard !interrupt, isRunning else { return nil }
        let elapsed = tick &- dividerStart
        var distance: UInt64?
        func consider(_ clocks: UInt64) { distance = min(distance ?? clocks, clocks) }
        if b & Flag.periodic != 0, period > 0 { consider(period &- elapsed % period) }
        if b & B.set == 0 {
            let toUpdate = Self.ticksPerSecond &- elapsed % Self.ticksPerSecond
            if b & Flag.update != 0 { consider(toUpdate) }
            if b & Flag.alarm != 0, let seconds = secondsToAlarm() {
                consider(toUpdate &+ UInt64(clamping: seconds &- 1) &* Self.ticksPerSecond)
            }
        }
        guard let distance else { return nil }
        let (sum, overflow) = tick.addingReportingOverflow(distance)
        return overflow ? nil : sum
    }

    /// Pulses between periodic interrupts; 0 for none. Source: [MC146818A], Periodic Interrupt Rate.
    private var period: UInt64 {
        switch a & 0x0F {
        case 0: 0
        // The two settings that repeat slower ones.
        case 1: 128
        case 2: 256
        case let rate: 1 << UInt64(rate &- 1)
        }
    }

    private var isRunning: Bool { a & A.dividerMask == A.dividerRuns }

    /// Brings the chip to `tick`. An earlier tick than the last is taken for the last.
    public mutating func advance(to tick: UInt64) {
        guard tick > self.tick else { return }
        let before = self.tick &- dividerStart
        self.tick = tick
        guard isRunning else {
            // A stopped divider keeps its place.
            dividerStart = tick &- before
            return
        }
        let after = tick &- dividerStart
        if period > 0, after / period != before / period { flags |= Flag.periodic }
        let updates = Int64(clamping: after / Self.ticksPerSecond &- before / Self.ticksPerSecond)
        guard updates > 0, b & B.set == 0 else { return }
        if let due = secondsToAlarm(), due <= updates { flags |= Flag.alarm }
        flags |= Flag.update
        if let bytes = raw {
            seconds = decode(bytes)
            weekdayShift = decodeWeekdayShift(bytes)
            raw = nil
        }
        seconds &+= updates
    }

    /// Seconds from the current time to the next one that the alarm bytes match, at least 1; nil if none does.
    private func secondsToAlarm() -> Int64? {
        func isAny(_ register: UInt8) -> Bool { memory[Int(register)] & 0xC0 == 0xC0 }
        func byte(_ register: UInt8) -> UInt8 { memory[Int(register)] }
        let second: Int64? = isAny(Register.secondAlarm) ? nil : number(byte(Register.secondAlarm))
        let minute: Int64? = isAny(Register.minuteAlarm) ? nil : number(byte(Register.minuteAlarm))
        let hour: Int64? = isAny(Register.hourAlarm) ? nil : alarmHour(byte(Register.hourAlarm))
        guard second ?? 0 < 60, minute ?? 0 < 60, hour ?? 0 < 24 else { return nil }

        let now = raw.map(decode) ?? seconds
        let time = CalendarDate.floorDivide(now, CalendarDate.secondsPerDay).remainder
        // A time of day is three digits, the last two of base 60: find the next that has the digits asked for.
        let start = time &+ 1
        for days in Int64(0)...1 {
            for candidateHour in Int64(0)..<24 where hour ?? candidateHour == candidateHour {
                for candidateMinute in Int64(0)..<60 where minute ?? candidateMinute == candidateMinute {
                    let base = days &* CalendarDate.secondsPerDay &+ candidateHour &* 3600 &+ candidateMinute &* 60
                    guard base &+ 59 >= start else { continue }
                    let candidate = base &+ (second ?? max(0, start &- base))
                    if candidate >= start { return candidate &- time }
                }
            }
        }
        return nil
    }

    // MARK: Registers

    /// Reads one byte; bit 7 of `index` is ignored. Side effects: reading C clears its flags, and with them IRQ.
    public mutating func read(_ index: UInt8, at tick: UInt64) -> UInt8 {
        advance(to: tick)
        let index = index & 0x7F
        switch index {
        case Register.a: return a | (updateInProgress ? A.uip : 0)
        case Register.b: return b
        case Register.c:
            let value = flags | (interrupt ? 0x80 : 0)
            flags = 0
            return value
        case Register.d: return 0x80
        default:
            if let place = Self.timeRegisters.firstIndex(of: index) { return (raw ?? encode())[place] }
            return memory[Int(index)]
        }
    }

    /// Writes one byte; bit 7 of `index` is ignored, and so are writes to C, D and UIP.
    public mutating func write(_ value: UInt8, _ index: UInt8, at tick: UInt64) {
        advance(to: tick)
        let index = index & 0x7F
        switch index {
        case Register.a: writeA(value)
        case Register.b: writeB(value)
        case Register.c, Register.d: break
        default:
            if let place = Self.timeRegisters.firstIndex(of: index) {
                var bytes = raw ?? encode()
                bytes[place] = value
                raw = bytes
            } else {
                memory[Int(index)] = value
            }
        }
    }

    private var updateInProgress: Bool {
        guard isRunning, b & B.set == 0 else { return false }
        return (tick &- dividerStart) % Self.ticksPerSecond >= Self.ticksPerSecond &- Self.updateLead
    }

    /// ```
    ///  7   6 5 4  3 2 1 0
    /// UIP [ DV  ] [ RS  ]
    /// ```
    private mutating func writeA(_ value: UInt8) {
        let wasRunning = isRunning
        a = value & ~A.uip
        // Out of reset, the first update follows half a second later. Source: [MC146818A], Divider Control.
        if isRunning && !wasRunning { dividerStart = tick &- Self.ticksPerSecond / 2 }
    }

    /// ```
    ///  7   6   5   4   3    2  1     0
    /// SET PIE AIE UIE SQWE DM 24/12 DSE
    /// ```
    private mutating func writeB(_ value: UInt8) {
        // SET stops the clock where it is and takes UIE with it.
        if value & B.set != 0, raw == nil { raw = encode() }
        b = value & B.set != 0 ? value & ~B.uie : value
    }

    // MARK: Time bytes

    private func byte(_ number: Int64) -> UInt8 {
        UInt8(truncatingIfNeeded: b & B.binary != 0 ? number : (number / 10 % 10) << 4 | number % 10)
    }

    private func number(_ byte: UInt8) -> Int64 {
        let byte = Int64(byte)
        return b & B.binary != 0 ? byte : (byte >> 4) &* 10 &+ (byte & 15)
    }

    private func hourByte(_ hour: Int64) -> UInt8 {
        if b & B.hours24 != 0 { return byte(hour) }
        return byte(hour % 12 == 0 ? 12 : hour % 12) | (hour >= 12 ? 0x80 : 0)
    }

    /// An hour register's hour; anything is one, of some day.
    private func hour(_ byte: UInt8) -> Int64 {
        if b & B.hours24 != 0 { return number(byte) % 24 }
        return number(byte & 0x7F) % 12 &+ (byte & 0x80 != 0 ? 12 : 0)
    }

    /// The alarm's hour; 24 or more, which never comes, where the byte is none.
    private func alarmHour(_ byte: UInt8) -> Int64 {
        if b & B.hours24 != 0 { return number(byte) }
        return (1...12).contains(number(byte & 0x7F)) ? hour(byte) : 24
    }

    private func encode() -> [UInt8] {
        let date = CalendarDate(secondsSince1970: seconds)
        let weekday = (CalendarDate.weekday(secondsSince1970: seconds) &+ weekdayShift) % 7 &+ 1
        let year = CalendarDate.floorDivide(date.year, 10_000).remainder
        return [
            byte(date.second), byte(date.minute), hourByte(date.hour), byte(weekday),
            byte(date.day), byte(date.month), byte(year % 100), byte(year / 100),
        ]
    }

    private func decode(_ bytes: [UInt8]) -> Int64 {
        let month = (number(bytes[5]) &+ 11) % 12 &+ 1
        let day = min(max(number(bytes[4]), 1), 31)
        let year = number(bytes[7]) % 100 &* 100 &+ number(bytes[6]) % 100
        return CalendarDate(
            year: year, month: month, day: day,
            hour: hour(bytes[2]), minute: number(bytes[1]) % 60, second: number(bytes[0]) % 60
        ).secondsSince1970
    }

    private func decodeWeekdayShift(_ bytes: [UInt8]) -> Int64 {
        let weekday = number(bytes[3])
        guard (1...7).contains(weekday) else { return 0 }
        let calendar = CalendarDate.weekday(secondsSince1970: decode(bytes))
        return (weekday &- 1 &- calendar &+ 7) % 7
    }
}
