/// A disk with the small root's busybox and an init of its own: a few megabytes, made in a moment. For tests, and for a first try
/// of whatever has to do with disks.
public struct SmallDisk: Sendable {
    /// A statically linked busybox.
    var busybox: [UInt8]
    /// Paths of its applets, as `busybox --list-full` prints them.
    var applets: [String]

    /// - Throws: `ImageError` where the busybox that is given does not run on this host.
    /// - Parameter program: the path of a statically linked busybox.
    public init(busybox program: String) throws(ImageError) {
        do {
            let list = try HostCommand([program, "--list-full"]).run()
            guard list.status == 0 else { throw ImageError.cache("'\(program)' does not run on this host") }
            applets = list.text.split(separator: "\n").map(String.init)
            busybox = try HostFile.contents(of: program, limit: 64 << 20)
        } catch let error as ImageError {
            throw error
        } catch {
            throw .cache("no busybox to make a disk of: \(error)")
        }
    }

    /// The busybox of the small root: of the image `linux` that is in the store.
    init(initrd: String) throws(ImageError) {
        let entries: [CPIOArchive.Entry]?
        do { entries = CPIOArchive.entries(of: try HostFile.contents(of: initrd, limit: 64 << 20)) } catch {
            throw .cache(error.description)
        }
        guard let entries, let program = entries.first(where: { $0.path == "bin/busybox" }) else {
            throw .damaged("the image linux has no busybox")
        }
        busybox = program.data
        applets = entries.filter { $0.kind == .link && $0.data == Array("/bin/busybox".utf8) }.map(\.path)
    }

    /// Makes the disk.
    /// - Parameters:
    ///   - script: what its init runs before it powers off, in place of a shell; /bin/sh reads it.
    ///   - files: further files, by their paths without a leading slash; their directories are made.
    ///   - path: the file, which is not there yet.
    ///   - work: a directory that is not there yet, used and removed.
    public func make(
        at path: String, size: DiskSize, script: String? = nil, files: [String: [UInt8]] = [:], label: String = "root",
        work: String, isCancelled: @escaping () -> Bool = { false }
    ) throws(ImageError) {
        defer { try? HostFile.remove(work) }
        do { try makeTree(work, script: script, files: files) } catch { throw .cache(error.description) }
        try DiskImage.make(tree: work, at: path, size: size, label: label, isCancelled: isCancelled)
    }

    func makeTree(_ tree: String, script: String?, files: [String: [UInt8]]) throws(HostFileError) {
        for directory in SmallRoot.directories + ["root", "tmp"] { try HostFile.makeDirectory("\(tree)/\(directory)") }
        // Whatever this process's mask.
        for directory in [""] + SmallRoot.directories { try HostFile.setPermissions("\(tree)/\(directory)", 0o755) }
        try HostFile.setPermissions("\(tree)/root", 0o700)
        try HostFile.setPermissions("\(tree)/tmp", 0o1777)
        for (name, text) in SmallRoot.configuration { try HostFile.create("\(tree)/\(name)", with: Array(text.utf8)) }
        try HostFile.create("\(tree)/bin/busybox", with: busybox)
        try HostFile.setPermissions("\(tree)/bin/busybox", 0o755)
        for applet in applets where SmallRoot.isApplet(applet) { try HostFile.makeLink("\(tree)/\(applet)", to: "/bin/busybox") }
        try HostFile.create("\(tree)/sbin/init", with: Array(Self.initScript.utf8))
        try HostFile.setPermissions("\(tree)/sbin/init", 0o755)
        if let script { try HostFile.create("\(tree)/etc/script", with: Array(script.utf8)) }
        for (name, bytes) in files {
            if let slash = name.lastIndex(of: "/") { try HostFile.makeDirectory("\(tree)/\(name[..<slash])") }
            try HostFile.create("\(tree)/\(name)", with: bytes)
        }
    }

    /// PID 1 of the disk, after the small root's init or as the kernel's first. At the end everything is on the disk, and that is
    /// clean.
    static let initScript = """
        #!/bin/sh
        export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=linux ENV=/etc/profile
        [ -e /proc/self ] || mount -t proc proc /proc
        [ -e /sys/class ] || mount -t sysfs sysfs /sys
        [ -e /dev/null ] || mount -t devtmpfs devtmpfs /dev
        mkdir -p /dev/pts /dev/shm
        mount -t devpts devpts /dev/pts
        mount -t tmpfs tmpfs /run
        hostname windhover
        ip link set lo up
        cd /root
        if [ -e /etc/script ]; then
            setsid cttyhack sh -c 'sh /etc/script; stty echo'
        else
            echo "Linux $(uname -r) on $(awk '$2 == "/" { print $1 }' /proc/mounts | tail -n 1), a small disk; exit or poweroff ends it"
            setsid cttyhack sh -c 'sh -l; stty echo'
        fi
        stty echo
        cd /
        sync
        mount -o remount,ro / 2>/dev/null
        poweroff -f

        """
}
