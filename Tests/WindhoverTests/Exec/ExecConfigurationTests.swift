import Glibc
import Machine
import Testing

@testable import Windhover

@Suite struct ExecConfigurationTests {
    private static let caller = Caller(directory: "/home/me/project", environment: ["PATH=/bin", "HOME=/home/me", "A=1"])

    private func configuration(_ change: (inout ExecOptions) -> Void) throws(ConfigurationError) -> ExecConfiguration {
        var options = ExecOptions()
        options.command = ["make", "check"]
        change(&options)
        return try ExecConfiguration(options, caller: Self.caller)
    }

    private func refusal(_ change: (inout ExecOptions) -> Void) -> ConfigurationError? {
        do throws(ConfigurationError) { _ = try configuration(change) } catch { return error }
        return nil
    }

    @Test func aCommandAloneRunsWhereTheCallerStands() throws {
        let configuration = try configuration { _ in }
        #expect(configuration.command == ["make", "check"])
        #expect(configuration.root == .directory("/"))
        #expect(configuration.directory == "/home/me/project")
        #expect(configuration.environment == Self.caller.environment)
        #expect(configuration.shares.isEmpty)
        #expect(configuration.kernel == .linux)
        #expect(configuration.memory.bytes == 1 << 30)
        #expect(configuration.timeout == nil)
        #expect(configuration.bootTimeout.milliseconds == 120_000)
    }

    @Test func devicesAreWhereTheKernelFindsThem() throws {
        #expect(try configuration { _ in }.transport == .mmio)
        #expect(try configuration { $0.kernel = "./bzImage" }.transport == .pci)
        #expect(try configuration { $0.kernel = "host" }.transport == .pci)
        #expect(try configuration { $0.transport = "pci" }.transport == .pci)
        #expect(refusal { $0.transport = "isa" }?.description.contains("--transport takes") == true)
    }

    @Test func writesGoThroughWhereTheyAreLet() throws {
        let here = try configuration { $0.readWrite = true }
        #expect(here.shares == [ExecShare(directory: "/home/me/project", path: "/home/me/project", isReadOnly: false, caching: .auto)])
        // Named already, it is not shared a second time.
        let named = try configuration {
            $0.readWrite = true
            $0.shares = ["."]
        }
        #expect(named.shares.count == 1)
        let elsewhere = try configuration {
            $0.readWrite = true
            $0.directory = "../other"
        }
        #expect(elsewhere.directory == "/home/me/other")
        #expect(elsewhere.shares.map(\.directory) == ["/home/me/other"])
    }

    @Test(arguments: [
        ("out", "/home/me/project/out", "/home/me/project/out", false), ("/srv/data,readonly", "/srv/data", "/srv/data", true),
        ("../a:/b", "/home/me/a", "/b", false), ("x:y:/z/../w/", "/home/me/project/x:y", "/w", false), ("data:code,readonly", "/home/me/project/data", "/mnt/code", true),
    ])
    func sharesAreAtTheirPlaces(text: String, directory: String, path: String, isReadOnly: Bool) throws {
        let share = try #require(try configuration { $0.shares = [text] }.shares.first)
        #expect(share == ExecShare(directory: directory, path: path, isReadOnly: isReadOnly, caching: .auto))
    }

    @Test func anotherRootHasAnotherPlaceToStand() throws {
        let root = try configuration { $0.root = "rootfs" }
        #expect(root.root == .directory("/home/me/project/rootfs"))
        #expect(root.directory == "/")
        let disk = try configuration { $0.disks = ["debian.img"] }
        #expect(disk.root == .disk)
        #expect(disk.directory == "/")
        let both = try configuration {
            $0.disks = ["data.img"]
            $0.root = "/"
        }
        #expect(both.root == .directory("/"))
        #expect(both.directory == "/home/me/project")
    }

    /// No program of the host's sees these either.
    @Test func wordsThatAreNoVariablesAreLeftOut() {
        for (word, isOne) in [("A=", true), ("A==b", true), ("A", false), ("", false), ("=", false), ("=A=b", false), ("BASH_FUNC_f%%=() { :; }", true)] {
            #expect(Caller.isVariable(Array(word.utf8)) == isOne, "\(word)")
        }
    }

    @Test func theEnvironmentIsTheCallersAndWhatIsSaid() throws {
        let words = try configuration { $0.environment = ["A=2", "B=x=y", "HOME"] }.environment
        #expect(words == ["PATH=/bin", "HOME=/home/me", "A=2", "B=x=y"])
    }

