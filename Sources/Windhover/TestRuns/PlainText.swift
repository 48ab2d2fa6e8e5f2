/// Text of a guest's, which may hold anything, as lines that neither a terminal nor an XML reader is confused by.
public enum PlainText {
    /// Decodes bytes: what is no UTF-8 becomes U+FFFD; escape sequences and control characters are left out, line ends are line
    /// feeds, tabs stay.
    public static func of(_ bytes: some Sequence<UInt8>) -> String {
        var state = State.text
        var result = String.UnicodeScalarView()
        var afterReturn = false
        for scalar in String(decoding: Array(bytes), as: UTF8.self).unicodeScalars {
            switch state {
            case .text:
                // A carriage return alone goes back over the line, as progress bars do: each try is a line of its own here.
                if afterReturn, scalar != "\r" {
                    result.append("\n")
                    afterReturn = false
                    if scalar == "\n" { continue }
                }
                switch scalar.value {
                case 0x1B: state = .escape
                case 0x0D: afterReturn = true
                case 0x09, 0x0A: result.append(scalar)
                case 0xFFFE, 0xFFFF: break
                default: if !scalar.isControl { result.append(scalar) }
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
                if scalar == "\u{7}" || scalar == "\n" { state = .text }
                if scalar == "\u{1B}" { state = .escape }
            }
        }
        if afterReturn { result.append("\n") }
        return String(result)
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
