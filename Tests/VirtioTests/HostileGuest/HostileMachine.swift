import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// A device, what it works on, and one of the transports: where a hostile guest is.
struct HostilePlace: CustomTestStringConvertible, Sendable {
    let subject: FuzzSubject
    let kind: TransportKind
    var testDescription: String { "\(subject.rawValue), \(kind)" }

    /// Every device, behind each transport.
    static let everywhere = FuzzSubject.allCases.filter { $0 != .blockMutated }.flatMap { subject in
        TransportKind.allCases.map { HostilePlace(subject: subject, kind: $0) }
    }
}

/// A device with nothing but a hostile driver, and the turns of an event loop, which are timed.
final class HostileMachine {
    let kind: TransportKind
    let memory: GuestMemory
    let events = ManualEvents()
    let subject: VirtioFuzzer.Subject
    let transport: any DriverTransport
    private(set) var driver: MockDriver
    var device: any VirtioDevice { subject.device }

    init(
        _ kind: TransportKind, memory bytes: UInt64 = 16 << 20, _ make: (ManualEvents) throws -> VirtioFuzzer.Subject
    ) throws {
        self.kind = kind
        memory = try GuestMemory(size: bytes)
        subject = try make(events)
        transport = try kind.driver(device: subject.device, memory: memory)
        driver = MockDriver(transport, memory: memory)
    }

    convenience init(_ place: HostilePlace) throws {
        var random = SeededRandom(seed: 7)
        try self.init(place.kind) { try place.subject.make($0, &random) }
    }

    var queues: [DriverQueue] { driver.queues }
    var isPacked: Bool { driver.features.contains(.packedRing) }
    var needsReset: Bool { transport.readStatus().contains(.needsReset) }

    /// A reset, and a session with fresh rings.
    func start(
        _ features: FeatureSet = .indirectDescriptors, size: UInt16? = 16, sourceLocation: SourceLocation = #_sourceLocation
    ) {
        driver = MockDriver(transport, memory: memory)
        #expect(driver.start(features, size: size), sourceLocation: sourceLocation)
    }

    private static func now(_ clock: clockid_t) -> UInt64 {
        var time = timespec()
        clock_gettime(clock, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// One turn, within a second of the processor's time, and not asleep for long either.
    /// - Returns: whether there is more to do.
    @discardableResult
    func turn(sourceLocation: SourceLocation = #_sourceLocation) -> Bool {
        let (processor, wall) = (Self.now(CLOCK_THREAD_CPUTIME_ID), Self.now(CLOCK_MONOTONIC))
        events.turn()
        let wasReady = events.pollOnce()
        #expect(Self.now(CLOCK_THREAD_CPUTIME_ID) - processor < 1_000_000_000, sourceLocation: sourceLocation)
        #expect(Self.now(CLOCK_MONOTONIC) - wall < 10_000_000_000, sourceLocation: sourceLocation)
        return wasReady || events.hasWork
    }

    /// Turns until there is nothing to do: what goes on by itself is a spin.
    func rest(limit: Int = 5000, sourceLocation: SourceLocation = #_sourceLocation) {
        for _ in 0..<limit where !turn(sourceLocation: sourceLocation) { return }
        Issue.record("the device does not come to rest", sourceLocation: sourceLocation)
    }

    func notifyAll() { for queue in queues { transport.notify(queue: queue.index) } }

    // MARK: Rings by hand

    func place(_ base: GuestAddress, _ offset: Int) -> GuestAddress { GuestAddress(base.rawValue &+ UInt64(offset)) }

    /// Writes a descriptor of a ring, in the packed layout as available on its first lap, or of a table elsewhere.
    func describe(
        _ index: Int, of queue: DriverQueue, _ address: UInt64, _ count: UInt32, flags: UInt16 = 0, next: UInt16 = 0,
        in table: GuestAddress? = nil
    ) throws {
        let target = place(table ?? queue.layout.descriptors, index * 16)
        let lap: UInt16 = table == nil ? 1 << 7 : 0
        let (third, fourth) = isPacked ? (next, flags | lap) : (flags, next)
        try memory.store(address, at: target)
        try memory.store(UInt64(count) | UInt64(third) << 32 | UInt64(fourth) << 48, at: place(target, 8))
    }

    /// Makes heads available, with an index of the guest's choice. Packed descriptors are so by their flags.
    func publish(_ heads: [UInt16] = [0], index: UInt16? = nil, on queue: DriverQueue) throws {
        guard !isPacked else { return }
        for (number, head) in heads.enumerated() {
            try memory.store(head, at: place(queue.layout.driverArea, 4 + number * 2))
        }
        try memory.store(index ?? UInt16(heads.count), at: place(queue.layout.driverArea, 2))
    }

    // MARK: Afterwards

    /// After a reset a driver that keeps the rules is served.
    func expectWorks(sourceLocation: SourceLocation = #_sourceLocation) throws {
        transport.writeStatus([])
        rest(sourceLocation: sourceLocation)
        driver = MockDriver(transport, memory: memory)
        #expect(driver.start(.version1), sourceLocation: sourceLocation)
        let (queue, readable, writable) = try #require(FuzzSubject.simplestRequest(device.kind))
        subject.settle()
        try driver.queues[queue].add(readable: readable, writable: writable)
        transport.notify(queue: UInt16(queue))
        for round in 0..<2000 {
            turn(sourceLocation: sourceLocation)
            if try !driver.queues[queue].completions().isEmpty { break }
            if round > 20 { usleep(1000) }
            if round == 1999 { Issue.record("the device does not work after a reset", sourceLocation: sourceLocation) }
        }
        #expect(!needsReset, sourceLocation: sourceLocation)
        transport.writeStatus([])
        rest(sourceLocation: sourceLocation)
    }

    static var residentBytes: Int {
        guard let file = fopen("/proc/self/statm", "r") else { return 0 }
        defer { fclose(file) }
        var (size, resident) = (0, 0)
        return withUnsafeMutablePointer(to: &size) { size in
            withUnsafeMutablePointer(to: &resident) { resident in
                withVaList([size, resident]) { vfscanf(file, "%ld %ld", $0) } == 2 ? resident.pointee * 4096 : 0
            }
        }
    }
}

/// What an attack may cost the host.
let mostGrowth = 8 << 20

/// Has a guest attack a device, and sees that the host is none the worse for it: the loop's turns end, memory does not grow,
/// and the device works after a reset.
///
/// Other tests use memory at the same time: an attack that grew is made again, and one that always grows is the culprit.
func hostile(
    _ make: () throws -> HostileMachine, sourceLocation: SourceLocation = #_sourceLocation,
    _ attack: (HostileMachine) throws -> Void
) throws {
    var growth = 0
    for _ in 0..<8 {
        let machine = try make()
        let before = HostileMachine.residentBytes
        try attack(machine)
        machine.rest(sourceLocation: sourceLocation)
        growth = HostileMachine.residentBytes - before
        try machine.expectWorks(sourceLocation: sourceLocation)
        if growth <= mostGrowth { return }
    }
    Issue.record("resident memory grew by \(growth) bytes", sourceLocation: sourceLocation)
}

func hostile(
    _ place: HostilePlace, sourceLocation: SourceLocation = #_sourceLocation, _ attack: (HostileMachine) throws -> Void
) throws {
    try hostile({ try HostileMachine(place) }, sourceLocation: sourceLocation, attack)
}
