import Testing
import MonitorTesting
import X86

/// The generator and the native executor together, with no software CPU: every row gets its cases, none harms the
/// executor, and the host's processor agrees with itself.
@Suite(.serialized) struct GeneratorTests {
    /// The host's processor as the subject: a second child.
    final class Host: DifferentialSubject {
        let native: NativeCPU
        var compared = 0
        init() throws { native = try NativeCPU() }
        func setReadOnly(_ bytes: [UInt8]) { native.setReadOnly(bytes) }
        func has(_ feature: Feature) -> Bool { true }
        func execute(_ generated: GeneratedCase, _ input: CaseRecord, into outcome: CaseRecord) {
            native[0].copy(from: input)
            do { try native.run(count: 1) } catch { Issue.record("\(error)") }
            outcome.copy(from: native[0])
            Comparison.normalise(outcome, of: generated, input: input)
            // The host is the oracle of lengths: what completes and goes on at the next instruction tells where that is.
            // (A byte too few would be a fetch past the page's end, where one case in ten lies.)
            guard outcome.vector == Comparison.completed, !generated.row.isBranch else { return }
            compared += 1
            let length = outcome.rip &- input.rip
            if length != UInt64(generated.instruction.length) {
                Issue.record("\(Disassembler.text(generated.instruction, at: input.rip)): \(generated.instruction.length) bytes, the host says \(length)")
            }
        }
    }

    @Test func everyRowIsCoveredOrExcludedByName() throws {
        let plan = DifferentialRunner.plan { _ in true }
        let host = try Host()
        let runner = try DifferentialRunner(seed: 5, subject: host)
        try runner.run(plan.count * 8, plan: plan)
        let report = runner.report
        #expect(host.compared > 10_000, "lengths: \(host.compared)")
        #expect(report.lost.isEmpty, "\(report.lost.prefix(10).joined(separator: "\n"))")
        for row in RowID.all where report.perRow[Int(row.rawValue)] == 0 {
            #expect(Exclusions.reason(for: row) != nil, "\(row.mnemonic.name) \(row.map) \(row.opcode), row \(row.rawValue)")
        }
        let share = Double(report.faults) / Double(max(1, report.cases))
        print("\(report.cases) cases, \(report.faults) faults, \(report.mismatchCount) differences of the host from itself")
        #expect(share > 0.1 && share < 0.5, "\(share)")
        #expect(report.mismatchCount == 0, "\(report.mismatches.prefix(12).map(\.text).joined(separator: "\n"))")
    }
}
