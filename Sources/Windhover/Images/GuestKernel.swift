internal import Boot

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Which kernel a guest is to have: `--kernel`.
public enum KernelChoice: Hashable, Sendable {
    /// The store's image `linux`.
    case linux
    /// The one that this host has installed.
    case host
    /// A file: a bzImage or a vmlinux.
    case path(String)

    /// How its guests reach their devices if nothing else is said. Behind PCI there are a bus to be walked and three drivers more to be
    /// loaded; but not every kernel has the driver of memory-mapped ones.
    var usualTransport: VirtioTransport { self == .linux ? .mmio : .pci }

    /// `linux`, `host`, or a path; a file of one of these names is `./linux`.
    public init(_ text: String) {
        switch text {
        case "linux": self = .linux
        case "host": self = .host
        default: self = .path(text)
        }
    }
}

/// A Linux kernel with its modules, found but not loaded.
public struct GuestKernel: Hashable, Sendable {
    /// The kernel's file.
    public let path: String
    /// The same in the form that starts fastest, where the store has it.
    public let preparedPath: String?
    /// What `uname -r` says in its guest; nil where the file does not tell.
    public let release: String?
    public let modules: ModuleSource
    /// Whether it loads no module without a signature.
    let wantsSignatures: Bool

    init(
        path: String, preparedPath: String? = nil, release: String?, modules: ModuleSource, wantsSignatures: Bool = false
    ) {
        self.path = path
        self.preparedPath = preparedPath
        self.release = release
        self.modules = modules
        self.wantsSignatures = wantsSignatures
    }

    /// The file to boot from.
    public var bootPath: String { preparedPath ?? path }

    /// The initial RAM file system for a machine, with the agent as its `/init`.
    ///
    /// - Throws: `GuestKernelError`: a module is missing that the machine needs, or cannot be used.
    public func initramfs(
        agent: [UInt8], needs: MachineNeeds, extent: GuestInitramfs.Extent = .needed
    ) throws(GuestKernelError) -> GuestInitramfs {
        try GuestInitramfs(
            agent: agent, release: release, source: modules, keepsSignatures: wantsSignatures, needs: needs, extent: extent)
    }

    /// Finds a kernel and where its modules are.
    ///
    /// - Parameters:
    ///   - modules: the directory that `--modules` names: one of a release, or one that holds `lib/modules/RELEASE`.
    ///   - store: where the image `linux` is, once it is fetched.
    public static func locate(
        _ choice: KernelChoice, modules: String? = nil, store: ImageStore
    ) throws(GuestKernelError) -> GuestKernel {
        try locate(choice, modules: modules, store: store, host: .init())
    }

    static func locate(
        _ choice: KernelChoice, modules: String?, store: ImageStore, host: Host
    ) throws(GuestKernelError) -> GuestKernel {
        switch choice {
        case .linux: return try locateImage("linux", modules: modules, store: store)
        case .path(let path): return try locateFile(path, modules: modules, host: host)
        case .host: return try locateFile(host.kernel(), modules: modules, host: host)
        }
    }

    private static func locateImage(
        _ name: String, modules: String?, store: ImageStore
    ) throws(GuestKernelError) -> GuestKernel {
        guard let files = store.locate(name) else { throw .notFetched(name) }
        let image = try open(files.kernel)
        let release = image.release()
        let source: ModuleSource =
            if let modules {
                .directory(try directory(modules, release: release))
            } else if let archive = files.modules {
                .archive(path: archive)
            } else {
                .builtIn
            }
        return GuestKernel(path: files.kernel, preparedPath: files.preparedKernel, release: release, modules: source)
    }

    private static func locateFile(_ path: String, modules: String?, host: Host) throws(GuestKernelError) -> GuestKernel {
        let image = try open(path)
        guard image.isLinux else { throw .notLinux(path: path) }
        var release = image.release()
        let parent = directory(of: path)
        var source = ModuleSource.builtIn
        if let modules {
            let directory = try directory(modules, release: release)
            // A kernel that does not say what it is has the modules that it is given.
            release = release ?? lastName(directory)
            source = .directory(directory)
        } else if let release {
            // Beside the kernel, also where it is in the `boot` of a tree or has come to lie with its modules; then the host's.
            var candidates = lastName(parent) == release ? [parent] : []
            candidates += [parent, parent == "." ? ".." : directory(of: parent), host.root].flatMap { top in
                ["lib", "usr/lib"].map { "\(top == "/" ? "" : top)/\($0)/modules/\(release)" }
            }
            if let found = candidates.first(where: holdsModules) { source = .directory(found) }
        }
        return GuestKernel(
            path: path, release: release, modules: source,
            wantsSignatures: release.map { wantsSignatures($0, kernel: parent, modules: source) } ?? false)
    }

