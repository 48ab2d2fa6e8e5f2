internal import Glibc

/// How the conversation with a guest ended.
enum ExecEnding {
    case exited(GuestExit)
    /// The limit that was asked for.
    case timedOut
    case failed(GuestFailure)
    /// A signal ended hover.
    case interrupted(Int32)
}

/// What a run of a command comes to: the exit status, the words for a person, and the word for the statistics.
struct ExecJudgement {
    let configuration: ExecConfiguration

    func judge(_ ending: ExecEnding) -> (RunResult, String) {
        switch ending {
        case .exited(let exit): return judge(exit)
        case .interrupted(let signal): return (RunResult(status: ShellStatus.signal(signal), signal: signal), "interrupted")
        case .timedOut:
            let limit = configuration.timeout.map { "\($0)" } ?? ""
            return (
                RunResult(
                    status: ExitStatus.timedOut.rawValue, message: "the command was stopped: it did not end within \(limit) (--timeout)"),
                "timeout"
            )
        case .failed(let failure):
            return (RunResult(status: failure.exitStatus, message: failure.description), Self.word(failure.kind))
        }
    }

    private func judge(_ exit: GuestExit) -> (RunResult, String) {
        var result = RunResult(status: exit.shellStatus)
        switch exit.cause {
        case .status(let status):
            // What the command started may have been killed, and the command know no more than that.
            if exit.outOfMemory, status != 0 { result.message = "the guest was out of memory while the command ran, and killed something; \(advice)" }
            return (result, "exited")
        case .signal(let number, let dumped):
            if exit.outOfMemory, number == SIGKILL {
                result.message = "the command was killed: the guest was out of memory; \(advice)"
                return (result, "out-of-memory")
            }
            // What a person or a closed pipe does is known to whoever did it.
            if ![SIGINT, SIGPIPE, SIGTERM, SIGHUP].contains(number) {
                result.message = "the command was ended by signal \(SignalName.text(number))\(dumped ? ", and dumped core" : "")"
            }
            return (result, "signal")
        }
    }

    private var advice: String { "it had \(ByteCount.text(configuration.memory.bytes)), give it more with --memory" }

    private static func word(_ kind: GuestFailure.Kind) -> String {
        switch kind {
        case .panicked: "panic"
        case .died: "died"
        case .neverUp, .cannotBeSetUp, .noEngine, .notStarted: "not-started"
        case .timedOut: "timeout"
        }
    }
}

/// The names of signals.
enum SignalName {
    private static let names: [Int32: String] = [
        SIGHUP: "SIGHUP", SIGINT: "SIGINT", SIGQUIT: "SIGQUIT", SIGILL: "SIGILL", SIGTRAP: "SIGTRAP", SIGABRT: "SIGABRT",
        SIGBUS: "SIGBUS", SIGFPE: "SIGFPE", SIGKILL: "SIGKILL", SIGUSR1: "SIGUSR1", SIGSEGV: "SIGSEGV", SIGUSR2: "SIGUSR2",
        SIGPIPE: "SIGPIPE", SIGALRM: "SIGALRM", SIGTERM: "SIGTERM", SIGXCPU: "SIGXCPU", SIGXFSZ: "SIGXFSZ", SIGSYS: "SIGSYS",
    ]

    /// "9 (SIGKILL)".
    static func text(_ number: Int32) -> String { names[number].map { "\(number) (\($0))" } ?? "\(number)" }
}
