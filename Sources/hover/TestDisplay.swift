import VMCore
import Windhover

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Shows a test run as it goes: on a terminal the targets under way in a table that is drawn again in its place, with those
/// that are done above it; elsewhere a line for each that is done.
///
/// Nothing of the terminal's is changed that would have to be given back: the table is text, and goes before the end.
final class TestDisplay {
    private let names: [String]
    private let output: (String) throws -> Void
    private let size: () -> Terminal.Size?
    private let now: () -> Double
    private let isQuiet: Bool
    /// Whether a target's output is shown as it comes.
    private let isStreaming: Bool
    /// Whether more than one may stream, so that each line says whose it is.
    private let hasPrefix: Bool
    private let isColoured: Bool

    private var started: [Int: Double] = [:]
    private var lines: [Int: [UInt8]] = [:]
    private var results: [TestResult] = []
    private let beginning: Double
    /// Lines of the table that stand on the screen.
    private var drawn = 0
    /// Why nothing more can be shown; told once.
    private(set) var failure: (any Error)?

    /// A line of output that goes on longer is shown in pieces.
    private static let longestLine = 4096

    /// - Parameters:
    ///   - size: the terminal's size now; nil where the output is no terminal.
    ///   - now: seconds that only grow.
    init(
        names: [String], isQuiet: Bool, isStreaming: Bool, hasPrefix: Bool, isColoured: Bool, size: @escaping () -> Terminal.Size?,
        now: @escaping () -> Double, output: @escaping (String) throws -> Void
    ) {
        self.names = names
        self.isQuiet = isQuiet
        self.isStreaming = isStreaming
        self.hasPrefix = hasPrefix
        self.isColoured = isColoured
        self.size = size
        self.now = now
        self.output = output
        beginning = now()
    }

    var seconds: Double { now() - beginning }

    func observe(_ event: TestRunner.Event) {
        switch event {
        case .started(let place):
            started[place] = now()
            show("")
        case .output(let place, let bytes):
            if isStreaming { stream(bytes, of: place) }
        case .finished(let place, let result):
            let rest = lines.removeValue(forKey: place) ?? []
            started[place] = nil
            results.append(result)
            var text = rest.isEmpty ? "" : streamed(rest, of: place)
            if !isQuiet { text += format.line(result, nameWidth: format.nameWidth(names)) + "\n" }
            show(text)
        case .tick:
            if size() != nil { show("") }
        }
    }

    /// Failures with what they left, then the counts; the table is gone.
    func finish() {
        started = [:]
        var text = ""
        var format = format
        format.columns = nil
        for result in results where result.outcome.isFailure { text += "\n" + format.report(result, hasShown: isStreaming) }
        if !isQuiet || !text.isEmpty { text += "\n" }
        show("\(text)\(format.counts(TestCounts(results))) in \(TestLines.duration(seconds))\n")
    }

    private var format: TestLines { TestLines(isColoured: isColoured, columns: size()?.columns) }

    // MARK: Output as it comes

    private func stream(_ bytes: [UInt8], of place: Int) {
        var text = ""
        var line = lines[place] ?? []
        for byte in bytes {
            if byte == UInt8(ascii: "\n") || line.count >= Self.longestLine {
                text += streamed(line, of: place)
                line.removeAll(keepingCapacity: true)
                if byte == UInt8(ascii: "\n") { continue }
            }
            line.append(byte)
        }
        lines[place] = line
        if !text.isEmpty { show(text) }
    }

    private func streamed(_ line: [UInt8], of place: Int) -> String {
        let text = PlainText.of(line).split(separator: "\n").map(String.init)
        return (text.isEmpty ? [""] : text).map { hasPrefix ? "\(names[place]) | \($0)\n" : "\($0)\n" }.joined()
    }

    // MARK: The table

    /// Writes lines that stay, and the table below them.
    private func show(_ text: String) {
        guard failure == nil else { return }
        let size = size()
        guard size != nil || !text.isEmpty else { return }
        // Back to the table's first line, and everything from there on away.
        var all = drawn > 0 ? "\r\u{1B}[\(drawn)A\u{1B}[J" : ""
        all += text
        let table = size.map(table) ?? []
        all += table.map { $0 + "\n" }.joined()
        drawn = table.count
        guard !all.isEmpty else { return }
        do { try output(all) } catch { failure = error }
    }

    /// The targets under way, as many as the terminal has lines for, and how far all are.
    private func table(_ size: Terminal.Size) -> [String] {
        guard !started.isEmpty, !isQuiet else { return [] }
        let room = size.rows - 2
        let format = format
        let width = format.nameWidth(names)
        let now = now()
        let running = started.sorted { ($0.value, $0.key) < ($1.value, $1.key) }
        guard room > 0 else { return [] }
        var rows = running.prefix(room).map { format.runningLine(names[$0.key], seconds: now - $0.value, nameWidth: width) }
        let waiting = names.count - results.count - started.count
        var plain = format
        plain.isColoured = false
        rows.append(
            TestLines.cut(
                "\(plain.counts(TestCounts(results))), \(started.count) running, \(waiting) waiting, \(TestLines.duration(seconds))",
                to: size.columns - 1))
        return rows
    }
}
