// What one exit costs: a guest that does nothing but access one device, run by the engine as every guest is.
//
//   exits pio|mmio COUNT
//
// Prints nanoseconds an exit, from one arrival at the device to the next. bare.c is the same around KVM_RUN alone.
import Glibc
import KVM
import VMCore

/// Counts accesses, takes the time of the first and the last that count, and ends the run.
final class Meter: BusDevice, @unchecked Sendable {
    static let warmUp = 2000
    let count: Int
    var seen = 0
    var start: UInt64 = 0
    var end: UInt64 = 0
    var kicker: (any VCPUKicker)?

    init(count: Int) { self.count = count }

    static func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    func read(offset: UInt64, width: AccessWidth) -> UInt64 { 0 }

    func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        seen += 1
        if seen == Self.warmUp { start = Self.now() }
        if seen == Self.warmUp + count {
            end = Self.now()
            kicker?.kick()
        }
    }
}

/// A neighbour on the bus, so that finding the device is the work it is in a machine.
final class Neighbour: BusDevice {
    func read(offset: UInt64, width: AccessWidth) -> UInt64 { width.mask }
    func write(offset: UInt64, width: AccessWidth, value: UInt64) {}
}

@main struct Exits {
    static func main() throws {
        let words = CommandLine.arguments
        guard words.count == 3, ["pio", "mmio"].contains(words[1]), let count = Int(words[2]), count > 0 else {
            print("usage: exits pio|mmio COUNT")
            exit(64)
        }
        let memory = try GuestMemory(size: 1 << 20)
        let engine = try KVMEngine(system: KVMSystem(), memory: memory, vcpuCount: 1)
        let meter = Meter(count: count)
        var ports = BusMap()
        // The ports of a machine: Sources/Machine/AddressMap.swift.
        for base in [0x60, 0x64, 0x70, 0x80, 0xE9, 0xF4, 0x3F8, 0x600, 0xCF9] as [UInt64] {
            try ports.add(Neighbour(), name: "neighbour", base: base, count: 1, widest: .byte)
        }
        try ports.add(meter, name: "meter", base: 0x300, count: 1, widest: .byte)
        var mmio = BusMap()
        try mmio.add(meter, name: "meter", base: 0x10_0000, count: 0x1000, widest: .quad)
        try mmio.add(Neighbour(), name: "neighbour", base: 0xFEC0_0000, count: 0x1000, widest: .long)
        engine.connect(ports: Bus(ports), mmio: Bus(mmio))

        // Real mode: out %al, %dx; jmp back. Or: mov %al, (%bx); jmp back, where DS:BX is the first byte past RAM.
        let code: [UInt8] = words[1] == "pio" ? [0xEE, 0xEB, 0xFD] : [0x88, 0x07, 0xEB, 0xFC]
        try memory.write(code, at: GuestAddress(0x1000))
        let vcpu = try engine.makeVCPU(index: 0)
        var state = try vcpu.state()
        state.system.cs.selector = 0
        state.system.cs.base = 0
        state.system.ds.selector = 0xFFFF
        state.system.ds.base = 0xFFFF0
        state.general.rip = 0x1000
        state.general.rbx = 0x10
        state.general.rdx = 0x300
        try vcpu.setEntry(general: state.general, system: state.system)
        meter.kicker = vcpu.kicker
        let exit = vcpu.run()
        guard exit == .kicked, meter.end > meter.start else {
            print("the guest stopped: \(exit)")
            Glibc.exit(1)
        }
        print(Double(meter.end - meter.start) / Double(count))
    }
}
