internal import CHost
import VMCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A program of the host's, run to its end.
struct HostCommand {
    /// What it left.
    struct Result {
        /// Exit status; 128 plus the signal's number where a signal ended it.
        var status: Int32
        /// Standard output, up to `outputLimit` bytes.
        var output: [UInt8]
        /// Standard error, up to 64 KiB.
        var errors: [UInt8]

        var text: String { String(decoding: output, as: UTF8.self) }
        var errorText: String { String(decoding: errors, as: UTF8.self) }
        /// Whether Ctrl-C ended it.
        var interrupted: Bool { status == ShellStatus.signal(SIGINT) }
    }

    enum Failure: Error, Hashable {
        /// No such program on the search path.
        case notFound(String)
        /// The host's reason.
        case host(call: String, errno: Int32)
    }

    private static let errorLimit = 64 << 10

    /// The program, found on PATH, and its arguments.
    let words: [String]
    var workingDirectory: String?
    var outputLimit = 4 << 20
    /// Asked twice a second, and after each signal: true ends the program by `cancellationSignal`.
    var isCancelled: () -> Bool = { false }
    var cancellationSignal = SIGTERM
    /// Gets what the program writes to standard error, as it comes and all of it.
    var onErrors: (([UInt8]) -> Void)?
    /// Gets what the program writes to descriptor 3, as it comes; nil leaves 3 closed.
    var onStatus: (([UInt8]) -> Void)?

    init(_ words: [String]) { self.words = words }

    /// Runs it with standard input from /dev/null and messages in English, and waits for its end.
    ///
    /// What it prints past the limits is read and dropped, so that it never stalls.
    func run() throws(Failure) -> Result {
        let output = try Pipe()
        let errors = try Pipe()
        let status = try onStatus == nil ? nil : Pipe()

        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        unsafe posix_spawn_file_actions_adddup2(&actions, output.writeEnd.number, 1)
        unsafe posix_spawn_file_actions_adddup2(&actions, errors.writeEnd.number, 2)
        if let status { unsafe posix_spawn_file_actions_adddup2(&actions, status.writeEnd.number, 3) }
        if let workingDirectory { unsafe chost_spawn_chdir(&actions, workingDirectory) }

        // Threads of a caller's may block signals, which a program would inherit; then nothing could end it.
        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        var mask = sigset_t()
        unsafe sigemptyset(&mask)
        unsafe posix_spawnattr_setsigmask(&attributes, &mask)
        unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))

        var arguments = unsafe words.map { unsafe strdup($0) } + [nil]
        var variables = unsafe Self.environment().map { unsafe strdup($0) } + [nil]
        defer {
            for unsafe pointer in unsafe arguments + variables { unsafe free(pointer) }
        }
        var child: pid_t = 0
        var code = unsafe posix_spawnp(&child, words[0], &actions, &attributes, &arguments, &variables)
        // A program unpacked just now counts as busy while a child that another thread forked meanwhile has yet to exec:
        // it holds a copy of the descriptor that wrote it.
        for _ in 0..<100 where code == ETXTBSY {
            usleep(5000)
            code = unsafe posix_spawnp(&child, words[0], &actions, &attributes, &arguments, &variables)
        }
        guard code == 0 else {
            throw code == ENOENT ? .notFound(words[0]) : .host(call: "posix_spawn", errno: code)
        }
        output.writeEnd.end()
        errors.writeEnd.end()
        status?.writeEnd.end()

        var result = Result(status: 0, output: [], errors: [])
        drain(output.readEnd, errors.readEnd, status?.readEnd, of: child, into: &result)

        var ending: Int32 = 0
        while unsafe waitpid(child, &ending, 0) < 0 {
            guard errno == EINTR else { throw .host(call: "waitpid", errno: errno) }
        }
        result.status = ShellStatus.child(ending)
        return result
    }

    /// Reads all pipes until every writer has closed them.
    private func drain(
        _ output: Descriptor, _ errors: Descriptor, _ status: Descriptor?, of child: pid_t, into result: inout Result
    ) {
        var polls = [output, errors, status].map {
            pollfd(fd: $0?.number ?? -1, events: Int16(POLLIN), revents: 0)
        }
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while polls.contains(where: { $0.fd >= 0 }) {
            if isCancelled() { kill(child, cancellationSignal) }
            guard unsafe poll(&polls, nfds_t(polls.count), 500) >= 0 else {
                if errno == EINTR { continue }
                return
            }
            for index in polls.indices where polls[index].fd >= 0 && polls[index].revents != 0 {
                let count = unsafe read(polls[index].fd, &buffer, buffer.count)
                if count < 0 && errno == EINTR { continue }
                guard count > 0 else {
                    polls[index].fd = -1
                    continue
                }
                let bytes = buffer[..<count]
                switch index {
                case 0: result.output.append(contentsOf: bytes.prefix(max(0, outputLimit - result.output.count)))
                case 1:
                    onErrors?(Array(bytes))
                    result.errors.append(contentsOf: bytes.prefix(max(0, Self.errorLimit - result.errors.count)))
                default: onStatus?(Array(bytes))
                }
            }
        }
    }

    /// This process's environment, with the words of other programs in English and UTF-8.
    private static func environment() -> [String] {
        var variables = ["LC_ALL=C.UTF-8"]
        var next = unsafe environ
        while let variable = unsafe next.pointee {
            let text = unsafe String(cString: variable)
            if !text.hasPrefix("LC_ALL=") && !text.hasPrefix("LANGUAGE=") { variables.append(text) }
            unsafe next += 1
        }
        return variables
    }

    /// An open descriptor, closed with its last reference.
    private final class Descriptor {
        private(set) var number: Int32
        init(_ number: Int32) { self.number = number }
        func end() {
            if number >= 0 { close(number) }
            number = -1
        }
        deinit { end() }
    }

    private struct Pipe {
        let readEnd: Descriptor
        let writeEnd: Descriptor

        init() throws(Failure) {
            var ends: [Int32] = [-1, -1]
            let code = unsafe chost_pipe(&ends)
            guard code == 0 else { throw .host(call: "pipe", errno: -code) }
            readEnd = Descriptor(ends[0])
            // Above the numbers the child's own are put at, so that none overwrites another.
            writeEnd = Descriptor(fcntl(ends[1], F_DUPFD_CLOEXEC, 10))
            close(ends[1])
            guard writeEnd.number >= 0 else { throw .host(call: "fcntl", errno: errno) }
        }
    }
}

extension HostCommand.Failure: CustomStringConvertible {
    var description: String {
        switch self {
        case .notFound(let program): "this host has no \(program)"
        case .host(let call, let code): "\(call) failed: \(HostError.message(code))"
        }
    }
}
