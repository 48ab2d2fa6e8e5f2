internal import CHost
internal import Glibc
internal import VMCore

/// The process that runs one target, with what it prints. Not thread-safe.
///
/// It leads a process group of its own: Ctrl-C at the terminal is not the children's, and what a child leaves behind goes
/// with its group.
final class TestChild {
    /// An errno of making it.
    struct Failure: Error, Hashable {
        var errno: Int32
    }

    /// How long a killed child's pipe is read on: what is in it already, and not what a process that got away adds.
    private static let readLimit = 1 << 20

    let process: pid_t
    /// The pipe that both output streams go into; -1 once every writer has closed it.
    private(set) var descriptor: Int32
    private(set) var output: OutputTail
    /// The last line that began as this program's own messages do, without that beginning.
    private(set) var complaint: String?
    private var line: [UInt8] = []
    /// nil while it runs; then its exit status, or 128 and the signal's number.
    private(set) var status: Int32?
    private var isReaped = false

    private static let complaintStart = Array("hover: ".utf8)
    private static let lineLimit = 1024

    /// Starts a program with its arguments, standard input from /dev/null, in a working directory.
    ///
    /// - Parameter outputLimit: the most bytes of its output that are kept.
    init(_ words: [String], in directory: String, outputLimit: Int) throws(Failure) {
        var ends: [Int32] = [-1, -1]
        let code = unsafe chost_pipe(&ends)
        guard code == 0 else { throw Failure(errno: -code) }
        // Reading never waits; writing is the child's, which may.
        _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)
        defer { close(ends[1]) }

        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        unsafe posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
        unsafe posix_spawn_file_actions_adddup2(&actions, ends[1], 2)
        unsafe _ = chost_spawn_chdir(&actions, directory)

        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        var mask = sigset_t()
        unsafe sigemptyset(&mask)
        unsafe posix_spawnattr_setsigmask(&attributes, &mask)
        unsafe posix_spawnattr_setpgroup(&attributes, 0)
        // Ignored here, where a reader that went away must not end the runs in disorder.
        var pipe = sigset_t()
        unsafe sigemptyset(&pipe)
        unsafe sigaddset(&pipe, SIGPIPE)
        unsafe posix_spawnattr_setsigdefault(&attributes, &pipe)
        unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF))

        var arguments = unsafe words.map { unsafe strdup($0) } + [nil]
        defer { for unsafe pointer in unsafe arguments { unsafe free(pointer) } }
        var child: pid_t = 0
        let error = unsafe posix_spawn(&child, words[0], &actions, &attributes, &arguments, environ)
        guard error == 0 else {
            close(ends[0])
            throw Failure(errno: error)
        }
        process = child
        descriptor = ends[0]
        output = OutputTail(limit: outputLimit)
    }

    deinit {
        end(by: SIGKILL)
        if !isReaped { _ = waitpid(process, nil, 0) }
        closePipe()
    }

    private func closePipe() {
        if descriptor >= 0 { close(descriptor) }
        descriptor = -1
    }

    /// Sends a signal: SIGKILL to all of its group, another to itself alone, which ends what it has started in its own order.
    func end(by signal: Int32) {
        guard !isReaped else { return }
        kill(signal == SIGKILL ? -process : process, signal)
    }

    /// Reads what is there.
    ///
    /// - Parameter limit: the most bytes, so that no child keeps others waiting.
    /// - Returns: the bytes.
    func read(limit: Int) -> [UInt8] {
        var all: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while descriptor >= 0, all.count < limit {
            let count = unsafe Glibc.read(descriptor, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            if count < 0 && errno == EAGAIN { break }
            guard count > 0 else {
                closePipe()
                break
            }
            output.append(buffer[..<count])
            watchForComplaints(buffer[..<count])
            all += buffer[..<count]
        }
        return all
    }

    private func watchForComplaints(_ bytes: ArraySlice<UInt8>) {
        for byte in bytes {
            if byte != UInt8(ascii: "\n") {
                if line.count < Self.lineLimit { line.append(byte) }
                continue
            }
            if line.starts(with: Self.complaintStart) { complaint = text(line.dropFirst(Self.complaintStart.count)) }
            line.removeAll(keepingCapacity: true)
        }
    }

    private func text(_ line: ArraySlice<UInt8>) -> String {
        let text = PlainText.line(line)
        // Lines that it announces are with the rest of the output.
        guard text.hasSuffix(":"), let clause = text.lastIndex(of: ";") else { return text }
        return String(text[..<clause])
    }

    /// Sees whether it has ended. What it started and left is killed then.
    ///
    /// - Returns: what was still to be read; nil while it runs.
    func reap() -> [UInt8]? {
        var ending: Int32 = 0
        var facts = unsafe siginfo_t()
        // Looked at before it is taken away: while it is a zombie, its number is nobody else's.
        guard unsafe waitid(P_PID, id_t(process), &facts, WEXITED | WNOHANG | WNOWAIT) == 0, unsafe facts._sifields._sigchld.si_pid == process
        else { return nil }
        kill(-process, SIGKILL)
        unsafe _ = waitpid(process, &ending, 0)
        isReaped = true
        status = ShellStatus.child(ending)
        let rest = read(limit: Self.readLimit)
        closePipe()
        if line.starts(with: Self.complaintStart) { complaint = text(line.dropFirst(Self.complaintStart.count)) }
        return rest
    }
}
