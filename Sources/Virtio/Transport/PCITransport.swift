public import PCI
internal import Synchronization
public import VMCore

/// A virtio device as a PCI function: its registers in one region, interrupts by MSI-X messages or by wire.
///
/// Fields are read at any width. They are written at their own width, or at a wider one as the fields that it covers, low
/// first; a 64-bit field is two of 32 bits. A write that is narrower than its field is ignored.
///
/// Not emulated: the layout before version 1 (transitional devices), notification data, shared memory regions, resets of
/// single queues, the administration queue, and that a function which is not bus master keeps from memory.
///
/// Source: [VIRTIO1.2 §4.1].
public final class PCITransport: PCIFunction {
    public let registers: DeviceRegisters
    public let configuration: FunctionConfiguration
    private let interrupts: PCIInterrupts
    private let state = Mutex(State())
    /// Where the capability is by which a driver reaches the registers without mapping them.
    private let access: Int

    private struct State {
        var offeredWindow: UInt32 = 0
        var acceptedWindow: UInt32 = 0
        var queue: UInt16 = 0
        /// The 8-bit generation, and the device's own at the last look.
        var generation: UInt8 = 0
        var seenGeneration: UInt32 = 0
    }

    /// - Parameters:
    ///   - line: what INTA is wired to; high as long as the device asks.
    ///   - messages: where MSI-X messages go; nil for a machine that has none: then the function has no such capability.
    public init(
        device: any VirtioDevice, memory: GuestMemory, line: (any InterruptLine)?, messages: (any InterruptMessageSink)?
    ) {
        let queueCount = device.queueSizes.count
        precondition(queueCount <= PCILayout.queueLimit, "a queue has a doorbell in the page for them")
        let capabilities = PCILayout.capabilities(queueCount: queueCount, deviceLength: device.configuration().count)
        configuration = FunctionConfiguration(
            PCILayout.identity(device.kind), bars: [BaseAddressRegister(index: PCILayout.bar, size: PCILayout.size)],
            capabilities: capabilities, line: line, sink: messages,
            // One for each queue, one for configuration changes.
            vectorCount: queueCount + 1, messageBAR: PCILayout.messageBAR)
        access = configuration.capabilityOffsets[capabilities.count - 1]
        interrupts = PCIInterrupts(function: configuration, queueCount: queueCount)
        registers = DeviceRegisters(device: device, memory: memory, target: interrupts)
    }

    public var doorbells: DoorbellRegion? {
        DoorbellRegion(
            bar: PCILayout.bar, offset: PCILayout.notify, stride: PCILayout.notifyMultiplier,
            count: UInt64(registers.queueCount))
    }

    // MARK: The region

    public func read(bar: Int, offset: UInt64, width: AccessWidth) -> UInt64 {
        guard bar == PCILayout.bar else { return 0 }
        switch offset {
        case ..<PCILayout.interruptStatus: return readCommon(offset, width)
        // Nothing but a read of the byte itself takes the status.
        case PCILayout.interruptStatus: return UInt64(interrupts.takeStatus())
        case PCILayout.device..<PCILayout.notify: return readDevice(offset &- PCILayout.device, width)
        default: return 0
        }
    }

    public func write(bar: Int, offset: UInt64, width: AccessWidth, value: UInt64) {
        guard bar == PCILayout.bar else { return }
        if offset >= PCILayout.notify { return notify(offset &- PCILayout.notify, width) }
        switch offset {
        case ..<PCILayout.commonLength: writeCommon(offset, width, value)
        case PCILayout.device..<PCILayout.notify:
            let place = offset &- PCILayout.device
            if width == .quad {
                registers.writeConfiguration(offset: place, width: .long, value: value & 0xFFFF_FFFF)
                return registers.writeConfiguration(offset: place &+ 4, width: .long, value: value >> 32)
            }
            registers.writeConfiguration(offset: place, width: width, value: value)
        default: break
        }
    }

    /// A doorbell's place says which queue it is of; what is written says no more.
    @inline(__always)
    private func notify(_ offset: UInt64, _ width: AccessWidth) {
        guard offset & (PCILayout.notifyMultiplier &- 1) == 0, width == .word || width == .long else { return }
        registers.notify(queue: UInt32(truncatingIfNeeded: offset / PCILayout.notifyMultiplier))
    }

    private func readDevice(_ offset: UInt64, _ width: AccessWidth) -> UInt64 {
        let value = registers.readConfiguration(offset: offset, width: width)
        updateGeneration()
        return value
    }

