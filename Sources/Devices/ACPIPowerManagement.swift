import Synchronization
public import VMCore

/// ACPI's fixed hardware on the port bus: power-off, reset, the power button, the PM timer, general-purpose events.
///
/// One range of `length` ports at a base the machine chooses (0x600 is customary); where the parts are within
/// it is published here for whoever writes the FADT. All of it may be accessed up to 32 bits wide.
public final class ACPIPowerManagement: BusDevice {
    /// Ports the device takes.
    public static let length: UInt64 = 0x24
    /// PM1a_EVT_BLK, four bytes.
    public static let eventOffset: UInt64 = 0x00
    /// PM1a_CNT_BLK, two bytes.
    public static let controlOffset: UInt64 = 0x04
    /// PM_TMR_BLK, four bytes.
    public static let timerOffset: UInt64 = 0x08
    /// RESET_REG, one byte.
    public static let resetOffset: UInt64 = 0x0C
    /// GPE0_BLK, four bytes: two of status, two of enable.
    public static let generalEventOffset: UInt64 = 0x20
    /// RESET_VALUE.
    public static let resetValue: UInt8 = 0x06
    /// SLP_TYP of S5 unless the machine says otherwise.
    public static let softOffSleepType: UInt8 = 5

    private struct State {
        var chip: ACPIPowerManagementChip
        var isHigh = false
        var alarm = StandingAlarm()
    }

    private let time: CrystalTime
    private let sci: any InterruptLine
    private let machine: any MachineControl
    private let state: Mutex<State>

    /// - Parameters:
    ///   - sci: the system control interrupt, a level.
    ///   - machine: hears of power-off and reset.
    ///   - timerIs32Bit: the timer's width, 32 or 24 bits; the FADT's TMR_VAL_EXT must agree.
    ///   - softOffSleepType: SLP_TYP of S5; the DSDT's `\_S5` must agree.
    public init(
        sci: any InterruptLine, machine: any MachineControl, clock: any MonotonicClock, alarms: any AlarmService,
        timerIs32Bit: Bool = true, softOffSleepType: UInt8 = ACPIPowerManagement.softOffSleepType
    ) {
        time = CrystalTime(.powerManagementTimer, on: clock)
        self.sci = sci
        self.machine = machine
        state = Mutex(
            State(
                chip: ACPIPowerManagementChip(
                    timerIs32Bit: timerIs32Bit, softOffSleepType: softOffSleepType, resetValue: Self.resetValue)))
        let alarm = alarms.makeAlarm { [weak self] in self?.alarmFired() }
        state.withLock { $0.alarm.connect(alarm) }
    }

    deinit { state.withLock { $0.alarm.cancel() } }

    /// Presses and releases the power button: the guest is asked, not forced, to power off. Any thread.
    public func pressPowerButton() { change { $0.raise(.powerButton) } }

    /// Sets RTC_STS: the real-time clock's alarm went off. Only for machines whose FADT leaves FIX_RTC clear.
    public func raiseRealTimeClockAlarm() { change { $0.raise(.realTimeClock) } }

    /// Sets the status of general-purpose event `number`, 0-15. Any thread.
    public func raiseGeneralEvent(_ number: UInt8) { change { $0.raiseGeneralEvent(number) } }

    public func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        change { $0.read(offset: offset, count: width.bytes, at: time.tick) }
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        let effects = change { $0.write(value, offset: offset, count: width.bytes, at: time.tick) }
        if effects.contains(.powerOff) { machine.request(.powerOff) }
        if effects.contains(.reset) { machine.request(.reset) }
    }

    private func alarmFired() {
        state.withLock { $0.alarm.fired() }
        change { _ in }
    }

    /// Does something to the chip as of now, then brings SCI and the alarm in step with it.
    @discardableResult
    private func change<Result: Sendable>(_ body: (inout ACPIPowerManagementChip) -> Result) -> Result {
        state.withLock { state in
            state.chip.advance(to: time.tick)
            let result = body(&state.chip)
            let interrupt = state.chip.interrupt
            if interrupt != state.isHigh {
                state.isHigh = interrupt
                sci.setLevel(interrupt)
            }
            state.alarm.set(state.chip.nextInterrupt.flatMap(time.moment))
            return result
        }
    }
}
