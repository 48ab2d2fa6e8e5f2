/// Disjoint ranges of addresses, in order.
///
/// Not for many: a change costs as much as there are ranges, finding one the logarithm of it.
struct AddressRanges: Sendable {
    private(set) var ranges: [Range<UInt64>] = []

    /// Adds a range; those that it overlaps or touches become one with it.
    mutating func insert(_ range: Range<UInt64>) {
        guard !range.isEmpty else { return }
        var (lower, upper) = (range.lowerBound, range.upperBound)
        let first = firstIndex(endingAtOrAfter: lower)
        var end = first
        while end < ranges.count, ranges[end].lowerBound <= upper {
            lower = min(lower, ranges[end].lowerBound)
            upper = max(upper, ranges[end].upperBound)
            end += 1
        }
        ranges.replaceSubrange(first..<end, with: CollectionOfOne(lower..<upper))
    }

    /// Takes a range out, wherever it is.
    mutating func remove(_ range: Range<UInt64>) {
        guard !range.isEmpty else { return }
        let first = firstIndex(endingAtOrAfter: range.lowerBound)
        var end = first
        var rest: [Range<UInt64>] = []
        while end < ranges.count, ranges[end].lowerBound < range.upperBound {
            let old = ranges[end]
            if old.lowerBound < range.lowerBound { rest.append(old.lowerBound..<min(old.upperBound, range.lowerBound)) }
            if old.upperBound > range.upperBound { rest.append(range.upperBound..<old.upperBound) }
            end += 1
        }
        ranges.replaceSubrange(first..<end, with: rest)
    }

    /// The first range that ends behind `address`.
    func first(endingAfter address: UInt64) -> Range<UInt64>? {
        guard address < .max else { return nil }
        let index = firstIndex(endingAtOrAfter: address + 1)
        return index < ranges.count ? ranges[index] : nil
    }

    private func firstIndex(endingAtOrAfter address: UInt64) -> Int {
        var (low, high) = (0, ranges.count)
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].upperBound < address { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
