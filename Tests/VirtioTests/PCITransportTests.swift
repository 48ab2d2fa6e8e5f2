import PCI
import Synchronization
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// A device of no type's own behaviour: it remembers its session, and its configuration is a test's to change.
private final class PlainDevice: VirtioDevice {
    let kind: DeviceKind
    let features: FeatureSet = [.common, FeatureSet(bit: 5)]
    let queueSizes: [UInt16]
    struct State {
        var configuration: [UInt8]
        var session: DeviceSession?
        var notified: [Int] = []
        var writes: [UInt64] = []
        var starts = 0
        var stops = 0
    }
    let state: Mutex<State>

    init(kind: DeviceKind = .block, queueSizes: [UInt16] = [64, 256, 8], configuration: [UInt8] = Array(1...12)) {
        self.kind = kind
        self.queueSizes = queueSizes
        state = Mutex(State(configuration: configuration))
    }

    func configuration() -> [UInt8] { state.withLock { $0.configuration } }
    func writeConfiguration(offset: UInt64, width: AccessWidth, value: UInt64) {
        state.withLock { $0.writes += [offset, width.bytes, value] }
    }
    func start(_ session: DeviceSession) { state.withLock { ($0.session, $0.starts) = (session, $0.starts + 1) } }
    func notify(queue: Int) { state.withLock { $0.notified.append(queue) } }
    func stop() { state.withLock { ($0.session, $0.stops) = (nil, $0.stops + 1) } }

    func takeNotified() -> [Int] {
        state.withLock { state in
            defer { state.notified = [] }
            return state.notified
        }
    }
    func change(_ index: Int, to value: UInt8, _ registers: DeviceRegisters) {
        state.withLock { $0.configuration[index] = value }
        registers.signal.configurationChanged()
    }
}

private struct Rig {
    let memory: GuestMemory
    let device: PlainDevice
    let pci: PCIDriver
    let driver: MockDriver

    init(_ device: PlainDevice = PlainDevice(), usesMessages: Bool = true) throws {
        memory = try GuestMemory(size: 4 << 20)
        self.device = device
        pci = try PCIDriver(device: device, memory: memory, usesMessages: usesMessages)
        driver = MockDriver(pci, memory: memory)
    }

    func select(_ queue: UInt64) { pci.writeCommon(0x16, .word, queue) }
    /// As a device that has completed a buffer of a queue.
    func signal(_ queue: Int) { device.state.withLock { $0.session }?.signal.target.bufferUsed(queue: queue) }
}

@Suite struct PCITransportTests {
    // MARK: Discovery

