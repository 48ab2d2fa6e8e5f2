public import Testing
public import Windhover

/// Gives a suite's tests, or one test, a guest: see ``Testing/Trait/guest(_:sharing:whenMissing:_:)``.
public struct GuestTrait: TestTrait, SuiteTrait, TestScoping {
    /// Whose the guest is.
    public enum Sharing: Sendable {
        /// Of all tests of the suite: it comes up before the first of them and is stopped after the last.
        case suite
        /// Each test's, and each one's of its arguments, own.
        case test
    }

    /// What becomes of tests on a host without the engine that their guest insists on.
    public enum MissingEngine: Sendable {
        /// They are skipped, with the reason.
        case skip
        /// They fail, with the reason.
        case fail
    }

    /// Tells one trait from another, whose copies suites hand to their tests.
    private final class Identity: Sendable {}

    private let base: VirtualMachineConfiguration
    private let sharing: Sharing
    private let whenMissing: MissingEngine
    private let change: @Sendable (inout VirtualMachineConfiguration) throws -> Void
    private let identity = Identity()

    init(
        _ base: VirtualMachineConfiguration, _ sharing: Sharing, _ whenMissing: MissingEngine,
        _ change: @escaping @Sendable (inout VirtualMachineConfiguration) throws -> Void
    ) {
        self.base = base
        self.sharing = sharing
        self.whenMissing = whenMissing
        self.change = change
    }

    /// Each test of a suite is looked at, too: what failed in it is told with its guest.
    public var isRecursive: Bool { true }

    private var configuration: VirtualMachineConfiguration {
        get throws {
            var configuration = base
            try change(&configuration)
            return configuration
        }
    }

    public func prepare(for test: Test) async throws {
        guard whenMissing == .skip else { return }
        let configuration = try configuration
        do { try configuration.checkEngine() } catch { try Test.cancel("there is no engine for the guest: \(error)") }
    }

    public func scopeProvider(for test: Test, testCase: Test.Case?) -> GuestTrait? {
        if test.isSuite { return sharing == .suite ? self : nil }
        return testCase == nil ? nil : self
    }

    public func provideScope(for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void) async throws {
        let outer = GuestScope.current
        let isOurs = outer?.owner === identity
        switch (test.isSuite, isOurs) {
        // A suite within the suite.
        case (true, true): try await function()
        case (true, false): try await inNewScope(outer, function)
        // One guest is told of: that of the test's own trait, where it has one beside its suite's.
        case (false, true) where !isNearest(test): try await function()
        case (false, true): try await outer?.report(test, testCase, function)
        case (false, false):
            try await inNewScope(outer) {
                try await GuestScope.current?.report(test, testCase, function)
            }
        }
    }

    /// Whether no other trait gives the test a guest in place of this one's.
    private func isNearest(_ test: Test) -> Bool {
        test.traits.compactMap { $0 as? GuestTrait }.last?.identity === identity
    }

    private func inNewScope(_ outer: GuestScope?, _ function: @Sendable () async throws -> Void) async throws {
        let configuration = try configuration
        // Who waits with a guest in hands would wait for himself.
        try await HostCapacity.shared.withShare(of: configuration, isUrgent: outer != nil) {
            let scope = GuestScope(try VirtualMachine(configuration), owner: identity)
            do {
                do { try await scope.machine.start() } catch {
                    await scope.attach(error)
                    throw error
                }
                try await GuestScope.$current.withValue(scope) { try await function() }
            } catch {
                await scope.machine.stop()
                throw error
            }
            await scope.machine.stop()
        }
    }
}

extension Trait where Self == GuestTrait {
    /// A guest for tests, which they reach as ``Guest/current``.
    ///
    /// ```swift
    /// @Suite(.guest { $0.memory = try MemorySize("512M") }) struct KernelTests {
    ///     @Test func theKernelIsLinux() async throws {
    ///         let result = try await Guest.current.run("uname")
    ///         #expect(result.output == "Linux\n")
    ///     }
    /// }
    /// ```
    ///
    /// On a suite it is one guest for all its tests, if `sharing` says nothing else; on a test it is the test's own. Tests that run
    /// in parallel have guests at once as far as the host's memory and processors go; the others wait.
    ///
    /// Where a test fails, the guest's kernel, engine and last words on the console are told with the failure, and two attachments
    /// have all there is: `console.log`, and `guest.txt` with the machine's numbers. A test that is over its time limit has its commands
    /// killed.
    /// - Parameters:
    ///   - configuration: of the guest.
    ///   - whenMissing: what is done where the configuration insists on an engine that the host lacks.
    ///   - change: what is to be different from the configuration.
    public static func guest(
        _ configuration: VirtualMachineConfiguration = VirtualMachineConfiguration(), sharing: GuestTrait.Sharing = .suite,
        whenMissing: GuestTrait.MissingEngine = .fail,
        _ change: @escaping @Sendable (inout VirtualMachineConfiguration) throws -> Void = { _ in }
    ) -> Self {
        GuestTrait(configuration, sharing, whenMissing, change)
    }
}
