/// What a block device is like, beside its image.
public struct BlockOptions: Sendable {
    /// Queues, 1 to 16: as many as the guest has processors, at most.
    public var queueCount = 1
    /// Descriptors of each queue; a power of two up to 1024.
    public var queueSize: UInt16 = 256
    /// What the guest may ask for to tell its disks apart: the first 20 bytes of it.
    public var serial = ""
    public var limits = RateLimits()
    /// Where the image's calls are made; nil for the best that the image and the host allow.
    public var execution: BlockExecution?
    /// Whether the event loop itself copies what the host's page cache holds.
    public var readsFromCache = true
    /// The most threads for calls that block.
    public var threads = 4
    /// How long a reset waits for what the host still has, in milliseconds.
    public var resetLimit: UInt64 = 5000

    public init() {}
}

/// Feature bits of block devices. Source: [VIRTIO1.2 §5.2.3].
public enum BlockFeature {
    public static let segmentsMax = FeatureSet(bit: 2)
    public static let readOnly = FeatureSet(bit: 5)
    public static let blockSize = FeatureSet(bit: 6)
    public static let flush = FeatureSet(bit: 9)
    public static let topology = FeatureSet(bit: 10)
    public static let writeCacheControl = FeatureSet(bit: 11)
    public static let multipleQueues = FeatureSet(bit: 12)
    public static let discard = FeatureSet(bit: 13)
    public static let writeZeroes = FeatureSet(bit: 14)
}

/// The configuration space. Source: [VIRTIO1.2 §5.2.4].
struct BlockConfiguration {
    /// Where the driver says whether writes may be cached: the only byte that it may write.
    static let writebackOffset: UInt64 = 32
    private(set) var bytes = [UInt8](repeating: 0, count: 72)

    init(_ image: any BlockImage, queues: Int, queueSize: UInt16, isWritable: Bool) {
        let preferred = max(512, image.preferredBlockSize)
        // A physical block is what the guest aligns its file system to; larger pieces are only advice.
        let physical = min(preferred, 4096)
        let sectors = UInt32(preferred / 512)
        put(image.capacity / 512, 0)
        // With header and status no longer than the queue, where a table of descriptors is not negotiated.
        put(UInt32(max(queueSize, 3) - 2), 12)
        put(UInt32(512), 20)
        put(UInt8(max(9, physical.trailingZeroBitCount) - 9), 24)
        put(UInt16(physical / 512), 26)
        put(sectors, 28)
        put(UInt16(queues), 34)
        guard isWritable else { return }
        put(BlockLimits.discardSectors, 36)
        put(BlockLimits.discardSegments, 40)
        put(sectors, 44)
        put(BlockLimits.writeZeroesSectors, 48)
        put(BlockLimits.writeZeroesSegments, 52)
        put(UInt8(1), 56)
    }

    private mutating func put<Value: FixedWidthInteger>(_ value: Value, _ offset: Int) {
        for index in 0..<(Value.bitWidth / 8) {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (index * 8))
        }
    }
}
