public import Virtio

/// What the command's root directory is.
public enum ExecRoot: Hashable, Sendable {
    /// A directory of the host's, `/` for its own tree; what is written stays in the guest's memory.
    case directory(String)
    /// The first disk.
    case disk
}

/// Whether a command has a terminal.
public enum ExecTerminal: String, Hashable, Sendable, CaseIterable {
    /// Where standard input is one.
    case auto
    case always
    case never
}

/// A directory of the host's at a place of the guest's root.
public struct ExecShare: Hashable, Sendable {
    public let directory: String
    /// Where it is in the guest: absolute.
    public let path: String
    public let isReadOnly: Bool
    public let caching: ShareCaching

    /// - Parameters:
    ///   - directory: of the host's.
    ///   - path: where the guest finds it: absolute.
    public init(directory: String, path: String, isReadOnly: Bool = false, caching: ShareCaching = .auto) {
        self.directory = directory
        self.path = path
        self.isReadOnly = isReadOnly
        self.caching = caching
    }

    static let form = "DIR[:TAG or PATH][,readonly][,cache=none|auto|always]"
}

/// A run of one command in a machine of its own, which makes sense in itself. Whether the host can do it, and whether its
/// files are there, is not yet known.
public struct ExecConfiguration: Hashable, Sendable {
    /// The program and its arguments.
    public let command: [CommandWord]
    public let kernel: KernelChoice
    /// Where the kernel's modules are: a directory that holds a `lib/modules`, or is one release's own.
    public let modules: String?
    public let append: String
    public let root: ExecRoot
    /// Directories that the guest writes through to the host, unless they say otherwise.
    public let shares: [ExecShare]
    public let disks: [DiskConfiguration]
    public let networks: [NetworkConfiguration]
    /// The command's working directory in the guest: absolute.
    public let directory: String
    public let user: String?
    /// `NAME=value`, in order; of two with one name the later counts.
    public let environment: [CommandWord]
    public let memory: MemorySize
    public let cpus: Int
    public let engine: EngineChoice
    public let transport: VirtioTransport
    public let timeout: TimeLimit?
    public let bootTimeout: TimeLimit
    public let consoleLog: String?
    public let statistics: String?
    public let terminal: ExecTerminal
    /// Whether writes reach a disk that is the root.
    public let writesThrough: Bool

    /// - Throws: `ConfigurationError`, one line that names the option and the way out.
    public init(_ options: ExecOptions, caller: Caller) throws(ConfigurationError) {
        let here = caller.directory
        guard let program = options.command.first else {
            throw .malformed("exec wants a command: hover exec [options] -- COMMAND [ARGUMENT]...")
        }
        guard !program.bytes.isEmpty else { throw .malformed("the command is empty: hover exec [options] -- COMMAND [ARGUMENT]...") }
        command = options.command
        guard !options.kernel.isEmpty else { throw .malformed("--kernel names no kernel: say linux, host, or a path") }
        kernel = KernelChoice(options.kernel)
        modules = options.modules
        append = options.append.joined(separator: " ")
        guard !append.utf8.contains(0) else { throw .malformed("--append holds a zero byte, which would end the kernel's command line there") }
        disks = try options.disks.map { text throws(ConfigurationError) in try DiskConfiguration(text) }
        networks = try options.networks.map { text throws(ConfigurationError) in try NetworkConfiguration(text) }
        if let text = options.root {
            guard !text.isEmpty else { throw .malformed("--root names no directory") }
            root = .directory(Self.absolute(text, from: here))
        } else {
            root = disks.isEmpty ? .directory("/") : .disk
        }
        var shares = try options.shares.map { text throws(ConfigurationError) in try Self.share(text, from: here) }
        // Where the caller stands is there in the host's own tree only.
        let isHostTree = root == .directory("/")
        directory = options.directory.map { Self.absolute($0, from: isHostTree ? here : "/") } ?? (isHostTree ? here : "/")
        writesThrough = options.readWrite
        if options.readWrite, isHostTree {
            guard directory != "/" else {
                throw .impossible("--rw would let the guest write to the host's whole tree: go to the directory that is meant, or name it with --share")
            }
            if !shares.map(\.path).contains(directory) {
                shares.append(ExecShare(directory: directory, path: directory, isReadOnly: false, caching: .auto))
            }
        } else if options.readWrite, root != .disk {
            throw .impossible("--rw is for the host's own tree or a disk, not for --root: name what is to be written with --share DIR:PATH")
        }
        for (index, share) in shares.enumerated() where shares[..<index].map(\.path).contains(share.path) {
            throw .impossible("--share: two directories are to be at '\(share.path)': give each a place of its own, as in DIR:PATH")
        }
        guard disks.count + networks.count + shares.count < RunConfiguration.maximumDevices else {
            throw .impossible(
                "\(disks.count) disks, \(networks.count) networks and \(shares.count) shared directories are more than the \(RunConfiguration.maximumDevices - 1) that a machine has room for: give fewer")
        }
        self.shares = shares
        if options.user == "" { throw .malformed("--user names nobody") }
        user = options.user
        environment = try Self.environment(caller.environment, options.environment)
        memory = try MemorySize(options.memory)
        cpus = try RunConfiguration.cpus(options.cpus)
        engine = try RunConfiguration.choice(options.engine, of: "--engine")
        transport = options.transport == "auto" ? kernel.usualTransport : try RunConfiguration.choice(options.transport, of: "--transport")
        timeout = try options.timeout.map { text throws(ConfigurationError) in try TimeLimit(text) }
        bootTimeout = try TimeLimit(options.bootTimeout, of: "--boot-timeout")
        if options.consoleLog == "" { throw .malformed("--console-log names no file") }
        consoleLog = options.consoleLog
        if options.statistics == "" { throw .malformed("--stats names no file") }
        statistics = options.statistics
        terminal = try RunConfiguration.choice(options.terminal, of: "--tty")
    }

