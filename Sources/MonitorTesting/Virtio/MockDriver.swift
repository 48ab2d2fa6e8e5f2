public import VMCore
public import Virtio

/// A driver for any virtio device, with no guest: it negotiates, lays out rings in guest memory, and sends requests.
///
/// It keeps the rules; a test that breaks them writes into the rings, whose places it says.
public final class MockDriver {
    public let transport: any DriverTransport
    public let memory: GuestMemory
    public private(set) var features: FeatureSet = []
    public private(set) var queues: [DriverQueue] = []
    private var free: UInt64

    /// - Parameter buffers: where in guest memory rings and buffers are put, from low to high.
    public init(_ transport: any DriverTransport, memory: GuestMemory, buffers: GuestAddress = GuestAddress(0x10_0000)) {
        self.transport = transport
        self.memory = memory
        free = buffers.rawValue
    }

    /// Takes guest memory for a test's use.
    public func allocate(_ count: Int, alignment: UInt64 = 16) -> GuestAddress {
        free = (free &+ alignment &- 1) & ~(alignment &- 1)
        defer { free &+= UInt64(count) }
        return GuestAddress(free)
    }

    /// Resets the device and brings it up to DRIVER_OK.
    ///
    /// - Parameters:
    ///   - wanted: features to accept, of those offered; VERSION_1 always.
    ///   - size: descriptors of each queue; nil for the most that it can have.
    ///   - queueCount: how many queues to use; nil for all.
    ///   - leavingOut: those of them that the device is not told of.
    /// - Returns: whether the device accepted the features.
    @discardableResult
    public func start(
        _ wanted: FeatureSet, size: UInt16? = nil, queueCount: Int? = nil, leavingOut: Set<UInt16> = []
    ) -> Bool {
        transport.writeStatus([])
        transport.writeStatus(.acknowledge)
        transport.writeStatus([.acknowledge, .driver])
        features = wanted.union(.version1).intersection(transport.readFeatures())
        transport.writeFeatures(features)
        transport.writeStatus([.acknowledge, .driver, .featuresOK])
        guard transport.readStatus().contains(.featuresOK) else { return false }
        queues = []
        for index in 0..<UInt16(queueCount ?? transport.registers.queueCount) {
            let size = min(size ?? .max, transport.largestSize(of: index))
            let ring = DriverQueue(index: index, size: size, features: features, driver: self)
            if !leavingOut.contains(index) { transport.setUp(queue: index, ring.layout) }
            queues.append(ring)
        }
        transport.writeStatus([.acknowledge, .driver, .featuresOK, .driverOK])
        return true
    }
}

/// The driver's side of one queue, in either layout.
public final class DriverQueue {
    public let index: UInt16
    public let layout: QueueLayout
    private let memory: GuestMemory
    private unowned let driver: MockDriver
    private let isPacked: Bool
    private let usesEventIndex: Bool
    /// Whether requests of more than one buffer go through a table of their own.
    public var usesIndirectTables: Bool

    private var freeDescriptors: [UInt16]
    private var chains: [UInt16: Request] = [:]
    private var available: UInt16 = 0
    private var used: UInt16 = 0
    private var availableWraps = true
    private var usedWraps = true
    private var notified: UInt16 = 0

    /// A request that is under way.
    public struct Request {
        public var readable: [(address: GuestAddress, count: Int)]
        public var writable: [(address: GuestAddress, count: Int)]
        var descriptors: [UInt16]
    }

    /// A request that the device has given back.
    public struct Completion {
        public var identifier: UInt16
        /// As the device reports it.
        public var written: UInt32
        public var request: Request
        /// What is in the writable buffers, all of them, one after the other.
        public var bytes: [UInt8]
    }

    init(index: UInt16, size: UInt16, features: FeatureSet, driver: MockDriver) {
        self.index = index
        self.driver = driver
        memory = driver.memory
        isPacked = features.contains(.packedRing)
        usesEventIndex = features.contains(.eventIndex)
        usesIndirectTables = features.contains(.indirectDescriptors)
        layout = QueueLayout(
            size: size, descriptors: driver.allocate(Int(size) * 16, alignment: 4096),
            driverArea: driver.allocate(Int(size) * 2 + 6, alignment: 64),
            deviceArea: driver.allocate(Int(size) * 8 + 6, alignment: 64))
        freeDescriptors = (0..<size).reversed().map { $0 }
        try? memory.zero(at: layout.descriptors, count: UInt64(size) * 16)
        try? memory.zero(at: layout.driverArea, count: UInt64(size) * 2 + 6)
        try? memory.zero(at: layout.deviceArea, count: UInt64(size) * 8 + 6)
    }

