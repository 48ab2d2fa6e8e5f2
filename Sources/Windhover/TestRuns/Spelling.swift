/// What somebody meant who wrote a word that is not known.
package enum Spelling {
    /// The known word that is fewest slips away, a slip being a letter too many, too few, another one, or two in the wrong order.
    ///
    /// - Returns: nil where none is near: more than a third of its letters would be slips.
    package static func closest(to word: String, among known: [String]) -> String? {
        let word = Array(word.lowercased().utf8.prefix(64))
        let ranked = known.map { (name: $0, slips: slips(word, Array($0.utf8))) }
        guard let best = ranked.min(by: { $0.slips < $1.slips }), best.slips <= max(1, best.name.utf8.count / 3) else { return nil }
        return best.name
    }

    private static func slips(_ one: [UInt8], _ other: [UInt8]) -> Int {
        var before: [Int] = []
        var last = Array(0...other.count)
        for (row, byte) in one.enumerated() {
            var current = [row + 1]
            for (column, wanted) in other.enumerated() {
                var least = min(last[column + 1] + 1, current[column] + 1, last[column] + (byte == wanted ? 0 : 1))
                if row > 0, column > 0, byte == other[column - 1], one[row - 1] == wanted { least = min(least, before[column - 1] + 1) }
                current.append(least)
            }
            before = last
            last = current
        }
        return last[other.count]
    }
}
