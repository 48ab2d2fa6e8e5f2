internal import Synchronization
public import VMCore

/// The POST code port, 80h: one byte that firmware writes as it goes, and kernels write to pass a microsecond.
///
/// Reads give the last code, as the latch of the AT's DMA page register there does. Source: [IBM-AT] I/O map.
public final class PostCode: BusDevice {
    private let code = Atomic<UInt8>(0)

    public init() {}

    /// The last code written; 0 before the first.
    public var last: UInt8 { code.load(ordering: .relaxed) }

    public func read(offset: UInt64, width: AccessWidth) -> UInt64 { UInt64(last) }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        code.store(UInt8(truncatingIfNeeded: value), ordering: .relaxed)
    }
}
