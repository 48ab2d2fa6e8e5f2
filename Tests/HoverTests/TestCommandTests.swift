import Glibc
import MonitorTesting
import Testing
import Windhover

@testable import hover

/// `hover test` as its user sees it, with a script in place of guests.
@Suite struct TestCommandTests {
    let scratch = Scratch()

    init() {
        scratch.file("exec", FakeExec.script, mode: 0o755)
    }

    static let panic = """
        [[target]]
        name = "panics"
        command = '''
        echo "init starts"
        echo "Kernel panic - not syncing: VFS" >$console
        echo 'hover: guest kernel panic: VFS' >&2
        echo '{"outcome":"panic","exitStatus":255}' >$stats
        exit 255
        '''

        """

    static func target(_ name: String, _ command: String) -> String { "[[target]]\nname = '\(name)'\ncommand = '''\(command)'''\n" }

    func write(_ text: String, to name: String = "hover.toml") { scratch.file(name, Array(text.utf8)) }

    func run(_ arguments: [String], in directory: String? = nil) throws -> HoverProcess.Result {
        let result = try HoverProcess.run(["test", "--runner", scratch.path + "/exec"] + arguments, in: directory ?? scratch.path)
        #expect(!result.hung)
        return result
    }

    /// Times differ from run to run.
    static func timeless(_ text: String) -> String {
        var words = text.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
        for index in words.indices where Double(words[index].drop { $0 == "(" }) != nil && words[index].contains(".") {
            words[index] = words[index].hasPrefix("(") ? "(N" : "N"
        }
        return words.joined(separator: " ")
    }

    @Test func allPass() throws {
        write(Self.target("one", "echo shown to nobody") + Self.target("two", "true") + "[[target]]\nname = 'three'\ncommand = 'x'\nskip = 'not yet'\n")
        let result = try run([])
        #expect(result.status == 0 && result.errors.isEmpty, "\(result.errors)")
        let lines = Self.timeless(result.output).split(separator: "\n").map(String.init)
        #expect(lines.sorted() == ["2 passed, 0 failed, 1 skipped in N s", "ok one (N s)", "ok two (N s)", "skipped three: not yet"])
        #expect(lines.last == "2 passed, 0 failed, 1 skipped in N s")
    }

    @Test func failuresAreShownWithWhatTheyLeft() throws {
        write(Self.target("bad", "echo one; echo two; exit 4") + Self.target("good", "echo quiet") + Self.panic)
        let result = try run([])
        #expect(result.status == 1 && result.errors.isEmpty, "\(result.errors)")
        let text = Self.timeless(result.output)
        #expect(text.contains("FAILED bad: exit status 4, where 0 is expected\n"))
        #expect(text.contains("FAILED panics: guest kernel panic: VFS\n"))
        #expect(text.contains("\nFAILED bad: exit status 4, where 0 is expected\n  output:\n    one\n    two\n"))
        #expect(text.contains("  output:\n    init starts\n    hover: guest kernel panic: VFS\n  console:\n    Kernel panic - not syncing: VFS\n"))
        #expect(text.hasSuffix("\n\n1 passed, 2 failed in N s\n"))
        #expect(!text.contains("quiet"))
    }

