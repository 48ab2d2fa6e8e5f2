internal import Glibc
public import VMCore
public import Virtio

/// A driver that keeps no rule: random registers, random rings, random buffers, for one device behind one transport.
///
/// What is looked for is what a guest must not be able to do: a trap ends the process, a turn of the event loop that takes
/// long is a hang, work that is scheduled for ever is a spin, and the caller sees whether memory grows. After each case the
/// device must answer a sane driver.
public final class VirtioFuzzer {
    /// What a device is fuzzed with: made anew for each case.
    public struct Subject {
        /// The device, and what it works on.
        public var device: any VirtioDevice
        /// Something for the host's side to do now and then: frames that come in, a peer that writes.
        public var stir: (inout SeededRandom) -> Void
        /// The host's side takes what waits for it: a device that waits for nobody else must answer afterwards.
        public var settle: () -> Void
        /// What happened beside the device's own counts.
        public var counts: () -> [(name: String, value: UInt64)]

        public init(
            _ device: any VirtioDevice, stir: @escaping (inout SeededRandom) -> Void = { _ in },
            settle: @escaping () -> Void = {}, counts: @escaping () -> [(name: String, value: UInt64)] = { [] }
        ) {
            self.device = device
            self.stir = stir
            self.settle = settle
            self.counts = counts
        }
    }

    /// One case took too long, or the device did not come back.
    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    private let seed: UInt64
    private let makeSubject: (ManualEvents, inout SeededRandom) throws -> Subject
    private let makeTransport: (any VirtioDevice, GuestMemory) throws -> any DriverTransport
    /// Cases so far.
    public private(set) var cases: UInt64 = 0
    /// Nanoseconds of the processor's time that the longest turn of the event loop took.
    public private(set) var longestTurn: UInt64 = 0
    /// What the devices say that they did, all cases together.
    public private(set) var counts: [String: UInt64] = [:]

    private static let memorySize: UInt64 = 4 << 20
    /// Nanoseconds that one turn may take: far more than a fair share needs.
    private static let limit: UInt64 = 1_000_000_000

    /// - Parameters:
    ///   - seed: with a case's number it says all that happens in it, but for what the host does in its own time.
    public init(
        seed: UInt64, subject: @escaping (ManualEvents, inout SeededRandom) throws -> Subject,
        transport: @escaping (any VirtioDevice, GuestMemory) throws -> any DriverTransport
    ) {
        self.seed = seed
        makeSubject = subject
        makeTransport = transport
    }

    /// Runs cases from `first` on until there were `count`, or the time is over.
    public func run(
        first: UInt64 = 0, count: UInt64 = .max, seconds: UInt64 = .max, _ began: (UInt64) -> Void = { _ in }
    ) throws {
        let start = Self.now(CLOCK_MONOTONIC)
        var number = first
        while number &- first < count, (Self.now(CLOCK_MONOTONIC) &- start) / 1_000_000_000 < seconds {
            began(number)
            try runCase(number)
            cases += 1
            number += 1
        }
    }

    private static func now(_ clock: clockid_t) -> UInt64 {
        var time = timespec()
        unsafe clock_gettime(clock, &time)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }

    // MARK: A case

    private func runCase(_ number: UInt64) throws {
        var random = SeededRandom(seed: seed &+ number &* 0x9E37_79B9_7F4A_7C15)
        let memory = try GuestMemory(size: Self.memorySize)
        let events = ManualEvents()
        let subject = try makeSubject(events, &random)
        let transport = try makeTransport(subject.device, memory)
        var run = Case(
            number: number, subject: subject, transport: transport, memory: memory, events: events,
            requests: RequestShapes(subject.device.kind))
        for _ in 0..<(1 + random.below(4)) {
            guard run.start(&random) else { continue }
            // Some things take many steps: connections, ports that open.
            for _ in 0..<(8 + random.below(random.oneIn(3) ? 600 : 64)) { if try run.step(&random) { try turn(run) } }
            if random.oneIn(2) { transport.writeStatus([]) }
        }
        try finish(run)
        for (name, value) in subject.device.statistics + subject.counts() { counts[name, default: 0] &+= value }
        counts["requests that came back", default: 0] &+= run.completed
        counts["sessions", default: 0] &+= run.sessions
        counts["sessions that broke", default: 0] &+= run.broken
    }

    private func turn(_ run: Case, times: Int = 3) throws {
        for _ in 0..<times {
            let before = Self.now(CLOCK_THREAD_CPUTIME_ID)
            run.events.turn()
            run.events.pollOnce()
            let taken = Self.now(CLOCK_THREAD_CPUTIME_ID) &- before
            longestTurn = max(longestTurn, taken)
            guard taken < Self.limit else {
                throw Failure(description: "case \(run.number): a turn took \(taken / 1_000_000) ms")
            }
        }
    }

    /// Nothing goes on by itself for ever, and a device that was treated so works all the same.
    private func finish(_ run: Case) throws {
        try rest(run, "before the reset")
        run.transport.writeStatus([])
        try rest(run, "after the reset")
        let driver = MockDriver(run.transport, memory: run.memory)
        guard driver.start(.version1) else { throw Failure(description: "case \(run.number): no features after a reset") }
        guard let (queue, readable, writable) = run.requests.simplest else { return }
        run.subject.settle()
        _ = try driver.queues[queue].add(readable: readable, writable: writable)
        driver.transport.notify(queue: UInt16(queue))
        for round in 0..<2000 {
            try turn(run, times: 1)
            if try !driver.queues[queue].completions().isEmpty { break }
            guard round < 1999, !run.transport.readStatus().contains(.needsReset) else {
                throw Failure(description: "case \(run.number): the device does not work after a reset")
            }
            run.subject.settle()
            // Whoever waits for the time, or for a thread.
            if round > 20 { run.events.clock.advance(by: round < 100 ? 10_000_000 : 1_000_000_000_000) }
            if round > 4 { usleep(round < 200 ? 50 : 2000) }
        }
        run.transport.writeStatus([])
        try rest(run, "at the end")
    }

    /// Turns until there is no work. What descriptors say counts too: one that is reported over and over is a spin.
    private func rest(_ run: Case, _ place: String) throws {
        for _ in 0..<5000 {
            let before = Self.now(CLOCK_THREAD_CPUTIME_ID)
            run.events.turn()
            let wasReady = run.events.pollOnce()
            let taken = Self.now(CLOCK_THREAD_CPUTIME_ID) &- before
            longestTurn = max(longestTurn, taken)
            guard taken < Self.limit else {
                throw Failure(description: "case \(run.number): a turn took \(taken / 1_000_000) ms \(place)")
            }
            if !wasReady, !run.events.hasWork { return }
        }
        throw Failure(description: "case \(run.number): the device does not come to rest \(place)")
    }
}
