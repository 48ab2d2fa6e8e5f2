internal import CHost
import VMCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A call on the host's file system that failed, with the path it was for.
struct HostFileError: Error, Hashable, CustomStringConvertible {
    var call: String
    var path: String
    var code: Int32

    init(_ call: String, _ path: String, _ code: Int32 = errno) {
        self.call = call
        self.path = path
        self.code = code
    }

    var description: String { "cannot \(call) '\(path)': \(HostError.message(code))" }
}

/// Whole files and trees of the host, for things that are not on any hot path.
enum HostFile {
    struct Facts: Hashable {
        var size: UInt64
        var isDirectory: Bool
        var isRegular: Bool
        /// Bytes that it takes on the disk, which are few for a file that is mostly holes.
        var allocated: UInt64
        /// The file itself, whatever its name: another file of that name has another.
        var inode: UInt64
    }

    /// What is at a path, not following a symbolic link; nil where nothing is.
    static func facts(_ path: String) -> Facts? {
        var status = stat()
        guard unsafe lstat(path, &status) == 0 else { return nil }
        let kind = status.st_mode & S_IFMT
        return Facts(
            size: UInt64(max(0, status.st_size)), isDirectory: kind == S_IFDIR, isRegular: kind == S_IFREG,
            allocated: UInt64(max(0, status.st_blocks)) &* 512, inode: UInt64(status.st_ino))
    }

