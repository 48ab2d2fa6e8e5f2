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
    /// The file that a rename is to give its name to; nil where it is a pipe or a device, which is written to as it is.
    private let target: String?
    /// Its permissions.
    private let mode: mode_t
    /// Of the pipe or device.
    private let descriptor: Int32

    /// Sees that it can be written. Nothing is left beside it, whatever ends this process until then.
    public init(_ path: String) throws(Failure) {
        self.path = path
        var status = stat()
        let isThere = unsafe stat(path, &status) == 0
        if isThere, status.st_mode & S_IFMT == S_IFDIR { throw Failure(path: path, errno: EISDIR) }
        if isThere, status.st_mode & S_IFMT != S_IFREG {
            target = nil
            mode = 0
            descriptor = unsafe open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY)
            guard descriptor >= 0 else { throw Failure(path: path, errno: Glibc.errno) }
            return
        }
        // Where another user's file, or one of the file system's that is read only, is in the place, it is not replaced.
        if isThere, unsafe access(path, W_OK) != 0 { throw Failure(path: path, errno: Glibc.errno) }
        guard !path.isEmpty else { throw Failure(path: path, errno: ENOENT) }
        guard !path.hasSuffix("/") else { throw Failure(path: path, errno: EISDIR) }
        let target = isThere ? Self.resolved(path) : path
        let mode = isThere ? status.st_mode & 0o777 : 0o644
        self.target = target
        self.mode = mode
        descriptor = -1
        let probe = Self.temporary(beside: target)
        close(try Self.create(probe, mode, for: path))
        unsafe _ = unlink(probe)
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    /// Where a symbolic link leads to: the file there is replaced, not the link.
    private static func resolved(_ path: String) -> String {
        guard let name = unsafe realpath(path, nil) else { return path }
        defer { unsafe free(name) }
        return unsafe String(cString: name)
    }

    private static func temporary(beside target: String) -> String {
        let slash = target.lastIndex(of: "/")
        let directory = slash.map { target[...$0] } ?? ""
        let name = slash.map { target[target.index(after: $0)...] } ?? target[...]
        return "\(directory).\(name).\(getpid())"
    }

    private static func create(_ temporary: String, _ mode: mode_t, for path: String) throws(Failure) -> Int32 {
        let flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC
        var descriptor = unsafe open(temporary, flags, mode)
        // Of a process of that number that was killed.
        if descriptor < 0, Glibc.errno == EEXIST, unsafe unlink(temporary) == 0 { descriptor = unsafe open(temporary, flags, mode) }
        guard descriptor >= 0 else { throw Failure(path: path, errno: Glibc.errno) }
        return descriptor
    }

    /// Writes all of it, once.
    public func write(_ text: String) throws(Failure) {
        guard let target else { return try write(text, to: descriptor) }
        let temporary = Self.temporary(beside: target)
        let file = try Self.create(temporary, mode, for: path)
        defer { close(file) }
        do throws(Failure) {
            try write(text, to: file)
            guard fsync(file) == 0, unsafe rename(temporary, target) == 0 else { throw Failure(path: path, errno: Glibc.errno) }
        } catch {
            unsafe _ = unlink(temporary)
            throw error
        }
    }

    private func write(_ text: String, to descriptor: Int32) throws(Failure) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = unsafe rest.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 && Glibc.errno == EINTR { continue }
            guard count > 0 else { throw Failure(path: path, errno: count < 0 ? Glibc.errno : EIO) }
            rest = rest.dropFirst(count)
        }
    }
}
