import Glibc
import Machine
import Synchronization
import Testing
import MonitorTesting

@testable import Windhover

/// A session with an agent that does what it likes.
@Suite(.timeLimit(.minutes(2))) struct HostileAgentTests {
    /// What a session ends with after these bytes, on top of a set-up guest with one running command.
    private func end(after bytes: [UInt8]) throws -> AgentError? {
        let (session, agent) = try FakeAgent.ready()
        let process = try session.start(GuestCommand(["x"]))
        agent.say(.started(command: 1, processID: 2))
        _ = try process.waitForStart(until: after(10))
        agent.say(bytes)
        return agentError { () throws(AgentError) in
            guard try process.wait(until: after(10)) != nil else { throw .timedOut(waitingFor: "the session's end") }
        }
    }

    @Test func framesAtTheWrongTimeEndTheSession() throws {
        let cases: [(AgentMessage, AgentViolation)] = [
            (.hello(AgentHello(release: "6", processors: 1)), .outOfOrder(kind: 1)), (.ready, .outOfOrder(kind: 2)),
            (.setUpFailed(errno: 1, what: "x", missingModule: nil), .outOfOrder(kind: 3)),
            (.started(command: 1, processID: 3), .outOfOrder(kind: 5)),
            (.started(command: 2, processID: 3), .unknownCommand(kind: 5, number: 2)),
            (.notStarted(command: 1, stage: 1, errno: 1, name: ""), .outOfOrder(kind: 6)),
            (.notStarted(command: 0, stage: 1, errno: 1, name: ""), .unknownCommand(kind: 6, number: 0)),
            (.ended(command: 77, GuestExit(cause: .status(0))), .unknownCommand(kind: 7, number: 77)),
            (.goodbye, .outOfOrder(kind: 8)), (.output(command: 1, stream: 1, [1]), .outOfOrder(kind: 9)),
            (.output(command: 2, stream: 1, [1]), .unknownCommand(kind: 9, number: 2)),
        ]
        for (message, violation) in cases { #expect(try end(after: message.frame.encoded) == .violation(violation)) }
    }

    @Test func malformedFramesEndTheSession() throws {
        #expect(try end(after: [1, 0, 1, 0, 4, 0, 0, 0]) == .violation(.frameTooLong(kind: 4, length: 65_537)))
        #expect(try end(after: [255, 255, 255, 255, 200, 0, 0, 0]) == .violation(.frameTooLong(kind: 200, length: .max)))
        #expect(try end(after: [0, 0, 0, 0, 4, 0, 0, 1]) == .violation(.reservedBits(kind: 4)))
        #expect(try end(after: AgentFrame(kind: 4, payload: [1, 0, 0, 0, 255, 255, 255, 255]).encoded) == .violation(.brokenField(kind: 4)))
        #expect(try end(after: AgentFrame(kind: 7, payload: []).encoded) == .violation(.missingField(kind: 7, tag: 1)))
    }

    @Test func nothingCountsBeforeHello() throws {
        for message in [AgentMessage.ready, .goodbye, .started(command: 1, processID: 1)] {
            let session = try AgentSession(clock: HostClock())
            let agent = FakeAgent(session)
            agent.say(message)
            guard case .violation(.outOfOrder) = agentError({ () throws(AgentError) in try session.waitForHello(until: after(10)) }) else {
                Issue.record("\(message) was taken")
                return
            }
        }
        let session = try AgentSession(clock: HostClock())
        let agent = FakeAgent(session)
        agent.say(AgentFrame(kind: 1, payload: [1, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0]).encoded)
        #expect(agentError { () throws(AgentError) in try session.waitForHello(until: after(10)) } == .violation(.version(1)))
    }

    @Test func anEndTwiceIsAboutNobody() throws {
        let (session, agent) = try FakeAgent.ready()
        let process = try session.start(GuestCommand(["x"], streams: []))
        let other = try session.start(GuestCommand(["x"], streams: []))
        agent.say(.started(command: 1, processID: 2))
        agent.say(.ended(command: 1, GuestExit(cause: .status(0))))
        #expect(try process.wait(until: after(10)) == GuestExit(cause: .status(0)))
        agent.say(.ended(command: 1, GuestExit(cause: .status(1))))
        #expect(agentError { () throws(AgentError) in try other.wait(until: after(10)) } == .violation(.unknownCommand(kind: 7, number: 1)))
        #expect(try process.wait(until: after(10)) == GuestExit(cause: .status(0)))
    }

    @Test func aFloodOfNotesIsCutOff() throws {
        let notes = Mutex<[String]>([])
        let (session, agent) = try FakeAgent.ready { note in notes.withLock { $0.append(note) } }
        let long = String(repeating: "x\u{1B}", count: 2000)
        for number in 0..<3000 { agent.say(.note("\(number) \(long)")) }
        let process = try session.start(GuestCommand(["x"], streams: []))
        agent.say(.started(command: 1, processID: 2))
        _ = try process.waitForStart(until: after(30))
        let seen = notes.withLock { $0 }
        #expect(seen.count == AgentSession.noteLimit + 1)
        #expect(seen.last == "more notes of the guest's are left out")
        #expect(seen.allSatisfy { $0.count <= 513 && !$0.contains("\u{1B}") })
    }

    @Test func aFrameThatNeverEndsKeepsNobody() throws {
        let (session, agent) = try FakeAgent.ready()
        let process = try session.start(GuestCommand(["x"]))
        // Header of 64 KiB, and then a byte now and again.
        agent.say([0, 0, 1, 0, 4, 0, 0, 0])
        for _ in 0..<10 {
            agent.say([0])
            usleep(10_000)
        }
        #expect(agentError { () throws(AgentError) in try process.waitForStart(until: after(0.1)) } == .timedOut(waitingFor: "the start of the command"))
        let waiting = Background { agentError { () throws(AgentError) in try process.waitForStart(until: nil) } }
        #expect(waiting.wait(0.1) == nil)
        let time = seconds {
            session.machineEnded()
            #expect(waiting.wait() == .some(.machineEnded))
        }
        #expect(time < 1)
    }

    @Test func aControlConnectionThatEndsAmidIsTheAgentsEnd() throws {
        let (session, agent) = try FakeAgent.ready()
        let process = try session.start(GuestCommand(["x"]))
        let collector = OutputCollector(limit: 100)
        try process.attach(output: .collector(collector))
        let stream = agent.connect(1, 1)
        agent.say(.started(command: 1, processID: 2))
        _ = try process.waitForStart(until: after(10))
        writeAll(stream, Array("last words".utf8))
        agent.say([5, 0, 0, 0, 4])
        agent.close()
        #expect(agentError { () throws(AgentError) in try process.wait(until: nil) } == .connectionLost)
        #expect(agentError { () throws(AgentError) in try session.shutDown(until: nil) } == .connectionLost)
        #expect(agentError { () throws(AgentError) in try process.send(signal: 9) } == nil)
        #expect(collector.bytes == Array("last words".utf8))
        close(stream)
    }

    @Test func onlyOneControlConnectionIsTaken() throws {
        let (session, agent) = try FakeAgent.ready()
        let (host, second) = socketPair()
        session.acceptControl(host)
        #expect(readToEnd(second) == [])
        close(second)
        // The first is as it was.
        #expect(try session.start(GuestCommand(["x"])).number == 1)
        #expect(agent.hear()?.kind == 130)
        session.close()
        let (late, third) = socketPair()
        session.acceptControl(late)
        #expect(readToEnd(third) == [])
        close(third)
    }

    @Test func streamsOfNobodyAreClosed() throws {
        let session = try AgentSession(clock: HostClock())
        let (early, outside) = socketPair()
        session.acceptStream(early)
        #expect(readToEnd(outside) == [])
        close(outside)

        let agent = FakeAgent(session)
        agent.say(.hello(AgentHello(release: "6", processors: 1)))
        _ = try session.waitForHello(until: after(10))
        // Before any command; and, with a command: another's, one that was not wanted, one that there is not.
        let stray = agent.connect(1, 1)
        #expect(readToEnd(stray) == [])
        close(stray)
    }

    @Test func aStreamIsConnectedOnce() throws {
        let (session, agent) = try FakeAgent.ready()
        let process = try session.start(GuestCommand(["x"], streams: [.output]))
        let collector = OutputCollector(limit: 100)
        try process.attach(output: .collector(collector))
        for (number, stream) in [(2, 1), (0, 1), (1, 0), (1, 2), (1, 3), (.max, .max), (1, .max)] as [(UInt32, UInt32)] {
            let wrong = agent.connect(number, stream)
            #expect(readToEnd(wrong) == [])
            close(wrong)
        }
        let right = agent.connect(1, 1)
        try process.waitForStreams(until: after(10))
        let again = agent.connect(1, 1)
        writeAll(again, Array("false".utf8))
        _ = readToEnd(again)
        close(again)
        writeAll(right, Array("true".utf8))
        close(right)
        agent.say(.started(command: 1, processID: 2))
        agent.say(.ended(command: 1, GuestExit(cause: .status(0))))
        #expect(try process.wait(until: after(10)) == GuestExit(cause: .status(0)))
        #expect(collector.bytes == Array("true".utf8))
    }

    /// What was not asked for, of no stream, nothing, more than may be, or behind the end.
    @Test(arguments: ["error", "input", "nobody", "empty", "more", "late"]) func outputThatMayNotBeCollectedEndsTheSession(what: String) throws {
        let (session, agent) = try FakeAgent.ready()
        var command = GuestCommand(["x"], streams: [.input, .output, .error])
        command.collected = [.output]
        let process = try session.start(command)
        let other = try session.start(GuestCommand(["x"]))
        let collector = OutputCollector(limit: 1 << 20)
        try process.attach(output: .collector(collector), error: .nothing)
        agent.say(.started(command: 1, processID: 2))
        let most = [UInt8](repeating: 1, count: GuestCommand.collectedLimit)
        var violation = AgentViolation.outOfOrder(kind: 9)
        switch what {
        case "error": agent.say(.output(command: 1, stream: 2, [1]))
        case "input": agent.say(.output(command: 1, stream: 0, [1]))
        case "nobody": agent.say(.output(command: 1, stream: 3, [1]))
        case "empty": agent.say(.output(command: 1, stream: 1, []))
        case "more":
            agent.say(.output(command: 1, stream: 1, most))
            agent.say(.output(command: 1, stream: 1, [1]))
        default:
            agent.say(.ended(command: 1, GuestExit(cause: .status(0))))
            agent.say(.output(command: 1, stream: 1, [1]))
            violation = .unknownCommand(kind: 9, number: 1)
        }
        #expect(agentError { () throws(AgentError) in try other.wait(until: after(10)) } == .violation(violation))
        #expect(difference(of: collector.bytes, from: what == "more" ? most : []) == nil)
    }

    /// A connection before its turn is kept until then, and one that no turn comes for is nothing.
    @Test func aConnectionOfACollectedOutputHasItsTurn() throws {
        for isWhole in [true, false] {
            let (session, agent) = try FakeAgent.ready()
            var command = GuestCommand(["x"], streams: [.output])
            command.collected = [.output]
            let process = try session.start(command)
            let collector = OutputCollector(limit: 1 << 20)
            try process.attach(output: .collector(collector))
            let stream = agent.connect(1, 1)
            writeAll(stream, Array("behind".utf8))
            try process.waitForStreams(until: after(10))
            agent.say(.started(command: 1, processID: 2))
            let framed = [UInt8](repeating: 7, count: GuestCommand.collectedLimit - (isWhole ? 0 : 1))
            agent.say(.output(command: 1, stream: 1, framed))
            close(stream)
            agent.say(.ended(command: 1, GuestExit(cause: .status(0))))
            #expect(try process.wait(until: after(10)) == GuestExit(cause: .status(0)))
            #expect(difference(of: collector.bytes, from: framed + (isWhole ? Array("behind".utf8) : [])) == nil)
        }
    }

    @Test func connectionsThatSayNothingAreFewAndGivenUp() throws {
        let (session, agent) = try FakeAgent.ready()
        let process = try session.start(GuestCommand(["x"], streams: [.output]))
        let silent = (0..<200).map { _ in agent.connectSilently() }
        let closed = silent.filter { isReadable($0, within: 0) }
        #expect(closed.count >= 200 - 17)
        #expect(closed.count < 200)
        // Half of what is to be said, and then nothing.
        for descriptor in silent where !isReadable(descriptor, within: 0) { writeAll(descriptor, [1, 0, 0, 0]) }
        let time = seconds { for descriptor in silent { #expect(readToEnd(descriptor) == []) } }
        #expect(time < 9)
        for descriptor in silent { close(descriptor) }
        // There is room again.
        let right = agent.connect(1, 1)
        try process.waitForStreams(until: after(10))
        close(right)
    }

    @Test func anAgentThatDoesNotReadIsNotSentForEver() throws {
        let (session, agent) = try FakeAgent.ready()
        let command = GuestCommand([CommandWord(String(repeating: "x", count: 8 << 20))], streams: [])
        var error: AgentError?
        for _ in 0..<10 where error == nil { error = agentError { () throws(AgentError) in try session.start(command) } }
        #expect(error == .backlog)
        #expect(agent.hear()?.payload.count ?? 0 > 8 << 20)
    }

    @Test func aCommandThatLeavesItsOutputOpenEndsAllTheSame() throws {
        let (session, agent) = try FakeAgent.ready()
        let process = try session.start(GuestCommand(["x"], streams: [.output, .error]))
        try process.attach(output: .nothing, error: .nothing)
        // One that is not ended, one that never came.
        let stream = agent.connect(1, 1)
        agent.say(.started(command: 1, processID: 2))
        agent.say(.ended(command: 1, GuestExit(cause: .status(0), outOfMemory: true)))
        let time = seconds { #expect((try? process.wait(until: after(30))) == GuestExit(cause: .status(0), outOfMemory: true)) }
        #expect(time > 3 && time < 12)
        #expect(process.losses == ["the command's output: the guest did not end it, and what may have been left is missing"])
        close(stream)
    }

    @Test(arguments: [true, false]) func theMachinesEndWakesAllThatWait(byMachine: Bool) throws {
        let (session, agent) = try FakeAgent.ready()
        let fresh = try AgentSession(clock: HostClock())
        let process = try session.start(GuestCommand(["x"]))
        try process.attach(input: .descriptor(open("/dev/zero", O_RDONLY)), output: .nothing, error: .nothing)
        let stream = agent.connect(1, 0)
        let waits: [Background<AgentError?>] = [
            Background { agentError { () throws(AgentError) in try fresh.waitForHello(until: nil) } },
            Background { agentError { () throws(AgentError) in try process.waitForStart(until: nil) } },
            Background { agentError { () throws(AgentError) in try process.waitForStreams(until: nil) } },
            Background { agentError { () throws(AgentError) in try process.wait(until: nil) } },
            Background { agentError { () throws(AgentError) in try process.wait(until: after(1000)) } },
            Background { agentError { () throws(AgentError) in try session.shutDown(until: nil) } },
        ]
        usleep(100_000)
        let time = seconds {
            for one in [session, fresh] { if byMachine { one.machineEnded() } else { one.close() } }
            for wait in waits { #expect(wait.wait() == .some(byMachine ? .machineEnded : .closed)) }
        }
        #expect(time < 1)
        // The agent's connections are closed.
        _ = readToEnd(agent.control)
        #expect(!writeAll(agent.control, [UInt8](repeating: 0, count: 8)))
        close(stream)
    }

    @Test func whatWasSaidBeforeTheMachinesEndCounts() throws {
        for round in 0..<20 {
            let (session, agent) = try FakeAgent.ready()
            let process = try session.start(GuestCommand(["x"], streams: [.output]))
            let collector = OutputCollector(limit: 100)
            try process.attach(output: .collector(collector))
            let stream = agent.connect(1, 1)
            let waiting = Background { try? process.wait(until: nil) }
            let goodbye = Background { agentError { () throws(AgentError) in try session.shutDown(until: nil) } }
            while agent.hear()?.kind != 133 {}
            agent.say(.started(command: 1, processID: 2))
            writeAll(stream, Array("done".utf8))
            close(stream)
            agent.say(.ended(command: 1, GuestExit(cause: .status(0))))
            agent.say(.goodbye)
            session.machineEnded()
            #expect(waiting.wait() == .some(GuestExit(cause: .status(0))), "round \(round)")
            #expect(goodbye.wait() == .some(nil), "round \(round)")
            #expect(collector.bytes == Array("done".utf8), "round \(round)")
        }
    }

    @Test func noDescriptorOrThreadIsLeftBehind() throws {
        func count(_ path: String) -> Int {
            var count = 0
            guard let directory = opendir(path) else { return -1 }
            while readdir(directory) != nil { count += 1 }
            closedir(directory)
            return count
        }
        func round() throws {
            let (session, agent) = try FakeAgent.ready()
            let process = try session.start(GuestCommand(["x"]))
            let null = open("/dev/null", O_RDONLY)
            try process.attach(input: .descriptor(null), output: .nothing)
            close(null)
            let streams = (0...2).map { agent.connect(1, $0) }
            try process.waitForStreams(until: after(10))
            let silent = agent.connectSilently()
            session.machineEnded()
            _ = agentError { () throws(AgentError) in try process.wait(until: after(10)) }
            for stream in streams + [silent] { close(stream) }
        }
        try round()
        usleep(300_000)
        let descriptors = count("/proc/self/fd")
        let threads = count("/proc/self/task")
        for _ in 0..<30 { try round() }
        var left = (0, 0)
        for _ in 0..<100 {
            left = (count("/proc/self/fd"), count("/proc/self/task"))
            if left.0 <= descriptors, left.1 <= threads { break }
            usleep(20_000)
        }
        #expect(left.0 <= descriptors)
        #expect(left.1 <= threads)
    }
}
