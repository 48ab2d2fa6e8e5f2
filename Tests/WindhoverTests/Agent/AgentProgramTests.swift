import Glibc
import MonitorTesting
import Testing

@testable import Windhover

/// The guest's agent, as a process of this host's: what it does with commands, streams, signals and terminals is the same as in a
/// guest. What sets up a machine needs one.
@Suite struct AgentProgramTests {
    typealias Key = WireSession.StreamKey

    private func session() throws -> WireSession {
        let session = try WireSession()
        _ = try session.setUp()
        return session
    }

    // MARK: The program

    @Test func theImageIsASmallStaticProgram() {
        let image = GuestAgent.image
        #expect(image.prefix(6) == [0x7F, 0x45, 0x4C, 0x46, 2, 1])
        // ET_EXEC for EM_X86_64: nothing that an initial RAM disk would lack. Source: [ELF].
        #expect(Array(image[16..<20]) == [2, 0, 62, 0])
        #expect(image.count < 40 << 10, "\(image.count) bytes")
    }

    @Test func helloSaysWhatTheGuestIs() throws {
        let hello = try WireSession().setUp()
        var system = utsname()
        uname(&system)
        let release = withUnsafeBytes(of: system.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        #expect(hello.number(1) == 2)
        #expect(hello.text(2) == release)
        #expect(try #require(hello.number(3)) >= 1)
    }

    // MARK: Ends

    @Test func exitStatusesAndSignalsAreTold() throws {
        let session = try session()
        for status in [0, 1, 7, 127, 255] as [UInt32] {
            let outcome = try session.run(status + 1, AgentCommand(shell: "exit \(status)"))
            #expect(outcome.status == status && outcome.signal == nil)
        }
        let killed = try session.run(1000, AgentCommand(shell: "kill -9 $$"))
        #expect(killed.signal == 9 && killed.status == nil)
        let started = try session.take(.started, command: 1000)
        #expect(try #require(started.number(2)) > 1)
    }

    @Test func whatIsPrintedArrivesBeforeTheEnd() throws {
        let session = try session()
        let outcome = try session.run(1, AgentCommand(shell: "echo out; echo error >&2; cat"), input: Array("in".utf8))
        #expect(outcome.status == 0)
        #expect(outcome.text == "out\nin")
        #expect(outcome.error == Array("error\n".utf8))
        // A megabyte that is in nobody's hands yet when its writer ends.
        for number in 2..<12 as Range<UInt32> {
            #expect(try session.run(number, AgentCommand(shell: "head -c 1000000 /dev/zero")).output.count == 1_000_000)
        }
    }

    @Test func streamsThatAreNotWantedAreNotConnected() throws {
        let session = try session()
        var command = AgentCommand(shell: "cat; readlink /proc/self/fd/0 /proc/self/fd/2")
        command.streams = 2
        #expect(try session.run(1, command).text == "/dev/null\n/dev/null\n")
        #expect(Set(session.streams.keys) == [Key(command: 1, stream: 1)])
    }

    /// What came in frames of a stream, all of it before the command's end was said.
    private func framed(_ session: WireSession, _ command: UInt32, _ stream: UInt32) -> [UInt8] {
        session.frames.filter { $0.kind == WireFrame.Kind.output.rawValue && $0.number(1) == command && $0.number(2) == stream }
            .flatMap { frame in frame.fields.first { $0.tag == 3 }?.bytes ?? [] }
    }

    /// Up to 16 KiB come in frames, and nothing is connected; with the last of these there is a connection, which has the rest.
    @Test(arguments: [0, 1, 4096, 4097, 16_383, 16_384, 16_385, 1_000_000]) func anOutputThatIsCollectedComesInFramesFirst(size: Int) throws {
        let session = try session()
        var command = AgentCommand(shell: "head -c \(size) /dev/zero | tr '\\0' x; echo end >&2; exit 3")
        command.streams = 6
        command.collected = 6
        let outcome = try session.run(1, command)
        #expect(outcome.status == 3)
        let inFrames = framed(session, 1, 1)
        #expect(inFrames.count == min(size, 16_384))
        #expect(difference(of: inFrames + outcome.output, from: [UInt8](repeating: 120, count: size)) == nil)
        #expect(framed(session, 1, 2) == Array("end\n".utf8))
        #expect(Set(session.streams.keys) == (size < 16_384 ? [] : [Key(command: 1, stream: 1)]))
    }

    /// It comes as it is printed, and the other output is as ever.
    @Test func anOutputThatIsCollectedWaitsForNothing() throws {
        let session = try session()
        var command = AgentCommand(shell: "echo first; echo error >&2; read line; echo $line")
        command.collected = 2
        session.start(1, command)
        #expect(try session.take(.output, command: 1).text(3) == "first\n")
        #expect(session.frames.allSatisfy { $0.kind != WireFrame.Kind.ended.rawValue })
        try session.feed(Array("second\n".utf8), to: Key(command: 1, stream: 0), thenEnd: true)
        let outcome = try session.outcome(1)
        #expect(outcome.status == 0 && outcome.error == Array("error\n".utf8) && outcome.output.isEmpty)
        #expect(framed(session, 1, 1) == Array("second\n".utf8))
    }

    /// Whoever reads no more ends the writer behind the frames, too.
    @Test func aReaderOfACollectedOutputThatGoesEndsItsWriter() throws {
        let session = try session()
        var command = AgentCommand("yes")
        command.streams = 2
        command.collected = 2
        session.start(1, command)
        try session.hangUp(Key(command: 1, stream: 1))
        #expect(try session.outcome(1).signal == UInt32(SIGPIPE))
        #expect(framed(session, 1, 1).count == 16_384)
    }

    @Test func aChildThatStaysBehindDelaysNothing() throws {
        let session = try session()
        let clock = ContinuousClock()
        let start = clock.now
        let outcome = try session.run(1, AgentCommand(shell: "sleep 20 & echo $!"))
        #expect(outcome.status == 0)
        #expect(clock.now - start < .seconds(10))
        if let process = pid_t(outcome.text.dropLast()) { kill(process, SIGKILL) }
    }

    // MARK: What is not started

    struct Refusal: Sendable, CustomTestStringConvertible {
        var command: AgentCommandText
        var stage: UInt32
        var error: Int32
        var name: String
        var testDescription: String { "\(command) \(name)" }
    }

    enum AgentCommandText: Sendable {
        case run(String), inDirectory(String), asUser(String), writeFile(String), readFile(String)

        var command: AgentCommand {
            var command = AgentCommand("true")
            switch self {
            case .run(let name): command.arguments = [name]
            case .inDirectory(let directory): command.directory = directory
            case .asUser(let user): command.user = user
            case .writeFile(let path): command.arguments = [path, "644"]; command.operation = 1
            case .readFile(let path): command.arguments = [path]; command.operation = 2
            }
            return command
        }
    }

    static let refusals = [
        Refusal(command: .run("no-such-program"), stage: 3, error: ENOENT, name: "no-such-program"),
        Refusal(command: .run("/no/such/program"), stage: 3, error: ENOENT, name: "/no/such/program"),
        Refusal(command: .run(""), stage: 3, error: ENOENT, name: ""),
        Refusal(command: .run("/etc/passwd"), stage: 3, error: EACCES, name: "/etc/passwd"),
        Refusal(command: .run("/etc/passwd/program"), stage: 3, error: ENOTDIR, name: "/etc/passwd/program"),
        Refusal(command: .run("/tmp"), stage: 3, error: EACCES, name: "/tmp"),
        Refusal(command: .inDirectory("/no/such/directory"), stage: 1, error: ENOENT, name: "/no/such/directory"),
        Refusal(command: .inDirectory("/etc/passwd"), stage: 1, error: ENOTDIR, name: "/etc/passwd"),
        Refusal(command: .asUser("no-such-user"), stage: 2, error: ENOENT, name: "no-such-user"),
        Refusal(command: .asUser("root:no-such-group"), stage: 2, error: ENOENT, name: "no-such-group"),
        Refusal(command: .asUser("4294967296"), stage: 2, error: ENOENT, name: "4294967296"),
        Refusal(command: .asUser(""), stage: 2, error: ENOENT, name: ""),
        Refusal(command: .writeFile("/no/such/file"), stage: 3, error: ENOENT, name: "/no/such/file"),
        Refusal(command: .readFile("/no/such/file"), stage: 3, error: ENOENT, name: "/no/such/file"),
        Refusal(command: .readFile("/tmp"), stage: 3, error: EISDIR, name: "/tmp"),
    ]

    @Test(arguments: refusals) func whatCannotBeStartedSaysWhy(_ refusal: Refusal) throws {
        let session = try session()
        let outcome = try session.run(1, refusal.command.command)
        #expect(outcome.failure == [refusal.stage, UInt32(refusal.error)])
        #expect(outcome.frame.text(4) == refusal.name)
        // The number may be used again.
        #expect(try session.run(2, AgentCommand("true")).status == 0)
    }

    // MARK: How a program is found

    @Test func programsAreFoundAsExecvpDoes() throws {
        let session = try session()
        let directory = session.directory
        mkdir(directory.path + "/first", 0o755)
        mkdir(directory.path + "/second", 0o755)
        directory.file("first/tool", "#!/bin/sh\necho first\n", mode: 0o644)
        directory.file("second/tool", "#!/bin/sh\necho second $1\n", mode: 0o755)
        // Without a line that says whose it is: a shell's.
        directory.file("second/windhover-tool", "echo shell $0 $1\n", mode: 0o755)
        var command = AgentCommand("tool", "argument")
        command.environment = ["PATH=/nowhere:\(directory.path)/first:\(directory.path)/second:/bin"]
        #expect(try session.run(1, command).text == "second argument\n")
        command.environment = ["PATH=\(directory.path)/first:/nowhere"]
        #expect(try session.run(2, command).failure == [3, UInt32(EACCES)])
        // An empty part is the working directory.
        command.environment = ["PATH=/nowhere:"]
        command.directory = directory.path + "/second"
        #expect(try session.run(3, command).text == "second argument\n")
        command.arguments = ["windhover-tool", "argument"]
        command.environment = ["PATH=/bin:\(directory.path)/second"]
        #expect(try session.run(4, command).text == "shell \(directory.path)/second/windhover-tool argument\n")
        // Where the environment has no PATH there is still one.
        command.arguments = ["true"]
        command.environment = []
        #expect(try session.run(5, command).status == 0)
    }

    @Test func argumentsAndEnvironmentOfAMebibyteArrive() throws {
        let session = try session()
        let large = String(repeating: "x", count: 100_000)
        var command = AgentCommand(shell: #"printf '%s\n' "$@" | wc -c; env | grep -c ^VARIABLE; printf %s "$VARIABLE_4" | wc -c"#)
        command.arguments += ["sh"] + Array(repeating: large, count: 6)
        command.environment += (0..<5).map { "VARIABLE_\($0)=\(large)" }
        let outcome = try session.run(1, command)
        #expect(outcome.text == "600006\n5\n100000\n")
        // More than the kernel takes is an answer, not an end.
        command.arguments += [String(repeating: "x", count: 3 << 20)]
        #expect(try session.run(2, command).failure == [3, UInt32(E2BIG)])
        #expect(try session.run(3, AgentCommand("true")).status == 0)
    }

    @Test func bytesThatAreNoTextArrive() throws {
        let session = try session()
        var frame = WireFrame(.start)
        frame.add(1, 1 as UInt32)
        for argument in ["printf", "%s"] { frame.add(2, argument) }
        frame.add(2, [0xFF, 0x80, 0x0A])
        frame.add(2, "")
        frame.add(3, "PATH=/usr/bin:/bin")
        frame.add(7, 2 as UInt32)
        frame.add(99, "what is not known is skipped")
        session.send(frame)
        #expect(try session.outcome(1).output == [0xFF, 0x80, 0x0A])
    }

    @Test func aProcessInheritsNothingOfTheAgents() throws {
        let session = try session()
        // Another command's streams are open while this one starts.
        session.start(1, AgentCommand("cat"))
        try session.wait("three streams") { $0.streams.count == 3 }
        let outcome = try session.run(
            2, AgentCommand(shell: "for fd in 3 4 5 6 7 8 9; do readlink /proc/$$/fd/$fd; done; exec grep -E 'SigBlk|SigIgn' /proc/self/status"))
        let lines = outcome.text.split(separator: "\n")
        #expect(lines.count == 2, "\(lines)")
        #expect(lines.contains("SigBlk:\t0000000000000000"))
        #expect(lines.contains("SigIgn:\t0000000000000000"))
        var limits = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limits)
        #expect(try session.run(3, AgentCommand(shell: "ulimit -n")).text == "\(limits.rlim_cur)\n")
        try session.feed([], to: Key(command: 1, stream: 0), thenEnd: true)
        #expect(try session.outcome(1).status == 0)
    }

    // MARK: Users

    @Test(.enabled(if: geteuid() == 0, "only root may become another user"))
    func aUserHasGroupsAndAHome() throws {
        let session = try session()
        var command = AgentCommand(shell: "id -u; id -g; id -G; echo $HOME $USER $LOGNAME $SHELL")
        command.environment += ["HOME=/of/the/host", "SHELL=/of/the/host", "HOMEWARD=stays"]
        command.user = "daemon"
        let entry = try #require(getpwnam("daemon")).pointee
        let home = String(cString: entry.pw_dir), shell = String(cString: entry.pw_shell)
        #expect(try session.run(1, command).text == "\(entry.pw_uid)\n\(entry.pw_gid)\n\(entry.pw_gid)\n\(home) daemon daemon \(shell)\n")
        command.user = "\(entry.pw_uid):\(entry.pw_gid)"
        #expect(try session.run(2, command).text.hasSuffix("\(home) daemon daemon \(shell)\n"))
        // Whom the guest does not know has a number, and nothing else.
        command.user = "54321:54322"
        #expect(try session.run(3, command).text == "54321\n54322\n54322\n/ 54321 54321 /bin/sh\n")
        // A directory is entered as the user.
        command.user = "54321"
        command.directory = session.directory.path
        chmod(session.directory.path, 0o700)
        #expect(try session.run(4, command).failure == [1, UInt32(EACCES)])
    }

    // MARK: Streams

    @Test func fiftyMebibytesGoBothWaysWhileAnotherCommandRuns() throws {
        let session = try session()
        var state: UInt64 = 88_172_645_463_325_252
        let block = (0..<1 << 17).flatMap { _ -> [UInt8] in
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return WireFrame.bytes(state)
        }
        var input: [UInt8] = []
        for _ in 0..<50 { input += block }
        session.start(1, AgentCommand("cat"))
        try session.feed(input, to: Key(command: 1, stream: 0), thenEnd: true)
        let other = try session.run(2, AgentCommand(shell: "echo other"))
        #expect(other.text == "other\n")
        #expect(!session.streams[Key(command: 1, stream: 1)]!.isAtEnd)
        let outcome = try session.outcome(1)
        #expect(outcome.status == 0)
        #expect(difference(of: outcome.output, from: input) == nil)
    }

    @Test func aReaderThatIsSlowStallsItsOwnStreamOnly() throws {
        let session = try session()
        let slow = Key(command: 1, stream: 1)
        session.unread = [slow]
        session.start(1, AgentCommand(shell: "head -c 10000000 /dev/zero; echo written >&2"))
        try session.wait("its stream") { $0.streams[slow] != nil }
        for number in 2..<12 as Range<UInt32> {
            #expect(try session.run(number, AgentCommand(shell: "echo prompt")).text == "prompt\n")
        }
        // Its writer waits, and has not ended.
        #expect(session.streams[slow]!.received.isEmpty)
        #expect(session.text(1, 2).isEmpty)
        session.unread = []
        let outcome = try session.outcome(1)
        #expect(outcome.output.count == 10_000_000)
        #expect(outcome.error == Array("written\n".utf8))
    }

    @Test func aReaderThatGoesEndsItsWriter() throws {
        let session = try session()
        session.start(1, AgentCommand("yes"))
        try session.hangUp(Key(command: 1, stream: 1))
        #expect(try session.outcome(1).signal == UInt32(SIGPIPE))
        // One that writes nothing runs on.
        session.start(2, AgentCommand(shell: "read line; echo $line >&2"))
        try session.hangUp(Key(command: 2, stream: 1))
        try session.feed(Array("still here\n".utf8), to: Key(command: 2, stream: 0), thenEnd: true)
        let outcome = try session.outcome(2)
        #expect(outcome.status == 0)
        #expect(outcome.error == Array("still here\n".utf8))
    }

    @Test func inputThatNobodyReadsIsTakenBack() throws {
        let session = try session()
        session.start(1, AgentCommand(shell: "exec 0<&-; sleep 20"))
        let input = Key(command: 1, stream: 0)
        try session.wait("the end of its input") { $0.streams[input]?.isAtEnd == true }
        session.send(WireFrame(.signal).with(1, 1).with(2, 15))
        #expect(try session.outcome(1).signal == 15)
    }

    @Test func manyCommandsRunAtOnce() throws {
        let session = try session()
        for number in 1...100 as ClosedRange<UInt32> {
            session.start(number, AgentCommand(shell: "read line; echo \(number) $line"))
        }
        for number in 1...100 as ClosedRange<UInt32> {
            try session.feed(Array("line\n".utf8), to: Key(command: number, stream: 0), thenEnd: true)
        }
        for number in 1...100 as ClosedRange<UInt32> { #expect(try session.outcome(number).text == "\(number) line\n") }
    }

    // MARK: Signals

    @Test func aSignalReachesTheWholeGroup() throws {
        let session = try session()
        session.start(1, AgentCommand(shell: "sleep 1000 & echo $!; wait"))
        try session.wait("a process ID") { $0.text(1, 1).hasSuffix("\n") }
        let process = session.text(1, 1).dropLast()
        session.send(WireFrame(.signal).with(1, 1).with(2, UInt32(SIGTERM)))
        #expect(try session.outcome(1).signal == UInt32(SIGTERM))
        // An orphan may wait for whoever has inherited it to be reaped.
        try session.wait("the end of \(process)") { _ in
            guard let stat = try? HostFile.contents(of: "/proc/\(process)/stat", limit: 4096) else { return true }
            return String(decoding: stat, as: UTF8.self).contains(") Z ")
        }
        // One for a command that there is not, or a signal that there is not, is nothing.
        session.send(WireFrame(.signal).with(1, 1).with(2, 9))
        session.send(WireFrame(.signal).with(1, 77).with(2, 9))
        #expect(try session.run(2, AgentCommand("true")).status == 0)
    }

    @Test func aSignalIsNotLostBeforeTheProgramRuns() throws {
        let session = try session()
        for number in 1...20 as ClosedRange<UInt32> {
            session.start(number, AgentCommand("sleep", "1000"))
            session.send(WireFrame(.signal).with(1, number).with(2, UInt32(SIGKILL)))
        }
        for number in 1...20 as ClosedRange<UInt32> { #expect(try session.outcome(number).signal == UInt32(SIGKILL)) }
    }

    // MARK: Terminals

    private func terminal(_ line: String) -> AgentCommand {
        var command = AgentCommand(shell: line)
        command.terminal = (24, 80)
        return command
    }

    @Test func aTerminalHasASizeAndIsResized() throws {
        let session = try session()
        session.start(
            1, terminal("test -t 0 && test -t 1 && test -t 2 && stty size; trap 'stty size; exit 3' WINCH; echo ready; while :; do read x; done"))
        try session.wait("ready") { $0.text(1, 0).contains("ready") }
        session.send(WireFrame(.resize).with(1, 1).with(2, 50).with(3, 132))
        #expect(try session.outcome(1).status == 3)
        try session.wait("its end") { $0.streams[Key(command: 1, stream: 0)]!.isAtEnd }
        #expect(session.text(1, 0) == "24 80\r\nready\r\n50 132\r\n")
        #expect(session.streams.count == 1)
    }

    @Test func controlCInterruptsTheForeground() throws {
        let session = try session()
        // Ready is said by the one that is interrupted, so that it is there.
        session.start(1, terminal("trap 'echo interrupted' INT; sh -c 'echo ready; exec sleep 1000'; echo after"))
        try session.wait("ready") { $0.text(1, 0).contains("ready") }
        try session.feed([3], to: Key(command: 1, stream: 0), thenEnd: false)
        #expect(try session.outcome(1).status == 0)
        try session.wait("its end") { $0.streams[Key(command: 1, stream: 0)]!.isAtEnd }
        #expect(session.text(1, 0).hasSuffix("interrupted\r\nafter\r\n"))
    }

    /// What a program printed last is not lost with its terminal.
    @Test func aTerminalsLastBytesArrive() throws {
        let session = try session()
        for number in 1...10 as ClosedRange<UInt32> {
            session.start(number, terminal("head -c 20000 /dev/zero | tr '\\0' x; echo; echo last"))
            #expect(try session.outcome(number).status == 0)
            let key = Key(command: number, stream: 0)
            try session.wait("its end") { $0.streams[key]!.isAtEnd }
            #expect(session.streams[key]!.received.count == 20000 + 8)
            #expect(session.text(number, 0).hasSuffix("x\r\nlast\r\n"))
        }
    }

    @Test func aTerminalIsHungUpWithItsConnection() throws {
        let session = try session()
        session.start(1, terminal("trap 'exit 9' HUP; echo ready; while :; do sleep 0.01; done"))
        try session.wait("ready") { $0.text(1, 0).contains("ready") }
        try session.hangUp(Key(command: 1, stream: 0))
        #expect(try session.outcome(1).status == 9)
    }

    /// The end of the host's input is not the terminal's: who types later may have another connection to do it by.
    @Test func theEndOfInputIsNoKey() throws {
        let session = try session()
        session.start(1, terminal("read line; echo $line; read line; echo more"))
        try session.feed(Array("typed\n".utf8), to: Key(command: 1, stream: 0), thenEnd: true)
        try session.wait("the line") { $0.text(1, 0).hasSuffix("typed\r\ntyped\r\n") }
        #expect(try session.run(2, AgentCommand(shell: "sleep 0.2")).status == 0)
        #expect(!session.text(1, 0).contains("more"))
        session.send(WireFrame(.signal).with(1, 1).with(2, UInt32(SIGHUP)))
        #expect(try session.outcome(1).signal == UInt32(SIGHUP))
    }

    // MARK: Files

    @Test func filesAreWrittenAndRead() throws {
        let session = try session()
        let path = session.directory.path + "/file"
        var write = AgentCommand(path, "640")
        write.operation = 1
        write.streams = 1
        let contents = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        #expect(try session.run(1, write, input: contents).status == 0)
        var facts = stat()
        #expect(stat(path, &facts) == 0)
        #expect(facts.st_mode & 0o7777 == 0o640)
        var read = AgentCommand(path)
        read.operation = 2
        read.streams = 2
        #expect(try difference(of: session.run(2, read).output, from: contents) == nil)
        // Shorter, and with other rights: it is replaced.
        write.arguments[1] = "755"
        #expect(try session.run(3, write, input: [1, 2]).status == 0)
        #expect(try session.run(4, read).output == [1, 2])
        #expect(stat(path, &facts) == 0)
        #expect(facts.st_mode & 0o7777 == 0o755)
        write.arguments[1] = "9"
        #expect(try session.run(5, write).failure == [3, UInt32(EINVAL)])
        // What goes wrong once it has begun.
        write.arguments = ["/dev/full", "644"]
        #expect(try session.run(6, write, input: [1]).status == UInt32(ENOSPC))
        read.operation = 3
        #expect(try session.run(7, read).failure == [3, UInt32(ENOSYS)])
    }

    // MARK: The connection

    static let start = WireFrame(.start).with(1, 1)
    static let ready = WireFrame(.setUp).bytes
    static let malformed: [[UInt8]] = [
        [UInt8](repeating: 0xFF, count: 8),
        // A payload that is too long, a header whose last 16 bits are not zero.
        [0, 0, 0, 2, 129, 0, 0, 0],
        [0, 0, 0, 0, 129, 0, 1, 0],
        // Fields that are cut off, longer than the payload, of another size than theirs.
        [1, 0, 0, 0, 129, 0, 0, 0, 7],
        [8, 0, 0, 0, 129, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255],
        WireFrame(.setUp).with(1, 7).bytes,
        WireFrame(.setUp).with(4, 0).bytes,
        // Not in their order.
        start.bytes,
        ready + ready,
        // Starts of nothing, without a number, with a zero in the text.
        ready + start.bytes,
        ready + AgentCommand("true").frame(0).bytes,
        ready + AgentCommand("tr\0ue").frame(1).bytes,
        ready + AgentCommand("sleep", "1000").frame(1).bytes + AgentCommand("true").frame(1).bytes,
        ready + WireFrame(.signal).with(1, 1).bytes,
        ready + WireFrame(.resize).with(1, 1).with(2, 1).bytes,
    ]

    @Test(arguments: malformed.indices) func aFrameThatBreaksARuleEndsTheConnection(_ index: Int) throws {
        let session = try WireSession()
        session.send(bytes: Self.malformed[index])
        try session.wait("the connection's end") { $0.controlIsAtEnd }
        #expect(try session.exitStatus() == 1 << 8)
    }

    @Test func framesAndFieldsThatAreNotKnownAreSkipped() throws {
        let session = try session()
        var frame = WireFrame(.shutDown)
        frame.kind = 999
        frame.add(5, String(repeating: "x", count: 100_000))
        session.send(frame)
        #expect(try session.run(1, AgentCommand("true")).status == 0)
    }

    @Test func framesArriveInAnyPieces() throws {
        let session = try WireSession()
        for byte in Self.ready + AgentCommand("echo", "piecemeal").frame(1).bytes {
            session.send(bytes: [byte])
            try session.wait("a byte's leaving") { $0.isAllSent }
        }
        #expect(try session.outcome(1).text == "piecemeal\n")
    }

    @Test func theConnectionsEndEndsCommands() throws {
        let session = try session()
        session.start(1, AgentCommand(shell: "echo $$; exec sleep 1000"))
        try session.wait("a process ID") { $0.text(1, 1).hasSuffix("\n") }
        session.closeControl()
        #expect(try session.exitStatus() == 1 << 8)
        let process = try #require(pid_t(session.text(1, 1).dropLast()))
        try session.wait("the end of \(process)") { _ in
            guard let stat = try? HostFile.contents(of: "/proc/\(process)/stat", limit: 4096) else { return true }
            return String(decoding: stat, as: UTF8.self).contains(") Z ")
        }
    }

    @Test func shutDownEndsCommandsAndSaysGoodbye() throws {
        let session = try session()
        session.start(1, AgentCommand(shell: "trap '' TERM HUP INT; while :; do sleep 1; done"))
        _ = try session.take(.started, command: 1)
        session.send(WireFrame(.shutDown))
        _ = try session.take(.goodbye)
        #expect(try session.exitStatus() == 0)
    }

    @Test func withoutAConnectionItSaysHowItIsUsed() throws {
        func status(_ arguments: String) -> Int32 {
            // As in WireSession: 126 is the shell's word for a file that is still open for writing.
            for _ in 0..<1000 {
                let status = system("\(WireSession.program.path) \(arguments) 2>/dev/null")
                if status != 126 << 8 { return status }
                usleep(1000)
            }
            return 126 << 8
        }
        for arguments in ["", "--connect", "--connect 77 /nowhere", "--connect x /nowhere", "--connect 1 /nowhere"] {
            #expect(status(arguments) == 64 << 8, "\(arguments)")
        }
    }
}