    /// The generation changes when the driver may have read something that has changed since its last read, once: counting
    /// every change in 8 bits, 256 of them would look like none. Source: [VIRTIO1.2 §4.1.4.3.1].
    private func updateGeneration() {
        let now = registers.generation
        state.withLock { state in
            guard now != state.seenGeneration else { return }
            state.seenGeneration = now
            state.generation &+= 1
        }
    }

    // MARK: Common configuration

    /// Offsets of the fields. Source: [VIRTIO1.2 §4.1.4.3].
    private enum Field {
        static let offeredSelect: UInt64 = 0x00, offered: UInt64 = 0x04
        static let acceptedSelect: UInt64 = 0x08, accepted: UInt64 = 0x0C
        static let configurationVector: UInt64 = 0x10, queueCount: UInt64 = 0x12
        static let status: UInt64 = 0x14, generation: UInt64 = 0x15
        static let queueSelect: UInt64 = 0x16, queueSize: UInt64 = 0x18, queueVector: UInt64 = 0x1A
        static let queueEnable: UInt64 = 0x1C, queueNotifyOffset: UInt64 = 0x1E
        static let descriptorsLow: UInt64 = 0x20, descriptorsHigh: UInt64 = 0x24
        static let driverAreaLow: UInt64 = 0x28, driverAreaHigh: UInt64 = 0x2C
        static let deviceAreaLow: UInt64 = 0x30, deviceAreaHigh: UInt64 = 0x34

        /// How wide the field at an offset is; nil where none begins.
        static func width(at offset: UInt64) -> AccessWidth? {
            switch offset {
            case status, generation: .byte
            case configurationVector...0x1E where offset & 1 == 0: .word
            case 0...accepted where offset & 3 == 0, descriptorsLow...deviceAreaHigh where offset & 3 == 0: .long
            default: nil
            }
        }
    }

    /// Any width at any offset: reading has no effect here, so that fields are put together word by word.
    private func readCommon(_ offset: UInt64, _ width: AccessWidth) -> UInt64 {
        let shift = (offset & 3) &* 8
        let low = UInt64(readWord(offset & ~3))
        let both = shift &+ width.bytes &* 8 > 32 ? low | UInt64(readWord((offset & ~3) &+ 4)) << 32 : low
        // Eight bytes that are not aligned are in three words; what is beyond the second reads as zero.
        return both >> shift & width.mask
    }

    private func readWord(_ offset: UInt64) -> UInt32 {
        let state = state.withLock { $0 }
        func pair(_ low: UInt16, _ high: UInt16) -> UInt32 { UInt32(low) | UInt32(high) << 16 }
        switch offset {
        case Field.offeredSelect: return state.offeredWindow
        case Field.offered: return registers.offeredFeatures(window: state.offeredWindow)
        case Field.acceptedSelect: return state.acceptedWindow
        case Field.accepted: return registers.acceptedFeatures(window: state.acceptedWindow)
        case Field.configurationVector:
            return pair(interrupts.configurationVector, UInt16(truncatingIfNeeded: registers.queueCount))
        case Field.status: return pair(UInt16(registers.status.rawValue) | UInt16(state.generation) << 8, state.queue)
        default: break
        }
        guard let queue = registers.queue(UInt32(state.queue)) else {
            // A queue that is not there: a size of 0, and no vector.
            return offset == Field.queueSize ? pair(0, PCIInterrupts.noVector) : 0
        }
        let layout = queue.layout
        switch offset {
        case Field.queueSize: return pair(layout.size, interrupts.vector(of: state.queue))
        case Field.queueEnable: return pair(queue.isEnabled ? 1 : 0, state.queue)
        case Field.descriptorsLow: return UInt32(truncatingIfNeeded: layout.descriptors.rawValue)
        case Field.descriptorsHigh: return UInt32(truncatingIfNeeded: layout.descriptors.rawValue >> 32)
        case Field.driverAreaLow: return UInt32(truncatingIfNeeded: layout.driverArea.rawValue)
        case Field.driverAreaHigh: return UInt32(truncatingIfNeeded: layout.driverArea.rawValue >> 32)
        case Field.deviceAreaLow: return UInt32(truncatingIfNeeded: layout.deviceArea.rawValue)
        case Field.deviceAreaHigh: return UInt32(truncatingIfNeeded: layout.deviceArea.rawValue >> 32)
        default: return 0
        }
    }

    private func writeCommon(_ offset: UInt64, _ width: AccessWidth, _ value: UInt64) {
        if let field = Field.width(at: offset), field == width {
            return writeField(offset, UInt32(truncatingIfNeeded: value & width.mask))
        }
        guard width != .byte, let half = AccessWidth(bytes: Int(width.rawValue / 2)), let field = Field.width(at: offset),
            field.rawValue < width.rawValue
        else { return }
        writeCommon(offset, half, value & half.mask)
        writeCommon(offset &+ half.bytes, half, value >> (half.bytes &* 8))
    }

