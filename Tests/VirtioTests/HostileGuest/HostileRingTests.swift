import Testing
import VMCore
import MonitorTesting

@testable import Virtio

private let layouts: [FeatureSet] = [
    [.indirectDescriptors, .eventIndex], [.packedRing, .indirectDescriptors, .eventIndex],
]
/// Flags of a descriptor.
private let (next, write, indirect): (UInt16, UInt16, UInt16) = (1, 2, 4)

/// Rings that no driver would write, on every queue of every device, behind both transports.
@Suite(.serialized) struct HostileRingTests {
    @Test("HG-1: descriptors without bytes", arguments: HostilePlace.everywhere, layouts)
    func zeroLengths(place: HostilePlace, features: FeatureSet) throws {
        try hostile(place) { machine in
            machine.start(features)
            for _ in 0..<4 {
                for queue in machine.queues {
                    let address = GuestAddress(0x80_0000)
                    let shapes: [(Int, Int)] = [(0, 1), (1, 0), (3, 2)]
                    for (readable, writable) in shapes {
                        for isIndirect in [false, true] {
                            queue.usesIndirectTables = isIndirect
                            while try queue.add(
                                Array(repeating: (address, 0), count: readable),
                                Array(repeating: (address, 0), count: writable)) != nil
                            {}
                        }
                    }
                    machine.transport.notify(queue: queue.index)
                }
                machine.rest()
                for queue in machine.queues { _ = try queue.completions() }
                if machine.needsReset { machine.start(features) }
            }
        }
    }

    @Test("HG-2: completions are never waited for", arguments: HostilePlace.everywhere, layouts)
    func noWaiting(place: HostilePlace, features: FeatureSet) throws {
        try hostile(place) { machine in
            machine.start(features)
            let size = Int(machine.queues[0].layout.size)
            for round in 0..<200 {
                for queue in machine.queues {
                    for index in 0..<size {
                        // A buffer of its own each, half of them to be read; on the next lap with the other flags.
                        let flags: UInt16 = (index & 1 == 0 ? write : 0)
                        try machine.describe(index, of: queue, 0x80_0000 + UInt64(index) * 64, 64, flags: flags)
                        guard machine.isPacked else { continue }
                        let lap: UInt16 = round & 1 == 0 ? 1 << 7 : 1 << 15
                        try machine.memory.store(flags | lap, at: machine.place(queue.layout.descriptors, index * 16 + 14))
                    }
                    try machine.publish(
                        (0..<size).map { UInt16($0) }, index: UInt16(truncatingIfNeeded: (round + 1) * size), on: queue)
                    machine.transport.notify(queue: queue.index)
                }
                machine.turn()
                if round % 8 == 0, machine.needsReset { machine.start(features) }
            }
        }
    }

    @Test("HG-3: chains without an end", arguments: HostilePlace.everywhere, layouts)
    func endlessChains(place: HostilePlace, features: FeatureSet) throws {
        try hostile(place) { machine in
            for length in [1, 2, 16] {
                for flags in [next, next | write] {
                    machine.start(features)
                    for queue in machine.queues {
                        // In the packed layout every descriptor of the ring goes on to the next.
                        for index in 0..<(machine.isPacked ? 16 : length) {
                            try machine.describe(
                                index, of: queue, 0x80_0000, 64, flags: flags, next: UInt16((index + 1) % length))
                        }
                        try machine.publish(on: queue)
                    }
                    machine.notifyAll()
                    machine.rest()
                }
            }
            // In a table, where in the packed layout there is no next.
            machine.start(features)
            for queue in machine.queues {
                let table = GuestAddress(0x90_0000)
                try machine.describe(0, of: queue, 0x80_0000, 64, flags: next, next: 1, in: table)
                try machine.describe(1, of: queue, 0x80_0000, 64, flags: next, next: 0, in: table)
                try machine.describe(0, of: queue, table.rawValue, 32, flags: indirect)
                try machine.publish(on: queue)
            }
            machine.notifyAll()
        }
    }

