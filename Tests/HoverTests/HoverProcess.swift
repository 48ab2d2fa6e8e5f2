import CHost
import Glibc
import Testing
import Windhover

/// The parser has one of that name, too.
typealias ExitStatus = Windhover.ExitStatus

/// The `hover` that was built beside this test program, run as a user would.
enum HoverProcess {
    /// Its path: the directory of the test bundle, which the runner is told or is itself.
    static let path: String = {
        var places: [String] = []
        let arguments = CommandLine.arguments
        if let flag = arguments.firstIndex(of: "--test-bundle-path"), flag + 1 < arguments.count {
            places.append(arguments[flag + 1])
        }
        var buffer = [CChar](repeating: 0, count: 4096)
        let length = readlink("/proc/self/exe", &buffer, buffer.count)
        places.append(String(decoding: buffer.prefix(max(0, length)).map { UInt8(bitPattern: $0) }, as: UTF8.self))
        for place in places {
            guard let slash = place.lastIndex(of: "/") else { continue }
            let path = place[..<slash] + "/hover"
            if access(String(path), X_OK) == 0 { return String(path) }
        }
        return "hover-is-not-beside-the-test-bundle"
    }()

    /// How it ended, and what it said.
    struct Result {
        /// The exit status, or 128 and the number of the signal that ended it.
        var status: Int32
        var output: String
        var errors: String
        /// Whether it had to be killed, because it did not end by itself.
        var hung = false

        /// The lines of standard error.
        /// Lines of standard error, but for the one that tells which engine this host got.
        var complaints: [String] {
            errors.split(separator: "\n").map(String.init).filter { !$0.hasPrefix("hover: using the interpreter: ") }
        }
    }

    /// What a descriptor of the new process is.
    enum Stream {
        /// A pipe that is read to its end; for standard input, an empty one.
        case pipe
        case closed
        case path(String)
        case descriptor(Int32)
    }

    /// Runs `hover`, or with `through` another program that runs it, and kills it after `limit` seconds.
    static func run(
        _ arguments: [String], through: [String] = [], in directory: String = "/", variables: [String: String] = [:],
        input: Stream = .path("/dev/null"), output: Stream = .pipe, blockingSignals: Bool = false, limit: Int = 60
    ) throws -> Result {
        var ends: [Int32] = [-1, -1, -1, -1]
        try ends.withUnsafeMutableBufferPointer { ends in
            try #require(chost_pipe(ends.baseAddress!) == 0)
            try #require(chost_pipe(ends.baseAddress! + 2) == 0)
        }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        func set(_ number: Int32, _ stream: Stream, pipe: Int32?, flags: Int32) {
            switch stream {
            case .pipe:
                if let pipe { posix_spawn_file_actions_adddup2(&actions, pipe, number) }
            case .closed: posix_spawn_file_actions_addclose(&actions, number)
            case .path(let path): posix_spawn_file_actions_addopen(&actions, number, path, flags, 0o644)
            case .descriptor(let descriptor): posix_spawn_file_actions_adddup2(&actions, descriptor, number)
            }
        }
        set(0, input, pipe: nil, flags: O_RDONLY)
        set(1, output, pipe: ends[1], flags: O_WRONLY)
        posix_spawn_file_actions_adddup2(&actions, ends[3], 2)
        _ = chost_spawn_chdir(&actions, directory)

        let child = try spawn(through + [path] + arguments, variables: variables, actions: &actions, blockingSignals: blockingSignals)
        close(ends[1])
        close(ends[3])
        defer {
            close(ends[0])
            close(ends[2])
        }

        var texts: [[UInt8]] = [[], []]
        var polls = [
            pollfd(fd: ends[0], events: Int16(POLLIN), revents: 0), pollfd(fd: ends[2], events: Int16(POLLIN), revents: 0),
        ]
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let deadline = time(nil) + limit
        var hung = false
        while polls.contains(where: { $0.fd >= 0 }) {
            if time(nil) > deadline, !hung {
                hung = true
                kill(child, SIGKILL)
            }
            guard poll(&polls, 2, 200) > 0 else {
                if hung { break }
                continue
            }
            for index in polls.indices where polls[index].fd >= 0 && polls[index].revents != 0 {
                let count = read(polls[index].fd, &buffer, buffer.count)
                if count > 0 { texts[index] += buffer[..<count] } else { polls[index].fd = -1 }
            }
        }
        let (status, late) = wait(for: child, limit: max(1, deadline - time(nil)))
        return Result(
            status: status, output: String(decoding: texts[0], as: UTF8.self),
            errors: String(decoding: texts[1], as: UTF8.self), hung: hung || late)
    }

    static func spawn(
        _ words: [String], variables: [String: String], actions: inout posix_spawn_file_actions_t,
        blockingSignals: Bool = false, inNewSession: Bool = false
    ) throws -> pid_t {
        var environment: [String] = []
        var next = environ
        while let variable = next.pointee {
            let text = String(cString: variable)
            if !variables.keys.contains(where: { text.hasPrefix($0 + "=") }) { environment.append(text) }
            next += 1
        }
        for (name, value) in variables { environment.append("\(name)=\(value)") }
        // Threads of the test library block signals, which a child inherits.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var mask = sigset_t()
        if blockingSignals { sigfillset(&mask) } else { sigemptyset(&mask) }
        posix_spawnattr_setsigmask(&attributes, &mask)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigdefault(&attributes, &all)
        // POSIX_SPAWN_SETSID is a GNU name, which Swift does not see.
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF) | (inNewSession ? 0x80 : 0))
        var argv = words.map { strdup($0) } + [nil]
        var envp = environment.map { strdup($0) } + [nil]
        defer { for pointer in argv + envp { free(pointer) } }
        var child: pid_t = 0
        let code = posix_spawnp(&child, words[0], &actions, &attributes, &argv, &envp)
        try #require(code == 0, "\(words[0]): errno \(code)")
        return child
    }

    /// Waits for a child's end; one that outlives the limit (seconds) is killed.
    static func wait(for child: pid_t, limit: Int) -> (status: Int32, killed: Bool) {
        var ending: Int32 = 0
        var killed = false
        for turn in 0... {
            if waitpid(child, &ending, WNOHANG) == child { break }
            if turn == limit * 100 {
                killed = true
                kill(child, SIGKILL)
            }
            if turn > limit * 100 + 3000 { return (-1, true) }
            usleep(10_000)
        }
        let signal = ending & 0x7F
        return (signal == 0 ? ending >> 8 & 0xFF : 128 + signal, killed)
    }
}
