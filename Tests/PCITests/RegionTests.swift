import Synchronization
import Testing
import VMCore
import MonitorTesting

@testable import PCI

@Suite struct RegionTests {
    private static let end = PCIBus.windowBase + PCIBus.windowSize

    @Test func everyRegionHasAnAddressOfItsOwn() throws {
        let functions = (0..<31).map { index in
            TestFunction(
                bars: [
                    BaseAddressRegister(index: 0, size: 16 << UInt64(index % 12), is64Bit: true),
                    BaseAddressRegister(index: 3, size: 0x4000),
                ], sink: RecordingMessages())
        }
        let bus = try PCIBus(functions)
        var taken: [(UInt64, UInt64)] = []
        for (index, function) in functions.enumerated() {
            #expect(bus.read(device: index + 1, 0x04, .word) & 2 == 2)
            for bar in function.configuration.bars {
                let base = bus.address(device: index + 1, bar: bar.index)
                #expect(base % bar.size == 0 && base >= PCIBus.windowBase && base + bar.size <= Self.end)
                #expect(taken.allSatisfy { base + bar.size <= $0.0 || base >= $0.1 })
                taken.append((base, base + bar.size))
            }
        }
        // Each function is reached at its own address and nowhere else.
        for (index, function) in functions.enumerated() {
            bus.memory.write(bus.address(device: index + 1, bar: 3) + 0x3FF8, width: .quad, value: UInt64(index))
            #expect(function.take() == [.init(bar: 3, offset: 0x3FF8, width: .quad, value: UInt64(index))])
        }
        #expect(functions.allSatisfy { $0.take().isEmpty })
    }

