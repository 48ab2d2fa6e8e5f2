internal import Machine
internal import VMCore

/// Why a guest, or a command in it, did not get to its end.
public struct GuestFailure: Error, CustomStringConvertible, Hashable, Sendable {
    public enum Kind: Hashable, Sendable {
        /// The guest's kernel panicked.
        case panicked
        /// The guest ended, or its agent did, before it should have.
        case died
        /// The guest did not come up in time.
        case neverUp
        /// The kernel lacks what this takes, or a directory cannot be where it is to be.
        case cannotBeSetUp
        /// The engine could not start.
        case noEngine(ExitStatus)
        /// The command could not be started: with the exit status that a shell gives it.
        case notStarted(status: Int32)
        /// The time limit passed.
        case timedOut
    }

    public let kind: Kind
    /// The first line says it; what the guest's console has to say about it follows.
    public let description: String

    /// As the command's contract has it.
    public var exitStatus: Int32 {
        switch kind {
        case .panicked: ExitStatus.guestPanicked.rawValue
        case .died, .neverUp: ExitStatus.guestCrashed.rawValue
        case .cannotBeSetUp: ExitStatus.badConfiguration.rawValue
        case .noEngine(let status): status.rawValue
        case .notStarted(let status): status
        case .timedOut: ExitStatus.timedOut.rawValue
        }
    }
}

/// Finds out what became of a guest that does not answer.
struct PostMortem {
    let machine: GuestMachine

    /// How long a guest whose agent is silent has, to say why it died: nanoseconds.
    private static let lastWordsTime: UInt64 = 1_500_000_000

    /// - Parameter isUp: whether the guest had come up when it happened.
    func failure(_ error: AgentError, isUp: Bool) -> GuestFailure {
        switch error {
        case .notStarted(let reason): return GuestFailure(kind: .notStarted(status: reason.shellStatus), description: "\(reason)")
        case .setUpFailed, .unsendable: return GuestFailure(kind: .cannotBeSetUp, description: "\(error)")
        case .host: return GuestFailure(kind: .noEngine(.unavailable), description: "\(error)")
        case .violation, .backlog: return died("\(error)")
        case .timedOut:
            if let panic = machine.console.panic { return panicked(panic) }
            return GuestFailure(kind: isUp ? .timedOut : .neverUp, description: "\(error)" + consoleWords)
        case .machineEnded, .connectionLost, .closed:
            // A guest that dies says why, if it is given the time.
            guard let end = machine.wait(until: machine.clock.now() &+ Self.lastWordsTime) else {
                return died("the guest's agent is gone, and the guest runs on")
            }
            if let panic = end.panic { return panicked(panic) }
            let when = isUp ? "before the command had ended" : "before the command was started"
            switch end.outcome {
            case .poweredOff: return died("the guest powered off \(when)")
            case .reset: return died("the guest reset \(when)")
            case .halted: return died("the guest halted \(when)")
            case .debugExit(let value): return died("the guest wrote \(value) to the debug-exit port \(when)")
            case .stopped: return died("the guest was stopped \(when)")
            case .crashed(let report):
                return GuestFailure(kind: .died, description: "\(report.summary)\n\(report.registerDump)\n\(report.advice)")
            case .failed(let error):
                let failure = RunError(error)
                return GuestFailure(kind: .noEngine(failure.exitStatus), description: failure.description)
            }
        }
    }

    /// Why a guest is no more that ended while no command ran.
    var ended: GuestFailure {
        let end = machine.wait(until: machine.clock.now())
        if end?.panic == nil, case .poweredOff = end?.outcome { return died("the guest powered off") }
        if end?.panic == nil, case .reset = end?.outcome { return died("the guest reset") }
        return failure(.machineEnded, isUp: true)
    }

    /// The panic that the guest's kernel printed, if it did.
    var panic: GuestFailure? { machine.console.panic.map(panicked) }

    /// The guest had its time to come up.
    func neverUp(within limit: String) -> GuestFailure {
        panic ?? GuestFailure(kind: .neverUp, description: "the guest did not come up within \(limit)" + consoleWords)
    }

    private func panicked(_ panic: String) -> GuestFailure {
        let lines = machine.console.panicLines()
        // The line itself is the message's own.
        let rest = lines.count > 1 ? "\n" + lines.map { "  \($0)" }.joined(separator: "\n") : ""
        return GuestFailure(kind: .panicked, description: "the guest's kernel panicked: \(PlainText.line(panic.utf8))\(rest)")
    }

    private func died(_ what: String) -> GuestFailure { GuestFailure(kind: .died, description: what + consoleWords) }

    private var consoleWords: String {
        let lines = machine.console.lastLines(12)
        return lines.isEmpty
            ? "; its console is silent" : "; the last lines of its console:\n" + lines.map { "  \($0)" }.joined(separator: "\n")
    }
}
