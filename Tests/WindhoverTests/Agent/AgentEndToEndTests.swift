import CHost
import Glibc
import Machine
import Testing
import MonitorTesting

@testable import Windhover

/// The guest's agent as a program of this host's, without a machine, at the other end of a session.
private final class ConnectedAgent: @unchecked Sendable {
    let session: AgentSession
    let directory = TemporaryDirectory()
    private let listener: Int32
    let process: pid_t

    init() throws {
        session = try AgentSession(clock: HostClock())
        let program = directory.path + "/agent"
        let file = open(program, O_WRONLY | O_CREAT | O_CLOEXEC, 0o755)
        try #require(writeAll(file, GuestAgent.image))
        close(file)

        let path = directory.path + "/streams"
        let socket = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let bound = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(socket, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
        listener = socket
        try #require(bound == 0 && listen(socket, 64) == 0)

        let (host, guest) = socketPair()
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, guest, 3)
        let words = [program, "--connect", "3", path]
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { word in strdup(word) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var child: pid_t = 0
        var code = posix_spawn(&child, program, &actions, nil, &arguments, environ)
        // Busy while a child of another thread's still has the descriptor that wrote it.
        for _ in 0..<100 where code == ETXTBSY {
            usleep(10_000)
            code = posix_spawn(&child, program, &actions, nil, &arguments, environ)
        }
        try #require(code == 0)
        process = child
        close(guest)
        session.acceptControl(host)
        let taker = session
        Thread(name: "test-accept") {
            while true {
                // Closed on exec: another test's agent must not keep it open.
                let connection = chost_accept(socket)
                guard connection >= 0 else { break }
                taker.acceptStream(connection)
            }
        }?.detach()
        let hello = try session.waitForHello(until: after(20))
        var system = utsname()
        uname(&system)
        let release = withUnsafeBytes(of: system.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        #expect(hello.release == release)
        #expect(hello.processors >= 1)
        try session.setUp(GuestSetup(unixNanoseconds: 0), until: after(20))
    }

    deinit {
        session.close()
        shutdown(listener, Int32(SHUT_RDWR))
        close(listener)
        kill(process, SIGKILL)
        waitpid(process, nil, 0)
    }

    /// Runs a command to its end.
    func run(_ command: GuestCommand, input: [UInt8] = []) throws -> (exit: GuestExit?, output: [UInt8], error: [UInt8]) {
        let process = try session.start(command)
        let output = OutputCollector(limit: 64 << 20)
        let error = OutputCollector(limit: 1 << 20)
        try process.attach(input: .bytes(input), output: .collector(output), error: .collector(error))
        let exit = try process.wait(until: after(60))
        #expect(process.losses == [])
        return (exit, output.bytes, error.bytes)
    }

    func shell(_ script: String, input: [UInt8] = []) throws -> (status: Int32?, output: String, error: String) {
        let result = try run(GuestCommand(["sh", "-c", CommandWord(script)], environment: ["PATH=/usr/bin:/bin", "X=y z"], directory: "/tmp"), input: input)
        return (
            result.exit?.shellStatus, String(decoding: result.output, as: UTF8.self), String(decoding: result.error, as: UTF8.self)
        )
    }
}

/// Both ends of the protocol together.
@Suite(.timeLimit(.minutes(3))) struct AgentEndToEndTests {
    @Test func aCommandRunsWithItsStreamsEnvironmentAndDirectory() throws {
        let agent = try ConnectedAgent()
        #expect(try agent.shell("cat; pwd; echo \"$X\"; echo bad >&2; exit 3", input: Array("in\n".utf8)) == (3, "in\n/tmp\ny z\n", "bad\n"))
        #expect(try agent.shell("kill -TERM $$") == (143, "", ""))
        // What is left behind keeps nobody.
        let time = try seconds {
            let result = try agent.shell("sleep 100 & echo hi")
            #expect(result.output == "hi\n")
        }
        #expect(time < 20)
        #expect(try agent.run(GuestCommand(["true"], streams: [])).exit == GuestExit(cause: .status(0)))
    }

    @Test func megabytesGoThroughBothWays() throws {
        let agent = try ConnectedAgent()
        let bytes = [UInt8](repeating: 0x5A, count: 8 << 20) + Array("end".utf8)
        let result = try agent.run(GuestCommand(["/bin/cat"]), input: bytes)
        #expect(result.exit == GuestExit(cause: .status(0)))
        #expect(difference(of: result.output, from: bytes) == nil)
    }

    /// Their connections come faster than is found out whose they are.
    @Test func commandsRunAtOnce() throws {
        let agent = try ConnectedAgent()
        let runs = (1...80).map { number in
            Background { (try? agent.shell("cat; exit \(number)", input: Array("\(number)".utf8))).map { "\($0.status ?? -1) \($0.output)" } }
        }
        for (number, run) in zip(1..., runs) { #expect(run.wait(60) == .some("\(number) \(number)")) }
    }

    @Test func whatCannotBeStartedHasItsReason() throws {
        let agent = try ConnectedAgent()
        let plain = agent.directory.file("plain", "no program")
        func reason(_ command: GuestCommand) -> NotStarted? {
            do {
                _ = try agent.run(command)
                return nil
            } catch {
                guard case .notStarted(let reason) = error as? AgentError else { return nil }
                return reason
            }
        }
        let missing = reason(GuestCommand(["no-such-program"]))
        #expect(missing?.shellStatus == 127)
        #expect(missing?.description == "no such command in the guest: 'no-such-program', or what it is to be run by is missing")
        #expect(reason(GuestCommand([CommandWord(plain)]))?.shellStatus == 126)
        let directory = reason(GuestCommand(["true"], directory: "/no/such"))
        #expect(directory?.shellStatus == 125)
        #expect(directory?.description == "no such directory in the guest: '/no/such'")
        let user = reason(GuestCommand(["true"], user: "nobody-of-this-name"))
        #expect(user?.description == "no such user or group in the guest: 'nobody-of-this-name'")
        let file = reason(.read("/no/such/file"))
        #expect(file?.description == "'/no/such/file' in the guest cannot be read: No such file or directory (errno 2)")
        // And the next one starts.
        #expect(try agent.shell("echo on").output == "on\n")
    }

    @Test func signalsReachTheCommand() throws {
        let agent = try ConnectedAgent()
        let process = try agent.session.start(GuestCommand(["sleep", "100"]))
        try process.attach()
        _ = try process.waitForStart(until: after(20))
        #expect(try process.wait(until: after(0.1)) == nil)
        try process.send(signal: SIGINT)
        #expect(try process.wait(until: after(20)) == GuestExit(cause: .signal(SIGINT, coreDumped: false)))
    }

    @Test func filesAreWrittenAndRead() throws {
        let agent = try ConnectedAgent()
        let path = agent.directory.path + "/file"
        let bytes = [UInt8](repeating: 7, count: 300_000)
        #expect(try agent.run(.write(path, mode: 0o640), input: bytes).exit == GuestExit(cause: .status(0)))
        var status = stat()
        #expect(stat(path, &status) == 0 && status.st_mode & 0o7777 == 0o640)
        let result = try agent.run(.read(path))
        #expect(result.exit == GuestExit(cause: .status(0)))
        #expect(difference(of: result.output, from: bytes) == nil)
    }

    /// By frames, by a connection, by both: it is all there, in its order.
    @Test(arguments: [0, 5, 16_384, 16_390, 3_000_000]) func collectedOutputIsWhole(size: Int) throws {
        let agent = try ConnectedAgent()
        var command = GuestCommand(
            ["sh", "-c", "seq 1000000 | head -c \(size); seq 3 >&2"], environment: ["PATH=/usr/bin:/bin"], streams: [.output, .error])
        command.collected = [.output, .error]
        let process = try agent.session.start(command)
        let (output, error) = (OutputCollector(limit: 1 << 23), OutputCollector(limit: 100))
        try process.attach(output: .collector(output), error: .collector(error))
        #expect(try process.wait(until: after(20)) == GuestExit(cause: .status(0)))
        let whole = (1...1_000_000).lazy.flatMap { "\($0)\n".utf8 }.prefix(size)
        #expect(difference(of: output.bytes, from: Array(whole)) == nil)
        #expect(error.bytes == Array("1\n2\n3\n".utf8))
    }

    /// As at a shell's `> file`: what goes elsewhere is not the terminal's.
    @Test func outputBesideATerminalIsAPipe() throws {
        let agent = try ConnectedAgent()
        var command = GuestCommand(
            ["sh", "-c", "test -t 0 && test ! -t 1 && test -t 2 && echo out; echo error >&2; seq 20000"], environment: ["PATH=/usr/bin:/bin"],
            terminal: .init(rows: 24, columns: 80))
        command.pipesBesideTerminal = [.output]
        let process = try agent.session.start(command)
        let (output, terminal) = (OutputCollector(limit: 1 << 20), OutputCollector(limit: 1 << 20))
        try process.attach(output: .collector(output), error: .nothing, terminal: .collector(terminal))
        #expect(try process.wait(until: after(20)) == GuestExit(cause: .status(0)))
        #expect(String(decoding: output.bytes, as: UTF8.self) == "out\n" + (1...20000).map { "\($0)\n" }.joined())
        #expect(String(decoding: terminal.bytes, as: UTF8.self) == "error\r\n")
    }

    @Test func aTerminalHasASizeThatChanges() throws {
        let agent = try ConnectedAgent()
        let process = try agent.session.start(
            GuestCommand(["sh", "-c", "stty size; read x; stty size"], environment: ["PATH=/usr/bin:/bin"], terminal: .init(rows: 24, columns: 80)))
        let (source, feed) = pipePair()
        let (reader, writer) = pipePair()
        try process.attach(input: .descriptor(source), terminal: .descriptor(writer))
        close(writer)
        #expect(readToEnd(reader, limit: 7) == Array("24 80\r\n".utf8))
        try process.resize(.init(rows: 50, columns: 132))
        writeAll(feed, [0x0A])
        #expect(try process.wait(until: after(20)) == GuestExit(cause: .status(0)))
        #expect(readToEnd(reader) == Array("\r\n50 132\r\n".utf8))
        for descriptor in [source, feed, reader] { close(descriptor) }
    }

    @Test func aReaderThatGoesEndsTheCommandAsAPipeWould() throws {
        let agent = try ConnectedAgent()
        let process = try agent.session.start(GuestCommand(["yes"], environment: ["PATH=/usr/bin:/bin"], streams: [.output]))
        let (reader, writer) = pipePair()
        try process.attach(output: .descriptor(writer))
        close(writer)
        #expect(readToEnd(reader, limit: 100).count == 100)
        close(reader)
        #expect(try process.wait(until: after(20)) == GuestExit(cause: .signal(SIGPIPE, coreDumped: false)))
    }

    @Test func itShutsDownAndIsMissedWhenItDies() throws {
        let agent = try ConnectedAgent()
        _ = try agent.session.start(GuestCommand(["sleep", "100"], streams: []))
        try agent.session.shutDown(until: after(20))

        let other = try ConnectedAgent()
        let process = try other.session.start(GuestCommand(["cat"]))
        let (source, feed) = pipePair()
        try process.attach(input: .descriptor(source))
        defer { for descriptor in [source, feed] { close(descriptor) } }
        _ = try process.waitForStart(until: after(20))
        kill(other.process, SIGKILL)
        #expect(agentError { () throws(AgentError) in try process.wait(until: after(20)) } == .connectionLost)
    }
}
