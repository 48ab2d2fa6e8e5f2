/// The fixed hardware of ACPI: PM1a event and control blocks, the power management timer, a general-purpose event
/// block and a reset register, in one contiguous range of ports.
///
/// ```
/// 0x00 PM1_STS  0x02 PM1_EN  0x04 PM1_CNT  0x08 PM_TMR (4 bytes)  0x0C reset  0x20 GPE0_STS  0x22 GPE0_EN
/// ```
/// Every register may be accessed in bytes or wider. Addresses between them read as 0.
///
/// The chip counts pulses of the timer's 3.579545 MHz and knows nothing of nanoseconds.
///
/// Not emulated: legacy mode (SCI_EN is always 1, and there is no SMI command port); sleep states but S5, whose
/// SLP_TYP writes do nothing; the sleep button, bus-master status and the global lock's handshake (BM_STS, GBL_STS,
/// BM_RLD and GBL_RLS never act). Source: [ACPI6.5 §4.8].
public struct ACPIPowerManagementChip: Hashable, Sendable {
    /// What a call asks of the machine.
    public struct Effects: OptionSet, Hashable, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        /// SLP_EN with S5's SLP_TYP.
        public static let powerOff = Effects(rawValue: 1)
        /// The reset register took its value.
        public static let reset = Effects(rawValue: 2)
    }

    /// Fixed events, by their bits in PM1_STS and PM1_EN.
    public struct FixedEvents: OptionSet, Hashable, Sendable {
        public let rawValue: UInt16
        public init(rawValue: UInt16) { self.rawValue = rawValue }
        /// TMR: the timer's highest bit changed.
        public static let timer = FixedEvents(rawValue: 1 << 0)
        /// GBL: the firmware released the global lock. Nothing here ever does, but an operating system that finds a FACS
        /// enables it and looks whether that took. Source: [ACPI6.5 §4.8.3.1.1].
        public static let globalLock = FixedEvents(rawValue: 1 << 5)
        /// PWRBTN: the power button was pressed.
        public static let powerButton = FixedEvents(rawValue: 1 << 8)
        /// RTC: the real-time clock's alarm.
        public static let realTimeClock = FixedEvents(rawValue: 1 << 10)
        static let all: FixedEvents = [.timer, .globalLock, .powerButton, .realTimeClock]
    }

    private enum Control {
        static let sciEnable: UInt16 = 1 << 0
        /// BM_RLD and SLP_TYP: kept as written. GBL_RLS and SLP_EN read as 0.
        static let kept: UInt16 = 1 << 1 | 7 << 10
        static let sleepEnable: UInt8 = 0x20
    }

    private let timerBits: UInt64
    private let softOffSleepType: UInt8
    private let resetValue: UInt8

    private var status: FixedEvents = []
    private var enable: FixedEvents = []
    private var control: UInt16 = 0
    private var eventStatus: UInt16 = 0
    private var eventEnable: UInt16 = 0
    private var tick: UInt64

    /// - Parameters:
    ///   - timerIs32Bit: how wide the timer is: 32 bits, or 24. The FADT's TMR_VAL_EXT must agree.
    ///   - softOffSleepType: SLP_TYP of S5, 0-7, as the DSDT's `\_S5` says.
    ///   - resetValue: what resets when written to the reset register, as the FADT says.
    ///   - tick: pulses so far.
    public init(timerIs32Bit: Bool, softOffSleepType: UInt8, resetValue: UInt8, tick: UInt64 = 0) {
        timerBits = timerIs32Bit ? 32 : 24
        self.softOffSleepType = softOffSleepType & 7
        self.resetValue = resetValue
        self.tick = tick
    }

    /// SCI. The one place that decides it.
    public var interrupt: Bool { !status.isDisjoint(with: enable) || eventStatus & eventEnable != 0 }

    /// The pulse at which the timer will raise SCI; nil if it is not enabled, or its status is set already.
    public var nextInterrupt: UInt64? {
        guard enable.contains(.timer), !status.contains(.timer) else { return nil }
        let half: UInt64 = 1 << (timerBits &- 1)
        let (sum, overflow) = (tick & ~(half &- 1)).addingReportingOverflow(half)
        return overflow ? nil : sum
    }

    /// Brings the chip to `tick`. An earlier tick than the last is taken for the last.
    public mutating func advance(to tick: UInt64) {
        guard tick > self.tick else { return }
        let shift = timerBits &- 1
        if tick >> shift != self.tick >> shift { status.insert(.timer) }
        self.tick = tick
    }

    /// Sets status bits from outside: a button, an alarm.
    public mutating func raise(_ events: FixedEvents) { status.formUnion(events.intersection(.all)) }

    /// Sets general-purpose event `number`'s status, 0-15; higher ones do not exist.
    public mutating func raiseGeneralEvent(_ number: UInt8) {
        if number < 16 { eventStatus |= 1 << UInt16(number) }
    }

    /// Reads `count` bytes, 1 to 8, from `offset` on. The timer's bytes are all of one moment.
    public mutating func read(offset: UInt64, count: UInt64, at tick: UInt64) -> UInt64 {
        advance(to: tick)
        var value: UInt64 = 0
        for index in 0..<min(count, 8) {
            value |= UInt64(readByte(offset &+ index)) << (index &* 8)
        }
        return value
    }

    private func readByte(_ offset: UInt64) -> UInt8 {
        func byte(_ register: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: register >> ((offset & 3) &* 8)) }
        switch offset {
        case 0x00...0x03: return byte(UInt64(status.rawValue) | UInt64(enable.rawValue) << 16)
        case 0x04...0x05: return byte(UInt64(control | Control.sciEnable))
        case 0x08...0x0B: return byte(tick & (1 << timerBits &- 1))
        case 0x20...0x23: return byte(UInt64(eventStatus) | UInt64(eventEnable) << 16)
        default: return 0
        }
    }

    /// Writes `count` bytes, 1 to 8, from `offset` on, low ones first. Status bits are cleared by writing ones.
    public mutating func write(_ value: UInt64, offset: UInt64, count: UInt64, at tick: UInt64) -> Effects {
        advance(to: tick)
        var effects: Effects = []
        for index in 0..<min(count, 8) {
            let byte = UInt8(truncatingIfNeeded: value >> (index &* 8))
            effects.formUnion(writeByte(byte, offset &+ index))
        }
        return effects
    }

    private mutating func writeByte(_ value: UInt8, _ offset: UInt64) -> Effects {
        let shift = UInt16(truncatingIfNeeded: offset & 1) &* 8
        let bits = UInt16(value) << shift
        let kept = ~(UInt16(0xFF) << shift)
        switch offset {
        case 0x00, 0x01: status.subtract(FixedEvents(rawValue: bits))
        case 0x02, 0x03: enable = FixedEvents(rawValue: enable.rawValue & kept | bits).intersection(.all)
        case 0x04, 0x05:
            control = (control & kept | bits) & Control.kept
            if offset == 0x05, value & Control.sleepEnable != 0, value >> 2 & 7 == softOffSleepType { return .powerOff }
        case 0x0C: if value == resetValue { return .reset }
        case 0x20, 0x21: eventStatus &= ~bits
        case 0x22, 0x23: eventEnable = eventEnable & kept | bits
        default: break
        }
        return []
    }
}
