import Synchronization
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// The order of bringing a device up, kept whatever the driver does; and the registers that are no transport's own.
@Suite struct DeviceRegisterTests {
    private let events = ManualEvents()

    private func registers(_ device: EchoDevice) throws -> (DeviceRegisters, GuestMemory) {
        let memory = try GuestMemory(size: 16 << 20)
        return (DeviceRegisters(device: device, memory: memory, target: SignalLog()), memory)
    }

    private final class SignalLog: SignalTarget {
        func bufferUsed(queue: Int) {}
        func configurationChanged() {}
    }

    private let layout = QueueLayout(
        size: 8, descriptors: GuestAddress(0x1000), driverArea: GuestAddress(0x2000), deviceArea: GuestAddress(0x3000))

    @Test func featuresAreSettledByTheirBit() throws {
        let (registers, _) = try registers(EchoDevice(events: events))
        #expect(registers.offeredFeatures(window: 2) == 0)
        #expect(registers.offeredFeatures(window: .max) == 0)
        registers.writeStatus(3)
        // Without VERSION_1, then with one that is not offered: both are refused, by the bit that stays clear.
        registers.acceptFeatures(0, window: 1)
        registers.writeStatus(0xB)
        #expect(registers.status == [.acknowledge, .driver])
        registers.acceptFeatures(1 | 1 << 30, window: 1)
        registers.writeStatus(0xB)
        #expect(registers.status == [.acknowledge, .driver])
        registers.acceptFeatures(1, window: 1)
        registers.acceptFeatures(.max, window: 2)
        registers.writeStatus(0xB)
        #expect(registers.status.contains(.featuresOK))
        registers.acceptFeatures(5, window: 1)
        #expect(registers.acceptedFeatures(window: 1) == 1, "settled")
    }

    @Test func aDeviceStartsOnceAndOnlyWithFeatures() throws {
        let device = EchoDevice(events: events)
        let (registers, _) = try registers(device)
        registers.writeStatus(0x7)
        #expect(device.starts == 0)
        #expect(!registers.status.contains(.driverOK))
        registers.acceptFeatures(1, window: 1)
        registers.writeStatus(0xF)
        #expect(device.starts == 1)
        registers.writeStatus(0xF)
        registers.writeStatus(0x4)
        #expect(device.starts == 1)
        #expect(registers.status == [.acknowledge, .driver, .featuresOK, .driverOK], "bits are never taken away")
        registers.writeStatus(0xC0)
        #expect(registers.status.contains(.failed))
        #expect(!registers.status.contains(.needsReset), "the device's own bit")
        registers.writeStatus(0)
        #expect(device.stops == 1)
        #expect(registers.status == [])
        #expect(registers.acceptedFeatures(window: 1) == 0)
        registers.writeStatus(0)
        #expect(device.stops == 1)
    }

    @Test func aQueueIsSettledByBeingEnabled() throws {
        let device = EchoDevice(queueSizes: [8, 64], events: events)
        let (registers, _) = try registers(device)
        registers.acceptFeatures(1, window: 1)
        registers.writeStatus(0xB)
        for size in [0, 9, 0x10000, 0x1_0008, .max] as [UInt32] { registers.setQueueSize(0, to: size) }
        #expect(registers.queue(0)?.layout.size == 8, "sizes that no queue of this device can have")
        registers.configureQueue(0) { $0 = layout }
        registers.setQueueEnabled(0, true)
        registers.setQueueSize(0, to: 4)
        registers.configureQueue(0) { $0.descriptors = GuestAddress(0) }
        #expect(registers.queue(0)?.layout == layout)
        registers.writeStatus(0xF)
        registers.setQueueEnabled(1, true)
        registers.setQueueEnabled(0, false)
        registers.setQueueSize(1, to: 16)
        #expect(registers.queue(1)?.isEnabled == false)
        #expect(registers.queue(1)?.layout.size == 64)
        #expect(registers.queue(0)?.isEnabled == true)
        #expect(device.session?.queue(0) != nil)
        #expect(device.session?.queue(1) == nil, "one that the driver does not use")
        registers.writeStatus(0)
        #expect(registers.queue(0)?.isEnabled == false)
        #expect(registers.queue(0)?.layout.size == 8)
    }

    @Test func queuesThatAreNotThere() throws {
        let device = EchoDevice(events: events)
        let (registers, _) = try registers(device)
        for index in [1, 2, 0x7FFF_FFFF, 0x8000_0000, .max] as [UInt32] {
            #expect(registers.queue(index) == nil)
            registers.setQueueSize(index, to: 8)
            registers.configureQueue(index) { $0 = layout }
            registers.setQueueEnabled(index, true)
            registers.notify(queue: index)
        }
        #expect(!events.hasWork)
    }

    @Test func nothingIsToldBeforeTheDriverIsReady() throws {
        let device = EchoDevice(events: events)
        let (registers, _) = try registers(device)
        registers.notify(queue: 0)
        #expect(!events.hasWork)
        registers.acceptFeatures(1, window: 1)
        registers.writeStatus(0xF)
        events.run()
        registers.notify(queue: 0)
        #expect(events.hasWork)
        events.run()
        registers.writeStatus(0)
        registers.notify(queue: 0)
        #expect(!events.hasWork)
    }

