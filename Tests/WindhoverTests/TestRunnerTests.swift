import Glibc
import MonitorTesting
import Synchronization
import Testing

@testable import Windhover

@Suite struct TestRunnerTests {
    let directory = TemporaryDirectory()

    func settings(_ budget: TestBudget = TestBudget(processors: 64, memory: 1 << 40)) -> TestRunner.Settings {
        TestRunner.Settings(program: [directory.file("exec", FakeExec.script, mode: 0o755)], directory: directory.path, budget: budget)
    }

    func target(_ command: String, name: String = "t", more: String = "") throws -> TestTarget {
        let text = "[[target]]\nname = '\(name)'\ncommand = '''\(command)'''\n\(more)"
        return try #require(try TestFile("t.toml", Array(text.utf8)).targets.first)
    }

    func run(_ targets: [TestTarget], _ settings: TestRunner.Settings? = nil) throws -> [TestResult] {
        try TestRunner(targets, settings ?? self.settings()).run(interruption: { 0 }, observe: { _ in })
    }

    func outcome(_ command: String, more: String = "") throws -> TestOutcome { try run([target(command, more: more)])[0].outcome }

    @Test func verdicts() throws {
        #expect(try outcome("exit 0") == .passed)
        #expect(try outcome("exit 3") == .failed("exit status 3, where 0 is expected"))
        #expect(try outcome("exit 3", more: "expect = 3") == .passed)
        #expect(try outcome("exit 0", more: "expect = 3") == .failed("exit status 0, where 3 is expected"))
        // A command's own 124 or 255 is neither a time-out nor a panic.
        #expect(try outcome("exit 124") == .failed("exit status 124, where 0 is expected"))
        #expect(try outcome("exit 255", more: "expect = 255") == .passed)
        #expect(try outcome(FakeExec.ending("signal", 139)) == .failed("the command ended by signal 11 (139), where 0 is expected"))
        #expect(try outcome(FakeExec.ending("signal", 139), more: "expect = 139") == .passed)
        #expect(try outcome(FakeExec.ending("panic", 255, "guest kernel panic: VFS")) == .error("guest kernel panic: VFS"))
        #expect(try outcome(FakeExec.ending("panic", 255)) == .error("the guest's kernel panicked"))
        #expect(try outcome(FakeExec.ending("panic", 255), more: "expect = 'panic'") == .passed)
        #expect(try outcome("exit 0", more: "expect = 'panic'") == .failed("exit status 0, where the guest's kernel is expected to panic"))
        // The out-of-memory killer's is a signal like others, with a reason.
        #expect(try outcome(FakeExec.ending("out-of-memory", 137), more: "expect = 137") == .passed)
        #expect(
            try outcome(FakeExec.ending("out-of-memory", 137, "the guest was out of memory"))
                == .failed("the guest was out of memory (137), where 0 is expected"))
        #expect(try outcome(FakeExec.ending("interrupted", 143)) == .error("the guest was stopped: hover got signal 15"))
        // A panic is not the status 255 that was expected of the command.
        #expect(try outcome(FakeExec.ending("panic", 255), more: "expect = 255").isFailure)
        #expect(try outcome(FakeExec.ending("timeout", 124), more: "timeout = '30s'") == .error("the time limit of 30s passed"))
        #expect(try outcome(FakeExec.ending("died", 70, "triple fault")) == .error("triple fault"))
        #expect(try outcome(FakeExec.ending("died", 70, "it died; its last lines:")) == .error("it died"))
        #expect(try outcome(FakeExec.ending("not-started", 66, "there is no kernel x")) == .error("there is no kernel x"))
    }

    @Test func withoutStatisticsTheStatusCounts() throws {
        let bare = directory.file("bare", "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift\nexec \"$@\"", mode: 0o755)
        var settings = settings()
        settings.program = [bare]
        func outcome(_ command: String) throws -> TestOutcome { try run([target(command)], settings)[0].outcome }
        #expect(try outcome("exit 0") == .passed)
        #expect(try outcome("exit 124") == .error("the time limit of 600s passed"))
        #expect(try outcome("exit 255") == .error("the guest's kernel panicked"))
        #expect(try outcome("echo 'hover: no such option' >&2; exit 64") == .error("no such option"))
        #expect(try outcome("kill -9 $$") == .error("\(bare) was ended by signal 9"))
        settings.program = ["/nonexistent/exec"]
        let reason = try run([target("true")], settings)[0].outcome.reason
        #expect(reason?.hasPrefix("/nonexistent/exec cannot be started: ") == true && reason?.lowercased().contains("no such file or directory") == true)
    }

    @Test func skippedOnesAreNotRun() throws {
        var settings = settings()
        settings.missingEngines = [.kvm: "no KVM here"]
        let mark = directory.path + "/mark"
        let results = try run(
            [
                target("touch \(mark)", more: "skip = 'not yet'"), target("touch \(mark)", more: "engine = 'kvm'\nwhen_missing = 'skip'"),
                target("touch \(mark)", more: "engine = 'kvm'"), target("true", more: "engine = 'interpreter'"),
            ], settings)
        #expect(results.map(\.outcome) == [.skipped("not yet"), .skipped("no KVM here"), .error("no KVM here"), .passed])
        #expect(HostFile.facts(mark) == nil)
    }

    @Test func outputAndConsoleAreKept() throws {
        let result = try run([target("echo out; echo err >&2; echo kernel says >$console; exit 1")])[0]
        #expect(result.output.text == "out\nerr\n")
        #expect(result.console.text == "kernel says\n")
        #expect(result.engine == "interpreter")
        #expect(result.seconds > 0)
    }

    @Test func commandsRunBesideTheirFile() throws {
        #expect(try run([target("pwd; read x && exit 1; exit 7", more: "expect = 7")])[0].outcome == .passed)
        #expect(try run([target("pwd; exit 1")])[0].output.text == "\(directory.path)\n")
    }

    @Test func floodsAreBounded() throws {
        var settings = settings()
        settings.outputLimit = 10_000
        let flood = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end"
        let consoles = "(head -c 3000000 /dev/zero | tr '\\0' y; echo) >$console; echo last >>$console"
        let result = try run([target("\(flood); \(consoles); exit 1")], settings)[0]
        #expect(result.output.bytes.count == 10_000)
        #expect(result.output.missing == 3_000_009 - 10_000)
        #expect(result.output.text == "the end\n")
        #expect(result.console.bytes.count == 10_000)
        #expect(result.console.text == "last\n")
        #expect(result.outcome == .failed("exit status 1, where 0 is expected"))
    }

    @Test func aConsoleThatGrowsForEverGivesItsRoomBack() throws {
        let path = directory.path + "/console"
        try HostFile.create(path, with: [UInt8](repeating: 1, count: 4 << 20) + Array("the end".utf8))
        HostFile.releaseBeginning(of: path, keeping: 64 << 10, above: 64 << 20)
        #expect(try #require(HostFile.facts(path)).allocated >= 4 << 20)
        HostFile.releaseBeginning(of: path, keeping: 64 << 10, above: 1 << 20)
        let facts = try #require(HostFile.facts(path))
        #expect(facts.size == 4 << 20 + 7)
        #expect(facts.allocated < 1 << 20)
        #expect(OutputTail(ofFile: path, limit: 7).text == "the end")
    }

    // MARK: How many at a time

    @Test func admission() throws {
        let one = try target("x", more: "memory = '1G'\nengine = 'interpreter'")
        var wide = one
        wide.cpus = 3
        let budget = TestBudget(processors: 4, memory: 4 << 30)
        #expect(budget.admits(one, beside: [one, one, one]))
        #expect(!budget.admits(one, beside: [one, one, one, one]))
        #expect(budget.admits(wide, beside: [one]) && !budget.admits(wide, beside: [one, one]))
        wide.engine = .kvm
        #expect(budget.admits(wide, beside: [one, one, one]))
        wide.engine = .auto
        #expect(!budget.admits(wide, beside: [one, one]))
        #expect(TestBudget(processors: 4, memory: 4 << 30, automaticEngine: .kvm).admits(wide, beside: [one, one]))
        #expect(!TestBudget(processors: 64, memory: (3 << 30) - 1).admits(one, beside: [one, one]))
        // One alone always runs, and somebody's own number counts above both bounds.
        #expect(TestBudget(processors: 1, memory: 0).admits(wide, beside: []))
        let asked = TestBudget(processors: 1, memory: 0, jobs: 2)
        #expect(asked.admits(wide, beside: [wide]) && !asked.admits(one, beside: [one, one]))
        let here = TestBudget.current()
        #expect(here.processors >= 1 && here.memory > 0)
    }

    @Test(arguments: [1, 3])
    func neverMoreThanAllowed(jobs: Int) throws {
        let targets = try (0..<9).map { try target("sleep 0.1", name: "t\($0)") }
        var now = 0
        var most = 0
        let results = try TestRunner(targets, settings(TestBudget(processors: 1, memory: 0, jobs: jobs))).run(interruption: { 0 }) { event in
            switch event {
            case .started: now += 1
            case .finished: now -= 1
            default: break
            }
            most = max(most, now)
        }
        #expect(most == jobs)
        #expect(results.map(\.name) == targets.map(\.name))
        #expect(TestCounts(results).passed == 9)
    }

    @Test func theFirstFailureMayBeTheLast() throws {
        var settings = settings(TestBudget(processors: 1, memory: 0, jobs: 1))
        settings.stopsAtFailure = true
        let results = try run([target("true"), target("false"), target("true")], settings)
        #expect(results.map(\.outcome) == [.passed, .failed("exit status 1, where 0 is expected"), .skipped("another target failed")])
        settings.stopsAtFailure = false
        #expect(try run([target("false"), target("true")], settings).last?.outcome == .passed)
    }

    // MARK: Ends

    @Test func aChildThatIgnoresItsTimeLimitIsKilled() throws {
        var settings = settings()
        settings.patience = 300
        let file = directory.path + "/grandchild"
        let started = time(nil)
        let result = try run([target("trap '' TERM INT; sleep 100 & echo $! >\(file); wait; sleep 100", more: "timeout = '200ms'")], settings)[0]
        #expect(result.outcome == .error("it ran on past its time limit of 200ms, and was killed"))
        #expect(time(nil) - started < 20)
        // So is what it started.
        let text = String(decoding: try HostFile.contents(of: file, limit: 100), as: UTF8.self)
        let grandchild = try #require(pid_t(text.split(separator: "\n")[0]))
        var isGone = false
        for _ in 0..<300 where !isGone {
            let state = String(decoding: (try? HostFile.contents(of: "/proc/\(grandchild)/stat", limit: 4096)) ?? [], as: UTF8.self)
            isGone = state.isEmpty || state.contains(") Z ")
            usleep(10_000)
        }
        #expect(isGone)
    }

    @Test func whatAChildLeavesBehindHoldsNothingUp() throws {
        let started = time(nil)
        // The sleep has the pipe open.
        #expect(try outcome("sleep 50 & exit 0") == .passed)
        #expect(time(nil) - started < 20)
    }

    @Test func anInterruptionEndsThemInOrder() throws {
        let targets = try [
            target("trap 'echo bye; kill $!; exit 143' TERM; sleep 60 & wait", name: "polite"), target("trap '' TERM; sleep 60; sleep 60", name: "deaf"),
            target("true", name: "late"),
        ]
        var settings = settings(TestBudget(processors: 1, memory: 0, jobs: 2))
        settings.program = [directory.file("direct", "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift\nexec \"$@\"", mode: 0o755)]
        settings.grace = 500
        var turns = 0
        let results = try TestRunner(targets, settings).run(
            interruption: {
                turns += 1
                return turns == 8 ? SIGINT : 0
            }, observe: { _ in })
        #expect(results.map(\.outcome) == [.error("the run was interrupted"), .error("the run was interrupted"), .skipped("the run was interrupted")])
        #expect(results[0].output.text == "bye\n")
        #expect(results[0].seconds < results[1].seconds)
    }

    @Test func nothingIsLeft() throws {
        let scratch = TemporaryDirectory()
        let former = String(cString: getenv("TMPDIR") ?? strdup("/tmp"))
        setenv("TMPDIR", scratch.path, 1)
        defer { setenv("TMPDIR", former, 1) }
        #expect(try outcome("echo x >$console; ls \(scratch.path) | grep hover-test") == .passed)
        #expect(HostFile.names(in: scratch.path).isEmpty)
        setenv("TMPDIR", "/nonexistent", 1)
        #expect(failure { () throws(TestRunner.Failure) in
            try TestRunner([try! target("true")], settings()).run(interruption: { 0 }, observe: { _ in })
        }?.description.contains("TMPDIR") == true)
    }
}

