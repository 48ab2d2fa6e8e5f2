internal import CHost
internal import Glibc

/// The file under an image: what of the host's calls an image format needs. A seam, so that a test can stop time at any call.
///
/// Calls may come from several threads at once.
protocol ImageFile: AnyObject, Sendable {
    func size() throws(BlockError) -> UInt64
    /// - Returns: bytes read: fewer than asked for at the end of the file, 0 behind it.
    func readSome(at offset: UInt64, into vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) -> Int
    /// - Returns: bytes written, at least one.
    func writeSome(at offset: UInt64, from vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) -> Int
    func truncate(to size: UInt64) throws(BlockError)
    /// Gives the host its space back where it can; the bytes are of no interest any more.
    func punch(at offset: UInt64, count: UInt64)
    /// Everything written so far is on the disk when it returns: data, and the length of the file.
    func sync() throws(BlockError)
}

extension ImageFile {
    /// Fills `buffer`; what lies behind the end of the file is zero.
    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(BlockError) {
        var vector = unsafe iovec(iov_base: buffer.baseAddress, iov_len: buffer.count)
        try unsafe withUnsafeMutablePointer(to: &vector) { (vector) throws(BlockError) in
            var cursor = unsafe VectorCursor(UnsafeMutableBufferPointer(start: vector, count: 1))
            try read(at: offset, into: &cursor, count: buffer.count)
        }
    }

    func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(BlockError) {
        var vector = unsafe iovec(iov_base: UnsafeMutableRawPointer(mutating: buffer.baseAddress), iov_len: buffer.count)
        try unsafe withUnsafeMutablePointer(to: &vector) { (vector) throws(BlockError) in
            var cursor = unsafe VectorCursor(UnsafeMutableBufferPointer(start: vector, count: 1))
            try write(at: offset, from: &cursor, count: buffer.count)
        }
    }

    func read(at offset: UInt64, into bytes: inout [UInt8]) throws(BlockError) {
        var span = bytes.mutableSpan
        try unsafe span.withUnsafeMutableBytes { (bytes) throws(BlockError) in try unsafe read(at: offset, into: bytes) }
    }

    func write(at offset: UInt64, from bytes: [UInt8]) throws(BlockError) {
        try unsafe bytes.span.withUnsafeBytes { (bytes) throws(BlockError) in try unsafe write(at: offset, from: bytes) }
    }

    /// Reads `count` bytes to where the cursor is, and moves it on. What lies behind the end of the file is zero.
    func read(at offset: UInt64, into cursor: inout VectorCursor, count: Int) throws(BlockError) {
        var done = 0
        while done < count {
            let got = try unsafe cursor.withVectors(limit: count &- done) { (vectors) throws(BlockError) in
                try unsafe readSome(at: offset &+ UInt64(truncatingIfNeeded: done), into: vectors)
            }
            guard got > 0 else { return cursor.fillWithZeroes(count &- done) }
            cursor.advance(got)
            done &+= got
        }
    }

    func write(at offset: UInt64, from cursor: inout VectorCursor, count: Int) throws(BlockError) {
        var done = 0
        while done < count {
            let put = try unsafe cursor.withVectors(limit: count &- done) { (vectors) throws(BlockError) in
                try unsafe writeSome(at: offset &+ UInt64(truncatingIfNeeded: done), from: vectors)
            }
            guard put > 0 else { throw .host(errno: EIO) }
            cursor.advance(put)
            done &+= put
        }
    }
}

/// A file of the host's, locked against others while it is open.
final class HostImageFile: ImageFile {
    private let descriptor: Int32

    /// - Parameter creating: makes it, and fails where there is one.
    init(path: String, readOnly: Bool, creating: Bool = false) throws(QCOW2Error) {
        // Not to wait for a writer where the path is a pipe's.
        let access = (readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK
        let opened = unsafe creating ? Glibc.open(path, access | O_CREAT | O_EXCL, 0o666) : Glibc.open(path, access)
        guard opened >= 0 else { throw .host(path: path, doing: creating ? "create" : "open", errno: errno) }
        do throws(QCOW2Error) {
            try Self.prepare(opened, path, readOnly: readOnly)
        } catch {
            close(opened)
            throw error
        }
        descriptor = opened
    }

    private static func prepare(_ opened: Int32, _ path: String, readOnly: Bool) throws(QCOW2Error) {
        var status = stat()
        guard unsafe fstat(opened, &status) == 0 else { throw .host(path: path, doing: "look at", errno: errno) }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw .unsupported(path: path, feature: "qcow2 in anything but a regular file", remedy: "copy it into one")
        }
        let locked = chost_disk_lock(opened, !readOnly)
        guard locked == 0 else {
            throw locked == -EAGAIN || locked == -EACCES
                ? .inUse(path: path) : .host(path: path, doing: "lock", errno: -locked)
        }
    }

    deinit { close(descriptor) }

    func size() throws(BlockError) -> UInt64 {
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0 else { throw .host(errno: errno) }
        return UInt64(clamping: status.st_size)
    }

    func readSome(at offset: UInt64, into vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) -> Int {
        while true {
            let got = unsafe preadv(descriptor, vectors.baseAddress, Int32(clamping: vectors.count), off_t(clamping: offset))
            if got >= 0 { return got }
            let code = errno
            guard code == EINTR else { throw .host(errno: code) }
        }
    }

    func writeSome(at offset: UInt64, from vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) -> Int {
        while true {
            let put = unsafe pwritev(descriptor, vectors.baseAddress, Int32(clamping: vectors.count), off_t(clamping: offset))
            if put >= 0 { return put }
            let code = errno
            guard code == EINTR else { throw .host(errno: code) }
        }
    }

    func truncate(to size: UInt64) throws(BlockError) {
        // Beyond the process's limit it would be a signal that ends the process, in the middle of a guest's work.
        var limit = rlimit()
        if unsafe getrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit) == 0, size > UInt64(limit.rlim_cur) {
            throw .host(errno: EFBIG)
        }
        while ftruncate(descriptor, off_t(clamping: size)) != 0 {
            let code = errno
            guard code == EINTR else { throw .host(errno: code) }
        }
    }

    func punch(at offset: UInt64, count: UInt64) { _ = chost_file_punch(descriptor, offset, count) }

    func sync() throws(BlockError) {
        while fdatasync(descriptor) != 0 {
            let code = errno
            guard code == EINTR else { throw .host(errno: code) }
        }
    }
}
