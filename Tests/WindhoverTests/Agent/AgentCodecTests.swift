import Testing
import MonitorTesting

@testable import Windhover

/// Frames, fields and messages as bytes.
@Suite struct AgentCodecTests {
    static let messages: [AgentMessage] = [
        .hello(AgentHello(release: "6.1.0-49-cloud-amd64", processors: 4)), .ready,
        .setUpFailed(errno: 19, what: "mount the root 'share'", missingModule: "virtiofs"),
        .setUpFailed(errno: 2, what: "mount the root '/dev/vda'", missingModule: nil), .note("no answer from a DHCP server"),
        .started(command: 7, processID: 4711), .notStarted(command: 7, stage: 3, errno: 2, name: "nosuch"),
        .ended(command: 7, GuestExit(cause: .status(255))),
        .ended(command: .max, GuestExit(cause: .signal(11, coreDumped: true), outOfMemory: true)),
        .ended(command: 1, GuestExit(cause: .signal(9, coreDumped: false))), .goodbye, .output(command: 9, stream: 2, [0, 255, 10]),
    ]

    /// Frames of a stream, and what it breaks on.
    private func decode(_ bytes: [UInt8], pieces: (inout SeededRandom) -> Int, _ random: inout SeededRandom)
        -> ([AgentFrame], AgentViolation?)
    {
        var decoder = AgentFrameDecoder()
        var frames: [AgentFrame] = []
        var start = 0
        do throws(AgentViolation) {
            while start < bytes.count {
                let end = min(bytes.count, start + max(1, pieces(&random)))
                decoder.append(bytes[start..<end])
                start = end
                while let frame = try decoder.next() { frames.append(frame) }
                #expect(decoder.pendingCount < AgentFrame.headerLength + AgentFrame.longestFromAgent)
            }
        } catch {
            return (frames, error)
        }
        return (frames, nil)
    }

    @Test func everyMessageIsReadAsItWasMeantHoweverItIsCut() throws {
        var random = SeededRandom(seed: 1)
        let bytes = Self.messages.flatMap(\.frame.encoded)
        for limit in [1, 2, 7, 8, 9, 64, 10_000] {
            let (frames, violation) = decode(bytes, pieces: { limit == 1 ? 1 : $0.below(limit) }, &random)
            #expect(violation == nil)
            #expect(try frames.map { try AgentMessage.decode($0) } == Self.messages)
        }
    }

    @Test func thePayloadMayBe64KiBAndNotAByteMore() throws {
        var decoder = AgentFrameDecoder()
        decoder.append(AgentFrame(kind: 99, payload: [UInt8](repeating: 0, count: 65_536)).encoded)
        #expect(try decoder.next()?.payload.count == 65_536)
        // It is refused for its header: nothing of the payload has to come.
        decoder.append([1, 0, 1, 0, 4, 0, 0, 0])
        #expect(throws: AgentViolation.frameTooLong(kind: 4, length: 65_537)) { try decoder.next() }
        // And nothing brings it back.
        decoder.append(AgentMessage.ready.frame.encoded)
        #expect(throws: AgentViolation.frameTooLong(kind: 4, length: 65_537)) { try decoder.next() }
        #expect(decoder.pendingCount == 0)
    }

    @Test func bitsThatAreToBeZeroAreLookedAt() {
        var decoder = AgentFrameDecoder()
        decoder.append([0, 0, 0, 0, 2, 0, 1, 0])
        #expect(throws: AgentViolation.reservedBits(kind: 2)) { try decoder.next() }
        let field = AgentFrame(kind: 4, payload: [1, 0, 1, 0, 0, 0, 0, 0])
        #expect(throws: AgentViolation.brokenField(kind: 4)) { try AgentMessage.decode(field) }
    }

    @Test func whatIsNotKnownIsSkipped() throws {
        #expect(try AgentMessage.decode(AgentFrame(kind: 99, payload: [1, 2, 3])) == nil)
        #expect(try AgentMessage.decode(AgentFrame(kind: 129, payload: [])) == nil)
        var fields = AgentFieldWriter()
        fields.add(77, "later")
        fields.add(1, 5)
        fields.add(2, 6)
        #expect(try AgentMessage.decode(AgentFrame(kind: 5, payload: fields.payload)) == .started(command: 5, processID: 6))
    }

