internal import Glibc
internal import VMCore

/// A directory that was to be shared, and cannot.
public enum ShareError: Error, Hashable, Sendable, CustomStringConvertible {
    case missing(path: String)
    /// What it is instead, with its article.
    case notADirectory(path: String)
    case notPermitted(path: String)
    case emptyTag
    case tagTooLong(tag: String, bytes: Int)
    case badTag(tag: String)
    /// It is of the host's kernel: processes, devices' settings.
    case kernelFiles(path: String)
    case noProc(errno: Int32)
    case unusable(path: String, errno: Int32)

    public var description: String {
        switch self {
        case .missing(let path): "there is no directory '\(path)' to share: give one that is there"
        case .notADirectory(let path): "'\(path)' cannot be shared, for it is no directory: share the directory that it is in"
        case .notPermitted(let path): "the directory '\(path)' may not be read by this user: see ls -ld '\(path)'"
        case .emptyTag:
            "a shared directory needs a tag, which the guest mounts it by: give one after the directory, as in DIR:TAG"
        case .tagTooLong(let tag, let bytes):
            "the tag '\(tag)' of a shared directory has \(bytes) bytes, and at most 36 are possible: give a shorter one"
        case .badTag(let tag): "the tag '\(tag.filter { $0 != "\0" })' of a shared directory holds a zero byte: give another"
        case .kernelFiles(let path):
            "'\(path)' holds the host kernel's own files, which are not shared: the guest's kernel has files of its own"
        case .noProc(let code):
            "sharing a directory needs /proc on the host: \(HostError.message(code)); mount it with mount -t proc proc /proc"
        case .unusable(let path, let code):
            "the directory '\(path)' cannot be shared: \(HostError.message(code)); give another"
        }
    }

    /// What an errno of `open` means. Source: open(2).
    static func opening(_ path: String, _ code: Int32) -> ShareError {
        switch code {
        case ENOENT: .missing(path: path)
        case ENOTDIR: .notADirectory(path: path)
        case EACCES, EPERM: .notPermitted(path: path)
        default: .unusable(path: path, errno: code)
        }
    }
}
