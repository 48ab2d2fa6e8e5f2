import PCI
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// A guest that writes anything into a virtio function, by every way there is to it: nothing traps, and after a reset the
/// device is of use again.
@Suite struct PCIHostileTests {
    @Test(arguments: [1, 2, 3, 4] as [UInt64], [true, false]) func anythingAnywhere(seed: UInt64, usesMessages: Bool) throws {
        var random = SeededRandom(seed: seed)
        let memory = try GuestMemory(size: 4 << 20)
        let events = ManualEvents()
        let pci = try PCIDriver(device: EntropyDevice(events: events), memory: memory, usesMessages: usesMessages)
        let base = pci.bus.address(device: 1, bar: 0)
        let table = pci.bus.address(device: 1, bar: 1)
        let interesting: [UInt64] = [
            0, 1, 2, 3, 4, 7, 8, 11, 15, 63, 64, 65, 0x7FFF, 0x8000, 0xC000, 0xFFFF, 0x1_0000, 0x10_0000, 0x3F_FFFF,
            0x7FFF_FFFF,
            0xFFFF_FFF0, 0xFFFF_FFFF, 1 << 63, .max,
        ]
        for step in 0..<12_500 {
            let width = AccessWidth.allCases[random.below(4)]
            let value = random.oneIn(4) ? random.next() : interesting[random.below(interesting.count)]
            let isWrite = !random.oneIn(3)
            let place: UInt64 =
                switch random.below(12) {
                case 0..<6: base + UInt64(random.below(0x40))  // common configuration
                case 6: base + UInt64(random.below(0x4010))
                case 7: base + 0x3000 + UInt64(random.below(16))
                case 8: table + UInt64(random.below(0x48))
                case 9: table + UInt64(random.below(0x1010))
                case 10: PCIBus.ecamBase + 1 << 15 + UInt64(random.below(0x100))
                default: PCIBus.ecamBase + 1 << 15 + pci.accessCapability + UInt64(random.below(20))
                }
            if isWrite {
                pci.bus.memory.write(place, width: width, value: value)
            } else {
                _ = pci.bus.memory.read(place, width: width)
            }
            // A bring-up as a driver would do it is in between, or the device would hardly ever run.
            if random.oneIn(64) {
                for status in [1, 3, 11, 15] as [UInt64] {
                    pci.writeCommon(0x14, .byte, status)
                    if status == 3 { pci.writeFeatures(random.oneIn(2) ? .version1 : [.version1, .packedRing, .eventIndex]) }
                    if status == 11 {
                        pci.writeCommon(0x16, .word, 0)
                        pci.writeCommon(0x1C, .word, 1)
                    }
                }
            }
            if random.oneIn(256) { pci.writeStatus([]) }
            // Regions stay where they are for the most part.
            if step % 64 == 0 {
                pci.write(0x10, .long, UInt32(base))
                pci.write(0x14, .long, UInt32(table))
                pci.write(0x04, .word, 6)
            }
            if step % 16 == 0 { #expect(events.run(limit: 64) < 64, "the device does not come to rest") }
            if step % 512 == 0 { _ = pci.messages.take() }
        }

        pci.write(0x10, .long, UInt32(base))
        pci.write(0x14, .long, UInt32(table))
        pci.write(0x04, .word, 6)
        // Wired interrupts, whatever became of the messages.
        pci.write(try #require(pci.messageCapability) + 2, .word, 0)
        let driver = MockDriver(pci, memory: memory)
        #expect(driver.start([]))
        events.run()
        try driver.queues[0].add(writable: [64])
        try driver.queues[0].kick()
        events.run()
        #expect(try driver.queues[0].completions().map(\.written) == [64])
        #expect(pci.line.isHigh)
        #expect(pci.bus.memory.read(pci.interruptStatus, width: .byte) & 1 == 1)
    }

    /// The driver resets and sets up again while another processor rings and unmasks.
    @Test func severalProcessors() async throws {
        let memory = try GuestMemory(size: 4 << 20)
        let events = ManualEvents()
        let messages = RecordingMessages()
        let transport = PCITransport(
            device: EntropyDevice(events: events), memory: memory, line: RecordingLine(), messages: messages)
        let bridge = try PCIHostBridge([transport], window: PCIWindow(base: PCIBus.windowBase, size: PCIBus.windowSize))
        let window = RegionWindow(bridge: bridge)
        let (common, table) = (UInt64(0), UInt64(0x4000))
        await withTaskGroup(of: Void.self) { group in
            group.addTask {
                for round in 0..<500 {
                    for status in [0, 1, 3, 11, 15] as [UInt64] {
                        window.write(offset: common + 0x14, width: .byte, value: status)
                        if status == 3 {
                            window.write(offset: common + 0x08, width: .long, value: 1)
                            window.write(offset: common + 0x0C, width: .long, value: 1)
                        }
                        if status == 11 {
                            for (field, address) in [(0x20, 0x1000), (0x28, 0x2000), (0x30, 0x3000)] as [(UInt64, UInt64)] {
                                window.write(offset: common + field, width: .long, value: address)
                            }
                            window.write(offset: common + 0x1C, width: .word, value: 1)
                        }
                    }
                    if round % 16 == 0 { _ = messages.take() }
                }
            }
            group.addTask {
                for round in 0..<5000 {
                    window.write(offset: 0x3000, width: .word, value: 0)
                    window.write(offset: table + 12, width: .long, value: UInt64(round & 1))
                    _ = window.read(offset: 0x1000, width: .byte)
                }
            }
            group.addTask { for _ in 0..<2000 { events.turn() } }
        }
        transport.reset()
        #expect(transport.registers.status == [])
    }
}
