internal import Glibc

/// Pieces of an image's tables in memory, a fixed number of them: all that is kept of L2 tables and refcount blocks, however
/// large the image says they are.
///
/// A dirty piece stays until its owner has written it: in which order is not known here.
@safe struct TableCache: ~Copyable {
    private struct Slot {
        /// Where in the file; 0 for none: the header is there.
        var offset: UInt64
        var isDirty = false
        var wasUsed = true
    }

    let sliceSize: Int
    let capacity: Int
    private let bytes: UnsafeMutableRawPointer
    private var slots: [Slot] = []
    private var places: [UInt64: Int] = [:]
    private var hand = 0
    private(set) var dirtyCount = 0

    /// - Parameters:
    ///   - sliceSize: a power of two from 512 on.
    ///   - limit: most bytes of table kept; at least four slices are.
    init(sliceSize: Int, limit: Int) {
        self.sliceSize = sliceSize
        capacity = max(4, limit / sliceSize)
        unsafe bytes = .allocate(byteCount: capacity * sliceSize, alignment: 64)
    }

    deinit { unsafe bytes.deallocate() }

    var slotCount: Int { slots.count }

    /// The slot of the slice at `offset`, if it is here.
    mutating func slot(at offset: UInt64) -> Int? {
        guard let slot = places[offset] else { return nil }
        slots[slot].wasUsed = true
        return slot
    }

    /// Makes room for the slice at `offset`, whose bytes the caller fills in.
    /// - Returns: nil where every slice is dirty.
    mutating func claim(_ offset: UInt64) -> Int? {
        if slots.count < capacity {
            slots.append(Slot(offset: offset))
            places[offset] = slots.count &- 1
            return slots.count &- 1
        }
        guard dirtyCount < slots.count else { return nil }
        while true {
            let slot = hand
            hand = hand &+ 1 == slots.count ? 0 : hand &+ 1
            if slots[slot].isDirty { continue }
            if slots[slot].wasUsed {
                slots[slot].wasUsed = false
                continue
            }
            forget(slot)
            slots[slot] = Slot(offset: offset)
            places[offset] = slot
            return slot
        }
    }

    /// Drops what is in the slot, dirty or not.
    mutating func forget(_ slot: Int) {
        if slots[slot].isDirty { dirtyCount &-= 1 }
        if slots[slot].offset != 0 { places[slots[slot].offset] = nil }
        slots[slot] = Slot(offset: 0, wasUsed: false)
    }

    /// Drops the slices of one table.
    mutating func forget(table offset: UInt64, count: UInt64) {
        var slice: UInt64 = 0
        while slice < count {
            if let slot = places[offset &+ slice] { forget(slot) }
            slice &+= UInt64(sliceSize)
        }
    }

    func offset(_ slot: Int) -> UInt64 { slots[slot].offset }
    func isDirty(_ slot: Int) -> Bool { slots[slot].isDirty }

    mutating func setDirty(_ slot: Int, _ isDirty: Bool) {
        guard slots[slot].isDirty != isDirty else { return }
        slots[slot].isDirty = isDirty
        dirtyCount &+= isDirty ? 1 : -1
    }

    func buffer(_ slot: Int) -> UnsafeMutableRawBufferPointer {
        precondition(slot >= 0 && slot < slots.count)
        return unsafe UnsafeMutableRawBufferPointer(start: bytes + slot * sliceSize, count: sliceSize)
    }

    /// The big-endian 64-bit entry of that number within the slice.
    func entry(_ slot: Int, _ index: Int) -> UInt64 {
        unsafe UInt64(bigEndian: buffer(slot).loadUnaligned(fromByteOffset: index &* 8, as: UInt64.self))
    }

    mutating func setEntry(_ slot: Int, _ index: Int, _ value: UInt64) {
        unsafe buffer(slot).storeBytes(of: value.bigEndian, toByteOffset: index &* 8, as: UInt64.self)
        setDirty(slot, true)
    }
}
