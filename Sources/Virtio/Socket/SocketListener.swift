internal import CHost
internal import Glibc

/// A Unix socket at which the host connects to the guest. Its file is there as long as this object.
///
/// Only the user may connect: the file's mode is 0600, to be widened by who wants that.
final class SocketListener: @unchecked Sendable {
    let path: String
    let descriptor: Int32
    private let identity: FileIdentity

    private struct FileIdentity: Equatable {
        var device: UInt64
        var inode: UInt64

        init?(of path: String) {
            var status = stat()
            guard unsafe lstat(path, &status) == 0 else { return nil }
            (device, inode) = (UInt64(status.st_dev), UInt64(status.st_ino))
        }
    }

    /// Bytes of a port's suffix: `_4294967295`.
    static let longestSuffix = 11

    private init(path: String, descriptor: Int32, identity: FileIdentity) {
        self.path = path
        self.descriptor = descriptor
        self.identity = identity
    }

    /// Replaces a socket file whose listener is gone, and no other file.
    /// - Parameter suffix: bytes that there must be room for behind the path.
    static func open(path: String, suffix: Int = longestSuffix) throws(SocketError) -> SocketListener {
        guard !path.isEmpty, !path.utf8.contains(0) else { throw .badPath(path) }
        let limit = UnixSocket.longestPath - suffix
        guard path.utf8.count <= limit else { throw .pathTooLong(path, limit: limit) }
        try removeStale(path)
        let descriptor = UnixSocket.make()
        guard descriptor >= 0 else { throw .host(call: "making", path: path, errno: -descriptor) }
        // Before there is a file: its mode is then never another.
        _ = fchmod(descriptor, 0o600)
        let code = UnixSocket.bind(descriptor, to: path)
        guard code == 0, let identity = FileIdentity(of: path) else {
            close(descriptor)
            // Between the look and this somebody was faster.
            throw code == -EADDRINUSE ? .inUse(path) : .host(call: "binding", path: path, errno: -code)
        }
        let listener = SocketListener(path: path, descriptor: descriptor, identity: identity)
        guard listen(descriptor, 128) == 0 else { throw .host(call: "listening at", path: path, errno: errno) }
        return listener
    }

    deinit {
        // Another's file by now is not ours to remove.
        if FileIdentity(of: path) == identity { unsafe unlink(path) }
        Glibc.close(descriptor)
    }

    private static func removeStale(_ path: String) throws(SocketError) {
        var status = stat()
        guard unsafe lstat(path, &status) == 0 else { return }
        guard status.st_mode & S_IFMT == S_IFSOCK else { throw .notASocket(path) }
        let probe = UnixSocket.make()
        guard probe >= 0 else { throw .host(call: "probing", path: path, errno: -probe) }
        defer { Glibc.close(probe) }
        // Only a refusal says that nobody is there: a full backlog (EAGAIN) does not, nor does a lack of permission.
        switch UnixSocket.connect(probe, to: path) {
        case -ECONNREFUSED:
            guard unsafe unlink(path) == 0 || errno == ENOENT else {
                throw .host(call: "replacing", path: path, errno: errno)
            }
        case -ENOENT: break
        case 0, -EAGAIN: throw .inUse(path)
        case let code: throw .host(call: "probing", path: path, errno: -code)
        }
    }
}
