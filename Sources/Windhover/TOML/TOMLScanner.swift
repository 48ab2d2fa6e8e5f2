/// Goes through a TOML document's bytes: blanks, comments, line ends, strings and the words that numbers and dates are.
///
/// Source: [TOML1.0 "Spec", "Comment", "String"].
struct TOMLScanner {
    let bytes: [UInt8]
    var offset = 0

    /// - Throws: `TOMLError` where the bytes are not UTF-8.
    init(_ bytes: [UInt8]) throws(TOMLError) {
        self.bytes = bytes
        if let offset = Self.firstBadByte(of: bytes) {
            throw TOMLError(offset: offset, message: "this is not UTF-8, which a TOML file is written in")
        }
        if bytes.starts(with: Self.byteOrderMark) { offset = 3 }
    }

    /// Which some editors leave.
    static let byteOrderMark: [UInt8] = [0xEF, 0xBB, 0xBF]

    private static func firstBadByte(of bytes: [UInt8]) -> Int? {
        var decoder = UTF8()
        var iterator = bytes.makeIterator()
        var offset = 0
        while true {
            switch decoder.decode(&iterator) {
            case .scalarValue(let scalar): offset += UTF8.width(scalar)
            case .emptyInput: return nil
            case .error: return min(offset, bytes.count - 1)
            }
        }
    }

    var isAtEnd: Bool { offset >= bytes.count }

    /// The next byte. At the end it is 0, which no document may hold.
    var next: UInt8 { offset < bytes.count ? bytes[offset] : 0 }

    func byte(after count: Int) -> UInt8 { offset + count < bytes.count ? bytes[offset + count] : 0 }

    func fail(_ message: String, at place: Int? = nil) -> TOMLError { TOMLError(offset: place ?? offset, message: message) }

    /// What is here, in words for a message.
    var found: String {
        if isAtEnd { return "the end of the file" }
        switch next {
        case UInt8(ascii: "\n"), UInt8(ascii: "\r"): return "the end of the line"
        case 0..<0x20, 0x7F: return "a control character"
        default:
            let character = String(decoding: bytes[offset...].prefix(32), as: UTF8.self).first ?? "?"
            return "'\(character)'"
        }
    }

