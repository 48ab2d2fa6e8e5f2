internal import VMCore

/// Which function's region an address belongs to, as the base address registers say at this moment.
///
/// Regions may overlap: a guest can write what it likes. Then the lower device has the address, and of one device's the lower
/// register; on a real bus both would answer.
struct DecodeMap: Sendable {
    struct Entry: Hashable, Sendable, BitwiseCopyable {
        var base: UInt64
        /// Inclusive.
        var last: UInt64
        var device: Int
        var bar: Int
        /// Whether it is the MSI-X table's.
        var isTable = false
    }

    /// In ascending order of their bases; of the same base, the one that has precedence first.
    private let entries: [Entry]
    private let hasOverlaps: Bool

    init(_ entries: [Entry]) {
        self.entries = entries.sorted { ($0.base, $0.device, $0.bar) < ($1.base, $1.device, $1.bar) }
        var hasOverlaps = false
        var last: UInt64?
        for entry in self.entries {
            if let last, entry.base <= last { hasOverlaps = true }
            last = max(last ?? 0, entry.last)
        }
        self.hasOverlaps = hasOverlaps
    }

    /// Complexity: O(log n); O(n) while any two regions overlap.
    func find(_ address: UInt64) -> Entry? {
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low &+ high) / 2
            if entries[middle].base <= address { low = middle &+ 1 } else { high = middle }
        }
        if !hasOverlaps {
            guard low > 0, entries[low &- 1].last >= address else { return nil }
            return entries[low &- 1]
        }
        var found: Entry?
        for entry in entries[..<low] where entry.last >= address {
            if let other = found, (other.device, other.bar) < (entry.device, entry.bar) { continue }
            found = entry
        }
        return found
    }

    /// Whether addresses from `base` to `last` are one function's alone.
    func isSole(_ device: Int, _ bar: Int, from base: UInt64, to last: UInt64) -> Bool {
        entries.allSatisfy { ($0.device == device && $0.bar == bar) || $0.last < base || $0.base > last }
    }

    func region(of device: Int, bar: Int) -> Entry? { entries.first { $0.device == device && $0.bar == bar } }
}