    private func place(_ base: GuestAddress, _ offset: Int) -> GuestAddress { GuestAddress(base.rawValue &+ UInt64(offset)) }

    private func descriptor(_ buffer: (address: GuestAddress, count: Int), third: UInt16, fourth: UInt16) -> (UInt64, UInt64) {
        (buffer.address.rawValue, UInt64(UInt32(buffer.count)) | UInt64(third) << 32 | UInt64(fourth) << 48)
    }

    private func store(_ words: (UInt64, UInt64), at address: GuestAddress) throws {
        try memory.store(words.0, at: address)
        try memory.store(words.1, at: place(address, 8))
    }

    /// Makes a request available: these bytes for the device to read, and room for it to write. Notifies nobody.
    ///
    /// - Returns: the chain's identifier; nil where the queue has no room.
    @discardableResult
    public func add(readable: [[UInt8]] = [], writable: [Int] = []) throws -> UInt16? {
        var request = Request(readable: [], writable: [], descriptors: [])
        for bytes in readable {
            let address = driver.allocate(max(1, bytes.count))
            try memory.write(bytes, at: address)
            request.readable.append((address, bytes.count))
        }
        for count in writable {
            let address = driver.allocate(max(1, count))
            try memory.zero(at: address, count: UInt64(count))
            request.writable.append((address, count))
        }
        return try add(request.readable, request.writable)
    }

    /// As `add(readable:writable:)`, with buffers that are in place already.
    @discardableResult
    public func add(
        _ readable: [(address: GuestAddress, count: Int)], _ writable: [(address: GuestAddress, count: Int)]
    ) throws -> UInt16? {
        let buffers = readable.map { ($0, false) } + writable.map { ($0, true) }
        precondition(!buffers.isEmpty, "a chain has a descriptor")
        let isIndirect = usesIndirectTables && buffers.count > 1
        let needed = isIndirect ? 1 : buffers.count
        guard needed <= freeDescriptors.count else { return nil }
        let taken = (0..<needed).map { _ in freeDescriptors.removeLast() }
        var ring = buffers
        var flags: UInt16 = 0
        if isIndirect {
            let table = driver.allocate(buffers.count * 16)
            for (position, (buffer, isWritable)) in buffers.enumerated() {
                let hasNext = position + 1 < buffers.count
                let bits: UInt16 = (hasNext && !isPacked ? 1 : 0) | (isWritable ? 2 : 0)
                let next = hasNext ? UInt16(position + 1) : 0
                try store(
                    isPacked ? descriptor(buffer, third: 0, fourth: bits) : descriptor(buffer, third: bits, fourth: next),
                    at: place(table, position * 16))
            }
            ring = [((table, buffers.count * 16), false)]
            flags = 4
        }
        let identifier = taken[0]
        if isPacked {
            try addPacked(ring, flags, identifier)
        } else {
            for (position, (buffer, isWritable)) in ring.enumerated() {
                let hasNext = position + 1 < ring.count
                try store(
                    descriptor(
                        buffer, third: flags | (hasNext ? 1 : 0) | (isWritable ? 2 : 0),
                        fourth: hasNext ? taken[position + 1] : 0),
                    at: place(layout.descriptors, Int(taken[position]) * 16))
            }
            try memory.store(identifier, at: place(layout.driverArea, 4 + Int(available & (layout.size &- 1)) * 2))
            available &+= 1
            try memory.store(available, at: place(layout.driverArea, 2))
        }
        chains[identifier] = Request(readable: readable, writable: writable, descriptors: taken)
        return identifier
    }

