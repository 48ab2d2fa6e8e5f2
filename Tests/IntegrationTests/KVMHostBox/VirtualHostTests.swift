import Testing
import MonitorTesting

/// A test of what a box reports. Such a box boots as soon as it is known that the test is to run, beside those that come before it:
/// a box is minutes of one processor.
struct BoxTrait: TestTrait {
    var box: Box

    func prepare(for test: Test) async throws { BoxBoot.begin(box) }
}

extension Trait where Self == BoxTrait {
    static func reported(by box: Box) -> Self { Self(box: box) }
}

extension SlowTiers {
    /// The KVM engine on AMD-V and on VT-x, wherever the tests run: each box boots once, and each of its scenarios is
    /// a test here. Tests run in the order of their files' names: this file comes behind those whose tests the boxes run beside.
    @Suite(.serialized) struct VirtualHostTests {
        struct Row: Sendable, CustomTestStringConvertible {
            var box: Box
            var number: Int
            var scenario: Scenario
            var testDescription: String { "\(box.engine): \(scenario.name)" }

            static func all(in box: Box) -> [Row] {
                Scenario.all(in: box).enumerated().map { Row(box: box, number: $0.offset, scenario: $0.element) }
            }
        }

        @Test(.reported(by: .amd), arguments: Row.all(in: .amd)) func amd(_ row: Row) async throws { try await check(row) }

        @Test(.reported(by: .intel), arguments: Row.all(in: .intel)) func intel(_ row: Row) async throws { try await check(row) }

        private func check(_ row: Row) async throws {
            let boot = try await Self.boot(row.box)
            let key = BoxBoot.key(row.number, row.scenario)
            guard let result = boot.report.results[key] ?? boot.again?.results[key] else {
                Issue.record("\(boot.trouble)")
                return
            }
            switch row.scenario.judge(result) {
            case .passed: break
            case .failed(let problem):
                let second = boot.again?.results[key]
                guard let second, case .passed = row.scenario.judge(second) else {
                    let more = second.map { "; in a second boot: \($0.summary)" } ?? ""
                    Issue.record("\(problem)\n\(result.summary)\(more)")
                    return
                }
                print("\(row.testDescription): passed in a second boot; in the first: \(problem)\n\(result.summary)")
            case .skipped(let reason): try Test.cancel("\(row.scenario.name): \(reason)")
            }
        }

        /// An engine's conformance to the suite, on each vendor's KVM: the rows of one program's report.
        struct ConformanceRow: Sendable, CustomTestStringConvertible {
            var box: Box
            var engine: String
            var conformance: String
            var testDescription: String { "\(box.engine): \(engine): \(conformance)" }

            /// Verdict, engine, case, and what went wrong.
            func line(in output: String) -> [String]? {
                output.split(separator: "\n").map { $0.split(separator: "\t", omittingEmptySubsequences: false).map(String.init) }
                    .first { $0.count == 4 && $0[1] == engine && $0[2] == conformance }
            }

            static func all(in box: Box) -> [ConformanceRow] {
                EngineFactory.all.filter { $0.name.hasPrefix("kvm") }.flatMap { factory in
                    ConformanceCase.all.filter { factory.features.isSuperset(of: $0.requires) }
                        .map { ConformanceRow(box: box, engine: factory.name, conformance: $0.name) }
                }
            }
        }

        @Test(.reported(by: .amd), arguments: ConformanceRow.all(in: .amd))
        func amdConforms(_ row: ConformanceRow) async throws { try await check(row) }

        @Test(.reported(by: .intel), arguments: ConformanceRow.all(in: .intel))
        func intelConforms(_ row: ConformanceRow) async throws { try await check(row) }

        private func check(_ row: ConformanceRow) async throws {
            let boot = try await Self.boot(row.box)
            let scenarios = Scenario.all(in: row.box)
            let number = try #require(scenarios.firstIndex { $0.name == Scenario.conformanceName })
            let key = BoxBoot.key(number, scenarios[number])
            let reports = [boot.report.results[key], boot.again?.results[key]].compactMap(\.self)
            try #require(!reports.isEmpty, "\(boot.trouble)")
            let lines = reports.compactMap { row.line(in: $0.output) }
            try #require(!lines.isEmpty, "the program ended before this case")
            if let quirk = row.box.quirk(ofConformance: row.conformance), lines.allSatisfy({ $0[0] != "passed" && $0[3].contains(quirk.symptom) }) {
                try Test.cancel("\(row.conformance): \(quirk.reason)")
            }
            if lines.count == 2, lines[0][0] != "passed", lines[1][0] == "passed" {
                print("\(row.testDescription): passed in a second boot; in the first: \(lines[0][3])")
            }
            #expect(lines.contains { $0[0] == "passed" }, "\(lines.map { $0[3] }.joined(separator: "; again: "))")
        }

