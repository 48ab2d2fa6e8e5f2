import VMCore
import Windhover

/// What `hover test` says of its targets, line by line: for a person at a terminal in columns, else as plain sentences.
struct TestLines {
    /// Whether colours may be used.
    var isColoured: Bool
    /// The terminal's width; nil without one.
    var columns: Int?

    /// `1.2 s`, `75 s`, `12 min 5 s`.
    static func duration(_ seconds: Double) -> String {
        let tenths = Int(max(0, min(seconds, 1e9)) * 10 + 0.5)
        if tenths < 600 { return "\(tenths / 10).\(tenths % 10) s" }
        return "\(tenths / 600) min \(tenths % 600 / 10) s"
    }

    /// A word for an outcome, in its colour.
    private func mark(_ outcome: TestOutcome, width: Int) -> String {
        switch outcome {
        case .passed: Style.green(Self.padded("ok", width), isColoured)
        case .failed, .error: Style.red(Self.padded("FAILED", width), isColoured)
        case .skipped: Style.yellow(Self.padded("skipped", width), isColoured)
        }
    }

    /// One target that is done.
    ///
    /// - Parameter nameWidth: the column that names have on a terminal.
    func line(_ result: TestResult, nameWidth: Int) -> String {
        guard let columns else {
            let time = result.seconds > 0 ? " (\(Self.duration(result.seconds)))" : ""
            return mark(result.outcome, width: 0) + " \(result.name)" + (result.outcome.reason.map { ": \($0)" } ?? time)
        }
        var text = Self.padded(Self.cut(result.name, to: nameWidth), nameWidth)
        if hasTimes { text += Self.leftPadded(result.seconds > 0 ? Self.duration(result.seconds) : "", Self.timeWidth) }
        if let reason = result.outcome.reason { text += "  \(reason)" }
        return mark(result.outcome, width: Self.markWidth) + Self.cut(text, to: max(0, columns - 1 - Self.markWidth))
    }

    /// One target under way.
    func runningLine(_ name: String, seconds: Double, nameWidth: Int) -> String {
        // Where there is no room for more: this line is drawn again in its place, and must be one.
        if let columns, columns < Self.markWidth + 4 { return Self.cut(name, to: columns - 1) }
        let time = hasTimes ? Self.leftPadded(Self.duration(seconds), Self.timeWidth) : ""
        let text = Self.padded(Self.cut(name, to: nameWidth), nameWidth) + time
        return Style.bold(Self.padded("running", Self.markWidth), isColoured)
            + Self.cut(text, to: max(0, (columns ?? 80) - 1 - Self.markWidth))
    }

    private static let markWidth = 9
    private static let timeWidth = 12

    /// The column that names get, so that times stand below each other and fit.
    func nameWidth(_ names: [String]) -> Int {
        let widest = names.map(Self.width).max() ?? 0
        guard let columns else { return widest }
        return max(1, min(widest, columns - 1 - Self.markWidth - (hasTimes ? Self.timeWidth : 0)))
    }

    /// On a narrow terminal names are worth more.
    private var hasTimes: Bool { (columns ?? 80) >= 40 }

    /// How many passed, failed and were skipped. Those without a verdict count as failed.
    func counts(_ counts: TestCounts) -> String {
        let failed = counts.failed + counts.errors
        var parts = [Style.green("\(counts.passed) passed", isColoured && counts.passed > 0)]
        parts.append(Style.red("\(failed) failed", isColoured && failed > 0))
        if counts.skipped > 0 { parts.append(Style.yellow("\(counts.skipped) skipped", isColoured)) }
        return parts.joined(separator: ", ")
    }

    /// What is shown at the end of a target that failed.
    ///
    /// - Parameter hasShown: whether its output was shown as it came, and is left out here.
    func report(_ result: TestResult, hasShown: Bool) -> String {
        var text = Style.red("FAILED", isColoured) + Style.bold(" \(result.name)", isColoured) + (result.outcome.reason.map { ": \($0)" } ?? "") + "\n"
        if !hasShown { text += Self.end(of: result.output, lines: 30, title: "output") }
        // A console that says nothing beyond what is shown already is a console that nothing went wrong on.
        if case .error = result.outcome { text += Self.end(of: result.console, lines: 20, title: "console") }
        return text
    }

    private static func end(of tail: OutputTail, lines: Int, title: String) -> String {
        let all = tail.text
        let shown = PlainText.lastLines(lines, of: all)
        guard !shown.isEmpty else { return "" }
        let isWhole = tail.missing == 0 && PlainText.lastLines(lines + 1, of: all).count == shown.count
        return "  \(title)\(isWhole ? "" : ", its end"):\n"
            + shown.map { "    \(String($0.unicodeScalars.prefix(Self.longestLine)))\n" }.joined()
    }

    private static let longestLine = 500

    // MARK: Widths

    /// The cells that a text takes: two for a character of East Asian scripts and most pictures, none for marks upon others.
    static func width(_ text: String) -> Int { text.unicodeScalars.reduce(0) { $0 + width($1) } }

    private static func width(_ scalar: Unicode.Scalar) -> Int {
        switch scalar.value {
        case 0..<0x300: 1
        case 0x300...0x36F, 0x200B...0x200F, 0x20D0...0x20FF, 0xFE00...0xFE0F: 0
        case 0x1100...0x115F, 0x2E80...0x303E, 0x3041...0xA4CF, 0xAC00...0xD7A3, 0xF900...0xFAFF, 0xFE30...0xFE6F, 0xFF00...0xFF60,
            0xFFE0...0xFFE6, 0x1F300...0x1FAFF, 0x20000...0x3FFFD:
            2
        default: 1
        }
    }

    static func cut(_ text: String, to width: Int) -> String {
        guard Self.width(text) > width else { return text }
        var left = width - 1
        var result = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            left -= Self.width(scalar)
            guard left >= 0 else { break }
            result.append(scalar)
        }
        return width > 0 ? String(result) + "~" : ""
    }

    private static func padded(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: max(0, width - Self.width(text))) }
    private static func leftPadded(_ text: String, _ width: Int) -> String { String(repeating: " ", count: max(0, width - Self.width(text))) + text }
}
