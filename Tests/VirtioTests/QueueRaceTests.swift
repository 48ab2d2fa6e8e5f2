import Foundation
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// A driver on one thread, its device on another: as with a guest's processors and the event loop.
@Suite struct QueueRaceTests {
    @Test(arguments: ringKinds, [2, 16, 256] as [UInt16])
    func nothingIsGivenBackTwice(ring: FeatureSet, size: UInt16) throws {
        let memory = try GuestMemory(size: 64 << 20)
        let events = ManualEvents()
        let device = NetworkDevice(
            links: [NullBackend()], address: MACAddress(2, 0, 0, 0, 0, 1), events: events, clock: events.clock)
        let driver = MockDriver(try TransportKind.current.driver(device: device, memory: memory), memory: memory)
        #expect(driver.start(ring, size: size))
        let queue = driver.queues[1]
        let end = Flag()
        let worker = Thread { while !end.isSet { if events.run() == 0 { usleep(1) } } }
        worker.start()
        defer { end.set() }
        // The buffers are the same ones over and over: only the rings matter.
        let header = (address: driver.allocate(12), count: 12)
        let frame = (address: driver.allocate(1500), count: 1500)
        var (sent, done, idle) = (0, 0, 0)
        while done < 20_000, idle < 2_000_000 {
            if sent < 20_000 {
                while try queue.add([header, frame], []) != nil { sent += 1 }
                try queue.kick()
            }
            let completed = try queue.completions().count
            done += completed
            idle = completed == 0 ? idle + 1 : 0
        }
        #expect(done >= 20_000, "sent \(sent), given back \(done)")
        #expect(!driver.transport.readStatus().contains(.needsReset))
    }

    private final class Flag: @unchecked Sendable {
        private let lock = NSLock()
        private var value = false
        var isSet: Bool { lock.withLock { value } }
        func set() { lock.withLock { value = true } }
    }
}
