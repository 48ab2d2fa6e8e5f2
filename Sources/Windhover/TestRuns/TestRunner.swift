internal import Glibc
internal import VMCore

/// Runs targets, each in a process of its own, as many at a time as the host has room for.
///
/// One thread: its caller's, which is told of everything as it happens.
public struct TestRunner {
    /// What does not depend on the targets.
    public struct Settings {
        /// The program that runs a target, and its first arguments; a target's follow.
        public var program: [String]
        /// The working directory of all of them.
        public var directory: String
        public var budget: TestBudget
        /// Whether nothing more is started once a target has failed.
        public var stopsAtFailure = false
        /// Engines that this host does not have, and why: targets that insist on one are not started.
        public var missingEngines: [EngineChoice: String] = [:]
        /// Milliseconds that a target may run on after its time limit, which is its own process's to keep. Then it is killed.
        public var patience: UInt64 = 10_000
        /// Milliseconds that a run which is interrupted waits for its targets to end.
        public var grace: UInt64 = 5_000
        /// Bytes that are kept of a failed target's output, and of its console.
        public var outputLimit = 64 << 10

        public init(program: [String], directory: String, budget: TestBudget) {
            self.program = program
            self.directory = directory
            self.budget = budget
        }
    }

    /// What happens, with the target's place in the order given.
    public enum Event {
        case started(Int)
        /// A piece of its output.
        case output(Int, [UInt8])
        case finished(Int, TestResult)
        /// Ten times a second: time has passed.
        case tick
    }

    /// Why no target could be run at all.
    public struct Failure: ReportableError, Hashable {
        public let description: String
        public var exitStatus: ExitStatus { .badConfiguration }
    }

    private let targets: [TestTarget]
    private let settings: Settings

    public init(_ targets: [TestTarget], _ settings: Settings) {
        self.targets = targets
        self.settings = settings
    }

    /// A console's file takes no more than this of the disk, within a tick.
    private static let consoleLimit: UInt64 = 16 << 20
    /// Bytes of output that are kept of a target that passed.
    private static let passedLimit = 4 << 10
    private static let pollMilliseconds: UInt64 = 100

    private struct Running {
        var place: Int
        var child: TestChild
        var started: UInt64
        /// When it is killed, and by then what its outcome is.
        var deadline: UInt64
        var lateReason: String
        var statistics: String
        var console: String
    }

    /// Runs them all.
    ///
    /// - Parameters:
    ///   - interruption: a signal that came since it was asked last, or 0. The first ends the targets by SIGTERM and starts no
    ///     further ones; after the grace, or at the second, they are killed.
    ///   - observe: is told of each event.
    /// - Returns: a result a target, in their order.
    /// - Throws: `Failure` where there is no room for the runs' files.
    public func run(interruption: () -> Int32, observe: (Event) -> Void) throws(Failure) -> [TestResult] {
        let scratch = try Self.makeScratch()
        defer { try? HostFile.remove(scratch) }
        var results = [TestResult?](repeating: nil, count: targets.count)
        var running: [Running] = []
        var next = 0
        var signal: Int32 = 0
        var hasFailed = false
        var lastTick: UInt64 = 0

        func finish(_ place: Int, _ result: TestResult) {
            results[place] = result
            if result.outcome.isFailure { hasFailed = true }
            observe(.finished(place, result))
        }

        while true {
            while next < targets.count {
                let target = targets[next]
                let place = next
                if let reason = target.skipReason {
                    next += 1
                    finish(place, TestResult(name: target.name, outcome: .skipped(reason)))
                } else if signal != 0 || settings.stopsAtFailure && hasFailed {
                    next += 1
                    finish(place, TestResult(name: target.name, outcome: .skipped(signal != 0 ? "the run was interrupted" : "another target failed")))
                } else if let reason = settings.missingEngines[target.engine] {
                    next += 1
                    finish(place, TestResult(name: target.name, outcome: target.skipsWithoutEngine ? .skipped(reason) : .error(reason)))
                } else if settings.budget.admits(target, beside: running.map { targets[$0.place] }) {
                    next += 1
                    observe(.started(place))
                    switch start(place, in: scratch) {
                    case .success(let started): running.append(started)
                    case .failure(let failure):
                        let reason = "\(settings.program[0]) cannot be started: \(HostError.message(failure.errno))"
                        finish(place, TestResult(name: target.name, outcome: .error(reason)))
                    }
                } else {
                    break
                }
            }
            guard !running.isEmpty else { break }
            wait(for: running)
            for process in running {
                let bytes = process.child.read(limit: 256 << 10)
                if !bytes.isEmpty { observe(.output(process.place, bytes)) }
            }
            let now = Self.now()
            let wanted = interruption()
            for index in running.indices {
                if wanted != 0 {
                    running[index].child.end(by: signal == 0 ? SIGTERM : SIGKILL)
                    running[index].deadline = min(running[index].deadline, now &+ settings.grace &* 1_000_000)
                    running[index].lateReason = "the run was interrupted"
                } else if now >= running[index].deadline {
                    running[index].child.end(by: SIGKILL)
                }
            }
            if wanted != 0, signal == 0 { signal = wanted }
            if now &- lastTick >= Self.pollMilliseconds * 1_000_000 {
                lastTick = now
                for process in running {
                    HostFile.releaseBeginning(of: process.console, keeping: UInt64(settings.outputLimit), above: Self.consoleLimit)
                }
                observe(.tick)
            }
            running.removeAll { process in
                guard let rest = process.child.reap() else { return false }
                if !rest.isEmpty { observe(.output(process.place, rest)) }
                finish(process.place, result(of: process, isInterrupted: signal != 0))
                return true
            }
        }
        return results.enumerated().map { $1 ?? TestResult(name: targets[$0].name, outcome: .skipped("not run")) }
    }

