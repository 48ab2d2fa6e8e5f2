import FoundationEssentials

/// How a run of `hover exec` ended, as its statistics tell: by its exit status alone a command's own 124 is a time-out.
struct ExecOutcome: Hashable, Decodable {
    enum Kind: String, Decodable {
        case exited
        case signal
        case outOfMemory = "out-of-memory"
        case timeout
        case panic
        case died
        case notStarted = "not-started"
        case interrupted
    }

    var outcome: Kind
    var exitStatus: Int32
    var engine: String?

    /// - Returns: nil for anything but such statistics.
    init?(_ bytes: [UInt8]) {
        guard let outcome = try? JSONDecoder().decode(Self.self, from: Data(bytes)) else { return nil }
        self = outcome
    }

    /// What a run that left no statistics comes to: its process was killed or had no room to write them, or it never began.
    init(statusOnly status: Int32) {
        exitStatus = status
        outcome =
            switch ExitStatus(rawValue: status) {
            case .usage, .badConfiguration, .noSuchFile, .unavailable, .notPermitted: .notStarted
            case .timedOut: .timeout
            case .guestPanicked: .panic
            case .guestCrashed: .died
            case .success, nil: .exited
            }
    }

    /// The verdict.
    ///
    /// - Parameter complaint: what `hover exec` said last, without its name; nil where it said nothing.
    func verdict(expecting expectation: TestTarget.Expectation, timeout: TimeLimit, complaint: String?) -> TestOutcome {
        switch outcome {
        case .exited, .signal, .outOfMemory:
            let how =
                switch outcome {
                case .signal: "the command ended by signal \(ShellStatus.signal(of: exitStatus).map(String.init) ?? "?") (\(exitStatus))"
                case .outOfMemory: "\(complaint ?? "the command was killed: the guest was out of memory") (\(exitStatus))"
                default: "exit status \(exitStatus)"
                }
            switch expectation {
            case .status(exitStatus): return .passed
            case .status(let wanted): return .failed("\(how), where \(wanted) is expected")
            case .panic: return .failed("\(how), where the guest's kernel is expected to panic")
            }
        case .panic:
            if expectation == .panic { return .passed }
            return .error(complaint ?? "the guest's kernel panicked")
        case .timeout: return .error(complaint ?? "the time limit of \(timeout) passed")
        case .died: return .error(complaint ?? "the guest died")
        case .notStarted: return .error(complaint ?? "the guest was not started (status \(exitStatus))")
        case .interrupted: return .error("the guest was stopped: hover got signal \(exitStatus &- 128)")
        }
    }
}
