import Glibc
import Testing
import MonitorTesting
import X86

/// The software CPU against the host's processor.
///
/// WINDHOVER_DIFF_SEED and WINDHOVER_DIFF_CASES choose the run; WINDHOVER_DIFF_ROWS, a list of mnemonics, narrows it.
@Suite(.serialized) struct DifferentialTests {
    @Test func softwareAgreesWithTheHost() throws {
        func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
        let seed = variable("WINDHOVER_DIFF_SEED").flatMap { UInt64($0) } ?? UInt64(getpid()) &* 1_000_003 &+ UInt64(time(nil))
        let count = variable("WINDHOVER_DIFF_CASES").flatMap { Int($0) } ?? 200_000
        let only = variable("WINDHOVER_DIFF_ROWS").map { Set($0.split(separator: ",").map(String.init)) }
        print("differential run: WINDHOVER_DIFF_SEED=\(seed) WINDHOVER_DIFF_CASES=\(count)")
        let subject = try SoftwareSubject()
        let runner = try DifferentialRunner(seed: seed, subject: subject)
        let whole = DifferentialRunner.plan { subject.has($0) }
        let integer = variable("WINDHOVER_DIFF_UNIT").map { $0 == "integer" } ?? false
        let plan = whole.filter { (only?.contains($0.row.mnemonic.name) ?? true) && (!integer || $0.row.unit == .integer) }
        try runner.run(count, plan: plan)
        let report = runner.report
        print(report.summary)
        #expect(report.lost.isEmpty, "\(report.lost.prefix(10).joined(separator: "\n"))")
        #expect(report.mismatchCount == 0, "seed \(seed): \(report.mismatchCount) of \(report.cases) cases differ\n\(report.told)")
        guard only == nil, !integer, count >= whole.count else { return }
        for row in RowID.all where report.perRow[Int(row.rawValue)] == 0 {
            #expect(Exclusions.reason(for: row) != nil, "no case of \(row.mnemonic.name) \(row.map) \(row.opcode), row \(row.rawValue)")
        }
    }

    /// What a block does with several instructions: flags that nobody makes, comparisons fused with a branch, links.
    @Test func sequencesAgreeWithTheHost() throws {
        func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
        let seed = variable("WINDHOVER_DIFF_SEED").flatMap { UInt64($0) } ?? UInt64(getpid()) &* 1_000_003 &+ UInt64(time(nil))
        let count = variable("WINDHOVER_DIFF_SEQUENCES").flatMap { Int($0) } ?? 60_000
        print("sequences: WINDHOVER_DIFF_SEED=\(seed) WINDHOVER_DIFF_SEQUENCES=\(count)")
        let subject = try SoftwareSubject()
        let runner = try DifferentialRunner(seed: seed, subject: subject)
        runner.examplesPerRow = 1
        try runner.runSequences(count, of: SequenceRows { subject.has($0) })
        let report = runner.report
        print(report.summary)
        #expect(report.lost.isEmpty, "\(report.lost.prefix(10).joined(separator: "\n"))")
        #expect(report.sequences == count)
        #expect(report.mismatchCount == 0, "seed \(seed): \(report.mismatchCount) of \(report.cases) sequences differ\n\(report.told)")
    }
}
