import MonitorTesting
import Testing

/// Runs each test behind each transport in turn: what a device does is the same behind all of them.
struct EachTransport: SuiteTrait, TestTrait, TestScoping {
    var isRecursive: Bool { true }

    func scopeProvider(for test: Test, testCase: Test.Case?) -> Self? { testCase == nil ? nil : self }

    func provideScope(for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void) async throws {
        for kind in TransportKind.allCases {
            let named = IssueHandlingTrait.compactMapIssues { issue in
                var issue = issue
                issue.comments.append("behind \(kind)")
                return issue
            }
            try await TransportKind.$current.withValue(kind) {
                try await named.provideScope(for: test, testCase: testCase, performing: function)
            }
        }
    }
}

extension Trait where Self == EachTransport {
    /// For suites whose rigs are told no transport.
    static var behindEachTransport: Self { Self() }
}
