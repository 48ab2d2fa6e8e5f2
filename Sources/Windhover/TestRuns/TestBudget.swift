/// How much of a host the guests of a test run may take at one time.
public struct TestBudget: Hashable, Sendable {
    /// Processors of the host.
    public var processors: Int
    /// Bytes that the guests' memories may come to.
    public var memory: UInt64
    /// As many targets at a time as somebody asked for, whatever they take; nil for as many as fit.
    public var jobs: Int?
    /// What `engine = "auto"` comes to here.
    public var automaticEngine: EngineChoice

    public init(processors: Int, memory: UInt64, jobs: Int? = nil, automaticEngine: EngineChoice = .interpreter) {
        self.processors = processors
        self.memory = memory
        self.jobs = jobs
        self.automaticEngine = automaticEngine
    }

    /// All processors that this process gets, and four fifths of the memory that it can have now: guests take theirs as they touch it,
    /// and the host needs some for what they read.
    public static func current(jobs: Int? = nil, automaticEngine: EngineChoice = .interpreter) -> TestBudget {
        TestBudget(
            processors: HostFacts.processorCount(), memory: (HostFacts.availableMemory() ?? 0) / 5 * 4, jobs: jobs,
            automaticEngine: automaticEngine)
    }

    /// Whether a target may start beside others. One alone always may: it is for the host to refuse it.
    public func admits(_ target: TestTarget, beside running: [TestTarget]) -> Bool {
        guard !running.isEmpty else { return true }
        if let jobs { return running.count < jobs }
        let together = running + [target]
        var memory: UInt64 = 0
        var processors = 0
        for target in together {
            memory = memory.addingReportingOverflow(target.memory.bytes).overflow ? .max : memory + target.memory.bytes
            processors += share(of: target)
        }
        return memory <= self.memory && processors <= self.processors
    }

    /// The processors that a target keeps busy: all of its own on the software CPU, where a guest is slow enough as it is and its
    /// processors wait for each other; on KVM a guest's share the host's well.
    private func share(of target: TestTarget) -> Int {
        (target.engine == .auto ? automaticEngine : target.engine) == .kvm ? 1 : target.cpus
    }
}
