import Foundation

/// A program on a pseudo-terminal of its own, with a person's end to type at and read from.
final class TerminalChild {
    struct CannotStart: Error, CustomStringConvertible { var description: String }

    private var person: Int32 = -1
    /// A second reference to the terminal: its mode can be read, and nothing is lost when the program has ended.
    private var terminal: Int32 = -1
    private let process: pid_t
    /// Everything shown so far, and how much of it `expect` has passed.
    private var shown: [UInt8] = []
    private var passed = 0
    private var isOver = false

    init(_ command: [String], rows: UInt16, columns: UInt16) throws {
        var size = winsize(ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0)
        var name = [CChar](repeating: 0, count: 128)
        guard openpty(&person, &terminal, &name, nil, &size) == 0 else { throw CannotStart(description: "no pseudo-terminal: errno \(errno)") }
        for end in [person, terminal] { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        // The first terminal that a session's leader opens becomes its controlling one.
        posix_spawn_file_actions_addopen(&actions, 0, name, O_RDWR, 0)
        posix_spawn_file_actions_adddup2(&actions, 0, 1)
        posix_spawn_file_actions_adddup2(&actions, 0, 2)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // Threads of a pool block signals, which a child would inherit; a user's shell blocks none.
        var mask = sigset_t()
        sigemptyset(&mask)
        posix_spawnattr_setsigmask(&attributes, &mask)
        // POSIX_SPAWN_SETSID is a GNU name, which Swift does not see.
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK) | 0x80)
        var arguments = command.map { strdup($0) } + [nil]
        var variables = ProcessInfo.processInfo.environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { (arguments + variables).forEach { free($0) } }
        var child: pid_t = 0
        let code = posix_spawnp(&child, command[0], &actions, &attributes, &arguments, &variables)
        guard code == 0 else { throw CannotStart(description: "\(command[0]): errno \(code)") }
        process = child
    }

    deinit {
        if !isOver {
            kill(process, SIGKILL)
            waitpid(process, nil, 0)
        }
        close(person)
        close(terminal)
    }

    var text: String { String(decoding: shown, as: UTF8.self) }

    func type(_ text: String) { _ = write(person, text, text.utf8.count) }

    func resize(rows: UInt16, columns: UInt16) {
        var size = winsize(ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0)
        _ = ioctl(person, UInt(TIOCSWINSZ), &size)
    }

    /// Whether a shell would find the terminal as it left it.
    var isCooked: Bool {
        var mode = termios()
        tcgetattr(terminal, &mode)
        let local = tcflag_t(ICANON | ECHO | ISIG | IEXTEN)
        return mode.c_lflag & local == local && mode.c_oflag & tcflag_t(OPOST) != 0 && mode.c_iflag & tcflag_t(ICRNL) != 0
    }

    /// Reads on until `words` are shown behind what was expected before.
    /// - Returns: whether they came in so many seconds.
    func expect(_ words: String, within seconds: Double) -> Bool {
        let wanted = Array(words.utf8)
        let end = ContinuousClock.now + .seconds(seconds)
        while true {
            if shown.count >= passed + wanted.count,
                let place = (passed...shown.count - wanted.count).first(where: { shown[$0...].starts(with: wanted) })
            {
                passed = place + wanted.count
                return true
            }
            guard ContinuousClock.now < end else { return false }
            readOn(milliseconds: 100)
        }
    }

    private func readOn(milliseconds: Int32) {
        var ready = pollfd(fd: person, events: Int16(POLLIN), revents: 0)
        guard poll(&ready, 1, milliseconds) > 0 else { return }
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = read(person, &buffer, buffer.count)
        if count > 0 { shown += buffer[..<count] }
    }

    /// Waits for the end, reading on.
    /// - Returns: the exit status, or 128 and the signal's number; nil where it has not ended in so many seconds.
    func end(within seconds: Double) -> Int32? {
        let limit = ContinuousClock.now + .seconds(seconds)
        var status: Int32 = 0
        while waitpid(process, &status, WNOHANG) != process {
            if ContinuousClock.now > limit { return nil }
            readOn(milliseconds: 20)
        }
        isOver = true
        readOn(milliseconds: 0)
        return status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + (status & 0x7F)
    }
}
