/// Results as the XML that continuous-integration services read: the JUnit task's, which has no standard but its readers.
///
/// A command's wrong status is a `failure`; a panic, a time-out and a guest that died or never started are an `error`.
public struct JUnitReport {
    private let name: String
    private let results: [TestResult]
    private let seconds: Double
    private let timestamp: String?

    /// - Parameters:
    ///   - name: the suite's: the test file's.
    ///   - seconds: wall time of the whole run.
    ///   - timestamp: its beginning, as `2026-01-31T12:00:00`.
    public init(name: String, results: [TestResult], seconds: Double, timestamp: String? = nil) {
        self.name = name
        self.results = results
        self.seconds = seconds
        self.timestamp = timestamp
    }

    /// The whole document.
    public var text: String {
        let counts = TestCounts(results)
        let numbers = [
            ("tests", String(counts.total)), ("failures", String(counts.failed)), ("errors", String(counts.errors)),
            ("skipped", String(counts.skipped)), ("time", Self.decimal(seconds)),
        ]
        var text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
        text += Self.tag("testsuites", [("name", "hover test")] + numbers) + "\n"
        text += "  " + Self.tag("testsuite", [("name", name)] + numbers + (timestamp.map { [("timestamp", $0)] } ?? [])) + "\n"
        for result in results { text += Self.testCase(result, in: name) }
        return text + "  </testsuite>\n</testsuites>\n"
    }

    private static func testCase(_ result: TestResult, in suite: String) -> String {
        var text = "    " + tag("testcase", [("classname", suite), ("name", result.name), ("time", decimal(result.seconds))]) + "\n"
        switch result.outcome {
        case .passed: break
        case .failed(let reason): text += "      " + tag("failure", [("message", reason), ("type", "status")], isEmpty: true) + "\n"
        case .error(let reason): text += "      " + tag("error", [("message", reason), ("type", "guest")], isEmpty: true) + "\n"
        case .skipped(let reason): text += "      " + tag("skipped", [("message", reason)], isEmpty: true) + "\n"
        }
        text += element("system-out", result.output) + element("system-err", result.console)
        return text + "    </testcase>\n"
    }

    private static func element(_ name: String, _ tail: OutputTail) -> String {
        guard !tail.bytes.isEmpty else { return "" }
        let beginning = tail.missing > 0 ? "(\(tail.missing) bytes before these are left out)\n" : ""
        return "      <\(name)>\(escaped(beginning + tail.text))</\(name)>\n"
    }

    private static func tag(_ name: String, _ attributes: [(String, String)], isEmpty: Bool = false) -> String {
        "<" + name + attributes.map { " \($0)=\"\(escaped($1))\"" }.joined() + (isEmpty ? "/>" : ">")
    }

    /// Text as a document may hold it. Source: [XML1.0 §2.2, §2.4].
    static func escaped(_ text: String) -> String {
        var result = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            switch scalar.value {
            case 0x26: result.append(contentsOf: "&amp;".unicodeScalars)
            case 0x3C: result.append(contentsOf: "&lt;".unicodeScalars)
            case 0x3E: result.append(contentsOf: "&gt;".unicodeScalars)
            case 0x22: result.append(contentsOf: "&quot;".unicodeScalars)
            case 0x09, 0x0A: result.append(scalar)
            case 0...0x1F, 0x7F...0x9F, 0xFFFE, 0xFFFF: break
            default: result.append(scalar)
            }
        }
        return String(result)
    }

    /// Seconds with three decimals.
    static func decimal(_ seconds: Double) -> String {
        let thousandths = UInt64(max(0, min(seconds, 1e9)) * 1000 + 0.5)
        return "\(thousandths / 1000)." + String(String(thousandths % 1000 + 1000).dropFirst())
    }
}
