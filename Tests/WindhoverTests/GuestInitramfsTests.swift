import Testing
import MonitorTesting

@testable import Windhover

/// A directory of modules as `make modules_install` fills it.
final class TestModuleTree {
    let directory = TemporaryDirectory()
    let release: String
    var path: String { "\(directory.path)/lib/modules/\(release)" }
    private var dependencyLines = ""

    init(release: String = "6.1.0-test") {
        self.release = release
        try? HostFile.makeDirectory(path)
    }

    func add(_ name: String, depends: [String] = [], softdep: String? = nil, below place: String = "kernel/drivers") throws {
        try HostFile.makeDirectory("\(path)/\(place)")
        let module = TestModule(name: name, depends: depends.joined(separator: ","), softdep: softdep)
        try HostFile.create("\(path)/\(place)/\(name).ko", with: module.bytes)
        dependencyLines += "\(place)/\(name).ko:" + depends.map { " kernel/drivers/\($0).ko" }.joined() + "\n"
    }

    func write(_ name: String, _ text: String) throws { try HostFile.create("\(path)/\(name)", with: Array(text.utf8)) }
    func writeDependencies() throws { try write("modules.dep", dependencyLines) }

    var source: ModuleSource { .directory(path) }
}

@Suite struct GuestInitramfsTests {
    private let agent: [UInt8] = Array("agent".utf8)

    private func make(
        _ tree: TestModuleTree, _ needs: MachineNeeds, extent: GuestInitramfs.Extent = .needed
    ) throws -> GuestInitramfs {
        try GuestInitramfs(agent: agent, release: tree.release, source: tree.source, needs: needs, extent: extent)
    }

