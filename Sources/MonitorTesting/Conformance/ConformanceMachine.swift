internal import Synchronization
internal import VMCore

/// What a case found wrong.
public struct ConformanceFailure: Error, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

func expect(_ condition: Bool, _ message: @autoclosure () -> String) throws(ConformanceFailure) {
    guard condition else { throw ConformanceFailure(message()) }
}

func expectEqual<Value: Equatable>(_ actual: Value, _ wanted: Value, _ what: String) throws(ConformanceFailure) {
    guard actual == wanted else { throw ConformanceFailure("\(what): \(actual), not \(wanted)") }
}

func hex(_ value: some BinaryInteger) -> String { "0x" + String(value, radix: 16) }

/// The least machine a snippet can run on: RAM, a few test devices, an engine. No chips, no firmware, no loader.
///
///     0x00500  GDT: 0x08 64-bit code, 0x10 data, 0x18 32-bit code
///     0x01000  the snippet
///     0x02000  handlers, 256 bytes apart
///     0x05000  an application processor's start
///     0x06000  IDT of 64-bit mode
///     0x08000  stack, growing down
///     0x09000  page tables: 4 GiB, one to one
///     0x20000  data for the snippets
///     0xD0000000  a device of 64 KiB
///
///     port 0x10        the end: a write kicks every vCPU
///     port 0x300-0x30F the case's device
final class ConformanceMachine: Sendable {
    static let code: UInt64 = 0x1000
    static let handlers: UInt64 = 0x2000
    static let startup: UInt64 = 0x5000
    static let idt: UInt64 = 0x6000
    static let stack: UInt64 = 0x8000
    static let pageTables: UInt64 = 0x9000
    static let data: UInt64 = 0x20000
    static let device: UInt64 = 0xD000_0000
    static let size: UInt64 = 4 << 20
    /// How long a snippet may take, in milliseconds; the slowest engine on a busy host needs a hundredth.
    static let limit: UInt64 = 20_000

    enum Mode { case real16, protected32, long64 }

    let memory: GuestMemory
    let engine: any Engine
    let mmio: any BusDevice
    private let kickers = Mutex<[any VCPUKicker]>([])
    private let endValue = Mutex<UInt64?>(nil)

    /// - Parameters:
    ///   - port: at 0x300, 16 ports, up to 4 bytes wide.
    ///   - mmio: at 0xD0000000, 64 KiB, up to 8 bytes wide.
    init(
        _ factory: EngineFactory, vcpuCount: Int = 1, port: (any BusDevice)? = nil, mmio: (any BusDevice)? = nil
    ) throws {
        memory = try GuestMemory(size: Self.size)
        engine = try factory.make(memory, vcpuCount)
        self.mmio = mmio ?? ByteDevice([UInt8](repeating: 0, count: 0x10000))
        var ports = BusMap()
        var devices = BusMap()
        let end = EndPort()
        try ports.add(end, name: "end", base: 0x10, count: 4, widest: .long)
        try ports.add(port ?? RecordingDevice(), name: "case", base: 0x300, count: 16, widest: .long)
        try devices.add(self.mmio, name: "device", base: Self.device, count: 0x10000, widest: .quad)
        engine.connect(ports: Bus(ports), mmio: Bus(devices))
        end.machine.withLock { $0.value = self }
        try writeTables()
    }

    /// What the guest wrote to the end port, if it did.
    var ended: UInt64? { endValue.withLock { $0 } }

    /// Gets every vCPU out of the guest.
    func end(_ value: UInt64) {
        endValue.withLock { $0 = value }
        kickAll()
    }

    func kickAll() { for kicker in kickers.withLock({ $0 }) { kicker.kick() } }

    private final class EndPort: BusDevice {
        struct Weak { weak var value: ConformanceMachine? }
        let machine = Mutex(Weak())
        func read(offset: UInt64, width: AccessWidth) -> UInt64 { width.mask }
        func write(offset: UInt64, width: AccessWidth, value: UInt64) {
            machine.withLock { $0.value }?.end(value)
        }
    }

    // MARK: Memory

    private func writeTables() throws {
        let gdt: [UInt64] = [0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x00CF_9B00_0000_FFFF]
        for (index, entry) in gdt.enumerated() {
            try memory.store(entry, at: GuestAddress(0x500 + 8 * UInt64(index)))
        }
        let top = Self.pageTables
        try memory.store(top + 0x1003, at: GuestAddress(top))
        for directory in 0..<4 as Range<UInt64> {
            let table = top + 0x2000 + directory * 0x1000
            try memory.store(table + 3, at: GuestAddress(top + 0x1000 + 8 * directory))
            for entry in 0..<512 as Range<UInt64> {
                try memory.store(directory << 30 | entry << 21 | 0x83, at: GuestAddress(table + 8 * entry))
            }
        }
    }

