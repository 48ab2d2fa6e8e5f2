internal import VMCore
internal import Virtio

extension VirtioFuzzer {
    /// One device and what a driver without rules does to it.
    struct Case {
        let number: UInt64
        let subject: Subject
        let transport: any DriverTransport
        let memory: GuestMemory
        let events: ManualEvents
        var requests: RequestShapes
        var driver: MockDriver?
        /// A session whose rings are in order, so that it lasts: only its requests are not.
        private var isTame = false
        /// Requests that the device gave back, sessions that began, and those that ended by the device's own word.
        var completed: UInt64 = 0
        var sessions: UInt64 = 0
        var broken: UInt64 = 0

        init(
            number: UInt64, subject: Subject, transport: any DriverTransport, memory: GuestMemory, events: ManualEvents,
            requests: RequestShapes
        ) {
            self.number = number
            self.subject = subject
            self.transport = transport
            self.memory = memory
            self.events = events
            self.requests = requests
        }

        /// Brings the device up, more or less as a driver does.
        mutating func start(_ random: inout SeededRandom) -> Bool {
            // Sessions that broke are of no use to the next steps; those that did not may be left without a reset.
            let driver = MockDriver(transport, memory: memory)
            let offered = transport.registers.offered
            var features = FeatureSet(rawValue: random.next()).intersection(offered).union(.version1)
            if random.oneIn(3) { features = offered }
            if random.oneIn(24) { features = FeatureSet(rawValue: random.next()) }
            if random.oneIn(3) { features.remove(.packedRing) }
            var size: UInt16 = 1 << UInt16(random.below(9))
            // Packed rings need not be a power of two long; split ones must be, and the device has to say so.
            if random.oneIn(features.contains(.packedRing) ? 2 : 24) { size = UInt16(1 + random.below(300)) }
            let count = transport.registers.queueCount
            var leavingOut: Set<UInt16> = []
            if random.oneIn(6) { for queue in 0..<UInt16(count) where random.oneIn(3) { leavingOut.insert(queue) } }
            guard
                driver.start(
                    features, size: size, queueCount: random.oneIn(12) ? random.below(count + 1) : nil,
                    leavingOut: leavingOut)
            else { return false }
            self.driver = driver
            isTame = random.oneIn(2)
            sessions += 1
            requests.begin(driver.features)
            return true
        }

        /// - Returns: whether the event loop is to have a turn.
        mutating func step(_ random: inout SeededRandom) throws -> Bool {
            guard let driver, let queue = driver.queues.randomElement(using: &random) else { return true }
            if random.oneIn(40) { events.clock.advance(by: UInt64(random.below(2_000_000_000))) }
            switch random.below(20) {
            case 0:
                if !isTame, random.oneIn(3) { try scribble(over: queue.layout, &random) }
            case 1...7: try request(on: queue, driver, &random)
            case 8: if !isTame, random.oneIn(2) { try anyChain(on: queue, driver, &random) }
            case 9:
                driver.transport.notify(queue: random.oneIn(4) ? UInt16(truncatingIfNeeded: random.next()) : queue.index)
            case 10: configuration(driver, &random)
            case 11: if !isTame, random.oneIn(4) { poke(&random) }
            case 12: _ = driver.transport.takeInterrupts()
            case 13...14: subject.stir(&random)
            case 15...16: take(driver, queue)
            default:
                driver.transport.notify(queue: queue.index)
                return true
            }
            return false
        }

        /// Takes what came back. Completions of what is not the driver's own are their own affair.
        private mutating func take(_ driver: MockDriver, _ queue: DriverQueue) {
            let list = (try? queue.completions()) ?? []
            completed += UInt64(list.count)
            for item in list { requests.hear(item, on: queue.index) }
            if driver.transport.readStatus().contains(.needsReset) {
                broken += 1
                // Sometimes it goes on all the same.
                if broken % 4 != 0 { self.driver = nil }
            }
        }

        private func configuration(_ driver: MockDriver, _ random: inout SeededRandom) {
            let width = AccessWidth.allCases[random.below(4)]
            let offset = (random.oneIn(8) ? random.next() : UInt64(random.below(96))) & 0xFFF
            driver.transport.writeConfiguration(offset: offset, width: width, value: random.next())
            _ = driver.transport.readConfiguration(offset: offset, width: width)
        }