    private func list(_ initramfs: GuestInitramfs) throws -> String {
        let root = try CPIOReader(initramfs.bytes)
        return String(decoding: try #require(root["windhover/modules"]).data, as: UTF8.self)
    }

    private var socketOnly: MachineNeeds {
        var needs = MachineNeeds(transport: .pci)
        needs.hasEntropy = false
        return needs
    }

    @Test func holdsTheAgentAndWhatItMountsOn() throws {
        let root = try CPIOReader(
            GuestInitramfs(agent: agent, release: nil, source: .builtIn, needs: socketOnly).bytes)
        #expect(root["init"]?.mode == 0o100755 && root["init"]?.data == agent)
        #expect(root["dev/console"]?.mode == 0o020600 && root["dev/null"]?.mode == 0o020666)
        #expect(try #require(root["dev/console"]).device == (5, 1))
        for name in ["dev", "etc", "lib", "mnt", "proc", "run", "sys"] { #expect(root[name]?.mode == 0o040755) }
        #expect(root["root"]?.mode == 0o040700 && root["tmp"]?.mode == 0o041777)
        #expect(root["windhover/modules"]?.data.isEmpty == true)
        #expect(root["lib/modules"] == nil)
        // A directory comes before what is in it.
        var seen: Set<String> = []
        for entry in root.entries {
            if let slash = entry.name.lastIndex(of: "/") { #expect(seen.contains(String(entry.name[..<slash])), "\(entry.name)") }
            seen.insert(entry.name)
        }
    }

    /// A tree with all that a machine can want.
    private func fullTree(_ release: String = "6.1.0-test") throws -> TestModuleTree {
        let tree = TestModuleTree(release: release)
        try tree.add("virtio_ring")
        try tree.add("virtio", depends: ["virtio_ring"])
        try tree.add("virtio_pci", depends: ["virtio", "virtio_ring"])
        try tree.add("virtio_mmio", depends: ["virtio", "virtio_ring"])
        try tree.add("virtio_rng", depends: ["virtio"])
        try tree.add("vsock")
        try tree.add("vsock_common", depends: ["vsock", "virtio"])
        try tree.add("vmw_vsock_virtio_transport", depends: ["vsock_common", "vsock", "virtio"])
        try tree.add("fuse")
        try tree.add("virtiofs", depends: ["fuse", "virtio"])
        try tree.add("overlay")
        try tree.add("virtio_blk", depends: ["virtio"])
        try tree.add("jbd2")
        try tree.add("ext4", depends: ["jbd2"], softdep: "pre: crc32c")
        try tree.add("crc32c_intel")
        try tree.add("crc32c_generic")
        try tree.add("failover")
        try tree.add("virtio_net", depends: ["failover", "virtio"])
        try tree.add("virtio_balloon", depends: ["virtio"])
        try tree.add("unwanted")
        try tree.write("modules.alias", "# one\nalias crc32cx wrong\nalias crc32c crc32c_intel\nalias crc32c crc32c_generic\n")
        return tree
    }

    private var everything: MachineNeeds {
        var needs = MachineNeeds(transport: .mmio)
        needs.hasShares = true
        needs.hasOverlay = true
        needs.hasNetwork = true
        needs.hasDisks = true
        needs.fileSystems = ["ext4"]
        needs.hasBalloon = true
        return needs
    }

    /// With the list of what each needs and without, whose order is the same.
    @Test(arguments: [true, false]) func eachModuleBehindWhatItNeeds(withList: Bool) throws {
        let tree = try fullTree()
        if withList { try tree.writeDependencies() }
        let initramfs = try make(tree, everything)
        let order = initramfs.modules
        #expect(Set(order).count == order.count)
        func isBefore(_ first: String, _ second: String) -> Bool {
            guard let one = order.firstIndex(of: first), let other = order.firstIndex(of: second) else { return false }
            return one < other
        }
        for (name, needed) in [
            ("virtio", ["virtio_ring"]), ("virtio_mmio", ["virtio", "virtio_ring"]), ("virtio_rng", ["virtio"]),
            ("vsock_common", ["vsock"]), ("vmw_vsock_virtio_transport", ["vsock_common", "vsock"]), ("virtiofs", ["fuse"]),
            ("ext4", ["jbd2"]), ("virtio_net", ["failover"]),
        ] {
            for other in needed { #expect(isBefore(other, name), "\(other) before \(name)") }
        }
        // Devices are there before their drivers' turn comes, and randomness before whoever waits for it.
        #expect(isBefore("virtio_mmio", "virtio_rng") && isBefore("virtio_rng", "vmw_vsock_virtio_transport"))
        #expect(isBefore("crc32c_generic", "ext4"))
        #expect(!order.contains("crc32c_intel") && !order.contains("virtio_pci") && !order.contains("unwanted"))
        #expect(initramfs.missing.isEmpty)

        let root = try CPIOReader(initramfs.bytes)
        let paths = try list(initramfs).split(separator: "\n")
        #expect(paths.map(String.init) == order.map { "/lib/modules/6.1.0-test/\($0).ko" })
        for path in paths { #expect(root[String(path.dropFirst())]?.data.isEmpty == false) }
        // Nothing else is there to be unpacked.
        #expect(root.entries.count { $0.name.hasSuffix(".ko") } == order.count)
    }

    @Test func onlyWhatTheMachineHas() throws {
        let tree = try fullTree()
        try tree.writeDependencies()
        #expect(
            try make(tree, socketOnly).modules == [
                "virtio_ring", "virtio", "virtio_pci", "vsock", "vsock_common", "vmw_vsock_virtio_transport",
            ])
    }

    @Test func theOthersAreThereAndNotLoaded() throws {
        let tree = try fullTree()
        try tree.writeDependencies()
        let initramfs = try make(tree, socketOnly, extent: .all)
        #expect(initramfs.modules == (try make(tree, socketOnly).modules))
        let root = try CPIOReader(initramfs.bytes)
        #expect(root["lib/modules/6.1.0-test/virtiofs.ko"] != nil && root["lib/modules/6.1.0-test/unwanted.ko"] == nil)
        #expect(try list(initramfs).split(separator: "\n").count == initramfs.modules.count)
        let lines = String(decoding: try #require(root["lib/modules/6.1.0-test/modules.dep"]).data, as: UTF8.self)
        #expect(lines.contains("virtiofs.ko:"))
    }

    // MARK: What is built in or missing

    @Test func whatIsBuiltInIsNotMissed() throws {
        let tree = TestModuleTree()
        try tree.add("vmw_vsock_virtio_transport", depends: ["vsock"])
        try tree.add("vsock")
        try tree.writeDependencies()
        try tree.write("modules.builtin", "kernel/drivers/virtio/virtio.ko\nkernel/drivers/virtio/virtio-pci.ko\n")
        let initramfs = try make(tree, socketOnly)
        #expect(initramfs.modules == ["vsock", "vmw_vsock_virtio_transport"] && initramfs.missing.isEmpty)
    }

    @Test func whatIsNeededAndNowhereIsAnError() throws {
        let tree = TestModuleTree()
        try tree.add("virtio_pci")
        try tree.add("vmw_vsock_virtio_transport")
        try tree.writeDependencies()
        try tree.write("modules.builtin", "kernel/fs/ext4/ext4.ko\n")
        var needs = socketOnly
        needs.hasShares = true
        let error = #expect(throws: GuestKernelError.self) { try make(tree, needs) }
        guard case .missing(let missing) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(missing.name == "virtiofs" && missing.looked == tree.path && missing.option == "CONFIG_VIRTIO_FS")
        let text = missing.description
        #expect(text.hasPrefix("the kernel 6.1.0-test has no module virtiofs, for shared directories: looked in '\(tree.path)'; "))
        #expect(text.contains("linux-modules-extra-6.1.0-test") && text.contains("CONFIG_VIRTIO_FS"))
        #expect(error?.exitStatus == .badConfiguration)
        // What a guest does without is a word to say.
        needs.hasShares = false
        needs.hasBalloon = true
        needs.possibleFileSystems = ["xfs"]
        #expect(try make(tree, needs).missing.map(\.name) == ["virtio_balloon"])
        // A file system by its type: one of another module's name, and one that is built in.
        needs.fileSystems = ["ext4", "iso9660"]
        #expect(throws: GuestKernelError.self) { try make(tree, needs) }
        needs.fileSystems = ["ext4"]
        #expect(try make(tree, needs).modules == ["virtio_pci", "vmw_vsock_virtio_transport"])
    }

    @Test func aDependencyThatIsNowhereIsNamedWithWhoNeedsIt() throws {
        let tree = TestModuleTree()
        try tree.add("virtio_pci", depends: ["virtio"])
        try tree.writeDependencies()
        try tree.write("modules.builtin", "")
        let error = #expect(throws: GuestKernelError.self) { try make(tree, socketOnly) }
        #expect(error?.description.contains("has no module virtio, which virtio_pci needs, for its devices") == true)
    }

    /// Where nobody says what is built in, nothing is known to be missing: the guest will tell.
    @Test func withoutAListOfWhatIsBuiltInNothingIsAnError() throws {
        let tree = TestModuleTree()
        try tree.add("virtio_pci")
        #expect(try make(tree, socketOnly).missing.map(\.name) == ["vmw_vsock_virtio_transport"])
    }

    // MARK: Compressed and hostile

    @Test(arguments: ["gzip", "xz", "zstd"]) func compressedModules(program: String) throws {
        let tree = TestModuleTree()
        try tree.add("virtio_pci", depends: ["virtio"])
        try tree.add("virtio")
        let file = "\(tree.path)/kernel/drivers/virtio.ko"
        // The tests' host need not have each of the programs.
        guard let result = try? HostCommand([program, file]).run(), result.status == 0 else { return }
        let suffix = ["gzip": "gz", "xz": "xz", "zstd": "zst"][program] ?? ""
        try tree.write(
            "modules.dep", "kernel/drivers/virtio_pci.ko: kernel/drivers/virtio.ko.\(suffix)\nkernel/drivers/virtio.ko.\(suffix):\n")
        if program == "zstd" { try HostFile.remove(file) }
        let root = try CPIOReader(make(tree, socketOnly).bytes)
        #expect(difference(of: root["lib/modules/6.1.0-test/virtio.ko"]?.data ?? [], from: TestModule(name: "virtio").bytes) == nil)
    }

    @Test func aModuleThatIsNoneIsAnErrorWithItsPath() throws {
        let tree = TestModuleTree()
        try tree.add("vsock")
        // Nothing, a text, packed data that ends where it begins, and a module that is cut off.
        for contents in [[], Array("no module".utf8), [0x1F, 0x8B, 8, 0], Array(TestModule().bytes.prefix(100))] {
            try HostFile.create("\(tree.path)/virtio_pci.ko", with: contents)
            let error = #expect(throws: GuestKernelError.self) { try make(tree, socketOnly) }
            #expect(error?.description.contains("\(tree.path)/virtio_pci.ko") == true)
            try HostFile.remove("\(tree.path)/virtio_pci.ko")
        }
    }

    @Test func listsThatLeadElsewhereOrRoundInCircles() throws {
        let tree = TestModuleTree()
        try tree.add("virtio_pci", depends: ["virtio_pci", "a"])
        try tree.add("a", depends: ["b"])
        try tree.add("b", depends: ["a"], softdep: "pre: a b nothing")
        let outside = tree.directory.file("vsock.ko", "secret")
        try tree.write(
            "modules.dep",
            """
            kernel/drivers/virtio_pci.ko: kernel/drivers/virtio_pci.ko kernel/drivers/a.ko
            kernel/drivers/a.ko: kernel/drivers/b.ko
            kernel/drivers/b.ko: kernel/drivers/a.ko
            \(outside):
            ../../../vmw_vsock_virtio_transport.ko:
            no line
            :
            :::

            """)
        let initramfs = try make(tree, socketOnly)
        #expect(initramfs.modules == ["b", "a", "virtio_pci"])
        #expect(initramfs.missing.map(\.name) == ["vmw_vsock_virtio_transport"])
    }

    /// A chain of a thousand names ends as one that is missing.
    @Test func chainsThatAreTooLong() throws {
        let tree = TestModuleTree()
        try tree.add("virtio_pci", depends: ["m0"])
        for index in 0..<100 { try tree.add("m\(index)", depends: ["m\(index + 1)"]) }
        try tree.write("modules.builtin", "")
        #expect(throws: GuestKernelError.self) { try make(tree, socketOnly) }
    }

    // MARK: The store's archive

    @Test func picksOutOfAnArchive() throws {
        let directory = TemporaryDirectory()
        let tree = try fullTree()
        let all = try ModuleArchive(
            tree: tree.directory.path, release: "6.1.0-test", wanted: ["virtio_pci", "vmw_vsock_virtio_transport", "virtiofs", "overlay"])
        let path = directory.path + "/modules.cpio"
        try HostFile.create(path, with: all.archive)
        var needs = MachineNeeds(transport: .pci)
        needs.hasShares = true
        needs.hasDisks = true
        let initramfs = try GuestInitramfs(agent: agent, release: "6.1.0-test", source: .archive(path: path), needs: needs)
        #expect(
            initramfs.modules == [
                "virtio_ring", "virtio", "virtio_pci", "vsock", "vsock_common", "vmw_vsock_virtio_transport", "fuse", "virtiofs",
            ])
        // What is not in the archive of an image is built in, as far as anybody knows.
        #expect(initramfs.missing.map(\.name) == ["virtio_blk"])

        // Cut off or changed anywhere it is an error or an archive, and never more than that.
        var random = SeededRandom(seed: 5)
        for _ in 0..<200 {
            var bytes = all.archive
            for _ in 0...3 { bytes[random.below(bytes.count)] = UInt8(random.below(256)) }
            if random.oneIn(3) { bytes.removeLast(random.below(bytes.count)) }
            try HostFile.remove(path)
            try HostFile.create(path, with: bytes)
            _ = try? GuestInitramfs(agent: agent, release: "6.1.0-test", source: .archive(path: path), needs: needs)
        }
        try HostFile.remove(path)
        try HostFile.create(path, with: Array("070701".utf8))
        let error = #expect(throws: GuestKernelError.self) {
            try GuestInitramfs(agent: agent, release: "6.1.0-test", source: .archive(path: path), needs: needs)
        }
        #expect(error?.description.contains(path) == true)
    }
}
