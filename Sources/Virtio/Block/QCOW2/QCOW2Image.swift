public import Glibc
internal import Synchronization

/// What is under an image that is a layer: its own idea of that, a file name, is never followed.
public enum QCOW2Backing: Sendable {
    /// Nobody said: an image that names a backing file is not opened.
    case unspecified
    /// There is none to be had: what the layer does not hold reads as zero.
    case absent
    /// Read where the layer holds nothing. Not written; it may be smaller than the layer.
    case image(any BlockImage)
}

/// A disk in a qcow2 file, of version 2 or 3: sparse, maybe a layer over another image.
///
/// Everything in the file is checked when it is used. Tables are cached in a fixed amount of memory, but for the first-level
/// ones, of which the format allows 40 MiB at most. An image that is written is locked against every other process that
/// locks; one that is read, against writers.
///
/// Not supported: encryption, external data files, subclusters, zstd, writing what is marked dirty or corrupt; docs/devices/
/// qcow2.md says why.
///
/// Source: [QCOW2].
public final class QCOW2Image: BlockImage {
    public let capacity: UInt64
    public let isReadOnly: Bool
    public let preferredBlockSize: UInt32
    public let clusterSize: UInt32

    /// Bytes of L2 tables in memory, and of refcount blocks as many again.
    static let cacheLimit = 1 << 20

    private let file: any ImageFile
    private let backing: (any BlockImage)?
    private let compressed: CompressedClusters
    private let transfers = TransferGate()
    private let tables: Mutex<QCOW2Tables>

    /// - Parameters:
    ///   - path: a regular file.
    ///   - inflater: unpacks compressed clusters; without it reading one is an error.
    public static func open(
        path: String, readOnly: Bool = false, backing: QCOW2Backing = .unspecified, inflater: (any ClusterInflater)? = nil
    ) throws(QCOW2Error) -> QCOW2Image {
        let file = try HostImageFile(path: path, readOnly: readOnly)
        return try QCOW2Image(file: file, name: path, readOnly: readOnly, backing: backing, inflater: inflater)
    }

    /// - Parameter name: what errors call the file.
    init(
        file: any ImageFile, name: String, readOnly: Bool, backing: QCOW2Backing = .unspecified,
        inflater: (any ClusterInflater)? = nil, cacheLimit: Int = QCOW2Image.cacheLimit
    ) throws(QCOW2Error) {
        let (fileSize, first) = try Self.readFirst(file, name)
        guard let header = QCOW2Header(first) else { throw .notQCOW2(path: name) }
        // What is left of a header that cannot be right is not looked at for names.
        let extensions = (try? HeaderExtensions(header, first)) ?? HeaderExtensions()
        try header.check(path: name, fileSize: fileSize, readOnly: readOnly) { extensions.featureNames[$0] }
        do throws(BlockError) { _ = try HeaderExtensions(header, first) } catch { throw Self.opening(error, name) }
        var under: (any BlockImage)?
        if let named = extensions.backingName {
            switch backing {
            case .unspecified: throw .backingNeeded(path: name, name: named, format: extensions.backingFormat)
            case .absent: break
            case .image(let image): under = image
            }
        } else if case .image = backing {
            throw .backingNotNamed(path: name)
        }
        let compressed = CompressedClusters(file: file, layout: header.layout, inflater: inflater)
        do throws(BlockError) {
            var tables = QCOW2Tables(
                file: file, header: header, fileSize: fileSize, backing: under, compressed: compressed, transfers: transfers,
                cacheLimit: cacheLimit)
            try tables.load(header, readOnly: readOnly)
            self.tables = Mutex(tables)
        } catch { throw Self.opening(error, name) }
        capacity = header.size
        isReadOnly = readOnly
        clusterSize = 1 << header.clusterBits
        preferredBlockSize = min(clusterSize, 4096)
        self.file = file
        self.backing = under
        self.compressed = compressed
    }

    deinit {
        // Everything durable is a flush's business; but no clusters need be lost because nobody asked for one.
        if !isReadOnly { try? tables.withLock { (tables) throws(BlockError) in try tables.close() } }
    }