    @Test(
        "HG-4: more is available than there are descriptors", arguments: HostilePlace.everywhere,
        [17, 0x7FFF, 0x8000, 0xFFFF] as [UInt16])
    func availableJumps(place: HostilePlace, index: UInt16) throws {
        try hostile(place) { machine in
            machine.start([])
            for queue in machine.queues {
                try machine.describe(0, of: queue, 0x80_0000, 64)
                try machine.publish(index: index, on: queue)
            }
            machine.notifyAll()
            machine.rest()
            // What the queues that are not waiting for anybody else say of it.
            if [.entropy, .console, .balloon].contains(place.subject) { #expect(machine.needsReset) }
        }
    }

    /// Another processor that makes a buffer available whenever the device gives one back.
    private final class Refiller: GuestMemoryObserver, @unchecked Sendable {
        let memory: GuestMemory
        var queues: [QueueLayout] = []
        let isPacked: Bool
        var isOn = true
        var added = 0

        init(_ machine: HostileMachine) {
            memory = machine.memory
            isPacked = machine.isPacked
            queues = machine.queues.map(\.layout)
        }

        func memoryWritten(at address: GuestAddress, count: UInt64) {
            guard isOn else { return }
            for queue in queues {
                let area = isPacked ? queue.descriptors : queue.deviceArea
                let span = UInt64(queue.size) * (isPacked ? 16 : 8) + (isPacked ? 0 : 4)
                guard address >= area, address.rawValue - area.rawValue < span else { continue }
                isPacked ? refillPacked(queue, address) : refillSplit(queue)
            }
        }

        private func bytes(_ address: GuestAddress, _ offset: UInt64) -> UnsafeMutableRawBufferPointer? {
            memory.hostBytes(at: GuestAddress(address.rawValue + offset), count: 2)
        }

        /// Not through `memory`, which would tell us.
        private func refillSplit(_ queue: QueueLayout) {
            guard let index = bytes(queue.driverArea, 2), let used = bytes(queue.deviceArea, 2) else { return }
            let next = used.load(as: UInt16.self) &+ queue.size
            if index.load(as: UInt16.self) != next { added += 1 }
            index.storeBytes(of: next, as: UInt16.self)
        }

        private func refillPacked(_ queue: QueueLayout, _ address: GuestAddress) {
            let place = (address.rawValue - queue.descriptors.rawValue) & ~15
            guard let flags = bytes(queue.descriptors, place + 14), let length = bytes(queue.descriptors, place + 8) else {
                return
            }
            let value = flags.load(as: UInt16.self)
            guard value & 1 << 7 != 0 && value & 1 << 15 != 0 || value & (1 << 7 | 1 << 15) == 0 else { return }
            length.storeBytes(of: 64, as: UInt16.self)
            flags.storeBytes(of: value & 1 << 7 != 0 ? 1 << 15 | 2 : 1 << 7 | 2, as: UInt16.self)
            added += 1
        }
    }

    @Test(
        "HG-5: more is made available while the device drains", arguments: HostilePlace.everywhere,
        [[], .packedRing] as [FeatureSet])
    func refilledWhileDrained(place: HostilePlace, features: FeatureSet) throws {
        try hostile(place) { machine in
            machine.start(features)
            let refiller = Refiller(machine)
            for queue in machine.queues {
                for index in 0..<16 {
                    try machine.describe(index, of: queue, 0x80_0000, 64, flags: write, next: UInt16(index))
                }
                try machine.publish((0..<16).map { UInt16($0) }, on: queue)
            }
            machine.memory.add(observer: refiller)
            machine.notifyAll()
            // Every turn ends, though there is always more.
            for _ in 0..<50 { machine.turn() }
            if place.subject == .entropy { #expect(refiller.added > 500) }
            refiller.isOn = false
            machine.memory.remove(observer: refiller)
        }
    }

    @Test("HG-6: the same head twice, both in flight", arguments: HostilePlace.everywhere, layouts)
    func theSameHeadTwice(place: HostilePlace, features: FeatureSet) throws {
        try hostile(place) { machine in
            let simplest = try #require(FuzzSubject.simplestRequest(machine.device.kind))
            for _ in 0..<8 {
                machine.start(features)
                let queue = machine.queues[simplest.queue]
                queue.usesIndirectTables = true
                let head = try #require(try queue.add(readable: simplest.readable, writable: simplest.writable))
                if machine.isPacked {
                    // The same table again, by the same identifier, over all of the ring.
                    let first = try machine.memory.read(at: queue.layout.descriptors, count: 16)
                    for index in 1..<16 {
                        try machine.memory.write(first, at: machine.place(queue.layout.descriptors, index * 16))
                    }
                } else {
                    try machine.publish(Array(repeating: head, count: 16), on: queue)
                }
                machine.notifyAll()
                machine.turn()
                machine.transport.writeStatus([])
            }
        }
    }

    @Test("HG-11: packed descriptors with every combination of flags", arguments: HostilePlace.everywhere)
    func packedFlags(place: HostilePlace) throws {
        try hostile(place) { machine in
            for combination in 0..<64 {
                machine.start([.packedRing, .indirectDescriptors, .eventIndex], size: combination & 1 == 0 ? 16 : 13)
                for queue in machine.queues {
                    for index in 0..<Int(queue.layout.size) {
                        // Bits 0 to 2 and the two of the laps, and undefined ones too.
                        let bits = UInt16(combination &+ index) & 7
                        let lap: UInt16 = [1 << 7, 1 << 15, 0, 1 << 7 | 1 << 15][(combination / 8 + index / 3) & 3]
                        let noise: UInt16 = combination & 32 != 0 ? 0x1F78 : 0
                        try machine.describe(index, of: queue, 0x80_0000, 48, next: UInt16(truncatingIfNeeded: combination))
                        try machine.memory.store(
                            bits | lap | noise, at: machine.place(queue.layout.descriptors, index * 16 + 14))
                    }
                    // What the driver wants to be told of, in the same manner.
                    try machine.memory.store(UInt32(combination) << 14 | 0x7FFF, at: queue.layout.driverArea)
                }
                machine.notifyAll()
                machine.rest()
            }
        }
    }

    @Test("HG-12: buffers that wrap around the address space", arguments: HostilePlace.everywhere, layouts)
    func addressesWrap(place: HostilePlace, features: FeatureSet) throws {
        let buffers: [(UInt64, UInt32)] = [
            (.max, 1), (.max, .max), (.max - 63, 64), (.max - 63, 65), (.max - 0xFFFF_FFFE, .max), (1 << 63, 64),
            ((16 << 20) - 1, 2), ((16 << 20) - 64, .max), (0, .max),
        ]
        try hostile(place) { machine in
            for (address, count) in buffers {
                for flags in [0, write, indirect] {
                    machine.start(features)
                    for queue in machine.queues {
                        try machine.describe(0, of: queue, address, flags == indirect ? count & ~15 : count, flags: flags)
                        try machine.publish(on: queue)
                    }
                    machine.notifyAll()
                    machine.rest()
                }
            }
        }
    }

    @Test("HG-13: tables that are no tables", arguments: HostilePlace.everywhere, layouts)
    func indirectTables(place: HostilePlace, features: FeatureSet) throws {
        try hostile(place) { machine in
            let table = GuestAddress(0x90_0000)
            for count in [0, 8, 24, 16 * 1025, 16 * 65_536, 0xFFFF_FFF0] as [UInt32] {
                machine.start(features)
                for queue in machine.queues {
                    try machine.describe(0, of: queue, table.rawValue, count, flags: indirect)
                    try machine.publish(on: queue)
                }
                machine.notifyAll()
                machine.rest()
            }
            for (flags, inner) in [
                (indirect, indirect), (indirect | next, 0), (indirect, next), (indirect | write, indirect | write),
            ] {
                machine.start(features)
                for queue in machine.queues {
                    // It names itself, and a descriptor that it has not.
                    try machine.describe(0, of: queue, table.rawValue, 16, flags: inner, next: 9, in: table)
                    try machine.describe(0, of: queue, table.rawValue, 16, flags: flags, next: 0)
                    try machine.publish(on: queue)
                }
                machine.notifyAll()
                machine.rest()
            }
            // The longest that is taken.
            machine.start(features)
            for index in 0..<1024 {
                try machine.describe(
                    index, of: machine.queues[0], 0x80_0000, 1, flags: index < 1023 && !machine.isPacked ? next : 0,
                    next: machine.isPacked ? 0 : UInt16(index + 1), in: table)
            }
            for queue in machine.queues {
                try machine.describe(0, of: queue, table.rawValue, 16 * 1024, flags: indirect)
                try machine.publish(on: queue)
            }
            machine.notifyAll()
        }
    }

    @Test("HG-18: buffers and rings in the device's own registers", arguments: HostilePlace.everywhere, layouts)
    func theDeviceItself(place: HostilePlace, features: FeatureSet) throws {
        try hostile(place) { machine in
            // Of a machine's memory map: where a transport's registers are, the interrupt controllers', and nothing.
            let registers = (machine.transport as? PCIDriver)?.common ?? 0xFEB0_0000
            for address in [registers, registers + 0x50, 0xFEE0_0000, 0xFEC0_0000, 0xC000_0000] {
                for flags in [0, write, indirect] {
                    machine.start(features)
                    for queue in machine.queues {
                        try machine.describe(0, of: queue, address, 64, flags: flags)
                        try machine.publish(on: queue)
                    }
                    machine.notifyAll()
                    machine.rest()
                }
                machine.start([.version1])
                machine.transport.writeStatus([])
                HostileTransportTests.bringUp(machine) { index, layout in
                    layout = QueueLayout(
                        size: 16, descriptors: GuestAddress(address), driverArea: GuestAddress(address + 0x100),
                        deviceArea: GuestAddress(address + 0x200))
                }
                #expect(machine.needsReset)
                machine.rest()
            }
        }
    }
}