@Suite struct OutputTailTests {
    @Test func tailsCountWhatTheyDrop() {
        var tail = OutputTail(limit: 10)
        for byte in UInt8(0)..<100 { tail.append([byte]) }
        #expect(Array(tail.bytes) == Array(90..<100))
        #expect(tail.missing == 90)
        #expect(tail.shortened(to: 4).missing == 96)
        #expect(Array(tail.shortened(to: 4).bytes) == [96, 97, 98, 99])
    }
}

@Suite struct JUnitReportTests {
    static func result(_ name: String, _ outcome: TestOutcome, _ output: [UInt8] = []) -> TestResult {
        var result = TestResult(name: name, outcome: outcome)
        result.seconds = 1.2345
        result.output = OutputTail(limit: 64)
        result.output.append(output[...])
        return result
    }

    static let results = [
        result("ok", .passed), result("a<b>&\"c'", .failed("exit \"1\" < 2 & 3\u{1}")),
        result("panic", .error("guest kernel panic"), Array("\u{1B}[1m]]> <x> & \0\u{8}\r\n".utf8) + [0xFF, 0xFE]),
        result("skipped", .skipped("not yet")), result("long", .failed("no"), [UInt8](repeating: 0x61, count: 1000)),
    ]

    @Test func whatItSays() {
        let text = JUnitReport(name: "t.toml", results: Self.results, seconds: 10, timestamp: "2026-01-01T00:00:00").text
        #expect(text.hasPrefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"hover test\" tests=\"5\" failures=\"2\" errors=\"1\" skipped=\"1\" time=\"10.000\">\n"))
        #expect(text.contains("<testsuite name=\"t.toml\" tests=\"5\" failures=\"2\" errors=\"1\" skipped=\"1\" time=\"10.000\" timestamp=\"2026-01-01T00:00:00\">"))
        #expect(text.contains("<testcase classname=\"t.toml\" name=\"a&lt;b&gt;&amp;&quot;c'\" time=\"1.235\">\n      <failure message=\"exit &quot;1&quot; &lt; 2 &amp; 3\" type=\"status\"/>"))
        #expect(text.contains("<error message=\"guest kernel panic\" type=\"guest\"/>\n      <system-out>]]&gt; &lt;x&gt; &amp; \n\u{FFFD}\u{FFFD}</system-out>"))
        #expect(text.contains("<skipped message=\"not yet\"/>"))
        #expect(text.contains("<system-out>(936 bytes before these are left out)\naaaa"))
        #expect(JUnitReport.decimal(0.0004) == "0.000" && JUnitReport.decimal(61.9996) == "62.000" && JUnitReport.decimal(-1) == "0.000")
    }

