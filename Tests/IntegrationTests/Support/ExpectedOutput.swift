/// What a guest must print: lines in which `*` stands for any text, and lines `...` that stand for any lines.
struct ExpectedOutput: Hashable, Sendable {
    let lines: [String]

    init(lines: [String]) { self.lines = lines }

    /// - Parameter text: an `expect` file's.
    init(_ text: String) { self.init(lines: Self.lines(of: text)) }

    /// Lines without carriage returns, and without the empty ones at the end.
    static func lines(of text: String) -> [String] {
        // By bytes: a carriage return and a line feed are one Character.
        var lines = text.utf8.filter { $0 != UInt8(ascii: "\r") }
            .split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
            .map { String(decoding: $0, as: UTF8.self) }
        while lines.last?.isEmpty == true { lines.removeLast() }
        return lines
    }

    /// - Returns: nil where the text is as expected, or the first thing that is not.
    func difference(from text: String) -> String? {
        let actual = Self.lines(of: text)
        // Rows: how many of ours are matched; true where the text so far can be those.
        var reached = [Bool](repeating: false, count: lines.count + 1)
        reached[0] = true
        spread(&reached)
        for (number, line) in actual.enumerated() {
            var next = [Bool](repeating: false, count: lines.count + 1)
            for (index, wanted) in lines.enumerated() where reached[index] {
                if wanted == "..." {
                    next[index] = true
                } else if Self.matches(line, wanted) {
                    next[index + 1] = true
                }
            }
            spread(&next)
            if !next.contains(true) {
                let wanted = reached.indices.filter { reached[$0] }.map { $0 < lines.count ? "'\(lines[$0])'" : "the end" }
                return "line \(number + 1) is '\(line)', not \(wanted.joined(separator: " or "))"
            }
            reached = next
        }
        if reached[lines.count] { return nil }
        let missing = reached.lastIndex(of: true).map { lines[min($0, lines.count - 1)] } ?? ""
        return "it ends after \(actual.count) lines, before '\(missing)'"
    }

    /// `...` may stand for no line at all.
    private func spread(_ reached: inout [Bool]) {
        for (index, line) in lines.enumerated() where reached[index] && line == "..." { reached[index + 1] = true }
    }

    /// Whether the line is the pattern, whose `*` is any text.
    static func matches(_ line: String, _ pattern: String) -> Bool {
        let parts = pattern.split(separator: "*", omittingEmptySubsequences: false).map { Array($0.utf8) }
        let bytes = Array(line.utf8)
        guard let first = parts.first, let last = parts.last else { return bytes.isEmpty }
        if parts.count == 1 { return bytes == first }
        guard bytes.count >= first.count + last.count, bytes.starts(with: first), bytes.reversed().starts(with: last.reversed())
        else { return false }
        // The parts between, each at its first place, leave the most for what follows.
        var start = first.count
        let end = bytes.count - last.count
        for part in parts.dropFirst().dropLast() {
            guard let place = (start...end).first(where: { $0 + part.count <= end && bytes[$0..<$0 + part.count].elementsEqual(part) })
            else { return false }
            start = place + part.count
        }
        return true
    }
}
