import CHost
import Glibc
import Testing
import Windhover

/// Standard input, output and error that are closed, full, or gone.
@Suite(.serialized) struct StandardStreamTests {
    let scratch = Scratch()

    @Test(arguments: [["--help"], ["run", "--help"], ["--version"], ["images"], ["images", "path"]])
    func outputThatCannotBeWrittenIsAnError(words: [String]) throws {
        let result = try HoverProcess.run(
            words, variables: ["XDG_CACHE_HOME": scratch.path], output: .path("/dev/full"))
        #expect(result.status == ExitStatus.badConfiguration.rawValue)
        #expect(result.errors.contains("standard output cannot be written: No space left on device"))
        #expect(result.complaints.count == 1)
    }

    @Test func aReaderThatWentAwayEndsTheCommandQuietly() throws {
        var ends: [Int32] = [-1, -1]
        try #require(chost_pipe(&ends) == 0)
        close(ends[0])
        defer { close(ends[1]) }
        let result = try HoverProcess.run(["--help"], output: .descriptor(ends[1]))
        #expect(result.status == 128 + SIGPIPE)
        #expect(result.errors.isEmpty)
    }

    /// The first file opened would get the number of the one that is closed: the guest's words must not end up there.
    @Test func closedOutputIsNoOutput() throws {
        let result = try HoverProcess.run(
            ["run", "--timeout", "1s", "--stats", "numbers"], in: scratch.path, input: .closed, output: .closed)
        #expect(result.status == ExitStatus.timedOut.rawValue, "\(result.errors)")
        #expect(result.complaints.count == 1)
        let numbers = try contents("numbers")
        #expect(numbers.hasPrefix("{") && numbers.hasSuffix("}\n"), "\(numbers)")
    }

    /// A user whose processes have as many signals waiting as the host allows: a kick must not be lost for that.
    @Test func aTimeLimitHoldsWithNoSignalLeft() throws {
        let result = try HoverProcess.run(
            ["run", "--timeout", "1s"], through: ["/bin/bash", "-c", "ulimit -i 0; exec \"$0\" \"$@\""])
        #expect(result.status == ExitStatus.timedOut.rawValue, "\(result.errors)")
    }

    @Test func aGuestOutlivesItsReader() throws {
        var ends: [Int32] = [-1, -1]
        try #require(chost_pipe(&ends) == 0)
        close(ends[0])
        defer { close(ends[1]) }
        let result = try HoverProcess.run(["run", "--timeout", "2s"], output: .descriptor(ends[1]))
        #expect(result.status == ExitStatus.timedOut.rawValue, "\(result.errors)")
        #expect(result.complaints.count == 1, "\(result.errors)")
    }

    @Test func aPipeThatNobodyEmptiesStopsNoTimeLimit() throws {
        var ends: [Int32] = [-1, -1]
        try #require(chost_pipe(&ends) == 0)
        defer { for end in ends { close(end) } }
        // Full, before the guest's first word.
        let flags = fcntl(ends[1], F_GETFL)
        _ = fcntl(ends[1], F_SETFL, flags | O_NONBLOCK)
        while write(ends[1], "x", 1) == 1 {}
        _ = fcntl(ends[1], F_SETFL, flags)
        let result = try HoverProcess.run(["run", "--timeout", "1s"], output: .descriptor(ends[1]), limit: 20)
        #expect(!result.hung)
        #expect(result.status == ExitStatus.timedOut.rawValue, "\(result.errors)")
        // Our own description was left as it is.
        #expect(fcntl(ends[1], F_GETFL) & O_NONBLOCK == 0)
    }

    /// Started by a thread that blocks every signal, as libraries' own threads do.
    @Test func inheritedSignalMasksDoNotKeepAGuestFromStopping() throws {
        let result = try HoverProcess.run(["run", "--timeout", "1s"], blockingSignals: true, limit: 20)
        #expect(!result.hung)
        #expect(result.status == ExitStatus.timedOut.rawValue, "\(result.errors)")
    }

    @Test func aFullDiskIsTold() throws {
        let result = try HoverProcess.run(["run", "--timeout", "2s", "--console", "file:/dev/full", "--stats", "/dev/full"])
        #expect(result.status == ExitStatus.timedOut.rawValue)
        #expect(result.errors.contains("some of the guest's output is lost: '/dev/full'"))
        #expect(result.errors.contains("the statistics cannot be written to '/dev/full'"))
        #expect(result.complaints.allSatisfy { $0.hasPrefix("hover: ") })
    }

    @Test func inputFromAPipeReachesTheGuestAndItsEndDoesNotEndIt() throws {
        var ends: [Int32] = [-1, -1]
        try #require(chost_pipe(&ends) == 0)
        write(ends[1], "echo from a pipe\roff\r", 21)
        close(ends[1])
        defer { close(ends[0]) }
        let result = try HoverProcess.run(["run", "--timeout", "40s"], input: .descriptor(ends[0]))
        #expect(result.status == 0, "\(result.errors)")
        #expect(result.output.contains("\r\nfrom a pipe\r\n"), "\(result.output)")
        #expect(result.complaints.isEmpty, "\(result.errors)")
    }

    @Test func outputIsAppendedToWhatIsThere() throws {
        let path = scratch.file("log", Array("before\n".utf8))
        let descriptor = open(path, O_WRONLY | O_APPEND | O_CLOEXEC)
        defer { close(descriptor) }
        let result = try HoverProcess.run(["run", "--timeout", "3s"], output: .descriptor(descriptor))
        #expect(result.status == ExitStatus.timedOut.rawValue)
        #expect(try contents("log").hasPrefix("before\n"))
        #expect(try contents("log").contains("Windhover"))
    }

    @Test func statisticsReplaceWhatWasThere() throws {
        scratch.file("numbers", [UInt8](repeating: 0x78, count: 100_000))
        let result = try HoverProcess.run(["run", "--timeout", "500ms", "--stats", "numbers"], in: scratch.path)
        #expect(result.status == ExitStatus.timedOut.rawValue)
        let numbers = try contents("numbers")
        #expect(numbers.hasPrefix("{") && numbers.hasSuffix("}\n"))
        for key in [
            "engine", "engineReason", "outcome", "exitStatus", "microsecondsToFirstInstruction", "wallSeconds", "exits",
            "instructions", "residentKiBOutsideGuestMemory",
        ] { #expect(numbers.contains("\"\(key)\" :"), "\(key)") }
    }

    private func contents(_ name: String) throws -> String {
        let descriptor = open(scratch.path + "/" + name, O_RDONLY | O_CLOEXEC)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        let count = read(descriptor, &buffer, buffer.count)
        return String(decoding: buffer.prefix(max(0, count)), as: UTF8.self)
    }
}