    @Test func quietSaysFailuresOnly() throws {
        write(Self.target("one", "true"))
        #expect(Self.timeless(try run(["--quiet"]).output) == "1 passed, 0 failed in N s\n")
        write(Self.target("one", "echo x; false"))
        #expect(
            Self.timeless(try run(["-q"]).output)
                == "\nFAILED one: exit status 1, where 0 is expected\n  output:\n    x\n\n0 passed, 1 failed in N s\n")
    }

    @Test func outputComesAlongWhereItIsAskedFor() throws {
        write(Self.target("a", "echo from a; printf end") + Self.target("b", "printf 'from \\033[1mb\\r\\n'; false"))
        let text = try run(["--verbose"]).output
        for line in ["a | from a\n", "a | end\n", "b | from b\n"] { #expect(text.contains(line), "\(text)") }
        #expect(!text.contains("output:"))
        let one = try run(["--jobs", "1"]).output
        #expect(Self.timeless(one).hasPrefix("from a\nend\nok a (N s)\nfrom b\nFAILED b: "), "\(one)")
        #expect(Self.timeless(try run(["--filter", "a"]).output).hasPrefix("from a\nend\nok a (N s)\n"))
    }

    @Test func floodsAreCut() throws {
        write(Self.target("flood", "yes 0123456789 | head -n 1000000; echo end; exit 1") + Self.target("other", "true"))
        let text = try run([]).output
        #expect(text.utf8.count < 10_000)
        #expect(text.contains("  output, its end:\n    0123456789\n") && text.contains("    end\n"))
    }

    @Test func listAndFilter() throws {
        write(Self.target("boot", "true") + "matrix.kernel = ['linux', './k']\n" + Self.target("other", "false"))
        #expect(try run(["--list"]).output == "boot [kernel=linux]\nboot [kernel=./k]\nother\n")
        #expect(try run(["--list", "--filter", "b*[kernel=l", "--filter", "oth?r"]).output == "boot [kernel=linux]\nother\n")
        #expect(try run(["--filter", "boot"]).status == 0)
        #expect(try run([]).status == 1)
    }

    @Test func fileAndDirectory() throws {
        mkdir(scratch.path + "/sub", 0o755)
        write(Self.target("here", "test -e marker"), to: "sub/t.toml")
        scratch.file("sub/marker", [1])
        #expect(try run(["sub/t.toml"]).status == 0)
        #expect(try run(["t.toml"], in: scratch.path + "/sub").status == 0)
        #expect(try run([scratch.path + "/sub/t.toml"], in: "/").status == 0)
    }

    /// What this program was started with has no influence on its children's ends.
    @Test func aCallerThatIgnoresItsChildren() throws {
        write(Self.target("a", "exit 3"))
        let result = try HoverProcess.run(
            ["test", "--runner", scratch.path + "/exec"], through: ["env", "--ignore-signal=CHLD"], in: scratch.path, limit: 30)
        #expect(!result.hung && result.status == 1 && result.output.contains("exit status 3, where 0"), "\(result)")
    }

    @Test func filesOfTheRunAreBesideNobodyElses() throws {
        mkdir(scratch.path + "/sub", 0o755)
        mkdir(scratch.path + "/tmp", 0o755)
        write(Self.target("a", "echo x > $console"), to: "sub/t.toml")
        for place in ["tmp", "./tmp/", ""] {
            let result = try HoverProcess.run(
                ["test", "--runner", scratch.path + "/exec", "sub/t.toml"], in: scratch.path, variables: ["TMPDIR": place])
            #expect(result.status == 0, "\(place): \(result)")
        }
        #expect(scratch.contents.count == 4, "\(scratch.contents)")
    }

    @Test func failFast() throws {
        write(Self.target("a", "false") + Self.target("b", "true"))
        #expect(try run(["--jobs", "1", "--fail-fast"]).output.contains("skipped b: another target failed"))
        #expect(try run(["--jobs", "1", "--keep-going"]).output.contains("ok b"))
    }

    @Test func junit() throws {
        write(Self.target("good", "echo out") + Self.target("bad", "exit 2") + Self.panic)
        let result = try run(["--junit", "report.xml"])
        #expect(result.status == 1)
        let text = try String(decoding: Self.bytes(scratch.path + "/report.xml"), as: UTF8.self)
        #expect(text.contains("tests=\"3\" failures=\"1\" errors=\"1\" skipped=\"0\""))
        #expect(text.contains("<error message=\"guest kernel panic: VFS\" type=\"guest\"/>"))
        #expect(text.contains("<system-err>Kernel panic - not syncing: VFS\n</system-err>"))
        #expect(text.hasSuffix("</testsuites>\n"))
        #expect(try run(["--junit", "/dev/stdout", "--quiet"]).output.contains("<testsuites "))
        #expect(!scratch.contents.contains { $0.hasPrefix(".") })
    }

    static func bytes(_ path: String) throws -> [UInt8] {
        let file = try #require(fopen(path, "r"))
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let count = fread(&bytes, 1, bytes.count, file)
        return Array(bytes[..<count])
    }

    @Test func mistakes() throws {
        scratch.file("old.xml", Array("old".utf8))
        func expect(_ status: ExitStatus, _ arguments: [String], _ words: String..., location: SourceLocation = #_sourceLocation) throws {
            let before = scratch.contents
            let result = try run(arguments)
            #expect(result.status == status.rawValue, "\(result.errors)", sourceLocation: location)
            #expect(result.output.isEmpty && result.complaints.count == 1 && result.errors.hasPrefix("hover: "), "\(result)", sourceLocation: location)
            for word in words { #expect(result.errors.contains(word), "\(result.errors)", sourceLocation: location) }
            #expect(scratch.contents == before, sourceLocation: location)
        }
        try expect(.noSuchFile, [], "hover.toml")
        try expect(.noSuchFile, ["none.toml"], "none.toml")
        write("[[target]]\nname = 'a'\ncommand == 'x'\n")
        try expect(.badConfiguration, [], "hover.toml:3:10: ")
        write("[[target]]\nname = 'a'\ncomand = 'x'\n")
        try expect(.badConfiguration, ["hover.toml"], "hover.toml:3:1: ", "did you mean command?")
        write("")
        try expect(.badConfiguration, [], "hover.toml:1:1: ")
        write("[defaults]\ncpus = 1\n")
        try expect(.badConfiguration, [], "[[target]]")
        write(Self.target("a", "touch ran"))
        try expect(.usage, ["--filter", "zzz"], "'zzz'", "--list")
        for jobs in ["0", "-1", "x", "", "1.5", "99999999999999999999"] { try expect(.usage, ["--jobs", jobs], "--jobs") }
        try expect(.usage, ["--fail-fast", "--keep-going"], "exclude")
        try expect(.usage, ["--quiet", "--verbose"], "exclude")
        try expect(.usage, ["--nonsense"], "hover test --help")
        try expect(.usage, ["a", "b"], "hover test --help")
        try expect(.noSuchFile, ["--junit", "none/r.xml"], "'none/r.xml'", "--junit")
        try expect(.badConfiguration, ["--junit", "."], "'.'")
        try expect(.noSuchFile, ["--junit", ""], "--junit")
        try expect(.badConfiguration, ["."], "a directory")
        // What is in the file is told on one line, whatever it holds.
        write("\"a\\n\\u001b[2J\" = 1\n")
        try expect(.badConfiguration, [], "hover.toml:1:1: ", "'a '")
    }

    @Test func anInterruptionIsReported() throws {
        write(Self.target("slow", "touch running; sleep 50") + Self.target("later", "true"))
        let result = try HoverProcess.run(
            ["-c", "\(HoverProcess.path) test --runner ./exec --jobs 1 --junit r.xml & while [ ! -e running ]; do sleep 0.05; done; kill -TERM $!; wait $!"],
            through: ["/bin/sh", "-c", "shift; exec /bin/sh \"$@\"", "sh"], in: scratch.path)
        #expect(!result.hung && result.status == 128 + SIGTERM, "\(result)")
        #expect(result.output.contains("FAILED slow: the run was interrupted"))
        #expect(result.output.contains("skipped later: the run was interrupted"))
        let text = try String(decoding: Self.bytes(scratch.path + "/r.xml"), as: UTF8.self)
        #expect(text.contains("errors=\"1\" skipped=\"1\"") && text.hasSuffix("</testsuites>\n"))
    }

    /// A reader that has stopped holds the run up, and its end by a signal for a second only.
    @Test func aReaderThatHasStoppedDoesNotHoldASignalUp() throws {
        write(Self.target("chatty", "touch running; yes; sleep 50") + Self.target("later", "true"))
        let result = try HoverProcess.run(
            [
                "-c",
                """
                mkfifo pipe; sleep 100 < pipe & reader=$!
                \(HoverProcess.path) test --runner ./exec --jobs 1 > pipe & run=$!
                while [ ! -e running ]; do sleep 0.05; done; sleep 2; kill -TERM $run; wait $run; echo $?; kill $reader
                """,
            ], through: ["/bin/sh", "-c", "shift; exec /bin/sh \"$@\"", "sh"], in: scratch.path, limit: 40)
        #expect(!result.hung && result.output == "\(128 + SIGTERM)\n", "\(result)")
    }

    @Test func aReaderThatGoesAwayEndsTheRun() throws {
        write(Self.target("chatty", "while echo x; do sleep 0.01; done; sleep 50"))
        let result = try HoverProcess.run(
            ["-c", "{ \(HoverProcess.path) test --runner ./exec; echo $? >status; } | head -n 2; cat status"],
            through: ["/bin/sh", "-c", "shift; exec /bin/sh \"$@\"", "sh"], in: scratch.path)
        #expect(!result.hung)
        #expect(result.output == "x\nx\n\(128 + SIGPIPE)\n", "\(result)")
    }

    // MARK: On a terminal

    @Test func aTableOnATerminal() throws {
        write(Self.target("first", "exit 0") + Self.target("second", "while [ ! -e \(scratch.path)/go ]; do sleep 0.05; done; false"))
        let session = try TerminalSession(
            ["test", "--runner", scratch.path + "/exec", "--jobs", "2", scratch.path + "/hover.toml"], variables: ["TERM": "xterm", "NO_COLOR": ""])
        #expect(session.expect("ok"))
        #expect(session.expect("running"))
        #expect(session.expect("1 running, 0 waiting"))
        scratch.file("go", [1])
        #expect(session.expect("FAILED"))
        #expect(session.end() == 1)
        #expect(session.text.contains("\u{1B}[J") && session.text.contains("\u{1B}[32m"))
        #expect(session.isCooked)
    }

    @Test func controlCGivesTheTerminalBack() throws {
        write(Self.target("slow", "touch \(scratch.path)/running; sleep 50") + Self.target("slower", "sleep 50"))
        let session = try TerminalSession(
            ["test", "--runner", scratch.path + "/exec", "--jobs", "2", scratch.path + "/hover.toml"], variables: ["TERM": "xterm", "NO_COLOR": "1"])
        #expect(session.expect("2 running"))
        session.type("\u{3}")
        #expect(session.expect("0 passed, 2 failed"))
        #expect(session.end() == 128 + SIGINT)
        // The table is gone: what was drawn last is below the last time that it was taken away.
        #expect(!session.text.split(separator: "\u{1B}[J").last!.contains("running,"))
        #expect(session.isCooked)
    }
}

@Suite struct TestDisplayTests {
    static let names = ["a", "boot [kernel=./build/arch/x86/boot/bzImage]", "日本語のテスト"]

    final class Screen {
        var text = ""
        var time = 0.0
        var size: Terminal.Size? = Terminal.Size(rows: 10, columns: 60)
    }

    func display(_ screen: Screen, quiet: Bool = false, streaming: Bool = false) -> TestDisplay {
        TestDisplay(
            names: Self.names, isQuiet: quiet, isStreaming: streaming, hasPrefix: true, isColoured: false, size: { screen.size }, now: { screen.time },
            output: { screen.text += $0 })
    }

    func result(_ name: String, _ outcome: TestOutcome, seconds: Double = 1.25) -> TestResult {
        var result = TestResult(name: name, outcome: outcome)
        result.seconds = seconds
        return result
    }

    @Test func theTableIsDrawnInItsPlace() {
        let screen = Screen()
        let display = display(screen)
        display.observe(.started(0))
        #expect(screen.text == "running  a                                   0.0 s\n0 passed, 0 failed, 1 running, 2 waiting, 0.0 s\n".replacingNameColumn)
        screen.text = ""
        screen.time = 61
        display.observe(.tick)
        #expect(screen.text.hasPrefix("\r\u{1B}[2A\u{1B}[Jrunning  a"))
        #expect(screen.text.contains("1 min 1 s"))
        screen.text = ""
        display.observe(.finished(0, result("a", .failed("exit status 1, where 0 is expected"))))
        #expect(screen.text.hasPrefix("\r\u{1B}[2A\u{1B}[JFAILED   a") && !screen.text.contains("running"))
    }

    @Test func nothingIsWiderThanTheTerminal() {
        for columns in 1...130 {
            for rows in [1, 2, 3, 4, 24] {
                let screen = Screen()
                screen.size = Terminal.Size(rows: rows, columns: columns)
                let display = display(screen)
                for place in Self.names.indices { display.observe(.started(place)) }
                display.observe(.finished(0, result("a", .error(String(repeating: "長い reason ", count: 30)))))
                let last = screen.text.split(separator: "\u{1B}[J").last.map(String.init) ?? screen.text
                let lines = last.split(separator: "\n")
                #expect(lines.count <= max(1, rows), "\(rows) rows: \(lines)")
                for line in lines where columns > 10 || !line.hasPrefix("FAILED") { #expect(TestLines.width(String(line)) < columns, "\(columns) \(line)") }
            }
        }
    }

    @Test func onANarrowTerminalThereAreNames() {
        let screen = Screen()
        screen.size = Terminal.Size(rows: 10, columns: 20)
        let display = display(screen)
        display.observe(.started(1))
        #expect(screen.text.hasPrefix("running  boot [ker~\n"), "\(screen.text)")
        screen.size = Terminal.Size(rows: 10, columns: 10)
        screen.text = ""
        display.observe(.tick)
        #expect(screen.text.hasPrefix("\r\u{1B}[2A\u{1B}[Jboot [ke~\n"), "\(screen.text)")
    }

    /// A terminal that says it has no size, or none any more: the table goes, and lines stay.
    @Test func aTerminalThatLosesItsSize() {
        let screen = Screen()
        let display = display(screen)
        display.observe(.started(0))
        screen.size = nil
        screen.text = ""
        display.observe(.tick)
        #expect(screen.text.isEmpty)
        display.observe(.finished(0, result("a", .passed)))
        #expect(screen.text == "\r\u{1B}[2A\u{1B}[Jok a (1.3 s)\n")
    }

    @Test func withoutATerminalThereAreOnlyLines() {
        let screen = Screen()
        screen.size = nil
        let display = display(screen)
        display.observe(.started(0))
        display.observe(.tick)
        #expect(screen.text.isEmpty)
        display.observe(.output(0, [0x78]))
        display.observe(.finished(0, result("a", .passed)))
        #expect(screen.text == "ok a (1.3 s)\n")
        screen.text = ""
        screen.time = 5
        display.finish()
        #expect(screen.text == "\n1 passed, 0 failed in 5.0 s\n")
    }

    @Test func outputIsCutIntoLines() {
        let screen = Screen()
        screen.size = nil
        let display = display(screen, streaming: true)
        display.observe(.output(0, Array("one\ntw".utf8)))
        display.observe(.output(1, Array("\u{1B}[2Jother\r\n".utf8)))
        display.observe(.output(0, Array("o\n\n".utf8)))
        #expect(screen.text == "a | one\n\(Self.names[1]) | other\na | two\na | \n")
        screen.text = ""
        display.observe(.output(0, [UInt8](repeating: 0x78, count: 10_000)))
        #expect(screen.text.utf8.count < 10_000 && screen.text.hasPrefix("a | xxx"))
    }

    @Test func aReaderThatGoesAwayIsNoted() {
        struct Gone: Error {}
        var count = 0
        let display = TestDisplay(
            names: ["a"], isQuiet: false, isStreaming: false, hasPrefix: false, isColoured: false, size: { nil }, now: { 0 },
            output: { _ in
                count += 1
                throw Gone()
            })
        display.observe(.finished(0, result("a", .passed)))
        display.finish()
        #expect(display.failure is Gone)
        #expect(count == 1)
    }

    @Test func widths() {
        #expect(TestLines.width("日本") == 4 && TestLines.width("e\u{301}") == 1 && TestLines.width("abc") == 3)
        #expect(TestLines.cut("日本語", to: 5) == "日本~" && TestLines.cut("abc", to: 3) == "abc" && TestLines.cut("abc", to: 0) == "")
        #expect(TestLines.duration(0.04) == "0.0 s" && TestLines.duration(59.94) == "59.9 s" && TestLines.duration(59.96) == "1 min 0 s")
    }
}

extension String {
    /// The first line with its name padded to the width that the widest of the names gets.
    fileprivate var replacingNameColumn: String {
        let width = TestLines(isColoured: false, columns: 60).nameWidth(TestDisplayTests.names)
        let lines = split(separator: "\n").map(String.init)
        return "running  a" + String(repeating: " ", count: width - 1 + 7) + "0.0 s\n" + lines[1] + "\n"
    }
}
