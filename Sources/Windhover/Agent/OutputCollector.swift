internal import Synchronization

/// Keeps the beginning of what a command prints. Any thread.
public final class OutputCollector: Sendable {
    private struct State {
        var bytes: [UInt8] = []
        var dropped: UInt64 = 0
    }

    private let limit: Int
    private let state = Mutex(State())

    /// - Parameter limit: most bytes that are kept.
    public init(limit: Int) { self.limit = max(limit, 0) }

    /// Keeps what there is room for, and counts the rest.
    func append(_ bytes: UnsafeRawBufferPointer) {
        state.withLock { state in
            let taken = min(bytes.count, limit - state.bytes.count)
            if taken > 0 { unsafe state.bytes.append(contentsOf: bytes.prefix(taken)) }
            let (sum, overflow) = state.dropped.addingReportingOverflow(UInt64(bytes.count - taken))
            state.dropped = overflow ? .max : sum
        }
    }

    public var bytes: [UInt8] { state.withLock { $0.bytes } }
    /// How many bytes came after those that were kept.
    public var droppedCount: UInt64 { state.withLock { $0.dropped } }
}
