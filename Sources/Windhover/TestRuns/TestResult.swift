internal import VMCore

/// How one target ended.
public enum TestOutcome: Hashable, Sendable {
    case passed
    /// The command did not do what was expected: its reason.
    case failed(String)
    /// There is no verdict of the command's, because the guest or the run got in the way: the reason.
    case error(String)
    /// It was not run: the reason.
    case skipped(String)

    /// Whether the whole run fails for it.
    public var isFailure: Bool {
        switch self {
        case .failed, .error: true
        case .passed, .skipped: false
        }
    }

    /// Why it did not pass; nil where it did.
    public var reason: String? {
        switch self {
        case .passed: nil
        case .failed(let reason), .error(let reason), .skipped(let reason): reason
        }
    }
}

/// A target's outcome and what it left.
public struct TestResult: Hashable, Sendable {
    public var name: String
    public var outcome: TestOutcome
    /// Wall time from its start to its end; 0 where it did not run.
    public var seconds = 0.0
    /// The engine that ran it, where that is known.
    public var engine: String?
    /// The end of what it printed, both of its streams as they came.
    public var output = OutputTail(limit: 0)
    /// The end of what the guest's kernel said.
    public var console = OutputTail(limit: 0)

    public init(name: String, outcome: TestOutcome) {
        self.name = name
        self.outcome = outcome
    }
}

/// What all targets came to.
public struct TestCounts: Hashable, Sendable {
    public var passed = 0
    /// By the command's status.
    public var failed = 0
    /// Without a verdict.
    public var errors = 0
    public var skipped = 0

    public init(_ results: some Sequence<TestResult>) {
        for result in results {
            switch result.outcome {
            case .passed: passed += 1
            case .failed: failed += 1
            case .error: errors += 1
            case .skipped: skipped += 1
            }
        }
    }

    public var total: Int { passed + failed + errors + skipped }
}

/// The last bytes of something that may be endless.
public struct OutputTail: Hashable, Sendable {
    /// The most bytes that are kept.
    public let limit: Int
    /// Bytes that came before those that are kept.
    public private(set) var dropped: UInt64 = 0
    private var kept: [UInt8] = []

    public init(limit: Int) { self.limit = limit }

    /// The last bytes of a file that somebody writes to; empty where there is none.
    init(ofFile path: String, limit: Int) {
        self.limit = limit
        guard let (bytes, size) = HostFile.end(of: path, count: limit) else { return }
        kept = bytes
        dropped = size > UInt64(bytes.count) ? size - UInt64(bytes.count) : 0
    }

    public mutating func append(_ bytes: ArraySlice<UInt8>) {
        kept.append(contentsOf: bytes)
        // Cut seldom, so that each byte is moved a bounded number of times.
        if kept.count > 2 * limit { trim() }
    }

    private mutating func trim() {
        guard kept.count > limit else { return }
        dropped += UInt64(kept.count - limit)
        kept.removeFirst(kept.count - limit)
    }

    /// What is kept; no more than `limit`.
    public var bytes: ArraySlice<UInt8> { kept.suffix(limit) }

    /// All bytes before `bytes`.
    public var missing: UInt64 { dropped + UInt64(kept.count - bytes.count) }

    /// As plain text, from a line's beginning where something is missing.
    public var text: String {
        var shown = bytes
        if missing > 0, let lineFeed = shown.firstIndex(of: UInt8(ascii: "\n")), shown.index(after: lineFeed) < shown.endIndex {
            shown = shown[shown.index(after: lineFeed)...]
        }
        return PlainText.of(shown)
    }

    /// The same, shorter: what is long is kept of a result that nobody will look at twice.
    func shortened(to limit: Int) -> OutputTail {
        guard limit < self.limit else { return self }
        var tail = OutputTail(limit: limit)
        tail.kept = Array(bytes.suffix(limit))
        tail.dropped = missing + UInt64(bytes.count - tail.kept.count)
        return tail
    }
}
