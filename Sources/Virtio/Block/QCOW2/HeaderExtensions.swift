internal import VMCore

/// What is behind the header in its cluster: extensions, and the backing file's name.
///
/// Source: [QCOW2 §Header extensions].
struct HeaderExtensions: Hashable, Sendable {
    enum Kind {
        static let end: UInt32 = 0, backingFormat: UInt32 = 0xE279_2ACA, featureNames: UInt32 = 0x6803_F857
    }

    private(set) var backingName: String?
    private(set) var backingFormat: String?
    /// Names of incompatible features, by their bit.
    private(set) var featureNames: [Int: String] = [:]

    init() {}

    /// - Parameter bytes: the file's first cluster, as much of it as there is.
    /// - Throws: what is wrong, in words.
    init(_ header: QCOW2Header, _ bytes: [UInt8]) throws(BlockError) {
        try readName(header, bytes)
        var place = Int(clamping: header.length)
        // Every step moves on by eight bytes at least.
        while place <= bytes.count - 8 {
            let kind = bytes.bigEndian32(place)
            let length = Int(clamping: bytes.bigEndian32(place + 4))
            if kind == Kind.end { return }
            // The name follows; what was there before extensions were thought of is not one of them.
            if header.backingNameOffset != 0, UInt64(place) >= header.backingNameOffset { return }
            guard length <= bytes.count - place - 8 else {
                throw .corrupt("its header extension \(String(kind, radix: 16)) is not within its first cluster")
            }
            let data = bytes[place + 8..<place + 8 + length]
            switch kind {
            case Kind.backingFormat: backingFormat = Self.printable(data.prefix(64))
            case Kind.featureNames: readFeatureNames(Array(data))
            default: break
            }
            place += 8 + (length + 7) / 8 * 8
        }
    }

    private mutating func readName(_ header: QCOW2Header, _ bytes: [UInt8]) throws(BlockError) {
        guard header.backingNameOffset != 0 else { return }
        let length = UInt64(header.backingNameLength)
        guard length <= QCOW2Header.longestName else { throw .corrupt("its backing file's name has \(length) bytes") }
        guard header.backingNameOffset <= UInt64(bytes.count), length <= UInt64(bytes.count) - header.backingNameOffset else {
            throw .corrupt("its backing file's name is not within its first cluster")
        }
        let start = Int(header.backingNameOffset)
        backingName = Self.printable(bytes[start..<start + Int(length)])
    }

    private mutating func readFeatureNames(_ table: [UInt8]) {
        for entry in stride(from: 0, to: table.count - 47, by: 48) where table[entry] == 0 {
            featureNames[Int(table[entry + 1])] = Self.printable(table[entry + 2..<entry + 48].prefix { $0 != 0 })
        }
    }

    /// Text from the file, as it may go to a terminal.
    static func printable(_ bytes: some Sequence<UInt8>) -> String {
        let text = String(decoding: Array(bytes), as: UTF8.self)
        return String(String.UnicodeScalarView(text.unicodeScalars.map { PlainText.isShown($0) ? $0 : "?" }))
    }
}
