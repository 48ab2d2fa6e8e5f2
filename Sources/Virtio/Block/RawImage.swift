internal import CHost
public import Glibc
internal import Synchronization

/// How a raw image is opened.
public struct RawImageOptions: Hashable, Sendable {
    public var isReadOnly: Bool
    /// Past the host's page cache (O_DIRECT): what the guest caches is then not held twice.
    public var isDirect: Bool
    /// What direct calls are taken to need, in place of what the host says: for tests.
    var assumedAlignment: UInt32?

    public init(isReadOnly: Bool = false, isDirect: Bool = false) {
        self.isReadOnly = isReadOnly
        self.isDirect = isDirect
    }
}

/// A disk that is a file's bytes as they are, or a block device of the host's.
///
/// That it is raw is whoever opens it to say: its bytes, which a guest writes, are never looked at to find a format.
///
/// The file is locked as long as it is open, for one writer or for any number of readers, against programs that take such
/// locks (fcntl(2), open file description locks). It is never made longer. After a flush has failed all later ones do: the
/// host may have dropped what it could not write, and would call the next one a success.
public final class RawImage: DescriptorImage {
    public let capacity: UInt64
    public let isReadOnly: Bool
    public let preferredBlockSize: UInt32
    public let descriptor: Int32
    /// What offsets, lengths and buffers have to be a multiple of; 1 where the host's page cache is used.
    public let alignment: UInt32

    private let isDevice: Bool
    /// With O_DIRECT: the same file through the page cache, for what is not aligned. The host keeps both views the same.
    private let cached: Int32
    private let unaligned = Mutex(())
    private let bounce: BounceBuffer
    private let flushFailure = Atomic<Int32>(0)
    private let canPunch = Atomic<Bool>(true)
    private let canZero = Atomic<Bool>(true)

    /// - Throws: `RawImageError`, whose text is for the person who named the file.
    public init(path: String, options: RawImageOptions = RawImageOptions()) throws(RawImageError) {
        var status = stat()
        // Looked at before it is opened: opening a device may set something off.
        guard unsafe stat(path, &status) == 0 else { throw Self.failure(errno, path, options) }
        if let kind = RawImageError.kind(status.st_mode) { throw .notADisk(path: path, kind: kind) }
        // Of a device that is mounted, or part of another, the host says so. Source: open(2), O_EXCL.
        let isClaimed = status.st_mode & S_IFMT == S_IFBLK && !options.isReadOnly
        let opened = try Self.open(path, options, isDirect: options.isDirect, isClaimed: isClaimed)
        var second: Int32 = -1
        do throws(RawImageError) {
            guard unsafe fstat(opened, &status) == 0 else { throw .unusable(path: path, errno: errno) }
            if let kind = RawImageError.kind(status.st_mode) { throw .notADisk(path: path, kind: kind) }
            let lock = chost_disk_lock(opened, !options.isReadOnly)
            if lock == -EAGAIN || lock == -EACCES { throw .locked(path: path, isForReading: options.isReadOnly) }
            guard lock == 0 else { throw .unusable(path: path, errno: -lock) }
            let isDevice = status.st_mode & S_IFMT == S_IFBLK
            let bytes = try Self.size(opened, status, isDevice, path)
            if !options.isReadOnly, !isDevice { try Self.checkLimit(bytes, path) }
            if options.isDirect {
                second = try Self.open(path, options, isDirect: false)
                var other = stat()
                guard unsafe fstat(second, &other) == 0, other.st_dev == status.st_dev, other.st_ino == status.st_ino else {
                    throw .unusable(path: path, errno: ESTALE)
                }
            }
            alignment = options.isDirect ? options.assumedAlignment ?? chost_direct_alignment(opened) : 1
            var block = UInt32(clamping: status.st_blksize)
            if isDevice { _ = unsafe chost_device_block_size(opened, &block) }
            preferredBlockSize = Self.powerOfTwo(block)
            self.isDevice = isDevice
            capacity = bytes
        } catch {
            close(opened)
            if second >= 0 { close(second) }
            throw error
        }
        descriptor = opened
        cached = second
        isReadOnly = options.isReadOnly
        bounce = BounceBuffer(alignment: Int(alignment))
    }

    deinit {
        close(descriptor)
        if cached >= 0 { close(cached) }
    }

    private static func open(
        _ path: String, _ options: RawImageOptions, isDirect: Bool, isClaimed: Bool = false
    ) throws(RawImageError) -> Int32 {
        // O_NONBLOCK: it may have become a FIFO since, which must not hold the command up. To files it means nothing.
        let flags = (options.isReadOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY
        let descriptor = unsafe Glibc.open(path, flags | (isDirect ? chost_open_direct : 0) | (isClaimed ? O_EXCL : 0))
        guard descriptor >= 0 else {
            if isDirect, errno == EINVAL { throw .notDirect(path: path) }
            throw failure(errno, path, options)
        }
        return descriptor
    }

    private static func failure(_ code: Int32, _ path: String, _ options: RawImageOptions) -> RawImageError {
        .opening(path, code, isForWriting: !options.isReadOnly, isReadable: unsafe access(path, R_OK) == 0)
    }

    private static func size(
        _ descriptor: Int32, _ status: stat, _ isDevice: Bool, _ path: String
    ) throws(RawImageError) -> UInt64 {
        var bytes = UInt64(clamping: status.st_size)
        if isDevice {
            let result = unsafe chost_device_size(descriptor, &bytes)
            guard result == 0 else { throw .unusable(path: path, errno: -result) }
        }
        guard bytes > 0 else { throw .empty(path: path) }
        guard bytes % 512 == 0 else { throw .notWholeSectors(path: path, bytes: bytes) }
        guard bytes <= UInt64(Int64.max) else { throw .unusable(path: path, errno: EFBIG) }
        return bytes
    }

    /// A write beyond the limit would be a signal that ends the process, in the middle of a guest's work.
    private static func checkLimit(_ bytes: UInt64, _ path: String) throws(RawImageError) {
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit) == 0 else { return }
        guard bytes <= UInt64(limit.rlim_cur) else {
            throw .beyondFileSizeLimit(path: path, bytes: bytes, limit: UInt64(limit.rlim_cur))
        }
    }

