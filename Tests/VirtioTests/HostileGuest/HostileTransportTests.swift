import Glibc
import Synchronization
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// Registers written by no rule, and memory that changes while it is looked at, for every device behind both transports.
@Suite(.serialized) struct HostileTransportTests {
    /// Brings a device up with rings of the guest's choice.
    static func bringUp(
        _ machine: HostileMachine, _ features: FeatureSet = .version1, _ change: (Int, inout QueueLayout) -> Void
    ) {
        let transport = machine.transport
        transport.writeStatus(.acknowledge)
        transport.writeStatus([.acknowledge, .driver])
        transport.writeFeatures(features)
        transport.writeStatus([.acknowledge, .driver, .featuresOK])
        for queue in 0..<transport.registers.queueCount {
            let base = 0x10_0000 + UInt64(queue) * 0x1000
            var layout = QueueLayout(
                size: 16, descriptors: GuestAddress(base), driverArea: GuestAddress(base + 0x400),
                deviceArea: GuestAddress(base + 0x800))
            change(queue, &layout)
            transport.setUp(queue: UInt16(queue), layout)
        }
        transport.writeStatus([.acknowledge, .driver, .featuresOK, .driverOK])
    }

    /// A write to a register of a queue, by what it is called in either layout.
    private enum Register: CaseIterable {
        case size, enable, descriptors, driverArea, deviceArea
        /// Where it is: in the memory-mapped registers, and in the common configuration.
        var places: (mmio: UInt64, pci: UInt64) {
            switch self {
            case .size: (0x38, 0x18)
            case .enable: (0x44, 0x1C)
            case .descriptors: (0x80, 0x20)
            case .driverArea: (0x90, 0x28)
            case .deviceArea: (0xA0, 0x30)
            }
        }
    }

    private func write(_ register: Register, _ value: UInt64, queue: UInt64, _ machine: HostileMachine) {
        if let mmio = machine.transport as? MMIODriver {
            mmio.transport.write(offset: 0x30, width: .long, value: queue)
            mmio.transport.write(offset: register.places.mmio, width: .long, value: value)
        } else if let pci = machine.transport as? PCIDriver {
            pci.writeCommon(0x16, .word, queue)
            pci.writeCommon(register.places.pci, register == .size || register == .enable ? .word : .long, value)
        }
    }