    func write(_ snippet: Snippet, at address: UInt64) throws {
        try memory.write(snippet.bytes, at: GuestAddress(address))
    }

    /// Installs a handler: a 64-bit interrupt gate, or a real-mode vector.
    func handle(_ vector: UInt8, _ snippet: Snippet, at address: UInt64 = handlers) throws {
        try write(snippet, at: address)
        if snippet.bits == 16 {
            try memory.store(UInt32(address), at: GuestAddress(4 * UInt64(vector)))
        } else {
            let gate = GuestAddress(Self.idt + 16 * UInt64(vector))
            try memory.store(UInt64(0x8E00) << 32 | 8 << 16 | address & 0xFFFF, at: gate)
            try memory.store(UInt64(0), at: GuestAddress(gate.rawValue + 8))
        }
    }

    func load<Value: BitwiseCopyable>(_ type: Value.Type = Value.self, at address: UInt64) throws -> Value {
        try memory.load(type, at: GuestAddress(address))
    }

    // MARK: Running

    static func entry(_ mode: Mode, at address: UInt64 = code) -> (general: GeneralRegisters, system: SystemRegisters) {
        var general = GeneralRegisters()
        general.rip = address
        general.rsp = stack
        var system = SystemRegisters()
        func segment(_ selector: UInt16, code: Bool, limit: UInt32, big: Bool, long: Bool = false) -> SegmentState {
            var segment = SegmentState()
            segment.selector = selector
            segment.limit = limit
            segment.type = code ? 0xB : 3
            segment.present = true
            segment.codeOrData = true
            segment.big = big
            segment.long = long
            segment.granular = limit > 0xFFFF
            return segment
        }
        let data: SegmentState
        switch mode {
        case .real16:
            system.cs = segment(0, code: true, limit: 0xFFFF, big: false)
            data = segment(0, code: false, limit: 0xFFFF, big: false)
            system.cr0 = 0x10
            system.idtr = TableState(base: 0, limit: 0x3FF)
        case .protected32:
            system.cs = segment(0x18, code: true, limit: .max, big: true)
            data = segment(0x10, code: false, limit: .max, big: true)
            system.cr0 = 0x11
        case .long64:
            system.cs = segment(0x08, code: true, limit: .max, big: false, long: true)
            data = segment(0x10, code: false, limit: .max, big: true)
            system.cr0 = 0x8000_0011
            system.cr3 = pageTables
            system.cr4 = 0x20
            system.efer = 0x500
            system.idtr = TableState(base: idt, limit: 0xFFF)
        }
        system.ds = data
        system.es = data
        system.fs = data
        system.gs = data
        system.ss = data
        system.gdtr = TableState(base: 0x500, limit: 0x1F)
        system.tr.type = 0xB
        system.tr.present = true
        system.tr.limit = 0xFFFF
        system.ldtr.type = 2
        system.ldtr.present = true
        system.ldtr.limit = 0xFFFF
        return (general, system)
    }

    /// Makes a vCPU of this machine; it is kicked when the guest ends or the time is up.
    func makeVCPU(_ index: Int = 0) throws -> any VCPU {
        let vcpu = try engine.makeVCPU(index: index)
        kickers.withLock { $0.append(vcpu.kicker) }
        return vcpu
    }

    /// Makes the boot processor, at the start of a snippet.
    func boot(
        _ snippet: Snippet, _ prepare: (inout GeneralRegisters, inout SystemRegisters) -> Void = { _, _ in }
    ) throws -> any VCPU {
        try write(snippet, at: Self.code)
        let vcpu = try makeVCPU()
        var (general, system) = Self.entry(
            snippet.bits == 16 ? .real16 : snippet.bits == 32 ? .protected32 : .long64)
        prepare(&general, &system)
        try vcpu.setEntry(general: general, system: system)
        return vcpu
    }

    /// Runs until the vCPU stops.
    /// - Throws: where it does not within the time limit.
    func run(_ vcpu: any VCPU, limit: UInt64 = limit) throws -> VCPUExit {
        let watchdog = Watchdog()
        let thread = watchdog.start(after: limit) { [self] in kickAll() }
        let exit = vcpu.run()
        watchdog.stop()
        thread.join()
        try expect(!watchdog.barked, "the guest did not stop within \(limit) ms")
        return exit
    }

    /// Runs to the end port.
    /// - Returns: the state there.
    @discardableResult
    func runToEnd(_ vcpu: any VCPU) throws -> VCPUState {
        let exit = try run(vcpu)
        if exit != .kicked || ended == nil {
            let state = try? vcpu.state()
            throw ConformanceFailure(
                "stopped with \(exit) before the end, at \(hex(state?.general.rip ?? 0)) with rax \(hex(state?.general.rax ?? 0))")
        }
        return try vcpu.state()
    }
}
