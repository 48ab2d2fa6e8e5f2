import Synchronization
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// A vCPU, the event loop, a host that types and one that reads, each a thread: both streams arrive whole and in order.
@Suite(.behindEachTransport) struct ConsoleConcurrencyTests {
    /// What the threads share: each part of the rig is one thread's, but for the device and the sinks.
    private final class Shared: @unchecked Sendable {
        let rig: ConsoleRig
        let isOver = Atomic<Bool>(false)
        let typed = Atomic<Int>(0)
        let disturbed = Atomic<Int>(0)
        let out = Mutex<[UInt8]>([])
        init(_ rig: ConsoleRig) { self.rig = rig }
    }

    @Test(arguments: [[], [.packedRing, .eventIndex]] as [FeatureSet]) func streamsStayWhole(ring: FeatureSet) async throws {
        let rig = try ConsoleRig(capacity: 512, channels: ["one"])
        try rig.open(ring)
        let length = 30_000
        let shared = Shared(rig)
        let text = (0..<length).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
        let input = await withTaskGroup(of: [UInt8].self) { group in
            // The event loop.
            group.addTask {
                while !shared.isOver.load(ordering: .acquiring) {
                    shared.rig.events.turn()
                    await Task.yield()
                }
                return []
            }
            // Who reads.
            group.addTask {
                while shared.out.withLock({ $0.count }) < length, !shared.isOver.load(ordering: .acquiring) {
                    let bytes = shared.rig.channelSinks[0].drain(300)
                    shared.out.withLock { $0 += bytes }
                    await Task.yield()
                }
                return []
            }
            // Who types.
            group.addTask {
                var done = 0
                while done < length, !shared.isOver.load(ordering: .acquiring) {
                    done += shared.rig.receive(Array(text[done..<min(length, done + 700)]), port: 1)
                    shared.typed.store(done, ordering: .relaxed)
                    await Task.yield()
                }
                return []
            }
            // The guest.
            group.addTask {
                defer { shared.isOver.store(true, ordering: .releasing) }
                var got: [UInt8] = []
                var sent = 0
                var rounds = 0
                let (transmit, receive) = (shared.rig.transmitQueue(1), shared.rig.receiveQueue(1))
                let buffers = (0..<32).map { shared.rig.memory.size - UInt64($0 + 1) * 4096 }
                var (nextOut, nextIn) = (0, 0)
                do {
                    while got.count < length || shared.out.withLock({ $0.count }) < length {
                        rounds += 1
                        guard rounds < 2_000_000 else { break }
                        if sent < length, transmit.outstanding < 16 {
                            let part = Array(text[sent..<min(length, sent + 900)])
                            let address = GuestAddress(buffers[nextOut % 16])
                            nextOut += 1
                            try shared.rig.memory.write(part, at: address)
                            if try transmit.add([(address, part.count)], []) != nil { sent += part.count }
                            try transmit.kick()
                        }
                        _ = try transmit.completions()
                        for done in try receive.completions() { got += done.bytes[..<Int(done.written)] }
                        while receive.outstanding < 8 {
                            try receive.add([], [(GuestAddress(buffers[16 + nextIn % 16]), 200)])
                            nextIn += 1
                        }
                        try receive.kick()
                        await Task.yield()
                    }
                } catch { Issue.record(error) }
                return got
            }
            return await group.reduce(into: []) { $0 += $1 }
        }
        #expect(difference(of: input, from: text) == nil)
        #expect(difference(of: shared.out.withLock { $0 }, from: text) == nil)
        #expect(shared.typed.load(ordering: .relaxed) == length)
    }

    /// Resets and unplugging while everybody is at it. After `stop` the rings are not touched.
    @Test func resetsInTheMidst() async throws {
        let rig = try ConsoleRig(capacity: 64, channels: ["one"])
        let shared = Shared(rig)
        await withTaskGroup(of: Void.self) { group in
            group.addTask {
                while !shared.isOver.load(ordering: .acquiring) {
                    shared.rig.events.turn()
                    await Task.yield()
                }
            }
            group.addTask {
                while !shared.isOver.load(ordering: .acquiring) {
                    _ = shared.rig.receive([1, 2, 3, 4], port: 1)
                    shared.rig.channelSinks[0].drain(40)
                    shared.rig.device.ports[1].setPlugged(false)
                    shared.rig.device.ports[1].setPlugged(true)
                    shared.rig.device.resize(ConsoleSize(columns: 4, rows: 4))
                    await Task.yield()
                }
            }
            group.addTask {
                for _ in 0..<60 {
                    guard shared.rig.driver.start([ConsoleRig.multiport], size: 8) else { break }
                    do {
                        for _ in 0..<8 { try shared.rig.driver.queues[2].add(writable: [64]) }
                        for message in [ConsoleRig.Message(.max, 0, 1), .init(1, 3, 1), .init(1, 6, 1)] {
                            try shared.rig.driver.queues[3].add(readable: [message.bytes])
                            shared.rig.driver.transport.notify(queue: 3)
                            await Task.yield()
                        }
                        for _ in 0..<4 { try shared.rig.transmitQueue(1).add(readable: [[UInt8](repeating: 7, count: 50)]) }
                        for _ in 0..<4 { try shared.rig.receiveQueue(1).add(writable: [3]) }
                        shared.rig.driver.transport.notify(queue: 5)
                        for _ in 0..<20 { await Task.yield() }
                        shared.rig.transport.writeStatus([])
                        let used = try usedIndices(shared.rig)
                        for _ in 0..<20 { await Task.yield() }
                        if try used != usedIndices(shared.rig) { shared.disturbed.add(1, ordering: .relaxed) }
                    } catch { Issue.record(error) }
                }
                shared.isOver.store(true, ordering: .releasing)
            }
        }
        #expect(shared.disturbed.load(ordering: .relaxed) == 0)
    }

    private func usedIndices(_ rig: ConsoleRig) throws -> [UInt16] {
        try rig.driver.queues.map { try rig.memory.load(UInt16.self, at: GuestAddress($0.layout.deviceArea.rawValue + 2)) }
    }
}
