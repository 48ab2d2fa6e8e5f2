internal import Glibc

/// Where numbers in a row are not what they should be, in one sentence; nothing if they are: `#expect(difference(of: sent, from: data) == nil)`.
///
/// Made for rows too long for `#expect(sent == data)`. When that fails, it looks for the fewest insertions and removals between the two, for which it
/// takes the square of their length, and describes every element: 8000 bytes keep it for ten seconds, 100 MiB for ever, and nothing
/// is printed before.
///
/// - Returns: both lengths, if they are not the same, the place of the first difference counted from zero, and up to eight elements
///   of both from there, in hexadecimal.
/// - Complexity: O(n), and fast in debug builds too: memory is compared with memcmp. What does not lie in one piece is copied first.
public func difference<Element: FixedWidthInteger & BitwiseCopyable>(
    of actual: some Collection<Element>, from expected: some Collection<Element>
) -> String? {
    unsafe withStorage(of: actual) { actual in
        unsafe withStorage(of: expected) { expected in
            let common = min(actual.count, expected.count)
            let differing = unsafe firstDifference(UnsafeRawBufferPointer(actual), UnsafeRawBufferPointer(expected))
                .map { $0 / MemoryLayout<Element>.stride }
            let (count, expectedCount) = (actual.count, expected.count)
            if differing == nil, count == expectedCount { return nil }
            let place = differing ?? common
            let kind = Element.self == UInt8.self ? "bytes" : "elements"
            let lengths =
                count == expectedCount
                ? "at \(place) of \(count) \(kind)"
                : "\(count) \(kind) in place of \(expectedCount); at \(place)"
            return unsafe "\(lengths): \(hexadecimal(actual, from: place)) in place of \(hexadecimal(expected, from: place))"
        }
    }
}

private func withStorage<Element, Result>(
    of collection: some Collection<Element>, _ body: (UnsafeBufferPointer<Element>) -> Result
) -> Result {
    if let result = collection.withContiguousStorageIfAvailable(body) { return result }
    return unsafe Array(collection).withUnsafeBufferPointer(body)
}

/// The offset of the first byte that differs, of those that both have.
private func firstDifference(_ actual: UnsafeRawBufferPointer, _ expected: UnsafeRawBufferPointer) -> Int? {
    let common = min(actual.count, expected.count)
    guard let actualBytes = actual.baseAddress, let expectedBytes = expected.baseAddress else { return nil }
    // memcmp does not say where. A loop does, and looks at one block only: unoptimised, it would take minutes for all.
    for block in stride(from: 0, to: common, by: 4096) {
        let end = min(block + 4096, common)
        if unsafe memcmp(actualBytes + block, expectedBytes + block, end - block) != 0 {
            return (block..<end).first { unsafe actual[$0] != expected[$0] }
        }
    }
    return nil
}

/// Up to eight elements, each with all of its digits.
private func hexadecimal<Element: FixedWidthInteger>(_ elements: UnsafeBufferPointer<Element>, from place: Int) -> String {
    guard place < elements.count else { return "nothing" }
    let shown = unsafe elements[place...].prefix(8)
    let digits = unsafe shown.map { element in
        let digits = String(Element.Magnitude(truncatingIfNeeded: element), radix: 16)
        return String(repeating: "0", count: max(0, Element.bitWidth / 4 - digits.count)) + digits
    }
    return unsafe digits.joined(separator: " ") + (place + shown.count < elements.count ? " ..." : "")
}
