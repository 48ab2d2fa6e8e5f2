internal import Synchronization
public import VMCore

/// A device model behind a transport: what is its own beside registers and rings.
///
/// Threads: the transport calls on a vCPU's thread, or the event loop's. The device does its work on the event loop, under a
/// lock of its own, which it may hold while it gives requests back and signals.
///
/// Lock order: transport, device, the signal's, interrupt controller.
public protocol VirtioDevice: AnyObject, Sendable {
    var kind: DeviceKind { get }

    /// What the device offers of its own and, mostly, `FeatureSet.common`. Does not change.
    var features: FeatureSet { get }

    /// The most descriptors each queue can have; powers of two. Does not change.
    var queueSizes: [UInt16] { get }

    /// The device's configuration space as it is now. What lies behind reads as zero.
    func configuration() -> [UInt8]

    /// A driver's write to the configuration space: `offset` and `width` are the guest's.
    func writeConfiguration(offset: UInt64, width: AccessWidth, value: UInt64)

    /// The driver is ready (DRIVER_OK): from now on the queues are the device's to look at, without waiting for a notification.
    func start(_ session: DeviceSession)

    /// Buffers were made available on a queue that exists. Must not block. One that was on its way when the driver reset the
    /// device may still come after `stop`.
    func notify(queue: Int)

    /// The driver resets the device, which may not have got as far as being started. When it returns, nothing of the session's
    /// is touched any more: neither its queues nor its buffers; and what a driver has set is as it was before.
    func stop()

    /// What the device has done, for `--stats`: names and counts.
    var statistics: [(name: String, value: UInt64)] { get }
}

extension VirtioDevice {
    public func writeConfiguration(offset: UInt64, width: AccessWidth, value: UInt64) {}
    public var statistics: [(name: String, value: UInt64)] { [] }
}

/// What a driver and a device have agreed on, from DRIVER_OK to the reset.
public struct DeviceSession: Sendable {
    public let features: FeatureSet
    /// nil for a queue that the driver does not use.
    public let queues: [Virtqueue?]
    public let memory: GuestMemory
    public let signal: DeviceSignal

    public init(features: FeatureSet, queues: [Virtqueue?], memory: GuestMemory, signal: DeviceSignal) {
        self.features = features
        self.queues = queues
        self.memory = memory
        self.signal = signal
    }

    /// The queue of that number, if the driver uses it.
    public func queue(_ index: Int) -> Virtqueue? { queues.indices.contains(index) ? queues[index] : nil }

    /// Interrupts the driver for what was completed on a queue, if it wants that. Once after each batch.
    @inline(__always)
    public func signalUsed(_ index: Int, _ queue: Virtqueue) {
        if queue.needsInterrupt() { signal.target.bufferUsed(queue: index) }
    }

    /// A queue is broken, or a request could not have come from a sane driver: the device is of no use before it is reset.
    public func fail() { signal.requireReset() }
}

/// Who is told of interrupts: a transport. Called with a device's lock held; must not call back.
public protocol SignalTarget: AnyObject, Sendable {
    func bufferUsed(queue: Int)
    func configurationChanged()
}

/// How a device reaches its driver; lasts as long as the device, through all sessions.
public final class DeviceSignal: Sendable {
    let target: any SignalTarget
    private let resetNeeded = Atomic<Bool>(false)
    private let changes = Atomic<UInt32>(0)
    private let isLive = Atomic<Bool>(false)

    init(target: any SignalTarget) { self.target = target }

    /// Changes whenever the configuration space does.
    public var generation: UInt32 { changes.load(ordering: .acquiring) }

    var needsReset: Bool { resetNeeded.load(ordering: .acquiring) }

    /// Tells the driver that the configuration space has changed. Before DRIVER_OK only the generation tells.
    public func configurationChanged() {
        changes.wrappingAdd(1, ordering: .acquiringAndReleasing)
        if isLive.load(ordering: .acquiring) { target.configurationChanged() }
    }

    /// Source: [VIRTIO1.2 §2.1.2] DEVICE_NEEDS_RESET.
    func requireReset() {
        guard !resetNeeded.exchange(true, ordering: .acquiringAndReleasing) else { return }
        if isLive.load(ordering: .acquiring) { target.configurationChanged() }
    }

    func begin() { isLive.store(true, ordering: .releasing) }

    func end() {
        isLive.store(false, ordering: .releasing)
        resetNeeded.store(false, ordering: .releasing)
    }
}
