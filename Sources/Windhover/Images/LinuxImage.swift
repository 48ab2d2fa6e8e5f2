internal import Boot

/// The recipe of the image `linux`: Debian's own cloud kernel, untouched, and a root made of its static busybox.
struct LinuxImage {
    /// A directory of ours that is removed afterwards.
    let work: String
    let tools: String
    let isCancelled: () -> Bool
    let progress: (FetchProgress) -> Void

    /// The meta package whose dependency is the newest kernel of its kind.
    static let kernelMetaPackage = "linux-image-cloud-amd64"
    static let kernelPackagePrefix = "linux-image-"
    static let busyboxPackage = "busybox-static"

    /// Where each step's part of the whole begins, and where the last one ends: by the time they take.
    private static let starts: [FetchProgress.Step: (Double, Double)] = [
        .lists: (0, 0.35), .download: (0.35, 0.8), .unpack: (0.8, 0.9), .prepare: (0.9, 0.97), .finish: (0.97, 1),
    ]

    private func report(_ step: FetchProgress.Step, _ part: Double) {
        let (start, end) = Self.starts[step] ?? (0, 0)
        progress(FetchProgress(step: step, fraction: start + (end - start) * part))
    }

    /// Reports a step's start, or ends the fetch where that is wanted.
    private func begin(_ step: FetchProgress.Step) throws(ImageError) {
        if isCancelled() { throw .interrupted }
        report(step, 0)
    }

    /// Makes the image's directory, complete with its manifest.
    func make(into target: String) throws {
        try begin(.lists)
        let packages = try DebianPackages(directory: work + "/apt", tools: tools, isCancelled: isCancelled)
        try HostFile.makeDirectory(target)
        let trouble = try packages.update { report(.lists, $0) }
        let offers = try find(in: packages, trouble: trouble)

        try begin(.download)
        try packages.download([offers.kernel, offers.busybox]) { report(.download, $0) }

        try begin(.unpack)
        let kernelTree = work + "/kernel"
        try packages.unpack(offers.kernel, to: kernelTree)
        let boot = kernelTree + "/boot"
        guard let file = HostFile.names(in: boot).first(where: { $0.hasPrefix("vmlinuz-") }) else {
            throw ImageError.damaged("the package \(offers.kernel.name) holds no kernel")
        }
        let kernel = try HostFile.contents(of: "\(boot)/\(file)", limit: 1 << 30)
        let release = String(file.dropFirst("vmlinuz-".count))
        try HostFile.create("\(target)/\(ImageStore.kernelFile)", with: kernel)
        let modules = try makeModules(kernelTree, release: release, package: offers.kernel.name)
        if let modules { try HostFile.create("\(target)/\(ImageStore.modulesFile)", with: modules) }
        try HostFile.remove(kernelTree)
        report(.unpack, 0.8)
        try HostFile.create("\(target)/\(ImageStore.initrdFile)", with: try makeRoot(packages, offers.busybox))

        try begin(.prepare)
        let prepared = prepare(
            kernel: "\(target)/\(ImageStore.kernelFile)", into: "\(target)/\(ImageStore.preparedKernelFile)")

        try begin(.finish)
        var names = [ImageStore.kernelFile, ImageStore.initrdFile]
        if prepared { names.append(ImageStore.preparedKernelFile) }
        if modules != nil { names.append(ImageStore.modulesFile) }
        let files = try names.map { name in
            let path = "\(target)/\(name)"
            return ImageManifest.File(
                name: name, size: HostFile.facts(path)?.size ?? 0, sha256: try DebianPackages.sha256(path))
        }
        let manifest = ImageManifest(
            name: "linux", release: release, version: offers.kernel.version,
            packages: [offers.kernel, offers.busybox].map {
                .init(name: $0.name, version: $0.version, address: $0.address, sha256: $0.sha256)
            },
            files: files)
        try HostFile.create("\(target)/\(ImageStore.manifestFile)", with: try manifest.encoded)
        report(.finish, 1)
    }

    /// - Parameter trouble: what apt said of sources it could not reach: the likely reason for what is missing.
    private func find(
        in packages: DebianPackages, trouble: String?
    ) throws(ImageError) -> (kernel: DebianPackage, busybox: DebianPackage) {
        let reason = trouble ?? "this host's package sources do not have it"
        guard let name = try packages.dependency(of: Self.kernelMetaPackage, prefix: Self.kernelPackagePrefix) else {
            throw .packagesUnavailable(what: "Debian's kernel (\(Self.kernelMetaPackage))", reason: reason)
        }
        let offers = try packages.resolve([name, Self.busyboxPackage])
        guard let kernel = offers[0] else { throw .packagesUnavailable(what: name, reason: reason) }
        guard let busybox = offers[1] else { throw .packagesUnavailable(what: Self.busyboxPackage, reason: reason) }
        return (kernel, busybox)
    }

    /// - Returns: nil for a kernel that has nothing of it as a module.
    private func makeModules(_ tree: String, release: String, package: String) throws -> [UInt8]? {
        let modules: ModuleArchive
        do { modules = try ModuleArchive(tree: tree, release: release) } catch let error as BootError {
            throw ImageError.damaged("the package \(package) holds a module that cannot be read: \(error)")
        }
        return modules.modules.isEmpty ? nil : modules.archive
    }

    private func makeRoot(_ packages: DebianPackages, _ busybox: DebianPackage) throws -> [UInt8] {
        let tree = work + "/busybox"
        try packages.unpack(busybox, to: tree)
        let candidates = ["\(tree)/bin/busybox", "\(tree)/usr/bin/busybox"]
        guard let program = candidates.first(where: { HostFile.facts($0)?.isRegular == true }) else {
            throw ImageError.damaged("the package \(busybox.name) holds no busybox")
        }
        let list: HostCommand.Result
        do { list = try HostCommand([program, "--list-full"]).run() } catch {
            throw ImageError.cache(
                "a program that was unpacked in '\(work)' cannot be run: \(error); "
                    + "if that is a file system without programs (noexec), set XDG_CACHE_HOME to a directory on another")
        }
        guard list.status == 0 else {
            throw ImageError.damaged("the busybox of package \(busybox.name) does not run on this host")
        }
        return SmallRoot.archive(
            busybox: try HostFile.contents(of: program, limit: 64 << 20),
            applets: list.text.split(separator: "\n").map(String.init))
    }

    /// Puts the kernel into the form that starts fastest.
    /// - Returns: whether there is such a form; a kernel without one boots from its own file.
    private func prepare(kernel: String, into target: String) -> Bool {
        (try? PreparedKernel.write(ImageBytes(file: kernel), to: target)) != nil
    }
}
