/// Watches a console for a Linux kernel's panic.
///
/// A panicked kernel then resets the machine or stops for ever, and neither tells it from an orderly end. What it
/// prints does: `Kernel panic - not syncing: REASON`, at the start of a line or behind the time in brackets; the latter also
/// in the middle of a line that a program had begun.
public struct PanicWatcher: Sendable {
    private static let mark = Array("Kernel panic - not syncing: ".utf8)
    private static let longestLine = 256

    /// The line so far; of a long one the latest part.
    private var line: [UInt8] = []
    /// Whether the line began before `line` does.
    private var isCut = false
    /// Whether a panic's line has begun: what follows in it is the reason.
    private var isPanic = false

    /// The panic's own line, without the time; nil while there was none.
    public private(set) var panic: String?

    public init() { line.reserveCapacity(Self.longestLine) }

    /// Takes what the guest printed. Complexity: O(1) but for a line's end; memory is bounded by one line.
    public mutating func observe(_ byte: UInt8) {
        guard panic == nil else { return }
        if byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "\r") {
            look()
            if isPanic { panic = String(decoding: line, as: UTF8.self) }
            line.removeAll(keepingCapacity: true)
            isCut = false
            return
        }
        if line.count >= Self.longestLine {
            look()
            // A panic's reason may be cut; of anything else only the latest part can still matter.
            guard !isPanic else { return }
            line.removeFirst(Self.longestLine / 2)
            isCut = true
        }
        line.append(byte)
    }

    /// Finds the mark where a kernel prints it, and drops what is before it.
    private mutating func look() {
        guard !isPanic, line.count >= Self.mark.count else { return }
        for start in 0...(line.count - Self.mark.count) where line[start...].starts(with: Self.mark) {
            let before = line[..<start]
            guard !isCut && Self.isPrefix(before) || Self.endsWithTime(before) else { continue }
            isPanic = true
            line.removeFirst(start)
            return
        }
    }

    /// Whether it is what a kernel may put before a line's text, or nothing: a level, "<0>", and brackets, "[    1.234567] ".
    private static func isPrefix(_ text: ArraySlice<UInt8>) -> Bool {
        var rest = text
        if rest.first == UInt8(ascii: "<"), let end = rest.prefix(4).firstIndex(of: UInt8(ascii: ">")) { rest = rest[(end + 1)...] }
        while rest.first == UInt8(ascii: "[") {
            guard let end = rest.firstIndex(of: UInt8(ascii: "]")) else { return false }
            rest = rest[(end + 1)...].drop { $0 == UInt8(ascii: " ") }
        }
        return rest.isEmpty
    }

    /// Whether it ends with the time of a kernel's message, "[    1.234567] ", with or without a task or CPU, "[   T1] ".
    private static func endsWithTime(_ text: ArraySlice<UInt8>) -> Bool {
        func withoutBrackets(_ text: ArraySlice<UInt8>) -> (inside: ArraySlice<UInt8>, before: ArraySlice<UInt8>)? {
            guard text.last == UInt8(ascii: "]"), let begin = text.lastIndex(of: UInt8(ascii: "[")) else { return nil }
            return (text[(begin + 1)...].dropLast().drop { $0 == UInt8(ascii: " ") }, text[..<begin])
        }
        guard text.last == UInt8(ascii: " "), var found = withoutBrackets(text.dropLast()) else { return false }
        if let first = found.inside.first, first == UInt8(ascii: "T") || first == UInt8(ascii: "C") {
            guard let time = withoutBrackets(found.before) else { return false }
            found = time
        }
        let digits = UInt8(ascii: "0")...UInt8(ascii: "9")
        let parts = found.inside.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        return parts.count == 2 && parts.allSatisfy { !$0.isEmpty && $0.allSatisfy(digits.contains) }
    }
}
