/// Up to 16 characters, each with the flags that came with it: bits 0-7 the character, 8-15 the flags.
///
/// Storage is inline, so that filling and emptying it allocates nothing.
struct CharacterFIFO: Sendable {
    static let capacity = 16

    private var entries = InlineArray<16, UInt16>(repeating: 0)
    private var head = 0
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }

    /// The entry `index` places behind the oldest; what lies past the newest is stale.
    subscript(index: Int) -> UInt16 { entries[(head &+ index) & (Self.capacity - 1)] }

    /// Appends an entry. A full FIFO stays as it is.
    /// - Returns: whether there was room.
    @discardableResult
    mutating func append(_ entry: UInt16) -> Bool {
        guard count < Self.capacity else { return false }
        entries[(head &+ count) & (Self.capacity - 1)] = entry
        count &+= 1
        return true
    }

    mutating func popFirst() -> UInt16? {
        guard count > 0 else { return nil }
        let entry = entries[head]
        head = (head &+ 1) & (Self.capacity - 1)
        count &-= 1
        return entry
    }

    mutating func removeFirst(_ number: Int) {
        let removed = max(0, min(number, count))
        head = (head &+ removed) & (Self.capacity - 1)
        count &-= removed
    }

    mutating func removeAll() {
        head = 0
        count = 0
    }
}
