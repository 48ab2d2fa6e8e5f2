internal import Machine
internal import VMCore
internal import Virtio

/// What a virtual machine is to be: a value, to be changed until it is right, and then made a ``VirtualMachine`` of.
///
/// ```swift
/// var configuration = VirtualMachineConfiguration()
/// configuration.memory = try MemorySize("2G")
/// configuration.shares.append(ExecShare(directory: "/home/me/project", path: "/project"))
/// let machine = try VirtualMachine(configuration)
/// ```
public struct VirtualMachineConfiguration: Hashable, Sendable {
    /// The kernel: Debian's, the host's own, or a file.
    public var kernel = KernelChoice.linux
    /// Where a kernel's modules are, if not where they are looked for by themselves: a directory with `lib/modules` in it.
    public var modules: String?
    /// Words for the kernel's command line.
    public var commandLine = ""
    /// The guest's root: the host's own tree if nothing else is said. What is written to a directory stays in the guest's memory.
    public var root = ExecRoot.directory("/")
    /// Directories of the host that the guest writes through to, unless they say otherwise.
    public var shares: [ExecShare] = []
    public var disks: [DiskConfiguration] = []
    /// Whether writes reach a disk that is the root.
    public var writesThroughToDisk = false
    public var networks: [NetworkConfiguration] = []
    public var memory = MemorySize.standard
    /// Whether the guest's memory can be made less and more while it runs (``VirtualMachine/setMemoryTarget(_:within:)``). What the
    /// guest frees by itself then leaves this process, too.
    public var hasBalloon = false
    public var cpuCount = 1
    /// What executes the guest.
    public var engine = EngineChoice.auto
    /// nil: the one with which the kernel comes up faster.
    public var transport: VirtioTransport?
    /// How long the guest may take to come up.
    public var bootTimeLimit = Duration.seconds(120)
    /// Whether the kernel says on its console only what matters: faster.
    public var isConsoleQuiet = true
    /// Whether files of the host's belong to the guest's root if they are the caller's, or to whom they belong on the host.
    public var ownership = FileOwnership.callerIsRoot

    public init() {}

    /// Whose the host's files are in the guest.
    public enum FileOwnership: String, Hashable, Sendable, CaseIterable {
        /// What the caller owns, and what the host's root owns, is the guest's root's.
        case callerIsRoot
        /// As on the host.
        case same
    }

    /// Sees that a machine can be so, and that the files it names are there.
    ///
    /// - Throws: a `ReportableError`, one line that names the thing, the reason and the way out.
    public func validate() throws {
        guard (1...RunConfiguration.maximumCPUs).contains(cpuCount) else {
            throw ConfigurationError.impossible("a guest cannot have \(cpuCount) CPUs: give it from 1 to \(RunConfiguration.maximumCPUs)")
        }
        if let physical = HostFacts.physicalMemory() { try memory.check(againstHost: physical) }
        guard !commandLine.utf8.contains(0) else {
            throw ConfigurationError.impossible("the command line holds a zero byte, which would end it there")
        }
        guard bootTimeLimit > .zero else { throw ConfigurationError.impossible("a guest that has no time to come up never does") }
        guard root != .disk || !disks.isEmpty else {
            throw ConfigurationError.impossible("the root is to be a disk, and there is none: add one to disks")
        }
        for share in shares {
            guard share.path.hasPrefix("/"), !share.path.utf8.contains(0) else {
                throw ConfigurationError.malformed("the place of a share in the guest, '\(share.path)', is no absolute path: give one, such as /mnt")
            }
            guard ExecConfiguration.absolute(share.path, from: "/") != "/" else {
                throw ConfigurationError.impossible("a directory cannot be in the place of the root: root = .directory(...) does that")
            }
        }
        let places = shares.map { ExecConfiguration.absolute($0.path, from: "/") }
        for (index, place) in places.enumerated() where places[..<index].contains(place) {
            throw ConfigurationError.impossible("two directories are to be at '\(place)': give each a place of its own")
        }
        guard disks.count + networks.count + shares.count < RunConfiguration.maximumDevices else {
            throw ConfigurationError.impossible(
                "\(disks.count) disks, \(networks.count) networks and \(shares.count) directories are more than the \(RunConfiguration.maximumDevices - 1) that a machine has room for")
        }
        try DiskImages.check(disks)
        if case .directory(let path) = root, path != "/" { try InputFile.checkDirectory(path, option: "the root") }
        for share in shares { try InputFile.checkDirectory(share.directory, option: "the share at \(share.path)") }
        if let modules { try InputFile.checkDirectory(modules, option: "the modules") }
    }
}

extension VirtualMachineConfiguration {
    /// Sees that the host has what is to execute the guest.
    ///
    /// - Throws: a `ReportableError`: KVM is insisted on, and cannot be used. There is always an engine for `auto` and `interpreter`.
    public func checkEngine() throws {
        guard engine == .kvm else { return }
        do throws(EngineError) { _ = try EngineSelection(engine.request) } catch { throw RunError(error) }
    }

    /// Whether anything of the host's may have been written when the guest ends.
    var writesToHost: Bool { shares.contains { !$0.isReadOnly } || !disks.isEmpty }

    func guest(_ kernel: GuestKernel) -> AgentGuest {
        AgentGuest(
            kernel: kernel, root: root, writesThrough: writesThroughToDisk, shares: shares, disks: disks, networks: networks,
            hasBalloon: hasBalloon, ownership: ownership == .same ? .same : .userIsRoot, memory: memory, cpus: cpuCount, engine: engine,
            transport: transport ?? self.kernel.usualTransport, append: commandLine, isQuiet: isConsoleQuiet)
    }
}
