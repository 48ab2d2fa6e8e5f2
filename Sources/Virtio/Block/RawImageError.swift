internal import Glibc
internal import VMCore

/// A file that was to be a disk, and cannot.
public enum RawImageError: Error, Hashable, Sendable, CustomStringConvertible {
    case missing(path: String)
    /// What it is instead, with its article.
    case notADisk(path: String, kind: String)
    case notPermitted(path: String)
    /// It may be read, but was opened for writing too.
    case readOnlyFile(path: String)
    case empty(path: String)
    case notWholeSectors(path: String, bytes: UInt64)
    /// Another program, or another disk of this machine, writes it; or reads what was opened for writing; or it is mounted.
    case locked(path: String, isForReading: Bool)
    /// The file system cannot read and write past the host's page cache.
    case notDirect(path: String)
    /// The process may not write files as long as this one.
    case beyondFileSizeLimit(path: String, bytes: UInt64, limit: UInt64)
    case unusable(path: String, errno: Int32)

    public var description: String {
        switch self {
        case .missing(let path): "there is no disk image '\(path)': give the path of a file that is there"
        case .notADisk(let path, let kind):
            "the disk image '\(path)' is \(kind): give a regular file or a block device"
        case .notPermitted(let path): "the disk image '\(path)' may not be opened by this user: see ls -l '\(path)'"
        case .readOnlyFile(let path):
            "the disk image '\(path)' may be read but not written here: open it for reading only, or see ls -l '\(path)'"
        case .empty(let path): "the disk image '\(path)' is empty: give it a size with truncate -s, or fetch it again"
        case .notWholeSectors(let path, let bytes):
            "the disk image '\(path)' is \(bytes) bytes long, which is no whole number of 512-byte sectors: "
                + "is it complete? truncate -s %512 '\(path)' fills it up"
        case .locked(let path, let isForReading):
            isForReading
                ? "the disk image '\(path)' is being written by another machine or program: end that one first"
                : "the disk image '\(path)' is in use by another machine or program, or mounted: end that first, "
                    + "or open it for reading only in both"
        case .notDirect(let path):
            "the disk image '\(path)' is on a file system without direct access (O_DIRECT): open it without"
        case .beyondFileSizeLimit(let path, let bytes, let limit):
            "the disk image '\(path)' is \(bytes) bytes long, and this process may write files of \(limit) only: "
                + "raise ulimit -f, or open it for reading only"
        case .unusable(let path, let code):
            "the disk image '\(path)' cannot be opened: \(HostError.message(code)); give another file"
        }
    }

    /// What an errno of `open` means. Source: open(2).
    static func opening(_ path: String, _ code: Int32, isForWriting: Bool, isReadable: Bool) -> RawImageError {
        switch code {
        case ENOENT, ENOTDIR: .missing(path: path)
        case EACCES, EPERM: isForWriting && isReadable ? .readOnlyFile(path: path) : .notPermitted(path: path)
        case EBUSY: .locked(path: path, isForReading: !isForWriting)
        case EROFS, ETXTBSY: .readOnlyFile(path: path)
        case EISDIR: .notADisk(path: path, kind: "a directory")
        default: .unusable(path: path, errno: code)
        }
    }

    /// What a file is that is neither regular nor a block device; nil for those two.
    static func kind(_ mode: mode_t) -> String? {
        switch mode & S_IFMT {
        case S_IFREG, S_IFBLK: nil
        case S_IFDIR: "a directory"
        case S_IFIFO: "a pipe"
        case S_IFSOCK: "a socket"
        case S_IFCHR: "a character device"
        default: "no file with bytes of its own"
        }
    }
}
