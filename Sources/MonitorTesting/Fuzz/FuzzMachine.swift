internal import SoftCPU
internal import Synchronization
internal import VMCore

/// What fuzz cases run on: an interpreter with little RAM, noisy devices, and one vCPU that goes from case to case.
///
/// ```
/// physical  0x01000 PML4            0x08000 GDT            0x10000 code, two pages
///           0x02000 PDPT of 4 levels 0x09000 IDT           0x12000 data, two pages
///           0x03000 PD              0x0A000 TSS, I/O map   0x14000 stack
///           0x04000 PT, 2 MiB       0x0B000 LDT, more TSSs 0x15000 handlers
///           0x05000 PDPT of PAE     0x06000, 0x07000 PD and PT of 32-bit paging
///           0xD0000000 a device
/// ```
@safe final class FuzzMachine {
    enum Page {
        static let root: UInt64 = 0x1000, pointers: UInt64 = 0x2000, directory: UInt64 = 0x3000, table: UInt64 = 0x4000
        static let paePointers: UInt64 = 0x5000, directory32: UInt64 = 0x6000, table32: UInt64 = 0x7000
        static let gdt: UInt64 = 0x8000, idt: UInt64 = 0x9000, tss: UInt64 = 0xA000, ldt: UInt64 = 0xB000
        static let code: UInt64 = 0x10000, data: UInt64 = 0x12000, stack: UInt64 = 0x14000, handlers: UInt64 = 0x15000
        /// Bytes that every case writes anew.
        static let end: UInt64 = 0x16000
        static let device: UInt64 = 0xD000_0000
        static let local: UInt64 = 0xFEE0_0000
    }

    let memory: GuestMemory
    let cpu: SoftVCPU
    let hasLocalAPIC: Bool
    private let engine: SoftEngine
    private let devices: [NoisyDevice]

    /// - Parameters:
    ///   - size: bytes of RAM; above 3 GiB the rest lies above the hole.
    ///   - hasLocalAPIC: also makes HLT wait, so that a case that halts ends by the watchdog's kick.
    init(size: UInt64, hasLocalAPIC: Bool, seed: UInt64) throws {
        memory = try GuestMemory(size: size)
        self.hasLocalAPIC = hasLocalAPIC
        let clock = InstructionClock()
        engine = try SoftEngine(
            memory: memory, vcpuCount: 1, alarms: hasLocalAPIC ? clock : nil, instructionClock: clock)
        devices = [NoisyDevice(seed: seed), NoisyDevice(seed: ~seed)]
        var ports = BusMap()
        var mmio = BusMap()
        try ports.add(devices[0], name: "ports", base: 0, count: 0xF000, widest: .long)
        try mmio.add(devices[1], name: "device", base: Page.device, count: 0x10_0000, widest: .quad)
        engine.connect(ports: Bus(ports), mmio: Bus(mmio))
        cpu = try engine.makeSoftVCPU(index: 0)
    }

    func write(_ bytes: [UInt8], at address: UInt64) throws { try memory.write(bytes, at: GuestAddress(address)) }
}

/// A device whose registers answer something else each time, the same in every run.
final class NoisyDevice: BusDevice {
    private let state: Atomic<UInt64>

    init(seed: UInt64) { state = Atomic(seed) }

    func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        let count = state.wrappingAdd(0x9E37_79B9_7F4A_7C15, ordering: .relaxed).newValue
        let mixed = (count ^ count &>> 29) &* 0xBF58_476D_1CE4_E5B9
        // Half of the time something that is a page-table entry or an offset in RAM.
        return (mixed &>> 62 == 0 ? mixed & 0x1F_F067 : mixed) & width.mask
    }

    func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        _ = state.wrappingAdd(value ^ offset, ordering: .relaxed)
    }
}