    /// Any bytes at all make a document that an XML reader takes, with the text that is in it.
    @Test func isWellFormed() throws {
        var results = Self.results
        let numbers: [UInt32] = Array(0...0x2FF) + [0xFFFD, 0xFFFE, 0xFFFF, 0x1FFFF, 0x10FFFF, 0x2028]
        let all: [Unicode.Scalar] = numbers.compactMap { Unicode.Scalar($0) }
        let text = String(String.UnicodeScalarView(all))
        var result = TestResult(name: text, outcome: .error(text))
        result.output = OutputTail(limit: 1 << 16)
        result.output.append(Array(text.utf8)[...])
        result.output.append([UInt8](0...255)[...])
        results.append(result)
        let directory = TemporaryDirectory()
        let path = directory.file("report.xml", JUnitReport(name: text, results: results, seconds: 1).text)
        let script = """
            import sys, xml.etree.ElementTree as e
            root = e.parse(sys.argv[1]).getroot()
            cases = root.findall('./testsuite/testcase')
            print(root.tag, len(cases), [c.find('system-out').text for c in cases if c.get('name') == 'panic'], len(cases[-1].find('error').get('message')))
            """
        guard let answer = try? HostCommand(["python3", "-c", script, path]).run() else { try Test.cancel("there is no python3 here") }
        #expect(answer.status == 0, "\(answer.errorText)")
        #expect(answer.text.hasPrefix("testsuites 6 [']]> <x> & \\n"), "\(answer.text)")
    }
}

