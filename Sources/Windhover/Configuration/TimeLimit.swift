/// How long a guest may run, in wall time.
public struct TimeLimit: Hashable, Sendable {
    /// Milliseconds; at least one.
    public let milliseconds: UInt64

    /// The longest limit: one year. More is a slip of the finger, and less than a timer's range.
    public static let maximum: UInt64 = 365 * 24 * 3_600_000

    /// Reads `500ms`, `30s`, `5m`, `2h`, with decimals too: `1.5s`. A bare number counts seconds.
    ///
    /// - Parameter option: for messages.
    /// - Throws: `ConfigurationError` naming the text.
    public init(_ text: String, of option: String = "--timeout") throws(ConfigurationError) {
        let number = Substring(text.utf8.prefix { Digit.contains($0) || $0 == UInt8(ascii: ".") })
        let scale: UInt64
        switch text[number.endIndex...] {
        case "ms": scale = 1
        case "s", "": scale = 1000
        case "m": scale = 60_000
        case "h": scale = 3_600_000
        default: throw .malformed("\(option) wants a time such as 500ms, 30s, 5m or 2h, not '\(text)'")
        }
        guard let value = Double(number), value.isFinite else {
            throw .malformed("\(option) wants a time such as 500ms, 30s, 5m or 2h, not '\(text)'")
        }
        let product = (value * Double(scale)).rounded(.up)
        guard product >= 1 else {
            throw .impossible("\(option) \(text) would end the guest before it starts: leave it out for no limit")
        }
        guard product <= Double(Self.maximum) else {
            throw .impossible("\(option) \(text) is longer than a year: leave it out for no limit")
        }
        milliseconds = UInt64(product)
    }
}

extension TimeLimit: CustomStringConvertible {
    /// "1.5s", "30s", "250ms".
    public var description: String {
        if milliseconds < 1000 { return "\(milliseconds)ms" }
        let rest = milliseconds % 1000
        if rest == 0 { return "\(milliseconds / 1000)s" }
        var decimals = String(String(rest + 1000).dropFirst())
        while decimals.hasSuffix("0") { decimals.removeLast() }
        return "\(milliseconds / 1000).\(decimals)s"
    }
}
