internal import VMCore

/// A function's table of interrupt messages and its pending bits, as a chip: they fill a region of their own, the table from
/// its start, the pending bits from its middle.
/// ```
/// table entry   0 address, low  4 address, high  8 data  C control: bit 0 masks
/// ```
/// Accesses are 4 or 8 bytes, aligned; others read as zero and write nothing. Source: [PCI3.0 §6.8.2].
struct MSIXTable: Sendable {
    let vectorCount: Int
    /// Four words an entry.
    private var words: [UInt32]
    private var pending: [UInt64]
    var isEnabled = false
    var isFunctionMasked = false
    /// Whether an unmasked vector's message goes out at once.
    var isDelivering: Bool { isEnabled && !isFunctionMasked }

    /// Most entries that a table can have.
    static let limit = 2048
    private static let masked: UInt32 = 1

    init(vectorCount: Int) {
        precondition((1...Self.limit).contains(vectorCount), "a table has 1 to 2048 entries")
        self.vectorCount = vectorCount
        // Every entry is masked after a reset. Source: [PCI3.0 §6.8.2.9].
        words = (0..<vectorCount * 4).map { $0 % 4 == 3 ? Self.masked : 0 }
        pending = [UInt64](repeating: 0, count: (vectorCount + 63) / 64)
    }

    /// Bytes of the region: a page at least, so that it can be mapped apart from others.
    static func regionSize(vectorCount: Int) -> UInt64 {
        var half: UInt64 = 2048
        while half < UInt64(vectorCount) * 16 { half *= 2 }
        return half * 2
    }

    static func pendingOffset(vectorCount: Int) -> UInt64 { regionSize(vectorCount: vectorCount) / 2 }

    // MARK: Interrupts

    /// An event on a vector.
    /// - Returns: the message to send now; nil where it is masked, and waits.
    mutating func raise(_ vector: Int) -> InterruptMessage? {
        guard vector >= 0, vector < vectorCount else { return nil }
        guard !isFunctionMasked, words[vector &* 4 &+ 3] & Self.masked == 0 else {
            pending[vector / 64] |= 1 << UInt64(vector % 64)
            return nil
        }
        return message(vector)
    }

    private func message(_ vector: Int) -> InterruptMessage {
        let place = vector &* 4
        return InterruptMessage(address: UInt64(words[place]) | UInt64(words[place &+ 1]) << 32, data: words[place &+ 2])
    }

    /// What waits on a vector and may be sent.
    mutating func takePending(_ vector: Int) -> InterruptMessage? {
        let bit: UInt64 = 1 << UInt64(vector % 64)
        guard isDelivering, pending[vector / 64] & bit != 0, words[vector &* 4 &+ 3] & Self.masked == 0 else {
            return nil
        }
        pending[vector / 64] &= ~bit
        return message(vector)
    }

    mutating func clearPending() {
        for index in pending.indices { pending[index] = 0 }
    }

    // MARK: Accesses

    private static func isAccess(_ offset: UInt64, _ width: AccessWidth) -> Bool {
        width.rawValue >= 4 && offset & (width.bytes &- 1) == 0
    }

    func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard Self.isAccess(offset, width) else { return 0 }
        let low = UInt64(word(offset))
        return width == .quad ? low | UInt64(word(offset &+ 4)) << 32 : low
    }

    private func word(_ offset: UInt64) -> UInt32 {
        if offset < UInt64(words.count) &* 4 { return words[Int(offset / 4)] }
        let start = Self.pendingOffset(vectorCount: vectorCount)
        guard offset >= start, offset &- start < UInt64(pending.count) &* 8 else { return 0 }
        let place = offset &- start
        return UInt32(truncatingIfNeeded: pending[Int(place / 8)] >> (place & 4 &* 8))
    }

    /// - Returns: the vector whose entry was written, if any: what waits on it may have become free.
    mutating func write(offset: UInt64, width: AccessWidth, value: UInt64) -> Int? {
        guard Self.isAccess(offset, width), offset < UInt64(words.count) &* 4 else { return nil }
        setWord(Int(offset / 4), UInt32(truncatingIfNeeded: value))
        if width == .quad { setWord(Int(offset / 4) &+ 1, UInt32(truncatingIfNeeded: value >> 32)) }
        return Int(offset / 16)
    }

    private mutating func setWord(_ index: Int, _ value: UInt32) {
        switch index & 3 {
        case 0: words[index] = value & ~3
        case 3: words[index] = value & Self.masked
        default: words[index] = value
        }
    }
}
