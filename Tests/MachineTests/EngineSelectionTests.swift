import KVM
import Machine
import Testing
import VMCore

/// Which engine each kind of host gets, and what is said. The hosts are made up.
@Suite struct EngineSelectionTests {
    private static let missing = EngineError.unavailable(
        reason: "there is no usable /dev/kvm: No such file or directory (errno 2)", remedy: "load the module")
    private static let forbidden = EngineError.notPermitted(reason: "no permission to open /dev/kvm", remedy: "join its group")
    private static let old = EngineError.unsupported(reason: "the host's KVM lacks KVM_CAP_IRQCHIP", remedy: "use a newer host kernel")

    private func host(
        open: EngineError? = nil, slowdown: Double = 1, probe: EngineError? = nil, pvm: Bool = false
    ) -> EngineSelection.Host {
        EngineSelection.Host(
            openKVM: { () throws(EngineError) in
                if let open { throw open }
                return nil
            },
            probe: { (_) throws(EngineError) in
                if let probe { throw probe }
                return EngineProbe(slowdown: slowdown)
            },
            hasPageTableVirtualisation: { pvm })
    }

    @Test func nativeKVMIsTakenSilently() throws {
        let selection = try EngineSelection(.automatic, on: host(slowdown: 1.04))
        #expect(selection.name == "kvm")
        #expect(selection.notice == nil)
        #expect(selection.reason == "measured: a guest's kernel runs at the host's own speed (1.0 times its time)")
    }

    @Test func emulatedRing0IsNot() throws {
        let selection = try EngineSelection(.automatic, on: host(slowdown: 1604.3, pvm: true))
        #expect(selection.name == "interpreter")
        #expect(selection.reason == "this host's KVM emulates a guest's kernel (kvm_pvm), 1604 times slower than the host")
        #expect(selection.notice == "using the interpreter: \(selection.reason); see hover doctor")
    }

    /// The module explains, and decides nothing.
    @Test func theMeasurementDecides() throws {
        #expect(try EngineSelection(.automatic, on: host(slowdown: 1, pvm: true)).name == "kvm")
        #expect(try EngineSelection(.automatic, on: host(slowdown: 1000, pvm: false)).name == "interpreter")
        #expect(try EngineSelection(.automatic, on: host(slowdown: 19.9)).name == "kvm")
        #expect(try EngineSelection(.automatic, on: host(slowdown: 20)).name == "interpreter")
        #expect(try EngineSelection(.automatic, on: host(slowdown: .infinity)).name == "interpreter")
        #expect(try EngineSelection(.automatic, on: host(slowdown: .nan)).name == "interpreter")
    }

    @Test(arguments: [missing, forbidden, old])
    func withoutKVMTheReasonIsSaid(_ error: EngineError) throws {
        let selection = try EngineSelection(.automatic, on: host(open: error))
        #expect(selection.name == "interpreter")
        #expect(error.description.hasPrefix(selection.reason))
        #expect(selection.notice?.contains(selection.reason) == true)
        #expect(selection.notice?.contains("\n") == false)
    }

    @Test func aKVMThatRunsNothingIsNotTaken() throws {
        let selection = try EngineSelection(.automatic, on: host(probe: .host(call: "KVM_CREATE_VM", errno: 12)))
        #expect(selection.name == "interpreter")
        #expect(selection.reason.contains("KVM_CREATE_VM failed"))
    }

    /// Insisting: no probe, and no fallback.
    @Test func kvmInsisted() throws {
        let selection = try EngineSelection(.kvm, on: host(slowdown: 5000))
        #expect(selection.name == "kvm" && selection.reason == "asked for" && selection.notice == nil)
        for error in [Self.missing, Self.forbidden, Self.old] {
            #expect(throws: error) { try EngineSelection(.kvm, on: host(open: error)) }
        }
    }

    @Test func interpreterInsisted() throws {
        let selection = try EngineSelection(.interpreter, on: host(open: Self.missing))
        #expect(selection.name == "interpreter" && selection.reason == "asked for" && selection.notice == nil)
    }

    /// On whatever host this is: an engine, soon.
    @Test func thisHost() throws {
        let clock = HostClock()
        let start = clock.now()
        let selection = try EngineSelection(.automatic)
        let milliseconds = Double(clock.now() - start) / 1e6
        print("this host: \(selection.name): \(selection.reason); chosen in \(milliseconds) ms")
        #expect(["kvm", "interpreter"].contains(selection.name))
        // A busy host may take the processor away meanwhile; the bound is 5 ms on a quiet one.
        #expect(milliseconds < 500)
    }
}
