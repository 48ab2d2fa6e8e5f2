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
