import Glibc
import Synchronization
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// A thread that starts the driver over and over, and leaves the device in the middle of its work each time.
private final class VCPUThread: @unchecked Sendable {
    private let guest: SocketGuest
    private var thread = pthread_t()
    let isDone = Atomic<Bool>(false)

    init(_ guest: SocketGuest) { self.guest = guest }

    func start() throws {
        let code = pthread_create(&thread, nil, { argument in
            let this = Unmanaged<VCPUThread>.fromOpaque(argument!).takeRetainedValue()
            for round in 0..<300 { try! this.round(round) }
            this.isDone.store(true, ordering: .releasing)
            return nil
        }, Unmanaged.passRetained(self).toOpaque())
        guard code == 0 else { throw HostPeer.Failed(errno: code) }
    }

    func join() { pthread_join(thread, nil) }

    private func round(_ number: Int) throws {
        _ = guest.driver.start(ringKinds[number % ringKinds.count], size: 32)
        for _ in 0..<8 { try guest.driver.queues[0].add(writable: [1000]) }
        for port in 0..<8 {
            let packets = [
                guest.packet(.request, from: UInt32(port), to: 80), guest.packet(.data, from: UInt32(port), to: 80, count: 100),
            ]
            for packet in packets {
                let bytes = withUnsafeBytes(of: packet.wire) { Array($0.prefix(44)) }
                try guest.driver.queues[1].add(readable: [bytes + [UInt8](repeating: 1, count: 100)])
            }
        }
        for queue in 0..<2 { guest.transport.notify(queue: UInt16(queue)) }
    }
}

/// What no driver would do, and a host that is out of descriptors.
@Suite(.behindEachTransport) struct SocketHostileTests {
    private func isUsable(_ guest: SocketGuest, _ service: HostService, port: UInt32 = 0xF000) -> Bool {
        while service.accept() != nil {}
        let stream = guest.connect(from: port, to: 80)
        var peer: HostPeer?
        stream.outbox += Array("still alive".utf8)
        return guest.run(
            until: {
                peer = peer ?? service.accept()
                peer?.pump()
                return peer?.text == "still alive"
            }, turns: 1000)
    }

    @Test func packetsForNoConnectionAreAnsweredByAReset() throws {
        let guest = try SocketGuest()
        for operation in SocketPacket.Operation.allCases where operation != .reset && operation != .request {
            guest.send(guest.packet(operation, from: 5, to: 6))
            guest.pump()
            let answer = try #require(guest.packets.last)
            #expect(answer.operation == 3 && (answer.sourcePort, answer.destinationPort) == (6, 5), "\(operation)")
            #expect((answer.sourceCID, answer.type) == (2, 1))
        }
        let count = guest.packets.count
        guest.send(guest.packet(.reset, from: 5, to: 6))
        guest.pump()
        #expect(guest.packets.count == count, "a reset is not answered")
    }

