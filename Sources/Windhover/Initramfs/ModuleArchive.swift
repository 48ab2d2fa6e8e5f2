internal import Boot

/// The kernel modules of the `linux` image that a machine with virtio devices needs: an archive that is unpacked over the small
/// root, in the layout that `modprobe` and the kernel's own requests look for.
///
/// `/lib/modules/RELEASE` holds the object files, `modules.dep` (what each needs), `modules.alias` (which module a device or
/// a request is for), and `modules.order`: all of them in an order in which they can be loaded one after the other.
/// Source: [MODULES.DEP].
struct ModuleArchive {
    /// Drivers for what a machine can have, two file systems that are made of others, and what systemd mounts with. What they
    /// depend on comes with them.
    static let wanted = [
        "virtio_mmio", "virtio_pci", "virtio_rng", "virtio_blk", "virtio_net", "virtio_console", "virtio_balloon",
        "vmw_vsock_virtio_transport", "virtiofs", "overlay", "autofs4",
    ]
    static let sizeLimit: UInt64 = 64 << 20

    let release: String
    /// Each behind all that it depends on.
    let modules: [KernelModule]

    /// Picks the modules out of an unpacked kernel package. One that is not there is built in, or its device is of no use to
    /// this kernel.
    init(tree: String, release: String, wanted: [String] = Self.wanted) throws {
        var paths: [String: String] = [:]
        for top in ["lib/modules", "usr/lib/modules"] { Self.find("\(tree)/\(top)/\(release)", into: &paths) }
        self.release = release
        modules = try Self.closure(of: wanted) { name in
            guard let path = paths[name] else { return nil }
            let contents = try ImageBytes(file: path).unpackedContents(limit: Self.sizeLimit)
            return KernelModule(contents, fileName: String(path.split(separator: "/").last ?? ""))
        }
    }

    /// The object files below a directory, by their modules' names.
    static func find(_ directory: String, into paths: inout [String: String]) {
        for name in HostFile.names(in: directory) {
            let path = "\(directory)/\(name)"
            // Symbolic links lead to the kernel's sources.
            guard let facts = HostFile.facts(path) else { continue }
            if facts.isDirectory {
                find(path, into: &paths)
            } else if facts.isRegular, name.hasSuffix(".ko") || name.contains(".ko.") {
                paths[KernelModule.name(ofFile: name)] = path
            }
        }
    }

    /// The modules named and what they need, each behind all that it needs.
    /// - Parameter module: finds one; nil for one that is not there.
    static func closure(of wanted: [String], module: (String) throws -> KernelModule?) rethrows -> [KernelModule] {
        var modules: [KernelModule] = []
        // Names come in before what they depend on is looked at, so that a circle comes to an end.
        var seen: Set<String> = []
        func add(_ name: String) throws {
            guard seen.insert(name).inserted, let found = try module(name) else { return }
            for dependency in found.softDependencies + found.dependencies { try add(dependency) }
            modules.append(found)
        }
        for name in wanted { try add(name) }
        return modules
    }

    init(release: String, modules: [KernelModule]) {
        self.release = release
        self.modules = modules
    }

    /// The newc archive.
    var archive: [UInt8] {
        var archive = CPIOArchive()
        add(to: &archive)
        return archive.finished()
    }

    /// Where the object files are in the guest, without a leading slash.
    var directory: String { "lib/modules/\(release)" }

    /// Adds the directories and files to an archive that may hold more.
    func add(to archive: inout CPIOArchive) {
        for path in ["lib", "lib/modules", directory] { archive.addDirectory(path) }
        for module in modules { archive.addFile("\(directory)/\(module.name).ko", module.contents) }
        archive.addFile("\(directory)/modules.dep", Array(dependencies.utf8))
        archive.addFile("\(directory)/modules.alias", Array(aliases.utf8))
        archive.addFile("\(directory)/modules.order", Array(modules.map { "\($0.name).ko\n" }.joined().utf8))
    }

    /// `a.ko: b.ko c.ko`: all that a needs, the last of it first to load.
    private var dependencies: String {
        let byName = Dictionary(modules.map { ($0.name, $0) }) { first, _ in first }
        return modules.map { module in
            let needed = Self.closure(of: module.dependencies) { byName[$0] }.filter { $0.name != module.name }
            return "\(module.name).ko:" + needed.reversed().map { " \($0.name).ko" }.joined() + "\n"
        }.joined()
    }

    private var aliases: String {
        modules.map { module in module.aliases.map { "alias \($0) \(module.name)\n" }.joined() }.joined()
    }
}
