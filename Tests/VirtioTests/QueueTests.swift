import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// A device that echoes, a driver, and the turns between them.
struct EchoMachine {
    let memory: GuestMemory
    let events = ManualEvents()
    let device: EchoDevice
    let transport: MMIODriver
    let driver: MockDriver

    init(_ features: FeatureSet = [], size: UInt16 = 8, memory bytes: UInt64 = 16 << 20, fairShare: Int = 64) throws {
        memory = try GuestMemory(size: bytes)
        device = EchoDevice(fairShare: fairShare, events: events)
        transport = MMIODriver(device: device, memory: memory)
        driver = MockDriver(transport, memory: memory)
        #expect(driver.start(features, size: size))
        events.run()
    }

    var queue: DriverQueue { driver.queues[0] }
    var isPacked: Bool { driver.features.contains(.packedRing) }
    var needsReset: Bool { transport.readStatus().contains(.needsReset) }

    /// Notifies whether or not it is wanted, and lets the device work.
    func notify() {
        transport.notify(queue: 0)
        events.run()
    }

    /// Writes the words of descriptor `index` of a table at `base`: in the packed layout available on its first lap.
    func describe(
        _ index: Int, address: UInt64, count: UInt32, flags: UInt16, next: UInt16 = 0, in base: GuestAddress? = nil
    ) throws {
        let place = (base ?? queue.layout.descriptors).rawValue + UInt64(index) * 16
        let isRing = base == nil
        let (third, fourth) = isPacked ? (next, flags | (isRing ? 1 << 7 : 0)) : (flags, next)
        try memory.store(address, at: GuestAddress(place))
        try memory.store(UInt64(count) | UInt64(third) << 32 | UInt64(fourth) << 48, at: GuestAddress(place + 8))
    }

    /// Makes the descriptor chain at 0 available, which in the packed layout it is by its flags.
    func publish(index: UInt16 = 1, head: UInt16 = 0) throws {
        guard !isPacked else { return }
        try memory.store(head, at: GuestAddress(queue.layout.driverArea.rawValue + 4))
        try memory.store(index, at: GuestAddress(queue.layout.driverArea.rawValue + 2))
    }

    /// Sees that the device has given up, says so, and comes back with a reset.
    func expectBroken(_ error: QueueError?, sourceLocation: SourceLocation = #_sourceLocation) {
        let broken = device.session?.queue(0)?.error
        #expect(broken != nil, sourceLocation: sourceLocation)
        if let error { #expect(broken == error, sourceLocation: sourceLocation) }
        #expect(needsReset, sourceLocation: sourceLocation)
        #expect(transport.takeInterrupts().configuration, sourceLocation: sourceLocation)
        #expect(driver.start([]), sourceLocation: sourceLocation)
        #expect(!needsReset, sourceLocation: sourceLocation)
    }
}

private let next = RawDescriptor.next
private let write = RawDescriptor.write
private let indirect = RawDescriptor.indirect

/// The two layouts.
private let layouts: [FeatureSet] = [.indirectDescriptors, [.indirectDescriptors, .packedRing]]

@Suite struct QueueTests {
    // MARK: What a driver may do

    /// Requests of every shape, in rings of every size, until they have gone round many times.
    @Test(arguments: ringKinds, [1, 2, 3, 7, 8, 64, 256] as [UInt16])
    func whatIsSentComesBack(ring: FeatureSet, size: UInt16) throws {
        guard ring.contains(.packedRing) || size & (size - 1) == 0 else { return }
        let machine = try EchoMachine(ring, size: size, memory: 64 << 20)
        var random = SeededRandom(seed: UInt64(size) &+ ring.rawValue)
        var sent: [UInt16: [UInt8]] = [:]
        var done = 0
        while done < 3 * Int(size) + 40 {
            for _ in 0..<(1 + random.below(Int(size))) {
                let bytes = (0..<(1 + random.below(200))).map { _ in UInt8(truncatingIfNeeded: random.next()) }
                // In pieces, some of them empty, as far as the ring has room for them.
                let cut = random.below(bytes.count + 1)
                let isCut = size > 3 || ring.contains(.indirectDescriptors)
                let readable = isCut ? [Array(bytes[..<cut]), Array(bytes[cut...])] : [bytes]
                let writable = isCut ? [cut, bytes.count - cut] : size > 1 ? [bytes.count] : []
                guard let identifier = try machine.queue.add(readable: readable, writable: writable) else { break }
                sent[identifier] = writable.isEmpty ? [] : bytes
            }
            try machine.queue.kick()
            machine.events.run()
            let completions = try machine.queue.completions()
            #expect(completions.count == sent.count)
            #expect(machine.transport.takeInterrupts().used)
            for completion in completions {
                #expect(completion.bytes == sent.removeValue(forKey: completion.identifier))
                #expect(completion.written == UInt32(completion.bytes.count))
            }
            done += completions.count
        }
        #expect(!machine.needsReset)
    }

