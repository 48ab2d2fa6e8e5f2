/// An option's value that is a list: a first word, then words or `key=value` pairs, all set apart by commas. A comma within
/// a word is written twice.
struct OptionWords {
    /// The option, for messages: "--disk".
    let option: String
    let first: String
    private(set) var rest: [(key: String, value: String?)]

    /// - Throws: `ConfigurationError` where there is no first word, or an empty one among the others.
    init(_ text: String, of option: String) throws(ConfigurationError) {
        self.option = option
        var words: [String] = [""]
        var characters = text.makeIterator()
        var pending = characters.next()
        while let character = pending {
            pending = characters.next()
            if character != "," {
                words[words.count - 1].append(character)
            } else if pending == "," {
                words[words.count - 1].append(",")
                pending = characters.next()
            } else {
                words.append("")
            }
        }
        first = words[0]
        rest = []
        for word in words.dropFirst() {
            guard !word.isEmpty else {
                throw .malformed("\(option) '\(text)' has a comma with nothing behind it; a comma within a word is written twice")
            }
            if let equals = word.firstIndex(of: "=") {
                rest.append((String(word[..<equals]), String(word[word.index(after: equals)...])))
            } else {
                rest.append((word, nil))
            }
        }
    }

    /// Takes a word that stands alone.
    /// - Returns: whether it was there.
    mutating func takeFlag(_ name: String) throws(ConfigurationError) -> Bool {
        guard let index = rest.firstIndex(where: { $0.key == name }) else { return false }
        guard rest[index].value == nil else { throw .malformed("\(option): \(name) takes no value") }
        rest.removeAll { $0.key == name && $0.value == nil }
        return true
    }

    /// Takes the value of a key that is there at most once.
    mutating func takeValue(_ key: String) throws(ConfigurationError) -> String? {
        let values = try takeValues(key)
        guard values.count < 2 else { throw .malformed("\(option): \(key) is there twice") }
        return values.first
    }

    /// Takes all values of a key, in their order.
    mutating func takeValues(_ key: String) throws(ConfigurationError) -> [String] {
        var values: [String] = []
        for (_, value) in rest.filter({ $0.key == key }) {
            guard let value, !value.isEmpty else { throw .malformed("\(option): \(key) wants a value, as in \(key)=...") }
            values.append(value)
        }
        rest.removeAll { $0.key == key }
        return values
    }

    /// A number from 1 to `most`.
    mutating func takeCount(_ key: String, most: UInt64) throws(ConfigurationError) -> UInt64? {
        guard let text = try takeValue(key) else { return nil }
        guard text.utf8.allSatisfy(Digit.contains), let count = UInt64(text), (1...most).contains(count) else {
            throw .malformed("\(option): \(key) wants a number from 1 to \(most), not '\(text)'")
        }
        return count
    }

    /// Whatever is left is a mistake.
    /// - Parameter known: what there is, for the message.
    func finish(known: String) throws(ConfigurationError) {
        guard let word = rest.first else { return }
        throw .malformed("\(option) does not know '\(word.key)': it takes \(known)")
    }
}
