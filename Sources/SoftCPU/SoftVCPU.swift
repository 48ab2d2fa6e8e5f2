internal import CHost
internal import Glibc
internal import Synchronization
public import VMCore

/// One vCPU of the interpreter. Used on one thread only, but for its `kicker`.
@safe public final class SoftVCPU: VCPU {
    public let index: Int
    let engine: SoftEngine
    let cpu: CPU
    let attention: Attention
    let blocks: BlockCache
    var ports: Bus
    var mmio: Bus
    var external: (any ExternalInterruptSource)?
    var local: (any LocalInterruptController)?
    /// Where the state is a vCPU's of another engine.
    var rescue: RescueContext?

    public var kicker: any VCPUKicker { attention }

    public var statistics: ExitStatistics {
        var statistics = cpu.s.exitStatistics
        statistics.instructions = cpu.s.instructions
        return statistics
    }

    init(engine: SoftEngine, index: Int) throws(EngineError) {
        guard index >= 0, index < engine.vcpuCount else { throw .badState("vCPU \(index) of \(engine.vcpuCount)") }
        self.engine = engine
        self.index = index
        attention = engine.attentions[index]
        let block = CodePages.allocate(UInt64(Layout.size))
        guard block != 0 else { throw .host(call: "mmap of a vCPU", errno: errno) }
        cpu = CPU(block)
        blocks = try BlockCache(pages: engine.codePages.pages)
        let connections = engine.connections.withLock { $0 }
        ports = connections.ports
        mmio = connections.mmio
        cpu.s = Registers()
        cpu.s.attention = attention.address
        cpu.s.codeOwners = engine.codePages.owners
        cpu.s.codeChunks = engine.codePages.chunks
        cpu.s.codeBit = 1 << UInt8(min(index, 7))
        let regions = engine.memory.regions
        if let low = regions.first {
            cpu.s.lowRAM = UInt(bitPattern: unsafe low.host)
            cpu.s.lowSize = low.count
        }
        if regions.count > 1 {
            cpu.s.highRAM = UInt(bitPattern: unsafe regions[1].host)
            cpu.s.highSize = regions[1].count
        }
        cpu.s.owner = UInt(bitPattern: unsafe Unmanaged.passUnretained(self).toOpaque())
        cpu.s.arenaNext = blocks.arena
        cpu.s.arenaEnd = blocks.arena &+ UInt(BlockCache.arenaSize)
        cpu.s.blockHash = blocks.hash
        cpu.s.blockPageHeads = blocks.pageHeads
        attention.raise(.outside)
        engine.instructionClock?.count(cpu.address)
        cpu.reset(isBootProcessor: index == 0)
    }

    deinit {
        engine.instructionClock?.count(0)
        _ = unsafe munmap(UnsafeMutableRawPointer(bitPattern: cpu.address), Int(Layout.size))
    }

    public func run() -> VCPUExit {
        refreshConnections()
        return cpu.run(until: .max, isStepping: false)
    }

    /// Executes `count` instructions, or fewer where the vCPU stops before.
    ///
    /// An instruction that faults counts when its exception is delivered; an iteration of a repeated string
    /// instruction does not count by itself.
    /// - Returns: nil after `count` instructions.
    public func step(count: UInt64) -> VCPUExit? {
        refreshConnections()
        let end = cpu.s.instructions &+ count
        let exit = cpu.run(until: end, isStepping: true)
        return exit == .debug ? nil : exit
    }

    /// Executes about `count` instructions as `run` does, in blocks: past it by less than a block.
    /// - Returns: nil after that many, or what stopped the vCPU before.
    public func run(count: UInt64) -> VCPUExit? {
        refreshConnections()
        let end = cpu.s.instructions &+ count
        let exit = cpu.run(until: end, isStepping: false)
        return exit == .debug ? nil : exit
    }

    /// What was connected after the vCPU was made.
    func refreshConnections() {
        let connections = engine.connections.withLock { $0 }
        ports = connections.ports
        mmio = connections.mmio
        // Only the boot processor's INTR pin is wired to the 8259A pair.
        external = index == 0 ? connections.externalInterrupts : nil
        if local == nil { local = engine.fabric?.processor(index) }
    }
}

extension CPU {
    /// The object this state belongs to.
    @inline(__always) var vcpu: SoftVCPU {
        unsafe Unmanaged<SoftVCPU>.fromOpaque(UnsafeRawPointer(bitPattern: s.owner).unsafelyUnwrapped)
            .takeUnretainedValue()
    }
}
