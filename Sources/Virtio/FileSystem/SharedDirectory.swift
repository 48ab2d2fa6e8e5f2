internal import CHost
internal import Glibc

/// A directory of the host's and how it is shared: what stays the same through all sessions.
final class SharedDirectory: Sendable {
    let root: OpenDescriptor
    let rootAttributes: chost_file_attributes
    /// /proc/self/fd, by which descriptors with O_PATH are opened for real.
    let table: OpenDescriptor
    /// Of the directory itself.
    let kind: FileSystemKind
    private let deviceNodes: UInt64?
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
        let places = unsafe Glibc.open("/proc/self/fd", chost_open_path | O_DIRECTORY | O_CLOEXEC)
        guard places >= 0 else { throw .noProc(errno: errno) }
        table = OpenDescriptor(places)
        deviceNodes = FileSystemKind.deviceNodes(table)
        kind = rootAttributes.device == deviceNodes ? .kernels : FileSystemKind(of: root)
        guard kind != .kernels else { throw .kernelFiles(path: path) }
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

    // MARK: File systems

    /// What a file's file system is, where `attributes` are the file's own. May wait for it.
    func kind(of file: OpenDescriptor, _ attributes: chost_file_attributes) -> FileSystemKind {
        attributes.device == deviceNodes ? .kernels : FileSystemKind(of: file)
    }
}