    @Test(arguments: DeviceKind.allCases) func identity(kind: DeviceKind) throws {
        let pci = try Rig(PlainDevice(kind: kind)).pci
        #expect(pci.read(0x00, .long) == 0x1AF4 | (0x1040 + kind.rawValue) << 16)
        #expect(pci.read(0x2C, .word) == 0x1AF4)
        #expect(pci.read(0x2E, .word) >= 0x40)
        #expect(pci.read(0x08, .byte) >= 1)
        let classCodes: [DeviceKind: UInt32] = [
            .block: 0x01_80_00, .net: 0x02_00_00, .console: 0x07_80_00, .entropy: 0x00_FF_00,
        ]
        if let wanted = classCodes[kind] { #expect(pci.read(0x08, .long) >> 8 == wanted) }
    }

    @Test func structuresLieInTheirRegion() throws {
        let pci = try Rig().pci
        var kinds: [UInt32: (offset: UInt32, length: UInt32)] = [:]
        for (identifier, place) in pci.bus.capabilities(device: 1) where identifier == 0x09 {
            let kind = pci.read(place + 3, .byte)
            #expect(kinds[kind] == nil)
            kinds[kind] = (pci.read(place + 8, .long), pci.read(place + 12, .long))
            #expect(pci.read(place + 2, .byte) == (kind == 2 || kind == 5 ? 20 : 16))
            #expect(pci.read(place + 4, .byte) == 0)
            // Read-only but for the one that a driver points.
            if kind != 5 {
                pci.write(place + 8, .long, .max)
                #expect(pci.read(place + 8, .long) == kinds[kind]?.offset)
            }
        }
        #expect(Set(kinds.keys) == [1, 2, 3, 4, 5])
        #expect(kinds.values.allSatisfy { $0.offset + $0.length <= 0x4000 })
        #expect(try #require(kinds[1]).offset % 4 == 0 && kinds[4]!.offset % 4 == 0 && kinds[2]!.offset % 4 == 0)
        #expect(kinds[1]!.length == 56 && kinds[4]!.length == 12 && kinds[3]!.length >= 1)
        #expect(kinds[2]!.length == 3 * 4 && pci.notifyMultiplier == 4)
    }

    @Test func aDeviceWithoutConfigurationHasNoCapabilityForIt() throws {
        let rig = try Rig(PlainDevice(kind: .entropy, queueSizes: [64], configuration: []))
        #expect(rig.pci.deviceConfiguration == nil)
        #expect(rig.driver.start([]))
    }

    // MARK: Common configuration

    @Test func featuresInWindows() throws {
        let rig = try Rig()
        let pci = rig.pci
        #expect(pci.readFeatures() == rig.device.features)
        for window in [2, 3, 0x8000_0000, 0xFFFF_FFFF] as [UInt64] {
            pci.writeCommon(0x00, .long, window)
            pci.writeCommon(0x08, .long, window)
            #expect(pci.readCommon(0x00, .long) == window && pci.readCommon(0x08, .long) == window)
            #expect(pci.readCommon(0x04, .long) == 0)
            pci.writeCommon(0x0C, .long, .max)
            #expect(pci.readCommon(0x0C, .long) == 0)
        }
        pci.writeFeatures([.version1, FeatureSet(bit: 5)])
        #expect(pci.readCommon(0x0C, .long) == 1)
        pci.writeCommon(0x08, .long, 0)
        #expect(pci.readCommon(0x0C, .long) == 32)
        pci.writeCommon(0x04, .long, 0)
        #expect(pci.readFeatures() == rig.device.features)
    }

    @Test func featuresThatAreNotOfferedAreRefused() throws {
        let pci = try Rig().pci
        pci.writeStatus([.acknowledge, .driver])
        for features in [[.version1, FeatureSet(bit: 6)], [.eventIndex]] as [FeatureSet] {
            pci.writeFeatures(features)
            pci.writeStatus([.acknowledge, .driver, .featuresOK])
            #expect(pci.readStatus() == [.acknowledge, .driver])
        }
        pci.writeFeatures([.version1, .eventIndex])
        pci.writeStatus([.acknowledge, .driver, .featuresOK])
        #expect(pci.readStatus().contains(.featuresOK))
        pci.writeFeatures([])
        #expect(pci.readCommon(0x0C, .long) == 1)  // settled
    }

    @Test func queuesSayWhatTheyAre() throws {
        let rig = try Rig()
        let pci = rig.pci
        #expect(pci.readCommon(0x12, .word) == 3)
        for (queue, size) in rig.device.queueSizes.enumerated() {
            rig.select(UInt64(queue))
            #expect(pci.readCommon(0x16, .word) == UInt64(queue))
            #expect(pci.readCommon(0x18, .word) == UInt64(size))
            #expect(pci.readCommon(0x1A, .word) == 0xFFFF)
            #expect(pci.readCommon(0x1C, .word) == 0)
            #expect(pci.readCommon(0x1E, .word) == UInt64(queue))
        }
        for queue in [3, 4, 0x7FFF, 0xFFFF] as [UInt64] {
            rig.select(queue)
            #expect(pci.readCommon(0x18, .word) == 0)
            for offset in stride(from: UInt64(0x18), to: 0x38, by: 2) { pci.writeCommon(offset, .word, 1) }
            #expect(
                pci.readCommon(0x1C, .word) == 0 && pci.readCommon(0x20, .quad) == 0 && pci.readCommon(0x1A, .word) == 0xFFFF)
        }
    }

    @Test func queueFieldsReadBack() throws {
        let rig = try Rig()
        let pci = rig.pci
        rig.select(1)
        for (offset, value) in [(0x20, 0x1_2345_6000), (0x28, 0xFFFF_FFFF_FFFF_FFF0), (0x30, 0x7000_0000_0000)]
            as [(UInt64, UInt64)]
        {
            pci.writeCommon(offset, .long, value & 0xFFFF_FFFF)
            #expect(pci.readCommon(offset, .quad) == value & 0xFFFF_FFFF)
            pci.writeCommon(offset + 4, .long, value >> 32)
            #expect(pci.readCommon(offset, .quad) == value)
            #expect(pci.readCommon(offset + 4, .long) == value >> 32)
            pci.writeCommon(offset, .quad, ~value)
            #expect(pci.readCommon(offset, .quad) == ~value)
        }
        rig.select(0)
        #expect(pci.readCommon(0x20, .quad) == 0)
    }