    private static func open(_ path: String) throws(GuestKernelError) -> BootImage {
        do throws(InputFileError) { try InputFile.check(path, role: "kernel") } catch { throw .file(error) }
        do throws(BootError) { return try BootImage(ImageBytes(file: path)) } catch {
            let error = RunError(error)
            throw .badKernel(reason: error.description, exitStatus: error.exitStatus)
        }
    }

    // MARK: Modules

    /// The directory of a release that `--modules` means.
    private static func directory(_ given: String, release: String?) throws(GuestKernelError) -> String {
        var candidates = [given]
        if let release {
            candidates += ["\(given)/\(release)", "\(given)/lib/modules/\(release)", "\(given)/usr/lib/modules/\(release)"]
        }
        guard let found = candidates.first(where: holdsModules) else { throw .noModules(directory: given, release: release) }
        return found
    }

    /// Whether a directory is one of a release: it has one of the lists, or the tree of the object files.
    private static func holdsModules(_ directory: String) -> Bool {
        ["modules.dep", "modules.builtin", "kernel"].contains { HostFile.facts("\(directory)/\($0)") != nil }
            || HostFile.names(in: directory).contains { $0.hasSuffix(".ko") || $0.contains(".ko.") }
    }

    /// What the configuration says that packages put beside the kernel or its modules. Without one it is as with nearly all.
    private static func wantsSignatures(_ release: String, kernel parent: String, modules: ModuleSource) -> Bool {
        var candidates = ["\(parent)/config-\(release)"]
        if case .directory(let directory) = modules { candidates.append("\(directory)/config") }
        for path in candidates {
            guard let text = try? HostFile.contents(of: path, limit: 4 << 20) else { continue }
            return text.split(separator: UInt8(ascii: "\n")).contains { $0.elementsEqual("CONFIG_MODULE_SIG_FORCE=y".utf8) }
        }
        return false
    }

    private static func directory(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    private static func lastName(_ path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }
}

extension GuestKernel {
    /// The host, as far as its own kernels go.
    struct Host {
        /// What stands before `/boot` and `/lib/modules`: nothing, but in tests.
        var root = ""
        /// What the running kernel calls itself.
        var release = Self.runningRelease
        var isReadable: (String) -> Bool = { path in unsafe access(path, R_OK) == 0 }

        private static var runningRelease: String {
            var name = utsname()
            guard unsafe uname(&name) == 0 else { return "" }
            return unsafe withUnsafeBytes(of: name.release) { unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        }

        /// The kernel that runs, else the newest that this user may read.
        func kernel() throws(GuestKernelError) -> String {
            let tops = ["\(root)/lib/modules", "\(root)/usr/lib/modules"]
            let running = ["\(root)/boot/vmlinuz-\(release)"] + tops.map { "\($0)/\(release)/vmlinuz" }
            let there = running.filter { HostFile.facts($0) != nil }
            if let path = there.first(where: isReadable) { return path }

            var others: [(release: String, path: String)] = []
            for name in HostFile.names(in: "\(root)/boot") where name.hasPrefix("vmlinuz-") {
                others.append((String(name.dropFirst("vmlinuz-".count)), "\(root)/boot/\(name)"))
            }
            for top in tops {
                for name in HostFile.names(in: top) where HostFile.facts("\(top)/\(name)/vmlinuz") != nil {
                    others.append((name, "\(top)/\(name)/vmlinuz"))
                }
            }
            // Distributions' rescue kernels have a machine's identifier in the place of a release.
            others.removeAll { $0.release.first?.isNumber != true }
            others.sort { Self.isOlder($1.release, than: $0.release) }
            if let newest = others.first(where: { isReadable($0.path) }) { return newest.path }
            if let path = there.first ?? others.first?.path { throw .unreadableHostKernel(path: path) }
            throw .noHostKernel(looked: running)
        }

        /// Compares as people do: runs of digits as numbers, all else as text.
        static func isOlder(_ first: String, than second: String) -> Bool {
            var (left, right) = (first[...], second[...])
            while let a = left.first, let b = right.first {
                if a.isASCII, a.isNumber, b.isASCII, b.isNumber {
                    let one = left.prefix { $0.isASCII && $0.isNumber }
                    let other = right.prefix { $0.isASCII && $0.isNumber }
                    left = left.dropFirst(one.count)
                    right = right.dropFirst(other.count)
                    let (x, y) = (one.drop { $0 == "0" }, other.drop { $0 == "0" })
                    if x.count != y.count { return x.count < y.count }
                    if x != y { return x < y }
                } else {
                    if a != b { return a < b }
                    left = left.dropFirst()
                    right = right.dropFirst()
                }
            }
            return left.isEmpty && !right.isEmpty
        }
    }
}
