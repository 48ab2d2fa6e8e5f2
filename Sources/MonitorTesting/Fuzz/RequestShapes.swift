internal import Virtio

/// What requests of each kind of device look like, for a driver that is to get past the first look at them.
struct RequestShapes {
    private let kind: DeviceKind
    private var features: FeatureSet = []
    /// Ports, guest's and host's, of packets that came on a socket device, and what they asked for.
    private var heard: [(guest: UInt32, host: UInt32, operation: UInt16)] = []

    private var share = ShareShapes()

    init(_ kind: DeviceKind) { self.kind = kind }

    mutating func begin(_ features: FeatureSet) {
        self.features = features
        heard = []
        share.begin()
    }

    /// A request that a device in order answers at once, with no features but the version: its queue and its parts.
    var simplest: (queue: Int, readable: [[UInt8]], writable: [Int])? {
        switch kind {
        case .entropy: (0, [], [16])
        case .block: (0, [Self.little(0 as UInt64) + Self.little(0 as UInt64)], [513])
        case .net: (1, [[UInt8](repeating: 0, count: 12 + 60)], [])
        case .console: (1, [[0x78]], [])
        case .balloon: (0, [Self.little(0x300 as UInt32)], [])
        case .socket: (1, [packet(guest: 9, host: 9, operation: 3, count: 0)], [])
        case .fileSystem: (1, [ShareShapes.simplest], [120])
        }
    }

    /// Bytes for the device to read, and how many it may write.
    mutating func make(queue: Int, of count: Int, _ random: inout SeededRandom) -> (readable: [UInt8], writable: Int) {
        switch kind {
        case .entropy: return ([], 1 + random.below(4096))
        case .block: return block(&random)
        case .net: return net(queue, of: count, &random)
        case .console: return console(queue, &random)
        case .balloon: return balloon(queue, &random)
        case .socket: return socket(queue, &random)
        case .fileSystem: return share.make(queue: queue, &random)
        }
    }

    /// Takes out of a request what the host would be worse for, after something was changed in it.
    func tame(_ bytes: inout [UInt8]) { if kind == .fileSystem { ShareShapes.tame(&bytes) } }

    /// Notes what came back, so that it can be answered.
    mutating func hear(_ completion: DriverQueue.Completion, on queue: UInt16) {
        if kind == .fileSystem { share.hear(Array(completion.bytes.prefix(Int(completion.written)))) }
        guard kind == .socket, queue == 0, completion.written >= 44, completion.bytes.count >= 44 else { return }
        func word(_ place: Int) -> UInt32 {
            (0..<4).reduce(0) { $0 | UInt32(completion.bytes[place + $1]) << UInt32(8 * $1) }
        }
        if heard.count > 16 { heard.removeFirst() }
        heard.append((word(20), word(16), UInt16(truncatingIfNeeded: word(28) >> 16)))
    }

