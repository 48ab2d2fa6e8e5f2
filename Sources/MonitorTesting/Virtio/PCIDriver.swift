public import PCI
public import VMCore
public import Virtio

/// Drives a device through its PCI function, found as a guest finds it: by the capabilities in configuration space.
public final class PCIDriver: DriverTransport {
    public let transport: PCITransport
    public let bus: PCIBus
    public let messages = RecordingMessages()
    public let line = RecordingLine()
    public var registers: DeviceRegisters { transport.registers }
    /// Whether MSI-X is enabled, as it is from the start where that was asked for; without it, interrupts are wired.
    public let usesMessages: Bool

    /// The function's place on the bus.
    public static let device = 1
    /// Addresses of the structures.
    public private(set) var common: UInt64 = 0
    public private(set) var interruptStatus: UInt64 = 0
    public private(set) var deviceConfiguration: UInt64?
    public private(set) var notifications: UInt64 = 0
    public private(set) var notifyMultiplier: UInt64 = 0
    /// Where in configuration space the capability for accesses through it is.
    public private(set) var accessCapability: UInt64 = 0
    public private(set) var messageCapability: UInt64?
    public private(set) var messageTable: UInt64 = 0
    public private(set) var vectorCount = 0

    public static let messageAddress: UInt64 = 0xFEE0_0000
    /// The data of vector 0, which is for the configuration; each further vector is one queue's.
    public static let firstMessage: UInt32 = 0x40

    /// - Throws: what the bridge throws; a `Broken` where a function does not look as a virtio function must.
    public init(
        device: any VirtioDevice, memory: GuestMemory, usesMessages: Bool = true, observer: (any DoorbellObserver)? = nil
    ) throws {
        self.usesMessages = usesMessages
        transport = PCITransport(device: device, memory: memory, line: line, messages: messages)
        bus = try PCIBus([transport], observer: observer)
        guard read(0x00, .long) == (0x1040 + device.kind.rawValue) << 16 | 0x1AF4 else { throw Broken("no virtio function") }
        write(0x04, .word, 0x0006)
        for (identifier, place) in bus.capabilities(device: Self.device) {
            if identifier == 0x11 { try setUpMessages(place) }
            guard identifier == 0x09 else { continue }
            let base = bus.address(device: Self.device, bar: Int(read(place + 4, .byte))) + UInt64(read(place + 8, .long))
            switch read(place + 3, .byte) {
            case 1: common = base
            case 2:
                notifications = base
                notifyMultiplier = UInt64(read(place + 16, .long))
            case 3: interruptStatus = base
            case 4: deviceConfiguration = base
            case 5: accessCapability = place
            case let kind: throw Broken("a capability of type \(kind)")
            }
        }
        guard common != 0, notifications != 0, interruptStatus != 0, accessCapability != 0 else {
            throw Broken("a capability is missing")
        }
    }

    /// The function is not as a driver must find it.
    public struct Broken: Error, CustomStringConvertible {
        public let description: String
        init(_ description: String) { self.description = description }
    }

    private func setUpMessages(_ place: UInt64) throws {
        messageCapability = place
        vectorCount = Int(read(place + 2, .word) & 0x7FF) + 1
        let table = read(place + 4, .long)
        messageTable = bus.address(device: Self.device, bar: Int(table & 7)) + UInt64(table & ~7)
        guard usesMessages else { return }
        guard vectorCount > registers.queueCount else { throw Broken("too few vectors") }
        write(place + 2, .word, 0xC000)
        for vector in 0..<vectorCount {
            let entry = messageTable + UInt64(vector) * 16
            bus.memory.write(entry, width: .quad, value: Self.messageAddress)
            bus.memory.write(entry + 8, width: .long, value: UInt64(Self.firstMessage) + UInt64(vector))
            bus.memory.write(entry + 12, width: .long, value: 0)
        }
        write(place + 2, .word, 0x8000)
    }

    // MARK: Registers

    /// The function's own configuration space.
    public func read(_ register: UInt64, _ width: AccessWidth) -> UInt32 { bus.read(device: Self.device, register, width) }
    public func write(_ register: UInt64, _ width: AccessWidth, _ value: UInt32) {
        bus.write(device: Self.device, register, width, value)
    }

    public func readCommon(_ offset: UInt64, _ width: AccessWidth) -> UInt64 { bus.memory.read(common + offset, width: width) }
    public func writeCommon(_ offset: UInt64, _ width: AccessWidth, _ value: UInt64) {
        bus.memory.write(common + offset, width: width, value: value)
    }

    public func readDeviceID() -> UInt32 { (read(0x00, .long) >> 16) &- 0x1040 }

    public func readStatus() -> DeviceStatus { DeviceStatus(rawValue: UInt8(truncatingIfNeeded: readCommon(0x14, .byte))) }

    public func writeStatus(_ status: DeviceStatus) {
        writeCommon(0x14, .byte, UInt64(status.rawValue))
        // A reset has unmapped it.
        if usesMessages, status.contains(.driver) { writeCommon(0x10, .word, 0) }
    }

    public func readFeatures() -> FeatureSet {
        writeCommon(0x00, .long, 0)
        let low = readCommon(0x04, .long)
        writeCommon(0x00, .long, 1)
        return FeatureSet(rawValue: low | readCommon(0x04, .long) << 32)
    }

    public func writeFeatures(_ features: FeatureSet) {
        writeCommon(0x08, .long, 0)
        writeCommon(0x0C, .long, features.rawValue & 0xFFFF_FFFF)
        writeCommon(0x08, .long, 1)
        writeCommon(0x0C, .long, features.rawValue >> 32)
    }

    public func largestSize(of queue: UInt16) -> UInt16 {
        writeCommon(0x16, .word, UInt64(queue))
        return UInt16(truncatingIfNeeded: readCommon(0x18, .word))
    }

    public func setUp(queue: UInt16, _ layout: QueueLayout) {
        writeCommon(0x16, .word, UInt64(queue))
        writeCommon(0x18, .word, UInt64(layout.size))
        if usesMessages { writeCommon(0x1A, .word, UInt64(queue) + 1) }
        for (offset, address) in [(0x20, layout.descriptors), (0x28, layout.driverArea), (0x30, layout.deviceArea)]
            as [(UInt64, GuestAddress)]
        {
            writeCommon(offset, .long, address.rawValue & 0xFFFF_FFFF)
            writeCommon(offset + 4, .long, address.rawValue >> 32)
        }
        writeCommon(0x1C, .word, 1)
    }

    public func notify(queue: UInt16) {
        writeCommon(0x16, .word, UInt64(queue))
        let place = notifications + readCommon(0x1E, .word) * notifyMultiplier
        bus.memory.write(place, width: .word, value: UInt64(queue))
    }

    public func readConfiguration(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard let deviceConfiguration else { return 0 }
        return bus.memory.read(deviceConfiguration &+ offset, width: width)
    }

    public func writeConfiguration(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard let deviceConfiguration else { return }
        bus.memory.write(deviceConfiguration &+ offset, width: width, value: value)
    }

    public func takeInterrupts() -> (used: Bool, configuration: Bool) {
        guard usesMessages else {
            guard line.isHigh else { return (false, false) }
            let bits = bus.memory.read(interruptStatus, width: .byte)
            return (bits & 1 != 0, bits & 2 != 0)
        }
        let data = messages.take().filter { $0.address == Self.messageAddress }.map(\.data)
        return (data.contains { $0 > Self.firstMessage }, data.contains(Self.firstMessage))
    }
}
