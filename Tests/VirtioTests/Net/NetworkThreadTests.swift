import Foundation
import Synchronization
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

@Suite(.behindEachTransport) struct NetworkThreadTests {
    /// The event loop works while a vCPU's thread resets the device, over and over: after a reset nothing is written any more.
    @Test(arguments: [FeatureSet.eventIndex, .packedRing]) func nothingIsTouchedAfterAReset(ring: FeatureSet) throws {
        let rig = try NetworkRig([NullBackend(frame: .frame(1, count: 1500), supply: .max)])
        final class Flag: Sendable { let isSet = Atomic<Bool>(false) }
        let done = Flag()
        let ended = DispatchSemaphore(value: 0)
        let events = rig.events
        Thread.detachNewThread {
            while !done.isSet.load(ordering: .acquiring) {
                events.run(limit: 100)
                usleep(50)
            }
            ended.signal()
        }
        defer {
            done.isSet.store(true, ordering: .releasing)
            ended.wait()
        }
        for round in 0..<60 {
            rig.driver.start(ring.union(.netMergeableBuffers), size: 64)
            let buffers = (0..<60).map { _ in (address: rig.driver.allocate(2048), count: 2048) }
            for buffer in buffers { _ = try rig.receive.add([], [buffer]) }
            for number in 0..<20 { _ = try rig.transmit.add(readable: [.zeros(12) + .frame(number)]) }
            rig.driver.transport.notify(queue: 0)
            rig.driver.transport.notify(queue: 1)
            // Once to its end, then whenever it happens.
            for _ in 0..<5000 where round == 0 && rig.count("framesSent") < 20 { usleep(1000) }
            usleep(UInt32(round * 5))
            rig.driver.transport.writeStatus([])
            for buffer in buffers { try rig.memory.write([0xEE], at: buffer.address) }
            let layout = rig.receive.layout
            let before = try rig.memory.read(at: layout.deviceArea, count: 64)
            usleep(200)
            for buffer in buffers { #expect(try rig.memory.load(UInt8.self, at: buffer.address) == 0xEE) }
            #expect(try rig.memory.read(at: layout.deviceArea, count: 64) == before)
        }
        #expect(rig.count("framesReceived") > 0 && rig.count("framesSent") > 0)
    }
}
