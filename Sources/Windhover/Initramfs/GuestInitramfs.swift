/// The initial RAM file system that `hover exec` boots: the agent, and the modules that its machine needs.
///
/// `/init` is the agent. `/windhover/modules` lists paths, one a line, each behind all that it needs; `/lib/modules/RELEASE`
/// has the object files and the lists that `modprobe` reads. Beside them are the directories that the agent mounts on and
/// the devices that a kernel without devtmpfs has no other way to. Nothing is compressed: unpacking costs a guest more than
/// copying costs the host.
public struct GuestInitramfs: Sendable {
    /// Which modules are in the archive. Those beyond the needed ones are not loaded: they are there for `modprobe`.
    public enum Extent: Hashable, Sendable {
        case needed
        /// Those of every device that a machine can have, too.
        case all
    }

    /// A newc archive.
    public let bytes: [UInt8]
    /// The modules that are loaded, in their order.
    public let modules: [String]
    /// What the machine has a use for and this kernel may lack: the guest does without it, or it is built in and nothing says so.
    public let missing: [MissingModule]

    static let directories = ["dev", "etc", "lib", "mnt", "proc", "run", "sys", "windhover"]
    /// The paths of modules to load.
    static let listPath = "windhover/modules"

    /// - Parameter release: the kernel's, where it is known: without it there can be no modules.
    init(
        agent: [UInt8], release: String?, source: ModuleSource, keepsSignatures: Bool = false, needs: MachineNeeds,
        extent: Extent = .needed
    ) throws(GuestKernelError) {
        var selection = ModuleSelection(
            try KernelModules(release == nil ? .builtIn : source), release: release ?? "", keepsSignatures: keepsSignatures)
        for wanted in needs.wanted { try selection.add(wanted) }
        let loaded = selection.modules
        missing = selection.missing
        modules = loaded.map(\.name)
        if extent == .all {
            for name in ModuleArchive.wanted { try selection.add(.init(module: name)) }
        }

        var archive = CPIOArchive()
        for directory in Self.directories { archive.addDirectory(directory) }
        archive.addDirectory("root", permissions: 0o700)
        archive.addDirectory("tmp", permissions: 0o1777)
        // The kernel opens the console before any of our code runs. Source: [LINUX-DEVICES "5 char", "1 char"].
        archive.addCharacterDevice("dev/console", major: 5, minor: 1, permissions: 0o600)
        archive.addCharacterDevice("dev/null", major: 1, minor: 3, permissions: 0o666)
        archive.addFile("init", agent, permissions: 0o755)
        var paths = ""
        if !selection.modules.isEmpty, let release {
            let all = ModuleArchive(release: release, modules: selection.modules)
            all.add(to: &archive)
            paths = loaded.map { "/\(all.directory)/\($0.name).ko\n" }.joined()
        }
        archive.addFile(Self.listPath, Array(paths.utf8))
        bytes = archive.finished()
    }
}

/// Modules picked one by one, each behind what it needs, and what was not to be had.
struct ModuleSelection {
    private let source: KernelModules
    private let release: String
    private let keepsSignatures: Bool
    private(set) var modules: [KernelModule] = []
    private(set) var missing: [MissingModule] = []
    /// Names that were looked at; before what they need is, so that a circle comes to an end.
    private var seen: Set<String> = []

    /// A chain of needs that is longer leads nowhere. Linux's own are shorter than ten.
    private static let deepest = 64

    init(_ source: KernelModules, release: String, keepsSignatures: Bool) {
        self.source = source
        self.release = release
        self.keepsSignatures = keepsSignatures
    }

    /// - Throws: `missing` for one that the machine cannot do without, where it is known not to be built in.
    mutating func add(_ wanted: MachineNeeds.Wanted) throws(GuestKernelError) {
        if source.place.isEmpty { return }
        try add(wanted.module, for: wanted, neededBy: nil, depth: 0)
    }

    private mutating func add(
        _ name: String, for wanted: MachineNeeds.Wanted, neededBy: String?, depth: Int
    ) throws(GuestKernelError) {
        guard !source.isBuiltIn(name), seen.insert(name).inserted else { return }
        guard depth < Self.deepest, let module = try source.module(name, keepsSignature: keepsSignatures) else {
            let missing = MissingModule(
                name: name, release: release, looked: source.place, purpose: wanted.purpose, neededBy: neededBy,
                option: neededBy == nil ? wanted.option : nil)
            if source.knowsBuiltIn, wanted.purpose != nil { throw .missing(missing) }
            // A device that a guest does without is worth a word where it is known that it has to.
            if wanted.purpose != nil || (source.knowsBuiltIn && wanted.option != nil) { self.missing.append(missing) }
            return
        }
        for soft in module.softDependencies {
            guard !source.isBuiltIn(soft) else { continue }
            // By a module's own name or another that it goes by; as good as built in where neither is found.
            if let other = source.holds(soft) ? soft : source.module(answeringTo: soft) {
                try add(other, for: .init(module: other), neededBy: nil, depth: depth + 1)
            }
        }
        for dependency in source.dependencies(of: module, named: name) {
            try add(dependency, for: wanted, neededBy: name, depth: depth + 1)
        }
        modules.append(module)
    }
}
