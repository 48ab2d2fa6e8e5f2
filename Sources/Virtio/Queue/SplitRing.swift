internal import CHost
internal import VMCore

/// A queue in the split layout: a descriptor table, an available ring that the driver writes, a used ring that the device does.
/// Source: [VIRTIO1.2 §2.6].
struct SplitRing {
    private var mask: UInt16 = 0
    private var size: UInt16 = 0
    private var usesEventIndex = false
    // Host addresses; their bytes were checked to lie in guest memory, which does not move.
    private var descriptors: UInt = 0
    private var available: UInt = 0
    private var used: UInt = 0
    private var usedAddress = GuestAddress(0)

    private var nextAvailable: UInt16 = 0
    private var nextUsed: UInt16 = 0
    /// The used index at the last look whether to interrupt.
    private var signalled: UInt16 = 0

    /// No ring.
    init() {}

    init(_ layout: QueueLayout, features: FeatureSet, memory: GuestMemory) throws(QueueError) {
        let count = layout.size
        guard count > 0, count <= QueueLayout.largestSize, count & (count &- 1) == 0 else { throw .badSize(count) }
        size = count
        mask = count &- 1
        usesEventIndex = features.contains(.eventIndex)
        descriptors = try Virtqueue.part(layout.descriptors, UInt64(count) &* 16, alignment: 16, memory)
        available = try Virtqueue.part(layout.driverArea, UInt64(count) &* 2 &+ 6, alignment: 2, memory)
        used = try Virtqueue.part(layout.deviceArea, UInt64(count) &* 8 &+ 6, alignment: 4, memory)
        usedAddress = layout.deviceArea
    }

    // Offsets in the available ring: flags, index, entries, used_event. In the used ring: flags, index, entries, avail_event.
    private var availableIndex: UInt16 { chost_load16(available &+ 2) }

    var hasMore: Bool { availableIndex != nextAvailable }

    @inline(__always)
    mutating func next(_ chain: DescriptorChain, _ memory: GuestMemory) throws(QueueError) -> Bool {
        let index = availableIndex
        guard index != nextAvailable else { return false }
        // Neither may more be available than there are descriptors, nor more be out than there are: both would be the
        // same descriptor twice.
        guard index &- nextAvailable <= size, nextAvailable &- nextUsed < size else {
            throw .overrun(available: max(index &- nextAvailable, nextAvailable &- nextUsed))
        }
        let head = chost_load16(available &+ 4 &+ UInt(nextAvailable & mask) &* 2)
        nextAvailable &+= 1
        chain.clear()
        chain.identifier = head
        try walk(from: head, chain, memory)
        return true
    }

    private func walk(from head: UInt16, _ chain: DescriptorChain, _ memory: GuestMemory) throws(QueueError) {
        var index = head
        var rest = size
        while true {
            guard index < size else { throw .badIndex(index) }
            guard rest > 0 else { throw .endlessChain }
            rest &-= 1
            let descriptor = RawDescriptor(at: descriptors &+ UInt(index) &* 16)
            let flags = descriptor.third
            if flags & RawDescriptor.indirect != 0 {
                guard flags & RawDescriptor.next == 0 else { throw .badIndirectTable(count: descriptor.count) }
                return try walkTable(descriptor, chain, memory)
            }
            if let error = chain.append(
                address: GuestAddress(descriptor.address), count: descriptor.count,
                isWritable: flags & RawDescriptor.write != 0, memory: memory)
            {
                throw error
            }
            guard flags & RawDescriptor.next != 0 else { return }
            index = descriptor.fourth
        }
    }

    /// Source: [VIRTIO1.2 §2.6.5.3].
    private func walkTable(
        _ table: RawDescriptor, _ chain: DescriptorChain, _ memory: GuestMemory
    ) throws(QueueError) {
        let (base, entries) = try table.indirectTable(memory)
        var index: UInt32 = 0
        var rest = entries
        while true {
            guard index < entries else { throw .badIndex(UInt16(truncatingIfNeeded: index)) }
            guard rest > 0 else { throw .endlessChain }
            rest &-= 1
            let descriptor = RawDescriptor(at: base &+ UInt(index) &* 16)
            let flags = descriptor.third
            guard flags & RawDescriptor.indirect == 0 else { throw .badIndirectTable(count: table.count) }
            if let error = chain.append(
                address: GuestAddress(descriptor.address), count: descriptor.count,
                isWritable: flags & RawDescriptor.write != 0, memory: memory)
            {
                throw error
            }
            guard flags & RawDescriptor.next != 0 else { return }
            index = UInt32(descriptor.fourth)
        }
    }

    @inline(__always)
    mutating func stage(_ chain: DescriptorChain, _ length: UInt32, _ memory: GuestMemory) {
        let offset = 4 &+ UInt(nextUsed & mask) &* 8
        chost_store64(used &+ offset, UInt64(chain.identifier) | UInt64(length) << 32)
        nextUsed &+= 1
        memory.written(at: GuestAddress(usedAddress.rawValue &+ UInt64(offset)), count: 8)
    }

    @inline(__always)
    func publish(_ memory: GuestMemory) {
        chost_store16(used &+ 2, nextUsed)
        memory.written(at: usedAddress, count: 4)
    }

    @inline(__always)
    mutating func needsInterrupt() -> Bool {
        let (old, new) = (signalled, nextUsed)
        signalled = new
        guard old != new else { return false }
        if usesEventIndex {
            return indexPasses(chost_load16(available &+ 4 &+ UInt(size) &* 2), from: old, to: new)
        }
        return chost_load16(available) & 1 == 0
    }

    mutating func setNotifications(_ wanted: Bool, _ memory: GuestMemory) {
        if usesEventIndex {
            // Off: an index that is passed last of all.
            let place = 4 &+ UInt(size) &* 8
            chost_store16(used &+ place, wanted ? nextAvailable : nextAvailable &- 1)
            memory.written(at: GuestAddress(usedAddress.rawValue &+ UInt64(place)), count: 2)
        } else {
            chost_store16(used, wanted ? 0 : 1)
            memory.written(at: usedAddress, count: 2)
        }
    }
}
