internal import CHost
internal import KVM
internal import VMCore

/// How fast a host's KVM executes a guest's ring 0, against the host itself.
///
/// There are KVM hosts where ring 3 runs on the processor and ring 0 is emulated, at some two million instructions a second. No file and no
/// capability tells: so a loop is run and timed, in a virtual machine that is thrown away, and beside it on the host. Only
/// their ratio counts, so that a host that is emulated itself is judged as fairly as any other.
public struct EngineProbe: Hashable, Sendable {
    /// Guest time over host time for the same loop; about 1 on the processor, above 1000 emulated.
    public let slowdown: Double

    public init(slowdown: Double) { self.slowdown = slowdown }

    /// What a software CPU takes for such a loop: KVM is the faster engine below this.
    public static let interpreterSlowdown = 20.0

    public var isFasterThanInterpreter: Bool { slowdown < Self.interpreterSlowdown }

    /// Runs the probe: about a millisecond, at most five on a host of our time.
    ///
    /// - Throws: `EngineError` where KVM runs no guest at all.
    static func measure(_ system: KVMSystem) throws(EngineError) -> EngineProbe {
        let guest = try ProbeGuest(system)
        // The way into the guest and back costs the same whatever the loop, and more than the loop on a host that is emulated
        // itself: it is taken off. The shortest of several tries counts, as any may be interrupted.
        func net(_ iterations: UInt32, tries: Int) throws(EngineError) -> Double {
            var loop = UInt64.max, entry = UInt64.max
            for _ in 0..<tries {
                entry = min(entry, try guest.time(iterations: 1))
                loop = min(loop, try guest.time(iterations: iterations))
            }
            return Double(loop > entry ? loop - entry : 1) / Double(max(hostTime(iterations: iterations), 1))
        }
        // An emulated loop is three decades behind, which a short one shows.
        let first = try net(250, tries: 3)
        if first > 300 { return EngineProbe(slowdown: first) }
        return EngineProbe(slowdown: try net(20_000, tries: 2))
    }

    /// The loop on the host, in ticks of its time-stamp counter; the shorter of two, as one may be interrupted.
    private static func hostTime(iterations: UInt32) -> UInt64 {
        var best = UInt64.max
        for _ in 0..<2 {
            let start = chost_rdtsc()
            chost_count_down(iterations)
            best = min(best, chost_rdtsc() &- start)
        }
        return best
    }
}

/// The virtual machine that is thrown away: 64-bit code in ring 0 that counts ECX down and halts.
private struct ProbeGuest {
    private static let code: UInt64 = 0x1000
    private static let pageTables: UInt64 = 0x2000

    private let engine: KVMEngine
    private let vcpu: KVMVCPU

    init(_ system: KVMSystem) throws(EngineError) {
        let memory: GuestMemory
        do throws(GuestMemoryError) {
            memory = try GuestMemory(size: 1 << 20)
            // again: dec ecx; jnz again; hlt
            try memory.write([0xFF, 0xC9, 0x75, 0xFC, 0xF4], at: GuestAddress(Self.code))
            try memory.store(Self.pageTables + 0x1003, at: GuestAddress(Self.pageTables))
            try memory.store(Self.pageTables + 0x2003, at: GuestAddress(Self.pageTables + 0x1000))
            try memory.store(0x83 as UInt64, at: GuestAddress(Self.pageTables + 0x2000))
        } catch {
            throw .unavailable(reason: "no memory for a probe: \(error)", remedy: "")
        }
        // Without interrupt controllers HLT comes back to us.
        engine = try KVMEngine(
            system: system, memory: memory, vcpuCount: 1, irqChip: .none, realModePages: AddressMap.realModePages)
        vcpu = try engine.makeKVMVCPU(index: 0)
    }

    /// Ticks of the host's time-stamp counter from before the guest's entry to after its HLT.
    func time(iterations: UInt32) throws(EngineError) -> UInt64 {
        var general = GeneralRegisters()
        general.rip = Self.code
        general.rcx = UInt64(iterations)
        try vcpu.setEntry(general: general, system: Self.system)
        let start = chost_rdtsc()
        let exit = vcpu.run()
        let end = chost_rdtsc()
        guard exit == .halted else {
            throw .unavailable(reason: "the host's KVM does not run a five-byte guest: \(exit)", remedy: "")
        }
        return end &- start
    }

    private static var system: SystemRegisters {
        var system = SystemRegisters()
        var segment = SegmentState()
        segment.limit = .max
        segment.present = true
        segment.codeOrData = true
        segment.granular = true
        segment.selector = 0x10
        segment.type = 3
        segment.big = true
        system.ds = segment
        system.es = segment
        system.fs = segment
        system.gs = segment
        system.ss = segment
        segment.selector = 8
        segment.type = 0xB
        segment.big = false
        segment.long = true
        system.cs = segment
        system.tr.type = 0xB
        system.tr.present = true
        system.tr.limit = 0xFFFF
        system.ldtr.type = 2
        system.ldtr.present = true
        system.ldtr.limit = 0xFFFF
        system.cr0 = 0x8000_0011
        system.cr3 = pageTables
        system.cr4 = 0x20
        system.efer = 0x500
        return system
    }
}
