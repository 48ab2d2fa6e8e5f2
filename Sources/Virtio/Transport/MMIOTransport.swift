internal import Synchronization
public import VMCore

/// A virtio device as memory-mapped registers: 512 bytes, and a level-triggered wire.
///
/// Not emulated: the layout before version 1, shared memory regions, resets of single queues.
///
/// Source: [VIRTIO1.2 §4.2].
public final class MMIOTransport: BusDevice {
    /// Bytes of address space that it takes: a page, so that a guest can map one device and no other.
    public static let length: UInt64 = 0x1000

    public let registers: DeviceRegisters
    private let interrupt: InterruptStatus
    private let selection = Mutex(Selection())

    private struct Selection {
        var offeredWindow: UInt32 = 0
        var acceptedWindow: UInt32 = 0
        var queue: UInt32 = 0
    }

    public init(device: any VirtioDevice, memory: GuestMemory, line: any InterruptLine) {
        interrupt = InterruptStatus(line: line)
        registers = DeviceRegisters(device: device, memory: memory, target: interrupt)
    }

    /// Register offsets. Source: [VIRTIO1.2 §4.2.2].
    private enum Register {
        static let magic: UInt64 = 0x00, version: UInt64 = 0x04, deviceID: UInt64 = 0x08, vendorID: UInt64 = 0x0C
        static let deviceFeatures: UInt64 = 0x10, deviceFeaturesSelect: UInt64 = 0x14
        static let driverFeatures: UInt64 = 0x20, driverFeaturesSelect: UInt64 = 0x24
        static let queueSelect: UInt64 = 0x30, queueSizeMax: UInt64 = 0x34, queueSize: UInt64 = 0x38
        static let queueReady: UInt64 = 0x44, queueNotify: UInt64 = 0x50
        static let interruptStatus: UInt64 = 0x60, interruptAcknowledge: UInt64 = 0x64, status: UInt64 = 0x70
        static let descriptorsLow: UInt64 = 0x80, descriptorsHigh: UInt64 = 0x84
        static let driverAreaLow: UInt64 = 0x90, driverAreaHigh: UInt64 = 0x94
        static let deviceAreaLow: UInt64 = 0xA0, deviceAreaHigh: UInt64 = 0xA4
        static let sharedMemoryLengthLow: UInt64 = 0xB0, sharedMemoryBaseHigh: UInt64 = 0xBC
        static let configurationGeneration: UInt64 = 0xFC, configuration: UInt64 = 0x100
    }

    /// Where a driver writes a queue's number to notify: an offset in the registers.
    public static let notifyOffset: UInt64 = Register.queueNotify

    public func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        if offset >= Register.configuration {
            return registers.readConfiguration(offset: offset &- Register.configuration, width: width)
        }
        // Everything else is 32 bits wide, and is read as such or not at all. Source: [VIRTIO1.2 §4.2.2.2].
        guard width == .long else { return 0 }
        let selection = selection.withLock { $0 }
        switch offset {
        case Register.magic: return 0x7472_6976
        case Register.version: return 2
        case Register.deviceID: return UInt64(registers.device.kind.rawValue)
        case Register.vendorID: return 0x5256_4857
        case Register.deviceFeatures: return UInt64(registers.offeredFeatures(window: selection.offeredWindow))
        case Register.queueSizeMax: return UInt64(registers.queue(selection.queue)?.largest ?? 0)
        case Register.queueReady: return registers.queue(selection.queue)?.isEnabled == true ? 1 : 0
        case Register.interruptStatus: return UInt64(interrupt.pending)
        case Register.status: return UInt64(registers.status.rawValue)
        case Register.configurationGeneration: return UInt64(registers.generation)
        // No region: a length of all ones. Source: [VIRTIO1.2 §4.2.2].
        case Register.sharedMemoryLengthLow...Register.sharedMemoryBaseHigh: return 0xFFFF_FFFF
        default: return 0
        }
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        if offset >= Register.configuration {
            return registers.writeConfiguration(offset: offset &- Register.configuration, width: width, value: value)
        }
        guard width == .long else { return }
        let word = UInt32(truncatingIfNeeded: value)
        switch offset {
        case Register.queueNotify: registers.notify(queue: word)
        case Register.interruptAcknowledge: interrupt.acknowledge(word)
        case Register.deviceFeaturesSelect: selection.withLock { $0.offeredWindow = word }
        case Register.driverFeaturesSelect: selection.withLock { $0.acceptedWindow = word }
        case Register.driverFeatures:
            registers.acceptFeatures(word, window: selection.withLock { $0.acceptedWindow })
        case Register.queueSelect: selection.withLock { $0.queue = word }
        case Register.status:
            registers.writeStatus(UInt8(truncatingIfNeeded: word))
            if UInt8(truncatingIfNeeded: word) == 0 { reset() }
        default: writeQueue(offset, word, queue: selection.withLock { $0.queue })
        }
    }

    private func writeQueue(_ offset: UInt64, _ word: UInt32, queue: UInt32) {
        switch offset {
        case Register.queueSize: registers.setQueueSize(queue, to: word)
        case Register.queueReady: registers.setQueueEnabled(queue, word & 1 != 0)
        case Register.descriptorsLow: registers.configureQueue(queue) { $0.descriptors.setLow(word) }
        case Register.descriptorsHigh: registers.configureQueue(queue) { $0.descriptors.setHigh(word) }
        case Register.driverAreaLow: registers.configureQueue(queue) { $0.driverArea.setLow(word) }
        case Register.driverAreaHigh: registers.configureQueue(queue) { $0.driverArea.setHigh(word) }
        case Register.deviceAreaLow: registers.configureQueue(queue) { $0.deviceArea.setLow(word) }
        case Register.deviceAreaHigh: registers.configureQueue(queue) { $0.deviceArea.setHigh(word) }
        default: break
        }
    }

    private func reset() {
        interrupt.acknowledge(.max)
        selection.withLock { $0 = Selection() }
    }
}

extension GuestAddress {
    /// Replaces the low 32 bits.
    mutating func setLow(_ word: UInt32) { rawValue = rawValue & 0xFFFF_FFFF_0000_0000 | UInt64(word) }
    /// Replaces the high 32 bits.
    mutating func setHigh(_ word: UInt32) { rawValue = rawValue & 0xFFFF_FFFF | UInt64(word) << 32 }
}

/// The interrupt status register and the wire that follows it. A leaf in the lock order, but for the line.
/// Source: [VIRTIO1.2 §4.2.2] InterruptStatus.
final class InterruptStatus: SignalTarget {
    private let line: any InterruptLine
    private let bits = Mutex<UInt32>(0)

    init(line: any InterruptLine) { self.line = line }

    var pending: UInt32 { bits.withLock { $0 } }

    func bufferUsed(queue: Int) { raise(1) }
    func configurationChanged() { raise(2) }

    private func raise(_ bit: UInt32) {
        bits.withLock { bits in
            if bits == 0 { line.setLevel(true) }
            bits |= bit
        }
    }

    func acknowledge(_ acknowledged: UInt32) {
        bits.withLock { bits in
            let before = bits
            bits &= ~acknowledged
            if before != 0, bits == 0 { line.setLevel(false) }
        }
    }
}
