import Glibc
import Synchronization
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// A service of this process, as far as that is what it was given.
private final class Arrivals: Sendable {
    private let descriptors = Mutex<[Int32]>([])
    var service: SocketService { { descriptor in self.descriptors.withLock { $0.append(descriptor) } } }
    var count: Int { descriptors.withLock { $0.count } }
    func take() -> Int32? { descriptors.withLock { $0.isEmpty ? nil : $0.removeFirst() } }
    deinit { while let descriptor = take() { close(descriptor) } }
}

/// Connections of the guest's to services of this process, in place of Unix sockets.
@Suite(.behindEachTransport) struct SocketServiceTests {
    private func connected(
        _ guest: SocketGuest, _ arrivals: Arrivals, from port: UInt32 = 1000
    ) throws -> (HostPeer, GuestStream) {
        let stream = guest.connect(from: port, to: 1024)
        #expect(guest.run { arrivals.count > 0 && stream.isOpen })
        return (HostPeer(try #require(arrivals.take())), stream)
    }

    /// What can be read up to the end, waiting for it.
    private func everything(_ descriptor: Int32) -> [UInt8] {
        var all: [UInt8] = []
        var bytes = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(descriptor, &bytes, bytes.count)
            guard count > 0 else { return count == 0 ? all : [] }
            all += bytes.prefix(count)
        }
    }

    @Test(arguments: ringKinds) func bytesComeBackWithNothingOnDisk(ring: FeatureSet) throws {
        let arrivals = Arrivals()
        let guest = try SocketGuest(ring: ring, services: [1024: arrivals.service], hasPath: false)
        let (host, stream) = try connected(guest, arrivals)
        let bytes = pattern(1 << 20, seed: 1)
        host.outbox += bytes
        var back: [UInt8] = []
        #expect(
            guest.run {
                host.pump()
                stream.outbox += stream.read()
                back += host.take()
                return back.count >= bytes.count || host.isAtEnd
            })
        #expect(back == bytes && !stream.isOverrun)
        #expect(guest.statistic("bytesToHost") == 1 << 20 && guest.statistic("bytesToGuest") == 1 << 20)
        #expect(guest.statistic("connections") == 1)
        #expect(!guest.events.hasWork && !guest.events.poll(), "nothing goes on when nothing happens")
        #expect(rmdir(guest.directory.path) == 0, "there never was a file")
    }

    @Test func theServicesEndBlocksAndIsNotInherited() throws {
        let arrivals = Arrivals()
        let guest = try SocketGuest(services: [1024: arrivals.service], hasPath: false)
        _ = guest.connect(from: 1, to: 1024)
        #expect(guest.run { arrivals.count == 1 })
        let descriptor = try #require(arrivals.take())
        defer { close(descriptor) }
        #expect(fcntl(descriptor, F_GETFL) & O_NONBLOCK == 0)
        #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0)
    }

