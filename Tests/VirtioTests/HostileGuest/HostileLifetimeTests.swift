import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// Devices that go in the middle of their work, and guests that reset them over and over.
@Suite(.serialized) struct HostileLifetimeTests {
    private static var openDescriptors: Int {
        var count = 0
        for descriptor in 0..<Int32(2048) where fcntl(descriptor, F_GETFD) >= 0 { count += 1 }
        return count
    }

    /// Has every queue filled, and nothing waited for.
    private func begin(_ machine: HostileMachine, _ features: FeatureSet) throws {
        machine.start(features)
        let simplest = try #require(FuzzSubject.simplestRequest(machine.device.kind))
        for queue in machine.queues {
            for _ in 0..<4 {
                if Int(queue.index) == simplest.queue {
                    _ = try queue.add(readable: simplest.readable, writable: simplest.writable)
                } else {
                    _ = try queue.add([], [(GuestAddress(0x80_0000), 2048)])
                }
            }
        }
        machine.notifyAll()
    }

    /// Nothing holds a device that the machine has let go of; what was due for it comes to nothing.
    @Test(arguments: HostilePlace.everywhere) func nothingIsLeftOfADevice(place: HostilePlace) throws {
        for turns in 0..<3 {
            weak var device: (any VirtioDevice)?
            weak var memory: GuestMemory?
            var events: ManualEvents?
            do {
                var random = SeededRandom(seed: UInt64(turns))
                let machine = try HostileMachine(place)
                try begin(machine, [.indirectDescriptors, .eventIndex])
                machine.subject.stir(&random)
                for _ in 0..<turns { machine.turn() }
                // The session goes on.
                (device, memory, events) = (machine.device, machine.memory, machine.events)
                withExtendedLifetime(machine) {}
            }
            #expect(device == nil)
            events?.run()
            events?.poll()
            events?.clock.advance(by: 3_600_000_000_000)
            events?.run()
            #expect(memory == nil)
        }
    }

    /// A reset leaves neither descriptors nor requests behind, however often it comes and whatever was under way.
    @Test(arguments: HostilePlace.everywhere) func resetsLeaveNothing(place: HostilePlace) throws {
        var growth = 0
        // Other tests have descriptors, too: not always the same number.
        for _ in 0..<8 {
            let before = Self.openDescriptors
            for _ in 0..<4 {
                var random = SeededRandom(seed: 3)
                let machine = try HostileMachine(place)
                for round in 0..<25 {
                    try begin(machine, round & 1 == 0 ? [] : [.packedRing])
                    machine.subject.stir(&random)
                    if round % 3 > 0 { machine.turn() }
                }
                try machine.expectWorks()
            }
            growth = Self.openDescriptors - before
            if growth < 4 { return }
        }
        Issue.record("\(growth) descriptors stay open")
    }
}
