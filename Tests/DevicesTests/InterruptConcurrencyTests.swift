import Devices
import Synchronization
import Testing
import VMCore
import MonitorTesting

private final class CountingSink: InterruptMessageSink {
    let count = Atomic<Int>(0)
    func send(_ message: InterruptMessage) { count.add(1, ordering: .relaxed) }
}

/// Device threads drive lines while vCPUs acknowledge, end and reprogram: nothing may deadlock or lose a level.
@Suite struct InterruptConcurrencyTests {
    @Test func linesAndRegistersFromManyThreads() async {
        let intr = RecordingLine()
        let pair = InterruptControllerPair(intr: intr)
        for (device, base, icw3): (any BusDevice, UInt64, UInt64) in [(pair.master, 0x30, 4), (pair.slave, 0x38, 2)] {
            for (offset, value): (UInt64, UInt64) in [(0, 0x11), (1, base), (1, icw3), (1, 1), (1, 0)] {
                device.write(offset: offset, width: .byte, value: value)
            }
        }
        let sink = CountingSink()
        let ioapic = IOAPICDevice(sink: sink)
        for input in UInt64(0)..<24 {
            ioapic.write(offset: 0, width: .long, value: 0x10 + 2 * input)
            ioapic.write(offset: 0x10, width: .long, value: 0x8030 + input)
        }
        await withTaskGroup(of: Void.self) { group in
            for irq in UInt32(3)..<8 {
                let line = FanOutLine([pair.line(irq: irq), ioapic.line(gsi: irq)])
                group.addTask {
                    for _ in 0..<2000 { line.pulse() }
                    line.setLevel(true)
                }
            }
            group.addTask {
                for round in 0..<10_000 {
                    if pair.isPending { _ = pair.acknowledge() }
                    pair.master.write(offset: 0, width: .byte, value: 0x20)
                    ioapic.endOfInterrupt(vector: UInt8(0x30 + round % 24))
                }
            }
        }
        // All inputs ended high and everything is ended: each must be heard of once more, and then no more.
        for _ in 0..<16 {
            if pair.isPending { _ = pair.acknowledge() }
            pair.master.write(offset: 0, width: .byte, value: 0x20)
        }
        #expect(!pair.isPending && !intr.isHigh)
        for irq in UInt8(3)..<8 { ioapic.endOfInterrupt(vector: 0x30 + irq) }
        let before = sink.count.load(ordering: .relaxed)
        for irq in UInt8(3)..<8 { ioapic.endOfInterrupt(vector: 0x30 + irq) }
        #expect(sink.count.load(ordering: .relaxed) == before + 5)
    }
}