    @Test("HG-7: queues are changed after DRIVER_OK", arguments: HostilePlace.everywhere)
    func changesWhileRunning(place: HostilePlace) throws {
        try hostile(place) { machine in
            machine.start([])
            let simplest = try #require(FuzzSubject.simplestRequest(machine.device.kind))
            let before = (0..<UInt32(machine.queues.count)).map { machine.transport.registers.queue($0) }
            for queue in 0..<UInt64(machine.queues.count) {
                for register in Register.allCases {
                    for value in [0, 1, 2, 3, 0x8000, 0xFFFF, 0x10_0000, 0xFFFF_FFFF] as [UInt64] {
                        write(register, value, queue: queue, machine)
                    }
                }
            }
            #expect((0..<UInt32(machine.queues.count)).map { machine.transport.registers.queue($0) } == before)
            // The session goes on as if nothing had been.
            machine.subject.settle()
            try machine.queues[simplest.queue].add(readable: simplest.readable, writable: simplest.writable)
            machine.notifyAll()
            for _ in 0..<1000 {
                machine.turn()
                if try !machine.queues[simplest.queue].completions().isEmpty { return #expect(!machine.needsReset) }
                usleep(1000)
            }
            Issue.record("the session has ended")
        }
    }

    @Test(
        "HG-8: rings that are not in memory", arguments: HostilePlace.everywhere,
        [.version1, [.version1, .packedRing]] as [FeatureSet])
    func ringsOutsideMemory(place: HostilePlace, features: FeatureSet) throws {
        // 4 GiB with a gap in the middle; none of it is touched.
        let end: UInt64 = 0x1_4000_0000
        let bad: [UInt64] = [
            GuestMemory.holeStart.rawValue - 0x10, GuestMemory.holeStart.rawValue, GuestMemory.holeEnd.rawValue - 0x10,
            end - 0x10, end, end + 0x1000, 1 << 63, .max & ~0xF, .max & ~0xFFF, 0x10_0001,
        ]
        try hostile {
            var random = SeededRandom(seed: 7)
            return try HostileMachine(place.kind, memory: 4 << 30) { try place.subject.make($0, &random) }
        } _: { machine in
            for address in bad {
                for part in 0..<3 {
                    machine.transport.writeStatus([])
                    Self.bringUp(machine, features) { index, layout in
                        guard index == machine.transport.registers.queueCount - 1 else { return }
                        switch part {
                        case 0: layout.descriptors = GuestAddress(address)
                        case 1: layout.driverArea = GuestAddress(features.contains(.packedRing) ? address | 2 : address)
                        default: layout.deviceArea = GuestAddress(features.contains(.packedRing) ? address | 2 : address)
                        }
                    }
                    #expect(machine.needsReset)
                    for queue in 0..<UInt16(machine.transport.registers.queueCount) {
                        machine.transport.notify(queue: queue)
                    }
                    machine.rest()
                }
            }
        }
    }

    @Test("HG-9: queues that there are not", arguments: HostilePlace.everywhere) func noSuchQueue(place: HostilePlace)
        throws
    {
        try hostile(place) { machine in
            for isRunning in [false, true] {
                machine.transport.writeStatus([])
                if isRunning { machine.start([]) }
                let count = UInt64(machine.transport.registers.queueCount)
                for queue in [count, count + 1, 64, 0x7FFF, 0x8000, 0xFFFF, 0x1_0000, 0x7FFF_FFFF, 0xFFFF_FFFF] as [UInt64]
                {
                    for register in Register.allCases { write(register, 1, queue: queue, machine) }
                    if let mmio = machine.transport as? MMIODriver {
                        mmio.transport.write(offset: 0x30, width: .long, value: queue)
                        for offset in [0x34, 0x44, 0x80, 0xA4] as [UInt64] {
                            #expect(mmio.transport.read(offset: offset, width: .long) == 0)
                        }
                        mmio.transport.write(offset: MMIOTransport.notifyOffset, width: .long, value: queue)
                    } else if let pci = machine.transport as? PCIDriver, queue <= 0xFFFF {
                        pci.writeCommon(0x16, .word, queue)
                        #expect(pci.readCommon(0x18, .word) == 0 && pci.readCommon(0x1C, .word) == 0)
                        pci.writeCommon(0x1A, .word, 0)
                        for width in [AccessWidth.byte, .word, .long] {
                            pci.bus.memory.write(
                                pci.notifications &+ queue &* pci.notifyMultiplier, width: width, value: queue)
                        }
                        // A vector that there is not.
                        pci.writeCommon(0x16, .word, 0)
                        pci.writeCommon(0x1A, .word, queue)
                        #expect(pci.readCommon(0x1A, .word) == (queue < UInt64(pci.vectorCount) ? queue : 0xFFFF))
                    }
                    machine.transport.registers.notify(queue: UInt32(truncatingIfNeeded: queue))
                }
                machine.rest()
            }
        }
    }

    @Test(
        "HG-10: sizes that no queue has", arguments: HostilePlace.everywhere,
        [0, 3, 5, 0x101, 0x4000, 0x8000, 0x8001, 0xFFFF, 0x1_0000, 0x1_0001, 0xFFFF_FFFF] as [UInt64])
    func queueSizes(place: HostilePlace, size: UInt64) throws {
        try hostile(place) { machine in
            for features in [.version1, [.version1, .packedRing]] as [FeatureSet] {
                machine.transport.writeStatus([])
                Self.bringUp(machine, features) { index, layout in
                    write(.size, size, queue: UInt64(index), machine)
                    layout.size = UInt16(truncatingIfNeeded: size)
                }
                for (index, largest) in machine.device.queueSizes.enumerated() {
                    let taken = try #require(machine.transport.registers.queue(UInt32(index))).layout.size
                    #expect(taken > 0 && taken <= largest)
                }
                for queue in 0..<UInt16(machine.transport.registers.queueCount) { machine.transport.notify(queue: queue) }
                machine.rest()
            }
        }
    }

    @Test("HG-14: the configuration space read and written anywhere", arguments: HostilePlace.everywhere)
    func configurationSpace(place: HostilePlace) throws {
        let ends: [UInt64] = [0xEFE, 0xEFF, 0xF00, 0xFFF, 0x1000, 1 << 32, .max - 0x107, .max - 0x100, .max - 8, .max]
        try hostile(place) { machine in
            for isRunning in [false, true] {
                machine.transport.writeStatus([])
                if isRunning { machine.start([]) }
                let length = UInt64(machine.device.configuration().count)
                for offset in Array(0..<UInt64(144)) + ends {
                    for width in AccessWidth.allCases {
                        machine.transport.writeConfiguration(offset: offset, width: width, value: .max)
                        machine.transport.registers.writeConfiguration(offset: offset, width: width, value: .max)
                        _ = machine.transport.readConfiguration(offset: offset, width: width)
                        if offset >= length {
                            #expect(machine.transport.registers.readConfiguration(offset: offset, width: width) == 0)
                        }
                    }
                }
                #expect(UInt64(machine.device.configuration().count) == length)
                machine.rest()
            }
        }
    }

    /// Behind the memory-mapped registers there is no such table; what there is stands in their last page.
    @Test("HG-15: the message table and the pending bits beyond their ends", arguments: HostilePlace.everywhere)
    func messageTable(place: HostilePlace) throws {
        try hostile(place) { machine in
            machine.start([])
            let pci = machine.transport as? PCIDriver
            let vectors = UInt64(pci?.vectorCount ?? 0)
            let places: [UInt64] = [
                0, 12, vectors * 16 &- 4, vectors * 16, vectors * 16 + 12, 0x7FC, 0x7FF, 0x800, 0x804, 0x808, 0xFF8, 0xFFC,
                0xFFF,
            ]
            for offset in places {
                for width in AccessWidth.allCases {
                    for value in [0, 1, .max] as [UInt64] {
                        if let pci {
                            pci.bus.memory.write(pci.messageTable &+ offset, width: width, value: value)
                            _ = pci.bus.memory.read(pci.messageTable &+ offset, width: width)
                        } else if let mmio = machine.transport as? MMIODriver {
                            mmio.transport.write(offset: 0xF000 &+ offset, width: width, value: value)
                            _ = mmio.transport.read(offset: 0xF000 &+ offset, width: width)
                        }
                    }
                }
            }
            machine.notifyAll()
            machine.rest()
            guard let pci, let capability = pci.messageCapability else { return }
            // As a driver leaves it: the messages are all of the address that this one looks for.
            for vector in 0..<vectors {
                let entry = pci.messageTable + vector * 16
                pci.bus.memory.write(entry, width: .quad, value: PCIDriver.messageAddress)
                pci.bus.memory.write(entry + 8, width: .long, value: UInt64(PCIDriver.firstMessage) + vector)
                pci.bus.memory.write(entry + 12, width: .long, value: 0)
            }
            #expect(pci.read(capability + 2, .word) == UInt32(0x8000 | vectors - 1))
            _ = pci.messages.take()
        }
    }

    @Test("HG-16: the region is moved to where none can be", arguments: HostilePlace.everywhere)
    func movedRegions(place: HostilePlace) throws {
        try hostile(place) { machine in
            machine.start([])
            guard let pci = machine.transport as? PCIDriver else { return }
            let old = [pci.read(0x10, .long), pci.read(0x14, .long)]
            for address in [
                0, 0xFFFF_FFFF, 0xFFFF_FFF0, 0xE000_0000, 0xFEE0_0000, UInt32(PCIBus.windowBase), 0xD0FF_F000, 0x1000,
            ] {
                for bar in [0x10, 0x14] as [UInt64] { pci.write(bar, .long, address) }
                for command in [0, 2, 6, 0xFFFF] as [UInt32] {
                    pci.write(0x04, .word, command)
                    // Whatever answers there.
                    for offset in [0, 0x14, 0x16, 0x3000, 0xFFC] as [UInt64] {
                        pci.bus.memory.write(UInt64(address) &+ offset, width: .word, value: 0xFFFF)
                        _ = pci.bus.memory.read(UInt64(address) &+ offset, width: .quad)
                    }
                    // And through configuration space.
                    for (bar, offset, length) in [(0, 0x14, 1), (5, 0, 4), (0, 0xFFFF_FFFC, 4), (0, 0x15, 2), (255, 0, 3)]
                        as [(UInt32, UInt32, UInt32)]
                    {
                        pci.write(pci.accessCapability + 4, .byte, bar)
                        pci.write(pci.accessCapability + 8, .long, offset)
                        pci.write(pci.accessCapability + 12, .long, length)
                        pci.write(pci.accessCapability + 16, .long, 0x0F)
                        _ = pci.read(pci.accessCapability + 16, .long)
                    }
                    machine.turn()
                }
            }
            pci.write(0x10, .long, old[0])
            pci.write(0x14, .long, old[1])
            pci.write(0x04, .word, 6)
            _ = pci.messages.take()
        }
    }

    // MARK: Several processors

    /// Runs something on a thread of its own for as long as `body` takes.
    private func beside(_ other: @escaping @Sendable () -> Void, _ body: () throws -> Void) rethrows {
        final class Flags: Sendable {
            let isOver = Atomic<Bool>(false)
            let hasEnded = Atomic<Bool>(false)
        }
        let flags = Flags()
        let hasStarted = WorkerThread.start {
            while !flags.isOver.load(ordering: .acquiring) { other() }
            flags.hasEnded.store(true, ordering: .releasing)
        }
        #expect(hasStarted)
        defer {
            flags.isOver.store(true, ordering: .releasing)
            while !flags.hasEnded.load(ordering: .acquiring) { usleep(100) }
        }
        try body()
    }

    private static var now: UInt64 { Monitor.now() }

    @Test("HG-17: requests and rings change between a check and its use", arguments: HostilePlace.everywhere, layouts)
    func changesUnderTheDevice(place: HostilePlace, features: FeatureSet) throws {
        try hostile(place) { machine in
            let memory = machine.memory
            let targets = Mutex<[GuestAddress]>([])
            nonisolated(unsafe) var random = SeededRandom(seed: 17)
            try beside {
                let list = targets.withLock { $0 }
                for _ in 0..<64 {
                    guard let base = list.randomElement(using: &random) else {
                        usleep(10)
                        return
                    }
                    let address = GuestAddress(base.rawValue + UInt64(random.below(48)) & ~1)
                    let value = random.oneIn(2) ? UInt16(random.below(16)) : UInt16(truncatingIfNeeded: random.next())
                    guard let bytes = memory.hostBytes(at: address, count: 2),
                        let before = try? memory.load(UInt16.self, at: address)
                    else { continue }
                    bytes.storeBytes(of: value, as: UInt16.self)
                    // And back, so that what is there is good for half of the time.
                    bytes.storeBytes(of: before, as: UInt16.self)
                }
            } _: {
                let end = Self.now + 40_000_000
                while Self.now < end {
                    machine.start(features)
                    var places: [GuestAddress] = machine.queues.map(\.layout.descriptors)
                    let simplest = try #require(FuzzSubject.simplestRequest(machine.device.kind))
                    for queue in machine.queues {
                        queue.usesIndirectTables = false
                        let header = machine.driver.allocate(64)
                        let bytes = simplest.readable.first ?? []
                        if Int(queue.index) == simplest.queue {
                            try memory.write(bytes, at: header)
                            places.append(header)
                        }
                        for _ in 0..<4 {
                            _ =
                                try Int(queue.index) == simplest.queue
                                ? queue.add(
                                    bytes.isEmpty ? [] : [(header, bytes.count)],
                                    simplest.writable.map { (GuestAddress(0x80_0000), $0) })
                                : queue.add([], [(GuestAddress(0x80_0000), 128)])
                        }
                    }
                    targets.withLock { $0 = places }
                    for _ in 0..<8 {
                        machine.notifyAll()
                        machine.turn()
                    }
                    targets.withLock { $0 = [] }
                    machine.transport.writeStatus([])
                }
            }
        }
    }

    /// One processor resets and sets up, one notifies and reads, and the event loop goes on: nobody waits for anybody for
    /// ever, and nothing of a session's is touched after it.
    @Test("A reset at any moment of the loop's", arguments: HostilePlace.everywhere) func resetsAtAnyMoment(
        place: HostilePlace
    ) throws {
        try hostile(place) { machine in
            let (events, registers) = (machine.events, machine.transport.registers)
            try beside {
                events.turn()
                events.pollOnce()
            } _: {
                try beside {
                    for queue in 0..<UInt32(registers.queueCount) { registers.notify(queue: queue) }
                    _ = registers.readConfiguration(offset: 0, width: .quad)
                    registers.writeConfiguration(offset: 0, width: .byte, value: 0)
                    _ = (registers.status, registers.device.statistics, registers.generation)
                } _: {
                    let end = Self.now + 60_000_000
                    let simplest = try #require(FuzzSubject.simplestRequest(machine.device.kind))
                    while Self.now < end {
                        machine.start(layouts[Int(Self.now & 1)])
                        for queue in machine.queues where Int(queue.index) != simplest.queue {
                            for _ in 0..<8 { _ = try queue.add([], [(GuestAddress(0x80_0000), 4096)]) }
                        }
                        for _ in 0..<8 {
                            _ = try machine.queues[simplest.queue].add(
                                readable: simplest.readable, writable: simplest.writable)
                        }
                        machine.notifyAll()
                        if Self.now & 2 == 0 { usleep(50) }
                        machine.transport.writeStatus([])
                    }
                }
            }
        }
    }
}

private let layouts: [FeatureSet] = [
    [.indirectDescriptors, .eventIndex], [.packedRing, .indirectDescriptors, .eventIndex],
]
