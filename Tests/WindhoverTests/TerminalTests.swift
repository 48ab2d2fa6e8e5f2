import CHost
import Glibc
import Synchronization
import Testing

@testable import Windhover

/// A process has one terminal in raw mode, so these take turns.
@Suite(.serialized) struct TerminalTests {
    /// A pseudo-terminal: what the guest's user types at, and the end this process has.
    final class PseudoTerminal {
        let user: Int32
        let ours: Int32

        init() throws {
            var user: Int32 = -1
            var ours: Int32 = -1
            var size = winsize(ws_row: 31, ws_col: 97, ws_xpixel: 0, ws_ypixel: 0)
            try #require(openpty(&user, &ours, nil, nil, &size) == 0)
            self.user = user
            self.ours = ours
        }

        deinit {
            close(user)
            close(ours)
        }

        var mode: termios {
            var mode = termios()
            tcgetattr(ours, &mode)
            return mode
        }

        var isCooked: Bool {
            mode.c_lflag & tcflag_t(ICANON | ECHO | ISIG) == tcflag_t(ICANON | ECHO | ISIG)
                && mode.c_oflag & tcflag_t(OPOST) != 0
        }

        func readByte() -> UInt8? {
            var byte: UInt8 = 0
            var polls = [pollfd(fd: ours, events: Int16(POLLIN), revents: 0)]
            guard poll(&polls, 1, 5000) == 1, read(ours, &byte, 1) == 1 else { return nil }
            return byte
        }
    }

    @Test func rawAndBack() throws {
        let terminal = try PseudoTerminal()
        #expect(terminal.isCooked)
        try Terminal.makeRaw(terminal.ours)
        #expect(Terminal.isRaw)
        #expect(terminal.mode.c_lflag & tcflag_t(ICANON | ECHO | ISIG | IEXTEN) == 0)
        #expect(terminal.mode.c_iflag & tcflag_t(ICRNL | IXON) == 0)
        #expect(terminal.mode.c_oflag & tcflag_t(OPOST) == 0)
        // Ctrl-C is a byte like any other.
        var interrupt: UInt8 = 3
        #expect(write(terminal.user, &interrupt, 1) == 1)
        #expect(terminal.readByte() == 3)
        Terminal.restore()
        #expect(!Terminal.isRaw)
        #expect(terminal.isCooked)
        Terminal.restore()
        #expect(terminal.isCooked)
    }

    /// What others print there ends its lines as ever.
    @Test func outputMayStayCooked() throws {
        let terminal = try PseudoTerminal()
        try Terminal.makeRaw(terminal.ours, withOutput: false)
        defer { Terminal.restore() }
        #expect(terminal.mode.c_lflag & tcflag_t(ICANON | ECHO | ISIG) == 0 && terminal.mode.c_oflag & tcflag_t(OPOST) != 0)
        #expect(write(terminal.ours, "a\n", 2) == 2)
        var bytes = [UInt8](repeating: 0, count: 8)
        #expect(read(terminal.user, &bytes, 8) == 3 && bytes.starts(with: Array("a\r\n".utf8)))
    }

    @Test func anotherOwnersModeIsLeftAlone() throws {
        let terminal = try PseudoTerminal()
        try Terminal.makeRaw(terminal.ours)
        var mode = terminal.mode
        mode.c_lflag |= tcflag_t(ISIG)
        tcsetattr(terminal.ours, TCSANOW, &mode)
        Terminal.restore()
        #expect(terminal.mode.c_lflag & tcflag_t(ICANON | ECHO | ISIG) == tcflag_t(ISIG))
    }

    /// Who reads the same terminal may be faster, with what was there a moment ago.
    @Test(.timeLimit(.minutes(1))) func anotherReaderDoesNotHoldTheEndUp() throws {
        let terminal = try PseudoTerminal()
        try Terminal.makeRaw(terminal.ours)
        defer { Terminal.restore() }
        let rival = open("/proc/self/fd/\(terminal.ours)", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
        final class Flag: Sendable { let isSet = Atomic<Bool>(false) }
        let end = Flag()
        let reader = Background {
            var byte: UInt8 = 0
            while !end.isSet.load(ordering: .relaxed) { _ = read(rival, &byte, 1) }
            return true
        }
        for _ in 0..<500 {
            let input = try TerminalInput(from: terminal.ours) {}
            #expect(write(terminal.user, "x", 1) == 1)
            let ended = Background {
                input.end()
                return true
            }
            try #require(ended.wait(10) == true)
        }
        end.isSet.store(true, ordering: .relaxed)
        #expect(reader.wait() == true)
        close(rival)
    }

    @Test func inputTypedBeforeIsKept() throws {
        let terminal = try PseudoTerminal()
        #expect(write(terminal.user, "hi", 2) == 2)
        try Terminal.makeRaw(terminal.ours)
        defer { Terminal.restore() }
        #expect(terminal.readByte() == UInt8(ascii: "h"))
        #expect(terminal.readByte() == UInt8(ascii: "i"))
    }

    @Test(.timeLimit(.minutes(1))) func theWatcherGivesItBackWhenTheProcessVanishes() throws {
        let terminal = try PseudoTerminal()
        try Terminal.makeRaw(terminal.ours)
        chost_terminal_vanish()
        #expect(terminal.isCooked)
    }

    @Test(.timeLimit(.minutes(1))) func theWatcherLeavesAnotherOwnersModeAlone() throws {
        let terminal = try PseudoTerminal()
        try Terminal.makeRaw(terminal.ours)
        // What a shell that is back at its prompt may have set.
        var mode = terminal.mode
        mode.c_lflag |= tcflag_t(ISIG)
        tcsetattr(terminal.ours, TCSANOW, &mode)
        chost_terminal_vanish()
        #expect(terminal.mode.c_lflag & tcflag_t(ICANON | ECHO | ISIG) == tcflag_t(ISIG))
    }

    @Test func noTerminalIsAnError() throws {
        let descriptor = open("/dev/null", O_RDWR)
        defer { close(descriptor) }
        let error = failure { () throws(Terminal.Failure) in try Terminal.makeRaw(descriptor) }
        #expect(error?.errno == ENOTTY)
        #expect(!Terminal.isRaw)
        #expect(!Terminal.isTerminal(descriptor))
        #expect(Terminal.size(of: descriptor) == nil)
    }

    @Test func size() throws {
        let terminal = try PseudoTerminal()
        #expect(Terminal.isTerminal(terminal.ours))
        #expect(Terminal.size(of: terminal.ours) == Terminal.Size(rows: 31, columns: 97))
    }
}
