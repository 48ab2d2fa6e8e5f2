import ArgumentParser
import Machine
import VMCore
import Windhover

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

struct TestCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "test",
        abstract: "Runs the test targets of a file, each in a guest of its own.",
        discussion: """
            FILE is \(TestFile.usualName) where none is named. It is TOML: a [[target]] has a name, a command and the machine that \
            runs it; [defaults] has what all share. docs/test-files.md has every key.

            As many targets run at a time as the host has processors and memory for. What a target prints is shown if it fails.

            EXAMPLES:
              hover test
              hover test --filter 'boot*kernel=linux' --jobs 1
              hover test ci/kernels.toml --junit report.xml

            EXIT STATUS:
              0      every target passed, or was skipped for the reason that its file gives
              1      some failed
              64     the command line cannot be understood, or --filter means no target
              65     the file is no TOML, or says what cannot be
              66     there is no such file
              77     no permission
            A signal ends the targets first; what is known by then is reported, and it shows as 128 and its number in the shell.
            """)

    @Argument(help: ArgumentHelp("The file of targets.", valueName: "file"))
    var file = TestFile.usualName

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp("Only targets with this in their name; * is any text, ? any character. May be repeated.", valueName: "pattern"))
    var filter: [String] = []

    @Option(name: [.long, .short], parsing: .unconditional, help: ArgumentHelp("Run this many at a time, whatever the host has room for.", valueName: "n"))
    var jobs: String?

    @Option(parsing: .unconditional, help: ArgumentHelp("Write the results to this file as JUnit XML.", valueName: "file"))
    var junit: String?

    @Flag(help: "Print the targets' names, and run nothing.")
    var list = false

    @Flag(help: "Start nothing more once a target has failed.")
    var failFast = false

    @Flag(help: "Run all targets, whatever fails. This is the default.")
    var keepGoing = false

    @Flag(name: [.short, .long], help: "Show failures and the counts only.")
    var quiet = false

    @Flag(name: [.short, .long], help: "Show what targets print as it comes. With one job, or one target, this is the default.")
    var verbose = false

    // For tests: what stands in for `hover exec`.
    @Option(parsing: .unconditional, help: .hidden)
    var runner: String?

    /// What the command line gets wrong.
    private struct Misuse: ReportableError {
        let description: String
        var exitStatus: ExitStatus { .usage }
    }

    func run() throws {
        guard !(failFast && keepGoing) else { throw Misuse(description: "--fail-fast and --keep-going exclude each other: give one of them") }
        guard !(quiet && verbose) else { throw Misuse(description: "--quiet and --verbose exclude each other: give one of them") }
        let jobs = try jobCount()
        let file = try TestFile(file)
        let targets = try chosen(of: file)
        if list {
            try StandardOutput.write(targets.map { "\($0.name)\n" }.joined())
            return
        }
        // Seen to be possible before anything is run for it.
        let report = try junit.map { path throws(ReportFile.Failure) in try ReportFile(path) }
        if runner == nil, targets.contains(where: { $0.skipReason == nil && ($0.kernel ?? "linux") == "linux" }) {
            // Once here, in place of once for each target that starts.
            let store = try ImageStore()
            if store.locate("linux") == nil { _ = try fetch("linux", into: store) }
        }
        try run(targets, of: file, jobs: jobs, report: report)
    }

    /// The first signal that ended the run.
    private final class End {
        var number: Int32 = 0
    }

    private func jobCount() throws(Misuse) -> Int? {
        guard let jobs else { return nil }
        guard !jobs.isEmpty, jobs.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }), let count = Int(jobs), count > 0 else {
            throw Misuse(description: "--jobs wants a number from 1 on, not '\(jobs)'")
        }
        return count
    }

    private func chosen(of file: TestFile) throws(Misuse) -> [TestTarget] {
        guard !filter.isEmpty else { return file.targets }
        let patterns = filter.map { NamePattern($0) }
        let chosen = file.targets.filter { target in patterns.contains { $0.matches(target.name) } }
        guard !chosen.isEmpty else {
            throw Misuse(
                description: "no target of \(file.path) has '\(filter.joined(separator: "' or '"))' in its name: see hover test --list")
        }
        return chosen
    }

    // MARK: The run

    private func run(_ targets: [TestTarget], of file: TestFile, jobs: Int?, report: ReportFile?) throws {
        var settings = TestRunner.Settings(
            // A run that is killed takes its guests with it.
            program: runner.map { [$0] } ?? ["/proc/self/exe", "exec", "--parent", String(getpid())], directory: file.directory,
            budget: .current(jobs: jobs, automaticEngine: automaticEngine(for: targets)))
        settings.stopsAtFailure = failFast
        settings.missingEngines = missingEngines(for: targets)
        let isStreaming = !quiet && (verbose || jobs == 1 || targets.count == 1)
        let isTerminal = Terminal.isTerminal(STDOUT_FILENO) && Style.isCapable
        let ended = End()
        let display = TestDisplay(
            names: targets.map(\.name), isQuiet: quiet, isStreaming: isStreaming, hasPrefix: jobs != 1 && targets.count > 1,
            isColoured: Style.isColoured, size: { isTerminal ? Terminal.size(of: STDOUT_FILENO) : nil },
            now: Self.seconds,
            output: { text in
                // A reader that has stopped does not keep a signal from ending the run.
                try StandardOutput.write(text, isUrgent: { ended.number != 0 || EndingSignals.pending != 0 })
            })
        let timestamp = Self.timestamp()
        // A reader that goes away is an error of the write, so that the targets are ended in order.
        signal(SIGPIPE, SIG_IGN)
        let results = try EndingSignals.caught {
            var isTold = false
            let results = try TestRunner(targets, settings).run(
                interruption: {
                    var number = EndingSignals.take()
                    if number == 0, display.failure != nil, !isTold {
                        isTold = true
                        number = SIGPIPE
                    }
                    if number != 0, ended.number == 0 { ended.number = number }
                    return number
                }, observe: display.observe)
            display.finish()
            let document = JUnitReport(name: file.path, results: results, seconds: display.seconds, timestamp: timestamp)
            try report?.write(document.text)
            return results
        }
        if ended.number != 0, ended.number != SIGPIPE { GuestRun.die(of: ended.number) }
        if let failure = display.failure {
            if let failure = failure as? StandardOutput.Failure, failure.errno == EPIPE { GuestRun.die(of: SIGPIPE) }
            throw failure
        }
        if results.contains(where: \.outcome.isFailure) { Hover.finish(1) }
    }

    /// What `engine = "auto"` will be, which decides how many targets fit; asked for only where it matters.
    private func automaticEngine(for targets: [TestTarget]) -> EngineChoice {
        guard runner == nil, targets.contains(where: { $0.engine == .auto && $0.cpus > 1 }) else { return .interpreter }
        return (try? EngineSelection(.automatic))?.name == EngineChoice.kvm.rawValue ? .kvm : .interpreter
    }

    private func missingEngines(for targets: [TestTarget]) -> [EngineChoice: String] {
        guard targets.contains(where: { $0.engine == .kvm && $0.skipReason == nil }) else { return [:] }
        do {
            _ = try EngineSelection(.kvm)
            return [:]
        } catch { return [.kvm: error.description] }
    }

    private static func seconds() -> Double {
        var time = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    /// Now, in UTC.
    private static func timestamp() -> String {
        var now = time(nil)
        var parts = unsafe tm()
        unsafe gmtime_r(&now, &parts)
        func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
        let (year, month, day) = unsafe (parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday)
        let (hour, minute, second) = unsafe (parts.tm_hour, parts.tm_min, parts.tm_sec)
        return "\(year)-\(two(month))-\(two(day))T\(two(hour)):\(two(minute)):\(two(second))"
    }
}