    private func writeField(_ offset: UInt64, _ value: UInt32) {
        let word = UInt16(truncatingIfNeeded: value)
        switch offset {
        case Field.offeredSelect: state.withLock { $0.offeredWindow = value }
        case Field.acceptedSelect: state.withLock { $0.acceptedWindow = value }
        case Field.accepted: registers.acceptFeatures(value, window: state.withLock { $0.acceptedWindow })
        case Field.configurationVector: interrupts.configurationVector = word
        case Field.status: writeStatus(UInt8(truncatingIfNeeded: value))
        case Field.queueSelect: state.withLock { $0.queue = word }
        default: writeQueueField(offset, value, queue: state.withLock { $0.queue })
        }
    }

    private func writeQueueField(_ offset: UInt64, _ value: UInt32, queue: UInt16) {
        let index = UInt32(queue)
        switch offset {
        case Field.queueSize: setQueueSize(index, value)
        case Field.queueVector: interrupts.setVector(of: queue, to: UInt16(truncatingIfNeeded: value))
        // A queue is not disabled but by a reset. Source: [VIRTIO1.2 §4.1.4.3.2].
        case Field.queueEnable: if value == 1 { registers.setQueueEnabled(index, true) }
        case Field.descriptorsLow: registers.configureQueue(index) { $0.descriptors.setLow(value) }
        case Field.descriptorsHigh: registers.configureQueue(index) { $0.descriptors.setHigh(value) }
        case Field.driverAreaLow: registers.configureQueue(index) { $0.driverArea.setLow(value) }
        case Field.driverAreaHigh: registers.configureQueue(index) { $0.driverArea.setHigh(value) }
        case Field.deviceAreaLow: registers.configureQueue(index) { $0.deviceArea.setLow(value) }
        case Field.deviceAreaHigh: registers.configureQueue(index) { $0.deviceArea.setHigh(value) }
        default: break
        }
    }

    /// The size reads back, and without packed rings it is a power of two that reads back. Source: [VIRTIO1.2 §4.1.4.3.1].
    private func setQueueSize(_ queue: UInt32, _ size: UInt32) {
        let accepted = FeatureSet(rawValue: UInt64(registers.acceptedFeatures(window: 1)) << 32)
        guard accepted.contains(.packedRing) || size & (size &- 1) == 0 else { return }
        registers.setQueueSize(queue, to: size)
    }

    private func writeStatus(_ value: UInt8) {
        registers.writeStatus(value)
        guard value == 0 else { return }
        interrupts.reset()
        state.withLock { $0 = State(generation: $0.generation, seenGeneration: $0.seenGeneration) }
    }

    /// As a reset by the driver: when the machine goes.
    public func reset() { writeStatus(0) }

    // MARK: Accesses through configuration space

    public func readConfiguration(offset: UInt16, width: AccessWidth) -> UInt64 {
        if touchesData(offset, width), let target = accessTarget() {
            let value = read(bar: PCILayout.bar, offset: target.offset, width: target.width)
            configuration.set(
                (0..<Int(target.width.rawValue)).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) },
                at: access + PCILayout.dataOffset)
        }
        return configuration.read(offset: offset, width: width)
    }

    public func writeConfiguration(offset: UInt16, width: AccessWidth, value: UInt64) -> Bool {
        let hasMoved = configuration.write(offset: offset, width: width, value: value)
        if touchesData(offset, width), let target = accessTarget() {
            let data = configuration.read(offset: UInt16(access + PCILayout.dataOffset), width: target.width)
            write(bar: PCILayout.bar, offset: target.offset, width: target.width, value: data)
        }
        return hasMoved
    }

    private func touchesData(_ offset: UInt16, _ width: AccessWidth) -> Bool {
        let start = access + PCILayout.dataOffset
        return Int(offset) < start + 4 && Int(offset) + Int(width.rawValue) > start
    }

    /// What the driver has pointed the capability at; nil where it is none of our registers, or not aligned.
    /// Source: [VIRTIO1.2 §4.1.4.9.1].
    private func accessTarget() -> (offset: UInt64, width: AccessWidth)? {
        let bar = configuration.read(offset: UInt16(access + PCILayout.barOffset), width: .byte)
        let offset = configuration.read(offset: UInt16(access + PCILayout.offsetOffset), width: .long)
        let length = configuration.read(offset: UInt16(access + PCILayout.lengthOffset), width: .long)
        guard bar == UInt64(PCILayout.bar), length <= 4, let width = AccessWidth(bytes: Int(length)),
            offset & (length &- 1) == 0, offset < PCILayout.size
        else { return nil }
        return (offset, width)
    }
}
