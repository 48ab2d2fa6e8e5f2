internal import CHost
internal import VMCore

/// A queue in the packed layout: one ring of descriptors that driver and device both write, and a word on each side for what is
/// to be told. Source: [VIRTIO1.2 §2.7].
struct PackedRing {
    private var size: UInt16 = 0
    private var usesEventIndex = false
    private var ring: UInt = 0
    private var driverEvent: UInt = 0
    private var deviceEvent: UInt = 0
    private var ringAddress = GuestAddress(0)
    private var deviceEventAddress = GuestAddress(0)

    private var nextAvailable: UInt16 = 0
    private var availableWraps = true
    private var nextUsed: UInt16 = 0
    private var usedWraps = true
    /// Descriptors taken and not yet given back.
    private var outstanding: UInt16 = 0
    /// Where used descriptors went from at the last look whether to interrupt, and how many there have been since.
    private var completedSinceSignal: UInt32 = 0
    /// Where the first used descriptor is that the driver does not see yet, and its flags.
    private var staged: (index: UInt16, flags: UInt16)?

    private static let available: UInt16 = 1 << 7
    private static let used: UInt16 = 1 << 15

    /// No ring.
    init() {}

    init(_ layout: QueueLayout, features: FeatureSet, memory: GuestMemory) throws(QueueError) {
        guard layout.size > 0, layout.size <= QueueLayout.largestSize else { throw .badSize(layout.size) }
        size = layout.size
        usesEventIndex = features.contains(.eventIndex)
        ring = try Virtqueue.part(layout.descriptors, UInt64(size) &* 16, alignment: 16, memory)
        driverEvent = try Virtqueue.part(layout.driverArea, 4, alignment: 4, memory)
        deviceEvent = try Virtqueue.part(layout.deviceArea, 4, alignment: 4, memory)
        ringAddress = layout.descriptors
        deviceEventAddress = layout.deviceArea
    }

    private func place(_ index: UInt16) -> UInt { ring &+ UInt(index) &* 16 }

    /// Whether the descriptor at `index` is available: its two flags differ, the available one equal to the wrap counter.
    private func isAvailable(_ flags: UInt16) -> Bool {
        (flags & Self.available != 0) == availableWraps && (flags & Self.used != 0) != availableWraps
    }

    var hasMore: Bool { isAvailable(chost_load16(place(nextAvailable) &+ 14)) }

    mutating func next(_ chain: DescriptorChain, _ memory: GuestMemory) throws(QueueError) -> Bool {
        // The flags first: the rest of the descriptor is the driver's until they say otherwise.
        guard isAvailable(chost_load16(place(nextAvailable) &+ 14)) else { return false }
        chain.clear()
        var index = nextAvailable
        var wraps = availableWraps
        var taken: UInt16 = 0
        while true {
            guard outstanding < size else { throw taken > 0 ? .endlessChain : .overrun(available: outstanding) }
            let descriptor = RawDescriptor(at: place(index))
            let flags = descriptor.fourth
            outstanding &+= 1
            taken &+= 1
            index &+= 1
            if index == size {
                index = 0
                wraps.toggle()
            }
            chain.identifier = descriptor.third
            if flags & RawDescriptor.indirect != 0 {
                guard flags & RawDescriptor.next == 0, taken == 1 else { throw .badIndirectTable(count: descriptor.count) }
                try walkTable(descriptor, chain, memory)
                break
            }
            if let error = chain.append(
                address: GuestAddress(descriptor.address), count: descriptor.count,
                isWritable: flags & RawDescriptor.write != 0, memory: memory)
            {
                throw error
            }
            guard flags & RawDescriptor.next != 0 else { break }
        }
        chain.ringDescriptors = taken
        nextAvailable = index
        availableWraps = wraps
        return true
    }

    /// All of the table's descriptors are the chain's, one after the other. Source: [VIRTIO1.2 §2.7.7].
    private func walkTable(
        _ table: RawDescriptor, _ chain: DescriptorChain, _ memory: GuestMemory
    ) throws(QueueError) {
        let (base, entries) = try table.indirectTable(memory)
        for index in 0..<UInt(entries) {
            let descriptor = RawDescriptor(at: base &+ index &* 16)
            guard descriptor.fourth & RawDescriptor.indirect == 0 else { throw .badIndirectTable(count: table.count) }
            if let error = chain.append(
                address: GuestAddress(descriptor.address), count: descriptor.count,
                isWritable: descriptor.fourth & RawDescriptor.write != 0, memory: memory)
            {
                throw error
            }
        }
    }

    mutating func stage(_ chain: DescriptorChain, _ length: UInt32, _ memory: GuestMemory) {
        let target = place(nextUsed)
        let address = ringAddress.rawValue &+ UInt64(nextUsed) &* 16
        var flags: UInt16 = length > 0 ? RawDescriptor.write : 0
        if usedWraps { flags |= Self.available | Self.used }
        chost_store32(target &+ 8, length)
        chost_store16(target &+ 12, chain.identifier)
        // Last, and not before the others: it is what makes the descriptor used. The first one's of several comes last of
        // all, in `publish`: the driver looks at them in their order. Source: [VIRTIO1.2 §2.7].
        if staged == nil { staged = (nextUsed, flags) } else { chost_store16(target &+ 14, flags) }
        memory.written(at: GuestAddress(address), count: 16)
        outstanding &-= min(outstanding, chain.ringDescriptors)
        completedSinceSignal &+= UInt32(chain.ringDescriptors)
        nextUsed &+= chain.ringDescriptors
        if nextUsed >= size {
            nextUsed &-= size
            usedWraps.toggle()
        }
    }

    mutating func publish(_ memory: GuestMemory) {
        guard let (index, flags) = staged else { return }
        staged = nil
        chost_store16(place(index) &+ 14, flags)
        memory.written(at: GuestAddress(ringAddress.rawValue &+ UInt64(index) &* 16), count: 16)
    }

    mutating func needsInterrupt() -> Bool {
        let count = completedSinceSignal
        completedSinceSignal = 0
        guard count > 0 else { return false }
        let event = chost_load32(driverEvent)
        switch event >> 16 & 3 {
        case 1: return false
        case 2 where usesEventIndex:
            // Where it asks to be told, as a number below where the next used descriptor goes. Source: [VIRTIO1.2 §2.7.21].
            let offset = UInt16(truncatingIfNeeded: event & 0x7FFF)
            var asked = UInt32(offset)
            let new = UInt32(nextUsed)
            if (event & 0x8000 != 0) != usedWraps {
                // On the lap before this one.
                guard new &+ UInt32(size) > asked else { return false }
                return new &+ UInt32(size) &- asked &- 1 < count
            }
            if asked >= new { return false }
            asked = new &- asked &- 1
            return asked < count
        default: return true
        }
    }

    mutating func setNotifications(_ wanted: Bool, _ memory: GuestMemory) {
        var word: UInt32 = wanted ? 0 : 1 << 16
        if wanted, usesEventIndex { word = 2 << 16 | UInt32(nextAvailable) | (availableWraps ? 0x8000 : 0) }
        chost_store32(deviceEvent, word)
        memory.written(at: deviceEventAddress, count: 4)
    }
}
