public import VMCore
public import Virtio

/// A transport as a driver sees it: what `MockDriver` does through registers, whichever they are.
public protocol DriverTransport: AnyObject {
    var registers: DeviceRegisters { get }

    /// What the device says it is. Source: [VIRTIO1.2 §5].
    func readDeviceID() -> UInt32
    func readStatus() -> DeviceStatus
    func writeStatus(_ status: DeviceStatus)
    func readFeatures() -> FeatureSet
    func writeFeatures(_ features: FeatureSet)
    /// The most descriptors that the queue can have; 0 where there is no such queue.
    func largestSize(of queue: UInt16) -> UInt16
    func setUp(queue: UInt16, _ layout: QueueLayout)
    func notify(queue: UInt16)
    func readConfiguration(offset: UInt64, width: AccessWidth) -> UInt64
    func writeConfiguration(offset: UInt64, width: AccessWidth, value: UInt64)

    /// Interrupts since the last call: for a queue's buffers, and for the configuration. Acknowledges them.
    func takeInterrupts() -> (used: Bool, configuration: Bool)
}

/// Drives a device through the memory-mapped registers.
public final class MMIODriver: DriverTransport {
    public let transport: MMIOTransport
    public let line: RecordingLine
    public var registers: DeviceRegisters { transport.registers }

    public init(device: any VirtioDevice, memory: GuestMemory) {
        line = RecordingLine()
        transport = MMIOTransport(device: device, memory: memory, line: line)
    }

    public func read(_ offset: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: transport.read(offset: offset, width: .long)) }
    public func write(_ offset: UInt64, _ value: UInt32) {
        transport.write(offset: offset, width: .long, value: UInt64(value))
    }

    public func readDeviceID() -> UInt32 { read(0x08) }
    public func readStatus() -> DeviceStatus { DeviceStatus(rawValue: UInt8(truncatingIfNeeded: read(0x70))) }
    public func writeStatus(_ status: DeviceStatus) { write(0x70, UInt32(status.rawValue)) }

    public func readFeatures() -> FeatureSet {
        write(0x14, 0)
        let low = read(0x10)
        write(0x14, 1)
        return FeatureSet(rawValue: UInt64(low) | UInt64(read(0x10)) << 32)
    }

    public func writeFeatures(_ features: FeatureSet) {
        write(0x24, 0)
        write(0x20, UInt32(truncatingIfNeeded: features.rawValue))
        write(0x24, 1)
        write(0x20, UInt32(truncatingIfNeeded: features.rawValue >> 32))
    }

    public func largestSize(of queue: UInt16) -> UInt16 {
        write(0x30, UInt32(queue))
        return UInt16(truncatingIfNeeded: read(0x34))
    }

    public func setUp(queue: UInt16, _ layout: QueueLayout) {
        write(0x30, UInt32(queue))
        write(0x38, UInt32(layout.size))
        for (offset, address) in [(0x80, layout.descriptors), (0x90, layout.driverArea), (0xA0, layout.deviceArea)] as [(UInt64, GuestAddress)] {
            write(offset, UInt32(truncatingIfNeeded: address.rawValue))
            write(offset + 4, UInt32(truncatingIfNeeded: address.rawValue >> 32))
        }
        write(0x44, 1)
    }

    public func notify(queue: UInt16) { write(0x50, UInt32(queue)) }

    public func readConfiguration(offset: UInt64, width: AccessWidth) -> UInt64 {
        transport.read(offset: 0x100 &+ offset, width: width)
    }

    public func writeConfiguration(offset: UInt64, width: AccessWidth, value: UInt64) {
        transport.write(offset: 0x100 &+ offset, width: width, value: value)
    }

    public func takeInterrupts() -> (used: Bool, configuration: Bool) {
        let bits = read(0x60)
        write(0x64, bits)
        return (bits & 1 != 0, bits & 2 != 0)
    }
}
