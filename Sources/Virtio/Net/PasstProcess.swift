internal import CHost
internal import Glibc

/// A running passt: started with one end of a socket pair, ended with this object at the latest, and never left a zombie.
///
/// passt takes no privileges with it: as root it changes to the user nobody by itself.
///
/// Not synchronised.
final class PasstProcess: @unchecked Sendable {
    /// Our end of the pair: a stream of frames.
    let socket: Int32
    private var child: pid_t
    private var errors: Int32

    /// Where in the child its end of the pair is.
    private static let childSocket: Int32 = 3

    /// - Parameter arguments: beside those that every one of ours has.
    /// - Throws: `notInstalled`, or `host`.
    init(program: String = "passt", arguments: [String]) throws(PasstError) {
        // passt's end blocks, as it expects; ours is never waited on. Both close on exec: the child gets a copy.
        var pair: [Int32] = [-1, -1]
        guard unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &pair) == 0 else {
            throw .host(call: "socketpair", errno: errno)
        }
        var pipe: [Int32] = [-1, -1]
        let code = unsafe chost_pipe(&pipe)
        guard code == 0 else {
            for descriptor in pair { close(descriptor) }
            throw .host(call: "pipe", errno: -code)
        }
        // Above the numbers that the child's own are put at. What passt says when the pipe is full is lost, not waited for.
        let theirs = fcntl(pair[1], F_DUPFD_CLOEXEC, 10)
        let theirErrors = fcntl(pipe[1], F_DUPFD_CLOEXEC, 10)
        close(pair[1])
        close(pipe[1])
        defer {
            close(theirs)
            close(theirErrors)
        }
        _ = fcntl(theirErrors, F_SETFL, O_NONBLOCK)
        _ = fcntl(pipe[0], F_SETFL, O_NONBLOCK)
        let fixed = [program, "--foreground", "--quiet", "--fd", String(Self.childSocket)]
        let (started, result) = Self.spawn(fixed + arguments, socket: theirs, errors: theirErrors)
        guard result == 0 else {
            close(pair[0])
            close(pipe[0])
            throw result == ENOENT ? .notInstalled(program) : .host(call: "posix_spawn", errno: result)
        }
        child = started
        socket = pair[0]
        errors = pipe[0]
    }

    private static func spawn(_ words: [String], socket: Int32, errors: Int32) -> (pid_t, Int32) {
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        unsafe posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
        unsafe posix_spawn_file_actions_adddup2(&actions, errors, 2)
        unsafe posix_spawn_file_actions_adddup2(&actions, socket, childSocket)

        // Our threads block signals, which the child would inherit; then nothing but SIGKILL could end it. Ctrl-C is for us.
        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        var mask = sigset_t()
        unsafe sigemptyset(&mask)
        unsafe posix_spawnattr_setsigmask(&attributes, &mask)
        unsafe posix_spawnattr_setpgroup(&attributes, 0)
        unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP))

        var arguments = unsafe words.map { unsafe strdup($0) } + [nil]
        defer { for unsafe pointer in unsafe arguments { unsafe free(pointer) } }
        var child: pid_t = 0
        let code = unsafe posix_spawnp(&child, words[0], &actions, &attributes, &arguments, environ)
        return (child, code)
    }

    /// The child's number while there is one.
    var identifier: Int32? { child > 0 ? child : nil }

    /// The last that it has said of what is wrong: up to 2 KiB, one line after the other.
    func messages() -> String {
        guard errors >= 0 else { return "" }
        // As much as a pipe holds.
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let count = unsafe read(errors, &buffer, buffer.count)
        guard count > 0 else { return "" }
        let lines = String(decoding: buffer[..<count].suffix(2048), as: UTF8.self).split(separator: "\n")
        // What it says in every run, and what it says of a log that is not there.
        return lines.filter { !$0.hasPrefix("Don't run as root") && !$0.hasSuffix("to syslog") }.joined(separator: "\n")
    }

    /// Asks it to end, without waiting.
    func terminate() { if child > 0 { kill(child, SIGTERM) } }

    /// Does not ask.
    func kill() { if child > 0 { kill(child, SIGKILL) } }

    /// - Returns: whether it has ended and is out of the process table.
    func reap() -> Bool {
        guard child > 0 else { return true }
        var status: Int32 = 0
        let result = unsafe waitpid(child, &status, WNOHANG)
        guard result == child || (result < 0 && errno == ECHILD) else { return false }
        child = 0
        return true
    }

    private func kill(_ child: pid_t, _ signal: Int32) { _ = Glibc.kill(child, signal) }

    deinit {
        if errors >= 0 { close(errors) }
        guard !reap() else { return }
        terminate()
        // It ends within a millisecond or two; what does not is made to.
        for attempt in 0..<100 where child > 0 {
            if attempt == 50 { kill() }
            usleep(1000)
            _ = reap()
        }
    }
}
