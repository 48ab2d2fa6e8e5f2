internal import Glibc
internal import VMCore

/// A report that is written when everything is over, and seen to be possible before anything begins.
///
/// A regular file appears whole, by one rename; what was there stays until then.
public final class ReportFile {
    /// It cannot be written.
    public struct Failure: ReportableError, Hashable {
        public let path: String
        public let errno: Int32
        public var exitStatus: ExitStatus { RunError.status(ofFile: errno) }
        public var description: String { "the report cannot be written to '\(path)': \(HostError.message(errno)); name another file with --junit" }
    }

    private let path: String
    /// Beside it, under another name; nil where it is a pipe or a device, which is written to as it is.
    private let temporary: String?
    private var descriptor: Int32

    /// Opens it.
    public init(_ path: String) throws(Failure) {
        self.path = path
        var status = stat()
        let isThere = unsafe stat(path, &status) == 0
        if isThere, status.st_mode & S_IFMT == S_IFDIR { throw Failure(path: path, errno: EISDIR) }
        if isThere, status.st_mode & S_IFMT != S_IFREG {
            temporary = nil
            descriptor = unsafe open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY)
        } else {
            // Where another user's file, or one of the file system's that is read only, is in the place, it is not replaced.
            if isThere, unsafe access(path, W_OK) != 0 { throw Failure(path: path, errno: Glibc.errno) }
            let slash = path.lastIndex(of: "/")
            let directory = slash.map { String(path[...$0]) } ?? ""
            let name = slash.map { path[path.index(after: $0)...] } ?? path[...]
            guard !name.isEmpty else { throw Failure(path: path, errno: path.isEmpty ? ENOENT : EISDIR) }
            let temporary = "\(directory).\(name).\(getpid())"
            self.temporary = temporary
            descriptor = unsafe open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, isThere ? status.st_mode & 0o777 : 0o644)
        }
        guard descriptor >= 0 else { throw Failure(path: path, errno: Glibc.errno) }
    }

    deinit { discard() }

    /// Writes all of it, once.
    public func write(_ text: String) throws(Failure) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = unsafe rest.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 && Glibc.errno == EINTR { continue }
            guard count > 0 else { throw Failure(path: path, errno: count < 0 ? Glibc.errno : EIO) }
            rest = rest.dropFirst(count)
        }
        if let temporary {
            guard fsync(descriptor) == 0, unsafe rename(temporary, path) == 0 else { throw Failure(path: path, errno: Glibc.errno) }
        }
        close(descriptor)
        descriptor = -1
    }

    /// Leaves everything as it was.
    private func discard() {
        guard descriptor >= 0 else { return }
        close(descriptor)
        if let temporary { unsafe _ = unlink(temporary) }
    }
}