    /// Takes the byte if it is the next one.
    mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard !isAtEnd, next == UInt8(ascii: character) else { return false }
        offset += 1
        return true
    }

    mutating func skipBlanks() { while next == UInt8(ascii: " ") || next == UInt8(ascii: "\t") { offset += 1 } }

    /// Takes a line feed, with the carriage return before it if there is one.
    mutating func takeLineEnd() -> Bool {
        if next == UInt8(ascii: "\n") {
            offset += 1
            return true
        }
        guard next == UInt8(ascii: "\r"), byte(after: 1) == UInt8(ascii: "\n") else { return false }
        offset += 2
        return true
    }

    mutating func skipComment() throws(TOMLError) {
        guard next == UInt8(ascii: "#") else { return }
        while !isAtEnd {
            if next == UInt8(ascii: "\n") || next == UInt8(ascii: "\r") && byte(after: 1) == UInt8(ascii: "\n") { return }
            guard !Self.isControl(next) else { throw fail("a comment holds a control character") }
            offset += 1
        }
    }

    /// Blanks, comments and line ends, as many as there are: what may stand between an array's values.
    mutating func skipLines() throws(TOMLError) {
        repeat {
            skipBlanks()
            try skipComment()
        } while takeLineEnd()
    }

    /// What must follow a header or a value: nothing more on its line.
    mutating func endLine(after what: String) throws(TOMLError) {
        skipBlanks()
        try skipComment()
        guard takeLineEnd() || isAtEnd else { throw fail("\(found) follows \(what): one line has one of them") }
    }

    /// All but the tab; of the two that end a line, where they do not.
    private static func isControl(_ byte: UInt8) -> Bool { byte < 0x20 && byte != UInt8(ascii: "\t") || byte == 0x7F }

    // MARK: Words

    static func isBare(_ byte: UInt8) -> Bool {
        isLetter(byte) || Digit.contains(byte) || byte == UInt8(ascii: "_") || byte == UInt8(ascii: "-")
    }

    private static func isLetter(_ byte: UInt8) -> Bool { (byte | 0x20) &- UInt8(ascii: "a") < 26 }

    /// Takes a key that needs no quotation marks; empty where there is none.
    mutating func takeBareKey() -> String {
        let start = offset
        while Self.isBare(next) { offset += 1 }
        return String(decoding: bytes[start..<offset], as: UTF8.self)
    }

    /// Takes what a number, a date, `true` or `false` is made of. A date may have a blank before its time.
    mutating func takeWord() -> [UInt8] {
        func isPart(_ byte: UInt8) -> Bool {
            Self.isBare(byte) || byte == UInt8(ascii: "+") || byte == UInt8(ascii: ".") || byte == UInt8(ascii: ":")
        }
        let start = offset
        while isPart(next) { offset += 1 }
        if offset - start == 10, bytes[start + 4] == UInt8(ascii: "-"), next == UInt8(ascii: " "), Digit.contains(byte(after: 1)) {
            offset += 1
            while isPart(next) { offset += 1 }
        }
        return Array(bytes[start..<offset])
    }

    // MARK: Strings

    private static let quote = UInt8(ascii: "\"")
    private static let apostrophe = UInt8(ascii: "'")
    private static let backslash = UInt8(ascii: "\\")

    var isAtString: Bool { next == Self.quote || next == Self.apostrophe }

    /// Takes a string in any of its four forms.
    ///
    /// - Parameter isKey: whether it is a key, which has one line.
    mutating func takeString(isKey: Bool = false) throws(TOMLError) -> String {
        let start = offset
        let mark = next
        let hasLines = byte(after: 1) == mark && byte(after: 2) == mark
        if hasLines, isKey { throw fail("a key has one line: write it in one pair of quotation marks") }
        offset += hasLines ? 3 : 1
        if hasLines { _ = takeLineEnd() }
        var text: [UInt8] = []
        while true {
            guard !isAtEnd else { throw fail("the string that begins here has no end", at: start) }
            let byte = next
            if byte == mark {
                if !hasLines {
                    offset += 1
                    break
                }
                // Up to two of its own marks may stand right before the three that end it.
                var count = 0
                while count < 5, self.byte(after: count) == mark { count += 1 }
                offset += count
                if count >= 3 {
                    for _ in 3..<count { text.append(mark) }
                    break
                }
                for _ in 0..<count { text.append(mark) }
            } else if byte == Self.backslash, mark == Self.quote {
                try takeEscape(into: &text, hasLines: hasLines)
            } else if byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "\r") && self.byte(after: 1) == UInt8(ascii: "\n") {
                guard hasLines else { throw fail("the string that begins here has no end on its line", at: start) }
                text.append(UInt8(ascii: "\n"))
                _ = takeLineEnd()
            } else {
                guard !Self.isControl(byte) else { throw fail("a string holds a control character: write it as an escape, such as \\u0007") }
                text.append(byte)
                offset += 1
            }
        }
        return String(decoding: text, as: UTF8.self)
    }

    private mutating func takeEscape(into text: inout [UInt8], hasLines: Bool) throws(TOMLError) {
        let start = offset
        offset += 1
        let kind = next
        offset += 1
        switch kind {
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "n"): text.append(0x0A)
        case UInt8(ascii: "f"): text.append(0x0C)
        case UInt8(ascii: "r"): text.append(0x0D)
        case Self.quote, Self.backslash: text.append(kind)
        case UInt8(ascii: "u"), UInt8(ascii: "U"):
            let count = kind == UInt8(ascii: "u") ? 4 : 8
            var value: UInt32 = 0
            for _ in 0..<count {
                guard let digit = Self.hexadecimal(next) else { throw fail("\\\(count == 4 ? "u" : "U") wants \(count) hexadecimal digits", at: start) }
                value = value << 4 | UInt32(digit)
                offset += 1
            }
            guard let scalar = Unicode.Scalar(value) else { throw fail("this escape is no Unicode scalar value", at: start) }
            text.append(contentsOf: String(Character(scalar)).utf8)
        default:
            // A backslash at a line's end takes the line end and all blanks after it away.
            offset = start + 1
            skipBlanks()
            guard hasLines, takeLineEnd() else {
                throw fail("there is no such escape: a backslash itself is \\\\, or stands in single quotation marks", at: start)
            }
            repeat { skipBlanks() } while takeLineEnd()
        }
    }

    static func hexadecimal(_ byte: UInt8) -> UInt8? {
        if Digit.contains(byte) { return byte - UInt8(ascii: "0") }
        let letter = (byte | 0x20) &- UInt8(ascii: "a")
        return letter < 6 ? letter + 10 : nil
    }
}
