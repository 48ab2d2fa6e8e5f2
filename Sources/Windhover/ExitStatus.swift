/// What `hover` tells its caller when it ends. A guest's own debug-exit status, `2n+1`, is none of these.
///
/// Thrown on its own it ends the command with no further word.
public enum ExitStatus: Int32, Error, Hashable, Sendable, CaseIterable {
    /// The guest powered off, or the command did what it was asked.
    case success = 0
    /// The command line cannot be understood.
    case usage = 64
    /// An image that cannot be booted, or a configuration no machine can have.
    case badConfiguration = 65
    /// A file or an image that was named is not there.
    case noSuchFile = 66
    /// The engine, or a service the command needs, is not available on this host.
    case unavailable = 69
    /// The guest crashed: a triple fault, or an error inside the engine.
    case guestCrashed = 70
    /// The host does not let this user do it.
    case notPermitted = 77
    /// The time limit passed.
    case timedOut = 124
    /// The guest's kernel panicked.
    case guestPanicked = 255
}

/// An error that a person reads: `description` is one line that names the thing and the way out.
public protocol ReportableError: Error, CustomStringConvertible, Sendable {
    var exitStatus: ExitStatus { get }
}
