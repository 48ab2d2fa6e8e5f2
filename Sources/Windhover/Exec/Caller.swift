internal import Glibc
internal import VMCore

/// Where a command that is run in a guest would have run: the caller's directory and environment.
public struct Caller: Hashable, Sendable {
    /// Absolute.
    public var directory: String
    /// `NAME=value`.
    public var environment: [CommandWord]

    public init(directory: String, environment: [CommandWord]) {
        self.directory = directory
        self.environment = environment
    }

    /// This process's own.
    ///
    /// - Throws: `CallerError` where the directory has been removed, or may not be looked up.
    public static func current() throws(CallerError) -> Caller {
        guard let path = unsafe getcwd(nil, 0) else { throw CallerError(errno: errno) }
        defer { unsafe free(path) }
        // As the process was started: a copy, where the live one could change under our hands.
        let words = ((try? HostFile.contents(of: "/proc/self/environ", limit: 64 << 20)) ?? []).split(separator: 0)
        return Caller(directory: unsafe String(cString: path), environment: words.filter(isVariable).map { CommandWord(bytes: $0) })
    }

    /// An environment may hold words that are no variables; no program sees them there.
    static func isVariable(_ word: some Collection<UInt8>) -> Bool { word.dropFirst().contains(UInt8(ascii: "=")) && word.first != UInt8(ascii: "=") }
}

/// The working directory cannot be told.
public struct CallerError: ReportableError, Hashable {
    let errno: Int32
    public var exitStatus: ExitStatus { RunError.status(ofFile: errno) }
    public var description: String {
        "the working directory cannot be told: \(HostError.message(errno)); go to one that is there"
    }
}
