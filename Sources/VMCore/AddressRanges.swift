/// Disjoint ranges of addresses, in order.
///
/// Not for many: a change costs as much as there are ranges, finding one the logarithm of it.
struct AddressRanges: Sendable {
    /// Not an array of `Range`s: to make one of these at run time, the runtime looks through every conformance in the program, which
    /// a start would have to wait for.
    private struct Span: Sendable {
        /// Inclusive, and exclusive.
        var lowerBound, upperBound: UInt64
    }

    private var spans: [Span] = []

    var count: Int { spans.count }

    var ranges: [Range<UInt64>] { spans.map { $0.lowerBound..<$0.upperBound } }

    /// Adds a range; those that it overlaps or touches become one with it.
    mutating func insert(_ range: Range<UInt64>) {
        guard !range.isEmpty else { return }
        var (lower, upper) = (range.lowerBound, range.upperBound)
        let first = firstIndex(endingAtOrAfter: lower)
        var end = first
        while end < spans.count, spans[end].lowerBound <= upper {
            lower = min(lower, spans[end].lowerBound)
            upper = max(upper, spans[end].upperBound)
            end += 1
        }
        spans.replaceSubrange(first..<end, with: CollectionOfOne(Span(lowerBound: lower, upperBound: upper)))
    }

    /// Takes a range out, wherever it is.
    mutating func remove(_ range: Range<UInt64>) {
        guard !range.isEmpty else { return }
        let first = firstIndex(endingAtOrAfter: range.lowerBound)
        var end = first
        var rest: [Span] = []
        while end < spans.count, spans[end].lowerBound < range.upperBound {
            let old = spans[end]
            if old.lowerBound < range.lowerBound {
                rest.append(Span(lowerBound: old.lowerBound, upperBound: min(old.upperBound, range.lowerBound)))
            }
            if old.upperBound > range.upperBound { rest.append(Span(lowerBound: range.upperBound, upperBound: old.upperBound)) }
            end += 1
        }
        spans.replaceSubrange(first..<end, with: rest)
    }

    /// The first range that ends behind `address`.
    func first(endingAfter address: UInt64) -> Range<UInt64>? {
        guard address < .max else { return nil }
        let index = firstIndex(endingAtOrAfter: address + 1)
        return index < spans.count ? spans[index].lowerBound..<spans[index].upperBound : nil
    }

    private func firstIndex(endingAtOrAfter address: UInt64) -> Int {
        var (low, high) = (0, spans.count)
        while low < high {
            let middle = (low + high) / 2
            if spans[middle].upperBound < address { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
