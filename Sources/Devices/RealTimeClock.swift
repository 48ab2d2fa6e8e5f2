import Synchronization
public import VMCore

/// The PC's real-time clock and CMOS memory: an index port and a data port (0x70 and 0x71 on a PC), IRQ8.
///
/// It starts at the host's UTC and then goes by the monotonic clock, so nothing the host does to its time of day
/// moves the guest's. There is never more than one interrupt before the guest reads register C, so a
/// guest cannot make alarms come faster than its own accesses, and no faster than the chip's 8,192 Hz.
///
/// The index port cannot be read, as on a PC/AT: all ones. Its bit 7, the NMI mask, is ignored: this machine has no NMI
/// source. The machine puts it on the port bus with byte-wide registers.
public final class RealTimeClock: BusDevice {
    private struct State {
        var chip: CMOSRTC
        var index: UInt8 = 0
        var isHigh = false
        var alarm = StandingAlarm()
    }

    private let time: CrystalTime
    private let line: any InterruptLine
    private let state: Mutex<State>

    /// - Parameters:
    ///   - line: IRQ8.
    ///   - memoryBelow4GiB: bytes of guest memory to tell of in the CMOS bytes.
    ///   - memoryFrom4GiB: the same, from 4 GiB on.
    public init(
        line: any InterruptLine, clock: any MonotonicClock, wallClock: any WallClock, alarms: any AlarmService,
        memoryBelow4GiB: UInt64 = 0, memoryFrom4GiB: UInt64 = 0
    ) {
        time = CrystalTime(.realTimeClock, on: clock)
        self.line = line
        let (seconds, nanoseconds) = CalendarDate.floorDivide(wallClock.unixNanoseconds(), 1_000_000_000)
        var chip = CMOSRTC(
            secondsSince1970: seconds,
            fraction: TickRate.realTimeClock.ticks(after: UInt64(clamping: nanoseconds)))
        chip.setMemorySize(low: memoryBelow4GiB, high: memoryFrom4GiB)
        state = Mutex(State(chip: chip))
        let alarm = alarms.makeAlarm { [weak self] in self?.alarmFired() }
        state.withLock { $0.alarm.connect(alarm) }
    }

    deinit { state.withLock { $0.alarm.cancel() } }

    public func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard offset & 1 != 0 else { return 0xFF }
        return state.withLock { state in
            let value = state.chip.read(state.index, at: time.tick)
            settle(&state)
            return UInt64(value)
        }
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        state.withLock { state in
            let value = UInt8(truncatingIfNeeded: value)
            guard offset & 1 != 0 else {
                state.index = value & 0x7F
                return
            }
            state.chip.write(value, state.index, at: time.tick)
            settle(&state)
        }
    }

    private func alarmFired() {
        state.withLock { state in
            state.alarm.fired()
            state.chip.advance(to: time.tick)
            settle(&state)
        }
    }

    /// Brings the line and the alarm in step with the chip.
    private func settle(_ state: inout State) {
        let interrupt = state.chip.interrupt
        if interrupt != state.isHigh {
            state.isHigh = interrupt
            line.setLevel(interrupt)
        }
        state.alarm.set(state.chip.nextInterrupt.flatMap(time.moment))
    }
}
