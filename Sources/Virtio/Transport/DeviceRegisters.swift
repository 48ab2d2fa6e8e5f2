internal import Synchronization
public import VMCore

/// What the registers of all transports say of one device: status, features, queues. A transport gives them addresses.
///
/// The order that a driver has to keep is kept here, whatever the guest does: features are settled by FEATURES_OK, a queue by
/// being enabled, all queues by DRIVER_OK. What comes out of order is ignored.
///
/// Source: [VIRTIO1.2 §3.1], [VIRTIO1.2 §2.1].
public final class DeviceRegisters: Sendable {
    public let device: any VirtioDevice
    /// What the device and its transport offer.
    public let offered: FeatureSet
    public let signal: DeviceSignal
    private let memory: GuestMemory
    private let state: Mutex<State>
    /// Whether notifications are passed on; apart from the lock, which is not taken for them.
    private let isRunning = Atomic<Bool>(false)
    public let queueCount: Int

    private struct State {
        var status: DeviceStatus = []
        var accepted: FeatureSet = []
        var queues: [QueueState]
    }

    /// One queue as the driver has set it up so far.
    public struct QueueState: Hashable, Sendable {
        public internal(set) var layout: QueueLayout
        public internal(set) var isEnabled = false
        public let largest: UInt16
    }

    /// - Parameter target: who tells the driver of interrupts: the transport's own part.
    public init(device: any VirtioDevice, memory: GuestMemory, target: any SignalTarget) {
        self.device = device
        self.memory = memory
        offered = device.features
        signal = DeviceSignal(target: target)
        let queues = device.queueSizes.map { size in Self.fresh(largest: size) }
        queueCount = queues.count
        state = Mutex(State(queues: queues))
    }

    private static func fresh(largest: UInt16) -> QueueState {
        let nowhere = GuestAddress(0)
        return QueueState(
            layout: QueueLayout(size: largest, descriptors: nowhere, driverArea: nowhere, deviceArea: nowhere),
            largest: largest)
    }

    // MARK: Status

    public var status: DeviceStatus {
        let status = state.withLock { $0.status }
        return signal.needsReset ? status.union(.needsReset) : status
    }

    /// A driver's write to the status register. Zero resets; otherwise bits are only ever added.
    public func writeStatus(_ value: UInt8) {
        state.withLock { state in
            guard value != 0 else { return reset(&state) }
            var added = DeviceStatus(rawValue: value).subtracting(.needsReset).subtracting(state.status)
            if added.contains(.featuresOK), !isAcceptable(state.accepted) {
                // Not taken: the driver reads it back and sees. Source: [VIRTIO1.2 §2.2.2].
                added.remove(.featuresOK)
            }
            let isStarting = added.contains(.driverOK) && state.status.union(added).contains(.featuresOK)
            if added.contains(.driverOK), !isStarting { added.remove(.driverOK) }
            state.status.formUnion(added)
            if isStarting { start(&state) }
        }
    }

    private func isAcceptable(_ features: FeatureSet) -> Bool {
        features.isSubset(of: offered) && features.contains(.version1)
    }

    private func start(_ state: inout State) {
        signal.begin()
        do throws(QueueError) {
            var queues: [Virtqueue?] = []
            for queue in state.queues {
                guard queue.isEnabled else {
                    queues.append(nil)
                    continue
                }
                queues.append(try Virtqueue(queue.layout, features: state.accepted, memory: memory))
            }
            // Before the device begins: another processor may answer its first interrupt with a notification.
            isRunning.store(true, ordering: .releasing)
            device.start(DeviceSession(features: state.accepted, queues: queues, memory: memory, signal: signal))
        } catch {
            signal.requireReset()
        }
    }

    private func reset(_ state: inout State) {
        // Whoever runs at this moment is past the check already: the device asks again under its own lock.
        // One that was not started may have been written to: what a driver chose ends with it.
        if isRunning.exchange(false, ordering: .acquiringAndReleasing) || !state.status.isEmpty { device.stop() }
        signal.end()
        state.status = []
        state.accepted = []
        for index in state.queues.indices { state.queues[index] = Self.fresh(largest: state.queues[index].largest) }
    }

    /// As a reset by the driver: when the machine goes.
    public func reset() { state.withLock { reset(&$0) } }

    // MARK: Features

    /// 32 of the offered features: the `window`th; none beyond the second.
    public func offeredFeatures(window: UInt32) -> UInt32 {
        window < 2 ? UInt32(truncatingIfNeeded: offered.rawValue >> (UInt64(window) &* 32)) : 0
    }

    public func acceptedFeatures(window: UInt32) -> UInt32 {
        window < 2 ? UInt32(truncatingIfNeeded: state.withLock { $0.accepted.rawValue } >> (UInt64(window) &* 32)) : 0
    }

    public func acceptFeatures(_ value: UInt32, window: UInt32) {
        guard window < 2 else { return }
        state.withLock { state in
            guard !state.status.contains(.featuresOK) else { return }
            let shift = UInt64(window) &* 32
            let rest = state.accepted.rawValue & ~(0xFFFF_FFFF << shift)
            state.accepted = FeatureSet(rawValue: rest | UInt64(value) << shift)
        }
    }

    // MARK: Queues

    /// nil for a queue that the device has not.
    public func queue(_ index: UInt32) -> QueueState? {
        state.withLock { state in
            guard let index = Int(exactly: index), index < state.queues.count else { return nil }
            return state.queues[index]
        }
    }

    /// Changes a queue that is not enabled yet, before DRIVER_OK; otherwise nothing.
    public func configureQueue(_ index: UInt32, _ change: (inout QueueLayout) -> Void) {
        state.withLock { state in
            guard let index = Int(exactly: index), index < state.queues.count, !state.queues[index].isEnabled,
                !state.status.contains(.driverOK)
            else { return }
            change(&state.queues[index].layout)
        }
    }

    /// A size written by the driver, as wide as the register is: one that no queue can have is not taken.
    public func setQueueSize(_ index: UInt32, to size: UInt32) {
        state.withLock { state in
            guard let index = Int(exactly: index), index < state.queues.count, !state.queues[index].isEnabled,
                !state.status.contains(.driverOK), size > 0, size <= UInt32(state.queues[index].largest)
            else { return }
            state.queues[index].layout.size = UInt16(truncatingIfNeeded: size)
        }
    }

    public func setQueueEnabled(_ index: UInt32, _ isEnabled: Bool) {
        state.withLock { state in
            guard let index = Int(exactly: index), index < state.queues.count, !state.status.contains(.driverOK) else { return }
            state.queues[index].isEnabled = isEnabled
        }
    }

    /// A driver's notification. Any thread; takes no lock.
    @inline(__always)
    public func notify(queue: UInt32) {
        guard isRunning.load(ordering: .acquiring), queue < UInt32(truncatingIfNeeded: queueCount) else { return }
        device.notify(queue: Int(truncatingIfNeeded: queue))
    }

    // MARK: Configuration space

    public var generation: UInt32 { signal.generation }

    public func readConfiguration(offset: UInt64, width: AccessWidth) -> UInt64 {
        let bytes = device.configuration()
        var value: UInt64 = 0
        for index in 0..<width.bytes {
            let (place, overflow) = offset.addingReportingOverflow(index)
            guard !overflow, place < UInt64(bytes.count) else { break }
            value |= UInt64(bytes[Int(place)]) << (index &* 8)
        }
        return value
    }

    public func writeConfiguration(offset: UInt64, width: AccessWidth, value: UInt64) {
        device.writeConfiguration(offset: offset, width: width, value: value & width.mask)
    }
}