    /// The file's size, and its first cluster, as much of it as there is: all that a header can refer to.
    private static func readFirst(_ file: any ImageFile, _ name: String) throws(QCOW2Error) -> (UInt64, [UInt8]) {
        do throws(BlockError) {
            let size = try file.size()
            var start: [UInt8] = Array(repeating: 0, count: Int(min(size, 512)))
            try file.read(at: 0, into: &start)
            let bits = start.bigEndian32(20)
            guard start.bigEndian32(0) == QCOW2Header.magic, QCOW2Header.clusterBits.contains(bits) else {
                return (size, start)
            }
            var cluster: [UInt8] = Array(repeating: 0, count: Int(min(size, 1 << UInt64(bits))))
            try file.read(at: 0, into: &cluster)
            return (size, cluster)
        } catch { throw opening(error, name) }
    }

    private static func opening(_ error: BlockError, _ name: String) -> QCOW2Error {
        switch error {
        case .host(let code): .host(path: name, doing: "read", errno: code)
        case .corrupt(let reason): .corrupt(path: name, reason: reason)
        case .outOfRange, .readOnly: .corrupt(path: name, reason: "it cannot be read")
        }
    }

    // MARK: Reading

    public func read(at offset: UInt64, into vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) {
        var left = try check(offset, unsafe VectorCursor.count(vectors))
        var position = offset
        var cursor = unsafe VectorCursor(vectors)
        while left > 0 {
            let step = try tables.withLock { (tables) throws(BlockError) in
                let (place, count) = try tables.locate(position, limit: left)
                // Nothing is to be freed that is going to be read from the file.
                return switch place {
                case .zero, .backing: (place, count, nil as UInt64?)
                case .host, .compressed: (place, count, transfers.enter(tables.epoch))
                }
            }
            defer { if let epoch = step.2 { transfers.leave(epoch) } }
            try transfer(step.0, at: position, count: Int(truncatingIfNeeded: step.1), into: &cursor)
            position &+= step.1
            left &-= step.1
        }
    }

    private func transfer(
        _ place: QCOW2Tables.Place, at position: UInt64, count: Int, into cursor: inout VectorCursor
    ) throws(BlockError) {
        switch place {
        case .zero: cursor.fillWithZeroes(count)
        case .host(let offset): try file.read(at: offset, into: &cursor, count: count)
        case .backing: try readBacking(position, count, &cursor)
        case .compressed(let packed):
            let within = Int(truncatingIfNeeded: position & UInt64(clusterSize &- 1))
            try unsafe compressed.withBytes(packed, offset: within, count: count) { bytes in unsafe cursor.copy(from: bytes) }
        }
    }

    private func readBacking(_ position: UInt64, _ count: Int, _ cursor: inout VectorCursor) throws(BlockError) {
        var left = count
        if let backing, backing.capacity > position {
            var place = position
            var available = Int(clamping: min(UInt64(truncatingIfNeeded: count), backing.capacity &- position))
            while available > 0 {
                let limit = available
                let got = try unsafe cursor.withVectors(limit: limit) { (vectors) throws(BlockError) in
                    let got = unsafe VectorCursor.count(vectors) ?? 0
                    try unsafe backing.read(at: place, into: vectors)
                    return Int(clamping: got)
                }
                guard got > 0 else { return }
                cursor.advance(got)
                place &+= UInt64(got)
                available &-= got
                left &-= got
            }
        }
        cursor.fillWithZeroes(left)
    }

    /// - Returns: `count`, where that many bytes at `offset` are within the disk.
    private func check(_ offset: UInt64, _ count: UInt64?) throws(BlockError) -> UInt64 {
        guard let count, offset <= capacity, count <= capacity &- offset else {
            throw .outOfRange(offset: offset, count: count ?? .max)
        }
        return count
    }

    // MARK: Writing

