/// Text of a guest's made fit for the terminal of a person: a guest may print anything, also what a terminal obeys.
enum Printable {
    /// The bytes as text without control characters; a tabulator is a blank.
    static func text(_ bytes: some Sequence<UInt8>) -> String {
        let kept = bytes.compactMap { byte -> UInt8? in
            if byte == 9 { return 32 }
            return byte < 32 || byte == 127 ? nil : byte
        }
        // C1 controls are two bytes of UTF-8.
        return String(String.UnicodeScalarView(String(decoding: kept, as: UTF8.self).unicodeScalars.filter { !(0x80...0x9F).contains($0.value) }))
    }
}
