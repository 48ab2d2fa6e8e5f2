import Testing

@testable import Windhover

@Suite struct TestFileTests {
    func targets(_ text: String) throws -> [TestTarget] { try TestFile("hover.toml", Array(text.utf8)).targets }

    func complaint(_ text: String) -> String {
        failure { () throws(TestFileError) in try TestFile("dir/t.toml", Array(text.utf8)) }?.description ?? "none"
    }

    @Test func everyKey() throws {
        let target = try #require(
            try targets(
                """
                [[target]]
                name = "all"
                kernel = "./bzImage"
                modules = "mods"
                root = "-root"
                disk = ["a.img", "b.img,readonly"]
                rw = true
                command = ["/bin/test", "", "-f"]
                workdir = "/src"
                cpus = 2
                memory = "1G"
                engine = "interpreter"
                when_missing = "skip"
                timeout = "1.5s"
                env = { A = "x y", B = "" }
                net = "user,forward=8080:80"
                user = "nobody"
                shares = ["src:/src,readonly"]
                append = ["quiet", "-x"]
                expect = 3
                """
            ).first)
        #expect(
            target.arguments(statistics: "/s", console: "/c") == [
                "--kernel", "./bzImage", "--modules", "mods", "--root", "./-root", "--disk", "a.img", "--disk", "b.img,readonly", "--rw", "--share",
                "src:/src,readonly", "--cpus", "2", "--memory", "1G", "--engine", "interpreter", "--net", "user,forward=8080:80", "--user",
                "nobody", "--env", "A=x y", "--env", "B=", "--workdir", "/src", "--timeout", "1.5s", "--append", "quiet", "--append", "-x",
                "--console-log", "/c", "--stats", "/s", "--", "/bin/test", "", "-f",
            ])
        #expect(target.expectation == .status(3))
        #expect(target.skipsWithoutEngine)
    }

    @Test func aShellsCommandAndWhatIsUsual() throws {
        let target = try #require(try targets("[[target]]\nname = 'a'\ncommand = 'true && false'\ntimeout = 5").first)
        #expect(
            target.arguments(statistics: "s", console: "c") == [
                "--cpus", "1", "--memory", "512M", "--engine", "auto", "--timeout", "5s", "--console-log", "c", "--stats", "s", "--", "/bin/sh", "-c",
                "true && false",
            ])
        #expect(target.expectation == .status(0))
        #expect(try targets("[[target]]\nname='a'\ncommand='b'\ntimeout=1.5").first?.timeout.milliseconds == 1500)
        #expect(try targets("[[target]]\nname='a'\ncommand='b'").first?.timeout.milliseconds == 600_000)
    }

    @Test func defaultsStandBelowTargets() throws {
        let all = try targets(
            """
            [defaults]
            command = "make"
            memory = "1G"
            env = { A = "1", B = "2" }
            expect = "panic"
            [[target]]
            name = "one"
            [[target]]
            name = "two"
            memory = "2G"
            env.B = "3"
            expect = 0
            skip = "not yet"
            """)
        #expect(all.map(\.name) == ["one", "two"])
        #expect(all.map(\.memory.description) == ["1G", "2G"])
        #expect(all[0].environment.map(\.value) == ["1", "2"] && all[1].environment.map(\.value) == ["1", "3"])
        #expect(all[0].expectation == .panic && all[1].expectation == .status(0))
        #expect(all[0].skipReason == nil && all[1].skipReason == "not yet")
    }

    @Test func aMatrixIsARunForEachCombination() throws {
        let all = try targets(
            """
            [[target]]
            name = "boot"
            command = "true"
            matrix.kernel = ["linux", "./a/bzImage"]
            matrix.cpus = [1, 2]
            matrix.rw = [true]
            """)
        #expect(
            all.map(\.name) == [
                "boot [kernel=linux, cpus=1, rw=true]", "boot [kernel=linux, cpus=2, rw=true]", "boot [kernel=./a/bzImage, cpus=1, rw=true]",
                "boot [kernel=./a/bzImage, cpus=2, rw=true]",
            ])
        #expect(all.map(\.kernel) == ["linux", "linux", "./a/bzImage", "./a/bzImage"])
        #expect(all.map(\.cpus) == [1, 2, 1, 2])
    }

    @Test func aMatrixOfAllGivesWayToATargetsOwnKey() throws {
        let all = try targets(
            "defaults.matrix.kernel = ['linux', 'host']\n[[target]]\nname = 'a'\ncommand = 'x'\n[[target]]\nname = 'b'\ncommand = 'x'\nkernel = 'k'")
        #expect(all.map(\.name) == ["a [kernel=linux]", "a [kernel=host]", "b"])
    }

    @Test(arguments: [
        ("", "1:1", "[[target]]"), ("[defaults]\ncpus = 1\n", "1:1", "[[target]]"), ("[[target]]\nname = 'a'\n", "1:1", "'a' has no command"),
        ("[[target]]\ncommand = 'a'\n", "1:1", "no name"), ("[[target]]\nname = ''\n", "2:8", "empty"), ("[[target]]\nname = 7\n", "2:8", "a string, not an integer"),
        ("[target]\nname = 'a'\n", "1:2", "[[target]]"), ("[[defaults]]\n", "1:1", "defaults wants a table"), ("[default]\n", "1:2", "did you mean defaults?"),
        ("[[target]]\nname = 'a'\ncomand = 'x'\n", "3:1", "did you mean command?"), ("[[target]]\nwhen-missing = 'x'\n", "2:1", "did you mean when_missing?"),
        ("[[target]]\n  xyzzy = 'x'\n", "2:3", "append, command, cpus"), ("[defaults]\nname = 'x'\n", "2:1", "belongs to a target"),
        ("[defaults]\ncpu = 1\n", "2:1", "did you mean cpus?"), ("[[target]]\nname = \"a\\nb\"\ncommand = 'x'", "2:8", "one line"),
        ("[[target]]\nname = 'a'\ncommand = 'x'\n[[target]]\nname = 'a'\ncommand = 'y'", "5:8", "'a' already, on line 2"),
        ("[[target]]\nname = 'a'\ncommand = 'x'\nmatrix.cpus = [1, 1]", "2:8", "'a [cpus=1]' already"),
        ("[[target]]\ncommand = []\n", "2:11", "command is empty"), ("[[target]]\ncommand = ['a', 1]\n", "2:17", "not an integer"),
        ("[[target]]\ncommand = 1\n", "2:11", "not an integer"), ("[[target]]\ncommand = ''\n", "2:11", "empty"),
        ("[[target]]\ncommand = \"a\\u0000\"\n", "2:11", "zero byte"),
        ("[[target]]\ncpus = 0\n", "2:8", "1 to 254, not 0"), ("[[target]]\ncpus = '2'\n", "2:8", "not a string"), ("[[target]]\ncpus = 1.5\n", "2:8", "not a float"),
        ("[[target]]\nmemory = '512'\n", "2:10", "memory 512 has no unit"), ("[[target]]\nmemory = 512\n", "2:10", "not an integer"),
        ("[[target]]\nmemory = '1K'\n", "2:10", "too small"),
        ("[[target]]\nengine = 'qemu'\n", "2:10", "auto, kvm or interpreter"), ("[[target]]\nwhen_missing = true\n", "2:16", "fail or skip, not a boolean"),
        ("[[target]]\ntimeout = 'soon'\n", "2:11", "timeout wants a time"), ("[[target]]\ntimeout = 0\n", "2:11", "before it starts"),
        ("[[target]]\ntimeout = -1\n", "2:11", "timeout wants a time"), ("[[target]]\ntimeout = inf\n", "2:11", "timeout wants a time"), ("[[target]]\nenv = 'A=1'\n", "2:7", "a table of strings"),
        ("[[target]]\nenv.A = 1\n", "2:9", "env.A wants a string"), ("[[target]]\nenv.'A=B' = ''\n", "2:5", "no variable's name"),
        ("[[target]]\nenv.1A = ''\n", "2:5", "no variable's name"), ("[[target]]\nrw = 'yes'\n", "2:6", "true or false"),
        ("[[target]]\nnet = 'bridge'\n", "2:7", "net takes user"), ("[[target]]\nuser = '-x'\n", "2:8", "no user's name"), ("[[target]]\nshares = [1]\n", "2:11", "not an integer"),
        ("[[target]]\nexpect = 256\n", "2:10", "0 to 255"), ("[[target]]\nexpect = 'oops'\n", "2:10", "panic"), ("[[target]]\nexpect = 2026-01-01\n", "2:10", "not a date"),
        ("[[target]]\nskip = true\n", "2:8", "not a boolean"), ("[[target]]\nname='a'\nmatrix = 1\n", "3:10", "a table of arrays"),
        ("[[target]]\nname='a'\nmatrix = {}\n", "3:10", "the matrix is empty"), ("[[target]]\nname='a'\nmatrix.cpus = []\n", "3:15", "no value"),
        ("[[target]]\nname='a'\nmatrix.cpus = 1\n", "3:15", "array of the values"), ("[[target]]\nname='a'\nmatrix.kernels = ['a']\n", "3:8", "did you mean kernel?"),
        ("[[target]]\nname='a'\nmatrix.name = ['a']\n", "3:8", "cannot vary name"), ("[[target]]\nname='a'\nmatrix.env = ['a']\n", "3:8", "cannot vary env"),
        ("[[target]]\nname='a'\ncommand='b'\nmatrix.cpus = [1, 'x']\n", "4:19", "cpus wants"),
        ("[[target]]\nname='a'\ncpus=1\nmatrix.cpus = [1]\n", "3:1", "varied by the matrix"),
        ("[[target]]\nname = 'a'\ncommand = \n", "3:11", "value is expected"), ("target = [1]\n", "1:1", "[[target]]"),
    ] as [(String, String, String)])
    func mistakesHaveAPlace(text: String, place: String, words: String) {
        let complaint = complaint(text)
        #expect(complaint.hasPrefix("dir/t.toml:\(place): ") && complaint.contains(words), "\(text): \(complaint)")
        #expect(!complaint.contains("\n"))
    }

    /// A key or a text of the file's may hold what a terminal obeys, more than a line, or no end.
    @Test(arguments: [
        "\"a\\nb\" = 1", "\"\\u001b]0;x\\u0007\" 1", "[[target]]\nengine = \"\\u001b[2J\\u009b1m\\u202ex\\u2028y\"", "[[target]]\nkind.\"\\r\" = 1",
        "a = " + String(repeating: "9", count: 100_000), "\"" + String(repeating: "k", count: 100_000) + "\" = 1",
    ])
    func complaintsAreALineForATerminal(text: String) {
        let complaint = complaint(text)
        #expect(complaint.hasPrefix("dir/t.toml:") && complaint.unicodeScalars.count < 600, "\(complaint.prefix(1000))")
        #expect(!complaint.unicodeScalars.contains { $0.value < 0x20 || 0x7F...0x9F ~= $0.value || 0x2028...0x202E ~= $0.value }, "\(complaint.debugDescription)")
    }

    @Test func namesOfAMatrixAreALineForATerminal() throws {
        let names = try targets("[[target]]\nname = 'a'\nmatrix.command = [\"one\\ntwo\", \"\\u001b[2J\", \"\\u009b1m\\u202e\\u2028\"]").map(\.name)
        #expect(names == ["a [command=one two]", "a [command= [2J]", "a [command= 1m  ]"])
    }

    @Test func aMatrixIsBounded() {
        let values = "[" + (1...200).map(String.init).joined(separator: ",") + "]"
        let timeouts = "[" + (1...200).map { "'\($0)s'" }.joined(separator: ",") + "]"
        #expect(complaint("[[target]]\nname='a'\ncommand='b'\nmatrix.cpus = \(values)\nmatrix.timeout = \(timeouts)\n").contains("more than 10000"))
    }

    @Test func directories() throws {
        let text = Array("[[target]]\nname='a'\ncommand='b'".utf8)
        #expect(try TestFile("hover.toml", text).directory == ".")
        #expect(try TestFile("a/b/c.toml", text).directory == "a/b")
        #expect(try TestFile("/c.toml", text).directory == "/")
    }

    @Test func filesThatCannotBeRead() throws {
        let directory = TemporaryDirectory()
        func failure(_ path: String) -> (any ReportableError)? {
            do {
                _ = try TestFile(path)
                return nil
            } catch { return error as? any ReportableError }
        }
        #expect(failure(directory.path + "/none.toml")?.exitStatus == .noSuchFile)
        #expect(failure(directory.path)?.exitStatus == .badConfiguration)
        #expect(failure(directory.file("empty.toml", ""))?.description.contains("[[target]]") == true)
        #expect(failure(directory.file("long.toml", String(repeating: "#\n", count: 600_000)))?.exitStatus == .badConfiguration)
        #expect(failure(directory.file("good.toml", "[[target]]\nname='a'\ncommand='b'")) == nil)
    }

    @Test func slips() {
        let known = TargetSettings.sharedKeys
        #expect(Spelling.closest(to: "kernal", among: known) == "kernel")
        #expect(Spelling.closest(to: "Timeout", among: known) == "timeout")
        #expect(Spelling.closest(to: "envv", among: known) == "env")
        #expect(Spelling.closest(to: "zzzzzz", among: known) == nil)
        #expect(Spelling.closest(to: String(repeating: "x", count: 1 << 20), among: known) == nil)
    }

    @Test func patterns() {
        for (pattern, name, matches) in [
            ("boot", "a boot b", true), ("boot*linux", "boot [kernel=linux]", true), ("[kernel=linux]", "boot [kernel=linux]", true), ("b?ot", "bäot", true),
            ("b?t", "boot", false), ("", "x", true), ("x*", "ax", true), ("ab", "aab", true), ("a*a*a*a*a*a*b", String(repeating: "a", count: 5000), false),
        ] as [(String, String, Bool)] { #expect(NamePattern(pattern).matches(name) == matches, "\(pattern) \(name.prefix(20))") }
    }
}
