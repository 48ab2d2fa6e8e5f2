import VMCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A file a person named for a guest to boot from, which cannot be used.
public enum InputFileError: ReportableError, Hashable {
    case missing(role: String, path: String)
    case unreadable(role: String, path: String, errno: Int32)
    /// What it is instead, with its article.
    case notAFile(role: String, path: String, kind: String)
    case missingDirectory(option: String, path: String)
    case notADirectory(option: String, path: String)
    case empty(role: String, path: String)

    public var exitStatus: ExitStatus {
        switch self {
        case .missing, .missingDirectory: .noSuchFile
        case .unreadable(_, _, let code): code == EACCES || code == EPERM ? .notPermitted : .badConfiguration
        case .notAFile, .notADirectory, .empty: .badConfiguration
        }
    }

    public var description: String {
        switch self {
        case .missing(let role, let path):
            // IMAGE is a path where it is no image's name, so a slip in the name ends here.
            role == "kernel" && !path.contains("/")
                ? "there is no kernel '\(path)': give the path of a file, or the name of an image, "
                    + RunConfiguration.imageNames.joined(separator: " or ")
                : "there is no \(role) '\(path)': give the path of a file that is there"
        case .unreadable(let role, let path, let code):
            code == EACCES || code == EPERM
                ? "the \(role) '\(path)' may not be read by this user: see ls -l '\(path)'"
                : "the \(role) '\(path)' cannot be read: \(HostError.message(code)); give another file"
        case .notAFile(let role, let path, let kind):
            "the \(role) '\(path)' is \(kind): give a regular file"
        case .missingDirectory(let option, let path):
            "\(option): there is no directory '\(path)': give the path of one that is there"
        case .notADirectory(let option, let path):
            "\(option): '\(path)' is not a directory: give the path of one"
        case .empty(let role, let path):
            "the \(role) '\(path)' is empty: fetch or build it again"
        }
    }
}

/// A file that a guest is to boot from, looked at before anything is made for that guest.
public enum InputFile {
    /// Sees that a file is there, regular, readable, and not empty.
    ///
    /// - Parameter role: the file's part in a message: "kernel", "initrd".
    public static func check(_ path: String, role: String) throws(InputFileError) {
        var status = stat()
        // Looked at before it is opened: opening a device may set something off.
        guard unsafe stat(path, &status) == 0 else { throw failure(errno, role, path) }
        try checkKind(status, role, path)
        // O_NONBLOCK: it may have become a FIFO since, which must not hold the command up.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        guard descriptor >= 0 else { throw failure(errno, role, path) }
        defer { close(descriptor) }
        guard unsafe fstat(descriptor, &status) == 0 else { throw failure(errno, role, path) }
        try checkKind(status, role, path)
        guard status.st_size > 0 else { throw .empty(role: role, path: path) }
    }

    /// Sees that a directory is there.
    ///
    /// - Parameter option: what names it, for messages: "--root".
    public static func checkDirectory(_ path: String, option: String) throws(InputFileError) {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else {
            let code = errno
            throw code == ENOENT || code == ENOTDIR
                ? .missingDirectory(option: option, path: path) : .unreadable(role: "directory", path: path, errno: code)
        }
        guard status.st_mode & S_IFMT == S_IFDIR else { throw .notADirectory(option: option, path: path) }
    }

    /// A text file of at most a mebibyte.
    ///
    /// - Throws: `InputFileError`, for a longer one with EFBIG.
    public static func text(of path: String, role: String) throws(InputFileError) -> String {
        try check(path, role: role)
        do { return String(decoding: try HostFile.contents(of: path, limit: 1 << 20), as: UTF8.self) } catch {
            throw failure(error.code, role, path)
        }
    }

    private static func failure(_ code: Int32, _ role: String, _ path: String) -> InputFileError {
        code == ENOENT || code == ENOTDIR
            ? .missing(role: role, path: path) : .unreadable(role: role, path: path, errno: code)
    }

    private static func checkKind(_ status: stat, _ role: String, _ path: String) throws(InputFileError) {
        let kind: String
        switch status.st_mode & S_IFMT {
        case S_IFREG: return
        case S_IFDIR: kind = "a directory"
        case S_IFIFO: kind = "a pipe"
        case S_IFSOCK: kind = "a socket"
        case S_IFCHR, S_IFBLK: kind = "a device"
        default: kind = "not a regular file"
        }
        throw .notAFile(role: role, path: path, kind: kind)
    }
}
