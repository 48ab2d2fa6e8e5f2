public import Glibc
public import VMCore

/// A link that takes every frame and leads nowhere; if so made, one that has a supply of frames too.
@safe public final class NullBackend: NetworkBackend, @unchecked Sendable {
    public let carriesHeader: Bool
    public let isUp = true
    nonisolated(unsafe) private let frame: UnsafeMutableRawBufferPointer
    /// How many more frames there are to be had.
    public private(set) var supply: UInt64

    /// - Parameters:
    ///   - frame: what comes in, over and over, with a header where there are any; empty for nothing.
    ///   - supply: how often.
    public init(frame: [UInt8] = [], supply: UInt64 = 0, carriesHeader: Bool = false) {
        self.carriesHeader = carriesHeader
        self.supply = frame.isEmpty ? 0 : supply
        unsafe self.frame = .allocate(byteCount: max(1, frame.count), alignment: 16)
        unsafe self.frame.copyBytes(from: frame)
        count = frame.count
    }

    private let count: Int

    deinit { unsafe frame.deallocate() }

    public func connect(
        _ events: any EventService, clock: any MonotonicClock, _ handler: @escaping @Sendable (Readiness) -> Void
    ) {}
    public func wait(for readiness: Readiness) {}

    public func send(_ frame: UnsafeMutableBufferPointer<iovec>, count: Int) -> NetworkSendResult { .sent }

    public func nextFrame() -> UnsafeRawBufferPointer? {
        supply > 0 ? unsafe UnsafeRawBufferPointer(rebasing: frame[..<count]) : nil
    }

    public func removeFrame() { if supply > 0 { supply &-= 1 } }

    public func close() {}
}
