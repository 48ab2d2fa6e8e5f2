/// Text that may hold anything, a guest's or a file's, made fit for a person's eyes and for their terminal.
///
/// One rule: what is no UTF-8 becomes U+FFFD; escape sequences are left out, and so is each character that a terminal would obey, or show
/// in another order than it is, or not show (`isShown`). Line ends are line feeds.
public enum PlainText {
    /// As many lines as there are: tabs stay.
    public static func of(_ bytes: some Sequence<UInt8>) -> String {
        var state = State.text
        var result = String.UnicodeScalarView()
        var afterReturn = false
        for scalar in String(decoding: Array(bytes), as: UTF8.self).unicodeScalars {
            // A line's end ends what was begun in it.
            if scalar == "\n" { state = .text }
            switch state {
            case .text:
                // A carriage return alone goes back over the line, as progress bars do: each try is a line of its own here.
                if afterReturn, scalar != "\r" {
                    result.append("\n")
                    afterReturn = false
                    if scalar == "\n" { continue }
                }
                switch scalar {
                case "\u{1B}": state = .escape
                case "\r": afterReturn = true
                case "\t", "\n": result.append(scalar)
                default: if isShown(scalar) { result.append(scalar) }
                }
            case .escape:
                switch scalar {
                case "[": state = .control
                case "]", "P", "X", "^", "_": state = .string
                // Intermediate characters, of which another follows.
                case " "..."/": break
                default: state = .text
                }
            case .control:
                // Parameters go on; any final character, or what no sequence holds, ends it.
                if !(" "..."?").contains(scalar) { state = .text }
            case .string:
                if scalar == "\u{7}" { state = .text }
                if scalar == "\u{1B}" { state = .escape }
            }
        }
        if afterReturn { result.append("\n") }
        return String(result)
    }

    /// Characters of a line that somebody is shown of what a guest may make as long as it likes.
    public static let longestLine = 512

    /// The lines that are not empty, each as `line` has it.
    public static func lines(_ bytes: some Sequence<UInt8>, limit: Int = .max) -> [String] {
        of(bytes).split(separator: "\n").map { shown($0[...], limit) }
    }

    /// One line: without its end, and with a blank for each tab and each end of a line within it.
    ///
    /// - Parameter limit: characters; of a longer line there are as many, and an ellipsis.
    public static func line(_ bytes: some Sequence<UInt8>, limit: Int = .max) -> String {
        var text = of(bytes)
        if text.utf8.last == UInt8(ascii: "\n") { text.unicodeScalars.removeLast() }
        return shown(text[...], limit)
    }

    /// A text without tabs and line ends, and an ellipsis where it was longer than `limit`.
    private static func shown(_ text: Substring, _ limit: Int) -> String {
        let isLong = text.utf8.count > limit && text.unicodeScalars.count > limit
        guard isLong || text.utf8.contains(where: { $0 == UInt8(ascii: "\t") || $0 == UInt8(ascii: "\n") }) else { return String(text) }
        var result = String.UnicodeScalarView(text.unicodeScalars.prefix(limit).map { $0 == "\t" || $0 == "\n" ? " " : $0 })
        if isLong { result.append("…") }
        return String(result)
    }

    /// Whether a character is shown where it stands, and is nothing else than what is seen.
    public static func isShown(_ scalar: Unicode.Scalar) -> Bool {
        if scalar.isASCII { return (" "..."~").contains(scalar) }
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse, .unassigned: return false
        default: return true
        }
    }

    private enum State {
        case text
        /// Behind ESC.
        case escape
        /// Behind ESC and a bracket: colours, cursor movements.
        case control
        /// Behind what begins a string for the terminal, such as its title.
        case string
    }

    /// The last lines of a text.
    public static func lastLines(_ count: Int, of text: String) -> [Substring] {
        Array(text.split(separator: "\n", omittingEmptySubsequences: false).trimmingEmptyEnd.suffix(count))
    }
}

extension Array where Element == Substring {
    fileprivate var trimmingEmptyEnd: Self {
        var lines = self
        while let last = lines.last, last.isEmpty { lines.removeLast() }
        return lines
    }
}
