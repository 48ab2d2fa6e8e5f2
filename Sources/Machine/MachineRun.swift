internal import Synchronization
public import VMCore

/// How a guest's life ended.
public enum MachineOutcome: Sendable {
    /// The guest powered the machine off.
    case poweredOff
    /// The guest reset the machine.
    case reset
    /// The guest wrote this to the debug-exit port.
    case debugExit(UInt32)
    /// The guest cannot go on: a triple fault, or the engine's failure.
    case crashed(CrashReport)
    /// Every vCPU halted with nothing that could wake it.
    case halted
    /// `stop` was called.
    case stopped
    /// The engine could not start.
    case failed(EngineError)
}

/// One life of a guest, from power-on to its outcome: the vCPU threads, and what is asked of all of them together.
///
/// Threads: one a vCPU. Each makes its vCPU, waits for the others (a startup message to a processor that is not there
/// yet would be lost), and runs until the outcome is known.
public final class MachineRun: MachineControl, @unchecked Sendable {
    private enum Phase { case preparing, running, paused, ending }

    private let engine: any Engine
    private let memory: GuestMemory
    private let count: Int
    private let clock: any MonotonicClock
    private let general: GeneralRegisters
    private let system: SystemRegisters
    private let patience: UInt64

    // Guarded by `condition`.
    private let condition = Monitor()
    private var phase = Phase.preparing
    private var result: MachineOutcome?
    private var ready = 0
    private var parked = 0
    private var halted = 0
    private var ended = 0
    private var kickers: [any VCPUKicker] = []
    /// What each vCPU told last, and to which question.
    private var counts: [ExitStatistics]
    private var answers: [UInt64]
    private var question: UInt64 = 0
    private var firstInstruction: UInt64?
    private var threads: [Thread] = []

    /// - Parameters:
    ///   - clock: the host's monotonic one.
    ///   - general: where the boot processor starts; the others wait for the guest to start them.
    ///   - patience: nanoseconds that a vCPU may take to leave the guest once it was told to; by default a thousand times
    ///     what a loaded host needs.
    public init(
        engine: any Engine, memory: GuestMemory, vcpuCount: Int, clock: any MonotonicClock,
        general: GeneralRegisters, system: SystemRegisters, patience: UInt64 = 10_000_000_000
    ) {
        self.patience = patience
        self.engine = engine
        self.memory = memory
        self.count = max(1, vcpuCount)
        counts = Array(repeating: ExitStatistics(), count: max(1, vcpuCount))
        answers = Array(repeating: 0, count: max(1, vcpuCount))
        self.clock = clock
        self.general = general
        self.system = system
    }

    // MARK: From outside

    /// Makes the vCPUs and lets them run. Once.
    /// - Returns: when all run, or one could not be made: then `wait` tells.
    public func start() {
        for index in 0..<count {
            guard let thread = Thread(name: "vcpu\(index)", { [self] in runVCPU(index) }) else {
                finish(.failed(.host(call: "pthread_create", errno: 11)))
                condition.locked { ended += count - index }
                break
            }
            condition.locked { threads.append(thread) }
        }
        condition.locked {
            while ready < count, result == nil { condition.wait() }
        }
    }

    /// Waits for the outcome. Any thread but a vCPU's.
    /// - Parameter deadline: on the machine's clock; nil waits for ever.
    /// - Returns: nil at the deadline; the guest runs on.
    public func wait(until deadline: UInt64? = nil) -> MachineOutcome? {
        condition.locked {
            while result == nil {
                if !condition.wait(until: deadline), result == nil { return nil }
            }
            waitForThreads()
            return result
        }
    }

    /// With the lock held: until all vCPU threads have ended, or patience has. A host's KVM that does not let a vCPU go
    /// must not hold the monitor as well.
    private func waitForThreads() {
        let limit = clock.now() &+ patience
        while ended < count, condition.wait(until: limit) {}
    }

    /// Whether every vCPU thread has ended. False after `wait`, `stop` or `join`: the host kept one inside the guest, and
    /// its thread lasts until the process ends.
    public var hasEnded: Bool { condition.locked { ended == count } }

    /// Ends the guest from the host's side, whatever it is doing, and waits for the vCPU threads.
    public func stop() {
        finish(.stopped)
        join()
    }

    /// As `stop`, without waiting. Any thread, also an event handler's.
    public func requestStop() { finish(.stopped) }

    /// Waits until all vCPU threads have ended; after an outcome they do so by themselves.
    public func join() {
        let threads = condition.locked { () -> [Thread] in
            waitForThreads()
            guard ended == count else { return [] }
            defer { self.threads = [] }
            return self.threads
        }
        for thread in threads { thread.join() }
        if hasEnded { engine.disconnect() }
    }

    /// Stops all vCPUs between two instructions and waits until they stand still. Nothing is lost.
    ///
    /// - Returns: whether they stand still; false where the machine has ended, or the host does not let a vCPU go.
    @discardableResult
    public func pause() -> Bool {
        let kickers = condition.locked { () -> [any VCPUKicker] in
            // Those who start it wait for no more than the vCPUs' making.
            while phase == .preparing { condition.wait() }
            guard phase == .running else { return [] }
            phase = .paused
            return self.kickers
        }
        for kicker in kickers { kicker.kick() }
        let limit = clock.now() &+ patience
        return condition.locked {
            // One halted for good stands still as well, and so does one whose thread has ended.
            while phase == .paused, parked + halted + ended < count, condition.wait(until: limit) {}
            return phase == .paused && parked + halted + ended >= count
        }
    }

