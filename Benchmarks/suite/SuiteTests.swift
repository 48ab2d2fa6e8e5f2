import Testing
import Windhover
import WindhoverTesting

/// Twenty trivial tests of one guest, and a boot alone to hold them against: each prints its seconds, and `run` compares them.
@Suite(.serialized) struct SuiteBenchmark {
    static let guest = {
        var configuration = VirtualMachineConfiguration()
        configuration.engine = .interpreter
        return configuration
    }()

    @Test(arguments: 0..<5) func bootAlone(round: Int) async throws {
        let clock = ContinuousClock()
        let start = clock.now
        let machine = try VirtualMachine(Self.guest)
        try await machine.start()
        report("boot", clock.now - start)
        await machine.stop()
    }

    @Suite(Stopwatch(), .guest(guest), .serialized) struct Twenty {
        @Test(arguments: 0..<20) func trivial(number: Int) async throws {
            #expect(try await Guest.current.run("true").isSuccess)
        }
    }
}

/// From before the guest's start to behind its stop.
private struct Stopwatch: SuiteTrait, TestScoping {
    func provideScope(for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void) async throws {
        let clock = ContinuousClock()
        let start = clock.now
        try await function()
        report("suite", clock.now - start)
    }
}

private func report(_ what: String, _ time: Duration) { print("\(what): \(time / .seconds(1))") }
