internal import VMCore

/// A file of test targets, as `hover test` takes it: docs/test-files.md.
public struct TestFile: Sendable {
    /// As it was named.
    public let path: String
    /// In the file's order; those of a matrix in its keys' order, the last key's values changing first.
    public let targets: [TestTarget]

    /// What a file is called where none is named.
    public static let usualName = "hover.toml"

    private static let sizeLimit = 1 << 20
    private static let targetLimit = 10_000

    /// The directory that paths in the file, and the working directory of its commands, begin at.
    public var directory: String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// Reads a file.
    ///
    /// - Throws: a `ReportableError`: `InputFileError` for a file that cannot be read, else `TestFileError`.
    public init(_ path: String) throws {
        do { try InputFile.check(path, role: "test file") } catch InputFileError.empty {
            throw TestFileError(path: path, line: 1, column: 1, message: Self.noTarget)
        }
        let bytes: [UInt8]
        do { bytes = try HostFile.contents(of: path, limit: Self.sizeLimit) } catch {
            throw InputFileError.unreadable(role: "test file", path: path, errno: error.code)
        }
        try self.init(path, bytes)
    }

    private static let noTarget = "there is no [[target]] here: begin one, with its name and its command"

    /// - Parameter bytes: what the file holds.
    init(_ path: String, _ bytes: [UInt8]) throws(TestFileError) {
        self.path = path
        func report(_ error: TOMLError) -> TestFileError {
            let place = TOMLPosition(of: error.offset, in: bytes)
            // It may tell a key or a text of the file's, which holds whatever its escapes say, and is as long as it likes.
            return TestFileError(path: path, line: place.line, column: place.column, message: PlainText.line(error.message.utf8, limit: PlainText.longestLine))
        }
        do throws(TOMLError) {
            let document = try TOMLDocument(bytes)
            var reader = Reader(document: document)
            targets = try reader.targets()
        } catch { throw report(error) }
    }

    /// From the document's tables to targets.
    private struct Reader {
        let document: TOMLDocument
        private var defaults: [TOMLTable.Entry] = []
        private var matrix: TOMLTable.Entry?
        private var found: [TestTarget] = []
        /// Where each target's name is.
        private var names: [String: Int] = [:]

        init(document: TOMLDocument) { self.document = document }

        mutating func targets() throws(TOMLError) -> [TestTarget] {
            var list: TOMLTableList?
            for entry in document.root.entries {
                switch (entry.key.name, entry.node.value) {
                case ("defaults", .table(let table)): try readDefaults(table)
                case ("defaults", _): throw TargetSettings.wrongType(entry.node, "defaults", "a table")
                case ("target", .tables(let tables)): list = tables
                case ("target", _):
                    throw TOMLError(offset: entry.key.offset, message: "target is \(entry.node.kind): each target begins with [[target]]")
                default: throw Self.unknown(entry.key, among: ["defaults", "target"])
                }
            }
            guard let list else { throw TOMLError(offset: 0, message: TestFile.noTarget) }
            for (table, offset) in list.tables { try readTarget(table, at: offset) }
            return found
        }

        private mutating func readDefaults(_ table: TOMLTable) throws(TOMLError) {
            var settings = TargetSettings()
            for entry in table.entries {
                let key = entry.key.name
                guard key != "name" else { throw TOMLError(offset: entry.key.offset, message: "name belongs to a target: each has its own") }
                guard TargetSettings.sharedKeys.contains(key) else { throw Self.unknown(entry.key, among: TargetSettings.sharedKeys) }
                if key == "matrix" { matrix = entry } else { try settings.set(key, entry.node) }
            }
            defaults = table.entries.filter { $0.key.name != "matrix" }
        }

