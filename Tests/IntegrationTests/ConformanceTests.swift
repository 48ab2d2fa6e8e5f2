import Glibc
import Testing
import MonitorTesting

/// What the gate demands of this host: `WINDHOVER_REQUIRE_ENGINES=kvm` makes a missing engine a failure.
private let required: [String] = (getenv("WINDHOVER_REQUIRE_ENGINES").map { String(cString: $0) } ?? "")
    .split(separator: ",").map(String.init)

/// One engine, one case: a row of the report.
struct ConformanceRow: Sendable, CustomTestStringConvertible {
    var factory: EngineFactory
    var conformance: ConformanceCase
    var testDescription: String { "\(factory.name): \(conformance.name)" }

    /// What this host's KVM itself gets wrong, so that the case cannot hold here; it must then fail, and holds elsewhere.
    var hostDefect: Comment? {
        let isEmulated = access("/sys/module/kvm_pvm", F_OK) == 0
        if isEmulated, factory.name.hasPrefix("kvm, split"), conformance.requires.contains(.endOfInterrupt) {
            return "kvm_pvm ends no run with KVM_EXIT_IOAPIC_EOI"
        }
        return nil
    }

    static let all = EngineFactory.all.filter { $0.unavailable == nil }.flatMap { factory in
        ConformanceCase.all.filter { factory.features.isSuperset(of: $0.requires) }
            .map { ConformanceRow(factory: factory, conformance: $0) }
    }
}

@Suite(.serialized) struct ConformanceTests {
    @Test(arguments: ConformanceRow.all)
    func conforms(_ row: ConformanceRow) throws {
        guard let defect = row.hostDefect else {
            try row.conformance.run(row.factory)
            return
        }
        withKnownIssue("\(defect)") { try row.conformance.run(row.factory) }
    }

    /// A host without an engine skips that engine's rows, by name; where it is required that is a failure.
    @Test(arguments: EngineFactory.all)
    func isAvailable(_ factory: EngineFactory) throws {
        guard let reason = factory.unavailable else { return }
        if required.contains(where: { factory.name.hasPrefix($0) }) {
            Issue.record("\(factory.name) is required here: \(reason)")
        } else {
            try Test.cancel("\(factory.name) is not tested: \(reason)")
        }
    }

    @Test func everyCaseRunsOnSomeEngine() {
        for conformance in ConformanceCase.all {
            #expect(
                EngineFactory.all.contains { $0.features.isSuperset(of: conformance.requires) },
                "\(conformance.name) runs on no engine")
        }
    }
}
