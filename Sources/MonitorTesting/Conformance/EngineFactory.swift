public import KVM
internal import Machine
internal import SoftCPU
public import VMCore

/// Makes engines of one kind for the conformance suite: one a case, for that case's memory.
public struct EngineFactory: Sendable, CustomStringConvertible {
    /// What an engine has, of that which the engine protocol leaves open.
    public struct Features: OptionSet, Sendable {
        public let rawValue: Int
        public init(rawValue: Int) { self.rawValue = rawValue }

        /// Interrupt controllers of its own: `interruptLine(gsi:)` answers.
        public static let interruptLines = Features(rawValue: 1)
        /// Local APICs: messages, INIT and SIPI, HLT that sleeps.
        public static let localAPIC = Features(rawValue: 2)
        /// Asks an external interrupt source, as where the 8259A pair is the device layer's.
        public static let externalInterrupts = Features(rawValue: 4)
        /// Reports EOIs of level-triggered routes.
        public static let endOfInterrupt = Features(rawValue: 8)
    }

    public let name: String
    public let features: Features
    public let make: @Sendable (_ memory: GuestMemory, _ vcpuCount: Int) throws(EngineError) -> any Engine

    public init(
        name: String, features: Features,
        make: @escaping @Sendable (_ memory: GuestMemory, _ vcpuCount: Int) throws(EngineError) -> any Engine
    ) {
        self.name = name
        self.features = features
        self.make = make
    }

    public var description: String { name }

    /// KVM with each set of interrupt controllers.
    public static func kvm(_ chips: IRQChip) -> EngineFactory {
        let features: Features =
            switch chips {
            case .kernel: [.interruptLines, .localAPIC]
            case .split: [.localAPIC, .externalInterrupts, .endOfInterrupt]
            case .none: [.externalInterrupts]
            }
        return EngineFactory(name: "kvm, \(chips.rawValue) interrupt controllers", features: features) {
            (memory, vcpuCount) throws(EngineError) in
            let engine = try KVMEngine(system: try KVMSystem(), memory: memory, vcpuCount: vcpuCount, irqChip: chips)
            engine.connect(rescue: SoftwareRescue(memory: memory, vcpuCount: vcpuCount))
            return engine
        }
    }

    /// The interpreter, with its local APICs or with bare processors.
    public static func interpreter(localAPICs: Bool) -> EngineFactory {
        EngineFactory(
            name: localAPICs ? "interpreter" : "interpreter, none interrupt controllers",
            features: localAPICs ? [.localAPIC, .externalInterrupts, .endOfInterrupt] : [.externalInterrupts]
        ) { (memory, vcpuCount) throws(EngineError) in
            try SoftEngine(memory: memory, vcpuCount: vcpuCount, alarms: localAPICs ? try loop.get() : nil)
        }
    }

    /// Rings for every machine of the suite's; it lives as long as the process.
    private static let loop: Result<EventLoop, EngineError> = Result { () throws(EngineError) in
        let loop = try EventLoop(clock: HostClock())
        try loop.start()
        return loop
    }

    /// Every engine there is, whether or not this host can run it.
    public static let all: [EngineFactory] =
        IRQChip.allCases.map(kvm) + [interpreter(localAPICs: true), interpreter(localAPICs: false)]

    /// Why this host cannot run it; nil where it can.
    public var unavailable: EngineError? {
        do throws(EngineError) {
            guard let memory = try? GuestMemory(size: 1 << 20) else {
                throw .unavailable(reason: "the host gives no memory", remedy: "")
            }
            _ = try make(memory, 1)
            return nil
        } catch {
            return error
        }
    }
}
