import Foundation
import Testing

/// What the gate demands of this host, by name in WINDHOVER_REQUIRE_ENGINES: there what is missing is a failure,
/// elsewhere a skip that says why. `kvm`: the host's own; `kvm-amd` and `kvm-intel`: the boxes.
enum Requirement {
    static let required = Set(
        (ProcessInfo.processInfo.environment["WINDHOVER_REQUIRE_ENGINES"] ?? "").split(separator: ",").map(String.init))

    /// Ends the test that cannot be run here.
    static func missing(_ engine: String, _ reason: String) throws -> Never {
        if required.contains(engine) {
            throw Missing(description: "\(engine) is required here: \(reason)")
        }
        try Test.cancel("\(engine) is not tested: \(reason)")
    }

    struct Missing: Error, CustomStringConvertible { var description: String }
}

/// The tiers that take minutes: one after the other, so that no more than one of them is in the others' way.
@Suite(.serialized) enum SlowTiers {}

/// The unit tests are in the same process, and look at the clock; so do guests in a box.
enum OtherTests {
    /// Waits until this process has been idle for some seconds: then the tests that compute are through.
    ///
    /// - Parameter limit: seconds after which nobody waits any longer.
    static func finish(within limit: Int) async throws {
        let clock = ContinuousClock()
        let end = clock.now + .seconds(limit)
        var idle = 0
        while idle < 3, clock.now < end {
            let before = processorTime()
            try await Task.sleep(for: .seconds(2))
            idle = processorTime() - before < 0.2 ? idle + 1 : 0
        }
    }

    /// Seconds, of this process and of children that have ended.
    private static func processorTime() -> Double {
        [RUSAGE_SELF, RUSAGE_CHILDREN].reduce(0) { sum, who in
            var usage = rusage()
            getrusage(__rusage_who_t(who.rawValue), &usage)
            return sum + Double(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
                + Double(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6
        }
    }
}