    @Test func sizesThatNoQueueCanHaveAreNotTaken() throws {
        let rig = try Rig()
        rig.select(1)
        rig.pci.writeCommon(0x18, .word, 128)
        for size in [0, 3, 127, 129, 512, 0x8000, 0xFFFF] as [UInt64] {
            rig.pci.writeCommon(0x18, .word, size)
            #expect(rig.pci.readCommon(0x18, .word) == 128)
        }
        // Packed rings have any size.
        rig.pci.writeFeatures([.version1, .packedRing])
        rig.pci.writeCommon(0x18, .word, 100)
        #expect(rig.pci.readCommon(0x18, .word) == 100)
    }

    /// An enabled queue, and after DRIVER_OK every queue, is settled until the reset.
    @Test func nothingChangesOnceItIsSettled() throws {
        let rig = try Rig()
        let pci = rig.pci
        rig.select(0)
        pci.writeCommon(0x1C, .word, 0)
        pci.writeCommon(0x1C, .word, 2)
        #expect(pci.readCommon(0x1C, .word) == 0)
        pci.writeCommon(0x1C, .word, 1)
        pci.writeCommon(0x18, .word, 16)
        pci.writeCommon(0x20, .long, 0x1000)
        pci.writeCommon(0x1C, .word, 0)
        #expect(pci.readCommon(0x18, .word) == 64 && pci.readCommon(0x20, .quad) == 0 && pci.readCommon(0x1C, .word) == 1)

        #expect(rig.driver.start([], queueCount: 2))
        let before = (0..<3).map { queue in
            rig.select(UInt64(queue))
            return (0x18..<0x38).map { pci.readCommon(UInt64($0), .byte) }
        }
        for queue in 0..<UInt64(3) {
            rig.select(queue)
            for size in [1, 2, 0x1000, 0xFFFF] as [UInt64] { pci.writeCommon(0x18, .word, size) }
            for enable in [0, 1] as [UInt64] { pci.writeCommon(0x1C, .word, enable) }
            for offset in stride(from: UInt64(0x20), to: 0x38, by: 4) { pci.writeCommon(offset, .long, .max) }
            #expect((0x18..<0x38).map { pci.readCommon(UInt64($0), .byte) } == before[Int(queue)], "queue \(queue)")
        }
        #expect(rig.device.state.withLock { $0.session?.queue(0)?.size } == 64)
        #expect(rig.device.state.withLock { $0.session?.queue(2) } == nil)
    }

