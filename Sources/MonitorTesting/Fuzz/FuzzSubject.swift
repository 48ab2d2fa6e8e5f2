internal import Glibc
internal import VMCore
public import Virtio

/// What there is to be fuzzed: each device in the shapes that differ in what they do with a guest's requests.
public enum FuzzSubject: String, CaseIterable, Sendable {
    case entropy
    case blockNull = "block-null"
    /// A raw file, through threads and through io_uring; where the host has none of it, threads again.
    case blockThreads = "block-threads"
    case blockRing = "block-ring"
    case blockQCOW2 = "block-qcow2"
    /// A qcow2 file with bytes of its tables changed.
    case blockMutated = "block-qcow2-mutated"
    case net
    case netQueues = "net-queues"
    /// Frames over a stream, as passt has them.
    case netStream = "net-stream"
    case console
    case balloon
    case socket
    /// A shared directory, which the host changes now and then.
    case share

    public func make(_ events: ManualEvents, _ random: inout SeededRandom) throws -> VirtioFuzzer.Subject {
        switch self {
        case .entropy: VirtioFuzzer.Subject(EntropyDevice(events: events))
        case .blockNull:
            block(NullImage(capacity: 1 << 20, isReadOnly: random.oneIn(8)), nil, events, &random)
        case .blockThreads, .blockRing:
            block(
                try FuzzImages.raw(isReadOnly: random.oneIn(8)), self == .blockRing ? .ring : .threads, events, &random)
        case .blockQCOW2: block(try FuzzImages.qcow2(mutations: 0, &random) ?? Self.noImage, .threads, events, &random)
        case .blockMutated:
            block(try FuzzImages.qcow2(mutations: 3, &random) ?? Self.noImage, .threads, events, &random)
        case .net: try net([.messages], events, &random)
        case .netQueues: try net([.messages, .messages, .messages], events, &random)
        case .netStream: try net([.stream], events, &random)
        case .console: try console(events, &random)
        case .balloon: balloon(events, &random)
        case .socket: try socket(events, &random)
        case .share: try share(events, &random)
        }
    }

    /// A request that a device of that kind answers at once when it is in order, with no features but the version: its queue
    /// and its parts.
    public static func simplestRequest(_ kind: DeviceKind) -> (queue: Int, readable: [[UInt8]], writable: [Int])? {
        RequestShapes(kind).simplest
    }

    private static var noImage: NullImage { NullImage(capacity: 1 << 20) }

    /// Limits that are reached, now and then.
    private func limits(_ random: inout SeededRandom) -> RateLimits {
        guard random.oneIn(6) else { return RateLimits() }
        return RateLimits(
            bytes: Rate(perSecond: 1 << 20, burst: UInt64(1 + random.below(1 << 16))),
            operations: random.oneIn(2) ? Rate(perSecond: 100, burst: 3) : nil)
    }

    // MARK: Disks

    private func block(
        _ image: any BlockImage, _ execution: BlockExecution?, _ events: ManualEvents, _ random: inout SeededRandom
    ) -> VirtioFuzzer.Subject {
        var options = BlockOptions()
        options.execution = execution
        options.queueCount = 1 + (random.oneIn(3) ? random.below(4) : 0)
        options.queueSize = 1 << UInt16(1 + random.below(8))
        options.threads = 1 + random.below(3)
        options.serial = "fuzz"
        options.limits = limits(&random)
        let device = BlockDevice(image: image, options: options, events: events, clock: events.clock)
        return VirtioFuzzer.Subject(
            device,
            stir: { random in
                // The host's turn to have finished something.
                if random.oneIn(4) { usleep(20) }
            },
            counts: { [("images that were opened", image is NullImage ? 0 : 1)] })
    }

    // MARK: Links

    private enum Wire { case messages, stream }

    private func net(_ wires: [Wire], _ events: ManualEvents, _ random: inout SeededRandom) throws -> VirtioFuzzer.Subject {
        var peers: [FuzzPeer] = []
        var links: [any NetworkBackend] = []
        let carriesHeader = random.oneIn(2)
        for wire in wires {
            let (ours, theirs) = try FuzzPeer.pair(isStream: wire == .stream)
            peers.append(FuzzPeer(theirs))
            links.append(
                wire == .stream
                    ? PasstBackend(descriptor: ours) : SocketBackend(descriptor: ours, carriesHeader: carriesHeader))
        }
        let hasHeader = links[0].carriesHeader
        let device = NetworkDevice(
            links: links, address: MACAddress(2, 0, 0, 0, 0, 1), mtu: random.oneIn(3) ? UInt16(random.below(9000)) : nil,
            transmitLimits: limits(&random), receiveLimits: limits(&random), events: events, clock: events.clock)
        let isStream = wires[0] == .stream
        return VirtioFuzzer.Subject(
            device,
            stir: { random in
                guard let peer = peers.randomElement(using: &random) else { return }
                if random.oneIn(3) { peer.drain() }
                if random.oneIn(300) { peer.leave() }
                for _ in 0..<(random.oneIn(6) ? 200 : 1 + random.below(6)) {
                    let length = random.oneIn(12) ? random.below(66_000) : 14 + random.below(random.oneIn(2) ? 60 : 1500)
                    var frame = [UInt8](repeating: UInt8(random.below(256)), count: length + (hasHeader ? 12 : 0))
                    if hasHeader { for index in 0..<12 { frame[index] = random.oneIn(4) ? UInt8(random.below(8)) : 0 } }
                    if isStream {
                        // Lengths that are wrong end it.
                        let claimed = random.oneIn(400) ? UInt32(truncatingIfNeeded: random.next()) : UInt32(frame.count)
                        frame = (0..<4).map { UInt8(truncatingIfNeeded: claimed >> UInt32(24 - 8 * $0)) } + frame
                    }
                    peer.write(frame)
                }
            }, settle: { for peer in peers { peer.drain() } },
            counts: { [("bytes that the peers got", peers.reduce(0) { $0 &+ $1.received })] })
    }

