internal import CHost
public import VMCore

/// Where a driver has put a queue, and how long it is.
public struct QueueLayout: Hashable, Sendable, BitwiseCopyable {
    /// Descriptors; 0 is no queue.
    public var size: UInt16
    /// The descriptor table, or the packed ring.
    public var descriptors: GuestAddress
    /// The available ring, or the driver's event suppression structure.
    public var driverArea: GuestAddress
    /// The used ring, or the device's event suppression structure.
    public var deviceArea: GuestAddress

    public init(size: UInt16, descriptors: GuestAddress, driverArea: GuestAddress, deviceArea: GuestAddress) {
        self.size = size
        self.descriptors = descriptors
        self.driverArea = driverArea
        self.deviceArea = deviceArea
    }

    /// Most descriptors of a queue. Source: [VIRTIO1.2 §2.6].
    public static let largestSize: UInt16 = 32_768
}

/// The device's side of one virtqueue, in either layout.
///
/// Not synchronised: a device uses its queues under its own lock, or on one thread.
///
/// Every word that the driver may change is read in one access, and what was read is checked. After the first thing that
/// no device could go on from the queue is broken: it yields nothing more, and `error` says why.
@safe public final class Virtqueue: @unchecked Sendable {
    /// What `next` found.
    public enum Step: Hashable, Sendable {
        /// The chain holds a request, to be given back by `complete`.
        case request
        /// The driver has made nothing further available.
        case empty
        /// `error` says what is wrong.
        case broken
    }

    public let size: UInt16
    public let isPacked: Bool
    /// Why the queue yields nothing more.
    public private(set) var error: QueueError?

    private let memory: GuestMemory
    // Unchecked: one thread at a time has the queue, and the checks would be half of what a request costs.
    @exclusivity(unchecked) private var split: SplitRing
    @exclusivity(unchecked) private var packed: PackedRing

    /// - Throws: `QueueError` where the layout is not one that a queue can have.
    public init(_ layout: QueueLayout, features: FeatureSet, memory: GuestMemory) throws(QueueError) {
        size = layout.size
        isPacked = features.contains(.packedRing)
        self.memory = memory
        if isPacked {
            unsafe packed = try PackedRing(layout, features: features, memory: memory)
            unsafe split = SplitRing()
        } else {
            unsafe split = try SplitRing(layout, features: features, memory: memory)
            unsafe packed = PackedRing()
        }
    }

    /// Takes the next request, if there is one.
    ///
    /// - Parameter chain: is filled; keep it until `complete`.
    /// - Complexity: as many descriptors as the chain has, at most 1024 and one.
    public func next(_ chain: DescriptorChain) -> Step {
        guard error == nil else { return .broken }
        do throws(QueueError) {
            let found = unsafe isPacked ? try packed.next(chain, memory) : try split.next(chain, memory)
            return found ? .request : .empty
        } catch {
            self.error = error
            return .broken
        }
    }

    /// Gives a request back to the driver.
    ///
    /// - Parameter written: bytes written to the writable buffers, from the first on; no more than they have.
    public func complete(_ chain: DescriptorChain, written: UInt64) {
        stage(chain, written: written)
        publish()
    }

    /// Gives a request back, but lets the driver see it only with `publish`: several that make one are seen together.
    ///
    /// - Parameter written: as of `complete`.
    public func stage(_ chain: DescriptorChain, written: UInt64) {
        let count = min(written, chain.writableBytes)
        // Before the driver can know of it: what it executes next may be what was written.
        chain.tellWritten(count, to: memory)
        let length = UInt32(truncatingIfNeeded: min(count, UInt64(UInt32.max)))
        if isPacked {
            unsafe packed.stage(chain, length, memory)
        } else {
            unsafe split.stage(chain, length, memory)
        }
    }

    /// Lets the driver see what was staged.
    public func publish() {
        if isPacked { unsafe packed.publish(memory) } else { unsafe split.publish(memory) }
    }

    /// Whether the driver is to be interrupted for what was completed since the last time this was asked.
    /// Ask once after each batch.
    public func needsInterrupt() -> Bool {
        chost_fence()
        return unsafe isPacked ? packed.needsInterrupt() : split.needsInterrupt()
    }

    /// Asks the driver for notifications from here on.
    /// - Returns: whether more was made available meanwhile, of which it may not notify.
    public func enableNotifications() -> Bool {
        guard error == nil else { return false }
        if isPacked { unsafe packed.setNotifications(true, memory) } else { unsafe split.setNotifications(true, memory) }
        chost_fence()
        return unsafe isPacked ? packed.hasMore : split.hasMore
    }

    /// Asks the driver for no notifications until `enableNotifications`. It may send some all the same.
    public func disableNotifications() {
        guard error == nil else { return }
        if isPacked { unsafe packed.setNotifications(false, memory) } else { unsafe split.setNotifications(false, memory) }
    }

    /// Breaks the queue for what a request itself holds.
    public func fail(_ error: QueueError) { if self.error == nil { self.error = error } }

    /// Host address of `count` bytes that lie together, checked.
    static func part(
        _ address: GuestAddress, _ count: UInt64, alignment: UInt64, _ memory: GuestMemory
    ) throws(QueueError) -> UInt {
        guard address.rawValue & (alignment &- 1) == 0 else { throw .misaligned(address) }
        guard let bytes = unsafe memory.hostBytes(at: address, count: count) else {
            throw .outsideMemory(address: address, count: count)
        }
        return UInt(bitPattern: bytes.baseAddress)
    }
}

/// One descriptor as the rings hold it, read in two accesses. The fields behind the length differ between the layouts.
struct RawDescriptor: BitwiseCopyable {
    var address: UInt64
    private var rest: UInt64

    /// - Parameter at: a host address, a multiple of 8.
    @inline(__always)
    init(at place: UInt) {
        address = chost_load64(place)
        rest = chost_load64(place &+ 8)
    }

    var count: UInt32 { UInt32(truncatingIfNeeded: rest) }
    /// Split: flags. Packed: the buffer's identifier.
    var third: UInt16 { UInt16(truncatingIfNeeded: rest >> 32) }
    /// Split: the next descriptor. Packed: flags.
    var fourth: UInt16 { UInt16(truncatingIfNeeded: rest >> 48) }

    /// Where the table is that this descriptor is of: its host address, and how many descriptors it has.
    /// Source: [VIRTIO1.2 §2.6.5.3], [VIRTIO1.2 §2.7.7].
    @inline(__always)
    func indirectTable(_ memory: GuestMemory) throws(QueueError) -> (base: UInt, entries: UInt32) {
        let entries = count / 16
        guard count > 0, count % 16 == 0, entries <= UInt32(DescriptorChain.capacity) else { throw .badIndirectTable(count: count) }
        return (try Virtqueue.part(GuestAddress(address), UInt64(count), alignment: 1, memory), entries)
    }

    static let next: UInt16 = 1
    static let write: UInt16 = 2
    static let indirect: UInt16 = 4
    static let byteCount: UInt64 = 16
}

/// Whether a side that asked to be told at `event` is to be told, when an index went from `old` to `new`: all three wrap.
/// Source: [VIRTIO1.2 §2.6.7.2].
@inline(__always)
func indexPasses(_ event: UInt16, from old: UInt16, to new: UInt16) -> Bool {
    new &- event &- 1 < new &- old
}
