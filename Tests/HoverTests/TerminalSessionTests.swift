import Glibc
import Testing
import Windhover

/// The built-in guest at a terminal, as a person meets it, and every way out of it.
@Suite(.serialized) struct TerminalSessionTests {
    func session(_ options: [String] = [], typing early: String = "", variables: [String: String] = [:]) throws -> TerminalSession {
        return try TerminalSession(["run", "--memory", "64M", "--timeout", "60s"] + options, typing: early, variables: variables)
    }

    @Test func aConversation() throws {
        let session = try session()
        try #require(session.expect("\r\n> "), "\(session.text)")
        #expect(session.isRaw)
        session.type("echo a word\r")
        #expect(session.expect("\r\na word\r\n> "), "\(session.text)")
        // A Ctrl-C is the guest's.
        session.type("half a line\u{3}")
        #expect(session.expect("^C"), "\(session.text)")
        session.type("off\r")
        #expect(session.end() == 0, "\(session.text)")
        #expect(session.isCooked)
        #expect(session.text.hasSuffix("Good-bye.\r\n"), "\(session.text)")
    }

    @Test func theEscapeKey() throws {
        let session = try session()
        try #require(session.expect("\r\n> "), "\(session.text)")
        session.type("\u{1}?")
        #expect(session.expect("Ctrl-A x       leave"), "\(session.text)")
        // Ctrl-A twice is one for the guest, which does nothing with it; the x is a letter then.
        session.type("\u{1}\u{1}x")
        session.type("\u{8}echo on\r")
        #expect(session.expect("\r\non\r\n> "), "\(session.text)")
        // The escape and its letter, typed apart.
        session.type("\u{1}")
        usleep(300_000)
        #expect(session.isRaw)
        session.type("x")
        #expect(session.end() == 0, "\(session.text)")
        #expect(session.isCooked)
    }

    /// An eighth of the memory at a time, and an eighth stays; this guest has no driver that would heed it.
    @Test func theEscapeKeyMovesTheMemoryTarget() throws {
        let session = try session(["--memory-target", "24M"])
        try #require(session.expect("\r\n> "), "\(session.text)")
        for (key, words) in [("-", "16 MiB of 64 MiB"), ("-", "8 MiB"), ("-", "8 MiB"), ("+", "16 MiB"), ("+", "24 MiB")] {
            session.type("\u{1}" + key)
            #expect(session.expect("Windhover: the guest is to make do with \(words)"), "\(session.text)")
        }
        session.type("off\r")
        #expect(session.end() == 0, "\(session.text)")
    }

    @Test func withoutABalloonTheEscapeKeySaysSo() throws {
        let session = try session()
        try #require(session.expect("\r\n> "), "\(session.text)")
        session.type("\u{1}-")
        #expect(session.expect("--balloon gives it"), "\(session.text)")
        session.type("\u{1}x")
        #expect(session.end() == 0, "\(session.text)")
    }

    @Test func theEscapeKeyReachesTheBoard() throws {
        let scratch = Scratch()
        // Says P for a press of the power button, bit 8 of PM1's status, and B for a break, bit 4 of the line status.
        let watcher = scratch.file(
            "watcher.bin",
            [
                0xFA,  // cli, by which such an image is known
                0xBA, 0x00, 0x06,  // mov dx, 0x600
                0xED,  // in ax, dx
                0xF6, 0xC4, 0x01,  // test ah, 1
                0x74, 0x0A,  // jz to the line status
                0xB8, 0x00, 0x01, 0xEF,  // mov ax, 0x100; out dx, ax
                0xBA, 0xF8, 0x03, 0xB0, 0x50, 0xEE,  // mov dx, 0x3F8; mov al, 'P'; out dx, al
                0xBA, 0xFD, 0x03, 0xEC,  // mov dx, 0x3FD; in al, dx
                0xA8, 0x10, 0x74, 0xE5,  // test al, 0x10; jz to the start
                0xBA, 0xF8, 0x03, 0xB0, 0x42, 0xEE,  // mov dx, 0x3F8; mov al, 'B'; out dx, al
                0xEB, 0xDD,  // jmp to the start
            ])
        let session = try session([watcher])
        let end = time(nil) + 20
        while !session.isRaw, time(nil) < end { usleep(10_000) }
        try #require(session.isRaw)
        session.type("\u{1}p")
        #expect(session.expect("P"), "\(session.text)")
        session.type("\u{1}b")
        #expect(session.expect("B"), "\(session.text)")
        session.type("\u{1}x")
        #expect(session.end() == 0, "\(session.text)")
    }

