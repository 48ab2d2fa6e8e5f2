#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// The recipe of the disk `debian`: a small Debian system from the host's own package sources, made by mmdebstrap.
///
/// Everything is done in a `Namespace`, so that any user can make one. Source: [MMDEBSTRAP].
struct DebianDisk {
    /// A directory of ours that is removed afterwards.
    let work: String
    /// Further packages.
    let packages: [String]
    let size: DiskSize
    let tools: String
    let isCancelled: () -> Bool
    let progress: (FetchProgress) -> Void

    /// Beside the essential ones and apt.
    static let basePackages = [
        "systemd-sysv", "systemd-resolved", "udev", "dbus", "kmod", "iproute2", "iputils-ping", "netbase", "procps", "e2fsprogs",
    ]

    /// Makes the disk's file.
    /// - Returns: what is on it, in a few words.
    func make(at path: String) throws -> String {
        for (program, package) in [("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs")]
        where HostProgram.find(program, tools: program == "mmdebstrap" ? tools : "") == nil {
            throw ImageError.lacksProgram(program, package: package)
        }
        let namespace = try Namespace()
        progress(FetchProgress(step: .lists, fraction: 0))
        let sources = try findSources()

        let tree = work + "/tree"
        // Left to its owner alone on the way: its files have the numbers of other users.
        defer { Namespace.removeTree(tree) }
        let count = try bootstrap(sources, to: tree, in: namespace)
        try arrange(tree, in: namespace)

        progress(FetchProgress(step: .fileSystem, fraction: 0.95))
        try DiskImage.make(tree: tree, at: path, size: size, label: "root", through: namespace.words, isCancelled: isCancelled)
        return "Debian \(sources.release), \(count) packages"
    }

    private func findSources() throws(ImageError) -> DebianSources {
        let packages: DebianPackages
        do { packages = try DebianPackages(directory: work + "/apt", tools: tools, isCancelled: isCancelled) } catch {
            throw .cache(error.description)
        }
        let trouble = try packages.update { progress(FetchProgress(step: .lists, fraction: 0.1 * $0)) }
        let text = try packages.indexTargets(format: DebianSources.format)
        let keyring = HostFile.facts(DebianSources.keyring) == nil ? nil : DebianSources.keyring
        guard let sources = DebianSources(indexTargets: text, keyring: keyring) else {
            throw .packagesUnavailable(
                what: "a Debian system", reason: trouble ?? "this host's package sources have no Debian release")
        }
        return sources
    }

    /// - Returns: how many packages it has.
    private func bootstrap(_ sources: DebianSources, to tree: String, in namespace: Namespace) throws(ImageError) -> Int {
        let include = Self.basePackages + (sources.usesTLS ? ["ca-certificates"] : []) + packages
        let temporary = work + "/tmp"
        do { try HostFile.makeDirectory(temporary) } catch { throw .cache(error.description) }
        var command = HostCommand(
            namespace.words + [
                // The disk is synchronised as a whole, when it is complete: not with every package.
                "env", "TMPDIR=" + temporary, "DPKG_FORCE=unsafe-io",
                tools + "mmdebstrap", "--mode=root", "--format=directory", "--verbose",
                "--architectures=amd64", "--variant=apt", "--include=" + include.joined(separator: ","),
                "--customize-hook=" + Self.hook, sources.release, tree,
            ] + sources.lines)
        command.isCancelled = isCancelled
        // To unshare, with which all inside ends. mmdebstrap itself would go on for as long as dpkg does.
        command.cancellationSignal = SIGKILL
        var parser = BootstrapProgress()
        command.onErrors = { bytes in
            parser.feed(bytes)
            progress(FetchProgress(step: parser.step, fraction: 0.1 + 0.83 * parser.fraction))
        }
        let result: HostCommand.Result
        do { result = try command.run() } catch { throw .cache("\(error)") }
        Namespace.removeTree(temporary)
        if isCancelled() || result.interrupted { throw .interrupted }
        guard result.status == 0 else {
            throw .packagesUnavailable(
                what: "a Debian system", reason: DebianPackages.reason(in: parser.complaint ?? result.errorText))
        }
        return parser.packages
    }

    /// Puts our files over the system's, as root's.
    private func arrange(_ tree: String, in namespace: Namespace) throws {
        let overlay = work + "/overlay"
        for (name, text) in Self.files {
            if let slash = name.lastIndex(of: "/") { try HostFile.makeDirectory("\(overlay)/\(name[..<slash])") }
            try HostFile.create("\(overlay)/\(name)", with: Array(text.utf8))
        }
        var command = HostCommand(
            namespace.words + [
                "sh", "-ec",
                """
                chmod -R u=rwX,go=rX "$1"
                cp -R --remove-destination --preserve=mode -- "$1/." "$2/"
                ln -sf ../run/systemd/resolve/stub-resolv.conf "$2/etc/resolv.conf"
                """, "sh", overlay, tree,
            ])
        command.isCancelled = isCancelled
        let result = try command.run()
        guard result.status == 0 else {
            throw ImageError.cache("the system cannot be arranged: \(DebianPackages.reason(in: result.errorText))")
        }
    }

    /// Run by mmdebstrap when all packages are there. What would fetch or write by itself, in a machine that may be gone in a
    /// minute, is left to whoever wants it.
    static let hook = """
        chroot "$1" systemctl -q enable systemd-networkd.service systemd-resolved.service && \
        chroot "$1" systemctl -q mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
            e2scrub_all.timer e2scrub_reap.service
        """

    /// Files of our own, by their paths.
    static let files = [
        ("etc/hostname", "debian\n"),
        ("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 debian\n::1 localhost ip6-localhost ip6-loopback\n"),
        ("etc/fstab", "LABEL=root / ext4 errors=remount-ro 0 1\n"),
        // Empty: a number of its own is made when it first starts.
        ("etc/machine-id", ""),
        (
            "etc/systemd/network/80-dhcp.network",
            "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n\n[DHCPv4]\nClientIdentifier=mac\n"
        ),
        // root's password is locked; on the serial line, which whoever runs the machine holds, login asks for none.
        (
            "etc/systemd/system/serial-getty@ttyS0.service.d/windhover.conf",
            """
            [Service]
            ExecStart=
            ExecStart=-/sbin/agetty -o '-p -f -- \\\\u' --keep-baud 115200,57600,38400,9600 %I $TERM

            """
        ),
        ("etc/issue.d/windhover.issue", "On the serial console root needs no password.\n\n"),
    ]
}
