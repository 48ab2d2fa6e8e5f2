internal import Glibc
internal import SoftCPU
internal import Synchronization
internal import VMCore

/// Executes random code with random state on the interpreter: whatever a guest does, our process neither traps nor hangs
/// nor grows.
///
/// Cases follow from the seed and their number alone, but run one after another on the same vCPU, whose blocks and
/// translations live on; every `casesPerMachine` there is a new one. So a case that crashed is repeated by starting at the
/// first of its machine.
package final class InterpreterFuzzer {
    package static let casesPerMachine: UInt64 = 512
    /// A case that takes longer is kicked: what it does it could do for ever. Milliseconds of computing, and of waiting.
    private static let patience: UInt64 = 5
    private static let patienceAsleep: UInt64 = 40
    /// From a kick to the end of a case: longer is a hang.
    private static let limit: UInt64 = 20_000

    package struct Report {
        package var cases: UInt64 = 0
        package var refused: UInt64 = 0
        package var kicked: UInt64 = 0
        package var shutdowns: UInt64 = 0
        package var instructions: UInt64 = 0
        /// Resident KiB once the first machines were made and dropped, and at the end.
        package var residentEarly: UInt64 = 0
        package var residentLate: UInt64 = 0

        package var summary: String {
            "\(cases) cases, \(instructions) instructions, \(shutdowns) triple faults, \(kicked) kicked, \(refused) states refused, "
                + "resident \(residentEarly) KiB early and \(residentLate) KiB late"
        }
    }

    private let seed: UInt64
    private let encoders = FuzzEncoders()
    private var machine: FuzzMachine?
    private(set) package var report = Report()

    package init(seed: UInt64) { self.seed = seed }

    /// Runs cases from `first` on until there were `count`, or the time is over.
    ///
    /// - Parameter tells: called every so often.
    package func run(first: UInt64 = 0, count: UInt64 = .max, seconds: UInt64, _ tells: (Report) -> Void = { _ in }) throws {
        let watch = Watch(seed: seed)
        defer { watch.end() }
        let start = milliseconds()
        var number = first &- first % Self.casesPerMachine
        var told = start
        while report.cases < count {
            if machine == nil || number % Self.casesPerMachine == 0 { try makeMachine(number, watch) }
            let now = milliseconds()
            if now &- start >= seconds &* 1000 { break }
            if now &- told >= 30_000 {
                told = now
                tells(report)
            }
            try execute(number, watch)
            number = number &+ 1
            report.cases = report.cases &+ 1
            if report.cases == Self.casesPerMachine &* 8 { report.residentEarly = Self.resident() }
        }
        machine = nil
        report.residentLate = Self.resident()
        if report.residentEarly == 0 { report.residentEarly = report.residentLate }
    }

    private func makeMachine(_ number: UInt64, _ watch: Watch) throws {
        machine = nil
        let index = number / Self.casesPerMachine
        let made = try FuzzMachine(
            size: index % 8 == 7 ? 3 << 30 + 2 << 20 : 2 << 20, hasLocalAPIC: index % 4 == 3, seed: seed ^ number)
        machine = made
        watch.kicker.withLock { $0 = made.cpu.kicker }
    }

    private func execute(_ number: UInt64, _ watch: Watch) throws {
        guard let machine else { return }
        var mixer = SeededRandom(seed: seed &+ number &* 0xD134_2543_DE82_EF95)
        let fuzz = FuzzCase(seed: mixer.next(), encoders: encoders)
        watch.begin(number)
        defer { watch.idle() }
        try machine.write(fuzz.ram, at: 0)
        do {
            try machine.cpu.setState(fuzz.state)
        } catch {
            // What no processor can hold is refused, and what was set before stays.
            report.refused = report.refused &+ 1
            var state = fuzz.state
            state.msrs = []
            try? machine.cpu.setState(state)
        }
        let before = machine.cpu.statistics.instructions
        let exit = fuzz.isStepped ? machine.cpu.step(count: fuzz.count) : machine.cpu.run(count: fuzz.count)
        report.instructions = report.instructions &+ (machine.cpu.statistics.instructions &- before)
        switch exit {
        case .kicked: report.kicked = report.kicked &+ 1
        case .shutdown: report.shutdowns = report.shutdowns &+ 1
        default: break
        }
        // What came out can be asked for, and be set again.
        if number & 15 == 0 {
            let state = try machine.cpu.state()
            try? machine.cpu.setState(state)
        }
    }

    /// Kibibytes of this process that are in memory.
    private static func resident() -> UInt64 {
        guard let file = unsafe fopen("/proc/self/statm", "r") else { return 0 }
        defer { unsafe fclose(file) }
        var total: UInt = 0
        var resident: UInt = 0
        let read = unsafe withUnsafeMutablePointer(to: &total) { total in
            unsafe withUnsafeMutablePointer(to: &resident) { resident in
                unsafe withVaList([total, resident]) { unsafe vfscanf(file, "%lu %lu", $0) }
            }
        }
        return read == 2 ? UInt64(resident) &* 4 : 0
    }

    /// Looks on from another thread: kicks cases that go on for ever, and ends the process where one does not heed it.
    private final class Watch: Sendable {
        let kicker = Mutex<(any VCPUKicker)?>(nil)
        private let current = Atomic<UInt64>(.max)
        private let isOver = Atomic<Bool>(false)
        private let thread = Mutex<TestThread?>(nil)

        init(seed: UInt64) {
            CrashReport.install(seed: seed)
            let started = TestThread { [self] in watch() }
            thread.withLock { $0 = started }
        }

        func begin(_ number: UInt64) {
            unsafe CrashReport.current = number
            current.store(number, ordering: .releasing)
        }
        func idle() { current.store(.max, ordering: .releasing) }

        func end() {
            isOver.store(true, ordering: .releasing)
            thread.withLock { $0 }?.join()
        }

        /// Milliseconds that this process has computed.
        private static func computed() -> UInt64 {
            var time = timespec()
            unsafe clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
            return UInt64(time.tv_sec) &* 1000 &+ UInt64(time.tv_nsec) / 1_000_000
        }

        private func watch() {
            var seen = UInt64.max
            var since = milliseconds()
            var used = Self.computed()
            while !isOver.load(ordering: .acquiring) {
                usleep(1000)
                let number = current.load(ordering: .acquiring)
                let now = milliseconds()
                if number != seen || number == .max {
                    seen = number
                    since = now
                    used = Self.computed()
                    continue
                }
                if now &- since >= InterpreterFuzzer.limit { CrashReport.hang() }
                let isLong = Self.computed() &- used >= InterpreterFuzzer.patience || now &- since >= InterpreterFuzzer.patienceAsleep
                if isLong { kicker.withLock { $0 }?.kick() }
            }
        }
    }
}
