import Synchronization
import Testing

@testable import Windhover

/// A console that is fed by the test.
@Suite(.timeLimit(.minutes(1))) struct ConsoleTests {
    private func console(_ text: String = "") -> Console {
        let console = Console()
        console.begin()
        if !text.isEmpty { console.receive(Array(text.utf8)) }
        return console
    }

    private func collect(_ console: Console) async -> [String] {
        var lines: [String] = []
        for await line in console { lines.append(line) }
        return lines
    }

    // MARK: expect

    @Test func whatIsThereIsFound() async throws {
        let console = console("one two three")
        #expect(try await console.expect("two") == "one two")
        #expect(try await console.expect("three") == " three")
        #expect(try await console.expect("") == "")
    }

    /// What has been found is not found again.
    @Test func eachFindingIsBehindTheLast() async throws {
        let console = console("ok ok")
        #expect(try await console.expect("ok") == "ok")
        #expect(try await console.expect("ok") == " ok")
        await #expect(throws: VirtualMachineError.timedOut(waitingFor: "'ok' on the console")) {
            try await console.expect("ok", within: .milliseconds(20))
        }
    }

    /// A text that comes byte by byte, with beginnings of it before.
    @Test func whatComesInPiecesIsFound() async throws {
        let console = console()
        async let found = console.expect("aab")
        for byte in "xaaab!".utf8 {
            try await Task.sleep(for: .milliseconds(2))
            console.receive([byte])
        }
        #expect(try await found == "xaaab")
    }

    @Test func lineEndsAreNoHindrance() async throws {
        let console = console("boot\r\nready: 7\r\nlogin")
        #expect(try await console.expectLine { $0.hasPrefix("ready") } == "ready: 7")
        async let line = console.expectLine { $0.hasSuffix("!") }
        for piece in [": x", "!", "\r", "\n"] {
            try await Task.sleep(for: .milliseconds(2))
            console.receive(Array(piece.utf8))
        }
        #expect(try await line == "login: x!")
    }

    @Test func whoWaitsIsToldOfTheEnd() async throws {
        let console = console("almost")
        let waiting = Task { try await console.expect("done") }
        try await Task.sleep(for: .milliseconds(20))
        console.close()
        await #expect(throws: VirtualMachineError.consoleEnded(waitingFor: "'done' on the console")) { try await waiting.value }
        // What came before still counts.
        #expect(try await console.expect("almost") == "almost")
    }

    @Test func whoIsCancelledWaitsNoLonger() async throws {
        let console = console()
        let waiting = Task { try await console.expect("never", within: .seconds(600)) }
        try await Task.sleep(for: .milliseconds(20))
        waiting.cancel()
        await #expect(throws: CancellationError.self) { try await waiting.value }
        let late = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await console.expect("never", within: .seconds(600))
        }
        await #expect(throws: CancellationError.self) { try await late.value }
    }

    /// Many at once, and the text comes while they begin to wait: none is forgotten.
    @Test func nobodyIsForgotten() async throws {
        for round in 0..<200 {
            let console = console()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<4 { group.addTask { _ = try await console.expect("x") } }
                group.addTask {
                    for _ in 0..<4 {
                        if round % 2 == 0 { await Task.yield() }
                        console.receive(Array("x".utf8))
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    /// A guest that prints without end, and never what is waited for, is not read anew at each byte.
    @Test func aFloodIsLookedAtOnce() async throws {
        let console = console()
        let waiting = Task { try await console.expect("needle") }
        let chunk = [UInt8](repeating: UInt8(ascii: "n"), count: 16)
        let start = ContinuousClock.now
        for _ in 0..<200_000 { console.receive(chunk) }
        console.receive(Array("needle".utf8))
        _ = try await waiting.value
        #expect(ContinuousClock.now - start < .seconds(30))
    }

    @Test func aLineWithoutEndIsNoBurden() async throws {
        let console = console()
        let waiting = Task { try await console.expectLine { $0.hasSuffix("end") } }
        let start = ContinuousClock.now
        for _ in 0..<200_000 { console.receive([UInt8(ascii: "x"), UInt8(ascii: "y")]) }
        console.receive(Array("end\n".utf8))
        #expect(try await waiting.value.hasSuffix("xyend"))
        #expect(ContinuousClock.now - start < .seconds(30))
    }

    // MARK: What is kept

    @Test func theLatestIsKept() async throws {
        let console = console()
        for number in 0..<40_000 { console.receive(Array("\(number): \(String(repeating: "z", count: 90))\n".utf8)) }
        #expect(console.bytes.count == Console.limit)
        #expect(console.text.hasSuffix("39999: \(String(repeating: "z", count: 90))\n"))
        #expect(console.lastLines(2).map { $0.prefix(6) } == ["39998:", "39999:"])
        // What has gone is not waited for.
        #expect(try await console.expect("39999:").utf8.count <= 2 * Console.limit)
    }

    @Test func textIsFitForATerminal() {
        let console = console("a\u{1B}[31mred\u{07}\r\n\tb\n")
        #expect(console.text == "ared\n\tb\n")
        #expect(console.bytes.contains(0x1B))
        #expect(console.lastLines(5) == ["ared", " b"])
    }

    // MARK: As a sequence

    @Test func itsLinesAreASequence() async {
        let console = console("one\r\ntwo\n")
        let lines = Task { await collect(console) }
        console.receive(Array("\nthr".utf8))
        try? await Task.sleep(for: .milliseconds(10))
        console.receive(Array("ee\nfour".utf8))
        console.close()
        #expect(await lines.value == ["one", "two", "", "three", "four"])
    }

    @Test func aSequenceEndsWithItsTask() async throws {
        let console = console("one\n")
        let lines = Task { await collect(console) }
        try await Task.sleep(for: .milliseconds(20))
        lines.cancel()
        #expect(await lines.value == ["one"])
    }

    /// A new life: what the one before said is not waited for, and its last line is not the next one's first.
    @Test func livesAreApart() async throws {
        let console = console("ready\nla")
        console.close()
        console.begin()
        console.receive(Array("st\n".utf8))
        console.close()
        await #expect(throws: VirtualMachineError.self) { try await console.expect("ready") }
        #expect(await collect(console) == ["ready", "la", "st"])
    }

    @Test func nobodyReadsWithoutAMachine() async {
        await #expect(throws: VirtualMachineError.wrongState(.stopped)) { try await Console().type("ls\n") }
    }
}