        private static func boot(_ box: Box) async throws -> BoxBoot {
            if let missing = box.missing { try Requirement.missing(box.engine, missing) }
            do {
                return try await BoxBoot.of(box)
            } catch {
                try Requirement.missing(box.engine, "\(error)")
            }
        }
    }
}

@Suite struct BoxReportTests {
    @Test func whatABriefBoxRunsIsThere() { #expect(Scenario.unknownBriefNames.isEmpty, "\(Scenario.unknownBriefNames)") }

    @Test func resultsAreRead() throws {
        let report = BoxReport(
            "noise\r\n@begin 000-a\r\n@status 1 1.50 3.75\r\no|one\r\no|@end 000-a\r\ne|two\r\n@end 000-a\r\n@begin 001-b\r\n@status 0 4 5\r\no|half")
        let result = try #require(report.results["000-a"])
        #expect(result.status == 1)
        #expect(result.seconds == 2.25)
        #expect(result.output == "one\n@end 000-a\n")
        #expect(result.error == "two\n")
        #expect(report.unfinished == "001-b")
        #expect(report.results["001-b"] == nil)
        #expect(!report.isComplete)
        #expect(BoxReport("@begin x\n@status 0 0 0\n@end x\n@done\n").isComplete)
    }

    @Test func whatFailedIsToBeHadAgain() throws {
        func result(_ output: String, status: Int32 = 0) -> ScenarioResult {
            ScenarioResult(status: status, seconds: 1, output: output, error: "")
        }
        let suite = try #require(Scenario.all(in: .amd).first { $0.name == Scenario.conformanceName })
        #expect(!suite.mayHaveLapsed(result("passed\tkvm\tone case\t\n1 passed, 0 failed\n"), in: .amd))
        #expect(suite.mayHaveLapsed(result("failed\tkvm\tone case\twhy\n1 passed, 1 failed\n"), in: .amd))
        #expect(suite.mayHaveLapsed(result("passed\tkvm\tone case\t\n"), in: .amd))
        let other = Scenario("other", "true", status: 0, output: ["word"])
        #expect(!other.mayHaveLapsed(result("a word\n"), in: .amd))
        #expect(other.mayHaveLapsed(result("a word\n", status: 1), in: .amd))
        #expect(other.mayHaveLapsed(result(""), in: .amd))
        let row = SlowTiers.VirtualHostTests.ConformanceRow(box: .amd, engine: "kvm", conformance: "one case")
        #expect(row.line(in: "x\nfailed\tkvm\tone case\twhy\n") == ["failed", "kvm", "one case", "why"])
        #expect(row.line(in: "passed\tinterpreter\tone case\t\n") == nil)
    }

    /// The judge of the privileged programs sees what the box saw, and misses what it did not see.
    @Test func differencesInPrivilegedProgramsAreNoticed() throws {
        let programs = PrivilegedPrograms(.intel)
        let machine = try ControlMachine(.interpreter(localAPICs: false), reference: programs.reference)
        let generator = ControlGenerator(seed: PrivilegedPrograms.seed)
        let compared = (0..<programs.count).filter { programs.reference.omission(of: generator.program($0)) == nil }
        let planted = try #require(compared.first), other = try #require(compared.last)
        let line = try ControlReport.line(planted, machine.run(generator.program(planted)))
        func verdict(_ lines: [String], _ different: Int) -> String? {
            let end = "\(programs.count) programs, \(compared.count) compared, \(different) differ\n"
            let result = ScenarioResult(status: 1, seconds: 1, output: lines.map { $0 + "\n" }.joined() + end, error: "")
            if case .failed(let problem) = programs.judge(result) { return problem }
            return nil
        }
        #expect(verdict([line], 1) == nil)
        #expect(verdict([], 0) != nil)
        let wrong = try #require(ControlOutcome("end=d rip=1"))
        #expect(verdict([line, ControlReport.line(other, wrong)], 2)?.contains("rip: ") == true)
        if case .failed = programs.judge(ScenarioResult(status: 1, seconds: 1, output: line, error: "")) {} else {
            Issue.record("a report without its end")
        }
        let digests = try programs.digests()
        #expect(digests.count == programs.count * 9)
    }

    @Test func scenariosHaveNamesOfTheirOwn() {
        for box in Box.allCases {
            let names = Scenario.all(in: box).map(\.name)
            #expect(Set(names).count == names.count)
            #expect(names.count > (box.isWhole ? 60 : 12))
        }
    }
}
