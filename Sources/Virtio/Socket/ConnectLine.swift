/// What the host writes first: `CONNECT <port>` and a newline, at most 32 bytes. It may come in pieces.
struct ConnectLine {
    /// Bytes, the newline among them.
    static let longest = 32

    enum Step: Hashable {
        case incomplete
        case port(UInt32)
        case malformed
    }

    private var text = InlineArray<32, UInt8>(repeating: 0)
    private var count = 0

    /// How many more bytes may be looked at. Never 0 after `incomplete`.
    var room: Int { Self.longest &- count }

    /// How many of these bytes belong to the line: all, or those up to its newline. What follows is data for the guest.
    static func length(in bytes: Span<UInt8>) -> Int {
        for index in bytes.indices where bytes[index] == UInt8(ascii: "\n") { return index &+ 1 }
        return bytes.count
    }

    /// Takes bytes that `length` says are the line's.
    mutating func append(_ bytes: Span<UInt8>) -> Step {
        guard bytes.count <= room else { return .malformed }
        for index in bytes.indices {
            text[count] = bytes[index]
            count &+= 1
        }
        guard count > 0, text[count &- 1] == UInt8(ascii: "\n") else {
            return count < Self.longest ? .incomplete : .malformed
        }
        return parse()
    }

    private func parse() -> Step {
        let keyword: StaticString = "connect "
        let length = keyword.utf8CodeUnitCount
        guard count > length &+ 1 else { return .malformed }
        for index in 0..<length {
            // In either case: 0x20 is what distinguishes a letter's two, and a space has it anyway.
            let expected = unsafe keyword.utf8Start[index]
            let isLetter = expected != UInt8(ascii: " ")
            guard text[index] | (isLetter ? 0x20 : 0) == expected else { return .malformed }
        }
        var port: UInt64 = 0
        for index in length..<(count &- 1) {
            let digit = text[index] &- UInt8(ascii: "0")
            guard digit < 10 else { return .malformed }
            port = port &* 10 &+ UInt64(digit)
            guard port <= UInt64(UInt32.max) else { return .malformed }
        }
        return .port(UInt32(truncatingIfNeeded: port))
    }
}
