import Testing
import WindhoverTesting

extension SlowTiers {
    /// The KVM engine on AMD-V and on VT-x, wherever the tests run: each box boots once, and each of its scenarios is
    /// a test here.
    @Suite(.serialized) struct KVMHostTests {
        struct Row: Sendable, CustomTestStringConvertible {
            var box: Box
            var number: Int
            var scenario: Scenario
            var testDescription: String { "\(box.engine): \(scenario.name)" }

            static func all(in box: Box) -> [Row] {
                Scenario.all(in: box).enumerated().map { Row(box: box, number: $0.offset, scenario: $0.element) }
            }
        }

        @Test(arguments: Row.all(in: .amd)) func amd(_ row: Row) async throws { try await check(row) }

        @Test(arguments: Row.all(in: .intel)) func intel(_ row: Row) async throws { try await check(row) }

        private func check(_ row: Row) async throws {
            let boot = try await Self.boot(row.box)
            let key = BoxBoot.key(row.number, row.scenario)
            guard let result = boot.report.results[key] else {
                Issue.record("\(boot.trouble)")
                return
            }
            switch row.scenario.judge(result) {
            case .passed: break
            case .failed(let problem): Issue.record("\(problem)\n\(result.summary)")
            case .skipped(let reason): try Test.cancel("\(row.scenario.name): \(reason)")
            }
        }

        /// An engine's conformance to the suite, on each vendor's KVM: the rows of one program's report.
        struct ConformanceRow: Sendable, CustomTestStringConvertible {
            var box: Box
            var engine: String
            var conformance: String
            var testDescription: String { "\(box.engine): \(engine): \(conformance)" }

            static func all(in box: Box) -> [ConformanceRow] {
                EngineFactory.all.filter { $0.name.hasPrefix("kvm") }.flatMap { factory in
                    ConformanceCase.all.filter { factory.features.isSuperset(of: $0.requires) }
                        .map { ConformanceRow(box: box, engine: factory.name, conformance: $0.name) }
                }
            }
        }

        @Test(arguments: ConformanceRow.all(in: .amd)) func amdConforms(_ row: ConformanceRow) async throws { try await check(row) }

        @Test(arguments: ConformanceRow.all(in: .intel)) func intelConforms(_ row: ConformanceRow) async throws { try await check(row) }

        private func check(_ row: ConformanceRow) async throws {
            let boot = try await Self.boot(row.box)
            let scenarios = Scenario.all(in: row.box)
            let number = try #require(scenarios.firstIndex { $0.name == Scenario.conformanceName })
            let result = try #require(boot.report.results[BoxBoot.key(number, scenarios[number])], "\(boot.trouble)")
            let lines = result.output.split(separator: "\n")
                .map { $0.split(separator: "\t", omittingEmptySubsequences: false).map(String.init) }
            let line = try #require(
                lines.first { $0.count == 4 && $0[1] == row.engine && $0[2] == row.conformance },
                "the program ended before this case, after '\(lines.last?.joined(separator: " ") ?? "")'")
            #expect(line[0] == "passed", "\(line[3])")
        }

        private static func boot(_ box: Box) async throws -> BoxBoot {
            if box.isOnRequest, !Requirement.required.contains(box.engine) {
                try Test.cancel("\(box.engine) takes three quarters of an hour: WINDHOVER_REQUIRE_ENGINES=\(box.engine) runs it")
            }
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

    @Test func scenariosHaveNamesOfTheirOwn() {
        for box in Box.allCases {
            let names = Scenario.all(in: box).map(\.name)
            #expect(Set(names).count == names.count)
            #expect(names.count > 60)
        }
    }
}