    // MARK: One target

    private func start(_ place: Int, in scratch: String) -> Result<Running, TestChild.Failure> {
        let target = targets[place]
        let statistics = "\(scratch)/\(place).json"
        let console = "\(scratch)/\(place).console"
        let words = settings.program + target.arguments(statistics: statistics, console: console)
        do throws(TestChild.Failure) {
            let child = try TestChild(words, in: settings.directory, outputLimit: settings.outputLimit)
            let now = Self.now()
            let limit = (target.timeout.milliseconds &+ settings.patience) &* 1_000_000
            return .success(
                Running(
                    place: place, child: child, started: now, deadline: now &+ limit,
                    lateReason: "it ran on past its time limit of \(target.timeout), and was killed", statistics: statistics, console: console))
        } catch { return .failure(error) }
    }

    private func result(of process: Running, isInterrupted: Bool) -> TestResult {
        let target = targets[process.place]
        let child = process.child
        let status = child.status ?? 0
        let now = Self.now()
        var result = TestResult(name: target.name, outcome: .passed)
        result.seconds = Double(now &- process.started) / 1e9
        let statistics = (try? HostFile.contents(of: process.statistics, limit: 1 << 20)).flatMap { ExecOutcome($0) }
        result.engine = statistics?.engine
        if isInterrupted, status != 0 {
            result.outcome = .error("the run was interrupted")
        } else if now >= process.deadline, status == ShellStatus.signal(SIGKILL) {
            result.outcome = .error(process.lateReason)
        } else if statistics == nil, let signal = ShellStatus.signal(of: status) {
            result.outcome = .error(child.complaint ?? "\(settings.program[0]) was ended by signal \(signal)")
        } else {
            let outcome = statistics ?? ExecOutcome(statusOnly: status)
            result.outcome = outcome.verdict(expecting: target.expectation, timeout: target.timeout, complaint: child.complaint)
        }
        result.output = child.output
        result.console = OutputTail(ofFile: process.console, limit: settings.outputLimit)
        if !result.outcome.isFailure {
            result.output = result.output.shortened(to: Self.passedLimit)
            result.console = result.console.shortened(to: Self.passedLimit)
        }
        try? HostFile.remove(process.statistics)
        try? HostFile.remove(process.console)
        return result
    }

    /// Until something is to be read, a child's pipe is closed, a signal comes, or a tick has passed.
    private func wait(for running: [Running]) {
        var polls = running.map { pollfd(fd: $0.child.descriptor, events: Int16(POLLIN), revents: 0) }
        // One whose pipe is closed is about to end.
        let isEnding = running.contains { $0.child.descriptor < 0 }
        unsafe _ = poll(&polls, nfds_t(polls.count), isEnding ? 5 : Int32(Self.pollMilliseconds))
    }

    private static func makeScratch() throws(Failure) -> String {
        let named = unsafe getenv("TMPDIR").map { unsafe String(cString: $0) } ?? ""
        // The targets' directory is another.
        let whole = unsafe realpath(named, nil)
        defer { unsafe free(whole) }
        let directory = named.isEmpty ? "/tmp" : unsafe whole.map { unsafe String(cString: $0) } ?? named
        var template = "\(directory)/hover-test-XXXXXX".utf8CString.map { $0 }
        guard unsafe mkdtemp(&template) != nil else {
            throw Failure(description: "no directory for the runs' files can be made in '\(directory)': \(HostError.message(errno)); set TMPDIR to another")
        }
        return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Nanoseconds that only grow.
    private static func now() -> UInt64 {
        var time = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }
}
