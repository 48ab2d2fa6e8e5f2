internal import Synchronization
internal import VMCore

/// The machine that goes from program to program: one vCPU, its state set anew for each.
public final class ControlMachine {
    private static let size: UInt64 = 4 << 20
    /// Milliseconds that a program may take; the slowest engine takes a few.
    private static let limit: UInt64 = 3000

    private let memory: GuestMemory
    private let engine: any Engine
    private let vcpu: any VCPU
    private let quirks: Set<ControlQuirk>
    private let watch = ControlWatch()
    private let port = EndPort()
    private let environments: [String: ControlEnvironment]

    /// - Parameter reference: what outcomes will be compared with.
    public init(_ factory: EngineFactory, reference: ControlReference = .exact) throws {
        quirks = reference.quirks
        memory = try GuestMemory(size: Self.size)
        engine = try factory.make(memory, 1)
        var ports = BusMap()
        try ports.add(port, name: "end", base: 0, count: 0x100, widest: .long)
        engine.connect(ports: Bus(ports), mmio: Bus(BusMap()))
        vcpu = try engine.makeVCPU(index: 0)
        var environments: [String: ControlEnvironment] = [:]
        for mode in ControlProgram.Mode.allCases {
            for hasLDT in [false, true] {
                environments["\(mode.rawValue) \(hasLDT)"] = ControlEnvironment(mode, hasLDT: hasLDT)
            }
        }
        self.environments = environments
        let kicker = vcpu.kicker
        port.kicker.withLock { $0 = kicker }
        // Memory that a hypervisor has not mapped yet costs it an exit, perhaps in the middle of an exception.
        for number in 0..<24 { _ = try? run(ControlGenerator(seed: 0).program(number)) }
    }

    deinit { watch.end() }

    /// A port for each vector: what is written does not count, where does.
    private final class EndPort: BusDevice {
        let kicker = Mutex<(any VCPUKicker)?>(nil)
        let ended = Mutex<UInt64?>(nil)

        func read(offset: UInt64, width: AccessWidth) -> UInt64 { width.mask }
        func write(offset: UInt64, width: AccessWidth, value: UInt64) {
            ended.withLock { $0 = $0 ?? offset }
            kicker.withLock { $0 }?.kick()
        }
    }

    /// - Throws: where the engine refuses the state that programs start from.
    public func run(_ program: ControlProgram) throws -> ControlOutcome {
        guard let environment = environments["\(program.mode.rawValue) \(program.hasLDT)"] else {
            throw ConformanceFailure("there is no such mode")
        }
        var before = environment.memory
        func put(_ bytes: [UInt8], _ address: UInt64) {
            for (offset, byte) in bytes.enumerated() { before[Int(address) + offset] = byte }
        }
        put(program.code, ControlLayout.code)
        for patch in program.patches { put(patch.bytes, patch.address) }
        try memory.write(before, at: GuestAddress(0))
        try vcpu.setState(environment.state)
        port.ended.withLock { $0 = nil }
        let (exit, isLate) = watch.watching(limit: Self.limit, vcpu.kicker) { vcpu.run() }
        let ended = port.ended.withLock { $0 }
        let ending: String
        switch exit {
        case .kicked: ending = ended.map { short($0) } ?? (isLate ? "late" : "kicked")
        case .shutdown: ending = "shutdown"
        case .halted: ending = "halted"
        case let other: ending = "\(other)".split(separator: " ").joined(separator: "-")
        }
        // After a shutdown a processor's registers are undefined. Source: [APM2 §15.14.3].
        let state = exit == .kicked ? try vcpu.state() : nil
        var after = try memory.read(at: GuestAddress(0), count: Int(ControlLayout.end))
        ControlQuirk.apply(quirks, mode: program.mode, ending: ended ?? .max, state: state, memory: &after, before: before)
        return ControlOutcome(ending: ending, state: state, memory: after, from: environment, before: before)
    }
}

/// Kicks the vCPU of a program that does not end. One thread for all programs of a run.
final class ControlWatch: Sendable {
    private struct Guard {
        var deadline: UInt64 = .max
        var kicker: (any VCPUKicker)?
        var isLate = false
        var isOver = false
    }
    private let current = Mutex(Guard())
    private let thread = Mutex<TestThread?>(nil)

    init() {
        let started = TestThread { [current = self] in current.watch() }
        thread.withLock { $0 = started }
    }

    /// Ends the thread.
    func end() {
        current.withLock { $0.isOver = true }
        thread.withLock { $0 }?.join()
    }

    /// - Returns: what `body` returns, and whether it had to be kicked for that.
    func watching(limit: UInt64, _ kicker: any VCPUKicker, _ body: () -> VCPUExit) -> (exit: VCPUExit, isLate: Bool) {
        current.withLock {
            $0.deadline = milliseconds() &+ limit
            $0.kicker = kicker
            $0.isLate = false
        }
        let exit = body()
        let isLate = current.withLock {
            $0.deadline = .max
            $0.kicker = nil
            return $0.isLate
        }
        return (exit, isLate)
    }

    private func watch() {
        while true {
            let isOver = current.withLock { guarded in
                if guarded.deadline <= milliseconds() {
                    guarded.isLate = true
                    guarded.kicker?.kick()
                }
                return guarded.isOver
            }
            if isOver { return }
            sleep(microseconds: 20_000)
        }
    }
}
