import Synchronization
import Testing
import VMCore
import MonitorTesting

@testable import PCI

/// A guest that writes anything anywhere: nothing traps, what is told of doorbells stays true, and the bus is of use
/// afterwards.
@Suite struct HostileAccessTests {
    private final class Follower: DoorbellObserver {
        let current = Mutex<[Int: DoorbellRange]>([:])
        let mistakes = Mutex(0)
        func doorbellsMoved(of function: any PCIFunction, device: Int, from old: DoorbellRange?, to new: DoorbellRange?) {
            current.withLock { current in
                if current[device] != old || old == new { mistakes.withLock { $0 += 1 } }
                current[device] = new
            }
        }
    }

    @Test(arguments: [1, 2, 3] as [UInt64]) func anythingAnywhere(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let (sink, line, follower) = (RecordingMessages(), RecordingLine(), Follower())
        let functions = [
            TestFunction(line: line, sink: sink, doorbells: DoorbellRegion(bar: 0, offset: 0x100, stride: 4, count: 4)),
            TestFunction(
                bars: [BaseAddressRegister(index: 0, size: 0x10_0000, is64Bit: true), BaseAddressRegister(index: 2, size: 16)],
                line: line, sink: sink, vectorCount: 2048, doorbells: DoorbellRegion(bar: 2, offset: 0, stride: 2, count: 8)),
            TestFunction(bars: []),
        ]
        let port = BytePort()
        let bus = try PCIBus(functions, resetControl: port, observer: follower)
        let interesting: [UInt64] = [
            0, 1, 2, 6, 0x8000, 0xC000, 0xFFFF, 0xD000_0000, 0xD000_1000, 0xFEE0_0000, 0xFFFF_FFFF, .max,
        ]
        for step in 0..<34_000 {
            let width = AccessWidth.allCases[random.below(4)]
            let value = random.oneIn(2) ? interesting[random.below(interesting.count)] : random.next()
            let isWrite = random.oneIn(2)
            switch random.below(4) {
            case 0:
                let port = 0xCF0 + UInt64(random.below(24))
                if isWrite {
                    let target = 1 << 31 | UInt64(random.below(5)) << 11 | UInt64(random.below(64)) << 2
                    bus.ports.write(port, width: width, value: port == 0xCF8 && random.oneIn(2) ? target : value)
                } else {
                    #expect(bus.ports.read(port, width: width) & ~width.mask == 0)
                }
            case 1:
                // Mostly registers that are there.
                let register = random.oneIn(4) ? UInt64(random.below(0x1000)) : UInt64(random.below(0x80))
                let place = PCIBus.ecamBase + UInt64(random.below(random.oneIn(8) ? 32 : 4)) << 15 + register
                if isWrite {
                    bus.memory.write(place, width: width, value: value)
                } else {
                    _ = bus.memory.read(place, width: width)
                }
            case 2:
                let place = PCIBus.windowBase &- 8 &+ UInt64(random.below(Int(PCIBus.windowSize) + 16))
                if isWrite {
                    bus.memory.write(place, width: width, value: value)
                } else {
                    _ = bus.memory.read(place, width: width)
                }
            default:
                // Where a region is at this moment, and around its edges.
                let device = 1 + random.below(2)
                let bar = [0, 2, 5][random.below(3)]
                let place = bus.address(device: device, bar: bar) &+ UInt64(random.below(0x1_0010)) &- 8
                if isWrite {
                    bus.memory.write(place, width: width, value: value)
                } else {
                    _ = bus.memory.read(place, width: width)
                }
            }
            if random.oneIn(8) { _ = functions[random.below(3)].configuration.raise(vector: random.below(4096) - 4) }
            if random.oneIn(8) { functions[random.below(3)].configuration.setInterrupt(random.oneIn(2)) }
            if step % 4096 == 0 {
                _ = sink.take()
                for function in functions { _ = function.take() }
            }
        }
        #expect(follower.mistakes.withLock { $0 } == 0)

        // A sane driver finds everything in its place.
        for function in functions { _ = function.take() }
        for device in 1...3 { bus.write(device: device, 0x04, .word, 0) }
        #expect(follower.current.withLock { $0.isEmpty })
        bus.write(device: 1, 0x10, .long, 0xD000_4000)
        bus.write(device: 1, 0x04, .word, 2)
        #expect(bus.read(device: 1, 0x00, .long) == 0x5678_1234)
        #expect(bus.capabilities(device: 1).map(\.identifier) == [0x09, 0x11])
        bus.memory.write(0xD000_4010, width: .long, value: 5)
        #expect(functions[0].take().last == .init(bar: 0, offset: 0x10, width: .long, value: 5))
        #expect(follower.current.withLock { $0[1]?.base.rawValue } == 0xD000_4100)
    }

    /// Several vCPUs at once, moving regions and using them.
    @Test func severalThreads() async throws {
        let follower = Follower()
        let functions = (0..<4).map { _ in
            TestFunction(sink: RecordingMessages(), doorbells: DoorbellRegion(bar: 0, offset: 0, stride: 4, count: 4))
        }
        let bridge = try PCIHostBridge(
            functions, window: PCIWindow(base: PCIBus.windowBase, size: PCIBus.windowSize), observer: follower)
        await withTaskGroup(of: Void.self) { group in
            for thread in 0..<4 {
                group.addTask {
                    var random = SeededRandom(seed: UInt64(thread))
                    for _ in 0..<3000 {
                        let device = 1 + random.below(4)
                        bridge.writeConfiguration(device: device, offset: 4, width: .word, value: UInt64(random.below(8)))
                        bridge.writeConfiguration(
                            device: device, offset: 0x10, width: .long,
                            value: PCIBus.windowBase + UInt64(random.below(16)) << 12)
                        bridge.writeMemory(PCIBus.windowBase + UInt64(random.below(0x1_0000)), width: .long, value: 0)
                    }
                }
            }
        }
        #expect(follower.mistakes.withLock { $0 } == 0)
        // The last word is what the registers say.
        for device in 1...4 { bridge.writeConfiguration(device: device, offset: 4, width: .word, value: 0) }
        #expect(follower.current.withLock { $0.isEmpty })
    }
}
