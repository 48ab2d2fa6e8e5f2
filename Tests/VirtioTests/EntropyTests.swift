import Testing
import VMCore
import Virtio
import MonitorTesting

/// Which features a driver takes: what decides how the rings look.
let ringKinds: [FeatureSet] = [
    [], .eventIndex, .indirectDescriptors, [.eventIndex, .indirectDescriptors],
    .packedRing, [.packedRing, .eventIndex], [.packedRing, .indirectDescriptors],
    [.packedRing, .eventIndex, .indirectDescriptors],
]

@Suite struct EntropyTests {
    @Test(arguments: ringKinds, TransportKind.allCases)
    func requestsAreFilled(ring: FeatureSet, kind: TransportKind) throws {
        let memory = try GuestMemory(size: 16 << 20)
        let events = ManualEvents()
        let device = EntropyDevice(events: events)
        let transport = try kind.driver(device: device, memory: memory)
        let driver = MockDriver(transport, memory: memory)
        #expect(driver.start(ring, size: 8))
        events.run()
        for round in 0..<50 {
            try driver.queues[0].add(writable: [16, 48])
            try driver.queues[0].add(writable: [32])
            try driver.queues[0].kick()
            events.run()
            let done = try driver.queues[0].completions()
            #expect(done.count == 2, "round \(round)")
            #expect(done.map(\.written) == [64, 32])
            #expect(done.allSatisfy { $0.bytes.contains { $0 != 0 } })
            #expect(transport.takeInterrupts().used)
        }
        #expect(device.statistics.map(\.value) == [100, 50 * 96])
    }
}