    @Test func whatDoesNotFitIsRefused() throws {
        #expect(throws: PCIError.tooManyFunctions(count: 32)) { try PCIBus((0..<32).map { _ in TestFunction(bars: []) }) }
        #expect(try PCIBus((0..<31).map { _ in TestFunction(bars: []) }).bridge.functions.count == 32)
        let large = BaseAddressRegister(index: 0, size: PCIBus.windowSize)
        _ = try PCIBus([TestFunction(bars: [large])])
        #expect(throws: PCIError.windowFull(size: PCIBus.windowSize)) {
            try PCIBus([TestFunction(bars: [large]), TestFunction()])
        }
        #expect(throws: PCIError.windowFull(size: PCIBus.windowSize)) {
            try PCIBus([TestFunction(bars: [BaseAddressRegister(index: 0, size: 1 << 63, is64Bit: true)])])
        }
        for (base, size) in [(0, 0), (0xFFFF_F000, 0x2000), (.max, 1), (.max, 2), (1 << 32, 1)] as [(UInt64, UInt64)] {
            #expect(throws: PCIError.badWindow(base: base, size: size)) { try PCIWindow(base: base, size: size) }
        }
        #expect(try PCIWindow(base: 0xFFFF_F000, size: 0x1000).last == 0xFFFF_FFFF)
    }

    @Test func accessesReachTheRegionWhereverItIs() throws {
        let function = TestFunction()
        let bus = try PCIBus([function])
        let first = bus.address(device: 1, bar: 0)
        #expect(bus.memory.read(first + 3, width: .long) == 0x4433_2211)
        #expect(function.take() == [.init(bar: 0, offset: 3, width: .long)])
        bus.write(device: 1, 0x10, .long, 0xD080_0000)
        #expect(bus.memory.read(first, width: .long) == 0xFFFF_FFFF)
        bus.memory.write(first, width: .long, value: 1)
        #expect(function.take().isEmpty)
        bus.memory.write(0xD080_0FFF, width: .byte, value: 0x1FF)
        #expect(function.take() == [.init(bar: 0, offset: 0xFFF, width: .byte, value: 0xFF)])
        // A part that is in the region reaches it, the rest is nobody's.
        #expect(bus.memory.read(0xD080_0FFE, width: .long) == 0xFFFF_2211)
        bus.memory.write(0xD080_0FFE, width: .long, value: 0xAABB_CCDD)
        #expect(
            function.take() == [
                .init(bar: 0, offset: 0xFFE, width: .word), .init(bar: 0, offset: 0xFFE, width: .word, value: 0xCCDD),
            ])
        bus.memory.write(0xD07F_FFFF, width: .word, value: 0xEE11)
        #expect(function.take() == [.init(bar: 0, offset: 0, width: .byte, value: 0xEE)])
    }

    @Test func memoryEnableIsHonoured() throws {
        let function = TestFunction(sink: RecordingMessages())
        let bus = try PCIBus([function])
        let (region, table) = (bus.address(device: 1, bar: 0), bus.address(device: 1, bar: 5))
        bus.write(device: 1, 0x04, .word, 0)
        #expect(bus.memory.read(region, width: .quad) == .max)
        #expect(bus.memory.read(table + 12, width: .long) == 0xFFFF_FFFF)
        #expect(function.take().isEmpty)
        bus.write(device: 1, 0x04, .byte, 2)
        #expect(bus.memory.read(region, width: .quad) == 0x8877_6655_4433_2211)
        #expect(bus.memory.read(table + 12, width: .long) == 1)
    }

    /// Wherever a guest moves a region, nothing but the guest is hurt.
    @Test(arguments: [0, 0x1000, 0xCFFF_F000, 0xD100_0000, 0xFEC0_0000, 0xFEE0_0000, 0xFFFF_F000] as [UInt32])
    func illegalPlaces(address: UInt32) throws {
        let (moved, other) = (TestFunction(), TestFunction())
        let bus = try PCIBus([moved, other])
        bus.write(device: 1, 0x10, .long, address)
        #expect(bus.read(device: 1, 0x10, .long) == address)
        bus.memory.write(UInt64(address), width: .long, value: 1)
        #expect(moved.take().isEmpty)
        bus.memory.write(bus.address(device: 2, bar: 0), width: .long, value: 1)
        #expect(other.take().count == 1)
    }

    @Test func aRegionAbove4GiBIsNowhere() throws {
        let function = TestFunction(bars: [BaseAddressRegister(index: 0, size: 0x1000, is64Bit: true)])
        let bus = try PCIBus([function])
        let base = bus.address(device: 1, bar: 0)
        bus.write(device: 1, 0x14, .long, 1)
        #expect(bus.memory.read(base, width: .byte) == 0xFF)
        bus.write(device: 1, 0x14, .long, .max)
        bus.write(device: 1, 0x10, .long, .max)
        #expect(bus.memory.read(.max, width: .quad) == .max)
        #expect(function.take().isEmpty)
    }

    @Test func overlappingRegionsHaveAnOrder() throws {
        let functions = [TestFunction(), TestFunction(bars: [BaseAddressRegister(index: 0, size: 0x4000)]), TestFunction()]
        let bus = try PCIBus(functions)
        bus.write(device: 2, 0x10, .long, 0xD040_0000)
        bus.write(device: 1, 0x10, .long, 0xD040_1000)
        bus.write(device: 3, 0x10, .long, 0xD040_2000)
        func reached(_ address: UInt64) -> [Int] {
            bus.memory.write(address, width: .byte, value: 0)
            return functions.indices.filter { !functions[$0].take().isEmpty }
        }
        #expect(reached(0xD040_0FFF) == [1])
        #expect(reached(0xD040_1000) == [0])
        #expect(reached(0xD040_2000) == [1])
        #expect(reached(0xD040_3000) == [1])
        bus.write(device: 2, 0x04, .word, 0)
        #expect(reached(0xD040_0FFF) == [])
        #expect(reached(0xD040_2000) == [2])
    }

    /// The map against a search of the plain list.
    @Test func mapFindsWhatAPlainSearchFinds() {
        var random = SeededRandom(seed: 1)
        for round in 0..<300 {
            var entries: [DecodeMap.Entry] = []
            for index in 0..<random.below(12) {
                let size: UInt64 = 16 << UInt64(random.below(5))
                let base = UInt64(random.below(64)) * 64 & ~(size - 1)
                entries.append(.init(base: base, last: base + size - 1, device: index / 2, bar: index % 2))
            }
            let map = DecodeMap(entries.shuffled(using: &random))
            for address in stride(from: UInt64(0), to: 4400, by: 7) {
                let wanted = entries.filter { $0.base <= address && address <= $0.last }.min {
                    ($0.device, $0.bar) < ($1.device, $1.bar)
                }
                #expect(map.find(address) == wanted, "round \(round), \(address)")
            }
        }
    }

    /// A handler may use the bridge: nothing is locked while it runs.
    @Test func handlersRunUnlocked() throws {
        let function = TestFunction(sink: RecordingMessages())
        let bus = try PCIBus([function])
        let bridge = bus.bridge
        let base = bus.address(device: 1, bar: 0)
        let depth = Mutex(0)
        function.onAccess.withLock {
            $0 = {
                guard
                    depth.withLock({
                        $0 += 1
                        return $0
                    }) < 4
                else { return }
                bridge.writeConfiguration(device: 1, offset: 4, width: .word, value: 0)
                bridge.writeConfiguration(device: 1, offset: 4, width: .word, value: 2)
                _ = bridge.readMemory(base, width: .long)
            }
        }
        #expect(bus.memory.read(base, width: .long) == 0x4433_2211)
        #expect(function.take().count == 4)
    }
}

