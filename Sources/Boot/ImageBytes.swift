import VMCore

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// The bytes of an image (a kernel, an initrd) with the name that messages call it by. A slice shares its whole's
/// bytes.
///
/// A file is mapped, not read: what nobody looks at costs nothing. Whoever truncates a file while it is being
/// loaded takes the process down with a bus error, as with any mapped file.
///
/// Every access is bounds-checked; every offset may be a hostile file's.
@safe public struct ImageBytes: Sendable {
    /// Pages of the host that are given back when the last slice of them goes.
    @safe final class Mapping: Sendable {
        nonisolated(unsafe) let start: UnsafeMutableRawPointer
        let count: Int
        /// The file behind the pages; -1 for anonymous ones.
        let descriptor: Int32

        init(_ start: UnsafeMutableRawPointer, count: Int, descriptor: Int32) {
            unsafe self.start = start
            self.count = count
            self.descriptor = descriptor
        }

        deinit {
            _ = unsafe munmap(start, count)
            if descriptor >= 0 { close(descriptor) }
        }

        /// Reserves zero pages; the host commits each when it is first written.
        static func anonymous(count: UInt64) -> Mapping? {
            guard let count = Int(exactly: max(count, 1)) else { return nil }
            let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
            let start = unsafe mmap(nil, count, PROT_READ | PROT_WRITE, flags, -1, 0)
            guard let start = unsafe start, unsafe start != MAP_FAILED else { return nil }
            // Unpacking writes it once from end to end: a fault for every 4 KiB would cost as much as the unpacking.
            _ = unsafe madvise(start, count, MADV_HUGEPAGE)
            return unsafe Mapping(start, count: count, descriptor: -1)
        }
    }

    /// What messages call it: the path as given.
    public let name: String
    /// Bytes.
    public let count: UInt64
    let mapping: Mapping
    /// Where in the mapping this slice begins.
    let offset: UInt64

    init(name: String, mapping: Mapping, offset: UInt64, count: UInt64) {
        self.name = name
        self.mapping = mapping
        self.offset = offset
        self.count = count
    }

    /// Maps a regular file, read-only.
    ///
    /// - Throws: `BootError` that says what is wrong with the file: missing, unreadable, a directory, empty.
    public init(file path: String) throws(BootError) {
        let (descriptor, count) = try Self.openRegular(path)
        guard count > 0 else {
            close(descriptor)
            throw .emptyFile(path: path)
        }
        let start = unsafe mmap(nil, Int(truncatingIfNeeded: count), PROT_READ, MAP_PRIVATE, descriptor, 0)
        guard let start = unsafe start, unsafe start != MAP_FAILED else {
            let code = errno
            close(descriptor)
            throw .unreadable(path: path, errno: code)
        }
        let mapping = unsafe Mapping(start, count: Int(truncatingIfNeeded: count), descriptor: descriptor)
        self.init(name: path, mapping: mapping, offset: 0, count: count)
    }

    /// Bytes made in this process: a built-in guest, a test's image.
    public init(_ bytes: [UInt8], name: String) {
        guard let mapping = Mapping.anonymous(count: UInt64(bytes.count)) else {
            fatalError("the host has no memory for \(bytes.count) bytes")
        }
        unsafe bytes.withUnsafeBytes { source in
            if let from = source.baseAddress { unsafe mapping.start.copyMemory(from: from, byteCount: source.count) }
        }
        self.init(name: name, mapping: mapping, offset: 0, count: UInt64(bytes.count))
    }