    private static func little<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
        (0..<(Value.bitWidth / 8)).map { UInt8(truncatingIfNeeded: value >> Value(8 * $0)) }
    }

    private static func noise(_ count: Int, _ random: inout SeededRandom) -> [UInt8] {
        [UInt8](repeating: UInt8(random.below(256)), count: count)
    }

    // MARK: Source: [VIRTIO1.2 §5.2.6]

    private func block(_ random: inout SeededRandom) -> ([UInt8], Int) {
        let types: [UInt32] = [0, 0, 0, 1, 1, 1, 1, 4, 8, 11, 11, 13, 13]
        let type = random.oneIn(16) ? UInt32(random.below(32)) : types[random.below(types.count)]
        let sector = random.oneIn(16) ? random.next() : UInt64(random.below(2200))
        let header = Self.little(type) + Self.little(0 as UInt32) + Self.little(sector)
        let data = 512 * (random.oneIn(8) ? random.below(256) : random.below(17))
        switch type {
        case 0: return (header, data + 1)
        case 1: return (header + Self.noise(data, &random), 1)
        case 8: return (header, 21)
        case 11, 13:
            var segments: [UInt8] = []
            for _ in 0..<(type == 13 ? 1 : 1 + random.below(random.oneIn(8) ? 40 : 4)) {
                let start = random.oneIn(16) ? random.next() : UInt64(random.below(2100))
                let flags: UInt32 = type == 13 && random.oneIn(2) ? 1 : 0
                segments += Self.little(start) + Self.little(random.oneIn(16) ? .max : UInt32(random.below(512)))
                segments += Self.little(random.oneIn(16) ? 0xFF : flags)
            }
            return (header + segments, 1)
        default: return (header, 1)
        }
    }

    // MARK: Source: [VIRTIO1.2 §5.1.6]

    private func net(_ queue: Int, of count: Int, _ random: inout SeededRandom) -> ([UInt8], Int) {
        if count & 1 == 1, queue == count - 1 || (queue == 2 && !features.contains(.netMultiqueue)) {
            let pairs = random.oneIn(4) ? UInt16(truncatingIfNeeded: random.next()) : UInt16(random.below(count / 2 + 2))
            let group: UInt8 = random.oneIn(4) ? UInt8(random.below(8)) : 4
            return ([group, random.oneIn(8) ? 1 : 0] + Self.little(pairs), 1)
        }
        if queue & 1 == 0 {
            return ([], [12, 13, 64, 256, 1526, 1526, 2048, 4096, 65_562][random.below(9)] + random.below(2))
        }
        var header = [UInt8](repeating: 0, count: 12)
        if random.oneIn(4) { for index in 0..<10 { header[index] = UInt8(random.below(random.oneIn(2) ? 4 : 256)) } }
        let length = random.oneIn(12) ? random.below(66_000) : 14 + random.below(1501)
        return (header + Self.noise(length, &random), 0)
    }

    // MARK: Source: [VIRTIO1.2 §5.3.6]

    private func console(_ queue: Int, _ random: inout SeededRandom) -> ([UInt8], Int) {
        if features.contains(FeatureSet(bit: 1)) {
            if queue == 2 { return ([], random.oneIn(4) ? random.below(16) : 128) }
            if queue == 3 {
                // Ready, a port ready, a port open: in that order more often than not.
                let events: [UInt16] = [0, 3, 3, 6, 6, 6]
                let event = random.oneIn(12) ? UInt16(random.below(16)) : events[random.below(events.count)]
                let port = random.oneIn(12) ? UInt32(truncatingIfNeeded: random.next()) : UInt32(random.below(5))
                let value = UInt16(random.oneIn(5) ? random.below(3) : 1)
                return (Self.little(port) + Self.little(event) + Self.little(value), 0)
            }
        }
        if queue & 1 == 0 { return ([], 1 + random.below(512)) }
        return (Self.noise(1 + random.below(random.oneIn(16) ? 100_000 : 256), &random), 0)
    }

    // MARK: Source: [VIRTIO1.2 §5.5.6]

    private func balloon(_ queue: Int, _ random: inout SeededRandom) -> ([UInt8], Int) {
        switch queue {
        case 0, 1:
            let count = 1 + random.below(random.oneIn(8) ? 3000 : 64)
            let start = UInt32(0x200 + random.below(0x200))
            let isRun = random.oneIn(2)
            return (
                (0..<count).flatMap { index -> [UInt8] in
                    if random.oneIn(64) { return Self.little(UInt32(truncatingIfNeeded: random.next())) }
                    return Self.little(isRun ? start &+ UInt32(index) : UInt32(0x200 + random.below(0x200)))
                }, 0
            )
        case 2 where features.contains(FeatureSet(bit: 1)):
            return (
                (0..<(1 + random.below(12))).flatMap { tag in
                    Self.little(random.oneIn(8) ? UInt16(truncatingIfNeeded: random.next()) : UInt16(tag))
                        + Self.little(random.next())
                }, 0
            )
        default: return ([], 4096 * (1 + random.below(32)))
        }
    }

    // MARK: Source: [VIRTIO1.2 §5.10.6]

    private func packet(
        guest: UInt32, host: UInt32, operation: UInt16, count: UInt32, flags: UInt32 = 0, window: UInt32 = 65_536,
        forwarded: UInt32 = 0, to destination: UInt64 = 2, kind: UInt16 = 1
    ) -> [UInt8] {
        Self.little(3 as UInt64) + Self.little(destination) + Self.little(guest) + Self.little(host) + Self.little(count)
            + Self.little(kind) + Self.little(operation) + Self.little(flags) + Self.little(window) + Self.little(forwarded)
    }

    private func socket(_ queue: Int, _ random: inout SeededRandom) -> ([UInt8], Int) {
        if queue == 0 { return ([], 44 + (random.oneIn(4) ? 1 + random.below(8) : 1 + random.below(4096))) }
        if queue == 2 { return ([], 8) }
        var (guest, host) = (1000 + UInt32(random.below(3)), 50 + UInt32(random.below(3)))
        var operation = UInt16([1, 1, 5, 5, 5, 5, 4, 6, 7, 3][random.below(10)])
        if let last = heard.randomElement(using: &random), !random.oneIn(3) {
            (guest, host) = (last.guest, last.host)
            // A request is mostly taken.
            operation = last.operation == 1 && !random.oneIn(3) ? 2 : [5, 5, 5, 4, 6, 7, 3, 2][random.below(8)]
        }
        if random.oneIn(20) { operation = UInt16(random.below(12)) }
        let count = operation == 5 ? random.below(random.oneIn(8) ? 70_000 : 600) : 0
        let claimed = random.oneIn(12) ? UInt32(truncatingIfNeeded: random.next()) : UInt32(count)
        let window: UInt32 = random.oneIn(4) ? UInt32(random.below(200)) : 65_536
        let head = packet(
            guest: guest, host: host, operation: operation, count: claimed, flags: UInt32(random.below(4)), window: window,
            // More than was ever sent is no credit at all.
            forwarded: random.oneIn(10) ? UInt32(truncatingIfNeeded: random.next()) : 0,
            to: random.oneIn(24) ? random.next() : 2, kind: random.oneIn(24) ? UInt16(random.below(4)) : 1)
        return (head + Self.noise(count, &random), 0)
    }
}
