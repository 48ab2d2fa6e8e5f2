internal import Glibc

/// What a guest's kernel last told of its memory. All values are the guest's word: nil for those that it does not tell.
///
/// Source: [VIRTIO1.2 §5.5.6.4].
public struct BalloonStatistics: Hashable, Sendable {
    /// Bytes swapped in and out since the guest started.
    public var swappedIn: UInt64?
    public var swappedOut: UInt64?
    /// Page faults that needed the disk, and those that did not.
    public var majorFaults: UInt64?
    public var minorFaults: UInt64?
    /// Bytes that are used for nothing.
    public var free: UInt64?
    /// Bytes that the guest's kernel has at its disposal.
    public var total: UInt64?
    /// An estimate of the bytes that new programs could have without swapping.
    public var available: UInt64?
    /// Bytes of caches that could be dropped.
    public var caches: UInt64?
    /// Huge pages that were got, and that were not.
    public var hugePageAllocations: UInt64?
    public var hugePageFailures: UInt64?
    /// How many times the guest has told so far; the other values are from the last time.
    public var updates: UInt64 = 0

    public init() {}

    /// Bytes of one entry: a tag of 16 bits, a value of 64, not aligned.
    static let entryBytes = 10
    /// Most entries that are looked at: there are ten tags, and a driver tells of each once.
    static let mostEntries = 64

    /// Takes one entry. Tags that are not known are passed over. Source: [VIRTIO1.2 §5.5.6.3.2].
    mutating func take(tag: UInt16, value: UInt64) {
        switch tag {
        case 0: swappedIn = value
        case 1: swappedOut = value
        case 2: majorFaults = value
        case 3: minorFaults = value
        case 4: free = value
        case 5: total = value
        case 6: available = value
        case 7: caches = value
        case 8: hugePageAllocations = value
        case 9: hugePageFailures = value
        default: break
        }
    }

    /// Reads a driver's buffer; what is behind the last whole entry is passed over.
    mutating func read(_ chain: DescriptorChain) {
        self = BalloonStatistics(updates: updates &+ 1)
        unsafe withUnsafeTemporaryAllocation(byteCount: Self.entryBytes * Self.mostEntries, alignment: 8) { bytes in
            let count = unsafe chain.read(at: 0, into: bytes)
            for index in 0..<(count / Self.entryBytes) {
                let place = index &* Self.entryBytes
                let tag = unsafe bytes.loadUnaligned(fromByteOffset: place, as: UInt16.self)
                let value = unsafe bytes.loadUnaligned(fromByteOffset: place &+ 2, as: UInt64.self)
                take(tag: UInt16(littleEndian: tag), value: UInt64(littleEndian: value))
            }
        }
    }

    private init(updates: UInt64) { self.updates = updates }
}
