import Glibc
import Testing
import MonitorTesting

/// A short run of what Tests/FuzzInterpreter does for as long as wanted. A trap of ours ends the test process, after the seed
/// and the case were told.
@Suite(.serialized) struct InterpreterFuzzTests {
    @Test func randomCodeWithRandomStateIsTheGuestsProblemOnly() throws {
        let seed = UInt64(getpid()) &* 1_000_003 &+ UInt64(time(nil))
        print("interpreter fuzz: seed \(seed); again with Tests/FuzzInterpreter/soak.sh \(seed)")
        let fuzzer = InterpreterFuzzer(seed: seed)
        try fuzzer.run(seconds: 10)
        let report = fuzzer.report
        print(report.summary)
        #expect(report.cases > 50)
        #expect(report.instructions > 1000)
        #expect(report.residentLate < report.residentEarly + 32 << 10)
    }
}
