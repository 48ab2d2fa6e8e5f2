internal import Glibc

/// A place in a request's vectors, which are left as they are: what a piece of an image goes to or comes from.
///
/// Unchecked Sendable: one request's, whose thread alone has it.
@safe struct VectorCursor: @unchecked Sendable {
    /// Vectors that one call of the host's gets: a longer request takes several.
    private static let batch = 64

    private let vectors: UnsafeMutableBufferPointer<iovec>
    private var index = 0
    private var offset = 0

    init(_ vectors: UnsafeMutableBufferPointer<iovec>) { unsafe self.vectors = vectors }

    /// Bytes in all vectors; nil where no request could have as many.
    static func count(_ vectors: UnsafeMutableBufferPointer<iovec>) -> UInt64? {
        var sum: UInt64 = 0
        for unsafe vector in unsafe vectors {
            let (next, overflow) = unsafe sum.addingReportingOverflow(UInt64(vector.iov_len))
            guard !overflow, next <= UInt64(Int.max) else { return nil }
            sum = next
        }
        return sum
    }

    /// The next bytes that lie together, at most `limit`; the cursor moves behind them.
    mutating func next(_ limit: Int) -> UnsafeMutableRawBufferPointer? {
        while unsafe index < vectors.count {
            let vector = unsafe vectors[index]
            let left = unsafe Int(truncatingIfNeeded: vector.iov_len) &- offset
            guard left > 0, let base = unsafe vector.iov_base else {
                index &+= 1
                offset = 0
                continue
            }
            let taken = min(left, limit)
            defer { offset &+= taken }
            return unsafe UnsafeMutableRawBufferPointer(start: base + offset, count: taken)
        }
        return nil
    }

    mutating func advance(_ count: Int) {
        var left = count
        while left > 0, let piece = unsafe next(left) { left &-= piece.count }
    }

    mutating func fillWithZeroes(_ count: Int) {
        var left = count
        while left > 0, let piece = unsafe next(left) {
            _ = unsafe memset(piece.baseAddress!, 0, piece.count)
            left &-= piece.count
        }
    }

    mutating func copy(from source: UnsafeRawBufferPointer) {
        var done = 0
        while done < source.count, let piece = unsafe next(source.count &- done) {
            unsafe piece.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[done..<done &+ piece.count]))
            done &+= piece.count
        }
    }

    /// Hands vectors for at most `limit` bytes from the cursor on to `body`. The cursor stays where it is.
    func withVectors<Result>(
        limit: Int, _ body: (UnsafeMutableBufferPointer<iovec>) throws(BlockError) -> Result
    ) throws(BlockError) -> Result {
        var copy = self
        var batch = unsafe InlineArray<64, iovec>(repeating: iovec())
        var count = 0
        var left = limit
        while count < Self.batch, left > 0, let piece = unsafe copy.next(left) {
            unsafe batch[count] = iovec(iov_base: piece.baseAddress, iov_len: piece.count)
            count &+= 1
            left &-= piece.count
        }
        var span = unsafe batch.mutableSpan
        return try unsafe span.withUnsafeMutableBufferPointer { (all) throws(BlockError) in
            try unsafe body(UnsafeMutableBufferPointer(rebasing: all[..<count]))
        }
    }
}