    /// A guest that resets starts from the file that it started from, whatever has become of its name.
    @Test func aResetNeedsNoName() throws {
        let scratch = Scratch()
        // Prints r, waits, and resets by port 0xCF9.
        let resetter = scratch.file(
            "resetter.bin",
            [
                0xFA, 0xBA, 0xF8, 0x03, 0xB0, 0x72, 0xEE, 0xB9, 0xFF, 0xFF, 0xE2, 0xFE, 0xBA, 0xF9, 0x0C, 0xB0, 0x06, 0xEE, 0xF4, 0xEB,
                0xFD,
            ])
        let session = try session([resetter])
        try #require(session.expect("r"), "\(session.text)")
        unlink(resetter)
        #expect(session.expect(String(repeating: "r", count: 30)), "\(session.text)")
        session.type("\u{1}x")
        #expect(session.end() == 0, "\(session.text)")
    }

    /// A panic is seen in what the guest sends, though nobody reads it and it is lost for want of room.
    @Test func aPanicIsSeenBehindAReaderThatStalls() throws {
        let scratch = Scratch()
        // 200,000 characters, more than a pipe and hover hold, then the panic's line, never asking whether there is room; a reset.
        let panicker = scratch.file(
            "panicker.bin",
            [
                0xFA, 0xBA, 0xF8, 0x03, 0x66, 0xB9, 0x40, 0x0D, 0x03, 0x00, 0xB0, 0x78, 0xEE, 0x66, 0x49, 0x75, 0xFB, 0xB0, 0x0A, 0xEE,
                0xE8, 0x00, 0x00, 0x5E, 0x83, 0xC6, 0x16, 0x2E, 0xAC, 0x84, 0xC0, 0x74, 0x03, 0xEE, 0xEB, 0xF7,
                0xBA, 0xF9, 0x0C, 0xB0, 0x06, 0xEE, 0xF4, 0xEB, 0xFD,
            ] + Array("Kernel panic - not syncing: unheard\n\0".utf8))
        let result = try HoverProcess.run(
            ["run", "--memory", "64M", "--no-reboot", "--timeout", "60s", panicker],
            through: ["/bin/bash", "-c", "\"$0\" \"$@\" | sleep 5; exit ${PIPESTATUS[0]}"])
        #expect(result.status == ExitStatus.guestPanicked.rawValue, "\(result.errors)")
        #expect(result.errors.contains("Kernel panic - not syncing: unheard"), "\(result.errors)")
    }

    /// A guest that never looks at its serial port does not keep the keyboard from being heard.
    @Test func theEscapeKeyBehindWhatAGuestDoesNotRead() throws {
        let scratch = Scratch()
        // cli; hlt; jmp to the hlt.
        let deaf = scratch.file("deaf.bin", [0xFA, 0xF4, 0xEB, 0xFD])
        let session = try session([deaf])
        let end = time(nil) + 20
        while !session.isRaw, time(nil) < end { usleep(10_000) }
        try #require(session.isRaw)
        session.type(String(repeating: "typed at nobody\r", count: 300))
        usleep(300_000)
        session.type("\u{1}?")
        #expect(session.expect("Ctrl-A x       leave"), "\(session.text)")
        session.type("\u{1}x")
        #expect(session.end() == 0, "\(session.text)")
        #expect(session.isCooked)
    }

    @Test func whatIsTypedEarlyIsNotLost() throws {
        // Before the program has even started, the terminal is in its own mode and ends lines by line feeds.
        let session = try session(typing: "echo typed early\r")
        #expect(session.expect("\ntyped early\r\n"), "\(session.text)")
        session.type("off\r")
        #expect(session.end() == 0)
    }

    @Test(arguments: [SIGTERM, SIGINT, SIGHUP, SIGQUIT])
    func aSignalEndsItInOrder(signal: Int32) throws {
        let scratch = Scratch()
        let session = try session(["--stats", scratch.path + "/stats"])
        try #require(session.expect("\r\n> "), "\(session.text)")
        kill(session.process, signal)
        #expect(session.end() == 128 + signal, "\(session.text)")
        #expect(session.isCooked)
        // The numbers are those of a run that ended.
        #expect(scratch.contents.first.map { !$0.hasSuffix(" 0") } == true)
    }

    @Test(arguments: [SIGKILL, SIGSEGV, SIGABRT])
    func aViolentEndGivesTheTerminalBack(signal: Int32) throws {
        // The language's backtracer would wait for a key.
        let session = try session(variables: ["SWIFT_BACKTRACE": "enable=no"])
        try #require(session.expect("\r\n> "), "\(session.text)")
        #expect(session.isRaw)
        kill(session.process, signal)
        #expect(session.end() == 128 + signal)
        #expect(session.eventually { session.isCooked })
    }

