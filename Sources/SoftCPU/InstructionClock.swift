internal import Synchronization
public import VMCore

/// Time that counts instructions: with it, and no input from outside, two runs of a guest are identical.
///
/// An instruction is a nanosecond, and a tick of the time-stamp counter; an access to a device is a microsecond, as on an ISA
/// bus, so that a guest that waits by polling does not wait for long. It is the machine's only clock: the time-stamp
/// counter, the local APIC's timer and every device's alarms go by it. Alarms ring on the vCPU's own thread, between two
/// blocks: always between the same two. A halted processor does not wait: time goes on to the next alarm at once.
///
/// A device that the vCPU accesses within a block sees the time of the block's end, as the block is counted when it is
/// entered; time never goes back, also where a fault ends the block before.
public final class InstructionClock: MonotonicClock, WallClock, AlarmService {
    /// Of the time-stamp counter.
    public static let kilohertz: UInt32 = 1_000_000
    /// Nanoseconds of an access to a device.
    private static let accessTime: UInt64 = 1000

    private struct Alarms: Sendable {
        var all: [Entry] = []
    }
    private struct Entry: Sendable {
        var deadline: UInt64?
        let handler: @Sendable () -> Void
    }

    private let unixStart: Int64
    /// The host address of the vCPU's state; 0 where there is no vCPU.
    private let counter = Atomic<UInt>(0)
    /// Nanoseconds in which nothing was executed.
    private let skipped = Atomic<UInt64>(0)
    /// The latest time that anybody was told.
    private let latest = Atomic<UInt64>(0)
    private let nextDeadline = Atomic<UInt64>(.max)
    private let alarms = Mutex(Alarms())
    private let randomState = Atomic<UInt64>(0)

    /// - Parameter unixStart: the time of day at the start, in nanoseconds since 1970; 2026-01-01 00:00 UTC unless given.
    ///   The host's would make runs differ.
    public init(unixStart: Int64 = 1_767_225_600_000_000_000) { self.unixStart = unixStart }

    public func now() -> UInt64 { latest.max(counted, ordering: .relaxed).newValue }

    private var counted: UInt64 { Self.executed(counter.load(ordering: .acquiring)) &+ skipped.load(ordering: .relaxed) }

    /// Nanoseconds of what a vCPU has executed; `state` is its `CPU` block's address, or 0.
    private static func executed(_ state: UInt) -> UInt64 {
        guard state != 0 else { return 0 }
        let cpu = CPU(state)
        let exits = cpu.s.exitStatistics
        let accesses = exits.portReads &+ exits.portWrites &+ exits.memoryReads &+ exits.memoryWrites
        return cpu.s.instructions &+ accesses &* accessTime
    }

    public func unixNanoseconds() -> Int64 { unixStart &+ Int64(truncatingIfNeeded: now()) }

    /// What RDRAND and RDSEED give: the host's entropy would make runs differ. SplitMix64.
    func random() -> UInt64 {
        var mixed = randomState.wrappingAdd(0x9E37_79B9_7F4A_7C15, ordering: .relaxed).newValue
        mixed = (mixed ^ mixed &>> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed &>> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed &>> 31
    }

    // MARK: The vCPU's side

    /// Tells whose instructions are counted: the address of a vCPU's state, or 0, and time stands still from then on.
    func count(_ state: UInt) {
        let last = now()
        if state == 0 { counter.store(0, ordering: .releasing) }
        skipped.store(last &- Self.executed(state), ordering: .relaxed)
        counter.store(state, ordering: .releasing)
    }

    /// Whether an alarm is to ring.
    var isDue: Bool { nextDeadline.load(ordering: .relaxed) <= counted }

    /// Calls the handlers of the alarms that are due, the earliest deadline first.
    func ring() {
        let now = now()
        let due = alarms.withLock { alarms in
            var due: [(deadline: UInt64, index: Int, handler: @Sendable () -> Void)] = []
            for index in alarms.all.indices {
                guard let deadline = alarms.all[index].deadline, deadline <= now else { continue }
                alarms.all[index].deadline = nil
                due.append((deadline, index, alarms.all[index].handler))
            }
            publish(alarms)
            return due.sorted { ($0.deadline, $0.index) < ($1.deadline, $1.index) }
        }
        for alarm in due { alarm.handler() }
    }

    /// Moves time on to the next alarm.
    /// - Returns: false where none is set, or none that will ever ring.
    func skipToNextAlarm() -> Bool {
        let deadline = nextDeadline.load(ordering: .relaxed)
        // An alarm in a century is none: a guest must not take the machine's clocks to their end.
        guard deadline < 1 << 62 else { return false }
        let time = now()
        if deadline > time { skipped.wrappingAdd(deadline &- time, ordering: .relaxed) }
        return true
    }

    // MARK: Alarms

    public func makeAlarm(_ handler: @escaping @Sendable () -> Void) -> any Alarm {
        let index = alarms.withLock { alarms in
            alarms.all.append(Entry(deadline: nil, handler: handler))
            return alarms.all.count - 1
        }
        return CountedAlarm(clock: self, index: index)
    }

    private func publish(_ alarms: borrowing Alarms) {
        var earliest = UInt64.max
        for alarm in alarms.all { if let deadline = alarm.deadline { earliest = min(earliest, deadline) } }
        nextDeadline.store(earliest, ordering: .releasing)
    }

    fileprivate func set(_ index: Int, _ deadline: UInt64?) {
        alarms.withLock { alarms in
            alarms.all[index].deadline = deadline
            publish(alarms)
        }
    }
}

private final class CountedAlarm: Alarm {
    private let clock: InstructionClock
    private let index: Int

    init(clock: InstructionClock, index: Int) {
        self.clock = clock
        self.index = index
    }

    func set(deadline: UInt64?) { clock.set(index, deadline) }
}
