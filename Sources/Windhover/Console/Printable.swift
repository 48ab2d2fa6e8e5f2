/// Text of a guest's made fit for the terminal of a person: a guest may print anything, also what a terminal obeys.
enum Printable {
    /// The bytes as text without control characters; a tabulator is a blank.
    static func text(_ bytes: some Sequence<UInt8>) -> String {
        let kept = bytes.compactMap { byte -> UInt8? in
            if byte == 9 { return 32 }
            return byte < 32 || byte == 127 ? nil : byte
        }
        // C1 controls are two bytes of UTF-8.
        return String(String.UnicodeScalarView(String(decoding: kept, as: UTF8.self).unicodeScalars.filter { !$0.isControl }))
    }

    /// The same, of a line that may have no end: what is beyond its first characters is left out.
    static func line(_ bytes: some Collection<UInt8>) -> String {
        // Four bytes a character are the most that UTF-8 has.
        let all = text(bytes.prefix(4 * longestLine)).unicodeScalars
        return all.count > longestLine ? String(String.UnicodeScalarView(all.prefix(longestLine))) + "…" : String(all)
    }

    /// Characters of a line that somebody is shown.
    static let longestLine = 512
}

extension Unicode.Scalar {
    /// Whether a terminal may do something for it in place of showing it: controls, what changes the direction of the text about it,
    /// and Unicode's own ends of lines and paragraphs.
    var isControl: Bool {
        switch value {
        case 0...0x1F, 0x7F...0x9F, 0x200E...0x200F, 0x2028...0x202E, 0x2066...0x2069: true
        default: false
        }
    }
}