@Suite struct DoorbellTests {
    private final class Observer: DoorbellObserver {
        let log = Mutex<[(device: Int, old: DoorbellRange?, new: DoorbellRange?)]>([])
        func doorbellsMoved(of function: any PCIFunction, device: Int, from old: DoorbellRange?, to new: DoorbellRange?) {
            log.withLock { $0.append((device, old, new)) }
        }
        func take() -> [(device: Int, old: DoorbellRange?, new: DoorbellRange?)] {
            log.withLock { log in
                defer { log = [] }
                return log
            }
        }
    }

    private static let region = DoorbellRegion(bar: 0, offset: 0x800, stride: 4, count: 8)

    private func range(_ base: UInt64) -> DoorbellRange { DoorbellRange(base: GuestAddress(base + 0x800), stride: 4, count: 8) }

    @Test func observerHearsOfEveryChange() throws {
        let observer = Observer()
        let bus = try PCIBus([TestFunction(), TestFunction(doorbells: Self.region)], observer: observer)
        let first = range(bus.address(device: 2, bar: 0))
        func expect(_ old: DoorbellRange?, _ new: DoorbellRange?, _ line: Int = #line) {
            let log = observer.take()
            #expect(log.count == 1 && log.first?.device == 2 && log.first?.old == old && log.first?.new == new, "line \(line)")
        }
        expect(nil, first)  // with its first address
        #expect(first[3].rawValue == first.base.rawValue + 12)
        bus.write(device: 2, 0x04, .word, 0)
        expect(first, nil)
        bus.write(device: 2, 0x10, .long, 0xD0A0_0000)
        #expect(observer.take().isEmpty)  // moved while it is off
        bus.write(device: 2, 0x04, .word, 2)
        expect(nil, range(0xD0A0_0000))
        bus.write(device: 2, 0x04, .word, 0x0406)
        #expect(observer.take().isEmpty)  // other bits change nothing
        bus.write(device: 2, 0x10, .long, 0xD0B0_0000)
        expect(range(0xD0A0_0000), range(0xD0B0_0000))
        // Outside the window there may be memory, or another device.
        for place in [0xFEC0_0000, 0x1000, 0xD100_0000, .max] as [UInt32] {
            bus.write(device: 2, 0x10, .long, place)
            expect(range(0xD0B0_0000), nil)
            bus.write(device: 2, 0x10, .long, 0xD0B0_0000)
            expect(nil, range(0xD0B0_0000))
        }
        // Where another's region is, the address may not be this function's.
        bus.write(device: 1, 0x10, .long, 0xD0B0_0000)
        expect(range(0xD0B0_0000), nil)
        bus.write(device: 1, 0x04, .word, 0)
        expect(nil, range(0xD0B0_0000))
    }

    /// A region that is only partly in the window: its doorbells count where they are.
    @Test func atTheWindowsEdge() throws {
        let observer = Observer()
        let functions = [0, 0x1800].map { offset in
            TestFunction(
                bars: [BaseAddressRegister(index: 0, size: 0x2000)],
                doorbells: DoorbellRegion(bar: 0, offset: offset, stride: 4, count: 8))
        }
        for (device, function) in functions.enumerated() {
            let bridge = try PCIHostBridge(
                [function], window: PCIWindow(base: 0xD000_1000, size: 0x4000), observer: observer)
            #expect(observer.take().last?.new != nil)
            bridge.writeConfiguration(device: 1, offset: 0x10, width: .long, value: 0xD000_0000)
            #expect(observer.take().last?.new?.base.rawValue == (device == 0 ? nil : 0xD000_1800))
            #expect(bridge.readMemory(0xD000_1000, width: .byte) == 0x8877_6655_4433_2211)
            #expect(function.take().last == .init(bar: 0, offset: 0x1000, width: .byte))
            bridge.writeConfiguration(device: 1, offset: 0x10, width: .long, value: 0xD000_4000)
            #expect(observer.take().last?.new?.base.rawValue == (device == 0 ? 0xD000_4000 : nil))
        }
    }

    @Test func nobodyIsToldOfNoDoorbells() throws {
        let observer = Observer()
        _ = try PCIBus(
            [TestFunction(), TestFunction(doorbells: DoorbellRegion(bar: 0, offset: 0, stride: 4, count: 0))],
            observer: observer)
        #expect(observer.take().isEmpty)
    }
}