        private mutating func readTarget(_ table: TOMLTable, at offset: Int) throws(TOMLError) {
            var settings = TargetSettings()
            for entry in defaults { try settings.set(entry.key.name, entry.node) }
            var matrix = self.matrix
            var nameNode: TOMLNode?
            for entry in table.entries {
                switch entry.key.name {
                case "name": nameNode = entry.node
                case "matrix": matrix = entry
                case let key where TargetSettings.sharedKeys.contains(key): try settings.set(key, entry.node)
                default: throw Self.unknown(entry.key, among: TargetSettings.sharedKeys + ["name"])
                }
            }
            guard let nameNode else { throw TOMLError(offset: offset, message: "this target has no name: give it one, as in name = \"boot\"") }
            let name = try TargetSettings.text(nameNode, "name")
            guard !name.unicodeScalars.contains(where: { !PlainText.isShown($0) }) else {
                throw TOMLError(offset: nameNode.offset, message: "a name has one line, and no control characters")
            }
            var axes: [Axis] = []
            if let matrix { axes = try Self.axes(matrix.node) }
            for axis in axes {
                guard let own = table[axis.key.name] else { continue }
                guard table["matrix"] == nil else {
                    throw TOMLError(offset: own.key.offset, message: "\(axis.key.name) is set here and varied by the matrix, too: leave one of them out")
                }
            }
            // A key of the target's own stands above a matrix that all have.
            axes.removeAll { table[$0.key.name] != nil }
            try addCombinations(of: axes[...], to: settings, labels: [], name, at: nameNode.offset, header: offset)
        }

        private mutating func addCombinations(
            of axes: ArraySlice<Axis>, to settings: TargetSettings, labels: [String], _ name: String, at offset: Int, header: Int
        ) throws(TOMLError) {
            guard let axis = axes.first else {
                let full = labels.isEmpty ? name : "\(name) [\(labels.joined(separator: ", "))]"
                guard let target = settings.target(named: full) else {
                    throw TOMLError(offset: header, message: "the target '\(name)' has no command: give it one, as in command = \"make check\"")
                }
                if let former = names[full] {
                    throw TOMLError(offset: offset, message: "there is a target '\(full)' already, on line \(document.position(of: former).line)")
                }
                guard found.count < TestFile.targetLimit else {
                    throw TOMLError(offset: offset, message: "these are more than \(TestFile.targetLimit) targets")
                }
                names[full] = offset
                found.append(target)
                return
            }
            for node in axis.values {
                var settings = settings
                try settings.set(axis.key.name, node)
                try addCombinations(
                    of: axes.dropFirst(), to: settings, labels: labels + ["\(axis.key.name)=\(Self.label(node))"], name, at: offset,
                    header: header)
            }
        }

        /// A key that a matrix varies.
        private struct Axis {
            var key: TOMLKey
            var values: [TOMLNode]
        }

        private static func axes(_ node: TOMLNode) throws(TOMLError) -> [Axis] {
            guard case .table(let table) = node.value else { throw TargetSettings.wrongType(node, "matrix", "a table of arrays") }
            var axes: [Axis] = []
            for entry in table.entries {
                let key = entry.key.name
                guard TargetSettings.variedKeys.contains(key) else {
                    guard key == "name" || TargetSettings.sharedKeys.contains(key) else {
                        throw unknown(entry.key, among: TargetSettings.variedKeys)
                    }
                    throw TOMLError(offset: entry.key.offset, message: "a matrix cannot vary \(key)")
                }
                guard case .array(let values) = entry.node.value else {
                    throw TargetSettings.wrongType(entry.node, "matrix.\(key)", "an array of the values to try")
                }
                guard !values.isEmpty else {
                    throw TOMLError(offset: entry.node.offset, message: "matrix.\(key) has no value, so that nothing would run: give it one, or leave it out")
                }
                axes.append(Axis(key: entry.key, values: values))
            }
            guard !axes.isEmpty else { throw TOMLError(offset: node.offset, message: "the matrix is empty: give it a key and values, or leave it out") }
            return axes
        }

        /// A value as it stands in a name.
        private static func label(_ node: TOMLNode) -> String {
            switch node.value {
            case .string(let text): String(String.UnicodeScalarView(text.unicodeScalars.map { PlainText.isShown($0) ? $0 : " " }))
            case .integer(let value): String(value)
            case .boolean(let flag): flag ? "true" : "false"
            case .array(let nodes): nodes.map(label).joined(separator: " ")
            default: node.kind
            }
        }

        private static func unknown(_ key: TOMLKey, among known: [String]) -> TOMLError {
            let meant = Spelling.closest(to: key.name, among: known)
            return TOMLError(
                offset: key.offset,
                message: "there is no key '\(key.name)': "
                    + (meant.map { "did you mean \($0)?" } ?? "there are \(known.sorted().joined(separator: ", "))"))
        }
    }
}