    /// Under a shell that does job control, as people's shells do.
    @Test func stoppedAndContinued() throws {
        let inner = "echo process $$.; exec \"$@\""
        let script = "set -m; sh -c '\(inner)' sh \"$@\"; echo stopped with $?; read -r line; fg >/dev/null; echo ended with $?"
        let session = try TerminalSession(
            ["run", "--memory", "64M", "--timeout", "60s"], through: ["bash", "-c", script, "bash"])
        try #require(session.expect("\r\n> "), "\(session.text)")
        #expect(session.isRaw)
        let digits = session.text.split(separator: " ").dropFirst().first.map { $0.prefix { $0.isNumber } }
        kill(try #require(digits.flatMap { pid_t($0) }), SIGTSTP)
        #expect(session.expect("stopped with \(128 + SIGTSTP)"), "\(session.text)")
        #expect(session.isCooked)
        session.type("\n")
        #expect(session.eventually { session.isRaw })
        session.type("echo back again\r")
        #expect(session.expect("\r\nback again\r\n"), "\(session.text)")
        session.type("\u{1}x")
        #expect(session.expect("ended with 0"), "\(session.text)")
        #expect(session.isCooked)
        #expect(session.end() == 0)
    }

    /// Where no shell watches, the host's kernel does not let a process stop: it must not be left with a cooked terminal.
    @Test func aStopThatDoesNotHappen() throws {
        let session = try session()
        try #require(session.expect("\r\n> "), "\(session.text)")
        kill(session.process, SIGTSTP)
        session.type("echo still raw\r")
        #expect(session.expect("\r\nstill raw\r\n"), "\(session.text)")
        #expect(session.isRaw)
        session.type("\u{1}x")
        #expect(session.end() == 0)
    }

    @Test func aChangeOfSizeHarmsNothing() throws {
        let session = try session()
        try #require(session.expect("\r\n> "), "\(session.text)")
        for _ in 0..<20 { kill(session.process, SIGWINCH) }
        session.type("echo unharmed\r")
        #expect(session.expect("\r\nunharmed\r\n"), "\(session.text)")
        session.type("\u{1}x")
        #expect(session.end() == 0)
    }

    @Test func aTerminalThatGoesAwayEndsIt() throws {
        let session = try session()
        try #require(session.expect("\r\n> "), "\(session.text)")
        session.hangUp()
        #expect(session.end(limit: 20) == 128 + SIGHUP)
    }

    @Test func theTimeLimitGivesTheTerminalBack() throws {
        let session = try TerminalSession(["run", "--memory", "64M", "--timeout", "2s"])
        #expect(session.end() == ExitStatus.timedOut.rawValue)
        #expect(session.isCooked)
        #expect(session.text.contains("hover: the guest was stopped"), "\(session.text)")
        // On a terminal that is raw no more, the line starts at its left edge.
        #expect(session.text.hasSuffix("(--timeout)\r\n"))
    }

    @Test func aCrashShowsTheRegistersOnACookedTerminal() throws {
        let session = try session()
        try #require(session.expect("\r\n> "), "\(session.text)")
        session.type("panic\r")
        #expect(session.end() == ExitStatus.guestCrashed.rawValue, "\(session.text)")
        #expect(session.isCooked)
        #expect(session.text.contains("triple fault"), "\(session.text)")
        #expect(session.text.contains("rip "), "\(session.text)")
        // Every line feed has its carriage return.
        let bytes = session.shown
        for index in bytes.indices.dropFirst() where bytes[index] == 10 { #expect(bytes[index - 1] == 13) }
    }

    @Test func aBadKernelNeverTouchesTheMode() throws {
        let session = try TerminalSession(["run", "--kernel", "/nonexistent"])
        #expect(session.end() == ExitStatus.noSuchFile.rawValue)
        #expect(session.isCooked)
    }

    @Test func coloursOnlyWhereTheyAreWanted() throws {
        for (variables, coloured) in [
            (["TERM": "xterm", "NO_COLOR": ""], true), (["TERM": "xterm", "NO_COLOR": "1"], false),
            (["TERM": "dumb", "NO_COLOR": ""], false),
        ] {
            let session = try TerminalSession(["doctor"], variables: variables)
            #expect(session.end() != nil)
            #expect(session.text.contains("\u{1B}[") == coloured, "\(variables)")
            // Wrapped to the terminal, marks aside.
            for line in session.text.split(separator: "\r\n") where !coloured { #expect(line.count <= 97, "\(line)") }
        }
    }
}