    public func write(at offset: UInt64, from vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) {
        guard !isReadOnly else { throw .readOnly }
        var left = try check(offset, unsafe VectorCursor.count(vectors))
        var position = offset
        var cursor = unsafe VectorCursor(vectors)
        while left > 0 {
            var count: UInt64 = 0
            let step: (offset: UInt64, epoch: UInt64)? = try tables.withLock { (tables) throws(BlockError) in
                try tables.checkFailure()
                try tables.clearAutoclear()
                if let run = try tables.writableRun(position, limit: left) {
                    count = run.count
                    return (run.offset, transfers.enter(tables.epoch))
                }
                // With the lock held: nobody else may find the cluster before it has its bytes.
                count = try tables.allocateAndWrite(position, limit: left, from: &cursor)
                return nil
            }
            if let step {
                defer { transfers.leave(step.epoch) }
                try file.write(at: step.offset, from: &cursor, count: Int(truncatingIfNeeded: count))
            }
            position &+= count
            left &-= count
        }
    }

    public func flush() throws(BlockError) {
        guard !isReadOnly else { return }
        let isDone = try tables.withLock { (tables) throws(BlockError) in
            try tables.checkFailure()
            if tables.isClean { return false }
            try tables.commit()
            return true
        }
        if isDone { return }
        // Only bytes of clusters that were there before: nobody need wait for it.
        do throws(BlockError) {
            try file.sync()
        } catch {
            tables.withLock { $0.fail(error) }
            throw error
        }
    }

    public func discard(at offset: UInt64, count: UInt64) throws(BlockError) {
        guard !isReadOnly else { throw .readOnly }
        _ = try check(offset, count)
        let clusters = wholeClusters(offset, count)
        try remove(clusters, .discard)
    }

    public func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(BlockError) {
        guard !isReadOnly else { throw .readOnly }
        _ = try check(offset, count)
        let size = UInt64(clusterSize)
        let clusters = wholeClusters(offset, count)
        if clusters.isEmpty { return try zeroBytes(offset, offset &+ count) }
        try zeroBytes(offset, clusters.lowerBound &* size)
        try remove(clusters, .zero(keepingSpace: !mayUnmap))
        try zeroBytes(min(clusters.upperBound &* size, offset &+ count), offset &+ count)
    }

    /// The guest clusters that are all in the range; the disk's last one may be shorter.
    private func wholeClusters(_ offset: UInt64, _ count: UInt64) -> Range<UInt64> {
        let size = UInt64(clusterSize)
        let end = offset &+ count
        let first = offset / size &+ (offset % size != 0 ? 1 : 0)
        let last = end / size &+ (end == capacity && end % size != 0 ? 1 : 0)
        return first..<max(first, last)
    }

    private func remove(_ clusters: Range<UInt64>, _ removal: QCOW2Tables.Removal) throws(BlockError) {
        let size = UInt64(clusterSize)
        var guest = clusters.lowerBound
        while guest < clusters.upperBound {
            // The lock is given up after each slice of a table: others have their turn.
            let done = try tables.withLock { (tables) throws(BlockError) in
                try tables.checkFailure()
                try tables.clearAutoclear()
                return try tables.remove(guest, limit: clusters.upperBound &- guest, removal)
            }
            if done == nil { try zeroBytes(guest &* size, min(capacity, (guest &+ 1) &* size)) }
            guest &+= done ?? 1
        }
    }

    /// Writes zeros, where there are none already.
    private func zeroBytes(_ start: UInt64, _ end: UInt64) throws(BlockError) {
        var position = start
        while position < end {
            let (place, run) = try tables.withLock { (tables) throws(BlockError) in
                try tables.locate(position, limit: end &- position)
            }
            var count = run
            if place != .zero {
                count = min(run, UInt64(ZeroPage.size))
                var vector = unsafe iovec(iov_base: ZeroPage.shared.start, iov_len: Int(count))
                try unsafe withUnsafeMutablePointer(to: &vector) { (vector) throws(BlockError) in
                    try unsafe write(at: position, from: UnsafeMutableBufferPointer(start: vector, count: 1))
                }
            }
            position &+= count
        }
    }
}

/// Zeros to write, which nobody writes to.
@safe private final class ZeroPage: Sendable {
    static let size = 64 << 10
    static let shared = ZeroPage()
    nonisolated(unsafe) let start: UnsafeMutableRawPointer
    private init() {
        unsafe start = .allocate(byteCount: Self.size, alignment: 4096)
        unsafe start.initializeMemory(as: UInt8.self, repeating: 0, count: Self.size)
    }
}
