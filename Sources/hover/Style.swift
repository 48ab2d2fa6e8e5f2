import Windhover

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Colours for people, never for pipes.
enum Style {
    /// Whether standard output is a terminal that may be coloured. Source: [NO-COLOR].
    static var isColoured: Bool { Terminal.isTerminal(STDOUT_FILENO) && variable("NO_COLOR").isEmpty && isCapable }

    /// Whether the terminal understands more than letters.
    static var isCapable: Bool { variable("TERM") != "dumb" }

    private static func variable(_ name: String) -> String {
        guard let value = unsafe getenv(name) else { return "" }
        return unsafe String(cString: value)
    }

    static func green(_ text: String, _ coloured: Bool) -> String { wrap(text, "32", coloured) }
    static func yellow(_ text: String, _ coloured: Bool) -> String { wrap(text, "33", coloured) }
    static func red(_ text: String, _ coloured: Bool) -> String { wrap(text, "31;1", coloured) }
    static func bold(_ text: String, _ coloured: Bool) -> String { wrap(text, "1", coloured) }

    private static func wrap(_ text: String, _ code: String, _ coloured: Bool) -> String {
        coloured ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text
    }
}