    /// Words are bytes, as the kernel has them: what is no text stays as it is, and a name is compared byte by byte.
    @Test func wordsThatAreNoTextStayAsTheyAre() throws {
        func word(_ bytes: UInt8...) -> CommandWord { CommandWord(bytes: bytes) }
        var options = ExecOptions()
        options.command = ["echo", word(0xFF, 0x20, 0xC3)]
        options.environment = [word(0x41, 0x3D, 0x80), word(0xFE, 0x3D, 0x31)]
        let caller = Caller(directory: "/", environment: ["A=1", word(0x42, 0x3D, 0xFF), word(0xFE, 0x3D, 0x30), word(0xFF, 0x3D, 0x30)])
        let configuration = try ExecConfiguration(options, caller: caller)
        #expect(configuration.command == ["echo", word(0xFF, 0x20, 0xC3)])
        #expect(
            configuration.environment
                == [word(0x42, 0x3D, 0xFF), word(0xFF, 0x3D, 0x30), word(0x41, 0x3D, 0x80), word(0xFE, 0x3D, 0x31)])
    }

    @Test(arguments: [
        ("no command", Windhover.ExitStatus.usage, "exec wants a command"), ("empty command", .usage, "the command is empty"),
        ("empty root", .usage, "--root names no directory"), ("share without directory", .usage, "--share names no directory"),
        ("relative place", .usage, "'b/c' is neither an absolute path"), ("share as root", .badConfiguration, "in the place of the root"),
        ("two shares", .badConfiguration, "at '/b'"), ("cache", .usage, "cache takes none, auto or always, not 'much'"),
        ("environment", .usage, "--env wants NAME=VALUE, not '=x'"), ("user", .usage, "--user names nobody"),
        ("tty", .usage, "--tty takes auto, always or never, not 'maybe'"), ("timeout", .usage, "--timeout wants a time"),
        ("boot timeout", .usage, "--boot-timeout wants a time"), ("rw root", .badConfiguration, "--rw is for the host's own tree"),
        ("log", .usage, "--console-log names no file"), ("stats", .usage, "--stats names no file"), ("cpus", .badConfiguration, "--cpus"),
        ("devices", .badConfiguration, "more than the"), ("zero", .usage, "zero byte"),
    ])
    func nonsenseIsRefused(what: String, status: Windhover.ExitStatus, text: String) {
        let error = refusal { options in
            switch what {
            case "no command": options.command = []
            case "empty command": options.command = [""]
            case "empty root": options.root = ""
            case "share without directory": options.shares = [":/x"]
            case "relative place": options.shares = ["a:b/c"]
            case "share as root": options.shares = ["a:/"]
            case "two shares": options.shares = ["a:/b", "c:/b"]
            case "cache": options.shares = ["a,cache=much"]
            case "environment": options.environment = ["=x"]
            case "user": options.user = ""
            case "tty": options.terminal = "maybe"
            case "timeout": options.timeout = "soon"
            case "boot timeout": options.bootTimeout = "soon"
            case "rw root":
                options.root = "/srv"
                options.readWrite = true
            case "log": options.consoleLog = ""
            case "stats": options.statistics = ""
            case "cpus": options.cpus = "1000"
            case "devices": options.shares = (0..<30).map { "d\($0)" }
            case "zero": options.append = ["a\0b"]
            default: Issue.record("no case \(what)")
            }
        }
        #expect(error?.exitStatus == status, "\(what): \(error?.description ?? "accepted")")
        #expect(error?.description.contains(text) == true, "\(what): \(error?.description ?? "accepted")")
    }

    @Test func theWholeTreeIsNotLetToBeWritten() {
        var options = ExecOptions()
        options.command = ["true"]
        options.readWrite = true
        #expect(throws: ConfigurationError.self) { try ExecConfiguration(options, caller: Caller(directory: "/", environment: [])) }
    }

    @Test(arguments: [
        ("a", "/w/a"), ("./a//b/", "/w/a/b"), ("..", "/"), ("../../..", "/"), ("/x/./y/../z", "/x/z"), ("", "/w"), ("/", "/"),
    ])
    func pathsAreMadeAbsolute(path: String, absolute: String) {
        #expect(ExecConfiguration.absolute(path, from: "/w") == absolute)
    }

    @Test func filesAreLookedForBeforeAnythingIsMade() throws {
        let missing = try configuration { $0.root = "/nowhere/at/all" }
        #expect(throws: InputFileError.missingDirectory(option: "--root", path: "/nowhere/at/all")) { try missing.checkFiles() }
        let file = try configuration { $0.shares = ["/etc/passwd:/x"] }
        #expect(throws: InputFileError.notADirectory(option: "--share", path: "/etc/passwd")) { try file.checkFiles() }
        #expect(InputFileError.missingDirectory(option: "--root", path: "/x").exitStatus == .noSuchFile)
        #expect(InputFileError.notADirectory(option: "--root", path: "/x").exitStatus == .badConfiguration)
        let disk = try configuration { $0.disks = ["/nowhere.img"] }
        #expect(throws: (any Error).self) { try disk.checkFiles() }
    }
}

