import Synchronization
import VMCore

@testable import SoftCPU

/// One vCPU in long mode, ring 0, with 2 MiB of RAM mapped one to one, and a device.
///
/// ```
/// 0x1000 PML4, 0x2000 PDPT, 0x3000 PD, 0x4000 PT of RAM, 0x5000 PD of the device's GiB
/// 0x6000 IDT: 32 gates   0x7000 handlers: HLT, 16 bytes apart   0x8000 GDT   0x9000 TSS
/// 0x10000 code   0x12000 data   0x15000 stack, growing down
/// 0xD0000000 the device: 4 KiB of bytes
/// ```
final class BareMachine {
    static let code: UInt64 = 0x10000, data: UInt64 = 0x12000, stack: UInt64 = 0x15000, device: UInt64 = 0xD000_0000
    static let handlers: UInt64 = 0x7000, table: UInt64 = 0x4000

    let memory: GuestMemory
    let engine: SoftEngine
    let cpu: SoftVCPU
    let device = ByteStore()
    var general = GeneralRegisters()
    var system = SystemRegisters()

    /// A device whose registers keep what is written to them.
    final class ByteStore: BusDevice {
        private let bytes = Mutex([UInt8](repeating: 0, count: 4096))
        let writes = Atomic<Int>(0)

        func read(offset: UInt64, width: AccessWidth) -> UInt64 {
            bytes.withLock { bytes in
                (0..<Int(width.bytes)).reduce(UInt64(0)) { $0 | UInt64(bytes[Int(offset) + $1]) << UInt64($1 * 8) }
            }
        }
        func write(offset: UInt64, width: AccessWidth, value: UInt64) {
            writes.wrappingAdd(1, ordering: .relaxed)
            bytes.withLock { bytes in
                for index in 0..<Int(width.bytes) { bytes[Int(offset) + index] = UInt8(truncatingIfNeeded: value >> UInt64(index * 8)) }
            }
        }
        func set(_ value: [UInt8], at offset: Int = 0) { bytes.withLock { $0.replaceSubrange(offset..<offset + value.count, with: value) } }
        func word(_ offset: UInt64) -> UInt64 { read(offset: offset, width: .quad) }
    }

    /// How a run ended.
    struct Outcome: Equatable {
        /// The exception whose handler halted; -1 for a halt elsewhere, -2 for a triple fault, -3 for anything else.
        var vector: Int
        /// What is on top of the stack then: the error code, where there is one.
        var top: UInt64
        var cr2: UInt64
    }

    init(vcpuCount: Int = 1) throws {
        memory = try GuestMemory(size: 2 << 20)
        engine = try SoftEngine(memory: memory, vcpuCount: vcpuCount)
        var mmio = BusMap()
        try mmio.add(device, name: "device", base: Self.device, count: 4096, widest: .quad)
        engine.connect(ports: Bus(BusMap()), mmio: Bus(mmio))
        cpu = try engine.makeSoftVCPU(index: 0)
        try write(0x2007, at: 0x1000)
        try write(0x3007, at: 0x2000)
        try write(0x5007, at: 0x2018)
        try write(0x4007, at: 0x3000)
        for page in 0..<512 as Range<UInt64> { try write(page << 12 | 7, at: Self.table + page * 8) }
        try write(Self.device | 0x87, at: 0x5000 + 128 * 8)
        for vector in 0..<32 as Range<UInt64> {
            try write(Self.handlers + vector * 16 | 0x8 << 16 | 0x8E00 << 32, at: 0x6000 + vector * 16)
            try memory.write([0xF4, 0xEB, 0xFD], at: GuestAddress(Self.handlers + vector * 16))
        }
        try write(0x00AF_9B00_0000_FFFF, at: 0x8008)
        try write(0x00CF_9300_0000_FFFF, at: 0x8010)
        var code = SegmentState()
        code.selector = 8
        code.limit = ~0
        code.type = 11
        code.present = true
        code.codeOrData = true
        code.granular = true
        var data = code
        code.long = true
        data.selector = 16
        data.type = 3
        data.big = true
        system.cs = code
        system.ss = data
        system.ds = data
        system.es = data
        system.fs = data
        system.gs = data
        system.tr.base = 0x9000
        system.tr.limit = 0x67
        system.tr.type = 11
        system.tr.present = true
        system.gdtr = TableState(base: 0x8000, limit: 0x17)
        system.idtr = TableState(base: 0x6000, limit: 0x1FF)
        system.cr0 = 0x8000_0033
        system.cr3 = 0x1000
        system.cr4 = 0x620
        system.efer = 0xD00
        general.rip = Self.code
        general.rsp = Self.stack
    }

    func write(_ value: UInt64, at address: UInt64) throws { try memory.store(value, at: GuestAddress(address)) }
    func read(_ address: UInt64) throws -> UInt64 { try memory.load(UInt64.self, at: GuestAddress(address)) }

    /// Runs `bytes`, from the code page or from `address`, until the vCPU halts, dies, or has executed too much.
    ///
    /// - Parameter counted: whether instructions are counted, which keeps the vCPU from going from block to block; without, it
    ///   is kicked out after five seconds.
    func run(_ bytes: [UInt8] = [], at address: UInt64 = code, counted: Bool = true) throws -> Outcome {
        if !bytes.isEmpty { try memory.write(bytes, at: GuestAddress(address)) }
        var state = VCPUState()
        state.general = general
        state.system = system
        if general.rip == Self.code { state.general.rip = address }
        try cpu.setState(state)
        let kicker = cpu.kicker
        let guardian = counted ? nil : Task.detached { if (try? await Task.sleep(for: .seconds(5))) != nil { kicker.kick() } }
        defer { guardian?.cancel() }
        let exit = counted ? cpu.run(count: 100_000) : cpu.run()
        let now = cpu.generalRegisters
        var outcome = Outcome(vector: -3, top: 0, cr2: cpu.cr2)
        switch exit {
        case .halted:
            let offset = now.rip &- Self.handlers
            outcome.vector = offset < 0x200 ? Int(offset >> 4) : -1
            outcome.top = (try? read(now.rsp)) ?? 0
        case .shutdown: outcome.vector = -2
        default: break
        }
        return outcome
    }
}
