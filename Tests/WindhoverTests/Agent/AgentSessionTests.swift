import Glibc
import Machine
import Synchronization
import Testing
import VMCore
import MonitorTesting

@testable import Windhover

/// A session with an agent that keeps to the protocol.
@Suite(.timeLimit(.minutes(2))) struct AgentSessionTests {
    @Test func aWholeConversation() throws {
        let session = try AgentSession(clock: HostClock())
        let hello = Background { try? session.waitForHello(until: after(10)) }
        let agent = FakeAgent(session)
        agent.say(.hello(AgentHello(release: "6.1.0\u{1B}[2J", processors: 3)))
        #expect(hello.wait() == AgentHello(release: "6.1.0", processors: 3))

        let setUp = Background { agentError { () throws(AgentError) in try session.setUp(GuestSetup(unixNanoseconds: 5), until: nil) } }
        #expect(agent.hear()?.kind == 129)
        #expect(setUp.wait(0.1) == nil)
        agent.say(.ready)
        #expect(setUp.wait() == .some(nil))

        let process = try session.start(GuestCommand(["cat"]))
        let start = try #require(agent.hear())
        #expect(start == AgentFrame(kind: 130, payload: Array(try HostMessage.start(command: 1, GuestCommand(["cat"])).encoded()[8...])))
        let output = OutputCollector(limit: 1000)
        let error = OutputCollector(limit: 1000)
        try process.attach(input: .bytes(Array("question".utf8)), output: .collector(output), error: .collector(error))
        let streams = (0...2).map { agent.connect(process.number, $0) }
        try process.waitForStreams(until: after(10))
        #expect(readToEnd(streams[0]) == Array("question".utf8))
        #expect(agentError { () throws(AgentError) in try process.waitForStart(until: after(0.05)) } == .timedOut(waitingFor: "the start of the command"))
        agent.say(.started(command: 1, processID: 99))
        #expect(try process.waitForStart(until: after(10)) == 99)

        try process.send(signal: 15)
        #expect(agent.hear()?.kind == 131)
        try process.resize(.init(rows: 1, columns: 2))
        #expect(agent.hear()?.kind == 132)
        #expect(try process.wait(until: after(0.05)) == nil)

        writeAll(streams[1], Array("answer".utf8))
        writeAll(streams[2], Array("complaint".utf8))
        agent.say(.ended(command: 1, GuestExit(cause: .status(3))))
        // Not before its output is at its end.
        #expect(try process.wait(until: after(0.2)) == nil)
        for stream in streams { close(stream) }
        #expect(try process.wait(until: after(10)) == GuestExit(cause: .status(3)))
        #expect(output.bytes == Array("answer".utf8))
        #expect(error.bytes == Array("complaint".utf8))
        #expect(process.losses == [])
        // It has ended: a signal is nothing, and nothing is sent.
        try process.send(signal: 9)

        let goodbye = Background { agentError { () throws(AgentError) in try session.shutDown(until: after(10)) } }
        #expect(agent.hear()?.kind == 133)
        agent.say(.goodbye)
        #expect(goodbye.wait() == .some(nil))
        session.machineEnded()
        #expect(agentError { () throws(AgentError) in try session.start(GuestCommand(["ls"])) } == .machineEnded)
        // What is known stays known.
        #expect(try session.waitForHello(until: nil).processors == 3)
        #expect(try process.wait(until: nil) == GuestExit(cause: .status(3)))
        try session.shutDown(until: nil)
    }

    @Test func aSetUpThatFailsSaysWhy() throws {
        let session = try AgentSession(clock: HostClock())
        let agent = FakeAgent(session)
        agent.say(.hello(AgentHello(release: "6", processors: 1)))
        _ = try session.waitForHello(until: after(10))
        let setUp = Background { agentError { () throws(AgentError) in try session.setUp(GuestSetup(unixNanoseconds: 5), until: nil) } }
        #expect(agent.hear() != nil)
        agent.say(.setUpFailed(errno: 19, what: "mount the root 'share'\u{7}", missingModule: "virtiofs"))
        let error = setUp.wait() ?? nil
        #expect(error == .setUpFailed(errno: 19, what: "mount the root 'share'", missingModule: "virtiofs"))
        #expect(
            error?.description
                == "the guest could not mount the root 'share': No such device (errno 19): its kernel has no module 'virtiofs'")
        guard case .unsendable = agentError({ () throws(AgentError) in try session.start(GuestCommand(["ls"])) }) else {
            Issue.record("a command was started in a guest that is not set up")
            return
        }
    }

    @Test func commandsAtOnceHaveTheirOwnStreamsAndEnds() throws {
        let (session, agent) = try FakeAgent.ready()
        let processes = try (0..<20).map { _ in try session.start(GuestCommand(["x"], streams: [.output])) }
        let collectors = processes.map { _ in OutputCollector(limit: 100) }
        for (process, collector) in zip(processes, collectors) { try process.attach(output: .collector(collector)) }
        #expect(processes.map(\.number) == (1...20).map { $0 })
        for process in processes.reversed() {
            let stream = agent.connect(process.number, 1)
            agent.say(.started(command: process.number, processID: process.number + 100))
            writeAll(stream, Array("\(process.number)".utf8))
            close(stream)
            agent.say(.ended(command: process.number, GuestExit(cause: .status(Int32(process.number)))))
        }
        for (process, collector) in zip(processes, collectors) {
            #expect(try process.wait(until: after(10)) == GuestExit(cause: .status(Int32(process.number))))
            #expect(collector.bytes == Array("\(process.number)".utf8))
        }
    }

    /// Frames bring what no connection has to; whether it is said where they go before or behind them.
    @Test(arguments: [true, false]) func collectedOutputTakesNoConnection(isEarly: Bool) throws {
        let (session, agent) = try FakeAgent.ready()
        var command = GuestCommand(["x"], streams: [.output, .error])
        command.collected = [.output, .error]
        let process = try session.start(command)
        let (output, error) = (OutputCollector(limit: 100), OutputCollector(limit: 2))
        func attach() throws { try process.attach(output: .collector(output), error: .collector(error)) }
        if isEarly { try attach() }
        agent.say(.output(command: 1, stream: 1, Array("one ".utf8)))
        agent.say(.started(command: 1, processID: 2))
        agent.say(.output(command: 1, stream: 2, Array("three".utf8)))
        agent.say(.output(command: 1, stream: 1, Array("two".utf8)))
        _ = try process.waitForStart(until: after(10))
        if !isEarly { try attach() }
        #expect(try process.wait(until: after(0.1)) == nil)
        agent.say(.ended(command: 1, GuestExit(cause: .status(0))))
        let time = seconds { #expect((try? process.wait(until: after(10))) == GuestExit(cause: .status(0))) }
        #expect(time < 2)
        #expect(output.bytes == Array("one two".utf8) && error.bytes == Array("th".utf8) && error.droppedCount == 3)
        #expect(process.losses.isEmpty)
        let other = try session.start(command)
        guard case .unsendable = agentError({ () throws(AgentError) in try other.attach(output: .descriptor(1)) }) else {
            Issue.record("a descriptor was taken")
            return
        }
    }

    @Test func aCommandThatIsNotStartedSaysWhyToWhoeverWaits() throws {
        let (session, agent) = try FakeAgent.ready()
        let process = try session.start(GuestCommand(["nosuch"]))
        try process.attach(output: .nothing)
        let stream = agent.connect(1, 1)
        agent.say(.notStarted(command: 1, stage: 3, errno: 2, name: "nosuch"))
        let cause = NotStarted(stage: .program, errno: 2, name: "nosuch", operation: .run)
        let reason = AgentError.notStarted(cause)
        #expect(agentError { () throws(AgentError) in try process.waitForStart(until: after(10)) } == reason)
        #expect(agentError { () throws(AgentError) in try process.wait(until: after(10)) } == reason)
        #expect(agentError { () throws(AgentError) in try process.waitForStreams(until: after(10)) } == reason)
        #expect(cause.shellStatus == 127)
        // The session goes on.
        #expect(try session.start(GuestCommand(["ls"])).number == 2)
        close(stream)
    }

    @Test func aStreamCanBeTakenAsADescriptor() throws {
        let (session, agent) = try FakeAgent.ready()
        let process = try session.start(GuestCommand(["sh"], terminal: .init(rows: 2, columns: 3)))
        let taken = Background { (try? process.takeStream(.input, until: after(10))) ?? -1 }
        let guest = agent.connect(1, 0)
        let descriptor = try #require(taken.wait())
        writeAll(descriptor, [1, 2])
        #expect(readToEnd(guest, limit: 2) == [1, 2])
        writeAll(guest, [3])
        close(guest)
        #expect(readToEnd(descriptor) == [3])
        close(descriptor)
        guard case .unsendable = agentError({ () throws(AgentError) in try process.takeStream(.input, until: nil) }) else {
            Issue.record("a stream was taken twice")
            return
        }
        agent.say(.started(command: 1, processID: 2))
        agent.say(.ended(command: 1, GuestExit(cause: .signal(1, coreDumped: false))))
        #expect(try process.wait(until: after(10))?.shellStatus == 129)
    }

    @Test func aTerminalIsOneStreamForBothDirections() throws {
        let (session, agent) = try FakeAgent.ready()
        let process = try session.start(GuestCommand(["sh"], terminal: .init(rows: 2, columns: 3)))
        let (source, feed) = pipePair()
        let output = OutputCollector(limit: 100)
        let guest = agent.connect(1, 0)
        try process.attach(input: .descriptor(source), terminal: .collector(output))
        agent.say(.started(command: 1, processID: 2))
        writeAll(feed, Array("ls\n".utf8))
        #expect(readToEnd(guest, limit: 3) == Array("ls\n".utf8))
        writeAll(guest, Array("ls\r\nfile\r\n".utf8))
        close(guest)
        agent.say(.ended(command: 1, GuestExit(cause: .status(0))))
        #expect(try process.wait(until: after(10)) == GuestExit(cause: .status(0)))
        #expect(output.bytes == Array("ls\r\nfile\r\n".utf8))
        #expect(process.outcome(of: .output) == .finished)
        for descriptor in [source, feed] { close(descriptor) }
    }

    /// A terminal has no end: what reads from it is told as by a person.
    @Test func anInputThatEndsIsToldToATerminal() throws {
        let (session, agent) = try FakeAgent.ready()
        let process = try session.start(GuestCommand(["cat"], terminal: .init(rows: 2, columns: 3)))
        let guest = agent.connect(1, 0)
        try process.attach(input: .bytes(Array("half a line".utf8)), terminal: .nothing)
        #expect(readToEnd(guest) == Array("half a line\u{4}\u{4}".utf8))
        close(guest)
    }

    @Test func inputThatCannotBeReadIsSaid() throws {
        let (session, agent) = try FakeAgent.ready()
        let process = try session.start(GuestCommand(["cat"], streams: [.input]))
        let directory = open("/", O_RDONLY)
        try process.attach(input: .descriptor(directory))
        close(directory)
        let stream = agent.connect(1, 0)
        agent.say(.started(command: 1, processID: 2))
        #expect(readToEnd(stream) == [])
        close(stream)
        agent.say(.ended(command: 1, GuestExit(cause: .status(0))))
        #expect(try process.wait(until: after(10))?.shellStatus == 0)
        for _ in 0..<500 where process.losses.isEmpty { usleep(10_000) }
        #expect(process.losses == ["the command's input: read: Is a directory (errno 21)"])
    }

    @Test func outputThatTheHostLosesIsSaid() throws {
        let (session, agent) = try FakeAgent.ready()
        let process = try session.start(GuestCommand(["yes"], streams: [.output]))
        let full = open("/dev/full", O_WRONLY)
        try process.attach(output: .descriptor(full))
        close(full)
        let stream = agent.connect(1, 1)
        agent.say(.started(command: 1, processID: 2))
        while writeAll(stream, [UInt8](repeating: 0x79, count: 4096)) {}
        close(stream)
        agent.say(.ended(command: 1, GuestExit(cause: .signal(13, coreDumped: false))))
        #expect(try process.wait(until: after(10))?.shellStatus == 141)
        #expect(process.losses == ["the command's output: write: No space left on device (errno 28)"])
    }

    @Test func theDeadlineIsOnTheSessionsClock() throws {
        let clock = TestClock()
        let session = try AgentSession(clock: clock)
        let agent = FakeAgent(session)
        // It has passed already, whatever the host's clock says.
        clock.time.store(1000, ordering: .relaxed)
        #expect(agentError { () throws(AgentError) in try session.waitForHello(until: 1000) } == .timedOut(waitingFor: "its agent has not connected"))
        let waiting = Background { agentError { () throws(AgentError) in try session.waitForHello(until: 50_001_000) } }
        #expect(waiting.wait(0.3) == nil)
        clock.time.store(50_001_000, ordering: .relaxed)
        #expect(waiting.wait(5) == .some(.timedOut(waitingFor: "its agent has not connected")))
        withExtendedLifetime(agent) {}
    }

    private final class TestClock: MonotonicClock {
        let time = Atomic<UInt64>(0)
        func now() -> UInt64 { time.load(ordering: .relaxed) }
    }
}