    /// Lets paused vCPUs run again.
    public func resume() {
        condition.locked {
            if phase == .paused { phase = .running }
            condition.wakeAll()
        }
    }

    /// Exits by kind, of all vCPUs together: complete once `wait` or `stop` has returned, until then as of the last
    /// `refreshStatistics`.
    public var statistics: ExitStatistics { condition.locked { counts.reduce(ExitStatistics(), +) } }

    /// Has each vCPU leave the guest and tell its counts. Any thread but a vCPU's.
    /// - Parameter patience: nanoseconds that are waited at most; then some are those of before.
    public func refreshStatistics(patience: UInt64 = 200_000_000) {
        let kickers = condition.locked { () -> [any VCPUKicker] in
            guard phase == .running || phase == .paused else { return [] }
            question &+= 1
            condition.wakeAll()
            return self.kickers
        }
        for kicker in kickers { kicker.kick() }
        let limit = clock.now() &+ patience
        condition.locked {
            while !kickers.isEmpty, phase != .ending, !answers.allSatisfy({ $0 == question }), condition.wait(until: limit) {}
        }
    }

    /// When the boot processor was about to run its first instruction, on the machine's clock.
    public var firstInstructionTime: UInt64? { condition.locked { firstInstruction } }

    // MARK: From devices

    public func request(_ request: MachineRequest) {
        switch request {
        case .powerOff: finish(.poweredOff)
        case .reset: finish(.reset)
        case .debugExit(let code): finish(.debugExit(code))
        }
    }

    /// The first outcome counts; the vCPUs are told to end.
    private func finish(_ outcome: MachineOutcome) {
        let kickers = condition.locked { () -> [any VCPUKicker] in
            if result == nil { result = outcome }
            phase = .ending
            condition.wakeAll()
            return self.kickers
        }
        for kicker in kickers { kicker.kick() }
    }

    // MARK: A vCPU's thread

    private func runVCPU(_ index: Int) {
        do throws(EngineError) {
            let vcpu = try engine.makeVCPU(index: index)
            if index == 0 { try vcpu.setEntry(general: general, system: system) }
            loop(vcpu)
            condition.locked { counts[index] = vcpu.statistics }
        } catch {
            finish(.failed(error))
        }
        condition.locked {
            ended += 1
            condition.wakeAll()
        }
    }

    private func loop(_ vcpu: any VCPU) {
        condition.locked {
            kickers.append(vcpu.kicker)
            ready += 1
            // The last one lets all run, without a turn of `start`'s thread in between.
            if ready == count, phase == .preparing { phase = .running }
            condition.wakeAll()
            while phase == .preparing { condition.wait() }
        }
        if vcpu.index == 0 {
            let now = clock.now()
            condition.locked { firstInstruction = now }
        }
        while mayRun(vcpu) {
            switch vcpu.run() {
            case .kicked, .debug:
                continue
            case .halted:
                if !haltForGood(vcpu) { return }
            case .shutdown:
                finish(.crashed(report(vcpu, .tripleFault)))
            case .systemEvent(.powerOff):
                finish(.poweredOff)
            case .systemEvent(.reset):
                finish(.reset)
            case .systemEvent(let event):
                finish(.crashed(report(vcpu, .guestRequest(event))))
            case .failed(let failure):
                finish(.crashed(report(vcpu, .engine(failure))))
            }
        }
    }

    /// Parks the vCPU while the machine is paused.
    /// - Returns: false once it is ending.
    private func mayRun(_ vcpu: any VCPU) -> Bool {
        condition.locked {
            answer(vcpu)
            if phase == .paused {
                parked += 1
                condition.wakeAll()
                while phase == .paused {
                    condition.wait()
                    answer(vcpu)
                }
                parked -= 1
            }
            return phase == .running
        }
    }

    /// Tells the vCPU's counts if they are asked for. On its thread, with the lock held.
    private func answer(_ vcpu: any VCPU) {
        guard answers[vcpu.index] != question else { return }
        answers[vcpu.index] = question
        counts[vcpu.index] = vcpu.statistics
        condition.wakeAll()
    }

    /// Without interrupt controllers a halted vCPU sleeps for good; the machine ends with the last of them.
    private func haltForGood(_ vcpu: any VCPU) -> Bool {
        let all = condition.locked {
            halted += 1
            // A pause may be waiting for this one to stand still.
            condition.wakeAll()
            return halted == count
        }
        if all { finish(.halted) }
        condition.locked {
            while phase != .ending {
                answer(vcpu)
                condition.wait()
            }
        }
        return false
    }

    private func report(_ vcpu: any VCPU, _ cause: CrashReport.Cause) -> CrashReport {
        // A report with no registers still names the cause.
        let state = try? vcpu.state()
        return CrashReport(cause: cause, vcpu: vcpu.index, engine: engine.name, state: state, memory: memory)
    }
}
