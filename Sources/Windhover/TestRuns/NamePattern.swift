/// Which targets somebody means: part of a name, with `*` for any characters and `?` for one.
///
/// A name has brackets where it has a matrix, so that they stand for themselves.
public struct NamePattern: Hashable, Sendable {
    private let pattern: [UInt8]

    public init(_ text: String) { pattern = Array("*\(text)*".utf8) }

    /// Whether the pattern is found in the name.
    public func matches(_ name: String) -> Bool {
        let name = Array(name.utf8)
        var place = 0
        var wanted = 0
        // Where the last star is, and what it has taken so far: going back further is never needed.
        var star: (wanted: Int, place: Int)?
        while place < name.count {
            if wanted < pattern.count, pattern[wanted] == UInt8(ascii: "*") {
                wanted += 1
                star = (wanted, place)
            } else if wanted < pattern.count, pattern[wanted] == UInt8(ascii: "?") || pattern[wanted] == name[place] {
                wanted += 1
                place += 1
                // A character may be several bytes.
                if pattern[wanted - 1] == UInt8(ascii: "?") { while place < name.count, name[place] & 0xC0 == 0x80 { place += 1 } }
            } else if let last = star {
                wanted = last.wanted
                place = last.place + 1
                star = (wanted, place)
            } else {
                return false
            }
        }
        return pattern[wanted...].allSatisfy { $0 == UInt8(ascii: "*") }
    }
}
