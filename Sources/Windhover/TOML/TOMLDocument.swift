/// A TOML document that was read: its tables, and where in the file everything stands.
///
/// Positions are byte offsets into the file, from which a line and a column are counted only where somebody is to be told.
struct TOMLDocument {
    let root: TOMLTable
    private let bytes: [UInt8]

    /// - Throws: `TOMLError` for the first thing that is no TOML. Source: [TOML1.0].
    init(_ bytes: [UInt8]) throws(TOMLError) {
        self.bytes = bytes
        var parser = try TOMLParser(bytes)
        root = try parser.document()
    }

    func position(of offset: Int) -> TOMLPosition { TOMLPosition(of: offset, in: bytes) }
}

/// A place in a file, as editors count: both from 1, columns in Unicode scalars.
struct TOMLPosition: Hashable {
    var line = 1
    var column = 1

    init(of offset: Int, in bytes: [UInt8]) {
        // A byte order mark is no column.
        for byte in bytes.prefix(offset).dropFirst(bytes.starts(with: TOMLScanner.byteOrderMark) ? 3 : 0) {
            if byte == UInt8(ascii: "\n") {
                line += 1
                column = 1
            } else if byte & 0xC0 != 0x80 {
                column += 1
            }
        }
    }
}

/// Bytes that are no TOML document, or a document that says something twice.
struct TOMLError: Error, Hashable {
    /// Of the byte in the file where it shows.
    var offset: Int
    /// One line.
    var message: String
}

/// What a key stands for.
enum TOMLValue {
    case string(String)
    case integer(Int64)
    case float(Double)
    case boolean(Bool)
    /// A date, a time or both, in any of the four forms: seen to be a real one, and left as it is written.
    case date(String)
    case array([TOMLNode])
    case table(TOMLTable)
    /// What `[[name]]` headers add to.
    case tables(TOMLTableList)
}

/// A value and where it begins.
struct TOMLNode {
    var value: TOMLValue
    var offset: Int
}

/// One part of a key and where it begins.
struct TOMLKey {
    var name: String
    var offset: Int
}

/// A table under construction, and then for reading. Its keys keep their order.
final class TOMLTable {
    /// How the table came to be, which decides who may add to it. Source: [TOML1.0 "Table"].
    enum Origin: Equatable {
        /// On the way to the name in a header: a header of its own may follow.
        case implicit
        case header
        /// By dotted keys in one section, to which they may go on adding.
        case dotted(section: Int)
        /// Closed by its brace.
        case inline
    }

    struct Entry {
        let key: TOMLKey
        let node: TOMLNode
    }

    var origin: Origin
    private(set) var entries: [Entry] = []
    /// By the name's bytes: keys that differ in their code points only are two, which to `String` are one.
    private var places: [[UInt8]: Int] = [:]

    init(_ origin: Origin) { self.origin = origin }

    subscript(name: String) -> Entry? { places[Array(name.utf8)].map { entries[$0] } }

    /// Adds what is not there yet.
    func add(_ key: TOMLKey, _ value: TOMLValue, at offset: Int) {
        places[Array(key.name.utf8)] = entries.count
        entries.append(Entry(key: key, node: TOMLNode(value: value, offset: offset)))
    }
}

/// The tables of `[[name]]` headers, in their order.
final class TOMLTableList {
    /// With the place of each one's header.
    var tables: [(table: TOMLTable, offset: Int)] = []
}