    @Test func everyTruncationIsAnErrorOrAnotherMessageNeverATrap() throws {
        var broken = 0
        for message in Self.messages {
            let frame = message.frame
            for count in frame.payload.indices {
                do throws(AgentViolation) {
                    let cut = try AgentMessage.decode(AgentFrame(kind: frame.kind, payload: Array(frame.payload[..<count])))
                    #expect(cut != message)
                } catch {
                    broken += 1
                }
            }
            // As a stream it is a frame that has not come yet.
            let bytes = frame.encoded
            for count in bytes.indices {
                var decoder = AgentFrameDecoder()
                decoder.append(bytes[..<count])
                #expect(try decoder.next() == nil)
            }
        }
        #expect(broken > 100)
    }

    @Test func numbersThatCannotBeAreRefused() {
        func decoded(_ kind: AgentMessage.Kind, _ fields: (UInt16, UInt32)...) -> AgentViolation? {
            var writer = AgentFieldWriter()
            for (tag, value) in fields { writer.add(tag, value) }
            do throws(AgentViolation) {
                _ = try AgentMessage.decode(AgentFrame(kind: kind.rawValue, payload: writer.payload))
                return nil
            } catch {
                return error
            }
        }
        #expect(decoded(.ended, (1, 1), (2, 256)) == .badField(kind: 7, tag: 2))
        #expect(decoded(.ended, (1, 1), (2, .max)) == .badField(kind: 7, tag: 2))
        #expect(decoded(.ended, (1, 1), (3, 0)) == .badField(kind: 7, tag: 3))
        #expect(decoded(.ended, (1, 1), (3, 65)) == .badField(kind: 7, tag: 3))
        #expect(decoded(.ended, (1, 1), (2, 0), (3, 9)) == .badField(kind: 7, tag: 3))
        #expect(decoded(.ended, (1, 1)) == .missingField(kind: 7, tag: 2))
        #expect(decoded(.ended, (1, 1), (2, 0)) == nil)
        #expect(decoded(.started, (2, 1)) == .missingField(kind: 5, tag: 1))
        #expect(decoded(.hello, (1, 1), (3, 1)) == .version(1))
        #expect(decoded(.note, (2, 0)) == .missingField(kind: 4, tag: 1))
        #expect(decoded(.notStarted, (1, 1), (2, .max), (3, .max)) == nil)
        var short = AgentFieldWriter()
        short.add(1, [1, 2, 3])
        short.add(2, 1)
        #expect(throws: AgentViolation.badField(kind: 5, tag: 1)) {
            try AgentMessage.decode(AgentFrame(kind: 5, payload: short.payload))
        }
    }

    @Test func randomBytesAndFramesThatWereTamperedWithNeverTrap() {
        var random = SeededRandom(seed: 0x5EED)
        let whole = Self.messages.map(\.frame.encoded)
        var frames = 0
        var messages = 0
        var violations = 0
        for _ in 0..<100_000 {
            var bytes: [UInt8] = []
            if random.oneIn(4) {
                bytes = (0..<random.below(64)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            } else {
                for _ in 0...random.below(3) { bytes += whole[random.below(whole.count)] }
                for _ in 0..<random.below(4) {
                    let index = random.below(bytes.count)
                    switch random.below(4) {
                    case 0: bytes[index] = UInt8(truncatingIfNeeded: random.next())
                    case 1: bytes[index] ^= 1 << UInt8(random.below(8))
                    case 2: bytes.remove(at: index)
                    default: bytes.insert([0, 1, 0x7F, 0x80, 0xFF][random.below(5)], at: index)
                    }
                    if bytes.isEmpty { break }
                }
            }
            let (found, violation) = decode(bytes, pieces: { $0.below(40) }, &random)
            frames += found.count
            if violation != nil { violations += 1 }
            for frame in found {
                do throws(AgentViolation) {
                    if try AgentMessage.decode(frame) != nil { messages += 1 }
                } catch {
                    violations += 1
                }
            }
        }
        // It gets past the first header, and not always to the end.
        #expect(frames > 50_000)
        #expect(messages > 20_000)
        #expect(violations > 20_000)
    }

    @Test func textIsForATerminal() throws {
        func note(_ bytes: [UInt8]) throws -> AgentMessage? {
            var writer = AgentFieldWriter()
            writer.add(1, bytes)
            return try AgentMessage.decode(AgentFrame(kind: AgentMessage.Kind.note.rawValue, payload: writer.payload))
        }
        #expect(try note(Array("\u{1B}[31mred\u{7}\u{9B}2J\r\n\tend\u{0}".utf8)) == .note("red2J  end"))
        #expect(try note([UInt8](repeating: 0x61, count: 60_000)) == .note(String(repeating: "a", count: 512) + "…"))
    }

    // MARK: To the agent

    /// The fields of a message to the agent: tag and bytes.
    private func fields(_ message: HostMessage) throws -> (UInt16, [(UInt16, [UInt8])]) {
        let bytes = try message.encoded()
        var decoder = AgentFrameDecoder(longest: AgentFrame.longestFromHost)
        decoder.append(bytes)
        let frame = try #require(try decoder.next())
        #expect(decoder.pendingCount == 0)
        var result: [(UInt16, [UInt8])] = []
        var offset = 0
        while offset < frame.payload.count {
            let length = Int(frame.payload.littleEndian(UInt32.self, at: offset + 4))
            let tag = frame.payload.littleEndian(UInt16.self, at: offset)
            result.append((tag, Array(frame.payload[(offset + 8)..<(offset + 8 + length)])))
            offset += 8 + length
        }
        return (frame.kind, result)
    }

    private func expect(_ message: HostMessage, is kind: UInt16, _ expected: [(UInt16, [UInt8])]) throws {
        let (found, fields) = try fields(message)
        #expect(found == kind)
        #expect(fields.map(\.0) == expected.map(\.0))
        #expect(fields.map(\.1) == expected.map(\.1))
    }

    @Test func theSetUpIsLaidOutAsThePageHasIt() throws {
        let time: [UInt8] = [0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0, 7, 0, 0, 0]
        var setup = GuestSetup(unixNanoseconds: 0x1234_5678 * 1_000_000_000 + 7, hostname: "box")
        try expect(.setUp(setup), is: 129, [(1, time), (2, Array("box".utf8)), (3, [0, 0, 0, 0, 0, 0, 0, 0]), (5, [0, 0, 0, 0])])
        setup.root = .share(tag: "root", writes: .inMemory)
        setup.shares = [.init(tag: "t", path: "/a b", isReadOnly: true), .init(tag: "u", path: "/c")]
        setup.network = .dhcp
        try expect(
            .setUp(setup), is: 129,
            [
                (1, time), (2, Array("box".utf8)), (3, [1, 0, 0, 0, 1, 0, 0, 0] + Array("root".utf8)),
                (4, [1, 0, 0, 0] + Array("t\0/a b".utf8)), (4, [0, 0, 0, 0] + Array("u\0/c".utf8)), (5, [1, 0, 0, 0]),
            ])
        setup = GuestSetup(unixNanoseconds: -5, root: .disk(device: "/dev/vda", type: "ext4", writes: .forbidden))
        try expect(
            .setUp(setup), is: 129,
            [
                (1, [UInt8](repeating: 0, count: 12)), (2, Array("guest".utf8)),
                (3, [2, 0, 0, 0, 2, 0, 0, 0] + Array("/dev/vda".utf8)), (6, Array("ext4".utf8)), (5, [0, 0, 0, 0]),
            ])
    }

    @Test func aStartIsLaidOutAsThePageHasIt() throws {
        var command = GuestCommand(["/bin/echo", "", "größer"], environment: ["A=", "B=c=d"], streams: [.output, .error])
        try expect(
            .start(command: 0x0102_0304, command), is: 130,
            [
                (1, [4, 3, 2, 1]), (2, Array("/bin/echo".utf8)), (2, []), (2, Array("größer".utf8)), (3, Array("A=".utf8)),
                (3, Array("B=c=d".utf8)), (7, [6, 0, 0, 0]),
            ])
        command = GuestCommand(["sh"], directory: "/tmp", user: "1000:1000", terminal: .init(rows: 24, columns: 300))
        try expect(
            .start(command: 1, command), is: 130,
            [
                (1, [1, 0, 0, 0]), (2, Array("sh".utf8)), (4, Array("/tmp".utf8)), (5, Array("1000:1000".utf8)),
                (6, [24, 0, 0, 0, 44, 1, 0, 0]),
            ])
        command = GuestCommand([CommandWord(bytes: [0xFF, 0xC3])], environment: [CommandWord(bytes: [0x80, 0x3D, 0xFE])], streams: [])
        try expect(
            .start(command: 1, command), is: 130, [(1, [1, 0, 0, 0]), (2, [0xFF, 0xC3]), (3, [0x80, 0x3D, 0xFE]), (7, [0, 0, 0, 0])])
        try expect(
            .start(command: 2, .write("/f", mode: 0o640)), is: 130,
            [(1, [2, 0, 0, 0]), (2, Array("/f".utf8)), (2, Array("640".utf8)), (7, [1, 0, 0, 0]), (8, [1, 0, 0, 0])])
        try expect(
            .start(command: 3, .read("/f")), is: 130,
            [(1, [3, 0, 0, 0]), (2, Array("/f".utf8)), (7, [2, 0, 0, 0]), (8, [2, 0, 0, 0])])
        command = GuestCommand(["sh"])
        command.collected = [.error]
        try expect(
            .start(command: 1, command), is: 130, [(1, [1, 0, 0, 0]), (2, Array("sh".utf8)), (7, [7, 0, 0, 0]), (9, [4, 0, 0, 0])])
        try expect(.signal(command: 1, signal: 15), is: 131, [(1, [1, 0, 0, 0]), (2, [15, 0, 0, 0])])
        try expect(
            .resize(command: 1, .init(rows: 1, columns: .max)), is: 132,
            [(1, [1, 0, 0, 0]), (2, [1, 0, 0, 0]), (3, [255, 255, 0, 0])])
        try expect(.shutDown, is: 133, [])
    }

    @Test(arguments: [
        HostMessage.start(command: 1, GuestCommand([])), .start(command: 1, GuestCommand([""])),
        .start(command: 1, GuestCommand(["a\0b"])), .start(command: 1, GuestCommand(["a"], environment: ["word"])),
        .start(command: 1, GuestCommand(["a"], environment: ["=x"])), .start(command: 1, GuestCommand(["a"], user: "\0")),
        .start(command: 1, GuestCommand([CommandWord(String(repeating: "x", count: 16 << 20))])),
        .setUp(GuestSetup(unixNanoseconds: 0, hostname: "\0")),
        .setUp(GuestSetup(unixNanoseconds: 0, shares: [.init(tag: "a\0/", path: "b")])),
    ])
    func whatCannotBeSaidIsRefused(_ message: HostMessage) {
        guard case .unsendable = agentError({ () throws(AgentError) in try message.encoded() }) else {
            Issue.record("it was sent")
            return
        }
    }

    @Test func whyACommandIsNotStartedIsAShellsStatus() {
        func status(_ stage: UInt32, _ code: Int32, _ operation: GuestCommand.Operation = .run) -> (Int32, String) {
            let reason = NotStarted(stage: .init(rawValue: stage), errno: code, name: "x", operation: operation)
            #expect(!reason.description.contains("\n"))
            return (reason.shellStatus, AgentError.notStarted(reason).description)
        }
        #expect(status(3, 2) == (127, "no such command in the guest: 'x', or what it is to be run by is missing"))
        #expect(status(3, 20).0 == 127)
        #expect(status(3, 13) == (126, "'x' in the guest cannot be executed: no permission"))
        #expect(status(3, 8).0 == 126)
        #expect(status(3, 7).0 == 126)
        #expect(status(1, 2) == (125, "no such directory in the guest: 'x'"))
        #expect(status(2, 2) == (125, "no such user or group in the guest: 'x'"))
        #expect(status(4, 12).0 == 125)
        #expect(status(5, 104).0 == 125)
        #expect(status(.max, -1).0 == 125)
        #expect(status(3, 2, .read) == (125, "'x' in the guest cannot be read: No such file or directory (errno 2)"))
    }
}
