internal import CHost
internal import Glibc

/// A directory of the host's and how it is shared: what stays the same through all sessions.
final class SharedDirectory: Sendable {
    let root: OpenDescriptor
    let rootAttributes: chost_file_attributes
    /// /proc/self/fd, by which descriptors with O_PATH are opened for real.
    let table: OpenDescriptor
    let isReadOnly: Bool
    let options: ShareOptions
    private let user: UInt32
    private let group: UInt32
    /// Of the guest's descriptors: how many may be open files, and how many of them known places.
    let handleLimit: Int
    let placeLimit: Int

    init(_ path: String, isReadOnly: Bool, _ options: ShareOptions) throws(ShareError) {
        let opened = unsafe Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK)
        guard opened >= 0 else { throw .opening(path, errno) }
        root = OpenDescriptor(opened)
        do throws(FileError) { rootAttributes = try root.attributes() } catch { throw .unusable(path: path, errno: error.code) }
        guard !Self.isKernels(root) else { throw .kernelFiles(path: path) }
        let places = unsafe Glibc.open("/proc/self/fd", chost_open_path | O_DIRECTORY | O_CLOEXEC)
        guard places >= 0 else { throw .noProc(errno: errno) }
        table = OpenDescriptor(places)
        self.isReadOnly = isReadOnly
        self.options = options
        user = geteuid()
        group = getegid()
        let limit = max(16, min(options.descriptorLimit ?? Self.descriptorsToSpare, 1 << 20))
        handleLimit = limit / 2
        placeLimit = limit - limit / 2
    }

    /// A quarter of what the process may open is left to the rest of it.
    private static var descriptorsToSpare: Int {
        var limits = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limits) == 0 else { return 256 }
        let limit = Int(min(limits.rlim_cur, 1 << 16))
        return limit - max(64, limit / 4)
    }

    // MARK: Identities

    func shownUser(_ host: UInt32) -> UInt32 { options.ownership == .userIsRoot && host == user ? 0 : host }
    func shownGroup(_ host: UInt32) -> UInt32 { options.ownership == .userIsRoot && host == group ? 0 : host }
    /// Whose the guest's user is, on the host.
    func hostUser(_ shown: UInt32) -> UInt32 { options.ownership == .userIsRoot && shown == 0 ? user : shown }
    func hostGroup(_ shown: UInt32) -> UInt32 { options.ownership == .userIsRoot && shown == 0 ? group : shown }

    // MARK: What is not for the guest

    /// Whether a file is the kernel's own: the memory, descriptors and environment of the host's processes, this one's among
    /// them, and the settings of its devices. A guest sees where they are mounted, and nothing below.
    static func isKernels(_ file: OpenDescriptor) -> Bool {
        switch chost_file_system(file.number) {
        // In order: proc, sysfs, debugfs, tracefs, cgroup, cgroup2, bpf, securityfs, configfs, efivarfs, selinuxfs, pstore,
        // binfmt_misc. Source: statfs(2).
        case 0x9FA0, 0x6265_6572, 0x6462_6720, 0x7472_6163, 0x27_E0EB, 0x6367_7270, 0xCAFE_4A11, 0x7363_6673, 0x6265_6570,
            0xDE5E_81E4, 0xF97C_FF8C, 0x6165_676C, 0x4249_4E4D:
            true
        default: false
        }
    }
}
