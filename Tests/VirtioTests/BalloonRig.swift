import Glibc
import VMCore
import Virtio
import MonitorTesting

/// A balloon with its driver. Rings and requests lie in the first 16 MiB; what is given up lies behind.
final class BalloonRig {
    let memory: GuestMemory
    let events = ManualEvents()
    let device: BalloonDevice
    let transport: any DriverTransport
    let driver: MockDriver

    static let statistics = FeatureSet(bit: 1), deflate = FeatureSet(bit: 2), poison = FeatureSet(bit: 4)
    static let reporting = FeatureSet(bit: 5)

    init(_ kind: TransportKind = .current, mebibytes: UInt64 = 64, interval: UInt64? = nil) throws {
        memory = try GuestMemory(size: mebibytes << 20)
        device = BalloonDevice(statisticsInterval: interval, events: events, clock: events.clock)
        transport = try kind.driver(device: device, memory: memory)
        driver = MockDriver(transport, memory: memory, buffers: GuestAddress(1 << 20))
    }

    func touch(_ range: Range<UInt64>) throws {
        for address in stride(from: range.lowerBound, to: range.upperBound, by: 4096) {
            try memory.store(UInt8(0xA5), at: GuestAddress(address))
        }
    }

    /// Bytes of the range that the host holds.
    func resident(_ range: Range<UInt64>) -> UInt64 {
        guard let bytes = memory.hostBytes(at: GuestAddress(range.lowerBound), count: UInt64(range.count)) else { return 0 }
        var pages = [UInt8](repeating: 0, count: range.count / 4096)
        guard mincore(bytes.baseAddress!, bytes.count, &pages) == 0 else { return 0 }
        return UInt64(pages.count { $0 & 1 != 0 }) * 4096
    }

    func list(_ pages: [UInt32]) -> [UInt8] {
        pages.flatMap { page in (0..<4).map { UInt8(truncatingIfNeeded: page >> (8 * $0)) } }
    }

    func inflate(_ pages: [UInt32]) throws {
        try driver.queues[0].add(readable: [list(pages)])
        try driver.queues[0].kick()
        events.run()
    }

    func report(_ ranges: [(UInt64, Int)], queue: Int = 4) throws {
        try driver.queues[queue].add([], ranges.map { (GuestAddress($0.0), $0.1) })
        try driver.queues[queue].kick()
        events.run()
    }

    func statistic(_ name: String) -> UInt64? { device.statistics.first { $0.name == name }?.value }
}
