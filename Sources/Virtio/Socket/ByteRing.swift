/// Bytes on their way to a host's socket that takes them more slowly than they come. Of a fixed size.
@safe final class ByteRing: @unchecked Sendable {
    let capacity: Int
    private(set) var count = 0
    private var first = 0
    nonisolated(unsafe) private let storage: UnsafeMutableRawPointer

    init(capacity: Int) {
        self.capacity = max(1, capacity)
        unsafe storage = .allocate(byteCount: self.capacity, alignment: 16)
    }

    deinit { unsafe storage.deallocate() }

    var isEmpty: Bool { count == 0 }

    /// The longest run of free bytes behind the last; empty when full. `grew` says how many of them were filled.
    var free: UnsafeMutableRawBufferPointer {
        let end = first &+ count
        let start = end < capacity ? end : end &- capacity
        let length = min(capacity &- count, capacity &- start)
        return unsafe UnsafeMutableRawBufferPointer(start: storage + start, count: length)
    }

    func grew(_ added: Int) { count = min(capacity, count &+ added) }

    /// The longest run of bytes from the first on. `shrank` says how many of them went.
    var pending: UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(start: storage + first, count: min(count, capacity &- first))
    }

    func shrank(_ removed: Int) {
        let removed = min(removed, count)
        count &-= removed
        first = count == 0 ? 0 : (first &+ removed) % capacity
    }

    func removeAll() { shrank(count) }
}