@Suite struct ReportFileTests {
    let directory = TemporaryDirectory()

    func errno(_ path: String) -> Int32? { failure { () throws(ReportFile.Failure) in try ReportFile(path) }?.errno }

    func contents(_ path: String) -> String? { (try? HostFile.contents(of: path, limit: 1000)).map { String(decoding: $0, as: UTF8.self) } }

    @Test func appearsWhole() throws {
        let path = directory.file("r.xml", "old")
        do {
            let file = try ReportFile(path)
            #expect(contents(path) == "old")
            // A signal that ends the process leaves nothing beside it.
            #expect(HostFile.names(in: directory.path) == ["r.xml"])
            try file.write("new")
            #expect(contents(path) == "new")
        }
        let other = directory.path + "/other.xml"
        _ = try ReportFile(other)
        #expect(HostFile.names(in: directory.path) == ["r.xml"])
        // What a killed process of this number has left is in nobody's way.
        directory.file(".r.xml.\(getpid())", "half")
        try ReportFile(path).write("newer")
        #expect(contents(path) == "newer" && HostFile.names(in: directory.path) == ["r.xml"])
    }

    @Test func aLinkIsFollowed() throws {
        let path = directory.file("r.xml", "old")
        let link = directory.path + "/link.xml"
        try HostFile.makeLink(link, to: "r.xml")
        try ReportFile(link).write("new")
        #expect(contents(path) == "new" && HostFile.facts(link)?.isRegular == false)
    }

    @Test func whatCannotBeWritten() {
        #expect(errno(directory.path) == EISDIR)
        #expect(errno(directory.path + "/none/r.xml") == ENOENT)
        #expect(errno(directory.file("f", "") + "/r.xml") == ENOTDIR)
        #expect(errno("") == ENOENT)
        #expect(errno("/proc/r.xml") != nil)
        #expect(HostFile.names(in: directory.path) == ["f"])
    }

    @Test func aDeviceIsWrittenToAndStays() throws {
        let link = directory.path + "/null"
        try HostFile.makeLink(link, to: "/dev/null")
        try ReportFile(link).write("x")
        #expect(access(link, W_OK) == 0)
        #expect(HostFile.facts("/dev/null")?.isRegular == false)
    }
}