    @Test func typesAddressesAndOperations() throws {
        let guest = try SocketGuest()
        let service = HostService(guest, port: 80)
        func answer(_ change: (inout SocketPacket) -> Void) -> SocketPacket? {
            var packet = guest.packet(.request, from: 5, to: 80)
            change(&packet)
            let before = guest.packets.count
            guest.send(packet)
            guest.pump()
            return guest.packets.count > before ? guest.packets.last : nil
        }
        // Source: [VIRTIO1.2 §5.10.6.2.2]: an unknown type MUST be answered by a reset.
        for type in [0, 2, 3, 0xFFFF] as [UInt16] {
            let reply = answer { $0.type = type }
            #expect(reply?.operation == 3 && reply?.type == type)
            #expect(answer { $0.type = type; $0.operation = 3 } == nil)
        }
        // Another's address is not answered: the answer would be another's.
        for cid in [0, 1, 2, 4, 0xFFFF_FFFF, 1 << 32 | 3, .max] as [UInt64] { #expect(answer { $0.sourceCID = cid } == nil) }
        #expect(guest.statistic("packetsDropped") == 7)
        // Nobody else is to be reached here.
        for cid in [0, 1, 3, 4, 0xFFFF_FFFF, 1 << 32 | 2, .max] as [UInt64] {
            let reply = answer { $0.destinationCID = cid }
            #expect(reply?.operation == 3 && reply?.sourceCID == cid && reply?.destinationCID == 3)
        }
        for operation in [0, 8, 0xFFFF] as [UInt16] { #expect(answer { $0.operation = operation }?.operation == 3) }
        #expect(guest.places == 0)
        // An operation that there is not, on a connection that there is.
        #expect(answer { _ in }?.operation == 2)
        #expect(answer { $0.operation = 99 }?.operation == 3)
        #expect(guest.places == 0)
        #expect(isUsable(guest, service))
    }

    @Test(arguments: ringKinds) func chainsThatCannotBePackets(ring: FeatureSet) throws {
        let guest = try SocketGuest(ring: ring)
        let service = HostService(guest, port: 80)
        let bad: [(SocketGuest) throws -> Void] = [
            { try $0.driver.queues[1].add(readable: [[UInt8](repeating: 0, count: 43)]) },
            { try $0.driver.queues[1].add(writable: [100]) },
            { try $0.driver.queues[1].add([(GuestAddress(1 << 50), 44)], []) },
            { try $0.driver.queues[1].add([(GuestAddress(0x1000), 44), (GuestAddress(.max - 8), 100)], []) },
        ]
        for (index, add) in bad.enumerated() {
            #expect(isUsable(guest, service, port: UInt32(index)), "\(index)")
            try add(guest)
            try guest.driver.queues[1].kick()
            guest.events.run()
            #expect(guest.needsReset, "\(index)")
            #expect(guest.places == 0, "nobody on the host waits for a device that is of no use")
            guest.device.resetTransport()
            guest.transport.notify(queue: 1)
            guest.events.run()
            guest.start(ring: ring)
        }
        #expect(isUsable(guest, service))
        // Receive buffers and events without room.
        guest.start(ring: ring, buffers: 1, bufferSize: 0)
        guest.send(guest.packet(.data, from: 1, to: 2))
        guest.events.run()
        #expect(guest.needsReset)
        guest.start(ring: ring, size: 2)
        for _ in 0..<3 {
            guest.device.resetTransport()
            guest.events.run()
            guest.take()
        }
        try guest.driver.queues[2].add(writable: [3])
        try guest.driver.queues[2].kick()
        guest.events.run()
        #expect(guest.needsReset)
    }

    /// A guest that has set up none or only some of the queues.
    @Test func queuesThatAreMissing() throws {
        let guest = try SocketGuest()
        guest.listening = [52]
        for count in 0...2 {
            #expect(guest.driver.start([], size: 8, queueCount: count))
            for queue in 0..<5 { guest.transport.notify(queue: UInt16(queue)) }
            guest.device.resetTransport()
            let host = try HostPeer(path: guest.path)
            host.write("CONNECT 52\n")
            host.pump()
            for _ in 0..<5 { guest.events.poll() }
            guest.events.clock.advance(by: 20_000_000_000)
            host.pump()
            #expect(host.isAtEnd, "\(count) queues")
        }
        #expect(guest.places == 0 && !guest.needsReset)
    }

    /// The driver resets the device on a vCPU's thread while the loop is at work on its queues and sockets.
    @Test func resetsWhileTheLoopWorks() throws {
        let guest = try SocketGuest()
        let service = HostService(guest, port: 80)
        let resets = VCPUThread(guest)
        try resets.start()
        while !resets.isDone.load(ordering: .acquiring) {
            guest.events.poll()
            while let peer = service.accept() { peer.pump() }
        }
        resets.join()
        guest.start()
        #expect(isUsable(guest, service))
        guest.device.close()
        let late = guest.connect(from: 9, to: 80)
        #expect(guest.run { late.isReset })
        #expect(guest.places == 0)
    }

    /// A hundred thousand packets that are mostly not what they should be, at connections that mostly live.
    @Test(arguments: [1, 2, 3, 4]) func malformedPackets(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let rings = [ringKinds[0], ringKinds[3], ringKinds[4], ringKinds[7]]
        let ring = rings[Int(seed % 4)]
        let guest = try SocketGuest(ring: ring, buffers: 24, bufferSize: 300)
        let service = HostService(guest, port: 80)
        let answer = pattern(500, seed: seed)[...]
        var peers: [HostPeer] = []
        let data = guest.driver.allocate(65_536)
        var headers = (0..<16).map { _ in guest.driver.allocate(64) }
        var (restarts, sent) = (0, 0)
        for _ in 0..<(25_000 / 16) {
            for header in headers {
                var packet = guest.packet(
                    random.oneIn(2)
                        ? .data : random.oneIn(3) ? .request : SocketPacket.Operation.allCases[random.below(7)],
                    from: UInt32(random.below(24)), to: random.oneIn(20) ? 81 : 80, count: random.below(400),
                    flags: UInt32(random.below(4)), bufAlloc: UInt32(random.below(100_000)),
                    fwdCnt: random.oneIn(4) ? UInt32(random.below(5000)) : 0)
                for _ in 0..<(random.oneIn(4) ? random.below(3) : 0) {
                    switch random.below(9) {
                    case 0: packet.sourceCID = random.next()
                    case 1: packet.destinationCID = random.oneIn(2) ? random.next() : UInt64(random.below(5))
                    case 2: packet.sourcePort = UInt32(truncatingIfNeeded: random.next())
                    case 3: packet.destinationPort = UInt32(truncatingIfNeeded: random.next())
                    case 4: packet.count = random.oneIn(2) ? .max : UInt32(random.below(1 << 18))
                    case 5: packet.type = UInt16(random.below(4))
                    case 6:
                        let any = UInt16(truncatingIfNeeded: random.next())
                        packet.operation = random.oneIn(2) ? any % 12 : any
                    case 7: packet.bufAlloc = UInt32(truncatingIfNeeded: random.next())
                    default: packet.fwdCnt = UInt32(truncatingIfNeeded: random.next())
                    }
                }
                try guest.memory.store(packet.wire, at: header)
                let isShort = random.oneIn(2000)
                let body = isShort ? 0 : random.oneIn(20) ? random.below(65_536) : min(Int(packet.count), 60_000)
                var parts = [(header, isShort ? random.below(43) + 1 : 44)]
                if body > 0 { parts.append((data, body)) }
                if try guest.driver.queues[1].add(parts, []) != nil { sent += 1 }
            }
            try guest.driver.queues[1].kick()
            guest.events.poll()
            // Taken apart from the harness: its transmit buffers are its own.
            _ = try guest.driver.queues[1].completions()
            guest.take()
            while let peer = service.accept() { peers.append(peer) }
            for peer in peers where random.oneIn(4) {
                if random.oneIn(2) { peer.outbox = answer }
                peer.pump(reading: random.oneIn(2))
            }
            while peers.count > 20 || (random.oneIn(20) && !peers.isEmpty) { peers.remove(at: random.below(peers.count)) }
            if random.oneIn(50) { guest.events.clock.advance(by: 5_000_000_000) }
            if guest.needsReset {
                restarts += 1
                guest.start(ring: ring, buffers: 24, bufferSize: 300)
                headers = (0..<16).map { _ in guest.driver.allocate(64) }
            }
        }
        peers = []
        if getenv("FUZZ") != nil { print("FUZZ", restarts, sent, guest.device.statistics) }
        #expect(restarts > 3 && restarts < 40)
        #expect(guest.statistic("connections") > 500)
        #expect(guest.statistic("resets") > 1000)
        #expect(guest.statistic("bytesToHost") > 100_000 && guest.statistic("bytesToGuest") > 100_000)
        guest.start(ring: ring)
        #expect(isUsable(guest, service))
    }

    /// In a process of its own: its limit is everybody's.
    @Test func withoutDescriptorsNobodySpins() async {
        // A function of its own: what it made is gone, the directory too, before the process is.
        await #expect(processExitsWith: .success) {
            try runOutOfDescriptors()
            exit(0)
        }
    }
}

private func runOutOfDescriptors() throws {
    let guest = try SocketGuest()
    let service = HostService(guest, port: 80)
    let hosts = try (0..<3).map { _ in try HostPeer(path: guest.path) }
    let spare = dup(0)
    close(spare)
    var before = rlimit()
    getrlimit(.init(RLIMIT_NOFILE.rawValue), &before)
    var none = rlimit(rlim_cur: rlim_t(spare), rlim_max: before.rlim_max)
    setrlimit(.init(RLIMIT_NOFILE.rawValue), &none)
    let polls = (0..<50).count { _ in guest.events.poll() }
    precondition(polls == 1, "the listener rests: \(polls)")
    precondition(guest.places == 0)
    let stream = guest.connect(from: 1, to: 80)
    precondition(guest.run(until: { stream.isReset }, turns: 100), "the guest's connection is refused")
    for _ in 0..<3 {
        guest.events.clock.advance(by: 100_000_000)
        precondition((0..<50).count { _ in guest.events.poll() } == 1, "one more try each time")
    }
    setrlimit(.init(RLIMIT_NOFILE.rawValue), &before)
    guest.events.clock.advance(by: 100_000_000)
    for _ in 0..<5 { guest.events.poll() }
    precondition(guest.places == 3)
    withExtendedLifetime((hosts, service)) {}
}