    // MARK: Console

    private func console(_ events: ManualEvents, _ random: inout SeededRandom) throws -> VirtioFuzzer.Subject {
        let sinks = (0..<(random.oneIn(3) ? 1 : 4)).map { _ in MemorySink(capacity: 1 + random.below(4096)) }
        let fullSink: FullSink = random.oneIn(3) ? .loses : .waits
        let device = try ConsoleDevice(
            sink: sinks[0], fullSink: fullSink, size: random.oneIn(4) ? nil : ConsoleSize(columns: 80, rows: 25),
            channels: sinks.indices.dropFirst().map {
                ConsoleChannel(name: "port\($0)", sink: sinks[$0], fullSink: fullSink)
            },
            events: events, clock: events.clock)
        for port in device.ports {
            port.setRoomHandler { [weak device] in _ = device?.ports.first.map { Self.offer([1, 2, 3], to: $0) } }
            port.setOpenHandler { _ in }
        }
        return VirtioFuzzer.Subject(
            device,
            stir: { [weak device] random in
                guard let device, let port = device.ports.randomElement(using: &random) else { return }
                switch random.below(8) {
                case 0:
                    device.resize(ConsoleSize(columns: UInt16(random.below(65_536)), rows: UInt16(random.below(65_536))))
                case 1: port.setHostOpen(random.oneIn(2))
                case 2: port.setPlugged(!random.oneIn(3))
                case 3: for sink in sinks { sink.drain() }
                case 4: if random.oneIn(8) { device.transmitWaiting() }
                default: _ = Self.offer([UInt8](repeating: 65, count: 1 + random.below(2000)), to: port)
                }
            },
            settle: { [weak device] in
                for sink in sinks { sink.drain() }
                device?.console.setHostOpen(true)
                device?.console.setPlugged(true)
            })
    }

    private static func offer(_ bytes: [UInt8], to port: ConsolePort) -> Int {
        unsafe bytes.withUnsafeBytes { unsafe port.receive($0) }
    }

    // MARK: Balloon

    private func balloon(_ events: ManualEvents, _ random: inout SeededRandom) -> VirtioFuzzer.Subject {
        let device = BalloonDevice(
            deflatesOnPressure: random.oneIn(2), statisticsInterval: random.oneIn(2) ? 100_000_000 : nil, events: events,
            clock: events.clock)
        var told: UInt64 = 0
        return VirtioFuzzer.Subject(
            device,
            stir: { [weak device] random in
                guard let device else { return }
                if device.guestStatistics != nil { told += 1 }
                switch random.below(3) {
                case 0: device.setTarget(bytes: random.oneIn(4) ? random.next() : UInt64(random.below(4 << 20)))
                case 1: device.requestStatistics()
                default: _ = (device.actual, device.target, device.configuration())
                }
            }, counts: { [("times that statistics were there", told)] })
    }

    // MARK: Sockets

    private func socket(_ events: ManualEvents, _ random: inout SeededRandom) throws -> VirtioFuzzer.Subject {
        let host = try FuzzHost()
        var limits = SocketDevice.Limits()
        limits.connections = 1 + random.below(12)
        limits.handshakes = 1 + random.below(4)
        limits.window = UInt32(4 + random.below(1 << 16))
        limits.narrowWindow = UInt32(4 + random.below(1 << 12))
        limits.wideConnections = random.below(4)
        let device = try SocketDevice(guestCID: 3, path: host.path, events: events, clock: events.clock, limits: limits)
        return VirtioFuzzer.Subject(
            device,
            stir: { [weak device] random in
                if random.oneIn(64) { device?.resetTransport() }
                host.stir(&random)
            }, settle: { host.drain() }, counts: { [("bytes that the host got", host.received)] })
    }

    // MARK: Shared directories

    private func share(_ events: ManualEvents, _ random: inout SeededRandom) throws -> VirtioFuzzer.Subject {
        let tree = try FuzzShare()
        var options = ShareOptions()
        options.caching = ShareCaching.allCases[random.below(3)]
        options.ownership = ShareOwnership.allCases[random.below(2)]
        options.hasExtendedAttributes = !random.oneIn(4)
        options.sharesLocks = random.oneIn(2)
        options.queueCount = 1 + (random.oneIn(3) ? random.below(3) : 0)
        options.queueSize = 1 << UInt16(3 + random.below(6))
        options.threads = 1 + random.below(3)
        options.descriptorLimit = 16 + random.below(100)
        options.inodeLimit = 8 + random.below(200)
        let device = try FileSystemDevice(
            directory: tree.path, tag: "fuzz", isReadOnly: random.oneIn(6), options: options, events: events, clock: events.clock)
        return VirtioFuzzer.Subject(
            device, stir: { random in tree.stir(&random) },
            counts: { [("escapes", tree.isContained ? 0 : 1)] })
    }
}