@Suite struct TerminalEscapeTests {
    private func filter(_ pieces: String...) -> (String, [TerminalEscape.Action]) {
        var escape = TerminalEscape()
        var output: [UInt8] = []
        var actions: [TerminalEscape.Action] = []
        for piece in pieces { actions += escape.filter(Array(piece.utf8), into: &output) }
        return (String(decoding: output, as: UTF8.self), actions)
    }

    @Test func keysCountAtALinesBeginningOnly() {
        #expect(filter("~.") == ("", [.leave]))
        #expect(filter("ls ~.\r") == ("ls ~.\r", []))
        #expect(filter("ls\r~.") == ("ls\r", [.leave]))
        #expect(filter("ls\r", "~", "?", "x") == ("ls\rx", [.help]))
        #expect(filter("~~/bin\r") == ("~/bin\r", []))
        #expect(filter("~/bin\r~x") == ("~/bin\r~x", []))
        #expect(filter("~\r~.") == ("~\r", [.leave]))
    }
}

@Suite struct ConsoleRecordTests {
    private func record(_ text: String) -> ConsoleRecord {
        let record = ConsoleRecord()
        write(text, to: record)
        return record
    }

    private func write(_ text: String, to record: ConsoleRecord) {
        var text = text
        text.withUTF8 { bytes in
            #expect(record.write(UnsafeRawBufferPointer(bytes)) == bytes.count)
            for byte in bytes { record.observe(byte) }
        }
    }

    @Test func theLastLinesAreFitForATerminal() {
        let record = record("one\r\ntwo\u{1B}[2J\r\n\tthree\u{7F}\u{9B}1m\r\n")
        #expect(record.lastLines(2) == ["two", " three1m"])
        #expect(record.lastLines(9).count == 3)
        #expect(record.panic == nil)
        #expect(record.panicLines().isEmpty)
    }

    @Test func aPanicIsToldWithWhatLedToIt() {
        let record = record(
            """
            [ 1.0] hello
            [ 2.0] BUG: kernel NULL pointer dereference, address: 0
            [ 2.1] Oops: 0000 [#1]
            [ 2.2] Kernel panic - not syncing: Fatal exception
            [ 2.3] Call Trace:

            """)
        #expect(record.panic == "Kernel panic - not syncing: Fatal exception")
        #expect(record.panicLines().first?.contains("BUG: ") == true || record.panicLines().first?.contains("Oops") == true)
        #expect(record.panicLines().last == "[ 2.3] Call Trace:")
    }

    /// A guest need not end its lines.
    @Test func aLineIsBounded() {
        let record = record("Kernel panic - not syncing: " + String(repeating: "é", count: 20_000) + "\n" + String(repeating: "x", count: 40_000))
        #expect(record.lastLines(1) == [String(repeating: "x", count: 512) + "…"])
        #expect(record.panicLines().allSatisfy { $0.count <= 513 })
    }

    @Test func aLogThatCannotBeWrittenIsTold() throws {
        let full = open("/dev/full", O_WRONLY | O_CLOEXEC)
        defer { close(full) }
        let clock = HostClock()
        let record = ConsoleRecord(log: DescriptorSink(descriptor: full, loop: try EventLoop(clock: clock), clock: clock))
        #expect(record.lostLog == nil)
        write("lost\n", to: record)
        record.flush()
        #expect(record.lostLog?.contains("No space left") == true)
        #expect(record.lastLines(1) == ["lost"])
    }

    @Test func aFloodIsBounded() {
        let record = ConsoleRecord(limit: 1000)
        for number in 0..<10_000 { write("line \(number)\n", to: record) }
        #expect(record.bytes.count <= 2000)
        #expect(record.lastLines(1) == ["line 9999"])
    }
}
