/// Reads a TOML document: keys, tables, arrays, and who may add to what.
///
/// Source: [TOML1.0 "Keys", "Array", "Table", "Inline Table", "Array of Tables"].
struct TOMLParser {
    private var scanner: TOMLScanner
    private let root = TOMLTable(.header)
    /// What keys are added to: the root, or the last header's table.
    private var current: TOMLTable
    /// A number for each header and each inline table, within which dotted keys may add to each other's tables.
    private var section = 0
    /// How many there have been.
    private var sections = 0

    /// The most parts of a key, and the deepest values in values: what is read is walked by recursion, here and where it is freed.
    private static let deepest = 64

    init(_ bytes: [UInt8]) throws(TOMLError) {
        scanner = try TOMLScanner(bytes)
        current = root
    }

    /// - Returns: the root table.
    mutating func document() throws(TOMLError) -> TOMLTable {
        while true {
            try scanner.skipLines()
            if scanner.isAtEnd { return root }
            if scanner.next == UInt8(ascii: "[") {
                try header()
                try scanner.endLine(after: "a header")
            } else {
                try assignment(to: current, depth: 0)
                try scanner.endLine(after: "a value")
            }
        }
    }

    private func line(of offset: Int) -> Int { TOMLPosition(of: offset, in: scanner.bytes).line }

    // MARK: Keys

    /// One or more parts with dots between them.
    private mutating func key() throws(TOMLError) -> [TOMLKey] {
        var parts: [TOMLKey] = []
        repeat {
            scanner.skipBlanks()
            let start = scanner.offset
            let name: String
            if scanner.isAtString {
                name = try scanner.takeString(isKey: true)
            } else {
                name = scanner.takeBareKey()
                guard !name.isEmpty else {
                    throw scanner.fail(
                        "a key is expected, and \(scanner.found) is here: other characters than letters, digits, - and _ stand in quotation marks")
                }
            }
            parts.append(TOMLKey(name: name, offset: start))
            guard parts.count <= Self.deepest else { throw scanner.fail("a key has more than \(Self.deepest) parts", at: parts[0].offset) }
            scanner.skipBlanks()
        } while scanner.take(".")
        return parts
    }

    private static func text(_ parts: some Sequence<TOMLKey>) -> String { parts.map(\.name).joined(separator: ".") }

    // MARK: Headers

