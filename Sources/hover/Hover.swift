import ArgumentParser
import Windhover

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// The command. It parses, hands over to the library, and turns every outcome into one line and an exit status.
@main
struct Hover: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hover",
        abstract: "Runs Linux and other x86-64 guests in virtual machines.",
        discussion: """
            EXAMPLES:
              hover run          the guest that is built in; Ctrl-A x leaves
              hover run linux    a shell on Debian's kernel
              hover run --kernel bzImage --append "quiet" --memory 1G --cpus 4
              hover exec -- make check   that command in a guest of its own, over your own files
              hover test         the test targets of hover.toml
              hover doctor       what this host can do, and what mends it
              hover images       what is cached, and how large it is
            """,
        version: "hover 0.1.0",
        subcommands: [RunCommand.self, ExecCommand.self, TestCommand.self, DoctorCommand.self, ImagesCommand.self])

    static func main() {
        StandardStreams.openMissing()
        // Ignored by whoever started this, it would have nobody told how a child ended.
        signal(SIGCHLD, SIG_DFL)
        do {
            if let plain = PlainRunArguments(CommandLine.arguments.dropFirst()) {
                try RunCommand.run(plain.options, verbose: plain.isVerbose)
            } else {
                var command = try parseAsRoot()
                try command.run()
            }
        } catch {
            end(error)
        }
    }

    /// Says what happened, and ends the process with its status.
    private static func end(_ error: any Error) -> Never {
        if let error = error as? any ReportableError {
            complain(error.description)
            finish(error.exitStatus.rawValue)
        }
        if let status = error as? ExitStatus { finish(status.rawValue) }
        let status = exitCode(for: error)
        if status.isSuccess {
            // Help and version come as errors, too.
            do { try StandardOutput.write(fullMessage(for: error) + "\n") } catch { end(error) }
            finish(ExitStatus.success.rawValue)
        }
        complain(usageComplaint(message(for: error), arguments: CommandLine.arguments.dropFirst()))
        finish(ExitStatus.usage.rawValue)
    }

    /// One line of the parser's message: the first says it, what it adds is in the help.
    static func usageComplaint(_ message: String, arguments: some Sequence<String>) -> String {
        var text = message.split(separator: "\n").first.map(String.init) ?? "bad usage"
        let names = configuration.subcommands.compactMap { $0.configuration.commandName }
        if let word = Array(arguments).first, !word.hasPrefix("-"), word != "help", !names.contains(word) {
            text = "There is no subcommand '\(word)', but \(names.joined(separator: ", "))."
        }
        if !text.hasSuffix("?") && !text.hasSuffix(".") { text += "." }
        // The command that was meant: as many words as lead from one to the next.
        var command: any ParsableCommand.Type = Self.self
        var path = "hover"
        for word in arguments {
            guard let next = command.configuration.subcommands.first(where: { $0.configuration.commandName == word }) else { break }
            command = next
            path += " " + word
        }
        return "\(text) See: \(path) --help"
    }

    /// Says how a run ended, and ends the process as it did.
    static func end(_ result: RunResult) -> Never {
        if !result.message.isEmpty { complain(result.message) }
        for note in result.notes { complain(note) }
        if let signal = result.signal { GuestRun.die(of: signal) }
        finish(result.status)
    }

    /// Ends the process.
    static func finish(_ status: Int32) -> Never { leave(status) }

    /// One line on standard error while the guest runs: the terminal stays as it is.
    static func remark(_ message: String) {
        StandardError.write("hover: \(message)\(Terminal.isRaw ? "\r\n" : "\n")")
    }

    /// One line on standard error.
    static func complain(_ message: String) {
        Terminal.restore()
        StandardError.write("hover: \(message)\n")
    }
}

// Outside the type, whose own `exit(withError:)` hides the C library's.
private func leave(_ status: Int32) -> Never { exit(status) }
