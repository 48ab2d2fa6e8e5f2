/// The options of `hover exec`, as written.
public struct ExecOptions: Hashable, Sendable {
    public var command: [CommandWord] = []
    public var kernel = "linux"
    public var modules: String?
    public var append: [String] = []
    public var root: String?
    public var readWrite = false
    public var shares: [String] = []
    public var disks: [String] = []
    public var networks: [String] = []
    public var directory: String?
    public var user: String?
    public var environment: [CommandWord] = []
    public var memory = "1G"
    public var cpus = "1"
    public var engine = "auto"
    /// `auto`, or a transport.
    public var transport = "auto"
    public var timeout: String?
    public var bootTimeout = "2m"
    public var consoleLog: String?
    public var statistics: String?
    /// Whether the command gets a terminal: `auto`, `always` or `never`.
    public var terminal = "auto"

    public init() {}
}