    @Test func theConfigurationSpaceEnds() throws {
        let device = EchoDevice(configuration: [1, 2, 3, 4, 5], events: events)
        let (registers, _) = try registers(device)
        #expect(registers.readConfiguration(offset: 0, width: .long) == 0x0403_0201)
        #expect(registers.readConfiguration(offset: 1, width: .word) == 0x0302)
        #expect(registers.readConfiguration(offset: 4, width: .quad) == 5, "zeros behind it")
        #expect(registers.readConfiguration(offset: 5, width: .byte) == 0)
        for offset in [5, 0xF00, 1 << 32, .max - 3, .max] as [UInt64] {
            for width in AccessWidth.allCases { #expect(registers.readConfiguration(offset: offset, width: width) == 0) }
        }
        registers.writeConfiguration(offset: .max, width: .word, value: .max)
        #expect(device.configurationWrites == [BusAccess(write: .max, .word, 0xFFFF)])
    }

    @Test func theGenerationChangesWithTheConfiguration() throws {
        let (registers, _) = try registers(EchoDevice(events: events))
        let before = registers.generation
        registers.signal.configurationChanged()
        #expect(registers.generation != before)
    }
}

@Suite struct MMIOTransportTests {
    private func machine() throws -> EchoMachine { try EchoMachine() }

    @Test func theRegistersSayWhatItIs() throws {
        let driver = try machine().transport
        #expect(driver.read(0x00) == 0x7472_6976, "'virt'")
        #expect(driver.read(0x04) == 2)
        #expect(driver.read(0x08) == DeviceKind.entropy.rawValue)
        #expect(driver.read(0x0C) != 0)
        driver.write(0x30, 0)
        #expect(driver.read(0x34) == 256)
        #expect(driver.read(0x44) == 1)
        driver.write(0x30, 1)
        #expect(driver.read(0x34) == 0, "no such queue")
        #expect(driver.read(0x44) == 0)
        #expect(driver.read(0xB0) == .max && driver.read(0xB4) == .max, "no shared memory")
    }

    /// Registers are 32 bits wide; and nothing that is not one does anything.
    @Test func otherWidthsAndOffsetsAreNothing() throws {
        let machine = try machine()
        let transport = machine.transport.transport
        for width in [AccessWidth.byte, .word, .quad] {
            #expect(transport.read(offset: 0, width: width) == 0)
            transport.write(offset: 0x70, width: width, value: 0)
        }
        #expect(machine.transport.readStatus().contains(.driverOK))
        var random = SeededRandom(seed: 1)
        let known: [UInt64] = [0x70]
        for _ in 0..<20_000 {
            let offset = UInt64(random.below(Int(MMIOTransport.length)))
            guard !known.contains(offset & ~3) else { continue }
            let width = AccessWidth.allCases[random.below(4)]
            transport.write(offset: offset, width: width, value: random.next())
            _ = transport.read(offset: offset, width: width)
        }
        machine.events.run()
        #expect(machine.driver.start([]))
        try machine.queue.add(readable: [[1]])
        machine.notify()
        #expect(try machine.queue.completions().count == 1)
    }

    @Test func theWireFollowsTheStatus() throws {
        let machine = try machine()
        let (driver, line) = (machine.transport, machine.transport.line)
        #expect(!line.isHigh)
        try machine.queue.add(readable: [[1]])
        machine.notify()
        #expect(line.isHigh && driver.read(0x60) == 1)
        driver.registers.signal.configurationChanged()
        #expect(driver.read(0x60) == 3)
        driver.write(0x64, 1)
        #expect(line.isHigh && driver.read(0x60) == 2)
        driver.write(0x64, 2)
        #expect(!line.isHigh)
        #expect(line.risingEdges == 1)
        driver.registers.signal.configurationChanged()
        driver.write(0x70, 0)
        #expect(!line.isHigh, "a reset takes the interrupt back")
        driver.registers.signal.configurationChanged()
        #expect(!line.isHigh, "nobody is there to be told")
    }

    private final class Silence: SignalTarget {
        func bufferUsed(queue: Int) {}
        func configurationChanged() {}
    }

    /// Interrupts at once when it is started, which another processor answers before the first one's write has ended.
    private final class EagerDevice: VirtioDevice {
        let kind = DeviceKind.entropy
        let features = FeatureSet.common
        let queueSizes: [UInt16] = [8]
        let registers = Mutex<DeviceRegisters?>(nil)
        let notified = Mutex<[Int]>([])
        func configuration() -> [UInt8] { [] }
        func start(_ session: DeviceSession) { registers.withLock { $0 }?.notify(queue: 0) }
        func notify(queue: Int) { notified.withLock { $0.append(queue) } }
        func stop() {}
    }

    @Test func notificationsFromTheBeginningCount() throws {
        let device = EagerDevice()
        let registers = DeviceRegisters(device: device, memory: try GuestMemory(size: 1 << 20), target: Silence())
        device.registers.withLock { $0 = registers }
        registers.acceptFeatures(1, window: 1)
        registers.writeStatus(0xB)
        registers.notify(queue: 0)
        #expect(device.notified.withLock { $0 } == [])
        registers.writeStatus(0xF)
        #expect(device.notified.withLock { $0 } == [0])
        registers.writeStatus(0)
        registers.notify(queue: 0)
        #expect(device.notified.withLock { $0 } == [0])
        device.registers.withLock { $0 = nil }
    }
}
