/// What a target of `hover test` runs, and what must come of it: one entry of a test file, or one of its matrix.
public struct TestTarget: Hashable, Sendable {
    /// What counts as passed.
    public enum Expectation: Hashable, Sendable {
        /// The command ends with this status; 128 and its number for a signal.
        case status(Int32)
        /// The guest's kernel panics.
        case panic
    }

    /// A variable of the command's environment.
    public struct Variable: Hashable, Sendable {
        public var name: String
        public var value: String
    }

    /// Unique in its file; a matrix entry's has its values behind it: `boot [kernel=linux]`.
    public var name: String
    /// `linux`, `host` or a path; nil for what `hover exec` takes by itself.
    public var kernel: String?
    public var modules: String?
    public var root: String?
    /// As `--disk` takes them.
    public var disks: [String] = []
    public var isWritable = false
    /// The command and its arguments; never empty.
    public var command: [String]
    public var workingDirectory: String?
    public var cpus = 1
    public var memory: MemorySize
    public var engine = EngineChoice.auto
    /// Whether a host without `engine` skips the target, where it otherwise fails.
    public var skipsWithoutEngine = false
    public var timeout: TimeLimit
    public var environment: [Variable] = []
    /// As `--net` takes it.
    public var network: String?
    public var user: String?
    /// As `--share` takes them.
    public var shares: [String] = []
    public var append: [String] = []
    public var expectation = Expectation.status(0)
    /// Why it is not run; nil where it is.
    public var skipReason: String?

    /// The arguments of `hover exec`, the word itself left out.
    ///
    /// - Parameters:
    ///   - statistics: the file that gets the run's outcome.
    ///   - console: the file that gets what the guest's kernel says.
    public func arguments(statistics: String, console: String) -> [String] {
        var words: [String] = []
        func add(_ option: String, _ value: String?) {
            if let value { words += [option, value] }
        }
        add("--kernel", kernel.map(Self.path))
        add("--modules", modules.map(Self.path))
        add("--root", root.map(Self.path))
        for disk in disks { add("--disk", Self.path(disk)) }
        if isWritable { words.append("--rw") }
        for share in shares { add("--share", Self.path(share)) }
        add("--cpus", String(cpus))
        add("--memory", memory.description)
        add("--engine", engine.rawValue)
        add("--net", network)
        add("--user", user)
        for variable in environment { add("--env", "\(variable.name)=\(variable.value)") }
        add("--workdir", workingDirectory.map(Self.path))
        add("--timeout", timeout.description)
        for words in append { add("--append", words) }
        add("--console-log", console)
        add("--stats", statistics)
        return words + ["--"] + command
    }

    /// A path that no parser takes for an option.
    private static func path(_ text: String) -> String { text.hasPrefix("-") ? "./" + text : text }
}