        /// Registers at any time, in any order, with any value.
        private func poke(_ random: inout SeededRandom) {
            let small: [UInt64] = [0, 1, 2, 3, 7, 15, 0x80, 0xFF, 0x100, 0x8000, 0xFFFF, 0x1_0000, 0xFFFF_FFFF]
            for _ in 0..<(1 + random.below(4)) {
                let value = random.oneIn(3) ? random.next() : small[random.below(small.count)]
                let width = AccessWidth.allCases[random.below(4)]
                if let pci = transport as? PCIDriver {
                    // Not where the region is: the next driver looks for it there.
                    let place: UInt64 =
                        switch random.below(4) {
                        case 0: pci.messageTable &+ UInt64(random.below(0x40))
                        case 1: pci.common &+ UInt64(random.below(0x4000))
                        default: pci.common &+ UInt64(random.below(0x3C))
                        }
                    if random.oneIn(3) {
                        _ = pci.bus.memory.read(place, width: width)
                    } else {
                        pci.bus.memory.write(place, width: width, value: value)
                    }
                } else if let mmio = transport as? MMIODriver {
                    let offset = random.oneIn(8) ? random.next() : UInt64(random.below(0x100)) & ~3
                    if random.oneIn(3) {
                        _ = mmio.transport.read(offset: offset, width: width)
                    } else {
                        mmio.transport.write(offset: offset, width: random.oneIn(4) ? width : .long, value: value)
                    }
                }
            }
        }

        /// Random words in the rings themselves.
        private func scribble(over layout: QueueLayout, _ random: inout SeededRandom) throws {
            let areas: [(GuestAddress, Int)] = [
                (layout.descriptors, Int(layout.size) * 16), (layout.driverArea, Int(layout.size) * 2 + 6),
                (layout.deviceArea, Int(layout.size) * 8 + 6),
            ]
            let (base, count) = areas[random.below(3)]
            for _ in 0..<(1 + random.below(8)) {
                let place = GuestAddress(base.rawValue &+ UInt64(random.below(max(1, count - 2)) & ~1))
                let value = random.oneIn(2) ? UInt16(random.below(16)) : UInt16(truncatingIfNeeded: random.next())
                try memory.store(value, at: place)
            }
        }

        // MARK: Requests

        /// Where buffers are, away from the rings.
        private static let buffers: UInt64 = 0x20_0000
        private static let bufferSpan = 0x1F_0000

        private func place(_ count: Int, _ random: inout SeededRandom) -> GuestAddress {
            GuestAddress(Self.buffers &+ UInt64(random.below(max(1, Self.bufferSpan - count))))
        }

        /// A request as a driver makes them, now and then with something wrong in it, its parts cut anywhere.
        private mutating func request(on queue: DriverQueue, _ driver: MockDriver, _ random: inout SeededRandom) throws {
            var (bytes, room) = requests.make(queue: Int(queue.index), of: transport.registers.queueCount, &random)
            if random.oneIn(8), !bytes.isEmpty {
                for _ in 0..<(1 + random.below(3)) { bytes[random.below(bytes.count)] = UInt8(random.below(256)) }
            }
            if random.oneIn(16) { bytes.removeLast(random.below(bytes.count + 1)) }
            requests.tame(&bytes)
            if random.oneIn(16) { room = max(0, room + random.below(1024) - 512) }
            var readable: [(address: GuestAddress, count: Int)] = []
            let cuts = random.oneIn(3) ? 1 + random.below(3) : 0
            var rest = bytes[...]
            for index in 0...cuts where !rest.isEmpty {
                let part = rest.prefix(index == cuts ? rest.count : 1 + random.below(rest.count))
                let address = place(part.count, &random)
                try memory.write(Array(part), at: address)
                readable.append((address, part.count))
                rest = rest.dropFirst(part.count)
            }
            var writable: [(address: GuestAddress, count: Int)] = []
            while room > 0 {
                let part = random.oneIn(2) ? room : 1 + random.below(room)
                let address = random.oneIn(2) ? place(part, &random) : GuestAddress(place(part, &random).rawValue & ~0xFFF)
                writable.append((address, part))
                room -= part
                if writable.count > 6 { break }
            }
            guard !readable.isEmpty || !writable.isEmpty else { return }
            try add(readable, writable, to: queue, driver, &random)
        }

        /// A chain whose buffers are anywhere and of any size.
        private func anyChain(on queue: DriverQueue, _ driver: MockDriver, _ random: inout SeededRandom) throws {
            func buffer(_ random: inout SeededRandom) -> (address: GuestAddress, count: Int) {
                let count =
                    switch random.below(8) {
                    case 0: 0
                    case 1: Int(random.next() & 0xFFFF_FFFF)
                    case 2...4: 1 + random.below(64)
                    default: 1 + random.below(8192)
                    }
                let address = random.oneIn(16) ? GuestAddress(random.next()) : place(8192, &random)
                return (address, count)
            }
            let readable = (0..<random.below(4)).map { _ in buffer(&random) }
            let writable = (0..<(random.below(4) + (readable.isEmpty ? 1 : 0))).map { _ in buffer(&random) }
            try add(readable, writable, to: queue, driver, &random)
        }

        private func add(
            _ readable: [(address: GuestAddress, count: Int)], _ writable: [(address: GuestAddress, count: Int)],
            to queue: DriverQueue, _ driver: MockDriver, _ random: inout SeededRandom
        ) throws {
            queue.usesIndirectTables = driver.features.contains(.indirectDescriptors) && random.oneIn(2)
            _ = try queue.add(readable, writable)
        }
    }
}
