import Synchronization
public import VMCore

/// The PC's interval timer: an 8254 at four ports (0x40-0x43 on a PC), its OUT 0 on IRQ0.
///
/// Counter 1, which once refreshed memory, counts if programmed and drives nothing. Counter 2's gate and
/// output are on `SystemControlPortB`.
///
/// However small a count the guest sets, alarms come no more often than every `minimumAlarmInterval`: rising
/// edges in between are delivered as one. The counters themselves and OUT 2 are exact all the same.
/// The machine puts it on the port bus with byte-wide registers.
public final class IntervalTimer: BusDevice {
    /// The least time between two alarms for IRQ0, in nanoseconds: 200 microseconds, KVM's default floor
    /// (`min_timer_period_us`) for the same chip.
    public static let minimumAlarmInterval: UInt64 = 200_000

    private struct State {
        var chip = PIT8254()
        /// OUT 0 is high from power-on, which is no event: the line hears of it only when it falls or rises.
        var isHigh = true
        var alarm = StandingAlarm()
        /// The earliest moment for the next alarm.
        var notBefore: UInt64 = 0
    }

    private let time: CrystalTime
    private let line: any InterruptLine
    private let state = Mutex(State())

    /// - Parameter line: IRQ0. Left alone until OUT 0 first changes, so that a machine does not start with a tick.
    public init(line: any InterruptLine, clock: any MonotonicClock, alarms: any AlarmService) {
        time = CrystalTime(.intervalTimer, on: clock)
        self.line = line
        let alarm = alarms.makeAlarm { [weak self] in self?.alarmFired() }
        state.withLock { $0.alarm.connect(alarm) }
    }

    deinit { state.withLock { $0.alarm.cancel() } }

    public func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        state.withLock { state in
            let (value, effects) = state.chip.read(
                register: UInt8(truncatingIfNeeded: offset & 3), at: time.tick)
            settle(&state, effects)
            return UInt64(value)
        }
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        state.withLock { state in
            let effects = state.chip.write(
                UInt8(truncatingIfNeeded: value), register: UInt8(truncatingIfNeeded: offset & 3), at: time.tick)
            settle(&state, effects)
        }
    }

    /// Drives GATE 2.
    func setSpeakerGate(_ isHigh: Bool) {
        state.withLock { state in
            let effects = state.chip.setGate(isHigh, counter: 2, at: time.tick)
            settle(&state, effects)
        }
    }

    /// OUT 2, and the refresh signal, which turns over every 18 ticks (about 15 microseconds) as on a PC/AT.
    func speakerInputs() -> (out: Bool, refresh: Bool) {
        state.withLock { state in
            let tick = time.tick
            settle(&state, state.chip.advance(to: tick))
            return (state.chip.out(counter: 2), (tick / 18) & 1 != 0)
        }
    }

    private func alarmFired() {
        state.withLock { state in
            let now = time.now
            state.alarm.fired()
            state.notBefore = now.addingReportingOverflow(Self.minimumAlarmInterval).partialValue
            settle(&state, state.chip.advance(to: time.tick(at: now)))
        }
    }

    /// Brings the line and the alarm in step with the chip.
    private func settle(_ state: inout State, _ effects: PIT8254.Effects) {
        drive(&state, rose: effects.rose(0))
        state.alarm.set(state.chip.nextRise(counter: 0).flatMap(time.moment).map { max($0, state.notBefore) })
    }

    /// The one place that drives IRQ0. A fall that nobody saw is made up for, so that each delivery is an edge.
    private func drive(_ state: inout State, rose: Bool) {
        if rose {
            if state.isHigh { line.setLevel(false) }
            line.setLevel(true)
            state.isHigh = true
        }
        let out = state.chip.out(counter: 0)
        if out != state.isHigh {
            line.setLevel(out)
            state.isHigh = out
        }
    }
}

/// System control port B (0x61 on a PC): the speaker's gate and data, and what the interval timer says.
/// ```
///   7       6      5       4         3       2        1        0
/// parity  IOCHK  OUT 2  refresh   IOCHK  parity   speaker   GATE 2
/// (0)     (0)                    disable disable   data
/// ```
/// Bits 0-3 read as written. Not emulated: the speaker itself, and the two errors, which never happen.
/// Source: [ICH9 §13.7.1] NMI_SC.
public final class SystemControlPortB: BusDevice {
    private let timer: IntervalTimer
    private let control = Mutex<UInt8>(0)

    public init(timer: IntervalTimer) { self.timer = timer }

    public func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        control.withLock { control in
            let inputs = timer.speakerInputs()
            return UInt64(control | (inputs.refresh ? 0x10 : 0) | (inputs.out ? 0x20 : 0))
        }
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        control.withLock { control in
            control = UInt8(truncatingIfNeeded: value) & 0x0F
            timer.setSpeakerGate(control & 1 != 0)
        }
    }
}
