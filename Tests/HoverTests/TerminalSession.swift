import CHost
import Glibc
import Testing

/// `hover` on a pseudo-terminal of its own, with a person's end to type at and read from.
final class TerminalSession {
    private var person: Int32 = -1
    /// A second reference to the terminal, so that its mode can be read whatever `hover` does.
    private var terminal: Int32 = -1
    let process: pid_t
    /// Everything shown so far, and how much of it `expect` has passed.
    private(set) var shown: [UInt8] = []
    private var passed = 0
    private var isOver = false

    init(_ arguments: [String], through: [String] = [], typing early: String = "", variables: [String: String] = [:]) throws {
        var size = winsize(ws_row: 31, ws_col: 97, ws_xpixel: 0, ws_ypixel: 0)
        var name = [CChar](repeating: 0, count: 128)
        try #require(openpty(&person, &terminal, &name, nil, &size) == 0)
        _ = fcntl(person, F_SETFD, FD_CLOEXEC)
        _ = fcntl(terminal, F_SETFD, FD_CLOEXEC)
        if !early.isEmpty { _ = write(person, early, early.utf8.count) }

        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        // The first terminal that a session's leader opens becomes its controlling one.
        posix_spawn_file_actions_addopen(&actions, 0, name, O_RDWR, 0)
        posix_spawn_file_actions_adddup2(&actions, 0, 1)
        posix_spawn_file_actions_adddup2(&actions, 0, 2)
        process = try HoverProcess.spawn(
            through + [HoverProcess.path] + arguments, variables: variables, actions: &actions, inNewSession: true)
    }

    deinit {
        if !isOver {
            kill(process, SIGKILL)
            _ = HoverProcess.wait(for: process, limit: 5)
        }
        hangUp()
    }

    /// The person's end goes away, as when a window is closed.
    func hangUp() {
        if person >= 0 { close(person) }
        if terminal >= 0 { close(terminal) }
        person = -1
        terminal = -1
    }

    func type(_ text: String) { _ = write(person, text, text.utf8.count) }

    var text: String { String(decoding: shown, as: UTF8.self) }

    /// Reads on until `words` are shown behind what was expected before.
    /// - Returns: whether they came within the limit, in seconds.
    func expect(_ words: String, limit: Int = 30) -> Bool {
        let wanted = Array(words.utf8)
        let deadline = time(nil) + limit
        while true {
            if let place = find(wanted) {
                passed = place + wanted.count
                return true
            }
            guard time(nil) <= deadline, readOn(milliseconds: 200) else { return false }
        }
    }

    private func find(_ wanted: [UInt8]) -> Int? {
        guard shown.count >= passed + wanted.count else { return nil }
        return (passed...shown.count - wanted.count).first { shown[$0] == wanted[0] && shown[$0...].starts(with: wanted) }
    }

    /// - Returns: false at the terminal's end.
    @discardableResult
    private func readOn(milliseconds: Int32) -> Bool {
        var ready = pollfd(fd: person, events: Int16(POLLIN), revents: 0)
        guard poll(&ready, 1, milliseconds) > 0 else { return true }
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = read(person, &buffer, buffer.count)
        guard count > 0 else { return false }
        shown += buffer[..<count]
        return true
    }

    /// Waits for the end, reading on.
    /// - Returns: the exit status, or 128 and the signal's number; nil where it had to be killed.
    func end(limit: Int = 30) -> Int32? {
        let deadline = time(nil) + limit
        var ending: Int32 = 0
        while waitpid(process, &ending, WNOHANG) != process {
            if time(nil) > deadline { return nil }
            if person >= 0 { readOn(milliseconds: 20) } else { usleep(20_000) }
        }
        isOver = true
        if person >= 0 { readOn(milliseconds: 20) }
        let signal = ending & 0x7F
        return signal == 0 ? ending >> 8 & 0xFF : 128 + signal
    }

    private var mode: termios {
        var mode = termios()
        tcgetattr(terminal, &mode)
        return mode
    }

    private static let cookedLocal = tcflag_t(ICANON | ECHO | ISIG | IEXTEN)
    /// Whether a shell would find the terminal as it left it.
    var isCooked: Bool {
        mode.c_lflag & Self.cookedLocal == Self.cookedLocal && mode.c_oflag & tcflag_t(OPOST) != 0
            && mode.c_iflag & tcflag_t(ICRNL) != 0
    }
    var isRaw: Bool {
        mode.c_lflag & Self.cookedLocal == 0 && mode.c_oflag & tcflag_t(OPOST) == 0 && mode.c_iflag & tcflag_t(ICRNL) == 0
    }

    /// Waits, at most five seconds, until something holds.
    func eventually(_ condition: () -> Bool) -> Bool {
        for _ in 0..<500 {
            if condition() { return true }
            usleep(10_000)
        }
        return false
    }
}