    /// Opens a regular file for reading.
    /// - Returns: the descriptor, which the caller closes, and the file's bytes.
    static func openRegular(_ path: String) throws(BootError) -> (descriptor: Int32, count: UInt64) {
        // Without O_NONBLOCK, opening a pipe would wait for its writer.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            switch errno {
            case ENOENT, ENOTDIR: throw .noSuchFile(path: path)
            case EACCES, EPERM: throw .permissionDenied(path: path)
            case let code: throw .unreadable(path: path, errno: code)
            }
        }
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0 else {
            let code = errno
            close(descriptor)
            throw .unreadable(path: path, errno: code)
        }
        let kind: String? =
            switch status.st_mode & S_IFMT {
            case S_IFREG: nil
            case S_IFDIR: "a directory"
            case S_IFIFO: "a pipe"
            case S_IFSOCK: "a socket"
            default: "a device"
            }
        if let kind {
            close(descriptor)
            throw .notRegularFile(path: path, kind: kind)
        }
        return (descriptor, UInt64(clamping: status.st_size))
    }

    /// The bytes themselves, for as long as `self` is kept.
    var unsafeBytes: UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(
            start: UnsafeRawPointer(mapping.start) + Int(truncatingIfNeeded: offset),
            count: Int(truncatingIfNeeded: count))
    }

    /// `count` bytes from `offset` on; nil unless all of them are here.
    func slice(at offset: UInt64, count: UInt64) -> ImageBytes? {
        guard offset <= self.count, count <= self.count &- offset else { return nil }
        return ImageBytes(name: name, mapping: mapping, offset: self.offset &+ offset, count: count)
    }

    /// The little-endian integer at `offset`; nil unless all of it is here.
    func integer<Value: FixedWidthInteger & BitwiseCopyable>(_ type: Value.Type, at offset: UInt64) -> Value? {
        let size = UInt64(MemoryLayout<Value>.size)
        guard offset <= count, size <= count &- offset else { return nil }
        return unsafe unsafeBytes.loadUnaligned(fromByteOffset: Int(truncatingIfNeeded: offset), as: type)
    }

    /// As `integer`, where the format promises the field.
    func field<Value: FixedWidthInteger & BitwiseCopyable>(
        _ type: Value.Type, at offset: UInt64
    ) throws(BootError) -> Value {
        guard let value = integer(type, at: offset) else {
            let (needs, overflow) = offset.addingReportingOverflow(UInt64(MemoryLayout<Value>.size))
            throw .truncated(image: name, needs: overflow ? .max : needs, has: count)
        }
        return value
    }

    /// As `slice`, where the format promises the bytes.
    func part(at offset: UInt64, count: UInt64) throws(BootError) -> ImageBytes {
        guard let part = slice(at: offset, count: count) else {
            let (needs, overflow) = offset.addingReportingOverflow(count)
            throw .truncated(image: name, needs: overflow ? .max : needs, has: self.count)
        }
        return part
    }

    /// Whether `text`'s bytes stand at `offset`.
    func holds(_ text: StaticString, at offset: UInt64) -> Bool {
        guard let part = slice(at: offset, count: UInt64(text.utf8CodeUnitCount)) else { return false }
        return text.withUTF8Buffer { unsafe part.unsafeBytes.elementsEqual(UnsafeRawBufferPointer($0)) }
    }

    /// A copy of the bytes. For headers, not for whole images.
    var array: [UInt8] { unsafe Array(unsafeBytes) }

    /// Puts the bytes into guest memory: whole pages of a file by mapping them, copy-on-write, the rest by copying.
    ///
    /// - Parameter address: where to; anything up to the next page boundary behind the bytes may be overwritten by
    ///   zeros or by what follows in the file, so the caller keeps it free.
    func place(in memory: GuestMemory, at address: GuestAddress) throws(BootError) {
        let page = GuestMemory.pageSize
        if mapping.descriptor >= 0, count >= page, offset % page == 0, address.rawValue % page == 0 {
            do {
                return try memory.map(file: mapping.descriptor, offset: offset, count: count, at: address)
            } catch .mapFailed {
                // Reserved huge pages take no small ones: copy instead.
            } catch {
                throw .memory(error)
            }
        }
        try copy(into: memory, at: address)
    }

    /// Copies the bytes into guest memory.
    func copy(into memory: GuestMemory, at address: GuestAddress) throws(BootError) {
        do { unsafe try memory.write(unsafeBytes, at: address) } catch { throw .memory(error) }
    }
}
