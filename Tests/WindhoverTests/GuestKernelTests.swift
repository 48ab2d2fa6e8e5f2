import MonitorTesting
import Testing

@testable import Windhover

/// Files that pass for kernels as far as finding one goes.
private enum TestKernel {
    /// A bzImage's header, and the text that it leads to.
    static func bzImage(_ release: String) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 4096)
        bytes.replaceSubrange(0x1FE..<0x200, with: [0x55, 0xAA])
        bytes.replaceSubrange(0x202..<0x206, with: Array("HdrS".utf8))
        bytes.replaceSubrange(0x206..<0x208, with: [0x0F, 0x02])
        bytes.replaceSubrange(0x20E..<0x210, with: [0x00, 0x04])
        let text = Array("\(release) (builder) #1".utf8)
        bytes.replaceSubrange(0x600..<0x600 + text.count, with: text)
        return bytes
    }
}

/// Which kernel a choice comes to, and where its modules are found.
@Suite struct GuestKernelTests {
    private let directory = TemporaryDirectory()
    private var store: ImageStore { ImageStore(cacheDirectory: directory.path + "/cache") }

    @discardableResult
    private func put(_ name: String, _ bytes: [UInt8]) throws -> String {
        let path = "\(directory.path)/\(name)"
        if let slash = path.lastIndex(of: "/") { try HostFile.makeDirectory(String(path[..<slash])) }
        try HostFile.create(path, with: bytes)
        return path
    }

    @discardableResult
    private func kernel(_ name: String, _ release: String) throws -> String { try put(name, TestKernel.bzImage(release)) }

    private func locate(
        _ choice: KernelChoice, modules: String? = nil, release: String = "6.9.0-none", isReadable: ((String) -> Bool)? = nil
    ) throws(GuestKernelError) -> GuestKernel {
        var host = GuestKernel.Host()
        host.root = directory.path + "/host"
        host.release = release
        if let isReadable { host.isReadable = isReadable }
        return try GuestKernel.locate(choice, modules: modules, store: store, host: host)
    }

    @Test func choices() {
        #expect(KernelChoice("linux") == .linux && KernelChoice("host") == .host)
        #expect(KernelChoice("./linux") == .path("./linux") && KernelChoice("bzImage") == .path("bzImage"))
    }

    // MARK: The store's

    @Test func theStoresImage() throws {
        let error = #expect(throws: GuestKernelError.self) { try locate(.linux) }
        #expect(error?.exitStatus == .noSuchFile && error?.description.contains("hover images fetch linux") == true)
        let place = "cache/images/\(ImageManifest.currentFormat)/linux"
        try kernel("\(place)/vmlinuz", "6.1.0-56-cloud-amd64")
        try put("\(place)/initrd.cpio", [1])
        let bare = try locate(.linux)
        #expect(bare.release == "6.1.0-56-cloud-amd64" && bare.modules == .builtIn && bare.preparedPath == nil)
        #expect(bare.bootPath == bare.path)
        let archive = try put("\(place)/modules.cpio", ModuleArchive(release: "6.1.0-56-cloud-amd64", modules: []).archive)
        let prepared = try put("\(place)/kernel.prepared", [1])
        let whole = try locate(.linux)
        #expect(whole.modules == .archive(path: archive) && whole.bootPath == prepared)
        // A directory that is named comes before.
        let named = try put("other/modules.dep", [])
        #expect(try locate(.linux, modules: directory.path + "/other").modules == .directory(String(named.dropLast("/modules.dep".count))))
    }

    // MARK: A file

    @Test func aFileWithItsModulesBesideIt() throws {
        let path = try kernel("tree/boot/vmlinuz-6.1.5", "6.1.5")
        #expect(try locate(.path(path)).modules == .builtIn)
        // The host's, a tree that both are in, and beside the kernel: the nearer comes first.
        try put("host/usr/lib/modules/6.1.5/modules.builtin", [])
        #expect(try locate(.path(path)).modules == .directory("\(directory.path)/host/usr/lib/modules/6.1.5"))
        try put("tree/lib/modules/6.1.5/modules.dep", [])
        #expect(try locate(.path(path)).modules == .directory("\(directory.path)/tree/lib/modules/6.1.5"))
        try put("tree/boot/lib/modules/6.1.5/kernel/x.ko", [])
        #expect(try locate(.path(path)).modules == .directory("\(directory.path)/tree/boot/lib/modules/6.1.5"))
        #expect(try locate(.path(path)).release == "6.1.5")
        // Where a kernel's file has come to lie with its modules.
        let inside = try kernel("usr/lib/modules/6.1.6/vmlinuz", "6.1.6")
        try put("usr/lib/modules/6.1.6/modules.dep", [])
        #expect(try locate(.path(inside)).modules == .directory("\(directory.path)/usr/lib/modules/6.1.6"))
    }

    @Test func theDirectoryThatIsNamed() throws {
        let path = try kernel("vmlinuz", "6.1.5")
        let top = directory.path + "/given"
        let error = #expect(throws: GuestKernelError.self) { try locate(.path(path), modules: top) }
        #expect(error == .noModules(directory: top, release: "6.1.5") && error?.exitStatus == .noSuchFile)
        for (place, found) in [
            ("usr/lib/modules/6.1.5", "usr/lib/modules/6.1.5"), ("lib/modules/6.1.5", "lib/modules/6.1.5"), ("6.1.5", "6.1.5"), ("", ""),
        ] {
            try put("given/\(place)/modules.dep", [])
            let end = found.isEmpty ? "" : "/\(found)"
            #expect(try locate(.path(path), modules: top).modules == .directory(top + end))
        }
    }