    private mutating func header() throws(TOMLError) {
        let start = scanner.offset
        _ = scanner.take("[")
        let isList = scanner.take("[")
        let parts = try key()
        guard scanner.take("]"), !isList || scanner.take("]") else {
            throw scanner.fail("\(isList ? "]]" : "]") is expected, and \(scanner.found) is here")
        }
        sections += 1
        section = sections
        var table = root
        for (index, part) in parts.dropLast().enumerated() {
            guard let entry = table[part.name] else {
                let added = TOMLTable(.implicit)
                table.add(part, .table(added), at: part.offset)
                table = added
                continue
            }
            switch entry.node.value {
            case .table(let next) where next.origin != .inline: table = next
            case .tables(let list): if let last = list.tables.last { table = last.table }
            default: throw closed(Self.text(parts[...index]), entry, at: part.offset)
            }
        }
        guard let last = parts.last else { return }
        let added = TOMLTable(.header)
        switch (table[last.name], isList) {
        case (nil, false):
            table.add(last, .table(added), at: start)
        case (nil, true):
            let list = TOMLTableList()
            list.tables.append((added, start))
            table.add(last, .tables(list), at: start)
        case (let entry?, _):
            switch (entry.node.value, isList) {
            case (.tables(let list), true):
                list.tables.append((added, start))
            case (.table(let there), false) where there.origin == .implicit:
                there.origin = .header
                current = there
                return
            default:
                let former = line(of: entry.node.offset)
                throw scanner.fail("\(Self.text(parts)) is there already, on line \(former)", at: last.offset)
            }
        }
        current = added
    }

    private func closed(_ name: String, _ entry: TOMLTable.Entry, at offset: Int) -> TOMLError {
        scanner.fail("\(name) is set on line \(line(of: entry.key.offset)), and nothing can be added to it", at: offset)
    }

    // MARK: Values

    /// `key = value`.
    private mutating func assignment(to table: TOMLTable, depth: Int) throws(TOMLError) {
        let parts = try key()
        guard scanner.take("=") else {
            throw scanner.fail("= is expected behind the key '\(Self.text(parts))', and \(scanner.found) is here")
        }
        scanner.skipBlanks()
        let node = try value(depth: depth)
        var table = table
        for (index, part) in parts.dropLast().enumerated() {
            guard let entry = table[part.name] else {
                let added = TOMLTable(.dotted(section: section))
                table.add(part, .table(added), at: part.offset)
                table = added
                continue
            }
            guard case .table(let next) = entry.node.value, next.origin == .implicit || next.origin == .dotted(section: section) else {
                throw closed(Self.text(parts[...index]), entry, at: part.offset)
            }
            next.origin = .dotted(section: section)
            table = next
        }
        guard let last = parts.last else { return }
        if let entry = table[last.name] {
            throw scanner.fail("\(Self.text(parts)) is there already, on line \(line(of: entry.key.offset))", at: parts[0].offset)
        }
        table.add(last, node.value, at: node.offset)
    }

    private mutating func value(depth: Int) throws(TOMLError) -> TOMLNode {
        let start = scanner.offset
        guard depth <= Self.deepest else { throw scanner.fail("values are nested more than \(Self.deepest) deep") }
        switch scanner.next {
        case _ where scanner.isAtString: return TOMLNode(value: .string(try scanner.takeString()), offset: start)
        case UInt8(ascii: "["): return TOMLNode(value: .array(try array(depth: depth)), offset: start)
        case UInt8(ascii: "{"): return TOMLNode(value: .table(try inlineTable(depth: depth)), offset: start)
        default: break
        }
        let word = scanner.takeWord()
        guard !word.isEmpty else { throw scanner.fail("a value is expected, and \(scanner.found) is here") }
        switch TOMLScalar.read(word) {
        case .success(let value): return TOMLNode(value: value, offset: start)
        case .failure(let reason): throw scanner.fail(reason.text, at: start)
        }
    }

    private mutating func array(depth: Int) throws(TOMLError) -> [TOMLNode] {
        let start = scanner.offset
        _ = scanner.take("[")
        var nodes: [TOMLNode] = []
        while true {
            try scanner.skipLines()
            if scanner.take("]") { return nodes }
            guard !scanner.isAtEnd else { throw scanner.fail("the array that begins here has no end", at: start) }
            nodes.append(try value(depth: depth + 1))
            try scanner.skipLines()
            if scanner.take(",") { continue }
            if scanner.take("]") { return nodes }
            guard !scanner.isAtEnd else { throw scanner.fail("the array that begins here has no end", at: start) }
            throw scanner.fail(", or ] is expected in an array, and \(scanner.found) is here")
        }
    }

    private mutating func inlineTable(depth: Int) throws(TOMLError) -> TOMLTable {
        let outer = section
        sections += 1
        section = sections
        defer { section = outer }
        _ = scanner.take("{")
        let table = TOMLTable(.dotted(section: section))
        scanner.skipBlanks()
        if !scanner.take("}") {
            while true {
                scanner.skipBlanks()
                try assignment(to: table, depth: depth + 1)
                scanner.skipBlanks()
                if scanner.take("}") { break }
                guard scanner.take(",") else {
                    throw scanner.fail("\(scanner.isAtEnd ? "}" : ", or }") is expected in an inline table, which has one line, and \(scanner.found) is here")
                }
            }
        }
        table.origin = .inline
        return table
    }
}