    private func addPacked(
        _ ring: [((address: GuestAddress, count: Int), Bool)], _ extra: UInt16, _ identifier: UInt16
    ) throws {
        var first: (GuestAddress, UInt16)?
        for (position, (buffer, isWritable)) in ring.enumerated() {
            let wrap: UInt16 = availableWraps ? 1 << 7 : 1 << 15
            let flags = extra | wrap | (position + 1 < ring.count ? 1 : 0) | (isWritable ? 2 : 0)
            let address = place(layout.descriptors, Int(available) * 16)
            // The first descriptor's flags make the whole chain available, so they come last.
            let words = descriptor(buffer, third: identifier, fourth: position == 0 ? flags ^ (1 << 7 | 1 << 15) : flags)
            try store(words, at: address)
            if position == 0 { first = (address, flags) }
            available += 1
            if available == layout.size {
                available = 0
                availableWraps.toggle()
            }
        }
        if let (address, flags) = first { try memory.store(flags, at: place(address, 14)) }
    }

    /// Whether the device wants to be told of what was made available since the last notification.
    public func wantsNotification() throws -> Bool {
        if isPacked {
            let word = try memory.load(UInt32.self, at: layout.deviceArea)
            return word >> 16 & 3 != 1
        }
        defer { notified = available }
        if usesEventIndex {
            let event = try memory.load(UInt16.self, at: place(layout.deviceArea, 4 + Int(layout.size) * 8))
            return available &- event &- 1 < available &- notified
        }
        return try memory.load(UInt16.self, at: layout.deviceArea) & 1 == 0
    }

    /// Notifies the device if it wants that, as a driver does.
    /// - Returns: whether it did.
    @discardableResult
    public func kick() throws -> Bool {
        guard try wantsNotification() else { return false }
        driver.transport.notify(queue: index)
        return true
    }

    /// Asks for interrupts, or for none; with event indices for one at the next completion.
    public func setInterrupts(_ wanted: Bool) throws {
        if isPacked {
            try memory.store(UInt32(wanted ? 0 : 1 << 16), at: layout.driverArea)
        } else if usesEventIndex {
            try memory.store(wanted ? used : used &- 1, at: place(layout.driverArea, 4 + Int(layout.size) * 2))
        } else {
            try memory.store(UInt16(wanted ? 0 : 1), at: layout.driverArea)
        }
    }

    /// Takes what the device has given back, in its order.
    public func completions() throws -> [Completion] {
        var result: [Completion] = []
        while let (identifier, written) = try isPacked ? nextPacked() : nextSplit() {
            guard let request = chains.removeValue(forKey: identifier) else {
                throw Broken(description: "the device gave back chain \(identifier), which was not made available")
            }
            freeDescriptors += request.descriptors.reversed()
            if isPacked {
                used += UInt16(request.descriptors.count)
                if used >= layout.size {
                    used -= layout.size
                    usedWraps.toggle()
                }
            }
            let bytes = try request.writable.flatMap { try memory.read(at: $0.address, count: $0.count) }
            result.append(Completion(identifier: identifier, written: written, request: request, bytes: bytes))
        }
        if usesEventIndex, !isPacked {
            try memory.store(used, at: place(layout.driverArea, 4 + Int(layout.size) * 2))
        }
        return result
    }

    /// The device broke the protocol.
    public struct Broken: Error, CustomStringConvertible {
        public let description: String
    }

    private func nextSplit() throws -> (UInt16, UInt32)? {
        let index = try memory.load(UInt16.self, at: place(layout.deviceArea, 2))
        guard index != used else { return nil }
        let entry = place(layout.deviceArea, 4 + Int(used & (layout.size &- 1)) * 8)
        let (identifier, written) = (try memory.load(UInt32.self, at: entry), try memory.load(UInt32.self, at: place(entry, 4)))
        used &+= 1
        return (UInt16(truncatingIfNeeded: identifier), written)
    }

    private func nextPacked() throws -> (UInt16, UInt32)? {
        let entry = place(layout.descriptors, Int(used) * 16)
        let flags = try memory.load(UInt16.self, at: place(entry, 14))
        guard (flags & 1 << 7 != 0) == usedWraps, (flags & 1 << 15 != 0) == usedWraps else { return nil }
        return (try memory.load(UInt16.self, at: place(entry, 12)), try memory.load(UInt32.self, at: place(entry, 8)))
    }

    /// Requests that the device has not given back.
    public var outstanding: Int { chains.count }
}
