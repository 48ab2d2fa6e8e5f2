internal import Synchronization
internal import Testing
public import Windhover

/// The guest of the test that runs.
public enum Guest {
    /// The guest that the nearest ``Testing/Trait/guest(_:sharing:whenMissing:_:)`` has started, of the test or of a suite around it.
    ///
    /// - Throws: ``GuestMissing`` outside of such tests, also in detached tasks.
    public static var current: VirtualMachine {
        get throws {
            guard let scope = GuestScope.current else { throw GuestMissing() }
            return scope.machine
        }
    }
}

/// There is no guest here.
public struct GuestMissing: Error, Hashable, Sendable, CustomStringConvertible {
    public var description: String { "this test has no guest: put .guest on it or on its suite, and ask in no detached task" }
}

/// Where tests have a guest.
final class GuestScope: Sendable {
    @TaskLocal static var current: GuestScope?

    let machine: VirtualMachine
    let owner: any AnyObject & Sendable

    init(_ machine: VirtualMachine, owner: any AnyObject & Sendable) {
        self.machine = machine
        self.owner = owner
    }

    // MARK: Failures

    /// Runs a test, and has its failures tell of the guest.
    func report(_ test: Test, _ testCase: Test.Case?, _ function: @Sendable () async throws -> Void) async throws {
        let failures = Mutex(0)
        let handler = IssueHandlingTrait.compactMapIssues { [self] issue in
            guard issue.isFailure else { return issue }
            let isFirst = failures.withLock { count in
                count += 1
                return count == 1
            }
            var issue = issue
            // Once a test.
            if isFirst { issue.comments.append(Comment(rawValue: summary)) }
            return issue
        }
        do {
            try await handler.provideScope(for: test, testCase: testCase, performing: function)
        } catch {
            await attach(error)
            throw error
        }
        if failures.withLock({ $0 > 0 }) { await attach(nil) }
    }

    /// Attaches all that there is to say about the guest.
    func attach(_ error: (any Error)?) async {
        let console = machine.console.text
        Attachment.record(console.isEmpty ? "(nothing)\n" : console, named: "console.log")
        Attachment.record(await facts(error), named: "guest.txt")
    }

    private var kernelAndEngine: String {
        let kernel = machine.kernelRelease.map { "Linux \($0)" } ?? "no kernel yet"
        let engine = machine.engine.map { "\($0) (\(machine.engineReason ?? ""))" } ?? "no engine yet"
        return "\(kernel) on \(engine), \(machine.configuration.cpuCount) CPU, \(machine.configuration.memory)"
    }

    /// For a person who reads of a failure: a few lines.
    private var summary: String {
        let lines = machine.console.lastLines(10)
        return "the guest: \(kernelAndEngine), \(machine.state.rawValue)"
            + (machine.failure.map { "\n\($0)" } ?? "")
            + (lines.isEmpty ? "; its console is silent" : "; its console:\n" + lines.map { "  \($0)" }.joined(separator: "\n"))
    }

    private func facts(_ error: (any Error)?) async -> String {
        var lines = [
            "kernel: \(machine.kernelRelease ?? "none")", "engine: \(machine.engine ?? "none")",
            "why this engine: \(machine.engineReason ?? "")", "CPUs: \(machine.configuration.cpuCount)",
            "memory: \(machine.configuration.memory)", "state: \(machine.state.rawValue)",
        ]
        if let failure = machine.failure { lines.append("failure: \(failure)") }
        if let error { lines.append("error: \(error)") }
        if let statistics = await machine.statistics() {
            lines.append("exits: \(statistics.exits)")
            lines.append("instructions: \(statistics.instructions)")
            for device in statistics.devices {
                let counts = device.counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
                lines.append("\(device.kind): \(counts.joined(separator: ", "))")
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }
}
