import Glibc
import Synchronization
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// What is bounded stays within its bounds, and nobody spins while waiting.
@Suite(.behindEachTransport) struct SocketLimitTests {
    private func connected(_ guest: SocketGuest, _ service: HostService, from port: UInt32) throws -> (HostPeer, GuestStream) {
        let stream = guest.connect(from: port, to: 80, window: guest.defaultWindow)
        var peer: HostPeer?
        #expect(guest.run { peer = peer ?? service.accept(); return peer != nil && stream.isOpen })
        return (try #require(peer), stream)
    }

    /// How many turns the loop takes when nothing more happens: each reported descriptor or piece of work is one.
    private func idleTurns(_ guest: SocketGuest) -> Int {
        guest.events.run()
        return (0..<50).count { _ in guest.events.poll() }
    }

    // MARK: Credit

    @Test func aHostThatDoesNotReadStallsTheGuestAndNobodyElse() throws {
        let guest = try SocketGuest()
        let service = HostService(guest, port: 80)
        let (host, stream) = try connected(guest, service, from: 1)
        let bytes = pattern(2 << 20, seed: 1)
        stream.outbox += bytes
        for _ in 0..<300 { guest.pump() }
        #expect(!stream.outbox.isEmpty && stream.credit == 0, "the window is full")
        let kept = guest.device.state.withLock { $0.sockets.sockets.compactMap(\.pending).map(\.count).reduce(0, +) }
        #expect(kept == 256 << 10)
        #expect(idleTurns(guest) == 0, "a socket that takes nothing is not written to")
        // Another's bytes pass meanwhile.
        let (other, second) = try connected(guest, service, from: 2)
        second.outbox += Array("hello".utf8)
        #expect(guest.run { other.pump(); return other.text == "hello" })
        // And all of them when it reads again.
        #expect(guest.run { host.pump(); return host.inbox.count == bytes.count })
        #expect(difference(of: host.inbox, from: bytes) == nil)
    }

    @Test func aHostThatReadsByTheByteGetsAll() throws {
        let guest = try SocketGuest()
        let service = HostService(guest, port: 80)
        let (host, stream) = try connected(guest, service, from: 1)
        var small: Int32 = 1
        setsockopt(host.descriptor, SOL_SOCKET, SO_RCVBUF, &small, 4)
        let bytes = pattern(700_000, seed: 2)
        stream.outbox += bytes
        var got: [UInt8] = []
        var random = SeededRandom(seed: 3)
        #expect(guest.run {
            var part = [UInt8](repeating: 0, count: random.below(8000) + 1)
            let count = recv(host.descriptor, &part, part.count, 0)
            if count > 0 { got += part.prefix(count) }
            return got.count == bytes.count
        })
        #expect(difference(of: got, from: bytes) == nil)
    }

    @Test func aGuestThatDoesNotReadStallsTheHost() throws {
        let guest = try SocketGuest()
        guest.defaultWindow = 5000
        let service = HostService(guest, port: 80)
        let (host, stream) = try connected(guest, service, from: 1)
        stream.readsAtOnce = false
        let bytes = pattern(300_000, seed: 4)
        host.outbox += bytes
        for _ in 0..<50 {
            host.pump()
            guest.pump()
        }
        #expect(stream.inbox.count == 5000)
        #expect(guest.count(.creditRequest) == 1, "asked once")
        #expect(idleTurns(guest) <= 1, "a host's socket that nothing can be read from is not waited for")
        // The host leaves: that is not reported for ever either.
        host.pump()
        let left = host.outbox.count
        host.leave()
        #expect(idleTurns(guest) <= 1)
        var got: [UInt8] = []
        #expect(guest.run { got += stream.read(700); return stream.hostEnded == 3 })
        got += stream.read()
        #expect(difference(of: got, from: Array(bytes.prefix(bytes.count - left))) == nil)
        #expect(!stream.isOverrun)
    }

    @Test func aWindowOfOneByte() throws {
        let guest = try SocketGuest()
        guest.defaultWindow = 1
        let service = HostService(guest, port: 80)
        let (host, stream) = try connected(guest, service, from: 1)
        let bytes = pattern(300, seed: 5)
        host.outbox += bytes
        #expect(guest.run { host.pump(); return stream.inbox.count == 300 })
        #expect(stream.inbox == bytes)
    }

    @Test func aGuestThatSendsMoreThanItMayIsCutOff() throws {
        let guest = try SocketGuest()
        let service = HostService(guest, port: 80)
        let (host, stream) = try connected(guest, service, from: 1)
        for _ in 0..<20 {
            stream.send(.data, [UInt8](repeating: 1, count: 65_536))
            guest.pump()
        }
        #expect(stream.isReset)
        #expect(guest.run { host.pump(); return host.isAtEnd })
        #expect(!guest.needsReset)
    }

    // MARK: Buffers

    @Test(arguments: ringKinds) func withoutBuffersNothingIsReadFromTheHost(ring: FeatureSet) throws {
        let guest = try SocketGuest(ring: ring, buffers: 4, bufferSize: 1000)
        guest.defaultWindow = 1 << 20
        let service = HostService(guest, port: 80)
        let (host, stream) = try connected(guest, service, from: 1)
        guest.offersBuffers = false
        host.outbox += pattern(600_000, seed: 6)
        for _ in 0..<20 {
            host.pump()
            guest.pump()
        }
        #expect(stream.inbox.count <= 4000)
        #expect(!host.outbox.isEmpty, "the host's socket is full")
        #expect(idleTurns(guest) <= 1)
        guest.offersBuffers = true
        #expect(guest.run { host.pump(); return stream.inbox.count == 600_000 })
        #expect(difference(of: stream.inbox, from: pattern(600_000, seed: 6)) == nil)
    }

    /// A guest that sends what has to be answered, and fetches no answers, is not heard any more until it does.
    @Test(arguments: ringKinds) func answersThatNobodyFetchesAreBounded(ring: FeatureSet) throws {
        let guest = try SocketGuest(ring: ring, buffers: 2)
        guest.offersBuffers = false
        var accepted = 0
        for round in 0..<2000 where guest.send(guest.packet(.data, from: UInt32(round), to: 9)) {
            accepted += 1
            guest.pump()
        }
        #expect(accepted < 400)
        let waiting = guest.device.state.withLock { $0.refusals.count }
        #expect(waiting <= SocketDevice.largestRefusalBacklog)
        #expect(idleTurns(guest) == 0)
        // Room for two answers is heard as two packets more, without waiting for another notification.
        let unheard = guest.driver.queues[1].outstanding
        guest.take()
        guest.offer()
        guest.events.run()
        guest.take()
        #expect(guest.driver.queues[1].outstanding == unheard - 2)
        guest.offersBuffers = true
        #expect(guest.run { guest.count(.reset) == accepted })
        // A connection is made all the same.
        let service = HostService(guest, port: 80)
        _ = try connected(guest, service, from: 5000)
    }

    @Test func connectionsAreServedInTurn() throws {
        let guest = try SocketGuest(buffers: 8, bufferSize: 1000)
        guest.defaultWindow = 1 << 20
        let service = HostService(guest, port: 80)
        let loud = try connected(guest, service, from: 1)
        let quiet = try (2...6).map { try connected(guest, service, from: $0) }
        loud.0.outbox += pattern(200_000, seed: 7)
        loud.0.pump()
        guest.pump()
        for (host, _) in quiet {
            host.write("x")
            host.pump()
        }
        // Eight packets a round: each of the quiet ones is among the next two rounds'.
        for _ in 0..<3 { guest.pump() }
        #expect(quiet.allSatisfy { $0.1.inbox.count == 1 })
        #expect(loud.1.inbox.count < 60_000)
    }

    // MARK: Counts

    @Test func noMoreConnectionsThanAllowed() throws {
        var limits = SocketDevice.Limits()
        limits.connections = 8
        let guest = try SocketGuest(limits: limits)
        let service = HostService(guest, port: 80)
        var live: [(HostPeer, GuestStream)] = []
        for port in 0..<8 { live.append(try connected(guest, service, from: UInt32(port))) }
        for port in 100..<400 {
            let stream = guest.connect(from: UInt32(port), to: 80)
            #expect(guest.run(until: { stream.isReset }, turns: 100))
        }
        guest.listening = [52]
        let host = try HostPeer(path: guest.path)
        host.write("CONNECT 52\n")
        #expect(guest.run(until: { host.pump(); return host.isAtEnd }, turns: 100))
        #expect(guest.statistic("refused") == 301 && guest.places == 8)
        // One that ends makes room.
        live[3].1.send(.shutdown, flags: 3)
        #expect(guest.run { live[3].1.isReset })
        _ = try connected(guest, service, from: 500)
    }

    @Test func aThousandConnections() throws {
        let guest = try SocketGuest(buffers: 32, size: 64)
        let service = HostService(guest, port: 80, backlog: 2000)
        var live: [(HostPeer, GuestStream)] = []
        for port in 0..<1024 { live.append(try connected(guest, service, from: UInt32(port))) }
        #expect(guest.places == 1024)
        let beyond = guest.connect(from: 5000, to: 80)
        #expect(guest.run { beyond.isReset })
        // What all of them together may keep is bounded as well.
        let windows = guest.device.state.withLock { $0.peers.map { UInt64($0.connection.window) }.reduce(0, +) }
        #expect(windows <= 32 << 20)
        for (host, _) in live {
            host.write("x")
            host.pump()
        }
        #expect(guest.run { live.allSatisfy { $0.1.inbox.count == 1 } })
        guest.transport.writeStatus([])
        #expect(guest.places == 0)
    }

    @Test func floodsOfConnectionsLeaveNothing() throws {
        let guest = try SocketGuest()
        let service = HostService(guest, port: 80)
        for port in 0..<2000 {
            guest.send(guest.packet(.request, from: UInt32(port), to: 80))
            guest.send(guest.packet(.data, from: UInt32(port), to: 80, count: 5), [1, 2, 3, 4, 5])
            guest.send(guest.packet(port % 2 == 0 ? .reset : .shutdown, from: UInt32(port), to: 80, flags: 3))
            guest.pump()
            let peer = service.accept()
            peer?.pump()
            #expect(peer?.inbox == [1, 2, 3, 4, 5])
            #expect(peer?.isAtEnd == true)
        }
        #expect(guest.places == 0 && guest.device.state.withLock { $0.byPorts.isEmpty && $0.wide == 0 })
    }

    /// A second request on a connection that lives: the guest has forgotten the first.
    @Test func aSecondRequestEndsTheFirst() throws {
        let guest = try SocketGuest()
        let service = HostService(guest, port: 80)
        let (host, stream) = try connected(guest, service, from: 1)
        stream.send(.request)
        #expect(guest.run { host.pump(); return host.isAtEnd && stream.isReset })
        _ = try connected(guest, service, from: 1)
    }

    // MARK: The host's first line

    @Test func hostsThatSayNothingAreBoundedAndSentAway() throws {
        let guest = try SocketGuest()
        var silent = try (0..<100).map { _ in try HostPeer(path: guest.path) }
        for _ in 0..<10 { guest.events.poll() }
        #expect(guest.places == 64)
        #expect(idleTurns(guest) == 0, "those in the backlog wait there")
        guest.events.clock.advance(by: 4_000_000_000)
        #expect(guest.places == 64)
        guest.events.clock.advance(by: 2_000_000_000)
        for _ in 0..<10 { guest.events.poll() }
        #expect(guest.places == 36, "the next have their turn")
        for peer in silent { peer.pump() }
        #expect(silent.count(where: \.isAtEnd) == 64)
        silent = []
        for _ in 0..<10 { guest.events.poll() }
        #expect(guest.places == 0)
    }

    @Test func malformedLinesClose() throws {
        let guest = try SocketGuest()
        guest.listening = [52]
        let long = String(repeating: "A", count: 9000)
        for text in ["\n", "CONNECT\n", "CONNECT 52 x\n", "CONNECT 4294967296\n", "GET / HTTP/1.1\r\n\r\n", long] {
            let host = try HostPeer(path: guest.path)
            host.write(text)
            #expect(guest.run(until: { host.pump(); return host.isAtEnd }, turns: 100), "\(text.prefix(20))")
            #expect(host.inbox.isEmpty)
        }
        #expect(guest.places == 0 && guest.packets.isEmpty)
        // By the byte it is as good as at once.
        let host = try HostPeer(path: guest.path)
        for byte in "CONNECT 52\n".utf8 {
            host.outbox += [byte]
            host.pump()
            guest.pump()
        }
        #expect(guest.run(until: { host.pump(); return host.text.hasPrefix("OK ") }, turns: 100))
    }

    @Test func aGuestThatDoesNotAnswerIsNotWaitedForForEver() throws {
        let guest = try SocketGuest(buffers: 1)
        guest.offersBuffers = false
        // The first request takes the only buffer, the second never leaves.
        let hosts = try (0..<2).map { _ in try HostPeer(path: guest.path) }
        for host in hosts {
            host.write("CONNECT 52\n")
            host.pump()
            guest.events.poll()
        }
        #expect(guest.places == 2)
        guest.events.clock.advance(by: 11_000_000_000)
        for host in hosts {
            host.pump()
            #expect(host.isAtEnd)
        }
        #expect(guest.places == 0 && guest.statistic("refused") == 2 && guest.statistic("resets") == 1)
    }

    @Test func aHostThatGoesBeforeTheAnswer() throws {
        let guest = try SocketGuest()
        guest.listening = [52]
        // Before the line is read, and after the guest was asked: then its answer comes too late.
        for polls in [1, 2] {
            let host = try HostPeer(path: guest.path)
            host.write("CONNECT 52\n")
            host.pump()
            for _ in 0..<polls { guest.events.poll() }
            host.leave()
            guest.events.poll()
            for _ in 0..<10 { guest.pump() }
            #expect(guest.count(.request) == polls - 1)
            #expect(guest.count(.reset) >= polls - 1)
            #expect(guest.places == 0)
        }
        #expect(guest.statistic("refused") == 2)
    }

    @Test func aStalledHostIsGivenUpInTheEnd() throws {
        let guest = try SocketGuest()
        let service = HostService(guest, port: 80)
        let (host, stream) = try connected(guest, service, from: 1)
        stream.outbox += pattern(600_000, seed: 8)
        for _ in 0..<100 { guest.pump() }
        stream.send(.shutdown, flags: 3)
        #expect(guest.run { stream.isReset })
        #expect(guest.places == 1, "what it has not read waits for it")
        guest.events.clock.advance(by: 31_000_000_000)
        #expect(guest.places == 0)
        host.pump()
        #expect(host.isAtEnd)
    }

    // MARK: The path

    @Test func thePathIsCheckedTakenAndGivenBack() throws {
        let events = ManualEvents()
        func make(_ path: String, cid: UInt32 = 3) throws(SocketError) -> SocketDevice {
            try SocketDevice(guestCID: cid, path: path, events: events, clock: events.clock)
        }
        let directory = TemporaryDirectory()
        let path = directory.path + "/v"
        for cid in [0, 1, 2, UInt32.max] { #expect(throws: SocketError.reservedCID(cid)) { _ = try make(path, cid: cid) } }
        #expect(throws: SocketError.badPath("")) { _ = try make("") }
        #expect(throws: SocketError.badPath("a\0b")) { _ = try make("a\0b") }
        let long = "/tmp/" + String(repeating: "x", count: 92)
        #expect(throws: SocketError.pathTooLong(long, limit: 96)) { _ = try make(long) }
        #expect(throws: SocketError.host(call: "binding", path: directory.path + "/no/v", errno: ENOENT)) {
            _ = try make(directory.path + "/no/v")
        }
        // In use: an error that says so, and the first is none the worse.
        do {
            let first = try make(path)
            #expect(throws: SocketError.inUse(path)) { _ = try make(path) }
            #expect("\(SocketError.inUse(path))".contains(path))
            _ = try HostPeer(path: path)
            var status = stat()
            #expect(lstat(path, &status) == 0 && status.st_mode & 0o777 == 0o600)
            withExtendedLifetime(first) {}
        }
        #expect(access(path, F_OK) != 0, "removed at the end")
        // A file whose listener is gone is replaced.
        let stale = UnixSocket.make()
        #expect(UnixSocket.bind(stale, to: path) == 0)
        close(stale)
        do { _ = try make(path) }
        #expect(access(path, F_OK) != 0)
        // Anything else stays.
        close(open(path, O_CREAT | O_WRONLY, 0o600))
        #expect(throws: SocketError.notASocket(path)) { _ = try make(path) }
        #expect(access(path, F_OK) == 0)
        unlink(path)
        // Closed before it goes: once is enough.
        do {
            let device = try make(path)
            let host = try HostPeer(path: path)
            events.poll()
            device.close()
            #expect(access(path, F_OK) != 0)
            host.pump()
            #expect(host.isAtEnd)
            let next = try make(path)
            device.close()
            #expect(access(path, F_OK) == 0, "the next one's is not closed again")
            withExtendedLifetime(next) {}
        }
        // Another's file at our path is not ours to remove.
        do {
            let device = try make(path)
            unlink(path)
            close(open(path, O_CREAT | O_WRONLY, 0o600))
            withExtendedLifetime(device) {}
        }
        #expect(access(path, F_OK) == 0)
    }
}