    private static func powerOfTwo(_ value: UInt32) -> UInt32 {
        var result: UInt32 = 512
        while result < 1 << 20, result &* 2 <= value { result &*= 2 }
        return result
    }

    // MARK: BlockImage

    public func read(at offset: UInt64, into vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) {
        try check(offset, unsafe VectorTransfer.count(vectors))
        try unsafe transfer(vectors, at: offset, isWrite: false)
    }

    public func write(at offset: UInt64, from vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) {
        guard !isReadOnly else { throw .readOnly }
        try check(offset, unsafe VectorTransfer.count(vectors))
        try unsafe transfer(vectors, at: offset, isWrite: true)
    }

    private func check(_ offset: UInt64, _ count: UInt64) throws(BlockError) {
        guard offset <= capacity, count <= capacity &- offset else { throw .outOfRange(offset: offset, count: count) }
    }

    private func transfer(_ vectors: UnsafeMutableBufferPointer<iovec>, at offset: UInt64, isWrite: Bool) throws(BlockError) {
        switch unsafe VectorTransfer.fit(vectors, at: offset, alignment: alignment) {
        case .aligned: try unsafe VectorTransfer.run(descriptor, vectors, at: offset, isWrite: isWrite)
        case .unalignedBuffers:
            try unsafe bounce.run(descriptor, vectors, at: offset, isWrite: isWrite)
        case .unalignedRange:
            // One at a time: two of them may share a block of the host's.
            try unaligned.withLock { _ throws(BlockError) in
                try unsafe VectorTransfer.run(cached, vectors, at: offset, isWrite: isWrite)
            }
        }
    }

    public func flush() throws(BlockError) {
        guard !isReadOnly else { return }
        var code: Int32 = 0
        for _ in 0..<VectorTransfer.mostRetries {
            code = fdatasync(descriptor) == 0 ? 0 : errno
            guard code == EINTR else { break }
        }
        code = flushed(code)
        guard code == 0 else { throw .host(errno: code) }
    }

    public func flushed(_ code: Int32) -> Int32 {
        if code != 0, code != EINTR, code != EAGAIN, code != ECANCELED {
            _ = flushFailure.compareExchange(expected: 0, desired: code, ordering: .acquiringAndReleasing)
        }
        let first = flushFailure.load(ordering: .acquiring)
        return first != 0 ? first : code
    }

    public func discard(at offset: UInt64, count: UInt64) throws(BlockError) {
        guard !isReadOnly else { throw .readOnly }
        try check(offset, count)
        guard count > 0, canPunch.load(ordering: .relaxed) else { return }
        let code = retrying {
            isDevice ? chost_device_discard(descriptor, offset, count) : chost_file_punch(descriptor, offset, count)
        }
        switch code {
        case 0: return
        // A host that cannot is no error: a discard promises nothing.
        case EOPNOTSUPP, ENOTTY, ENOSYS, EINVAL: canPunch.store(false, ordering: .relaxed)
        default: throw .host(errno: code)
        }
    }

    public func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(BlockError) {
        guard !isReadOnly else { throw .readOnly }
        try check(offset, count)
        guard count > 0 else { return }
        if isDevice {
            if retrying({ chost_device_zero(descriptor, offset, count) }) == 0 { return }
        } else {
            if mayUnmap, canPunch.load(ordering: .relaxed) {
                let code = retrying { chost_file_punch(descriptor, offset, count) }
                if code == 0 { return }
                if code == EOPNOTSUPP { canPunch.store(false, ordering: .relaxed) }
            }
            if canZero.load(ordering: .relaxed) {
                let code = retrying { chost_file_zero(descriptor, offset, count) }
                if code == 0 { return }
                if code == EOPNOTSUPP { canZero.store(false, ordering: .relaxed) }
            }
        }
        try writeZeroBytes(at: offset, count: count)
    }

    /// What is left where the host has no quicker way.
    func writeZeroBytes(at offset: UInt64, count: UInt64) throws(BlockError) {
        var (place, rest) = (offset, count)
        while rest > 0 {
            let part = min(rest, UInt64(ZeroBytes.count))
            var vector = unsafe iovec(iov_base: ZeroBytes.shared.start, iov_len: Int(part))
            try unsafe withUnsafeMutablePointer(to: &vector) { vector throws(BlockError) in
                try unsafe transfer(UnsafeMutableBufferPointer(start: vector, count: 1), at: place, isWrite: true)
            }
            place &+= part
            rest &-= part
        }
    }

    /// - Returns: 0 or an errno.
    private func retrying(_ call: () -> Int32) -> Int32 {
        var result: Int32 = 0
        for _ in 0..<VectorTransfer.mostRetries {
            result = -call()
            guard result == EINTR else { break }
        }
        return result
    }
}

/// Zeros to be written, for all images together. Nobody writes to them.
@safe final class ZeroBytes: Sendable {
    static let shared = ZeroBytes()
    static let count = 256 << 10
    nonisolated(unsafe) let start: UnsafeMutableRawPointer
    private init() {
        unsafe start = .allocate(byteCount: Self.count, alignment: 4096)
        unsafe start.initializeMemory(as: UInt8.self, repeating: 0, count: Self.count)
    }
}
