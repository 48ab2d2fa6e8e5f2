internal import Glibc
internal import VMCore

/// What the agent said that the protocol does not let it say. Whoever sends such bytes cannot be spoken with further.
public enum AgentViolation: Error, Hashable, Sendable {
    case frameTooLong(kind: UInt16, length: UInt32)
    /// Bits of a header that are to be zero.
    case reservedBits(kind: UInt16)
    /// A field that is longer than its payload, or whose header is cut off or wrong.
    case brokenField(kind: UInt16)
    case missingField(kind: UInt16, tag: UInt16)
    /// A field of a wrong length, or with a value that it cannot have.
    case badField(kind: UInt16, tag: UInt16)
    case version(UInt32)
    /// A frame at a time when it has no meaning.
    case outOfOrder(kind: UInt16)
    /// It is about a command that was not started, or has ended.
    case unknownCommand(kind: UInt16, number: UInt32)
}

extension AgentViolation: CustomStringConvertible {
    public var description: String {
        switch self {
        case .frameTooLong(let kind, let length):
            "a frame of kind \(kind) with \(length) bytes; \(AgentFrame.longestFromAgent) is the most"
        case .reservedBits(let kind): "a frame of kind \(kind) with bits that have no meaning"
        case .brokenField(let kind): "a frame of kind \(kind) with a broken field"
        case .missingField(let kind, let tag): "a frame of kind \(kind) without its field \(tag)"
        case .badField(let kind, let tag): "a frame of kind \(kind) with a wrong field \(tag)"
        case .version(let version): "version \(version) of the protocol, where this monitor speaks version \(AgentHello.version)"
        case .outOfOrder(let kind): "a frame of kind \(kind) at the wrong time"
        case .unknownCommand(let kind, let number): "a frame of kind \(kind) about command \(number), which is not running"
        }
    }
}

/// Why a command in a guest was not started.
public struct NotStarted: Error, Hashable, Sendable {
    /// How far it got.
    public enum Stage: UInt32, Hashable, Sendable {
        case workingDirectory = 1
        case user = 2
        case program = 3
        case resources = 4
        case streams = 5
    }

    /// nil for a stage that this monitor does not know.
    public var stage: Stage?
    public var errno: Int32
    /// What is at fault: a directory, a user, a program, a file. Without control characters.
    public var name: String
    public var operation: GuestCommand.Operation

    /// What a shell would end with: 127 where there is no such program, 126 where it cannot be executed. All that went wrong
    /// before the program was looked at, and files that could not be opened, are 125, as env(1) and others who start programs have it.
    public var shellStatus: Int32 {
        guard operation == .run, stage == .program else { return 125 }
        return errno == ENOENT || errno == ENOTDIR ? 127 : 126
    }
}

extension NotStarted: CustomStringConvertible {
    public var description: String {
        let reason = HostError.message(errno)
        switch (stage, operation) {
        case (.workingDirectory, _):
            return switch errno {
            case ENOENT: "no such directory in the guest: '\(name)'"
            case ENOTDIR: "'\(name)' is not a directory of the guest's"
            default: "the guest cannot change to the directory '\(name)': \(reason)"
            }
        case (.user, _):
            return switch errno {
            case ENOENT, ESRCH, EINVAL, 0: "no such user or group in the guest: '\(name)'"
            default: "the guest cannot become the user '\(name)': \(reason)"
            }
        case (.program, .run):
            return switch errno {
            case ENOENT, ENOTDIR: "no such command in the guest: '\(name)', or what it is to be run by is missing"
            case EACCES: "'\(name)' in the guest cannot be executed: no permission"
            case EISDIR: "'\(name)' in the guest cannot be executed: it is a directory"
            case ENOEXEC: "'\(name)' in the guest cannot be executed: it is no program that the guest's kernel knows"
            default: "'\(name)' in the guest cannot be executed: \(reason)"
            }
        case (.program, .write): return "'\(name)' in the guest cannot be written: \(reason)"
        case (.program, .read): return "'\(name)' in the guest cannot be read: \(reason)"
        case (.resources, _): return "the guest has no room for another command ('\(name)'): \(reason)"
        case (.streams, _): return "the guest cannot connect the command's streams ('\(name)'): \(reason)"
        case (nil, _): return "the guest did not start '\(name)': \(reason)"
        }
    }
}

/// What can go wrong between host and agent. One line each.
public enum AgentError: Error, Hashable, Sendable {
    /// The machine has ended: nothing more is to come.
    case machineEnded
    /// The session was closed, by this program.
    case closed
    /// The agent's control connection ended while the machine ran.
    case connectionLost
    case violation(AgentViolation)
    /// - Parameter what: what was waited for.
    case timedOut(waitingFor: String)
    case setUpFailed(errno: Int32, what: String, missingModule: String?)
    case notStarted(NotStarted)
    /// What cannot be said to the agent, and why.
    case unsendable(String)
    /// The agent does not read what it is sent, and too much waits for it.
    case backlog
    case host(call: String, errno: Int32)
}

extension AgentError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .machineEnded: return "the guest has ended"
        case .closed: return "the connection to the guest was closed"
        case .connectionLost: return "the guest's agent is gone: it ended, or gave up its connection"
        case .violation(let violation): return "the guest's agent does not keep to the protocol: it sent \(violation)"
        case .timedOut(let what): return "no answer from the guest in time: \(what)"
        case .setUpFailed(let code, let what, let module):
            let missing = module.map { ": its kernel has no module '\($0)'" } ?? ""
            let reason = code == 0 ? "" : ": \(HostError.message(code))"
            return "the guest could not \(what)\(reason)\(missing)"
        case .notStarted(let reason): return reason.description
        case .unsendable(let reason): return reason
        case .backlog: return "the guest's agent does not read what it is sent"
        case .host(let call, let code): return "\(call) failed: \(HostError.message(code))"
        }
    }
}
