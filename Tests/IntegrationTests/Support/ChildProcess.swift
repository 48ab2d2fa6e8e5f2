import Foundation
import Synchronization

/// A program that was run to its end, or to its deadline.
struct ChildResult: Sendable {
    /// The exit status, or 128 and the signal that ended it; nil where it had to be killed at its deadline.
    var status: Int32?
    var output: String
    var error: String
    var seconds: Double

    /// For messages: how it ended, and the last of what it said.
    var summary: String {
        let end = status.map { "status \($0)" } ?? "killed at its deadline"
        return "\(end) after \(String(format: "%.1f", seconds)) s\n\(output.suffix(1500))\n\(error.suffix(1500))"
    }
}

/// Runs a program in a process group of its own, which is killed, with all that is in it, at the deadline and at the end.
enum ChildProcess {
    struct CannotStart: Error, CustomStringConvertible { var description: String }

    /// Does not block a thread of the caller's pool.
    static func run(
        _ command: [String], input: [UInt8] = [], environment: [String: String] = [:], deadline: Double
    ) async throws -> ChildResult {
        try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread {
                continuation.resume(with: Result { try start(command, input, environment, deadline) })
            }
        }
    }

    private static func start(
        _ command: [String], _ input: [UInt8], _ environment: [String: String], _ deadline: Double
    ) throws -> ChildResult {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("hover-child-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        func file(_ name: String) -> String { directory.appendingPathComponent(name).path }
        try Data(input).write(to: URL(fileURLWithPath: file("in")))

        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, file("in"), O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, file("out"), O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        posix_spawn_file_actions_addopen(&actions, 2, file("err"), O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK))
        posix_spawnattr_setpgroup(&attributes, 0)
        // Threads of a pool block signals, which a child would inherit; a user's shell blocks none.
        var mask = sigset_t()
        sigemptyset(&mask)
        posix_spawnattr_setsigmask(&attributes, &mask)

        let variables = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        var arguments = command.map { strdup($0) } + [nil]
        var strings = variables.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { (arguments + strings).forEach { free($0) } }
        var child: pid_t = 0
        let error = posix_spawnp(&child, command[0], &actions, &attributes, &arguments, &strings)
        guard error == 0 else { throw CannotStart(description: "\(command[0]): \(String(cString: strerror(error)))") }

        let clock = ContinuousClock()
        let began = clock.now
        var status: Int32 = 0
        var killed = false
        while waitpid(child, &status, WNOHANG) == 0 {
            let elapsed = began.duration(to: clock.now)
            if elapsed > .seconds(deadline) {
                killed = true
                // Once more and again: a member may just be starting another.
                kill(-child, SIGKILL)
            }
            // One that the host's kernel cannot end is left to it.
            if elapsed > .seconds(deadline + 30) { break }
            usleep(5000)
        }
        kill(-child, SIGKILL)
        let elapsed = began.duration(to: clock.now) / .seconds(1)
        func text(_ name: String) -> String {
            guard let handle = FileHandle(forReadingAtPath: file(name)) else { return "" }
            defer { try? handle.close() }
            // A guest that prints for ever prints more than anybody looks at.
            return String(decoding: (try? handle.read(upToCount: 1 << 20)) ?? Data(), as: UTF8.self)
        }
        let signal = status & 0x7F
        return ChildResult(
            status: killed ? nil : signal == 0 ? status >> 8 & 0xFF : 128 + signal,
            output: text("out"), error: text("err"), seconds: elapsed)
    }
}