    /// Reads a file of at most `limit` bytes; a longer one is EFBIG.
    static func contents(of path: String, limit: Int) throws(HostFileError) -> [UInt8] {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw HostFileError("open", path) }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 256 << 10)
        while true {
            let count = unsafe read(descriptor, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw HostFileError("read", path) }
            if count == 0 { return bytes }
            guard bytes.count + count <= limit else { throw HostFileError("read", path, EFBIG) }
            bytes.append(contentsOf: buffer[..<count])
        }
    }

    /// Writes a new file and sees it onto the disk. One that is there already is EEXIST.
    static func create(_ path: String, with bytes: [UInt8]) throws(HostFileError) {
        let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw HostFileError("create", path) }
        defer { close(descriptor) }
        var written = 0
        while written < bytes.count {
            let count = unsafe bytes[written...].withUnsafeBytes {
                unsafe write(descriptor, $0.baseAddress, $0.count)
            }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { throw HostFileError("write", path) }
            written += count
        }
        guard fsync(descriptor) == 0 else { throw HostFileError("write", path) }
    }

    /// Sets a file's permission bits, whatever the process's mask.
    static func setPermissions(_ path: String, _ permissions: mode_t) throws(HostFileError) {
        guard unsafe chmod(path, permissions) == 0 else { throw HostFileError("set permissions of", path) }
    }

    /// Makes a symbolic link. One that is there already is EEXIST.
    static func makeLink(_ path: String, to target: String) throws(HostFileError) {
        guard unsafe symlink(target, path) == 0 else { throw HostFileError("make the link", path) }
    }

    /// Sees a file that somebody else wrote, or a directory's names, onto the disk.
    static func synchronize(_ path: String) throws(HostFileError) {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw HostFileError("open", path) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw HostFileError("write", path) }
    }

    /// Gives back the room that a file was given and has not written to, which reads as zeros, and sees the rest onto the disk.
    /// A file system without holes keeps it.
    static func finishSparse(_ path: String) throws(HostFileError) {
        let descriptor = unsafe open(path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { throw HostFileError("open", path) }
        defer { close(descriptor) }
        // What is in memory only counts as neither.
        guard fsync(descriptor) == 0 else { throw HostFileError("write", path) }
        _ = chost_release_unwritten(descriptor)
        guard fsync(descriptor) == 0 else { throw HostFileError("write", path) }
    }

    /// Makes a directory and those above it; being there already is no error.
    static func makeDirectory(_ path: String) throws(HostFileError) {
        if unsafe mkdir(path, 0o755) == 0 { return }
        let code = errno
        if code == ENOENT, let slash = path.lastIndex(of: "/"), slash != path.startIndex {
            try makeDirectory(String(path[..<slash]))
            if unsafe mkdir(path, 0o755) == 0 || errno == EEXIST { return }
            throw HostFileError("make directory", path)
        }
        var status = stat()
        if code == EEXIST, unsafe stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR { return }
        throw HostFileError("make directory", path, code)
    }

    /// The names in a directory, sorted, without `.` and `..`; none where it cannot be read.
    static func names(in path: String) -> [String] {
        guard let directory = unsafe opendir(path) else { return [] }
        defer { unsafe closedir(directory) }
        var names: [String] = []
        while let entry = unsafe readdir(directory) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
                unsafe $0.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    /// Bytes of all regular files in a tree, holes not counted.
    static func totalSize(_ path: String) -> UInt64 {
        guard let facts = facts(path) else { return 0 }
        guard facts.isDirectory else { return facts.isRegular ? min(facts.size, facts.allocated) : 0 }
        return names(in: path).reduce(0) { $0 &+ totalSize("\(path)/\($1)") }
    }

    /// Removes a file or a whole tree, following no symbolic link; what is not there is no error.
    static func remove(_ path: String) throws(HostFileError) {
        guard let facts = facts(path) else { return }
        if facts.isDirectory {
            // Packages hold directories that not even their owner may write.
            unsafe _ = chmod(path, 0o700)
            for name in names(in: path) { try remove("\(path)/\(name)") }
            guard unsafe rmdir(path) == 0 || errno == ENOENT else { throw HostFileError("remove", path) }
        } else {
            guard unsafe unlink(path) == 0 || errno == ENOENT else { throw HostFileError("remove", path) }
        }
    }

    /// Gives a file its name in one step.
    /// - Parameter replace: whether a file of that name goes; otherwise it is EEXIST.
    static func move(_ source: String, to target: String, replace: Bool) throws(HostFileError) {
        if replace {
            guard unsafe rename(source, target) == 0 else { throw HostFileError("rename to", target) }
        } else {
            // Unlike a rename, a link takes nothing's place.
            guard unsafe link(source, target) == 0 else { throw HostFileError("make", target) }
            unsafe _ = unlink(source)
        }
    }

    /// Puts `source` where `target` is, and removes what was there. Where both are there they change places in one step, so
    /// that a name always leads to one or the other.
    static func replace(_ target: String, with source: String) throws(HostFileError) {
        if facts(target) == nil {
            guard unsafe rename(source, target) == 0 else { throw HostFileError("rename to", target) }
            return
        }
        let code = unsafe chost_exchange(source, target)
        guard code == 0 else { throw HostFileError("rename to", target, -code) }
        try remove(source)
    }
}

extension HostFile {
    /// The last bytes of a regular file, at most `count`, and its size; nil where it cannot be read.
    static func end(of path: String, count: Int) -> (bytes: [UInt8], size: UInt64)? {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
        let size = Int(max(0, status.st_size))
        var bytes = [UInt8](repeating: 0, count: min(size, count))
        var filled = 0
        while filled < bytes.count {
            let place = off_t(size - bytes.count + filled)
            let got = unsafe bytes[filled...].withUnsafeMutableBytes { unsafe pread(descriptor, $0.baseAddress, $0.count, place) }
            if got < 0 && errno == EINTR { continue }
            guard got > 0 else { break }
            filled += got
        }
        return (Array(bytes.prefix(filled)), UInt64(size))
    }

    /// Gives back the room of all but a file's last bytes, which reads as zeros from then on, once it takes more than `limit`.
    /// Whoever writes to it notices nothing.
    static func releaseBeginning(of path: String, keeping count: UInt64, above limit: UInt64) {
        guard let facts = facts(path), facts.isRegular, facts.allocated > limit, facts.size > count else { return }
        let descriptor = unsafe open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        _ = chost_file_punch(descriptor, 0, facts.size - count)
    }
}
