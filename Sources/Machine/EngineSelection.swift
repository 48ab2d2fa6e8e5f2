internal import Glibc
public import KVM
public import SoftCPU
public import VMCore

/// Which engine runs a guest on this host, and why.
public struct EngineSelection: Sendable {
    /// What was asked for.
    public enum Request: Hashable, Sendable {
        /// The faster of those that the host has.
        case automatic
        /// KVM or nothing.
        case kvm
        case interpreter
    }

    /// What there is to know of a host before choosing. A test makes its own.
    public struct Host: Sendable {
        /// Opens KVM.
        public var openKVM: @Sendable () throws(EngineError) -> KVMSystem?
        /// Times it.
        public var probe: @Sendable (KVMSystem?) throws(EngineError) -> EngineProbe
        /// Whether the host's kernel is known to emulate ring 0: explains a probe's result, decides nothing.
        public var hasPageTableVirtualisation: @Sendable () -> Bool

        /// - Parameters: as the properties; the system is nil only in a test's hands.
        public init(
            openKVM: @escaping @Sendable () throws(EngineError) -> KVMSystem?,
            probe: @escaping @Sendable (KVMSystem?) throws(EngineError) -> EngineProbe,
            hasPageTableVirtualisation: @escaping @Sendable () -> Bool
        ) {
            self.openKVM = openKVM
            self.probe = probe
            self.hasPageTableVirtualisation = hasPageTableVirtualisation
        }

        /// The host this process runs on.
        public static let current = Host(
            openKVM: { () throws(EngineError) in try KVMSystem() },
            probe: { (system) throws(EngineError) in
                guard let system else { throw .unavailable(reason: "KVM is not open", remedy: "") }
                return try EngineProbe.measure(system)
            },
            hasPageTableVirtualisation: { unsafe access("/sys/module/kvm_pvm", F_OK) == 0 })
    }

    /// "kvm" or "interpreter", as `Engine.name`.
    public let name: String
    /// For statistics and the doctor: a phrase.
    public let reason: String
    /// What a person who did not ask for this engine is told; nil where there is nothing to tell.
    public let notice: String?
    /// Open where KVM was chosen.
    private let system: KVMSystem?

    /// Chooses.
    ///
    /// - Throws: why KVM cannot be used, where it was insisted on. Otherwise there is always an engine.
    public init(_ request: Request, on host: Host = .current) throws(EngineError) {
        switch request {
        case .interpreter:
            self.init(name: "interpreter", reason: "asked for", notice: nil, system: nil)
        case .kvm:
            self.init(name: "kvm", reason: "asked for", notice: nil, system: try host.openKVM())
        case .automatic:
            let system: KVMSystem?
            let probe: EngineProbe
            do throws(EngineError) {
                system = try host.openKVM()
                probe = try host.probe(system)
            } catch {
                // The remedy names a command; the whole of it is the doctor's to tell.
                self.init(fallback: Self.reason(of: error))
                return
            }
            let ratio = Self.words(probe.slowdown)
            guard probe.isFasterThanInterpreter else {
                let why = host.hasPageTableVirtualisation() ? " (kvm_pvm)" : ""
                self.init(fallback: "this host's KVM emulates a guest's kernel\(why), \(ratio) times slower than the host")
                return
            }
            self.init(
                name: "kvm", reason: "measured: a guest's kernel runs at the host's own speed (\(ratio) times its time)",
                notice: nil, system: system)
        }
    }

    private init(name: String, reason: String, notice: String?, system: KVMSystem?) {
        self.name = name
        self.reason = reason
        self.notice = notice
        self.system = system
    }

    private init(fallback reason: String) {
        self.init(
            name: "interpreter", reason: reason, notice: "using the interpreter: \(reason); see hover doctor", system: nil)
    }

    private static func reason(of error: EngineError) -> String {
        switch error {
        case .unavailable(let reason, _), .notPermitted(let reason, _), .unsupported(let reason, _): reason
        case .host, .badState: error.description
        }
    }

    /// One digit after the point where it says something. No Foundation here.
    private static func words(_ value: Double) -> String {
        guard value.isFinite, value < 1e9 else { return "very many" }
        if value >= 10 { return "\(Int(value.rounded()))" }
        let tenths = Int((max(value, 0) * 10).rounded())
        return "\(tenths / 10).\(tenths % 10)"
    }

    /// Makes the engine of one machine.
    ///
    /// - Parameters:
    ///   - irqChip: whose PIC, PIT and I/O APIC serve under KVM; the interpreter always takes the device layer's.
    ///   - alarms: rings at the deadlines of the interpreter's local APICs.
    ///   - instructionClock: what the interpreter's time goes by in place of the host's.
    /// - Throws: `EngineError`, with the host's reason.
    public func makeEngine(
        memory: GuestMemory, vcpuCount: Int, irqChip: IRQChip, alarms: any AlarmService,
        instructionClock: InstructionClock? = nil
    ) throws(EngineError) -> any Engine {
        if let system {
            let engine = try KVMEngine(
                system: system, memory: memory, vcpuCount: vcpuCount, irqChip: irqChip,
                realModePages: AddressMap.realModePages)
            // More vCPUs than the interpreter counts are not rescued, and run all the same.
            if vcpuCount <= 255 { engine.connect(rescue: SoftwareRescue(memory: memory, vcpuCount: vcpuCount)) }
            return engine
        }
        return try SoftEngine(memory: memory, vcpuCount: vcpuCount, alarms: alarms, instructionClock: instructionClock)
    }
}
