internal import Glibc
public import VMCore
public import Virtio

/// A driver that keeps no rule: random registers, random rings, random buffers, for one device behind one transport.
///
/// What is looked for is what a guest must not be able to do: a trap ends the process, a turn of the event loop that takes long is
/// a hang, and the caller sees whether memory grows.
public final class VirtioFuzzer {
    /// What a device is fuzzed with: made anew for each case.
    public struct Subject {
        /// The device, and what it works on.
        public var device: any VirtioDevice
        /// Something for the host's side to do now and then: frames that come in, a peer that writes.
        public var stir: (inout SeededRandom) -> Void

        public init(_ device: any VirtioDevice, stir: @escaping (inout SeededRandom) -> Void = { _ in }) {
            self.device = device
            self.stir = stir
        }
    }

    /// One case took too long, or the device did not come back.
    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    private let seed: UInt64
    private let makeSubject: (any EventService, GuestMemory) throws -> Subject
    private let makeTransport: (any VirtioDevice, GuestMemory) -> any DriverTransport
    /// Cases so far, and requests that devices took in them.
    public private(set) var cases: UInt64 = 0
    public private(set) var longestTurn: UInt64 = 0

    private static let memorySize: UInt64 = 4 << 20
    /// Nanoseconds that one turn may take: far more than a fair share needs on a loaded host.
    private static let limit: UInt64 = 1_000_000_000

    public init(
        seed: UInt64, subject: @escaping (any EventService, GuestMemory) throws -> Subject,
        transport: @escaping (any VirtioDevice, GuestMemory) -> any DriverTransport
    ) {
        self.seed = seed
        makeSubject = subject
        makeTransport = transport
    }

    /// Runs cases from `first` on until there were `count`, or the time is over.
    public func run(first: UInt64 = 0, count: UInt64 = .max, seconds: UInt64 = .max, _ began: (UInt64) -> Void = { _ in }) throws {
        let start = Self.now()
        var number = first
        while number &- first < count, (Self.now() &- start) / 1_000_000_000 < seconds {
            began(number)
            try runCase(number)
            cases += 1
            number += 1
        }
    }

    private static func now() -> UInt64 {
        var time = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }

    private func runCase(_ number: UInt64) throws {
        var random = SeededRandom(seed: seed &+ number &* 0x9E37_79B9_7F4A_7C15)
        let memory = try GuestMemory(size: Self.memorySize)
        let events = ManualEvents()
        let subject = try makeSubject(events, memory)
        let transport = makeTransport(subject.device, memory)
        for _ in 0..<(1 + random.below(4)) {
            let driver = MockDriver(transport, memory: memory)
            let features = random.oneIn(4) ? FeatureSet(rawValue: random.next()) : transport.registers.offered.intersection(
                FeatureSet(rawValue: random.next() | FeatureSet.version1.rawValue))
            let size: UInt16 = 1 << UInt16(random.below(9))
            guard driver.start(features, size: size) else { continue }
            for _ in 0..<(8 + random.below(64)) { try step(driver, subject, events, &random) }
            if random.oneIn(2) { transport.writeStatus([]) }
        }
        transport.writeStatus([])
        try turn(events, number)
        // A device that was treated so works all the same.
        let driver = MockDriver(transport, memory: memory)
        guard driver.start(.version1), driver.transport.readStatus().contains(.driverOK), !driver.transport.readStatus().contains(.needsReset)
        else { throw Failure(description: "case \(number): the device does not start again after a reset") }
        try turn(events, number)
        transport.writeStatus([])
        try turn(events, number)
    }

    private func turn(_ events: ManualEvents, _ number: UInt64) throws {
        for _ in 0..<3 {
            let before = Self.now()
            events.turn()
            events.poll()
            let taken = Self.now() &- before
            longestTurn = max(longestTurn, taken)
            guard taken < Self.limit else { throw Failure(description: "case \(number): a turn took \(taken / 1_000_000) ms") }
        }
    }

    private func step(
        _ driver: MockDriver, _ subject: Subject, _ events: ManualEvents, _ random: inout SeededRandom
    ) throws {
        guard let queue = driver.queues.randomElement(using: &random) else { return }
        switch random.below(12) {
        case 0:
            try scribble(over: queue.layout, driver.memory, &random)
        case 1...5:
            try addChain(to: queue, driver, &random)
        case 6:
            driver.transport.notify(queue: random.oneIn(4) ? UInt16(truncatingIfNeeded: random.next()) : queue.index)
        case 7:
            let width = AccessWidth.allCases[random.below(4)]
            let offset = random.oneIn(8) ? random.next() : UInt64(random.below(128))
            driver.transport.writeConfiguration(offset: offset & 0xFFF, width: width, value: random.next())
            _ = driver.transport.readConfiguration(offset: offset & 0xFFF, width: width)
        case 8:
            _ = driver.transport.takeInterrupts()
        case 9:
            subject.stir(&random)
        case 10:
            // Completions of a chain that is not the driver's own are its own affair.
            _ = try? queue.completions()
        default:
            driver.transport.notify(queue: queue.index)
            try turn(events, cases)
        }
        if random.oneIn(40) { events.clock.advance(by: UInt64(random.below(2_000_000_000))) }
    }

    /// Random words in the rings themselves.
    private func scribble(over layout: QueueLayout, _ memory: GuestMemory, _ random: inout SeededRandom) throws {
        let areas: [(GuestAddress, Int)] = [
            (layout.descriptors, Int(layout.size) * 16), (layout.driverArea, Int(layout.size) * 2 + 6),
            (layout.deviceArea, Int(layout.size) * 8 + 6),
        ]
        let (base, count) = areas[random.below(3)]
        for _ in 0..<(1 + random.below(8)) {
            let place = GuestAddress(base.rawValue &+ UInt64(random.below(max(1, count - 2)) & ~1))
            try memory.store(random.oneIn(2) ? UInt16(random.below(16)) : UInt16(truncatingIfNeeded: random.next()), at: place)
        }
    }

    /// A chain whose buffers are anywhere and of any size, the first one a likely header.
    private func addChain(to queue: DriverQueue, _ driver: MockDriver, _ random: inout SeededRandom) throws {
        func buffer(_ random: inout SeededRandom) -> (address: GuestAddress, count: Int) {
            let count =
                switch random.below(8) {
                case 0: 0
                case 1: Int(random.next() & 0xFFFF_FFFF)
                case 2...4: 1 + random.below(64)
                default: 1 + random.below(8192)
                }
            let address = random.oneIn(16) ? random.next() : 0x20_0000 &+ UInt64(random.below(0x1F_0000))
            return (GuestAddress(address), count)
        }
        var readable = (0..<random.below(4)).map { _ in buffer(&random) }
        let writable = (0..<(random.below(4) + (readable.isEmpty ? 1 : 0))).map { _ in buffer(&random) }
        if !readable.isEmpty, !random.oneIn(4) {
            // A header of small numbers: types, lengths and flags that mean something.
            let header = (0..<(4 * (1 + random.below(16)))).map { index in
                index % 4 == 0 || random.oneIn(8) ? UInt8(random.below(16)) : 0
            }
            let address = GuestAddress(0x20_0000 &+ UInt64(random.below(0x1E_0000)))
            try driver.memory.write(header, at: address)
            readable[0] = (address, random.oneIn(4) ? 1 + random.below(64) : header.count)
        }
        queue.usesIndirectTables = driver.features.contains(.indirectDescriptors) && random.oneIn(2)
        _ = try queue.add(readable, writable)
    }
}