    /// Whoever may not take a port that is root's cannot speak in the name of who may.
    @Test func aServiceCanBeForReservedPortsOnly() throws {
        let arrivals = Arrivals()
        var limits = SocketDevice.Limits()
        limits.servicePeers = 0...1023
        let guest = try SocketGuest(limits: limits, services: [1024: arrivals.service], hasPath: false)
        let refused = guest.connect(from: 1024, to: 1024)
        #expect(guest.run { refused.isReset })
        _ = guest.connect(from: 1023, to: 1024)
        #expect(guest.run { arrivals.count == 1 })
        close(try #require(arrivals.take()))
    }

    @Test func aPortWithoutAServiceIsThePathsOrRefused() throws {
        let arrivals = Arrivals()
        let guest = try SocketGuest(services: [80: arrivals.service])
        // The service comes before a socket of the same port.
        let shadowed = HostService(guest, port: 80)
        let service = HostService(guest, port: 81)
        let first = guest.connect(from: 1, to: 80)
        let second = guest.connect(from: 2, to: 81)
        let third = guest.connect(from: 3, to: 82)
        #expect(guest.run { first.isOpen && second.isOpen && third.isReset })
        #expect(arrivals.count == 1 && shadowed.accept() == nil && service.accept() != nil)

        let lone = try SocketGuest(services: [80: arrivals.service], hasPath: false)
        let fourth = lone.connect(from: 1, to: 81)
        #expect(lone.run { fourth.isReset })
        #expect(arrivals.count == 1 && lone.statistic("refused") == 1)
    }

    @Test func aServiceMayAskTheDevice() throws {
        let seen = Mutex<UInt64>(0)
        let device = Mutex<SocketDevice?>(nil)
        let guest = try SocketGuest(
            services: [
                1024: { descriptor in
                    let known = device.withLock { $0 }?.statistics.first { $0.name == "connections" }?.value ?? 0
                    seen.withLock { $0 = known }
                    close(descriptor)
                }
            ], hasPath: false)
        device.withLock { $0 = guest.device }
        defer { device.withLock { $0 = nil } }
        let stream = guest.connect(from: 1, to: 1024)
        #expect(guest.run { stream.hostEnded == 3 })
        #expect(seen.withLock { $0 } == 1)
    }

    // MARK: Ends

    @Test func eachSideHalfCloses() throws {
        let arrivals = Arrivals()
        let guest = try SocketGuest(services: [1024: arrivals.service], hasPath: false)
        let (host, stream) = try connected(guest, arrivals)
        stream.outbox += Array("question".utf8)
        stream.finalShutdown = 2
        #expect(guest.run { host.pump(); return host.isAtEnd })
        #expect(host.text == "question")
        host.write("answer")
        host.pump()
        host.end(Int(SHUT_WR))
        #expect(guest.run { stream.hostEnded == 3 })
        #expect(stream.read() == Array("answer".utf8))
        stream.send(.reset)
        #expect(guest.run { guest.places == 0 })
    }

    @Test(arguments: [SocketPacket.Operation.reset, .shutdown])
    func whatTheGuestSentBeforeItWentIsRead(operation: SocketPacket.Operation) throws {
        let arrivals = Arrivals()
        let guest = try SocketGuest(services: [1024: arrivals.service], hasPath: false)
        let (host, stream) = try connected(guest, arrivals)
        // More than the socket's own room, so that some of it waits in the device.
        let bytes = pattern(300_000, seed: 2)
        stream.outbox += bytes
        #expect(guest.run { stream.credit == 0 || stream.outbox.isEmpty })
        let sent = bytes.count - stream.outbox.count
        #expect(sent > 250_000)
        stream.outbox = []
        stream.send(operation, flags: 3)
        #expect(guest.run { host.pump(); return host.isAtEnd })
        #expect(host.inbox.elementsEqual(bytes.prefix(sent)) && guest.places == 0)
    }

    @Test func aServiceThatLeavesIsAnEndForTheGuest() throws {
        let arrivals = Arrivals()
        let guest = try SocketGuest(services: [1024: arrivals.service], hasPath: false)
        let (host, stream) = try connected(guest, arrivals)
        host.leave()
        #expect(guest.run { stream.hostEnded == 3 })
        #expect(guest.openSockets == 0)
    }

    // MARK: The machine's end

    @Test(arguments: ringKinds) func packetsThatTheDeviceHadNoTimeForAreStillRead(ring: FeatureSet) throws {
        let arrivals = Arrivals()
        let guest = try SocketGuest(ring: ring, services: [1024: arrivals.service], hasPath: false)
        let (host, stream) = try connected(guest, arrivals)
        // In the queue, and the loop's thread has not come to it.
        #expect(stream.send(.data, Array("last ".utf8)) && stream.send(.data, Array("words".utf8)))
        guest.transport.writeStatus([])
        host.pump()
        #expect(host.isAtEnd && host.text == "last words")
        #expect(guest.places == 0)
    }

    @Test func aQueueThatIsBrokenAtTheEndIsLeftAlone() throws {
        let arrivals = Arrivals()
        let guest = try SocketGuest(services: [1024: arrivals.service], hasPath: false)
        let (host, _) = try connected(guest, arrivals)
        // Too short for a header.
        let buffer = guest.driver.allocate(16)
        #expect(try guest.driver.queues[1].add([(buffer, 8)], []) != nil)
        guest.transport.writeStatus([])
        host.pump()
        #expect(host.isAtEnd && host.inbox.isEmpty)
    }

    @Test func whatAServiceHasYetToReadOutlivesTheDevice() throws {
        let arrivals = Arrivals()
        let bytes = pattern(1 << 20, seed: 3)
        var sent: [Int] = []
        let descriptors: [Int32]
        do {
            let guest = try SocketGuest(services: [1024: arrivals.service], hasPath: false)
            let streams = (0..<3).map { guest.connect(from: UInt32($0), to: 1024) }
            #expect(guest.run { arrivals.count == 3 && streams.allSatisfy(\.isOpen) })
            for stream in streams { stream.outbox += bytes }
            // Until nothing more is taken: a moment without credit comes before.
            for _ in 0..<500 { guest.pump() }
            #expect(streams.allSatisfy { $0.credit == 0 })
            sent = streams.map { bytes.count - $0.outbox.count }
            descriptors = try (0..<3).map { _ in try #require(arrivals.take()) }
            // One after the machine's end, which comes first as a rule; then for good.
            guest.transport.writeStatus([])
            guest.device.close()
            #expect(guest.openSockets == 0 && guest.places == 0)
        }
        #expect(sent.allSatisfy { $0 > 256 << 10 }, "more than the window: some is in the socket, the rest was in the device")
        for (descriptor, sent) in zip(descriptors, sent) {
            #expect(difference(of: everything(descriptor), from: bytes.prefix(sent)) == nil)
            close(descriptor)
        }
    }

    @Test func aServiceThatNeverReadsIsNotWaitedFor() throws {
        let arrivals = Arrivals()
        var limits = SocketDevice.Limits()
        limits.lingerTime = 20_000_000
        let guest = try SocketGuest(limits: limits, services: [1024: arrivals.service], hasPath: false)
        let stream = guest.connect(from: 1, to: 1024)
        #expect(guest.run { arrivals.count == 1 && stream.isOpen })
        stream.outbox += pattern(1 << 20, seed: 4)
        for _ in 0..<500 { guest.pump() }
        #expect(stream.credit == 0)
        let descriptor = try #require(arrivals.take())
        defer { close(descriptor) }
        guest.device.close()
        // The thread has closed its end when a wait for the hangup ends.
        var wait = pollfd(fd: descriptor, events: 0, revents: 0)
        #expect(poll(&wait, 1, 20_000) == 1 && wait.revents & Int16(POLLHUP) != 0)
    }

    // MARK: Limits

    @Test func connectionsOfServicesAreBoundedLikeAllOthers() throws {
        let arrivals = Arrivals()
        var limits = SocketDevice.Limits()
        limits.connections = 4
        let guest = try SocketGuest(limits: limits, services: [1024: arrivals.service], hasPath: false)
        let streams = (0..<6).map { guest.connect(from: UInt32($0), to: 1024) }
        #expect(guest.run { streams.count(where: \.isOpen) == 4 && streams.count(where: \.isReset) == 2 })
        #expect(arrivals.count == 4 && guest.statistic("refused") == 2)
        streams[0].send(.reset)
        #expect(guest.run { guest.places == 3 })
        let next = guest.connect(from: 100, to: 1024)
        #expect(guest.run { next.isOpen })
    }

    /// In a process of its own: its limit is everybody's.
    @Test func withoutDescriptorsAServiceIsNotTold() async {
        await #expect(processExitsWith: .success) {
            try connectWithoutDescriptors()
            exit(0)
        }
    }
}

private func connectWithoutDescriptors() throws {
    let arrivals = Arrivals()
    let guest = try SocketGuest(services: [1024: arrivals.service], hasPath: false)
    let spare = dup(0)
    close(spare)
    var before = rlimit()
    getrlimit(.init(RLIMIT_NOFILE.rawValue), &before)
    // Not one left, then one: a pair needs two.
    for left in 0...1 {
        var few = rlimit(rlim_cur: rlim_t(spare) + rlim_t(left), rlim_max: before.rlim_max)
        setrlimit(.init(RLIMIT_NOFILE.rawValue), &few)
        let stream = guest.connect(from: UInt32(left), to: 1024)
        precondition(guest.run(until: { stream.isReset }, turns: 100), "refused")
    }
    precondition(arrivals.count == 0 && guest.places == 0)
    setrlimit(.init(RLIMIT_NOFILE.rawValue), &before)
    let stream = guest.connect(from: 9, to: 1024)
    precondition(guest.run(until: { stream.isOpen }, turns: 100) && arrivals.count == 1)
}