    /// Sees that the directories and disks are there: before an image is fetched for them.
    ///
    /// - Throws: a `ReportableError`.
    public func checkFiles() throws {
        try DiskImages.check(disks)
        if case .directory(let path) = root, path != "/" { try InputFile.checkDirectory(path, option: "--root") }
        for share in shares { try InputFile.checkDirectory(share.directory, option: "--share") }
        if let modules { try InputFile.checkDirectory(modules, option: "--modules") }
    }

    private static func share(_ text: String, from here: String) throws(ConfigurationError) -> ExecShare {
        var words = try OptionWords(text, of: "--share")
        var directory = words.first
        var path: String?
        // The last colon: a directory's name may have some of its own.
        if let colon = directory.lastIndex(of: ":") {
            let place = String(directory[directory.index(after: colon)...])
            directory = String(directory[..<colon])
            guard !place.isEmpty, !place.utf8.contains(0), place.hasPrefix("/") || !place.contains("/") else {
                throw .malformed("--share: '\(place)' is neither an absolute path of the guest's nor a tag: its form is \(ExecShare.form)")
            }
            // A tag alone is where it is looked for.
            path = absolute(place, from: "/mnt")
        }
        guard !directory.isEmpty else { throw .malformed("--share names no directory: its form is \(ExecShare.form)") }
        directory = absolute(directory, from: here)
        let isReadOnly = try words.takeFlag("readonly")
        let cache = try words.takeValue("cache") ?? ShareCaching.auto.rawValue
        guard let caching = ShareCaching(rawValue: cache) else {
            throw .malformed("--share: cache takes none, auto or always, not '\(cache)'")
        }
        try words.finish(known: ExecShare.form)
        let place = path ?? directory
        guard place != "/" else { throw .impossible("--share: a directory cannot be in the place of the root: --root does that") }
        return ExecShare(directory: directory, path: place, isReadOnly: isReadOnly, caching: caching)
    }

    /// The caller's words, then those of `--env`: `NAME=value`, or `NAME` for the caller's own value.
    private static func environment(_ caller: [CommandWord], _ given: [CommandWord]) throws(ConfigurationError) -> [CommandWord] {
        var words = caller
        for word in given {
            let name = word.bytes.prefix { $0 != UInt8(ascii: "=") }
            guard !name.isEmpty, !word.bytes.contains(0) else { throw .malformed("--env wants NAME=VALUE, not '\(word)'") }
            if name.endIndex == word.bytes.endIndex { continue }
            words.removeAll { $0.bytes.starts(with: word.bytes[...name.endIndex]) }
            words.append(word)
        }
        return words
    }

    /// A path without `.`, `..` and doubled slashes, as text: what a shell's own `cd` would make of it.
    static func absolute(_ path: String, from here: String) -> String {
        var parts: [Substring] = []
        for part in ((path.hasPrefix("/") ? "" : here + "/") + path).split(separator: "/") {
            switch part {
            case ".": continue
            case "..": _ = parts.popLast()
            default: parts.append(part)
            }
        }
        return "/" + parts.joined(separator: "/")
    }
}
