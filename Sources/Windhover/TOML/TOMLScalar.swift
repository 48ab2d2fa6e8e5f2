/// The values that are one word: numbers, booleans, dates and times.
///
/// Source: [TOML1.0 "Integer", "Float", "Boolean", "Offset Date-Time"].
enum TOMLScalar {
    /// - Returns: the value, or why the word is none.
    static func read(_ word: [UInt8]) -> Result<TOMLValue, Reason> {
        let text = String(decoding: word, as: UTF8.self)
        switch text {
        case "true": return .success(.boolean(true))
        case "false": return .success(.boolean(false))
        case "inf", "+inf": return .success(.float(.infinity))
        case "-inf": return .success(.float(-.infinity))
        case "nan", "+nan", "-nan": return .success(.float(.nan))
        default: break
        }
        guard let first = word.first, Digit.contains(first) || first == UInt8(ascii: "+") || first == UInt8(ascii: "-") else {
            return .failure(Reason("'\(text)' is no value: text stands in quotation marks"))
        }
        let isDay = word.count > 4 && word[4] == UInt8(ascii: "-") && word.prefix(4).allSatisfy(Digit.contains)
        let isTime = word.count > 2 && word[2] == UInt8(ascii: ":")
        if isDay || isTime { return isDate(word) ? .success(.date(text)) : .failure(Reason("'\(text)' is no date and time that there is")) }
        return number(word, text)
    }

    struct Reason: Error, Hashable {
        var text: String
        init(_ text: String) { self.text = text }
    }

    // MARK: Numbers

    private static func number(_ word: [UInt8], _ text: String) -> Result<TOMLValue, Reason> {
        let wrong = Reason("'\(text)' is no number: text stands in quotation marks")
        if word.count > 2, word[0] == UInt8(ascii: "0"), let radix = [UInt8(ascii: "x"): 16, UInt8(ascii: "o"): 8, UInt8(ascii: "b"): 2][word[1]] {
            guard let digits = digits(word[2...], radix: radix) else { return .failure(wrong) }
            guard let value = Int64(digits, radix: radix) else { return .failure(outOfRange(text)) }
            return .success(.integer(value))
        }
        var rest = word[...]
        var sign = ""
        if rest.first == UInt8(ascii: "-") { sign = "-" }
        if rest.first == UInt8(ascii: "-") || rest.first == UInt8(ascii: "+") { rest = rest.dropFirst() }
        var exponent: String?
        if let place = rest.firstIndex(where: { $0 | 0x20 == UInt8(ascii: "e") }) {
            var tail = rest[(place + 1)...]
            let isNegative = tail.first == UInt8(ascii: "-")
            if isNegative || tail.first == UInt8(ascii: "+") { tail = tail.dropFirst() }
            guard let digits = digits(tail, radix: 10) else { return .failure(wrong) }
            exponent = (isNegative ? "-" : "") + digits
            rest = rest[..<place]
        }
        var fraction: String?
        if let place = rest.firstIndex(of: UInt8(ascii: ".")) {
            guard let digits = digits(rest[(place + 1)...], radix: 10) else { return .failure(wrong) }
            fraction = digits
            rest = rest[..<place]
        }
        guard let whole = digits(rest, radix: 10) else { return .failure(wrong) }
        guard whole.utf8.count == 1 || whole.utf8.first != UInt8(ascii: "0") else {
            return .failure(Reason("'\(text)' begins with a zero: leave it out"))
        }
        if fraction == nil, exponent == nil {
            guard let value = Int64(sign + whole) else { return .failure(outOfRange(text)) }
            return .success(.integer(value))
        }
        guard let value = Double("\(sign)\(whole).\(fraction ?? "0")e\(exponent ?? "0")") else { return .failure(wrong) }
        return .success(.float(value))
    }

    private static func outOfRange(_ text: String) -> Reason { Reason("\(text) is more than an integer of 64 bits holds") }

    /// Digits without the underscores between them; nil for anything else.
    private static func digits(_ word: ArraySlice<UInt8>, radix: Int) -> String? {
        var result: [UInt8] = []
        var mayBreak = false
        for byte in word {
            if byte == UInt8(ascii: "_") {
                guard mayBreak else { return nil }
                mayBreak = false
            } else {
                guard let digit = TOMLScanner.hexadecimal(byte), digit < radix else { return nil }
                result.append(byte)
                mayBreak = true
            }
        }
        return mayBreak ? String(decoding: result, as: UTF8.self) : nil
    }

    // MARK: Dates

    /// Whether this is a date, a time, or both with or without an offset.
    private static func isDate(_ word: [UInt8]) -> Bool {
        var rest = word[...]
        if word.count > 4, word[4] == UInt8(ascii: "-") {
            guard let year = take(4, from: &rest), take("-", from: &rest), let month = take(2, from: &rest),
                take("-", from: &rest), let day = take(2, from: &rest), (1...12).contains(month),
                (1...days(ofMonth: month, year: year)).contains(day)
            else { return false }
            if rest.isEmpty { return true }
            guard take("T", from: &rest) || take("t", from: &rest) || take(" ", from: &rest) else { return false }
            guard takeTime(from: &rest) else { return false }
            if rest.isEmpty || take("Z", from: &rest) || take("z", from: &rest) { return rest.isEmpty }
            guard take("+", from: &rest) || take("-", from: &rest), let hours = take(2, from: &rest), take(":", from: &rest),
                let minutes = take(2, from: &rest)
            else { return false }
            return hours < 24 && minutes < 60 && rest.isEmpty
        }
        return takeTime(from: &rest) && rest.isEmpty
    }

    private static func takeTime(from rest: inout ArraySlice<UInt8>) -> Bool {
        guard let hour = take(2, from: &rest), take(":", from: &rest), let minute = take(2, from: &rest), take(":", from: &rest),
            let second = take(2, from: &rest), hour < 24, minute < 60, second <= 60
        else { return false }
        guard take(".", from: &rest) else { return true }
        let digits = rest.prefix(while: Digit.contains)
        rest = rest[digits.endIndex...]
        return !digits.isEmpty
    }

    private static func take(_ count: Int, from rest: inout ArraySlice<UInt8>) -> Int? {
        let digits = rest.prefix(count)
        guard digits.count == count, digits.allSatisfy(Digit.contains) else { return nil }
        rest = rest.dropFirst(count)
        return digits.reduce(0) { $0 * 10 + Int($1 - UInt8(ascii: "0")) }
    }

    private static func take(_ character: Unicode.Scalar, from rest: inout ArraySlice<UInt8>) -> Bool {
        guard rest.first == UInt8(ascii: character) else { return false }
        rest = rest.dropFirst()
        return true
    }

    private static func days(ofMonth month: Int, year: Int) -> Int {
        switch month {
        case 2: year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28
        case 4, 6, 9, 11: 30
        default: 31
        }
    }
}