    @Test func resetMakesEverythingNew() throws {
        let rig = try Rig()
        let pci = rig.pci
        #expect(rig.driver.start([.packedRing]))
        #expect(rig.device.state.withLock { $0.starts } == 1)
        #expect(pci.readCommon(0x10, .word) == 0)
        pci.writeStatus([])
        #expect(pci.readStatus() == [])
        #expect(rig.device.state.withLock { $0.stops } == 1)
        for offset in [0x00, 0x08, 0x0C, 0x20, 0x28, 0x30] as [UInt64] { #expect(pci.readCommon(offset, .long) == 0) }
        #expect(pci.readCommon(0x16, .word) == 0 && pci.readCommon(0x10, .word) == 0xFFFF)
        for (queue, size) in rig.device.queueSizes.enumerated() {
            rig.select(UInt64(queue))
            #expect(pci.readCommon(0x18, .word) == UInt64(size))
            #expect(pci.readCommon(0x1A, .word) == 0xFFFF && pci.readCommon(0x1C, .word) == 0)
        }
        #expect(rig.driver.start([]))
        pci.transport.reset()
        #expect(rig.device.state.withLock { $0.stops } == 2)
    }

    @Test func readsOfAnyWidthAgree() throws {
        let rig = try Rig()
        rig.select(1)
        rig.pci.writeCommon(0x20, .quad, 0x1122_3344_5566_7788)
        let bytes = (0..<0x40).map { rig.pci.readCommon(UInt64($0), .byte) }
        for width in AccessWidth.allCases {
            for offset in stride(from: UInt64(0), to: 0x38, by: Int(width.bytes)) {
                let wanted = (0..<Int(width.bytes)).reduce(UInt64(0)) { $0 | bytes[Int(offset) + $1] << UInt64(8 * $1) }
                #expect(rig.pci.readCommon(offset, width) == wanted)
            }
        }
        #expect(bytes[0x38...].allSatisfy { $0 == 0 })
    }

    /// Wider than the field: the fields that it covers. Narrower: nothing.
    @Test func writesOfOtherWidths() throws {
        let pci = try Rig().pci
        pci.writeCommon(0x14, .long, 2 << 16 | 3)
        #expect(pci.readStatus().rawValue == 3 && pci.readCommon(0x16, .word) == 2)
        pci.writeCommon(0x18, .long, 1 << 16 | 4)
        #expect(pci.readCommon(0x18, .word) == 4 && pci.readCommon(0x1A, .word) == 1)
        pci.writeCommon(0x16, .byte, 1)
        pci.writeCommon(0x17, .byte, 1)
        pci.writeCommon(0x20, .byte, 1)
        pci.writeCommon(0x22, .word, 1)
        pci.writeCommon(0x21, .long, 1)
        pci.writeCommon(0x15, .word, 0xFFFF)
        #expect(pci.readCommon(0x16, .word) == 2 && pci.readCommon(0x20, .quad) == 0 && pci.readCommon(0x15, .byte) == 0)
        #expect(pci.readStatus().rawValue == 3)
    }

    // MARK: Notifications

    @Test func doorbellsRing() throws {
        let rig = try Rig()
        let pci = rig.pci
        pci.notify(queue: 0)
        #expect(rig.device.takeNotified().isEmpty)  // before DRIVER_OK
        #expect(rig.driver.start([]))
        for queue in 0..<UInt64(3) {
            pci.bus.memory.write(pci.notifications + queue * 4, width: .word, value: queue)
            pci.bus.memory.write(pci.notifications + queue * 4, width: .long, value: queue)
            #expect(rig.device.takeNotified() == [Int(queue), Int(queue)])
        }
        // No doorbell: another width, a place between two, a queue that is not there.
        pci.bus.memory.write(pci.notifications, width: .byte, value: 0)
        pci.bus.memory.write(pci.notifications + 2, width: .word, value: 0)
        pci.bus.memory.write(pci.notifications + 1, width: .long, value: 0)
        pci.bus.memory.write(pci.notifications, width: .quad, value: 0)
        for queue in [3, 4, 0x3FF] as [UInt64] { pci.bus.memory.write(pci.notifications + queue * 4, width: .word, value: 0) }
        #expect(rig.device.takeNotified().isEmpty)
        #expect(pci.bus.memory.read(pci.notifications, width: .long) == 0)
        pci.writeStatus([])
        pci.notify(queue: 0)
        #expect(rig.device.takeNotified().isEmpty)
    }

    @Test func doorbellsAreToldOf() throws {
        final class Observer: DoorbellObserver {
            let last = Mutex<DoorbellRange?>(nil)
            func doorbellsMoved(of function: any PCIFunction, device: Int, from old: DoorbellRange?, to new: DoorbellRange?) {
                last.withLock { $0 = function is PCITransport ? new : nil }
            }
        }
        let observer = Observer()
        let pci = try PCIDriver(device: PlainDevice(), memory: GuestMemory(size: 1 << 20), observer: observer)
        func told() -> DoorbellRange? { observer.last.withLock { $0 } }
        #expect(told() == DoorbellRange(base: GuestAddress(pci.notifications), stride: 4, count: 3))
        pci.write(0x04, .word, 0)
        #expect(told() == nil)
        pci.write(0x04, .word, 2)
        #expect(told()?.base.rawValue == pci.notifications)
    }

    // MARK: Device configuration

    @Test func deviceConfigurationIsTheDevices() throws {
        let rig = try Rig()
        let pci = rig.pci
        for width in [AccessWidth.byte, .word, .long] {
            for offset in stride(from: UInt64(0), to: 12, by: Int(width.bytes)) {
                let wanted = (0..<width.bytes).reduce(UInt64(0)) { $0 | (offset + $1 + 1) << ($1 * 8) }
                #expect(pci.readConfiguration(offset: offset, width: width) == wanted)
            }
        }
        #expect(pci.readConfiguration(offset: 4, width: .quad) == 0x0C0B_0A09_0807_0605)
        #expect(pci.readConfiguration(offset: 10, width: .long) == 0x0C0B)
        #expect(pci.readConfiguration(offset: 0xFF8, width: .quad) == 0)
        pci.writeConfiguration(offset: 4, width: .word, value: 0xABCD_1234)
        pci.writeConfiguration(offset: 0, width: .quad, value: 0x1111_1111_2222_2222)
        #expect(rig.device.state.withLock { $0.writes } == [4, 2, 0x1234, 0, 4, 0x2222_2222, 4, 4, 0x1111_1111])
    }

    /// A driver that reads a field twice and the generation around it never takes halves of two values for one.
    @Test func generationChangesWithWhatWasRead() throws {
        let rig = try Rig()
        let pci = rig.pci
        func generation() -> UInt64 { pci.readCommon(0x15, .byte) }
        _ = pci.readConfiguration(offset: 0, width: .byte)
        let first = generation()
        _ = pci.readConfiguration(offset: 0, width: .byte)
        #expect(generation() == first)
        // 256 changes are one, not none.
        for count in [1, 255, 256, 512] {
            let before = generation()
            for value in 0..<count { rig.device.change(0, to: UInt8(truncatingIfNeeded: value), pci.registers) }
            _ = pci.readConfiguration(offset: 0, width: .byte)
            #expect(generation() != before, "\(count) changes")
        }
    }

    // MARK: Interrupts

    @Test func vectorsMapEvents() throws {
        let rig = try Rig()
        let pci = rig.pci
        #expect(pci.vectorCount == 4)
        #expect(rig.driver.start([]))
        for vector in 0..<UInt64(4) {
            rig.select(2)
            pci.writeCommon(0x1A, .word, vector)
            #expect(pci.readCommon(0x1A, .word) == vector)
            rig.signal(2)
            #expect(pci.messages.take().map(\.data) == [PCIDriver.firstMessage + UInt32(vector)])
            pci.writeCommon(0x10, .word, vector)
            pci.registers.signal.configurationChanged()
            #expect(pci.messages.take().map(\.data) == [PCIDriver.firstMessage + UInt32(vector)])
        }
        for vector in [4, 5, 0x7FF, 0x800, 0xFFFE, 0xFFFF] as [UInt64] {
            pci.writeCommon(0x1A, .word, vector)
            pci.writeCommon(0x10, .word, vector)
            #expect(pci.readCommon(0x1A, .word) == 0xFFFF && pci.readCommon(0x10, .word) == 0xFFFF)
        }
        rig.signal(2)
        pci.registers.signal.configurationChanged()
        #expect(pci.messages.take().isEmpty)
        #expect(pci.line.risingEdges == 0)
        rig.signal(1)
        #expect(pci.messages.take().map(\.data) == [PCIDriver.firstMessage + 2])
    }

    /// With messages the status says nothing of queues; of configuration changes it does.
    @Test func statusWithMessages() throws {
        let rig = try Rig()
        #expect(rig.driver.start([]))
        rig.signal(0)
        #expect(rig.pci.bus.memory.read(rig.pci.interruptStatus, width: .byte) == 0)
        rig.pci.registers.signal.configurationChanged()
        #expect(rig.pci.read(0x06, .word) & 8 == 0)
        #expect(rig.pci.bus.memory.read(rig.pci.interruptStatus, width: .byte) == 2)
        #expect(rig.pci.bus.memory.read(rig.pci.interruptStatus, width: .byte) == 0)
    }

    @Test func maskedEventsComeAtUnmask() throws {
        let rig = try Rig()
        let pci = rig.pci
        #expect(rig.driver.start([]))
        pci.bus.memory.write(pci.messageTable + 16 + 12, width: .long, value: 1)
        rig.signal(0)
        rig.signal(0)
        #expect(pci.messages.take().isEmpty)
        pci.bus.memory.write(pci.messageTable + 16 + 12, width: .long, value: 0)
        #expect(pci.messages.take().map(\.data) == [PCIDriver.firstMessage + 1])
        // What waits when the device is reset is of nobody's interest any more.
        pci.bus.memory.write(pci.messageTable + 16 + 12, width: .long, value: 1)
        rig.signal(0)
        pci.writeStatus([])
        pci.bus.memory.write(pci.messageTable + 16 + 12, width: .long, value: 0)
        #expect(pci.messages.take().isEmpty)
    }

    @Test func wiredInterrupts() throws {
        let rig = try Rig(usesMessages: false)
        let pci = rig.pci
        #expect(pci.read(0x3D, .byte) == 1)
        #expect(rig.driver.start([]))
        func status() -> UInt64 { pci.bus.memory.read(pci.interruptStatus, width: .byte) }
        rig.signal(1)
        rig.signal(0)
        #expect(pci.line.isHigh && pci.line.risingEdges == 1)
        #expect(pci.read(0x06, .word) & 8 == 8)
        pci.registers.signal.configurationChanged()
        #expect(status() == 3)
        #expect(!pci.line.isHigh && pci.read(0x06, .word) & 8 == 0)
        #expect(status() == 0)
        // Interrupt Disable holds the wire, not the status.
        pci.write(0x04, .word, 0x0406)
        rig.signal(0)
        #expect(!pci.line.isHigh && pci.read(0x06, .word) & 8 == 8)
        pci.write(0x04, .word, 0x0006)
        #expect(pci.line.isHigh)
        pci.writeStatus([])
        #expect(!pci.line.isHigh && status() == 0)
        #expect(pci.messages.take().isEmpty)
    }

    @Test func aDeviceThatNeedsResetSaysSo() throws {
        let rig = try Rig()
        #expect(rig.driver.start([]))
        rig.device.state.withLock { $0.session }?.fail()
        #expect(rig.pci.readStatus().contains(.needsReset))
        #expect(rig.pci.takeInterrupts() == (false, true))
        #expect(rig.driver.start([]))
        #expect(!rig.pci.readStatus().contains(.needsReset))
    }

    @Test func withoutASinkInterruptsAreWired() throws {
        let line = RecordingLine()
        let transport = PCITransport(device: PlainDevice(), memory: try GuestMemory(size: 1 << 20), line: line, messages: nil)
        let bus = try PCIBus([transport])
        #expect(!bus.capabilities(device: 1).contains { $0.identifier == 0x11 })
        let common = bus.address(device: 1, bar: 0)
        bus.memory.write(common + 0x10, width: .word, value: 0)
        #expect(bus.memory.read(common + 0x10, width: .word) == 0xFFFF)
        transport.registers.signal.target.bufferUsed(queue: 0)
        #expect(line.isHigh)
    }

    // MARK: Access through configuration space

    @Test func registersAreReachedWithoutMappingThem() throws {
        let rig = try Rig()
        let pci = rig.pci
        pci.write(0x04, .word, 0)  // not even decoded
        let place = pci.accessCapability
        func point(_ offset: UInt32, _ length: UInt32, bar: UInt32 = 0) {
            pci.write(place + 4, .byte, bar)
            pci.write(place + 8, .long, offset)
            pci.write(place + 12, .long, length)
        }
        point(0x16, 2)
        pci.write(place + 16, .word, 2)
        point(0x18, 2)
        #expect(pci.read(place + 16, .word) == 8)
        #expect(pci.bus.readByPorts(device: 1, place + 16, .word) == 8)
        point(0x14, 1)
        pci.write(place + 16, .byte, 1)
        #expect(pci.read(place + 16, .byte) == 1)
        point(0x2004, 4)
        #expect(pci.read(place + 16, .long) == 0x0807_0605)
        pci.write(place + 16, .long, 0x55)
        #expect(rig.device.state.withLock { $0.writes } == [4, 4, 0x55])
        // What it cannot be pointed at is not reached; the data reads as it was left.
        pci.write(0x04, .word, 6)
        for (offset, length, bar) in [
            (0, 0, 0), (0, 3, 0), (0, 8, 0), (2, 4, 0), (0x4000, 4, 0), (.max, 1, 0), (0xFFFF_FFFC, 4, 0), (0, 4, 1),
            (0, 4, 255),
            (0, .max, 0), (0x14, 0x8000_0001, 0),
        ] as [(UInt32, UInt32, UInt32)] {
            point(offset, length, bar: bar)
            let before = pci.readStatus()
            pci.write(place + 16, .long, 0x4321_5678)
            #expect(pci.read(place + 16, .long) == 0x4321_5678)
            #expect(pci.readStatus() == before)
        }
    }

    @Test func doorbellsAndStatusAreReachedToo() throws {
        let rig = try Rig(usesMessages: false)
        #expect(rig.driver.start([]))
        let place = rig.pci.accessCapability
        rig.pci.write(place + 8, .long, 0x3008)
        rig.pci.write(place + 12, .long, 2)
        rig.pci.write(place + 16, .word, 0)
        #expect(rig.device.takeNotified() == [2])
        rig.signal(0)
        rig.pci.write(place + 8, .long, 0x1000)
        rig.pci.write(place + 12, .long, 1)
        #expect(rig.pci.line.isHigh)
        #expect(rig.pci.read(place + 12, .long) == 1)  // reading beside the data takes nothing
        #expect(rig.pci.read(place + 16, .byte) == 1)
        #expect(!rig.pci.line.isHigh)
    }
}