    /// A kernel without a release in it is taken to be the one whose modules it is given.
    @Test func aKernelThatDoesNotSayWhatItIs() throws {
        let path = try kernel("vmlinuz", "")
        #expect(try locate(.path(path)).release == nil)
        try put("some/6.2.0-x/modules.dep", [])
        let found = try locate(.path(path), modules: directory.path + "/some/6.2.0-x")
        #expect(found.release == "6.2.0-x")
        // And one that has neither gets an archive of the agent alone.
        let initramfs = try locate(.path(path)).initramfs(agent: [1], needs: MachineNeeds(transport: .mmio))
        #expect(initramfs.modules.isEmpty)
    }

    @Test func filesThatAreNoKernels() throws {
        let missing = #expect(throws: GuestKernelError.self) { try locate(.path(directory.path + "/nothing")) }
        #expect(missing?.exitStatus == .noSuchFile)
        let text = try put("text", Array("#!/bin/sh\n".utf8))
        let other = #expect(throws: GuestKernelError.self) { try locate(.path(text)) }
        #expect(other?.exitStatus == .badConfiguration && other?.description.contains(text) == true)
        let empty = try put("empty", [])
        #expect(throws: GuestKernelError.file(.empty(role: "kernel", path: empty))) { try locate(.path(empty)) }
        // A boot sector starts, and is no Linux.
        let sector = try put("sector", [UInt8](repeating: 0x90, count: 510) + [0x55, 0xAA])
        #expect(throws: GuestKernelError.notLinux(path: sector)) { try locate(.path(sector)) }
    }

    @Test func aKernelThatWantsSignatures() throws {
        let path = try kernel("boot/vmlinuz-6.1.5", "6.1.5")
        let tree = TestModuleTree(release: "6.1.5")
        let signed = TestModule(name: "virtio_mmio", signature: [1, 2, 3]).bytes
        try HostFile.create(tree.path + "/virtio_mmio.ko", with: signed)
        func module() throws -> [UInt8]? {
            let initramfs = try locate(.path(path), modules: tree.path).initramfs(agent: [1], needs: MachineNeeds(transport: .mmio))
            return try CPIOReader(initramfs.bytes)["lib/modules/6.1.5/virtio_mmio.ko"]?.data
        }
        #expect(try difference(of: module() ?? [], from: TestModule(name: "virtio_mmio").bytes) == nil)
        try put("boot/config-6.1.5", Array("CONFIG_A=y\nCONFIG_MODULE_SIG_FORCE=y\n".utf8))
        #expect(try difference(of: module() ?? [], from: signed) == nil)
    }

    // MARK: The host's

    @Test func theHostsKernelThatRuns() throws {
        try kernel("host/boot/vmlinuz-6.8.0-45-generic", "6.8.0-45-generic")
        try kernel("host/boot/vmlinuz-6.8.0-100-generic", "6.8.0-100-generic")
        try put("host/lib/modules/6.8.0-45-generic/modules.dep", [])
        let found = try locate(.host, release: "6.8.0-45-generic")
        #expect(found.path == directory.path + "/host/boot/vmlinuz-6.8.0-45-generic")
        #expect(found.modules == .directory(directory.path + "/host/lib/modules/6.8.0-45-generic"))
        // In a container the kernel that runs is not the one that is installed: the newest, then.
        #expect(try locate(.host).path == directory.path + "/host/boot/vmlinuz-6.8.0-100-generic")
    }

    @Test func hostsThatKeepKernelsWithTheirModules() throws {
        let path = try kernel("host/usr/lib/modules/6.10.3-200.fc40.x86_64/vmlinuz", "6.10.3-200.fc40.x86_64")
        try put("host/usr/lib/modules/6.10.3-200.fc40.x86_64/modules.dep", [])
        for running in ["6.10.3-200.fc40.x86_64", "6.9.0-none"] {
            let found = try locate(.host, release: running)
            #expect(found.path == path && found.release == "6.10.3-200.fc40.x86_64")
            #expect(found.modules == .directory(directory.path + "/host/usr/lib/modules/6.10.3-200.fc40.x86_64"))
        }
    }

    @Test func kernelsThatThisUserMayNotRead() throws {
        let running = try kernel("host/boot/vmlinuz-6.8.0-45-generic", "6.8.0-45-generic")
        let older = try kernel("host/boot/vmlinuz-6.5.0-1-generic", "6.5.0-1-generic")
        #expect(try locate(.host, release: "6.8.0-45-generic", isReadable: { $0 == older }).path == older)
        let error = #expect(throws: GuestKernelError.self) {
            try locate(.host, release: "6.8.0-45-generic", isReadable: { _ in false })
        }
        #expect(error == .unreadableHostKernel(path: running) && error?.exitStatus == .notPermitted)
        #expect(error?.description.contains("chmod 644 '\(running)'") == true)
    }

    @Test func aHostWithoutAKernel() throws {
        let error = #expect(throws: GuestKernelError.self) { try locate(.host) }
        #expect(error?.description.contains(directory.path + "/host/boot/vmlinuz-6.9.0-none") == true)
        #expect(error?.exitStatus == .noSuchFile)
    }

    @Test func releasesByAge() {
        let sorted = ["5.9", "5.10", "5.10.1", "6.1.0-7", "6.1.0-56", "6.8.0-45-generic", "6.8.0-100-generic"]
        for (older, newer) in zip(sorted, sorted.dropFirst()) {
            #expect(GuestKernel.Host.isOlder(older, than: newer) && !GuestKernel.Host.isOlder(newer, than: older))
        }
        #expect(!GuestKernel.Host.isOlder("6.1", than: "6.1") && !GuestKernel.Host.isOlder("6.01", than: "6.1"))
    }
}
