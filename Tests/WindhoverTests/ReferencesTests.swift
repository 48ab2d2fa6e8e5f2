import Testing

@testable import Windhover

/// Every `[KEY §n]` that the code or a page cites is in docs/references.md, so that a reader can find the document.
@Suite struct ReferencesTests {
    static let root = String(#filePath.dropLast("/Tests/WindhoverTests/ReferencesTests.swift".count))

    static func text(_ path: String) throws -> String {
        String(decoding: try HostFile.contents(of: path, limit: 1 << 24), as: UTF8.self)
    }

    /// The first column of the table.
    static func keys(inTable text: String) -> Set<String> {
        Set(text.split(separator: "\n").compactMap { line in
            let cells = line.split(separator: "|").map { $0.split(separator: " ").joined(separator: " ") }
            guard line.hasPrefix("| "), cells.count == 3, cells[0] != "key" else { return nil }
            return cells[0]
        })
    }

    /// What a line's brackets cite. A key is capitals, digits, dots and hyphens, three or more; a number alone is one only
    /// with a section behind it, because an index looks the same.
    static func citations(in line: Substring) -> [String] {
        // What is between backticks is code: `hover run [IMAGE]`.
        let line = line.split(separator: "`", omittingEmptySubsequences: false).enumerated().filter { $0.offset % 2 == 0 }
            .map(\.element).joined(separator: " ")
        var found: [String] = []
        for piece in line.split(separator: "[").dropFirst(line.hasPrefix("[") ? 0 : 1) {
            guard let end = piece.firstIndex(of: "]") else { continue }
            let words = piece[..<end].split(separator: " ", maxSplits: 1)
            // `[text](target)` is a link.
            guard let key = words.first, !piece[end...].hasPrefix("](") else { continue }
            let hasSection = words.count > 1 && ["§", "App.", "Table", "table", "\""].contains { words[1].hasPrefix($0) }
            let isWord = key.count >= 3 && key.first?.isLetter == true
                && key.allSatisfy { $0.isASCII && ($0.isUppercase || $0.isNumber || $0 == "." || $0 == "-") }
            if hasSection || isWord && (words.count == 1 || line.contains("Source")) { found.append(String(key)) }
        }
        return found
    }

    /// The comments of a source file, or all of a page.
    static func prose(_ path: String, _ text: String) -> [Substring] {
        let lines = text.split(separator: "\n")
        guard !path.hasSuffix(".md") else { return lines }
        return lines.compactMap { line in
            let start = line.firstIndex { $0 != " " } ?? line.endIndex
            if path.hasSuffix(".S") || line[start...].hasPrefix("//") || line[start...].hasPrefix("*") { return line }
            return line.firstRange(of: "// ").map { line[$0.lowerBound...] }
        }
    }

    static func files(below directory: String) -> [String] {
        HostFile.names(in: directory).flatMap { name -> [String] in
            // What a build leaves (Benchmarks/.build) is not ours.
            if name.hasPrefix(".") { return [] }
            let path = "\(directory)/\(name)"
            if HostFile.facts(path)?.isDirectory == true { return files(below: path) }
            return [".swift", ".c", ".h", ".S", ".md"].contains { name.hasSuffix($0) } ? [path] : []
        }
    }

    @Test func whatIsACitation() {
        func cited(_ line: String) -> [String] { Self.citations(in: line[...]) }
        #expect(cited("Source: [SDM3 §11.5.4], [APM3 App. A.1]; [8254]") == ["SDM3", "APM3"])
        #expect(cited("| source | [82093AA §3.2.4]; messages [KVM-API] |") == ["82093AA", "KVM-API"])
        #expect(cited("[NO-COLOR]") == ["NO-COLOR"])
        #expect(cited("buffer[255], [UInt8], [ dest ], [docs](DOCS), [AB], [x...], `run [IMAGE]`").isEmpty)
    }

    @Test func everyCitationResolves() throws {
        let keys = Self.keys(inTable: try Self.text(Self.root + "/docs/references.md"))
        #expect(keys.count > 30)
        var count = 0
        for directory in ["Sources", "Shims", "guests", "docs", "Tests", "Benchmarks"] {
            for path in Self.files(below: "\(Self.root)/\(directory)") where !path.hasSuffix("/ReferencesTests.swift") {
                for line in Self.prose(path, try Self.text(path)) {
                    // Fields of a register drawn in brackets are no documents.
                    for key in Self.citations(in: line) where key != "KEY" && !line.contains("[ext dest]") {
                        count += 1
                        #expect(keys.contains(key), "\(path): [\(key)] is not in docs/references.md: \(line)")
                    }
                }
            }
        }
        #expect(count > 100, "the search found hardly anything: it is broken")
    }

    @Test func noKeyIsThereTwice() throws {
        let text = try Self.text(Self.root + "/docs/references.md")
        let rows = text.split(separator: "\n").filter { $0.hasPrefix("| ") }.compactMap { $0.split(separator: "|").first }
            .map { $0.split(separator: " ").joined() }.filter { $0 != "key" }
        #expect(Set(rows).count == rows.count)
    }
}
