internal import Glibc
internal import VMCore

/// What a request begins with. Source: [VIRTIO1.2 §5.2.6].
struct BlockHeader: BitwiseCopyable {
    var type: UInt32
    var reserved: UInt32
    var sector: UInt64

    static let byteCount: UInt64 = 16

    static let read: UInt32 = 0
    static let write: UInt32 = 1
    static let flush: UInt32 = 4
    static let identify: UInt32 = 8
    static let discard: UInt32 = 11
    static let writeZeroes: UInt32 = 13
}

/// What a request ends with.
enum BlockStatus {
    static let ok: UInt8 = 0
    static let ioError: UInt8 = 1
    static let unsupported: UInt8 = 2
}

/// The most that one request may ask for, as the configuration space says it.
enum BlockLimits {
    static let discardSegments: UInt32 = 32
    /// 2 GiB a segment: the host only notes it.
    static let discardSectors: UInt32 = 1 << 22
    static let writeZeroesSegments: UInt32 = 1
    /// 32 MiB: a host that knows no better writes as many zeros.
    static let writeZeroesSectors: UInt32 = 1 << 16
    static let identityBytes = 20
}

/// What is to be done with a request, once it was looked at.
enum BlockVerdict {
    /// The host has something to do.
    case submit
    case done(UInt8)
    case identify
    /// There is no room for a status: it is given back as it is.
    case givenBack
}

extension BlockRequest {
    /// Looks at the chain and says what it asks for. Nothing is done before all of it was found good.
    ///
    /// - Parameters:
    ///   - capacity: of the image, in bytes.
    ///   - features: as negotiated.
    func parse(capacity: UInt64, isReadOnly: Bool, features: FeatureSet, writesThrough: Bool) -> BlockVerdict {
        guard locateStatus() else { return .givenBack }
        guard let header = chain.load(BlockHeader.self, at: 0) else { return .done(BlockStatus.ioError) }
        result = 0
        retries = 0
        bytes = 0
        segmentCount = 0
        flushesAfter = false
        switch header.type {
        case BlockHeader.read:
            bytes = chain.writableBytes &- 1
            guard place(header.sector, capacity) else { return .done(BlockStatus.ioError) }
            guard bytes > 0 else { return .done(BlockStatus.ok) }
            operation = .read
            useWritable()
            return .submit
        case BlockHeader.write:
            bytes = chain.readableBytes &- BlockHeader.byteCount
            guard !isReadOnly, place(header.sector, capacity) else { return .done(BlockStatus.ioError) }
            guard bytes > 0 else { return .done(BlockStatus.ok) }
            operation = .write
            flushesAfter = writesThrough
            useReadable(after: Int(BlockHeader.byteCount))
            return .submit
        case BlockHeader.flush:
            guard !isReadOnly else { return .done(BlockStatus.ok) }
            operation = .flush
            return .submit
        case BlockHeader.identify: return .identify
        case BlockHeader.discard:
            guard !isReadOnly else { return .done(BlockStatus.ioError) }
            guard features.contains(BlockFeature.discard) else { return .done(BlockStatus.unsupported) }
            operation = .discard
            flushesAfter = writesThrough
            return takeSegments(BlockLimits.discardSegments, BlockLimits.discardSectors, flags: 0, capacity)
        case BlockHeader.writeZeroes:
            guard !isReadOnly else { return .done(BlockStatus.ioError) }
            guard features.contains(BlockFeature.writeZeroes) else { return .done(BlockStatus.unsupported) }
            operation = .writeZeroes
            flushesAfter = writesThrough
            return takeSegments(
                BlockLimits.writeZeroesSegments, BlockLimits.writeZeroesSectors, flags: BlockSegment.unmap, capacity)
        default: return .done(BlockStatus.unsupported)
        }
    }

    /// Whether `bytes` from a sector on are whole sectors of the disk.
    @inline(__always)
    private func place(_ sector: UInt64, _ capacity: UInt64) -> Bool {
        guard bytes & 511 == 0, sector <= capacity / 512 else { return false }
        offset = sector &* 512
        return bytes <= capacity &- offset
    }

    /// - Parameter flags: those that a segment may have. Source: [VIRTIO1.2 §5.2.6.2].
    private func takeSegments(_ most: UInt32, _ mostSectors: UInt32, flags: UInt32, _ capacity: UInt64) -> BlockVerdict {
        let size = UInt64(MemoryLayout<BlockSegment>.size)
        let data = chain.readableBytes &- BlockHeader.byteCount
        guard data > 0, data % size == 0, data / size <= UInt64(most), loadSegments(Int(data / size)) else {
            return .done(BlockStatus.ioError)
        }
        var sum: UInt64 = 0
        var isKnown = true
        for index in 0..<segmentCount {
            let range = segment(index)
            if range.flags & ~flags != 0 { isKnown = false }
            bytes = UInt64(range.sectors) &* 512
            guard range.sectors <= mostSectors, place(range.sector, capacity) else { return .done(BlockStatus.ioError) }
            sum &+= bytes
        }
        // What is only noted costs nothing; zeros may have to be written.
        bytes = operation == .writeZeroes ? sum : 0
        return isKnown ? .submit : .done(BlockStatus.unsupported)
    }
}