    /// What is held back is given back later and in any order; meanwhile the queue goes on.
    @Test(arguments: ringKinds) func requestsMayBeOutForLong(ring: FeatureSet) throws {
        let machine = try EchoMachine(ring, size: 8)
        for _ in 0..<20 {
            machine.device.isHolding = true
            for index in 0..<8 { try #require(machine.queue.add(readable: [[UInt8(index)]]) != nil) }
            #expect(try machine.queue.add(readable: [[9]]) == nil, "eight are all that there are")
            machine.notify()
            #expect(try machine.queue.completions().isEmpty)
            machine.device.isHolding = false
            machine.events.run()
            #expect(try machine.queue.completions().count == 8)
        }
    }

    /// A device that takes no more than its share asks for the rest itself: no notification is needed.
    @Test(arguments: ringKinds) func aFairShareIsNotTheEnd(ring: FeatureSet) throws {
        let machine = try EchoMachine(ring, size: 256, fairShare: 3)
        for _ in 0..<100 { try machine.queue.add(readable: [[1]]) }
        machine.transport.notify(queue: 0)
        machine.events.turn()
        #expect(machine.device.taken == 3)
        machine.events.run()
        #expect(try machine.queue.completions().count == 100)
    }

    @Test(arguments: ringKinds) func interruptsComeOnlyWhereTheyAreWanted(ring: FeatureSet) throws {
        let machine = try EchoMachine(ring, size: 8)
        _ = machine.transport.takeInterrupts()
        try machine.queue.setInterrupts(false)
        try machine.queue.add(readable: [[1]])
        machine.notify()
        #expect(!machine.transport.takeInterrupts().used)
        #expect(try machine.queue.completions().count == 1)
        try machine.queue.setInterrupts(true)
        try machine.queue.add(readable: [[1]])
        machine.notify()
        #expect(machine.transport.takeInterrupts().used)
        // A look at an empty queue is no news.
        machine.notify()
        #expect(!machine.transport.takeInterrupts().used)
    }

    /// With event indices, a driver that asks to be told at the nth completion is told then, and not before.
    @Test(arguments: [.eventIndex, [.eventIndex, .packedRing]] as [FeatureSet], 1...5)
    func aDriverSaysWhenItWantsToBeTold(ring: FeatureSet, after count: Int) throws {
        let machine = try EchoMachine(ring, size: 8)
        // Past the ring's end once, so that indices wrap on the way.
        for start in 0..<20 {
            _ = machine.transport.takeInterrupts()
            let used = UInt16(start * 5)
            let event = used &+ UInt16(count) &- 1
            if machine.isPacked {
                let laps = event / 8
                try machine.memory.store(
                    UInt32(event % 8) | (laps % 2 == 0 ? 0x8000 : 0) | 2 << 16, at: machine.queue.layout.driverArea)
            } else {
                try machine.memory.store(event, at: GuestAddress(machine.queue.layout.driverArea.rawValue + 4 + 16))
            }
            for index in 1...5 {
                try machine.queue.add(readable: [[1]])
                machine.notify()
                #expect(machine.transport.takeInterrupts().used == (index == count), "start \(start), completion \(index)")
            }
            #expect(try machine.queue.completions().count == 5)
        }
    }

    // MARK: The arithmetic of indices

    /// Every event index against every distance: a step from `old` to `new` passes `event` where `event` is one of the
    /// indices from `old` on that are used up by the step. Source: [VIRTIO1.2 §2.6.7.2].
    @Test func anIndexIsPassedWhereItLies() {
        for old in [0, 1, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF] as [UInt16] {
            for distance in [0, 1, 2, 255, 256, 0x7FFF, 0x8000] as [UInt16] {
                var wrong = 0
                for event in 0...UInt16.max where indexPasses(event, from: old, to: old &+ distance) != (event &- old < distance) {
                    wrong += 1
                }
                #expect(wrong == 0, "from \(old) by \(distance)")
            }
        }
    }

    // MARK: What a driver may not do

    @Test(arguments: layouts) func aDescriptorWithoutBytesIsNoBuffer(layout: FeatureSet) throws {
        let machine = try EchoMachine(layout)
        try machine.describe(0, address: 0x30_0000, count: 0, flags: next, next: 1)
        try machine.describe(1, address: .max, count: 0, flags: write)
        try machine.publish()
        machine.notify()
        #expect(machine.device.taken == 1)
        #expect(!machine.needsReset)
    }

    @Test(arguments: layouts) func aBufferOutsideMemory(layout: FeatureSet) throws {
        for (address, count) in [
            (0x100_0000, 1), (0xFF_FFFF, 2), (.max, 1), (.max - 15, 32), (0, .max), (0xFEE0_0000, 4),
        ] as [(UInt64, UInt32)] {
            for flags in [0, write] {
                let machine = try EchoMachine(layout)
                try machine.describe(0, address: address, count: count, flags: flags)
                try machine.publish()
                machine.notify()
                machine.expectBroken(.outsideMemory(address: GuestAddress(address), count: UInt64(count)))
            }
        }
    }

    /// Both ends are memory, what is between them is not.
    @Test(arguments: layouts) func aBufferAcrossTheHole(layout: FeatureSet) throws {
        let machine = try EchoMachine(layout, memory: 4 << 30)
        try machine.describe(0, address: 0xBFFF_F000, count: 0x4000_2000, flags: 0)
        try machine.publish()
        machine.notify()
        machine.expectBroken(.outsideMemory(address: GuestAddress(0xBFFF_F000), count: 0x4000_2000))
    }

    @Test(arguments: layouts) func readableBehindWritable(layout: FeatureSet) throws {
        let machine = try EchoMachine(layout)
        try machine.describe(0, address: 0x30_0000, count: 4, flags: next | write, next: 1)
        try machine.describe(1, address: 0x30_0000, count: 4, flags: 0)
        try machine.publish()
        machine.notify()
        machine.expectBroken(.readableAfterWritable)
    }

    @Test(arguments: layouts) func aChainWithoutAnEnd(layout: FeatureSet) throws {
        let machine = try EchoMachine(layout)
        for index in 0..<8 { try machine.describe(index, address: 0x30_0000, count: 4, flags: next, next: UInt16(index + 1) % 8) }
        try machine.publish()
        machine.notify()
        machine.expectBroken(.endlessChain)
    }

    @Test func aChainToItself() throws {
        let machine = try EchoMachine()
        try machine.describe(0, address: 0x30_0000, count: 4, flags: next, next: 0)
        try machine.publish()
        machine.notify()
        machine.expectBroken(.endlessChain)
    }

    @Test func anIndexBeyondTheTable() throws {
        for (head, link) in [(8, 0), (0xFFFF, 0), (0, 8), (0, 0xFFFF)] as [(UInt16, UInt16)] {
            let machine = try EchoMachine()
            try machine.describe(0, address: 0x30_0000, count: 4, flags: next, next: link)
            try machine.publish(head: head)
            machine.notify()
            machine.expectBroken(.badIndex(head >= 8 ? head : link))
        }
    }

    @Test(arguments: [9, 0x8000, 0xFFFF] as [UInt16]) func moreAvailableThanThereIs(index: UInt16) throws {
        let machine = try EchoMachine()
        try machine.publish(index: index)
        machine.notify()
        machine.expectBroken(.overrun(available: index))
    }

    /// The same descriptor made available over and over while the device has it.
    @Test func theSameChainTwice() throws {
        let machine = try EchoMachine()
        machine.device.isHolding = true
        try machine.describe(0, address: 0x30_0000, count: 4, flags: 0)
        for index in 0..<8 { try machine.memory.store(UInt16(0), at: GuestAddress(machine.queue.layout.driverArea.rawValue + 4 + UInt64(index) * 2)) }
        for index in 1...UInt16(12) {
            try machine.memory.store(index, at: GuestAddress(machine.queue.layout.driverArea.rawValue + 2))
            machine.notify()
        }
        #expect(machine.device.taken == 8, "as many as the queue has, whatever they are")
        machine.expectBroken(nil)
    }

    @Test(arguments: layouts) func tablesThatAreNone(layout: FeatureSet) throws {
        let table = GuestAddress(0x40_0000)
        for count in [0, 1, 15, 17, 1025 * 16, .max] as [UInt32] {
            let machine = try EchoMachine(layout)
            try machine.describe(0, address: table.rawValue, count: count, flags: indirect)
            try machine.publish()
            machine.notify()
            machine.expectBroken(.badIndirectTable(count: count))
        }
        let chained = try EchoMachine(layout)
        try chained.describe(0, address: table.rawValue, count: 32, flags: indirect | next, next: 1)
        try chained.describe(1, address: 0x30_0000, count: 4, flags: 0)
        try chained.publish()
        chained.notify()
        chained.expectBroken(.badIndirectTable(count: 32))
        let nested = try EchoMachine(layout)
        try nested.describe(0, address: table.rawValue, count: 16, flags: indirect)
        try nested.describe(0, address: table.rawValue, count: 16, flags: indirect, in: table)
        try nested.publish()
        nested.notify()
        nested.expectBroken(.badIndirectTable(count: 16))
        let outside = try EchoMachine(layout)
        try outside.describe(0, address: 0xFF_FFF0, count: 32, flags: indirect)
        try outside.publish()
        outside.notify()
        outside.expectBroken(.outsideMemory(address: GuestAddress(0xFF_FFF0), count: 32))
    }

    @Test func aTableThatGoesRound() throws {
        let table = GuestAddress(0x40_0000)
        let machine = try EchoMachine(.indirectDescriptors)
        try machine.describe(0, address: table.rawValue, count: 32, flags: indirect)
        try machine.describe(0, address: 0x30_0000, count: 4, flags: next, next: 1, in: table)
        try machine.describe(1, address: 0x30_0000, count: 4, flags: next, next: 0, in: table)
        try machine.publish()
        machine.notify()
        machine.expectBroken(.endlessChain)
        let beyond = try EchoMachine(.indirectDescriptors)
        try beyond.describe(0, address: table.rawValue, count: 32, flags: indirect)
        try beyond.describe(0, address: 0x30_0000, count: 4, flags: next, next: 2, in: table)
        try beyond.publish()
        beyond.notify()
        beyond.expectBroken(.badIndex(2))
    }

    @Test(arguments: layouts) func moreThanFourGibibytes(layout: FeatureSet) throws {
        let table = GuestAddress(0x40_0000)
        let machine = try EchoMachine(layout, memory: 2 << 30)
        try machine.describe(0, address: table.rawValue, count: 16 * 5, flags: indirect)
        for index in 0..<5 {
            try machine.describe(
                index, address: 0x50_0000, count: 0x4000_0000, flags: index < 4 && !machine.isPacked ? next : 0, next: UInt16(index + 1),
                in: table)
        }
        try machine.publish()
        machine.notify()
        machine.expectBroken(.tooManyBytes)
    }

    @Test(arguments: layouts) func ringsThatCannotBe(features: FeatureSet) throws {
        let good = try EchoMachine(features).queue.layout
        var bad: [QueueLayout] = []
        for change in [1, 8, 0x100_0000, 1 << 44] as [UInt64] {
            var one = good
            one.descriptors = GuestAddress(good.descriptors.rawValue &+ change)
            bad.append(one)
            one = good
            one.driverArea = GuestAddress(change == 8 ? good.driverArea.rawValue + 1 : good.driverArea.rawValue &+ change)
            bad.append(one)
            one = good
            one.deviceArea = GuestAddress(change == 8 ? good.deviceArea.rawValue + 2 : good.deviceArea.rawValue &+ change)
            bad.append(one)
        }
        for layout in bad {
            let machine = try EchoMachine(features)
            #expect(throws: QueueError.self) { try Virtqueue(layout, features: machine.driver.features, memory: machine.memory) }
        }
        let memory = try GuestMemory(size: 16 << 20)
        for size in [0, 3, 32_769, .max] as [UInt16] {
            var one = good
            one.size = size
            #expect(throws: QueueError.badSize(size)) { try Virtqueue(one, features: .version1, memory: memory) }
        }
    }

    /// A driver that enables such a queue has a device that says it needs a reset, and works after it.
    @Test func aBadRingNeedsAReset() throws {
        let machine = try EchoMachine()
        machine.transport.writeStatus([])
        machine.transport.writeStatus([.acknowledge, .driver])
        machine.transport.writeFeatures(.version1)
        machine.transport.writeStatus([.acknowledge, .driver, .featuresOK])
        var layout = machine.queue.layout
        layout.deviceArea = GuestAddress(0xFEE0_0000)
        machine.transport.setUp(queue: 0, layout)
        machine.transport.writeStatus([.acknowledge, .driver, .featuresOK, .driverOK])
        #expect(machine.needsReset)
        machine.notify()
        #expect(machine.device.starts == 1, "not started a second time")
        #expect(machine.driver.start([]))
        #expect(!machine.needsReset)
    }
}
