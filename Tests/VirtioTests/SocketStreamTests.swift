import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// Bytes both ways, and how connections begin and end, over every kind of ring.
@Suite(.behindEachTransport) struct SocketStreamTests {
    /// The host connects to the guest's port 52, and reads the answer.
    private func connected(_ guest: SocketGuest, port: UInt32 = 52) throws -> (HostPeer, GuestStream) {
        guest.listening.insert(port)
        let host = try HostPeer(path: guest.path)
        host.write("CONNECT \(port)\n")
        let isUp = guest.run {
            host.pump()
            return host.text.hasSuffix("\n")
        }
        #expect(isUp)
        let text = host.text
        try #require(text.hasPrefix("OK "))
        let local = try #require(UInt32(text.dropFirst(3).dropLast()))
        _ = host.take()
        return (host, try #require(guest.streams[SocketDevice.key(guestPort: port, hostPort: local)]))
    }

    /// The guest connects to the host's port 80.
    private func connectedFromGuest(
        _ guest: SocketGuest, _ service: HostService, from port: UInt32 = 1000, window: UInt32 = 65_536
    ) throws -> (HostPeer, GuestStream) {
        let stream = guest.connect(from: port, to: 80, window: window)
        var peer: HostPeer?
        let isUp = guest.run {
            peer = peer ?? service.accept()
            return peer != nil && stream.isOpen
        }
        #expect(isUp)
        return (try #require(peer), stream)
    }

    private func echo(_ guest: SocketGuest, _ host: HostPeer, _ stream: GuestStream, _ bytes: [UInt8]) {
        host.outbox += bytes
        var back: [UInt8] = []
        let isBack = guest.run {
            host.pump()
            stream.outbox += stream.read()
            back += host.take()
            return back.count >= bytes.count || host.isAtEnd
        }
        #expect(isBack && back == bytes)
    }

    struct Sizes: CustomTestStringConvertible, Sendable {
        var bytes: Int, buffers: Int, bufferSize: Int, isSplit = false
        var testDescription: String { "\(bytes) bytes in \(buffers) buffers of \(bufferSize)\(isSplit ? ", split" : "")" }
    }

    @Test(arguments: ringKinds, [
        Sizes(bytes: 2 << 20, buffers: 32, bufferSize: 65_536),
        Sizes(bytes: 1 << 20, buffers: 8, bufferSize: 4096, isSplit: true),
        Sizes(bytes: 40_000, buffers: 3, bufferSize: 200), Sizes(bytes: 500, buffers: 1, bufferSize: 1),
    ])
    func bytesComeBack(ring: FeatureSet, sizes: Sizes) throws {
        let guest = try SocketGuest(
            ring: ring, buffers: sizes.buffers, bufferSize: sizes.bufferSize, isSplit: sizes.isSplit)
        let (host, stream) = try connected(guest)
        echo(guest, host, stream, pattern(sizes.bytes, seed: 1))
        let service = HostService(guest, port: 80)
        let (other, second) = try connectedFromGuest(guest, service)
        echo(guest, other, second, pattern(sizes.bytes, seed: 2))
        #expect(!stream.isOverrun && !second.isOverrun && !guest.needsReset)
        #expect(guest.statistic("connections") == 2)
        #expect(guest.statistic("bytesToHost") == UInt64(2 * sizes.bytes))
        #expect(guest.statistic("bytesToGuest") == UInt64(2 * sizes.bytes))
        #expect(guest.statistic("resets") == 0)
        #expect(!guest.events.hasWork && !guest.events.poll(), "nothing goes on when nothing happens")
    }

    @Test func whatFollowsTheLineAtOnceIsTheGuests() throws {
        let guest = try SocketGuest()
        guest.listening = [52]
        let host = try HostPeer(path: guest.path)
        host.write("CONNECT 52\nhello\nCONNECT 53\n")
        let stream = { guest.streams.values.first }
        #expect(guest.run { host.pump(); return stream()?.inbox.count == 17 })
        #expect(String(decoding: stream()!.inbox, as: UTF8.self) == "hello\nCONNECT 53\n")
        #expect(host.text == "OK \(SocketDevice.firstLocalPort)\n")
    }

    @Test func nobodyListensInTheGuest() throws {
        let guest = try SocketGuest()
        let host = try HostPeer(path: guest.path)
        host.write("CONNECT 52\n")
        #expect(guest.run { host.pump(); return host.isAtEnd })
        #expect(host.inbox.isEmpty && guest.statistic("refused") == 1 && guest.statistic("connections") == 0)
    }

    @Test func nobodyListensOnTheHost() throws {
        let guest = try SocketGuest()
        let stream = guest.connect(from: 1000, to: 80)
        #expect(guest.run { stream.isReset })
        // A file that nobody listens at is no better.
        do { _ = HostService(guest, port: 80) }
        let second = guest.connect(from: 1001, to: 80)
        #expect(guest.run { second.isReset })
        #expect(guest.statistic("refused") == 2 && guest.statistic("resets") == 2)
    }

    @Test func withoutADriverNobodyIsLeftWaiting() throws {
        let guest = try SocketGuest()
        guest.transport.writeStatus([])
        let host = try HostPeer(path: guest.path)
        host.write("CONNECT 52\n")
        host.pump()
        for _ in 0..<10 { guest.events.poll() }
        host.pump()
        #expect(host.isAtEnd)
    }

    @Test func localPortsAreUniqueAmongLiveConnections() throws {
        let guest = try SocketGuest()
        var live: [(HostPeer, GuestStream)] = []
        for port in 0..<20 { live.append(try connected(guest, port: UInt32(port % 3))) }
        #expect(Set(live.map(\.1.hostPort)).count == 20)
        #expect(live.allSatisfy { $0.1.hostPort >= 1 << 30 })
    }

    // MARK: Ends

    @Test func theHostHalfCloses() throws {
        let guest = try SocketGuest()
        let (host, stream) = try connected(guest)
        host.write("question")
        host.pump()
        host.end(Int(SHUT_WR))
        #expect(guest.run { stream.hostEnded == 2 })
        #expect(stream.read() == Array("question".utf8))
        stream.outbox += Array("answer".utf8)
        stream.finalShutdown = 3
        #expect(guest.run { host.pump(); return host.isAtEnd && stream.isReset })
        #expect(host.text == "answer")
    }

    @Test func theGuestHalfCloses() throws {
        let guest = try SocketGuest()
        let (host, stream) = try connected(guest)
        stream.outbox += Array("question".utf8)
        stream.finalShutdown = 2
        #expect(guest.run { host.pump(); return host.isAtEnd })
        #expect(host.text == "question")
        for _ in 0..<5 { #expect(!guest.events.poll(), "an end that is known is not reported over and over") }
        host.write("answer")
        host.pump()
        host.leave()
        #expect(guest.run { stream.hostEnded == 3 })
        #expect(stream.read() == Array("answer".utf8))
        stream.send(.shutdown, flags: 3)
        #expect(guest.run { stream.isReset })
    }

    @Test func theHostGoesWithDataBehindIt() throws {
        let guest = try SocketGuest(buffers: 2, bufferSize: 1000)
        let (host, stream) = try connected(guest)
        let bytes = pattern(50_000, seed: 3)
        host.outbox += bytes
        host.pump()
        host.leave()
        #expect(guest.run { stream.hostEnded == 3 })
        #expect(difference(of: stream.read(), from: bytes) == nil)
        #expect(guest.openSockets == 0, "nothing is to be had from it any more")
        stream.send(.reset)
        guest.pump()
        #expect(guest.places == 0)
    }

    @Test func theGuestGoesWithDataBehindIt() throws {
        let guest = try SocketGuest()
        let service = HostService(guest, port: 80)
        // By a clean end and by force: a Unix socket cannot tell a stream that was cut off from one that was not.
        for (round, operation) in [SocketPacket.Operation.shutdown, .reset].enumerated() {
            let (host, stream) = try connectedFromGuest(guest, service, from: UInt32(round))
            let bytes = pattern(400_000, seed: 4)
            stream.outbox += bytes
            #expect(guest.run {
                host.pump()
                return stream.outbox.isEmpty
            })
            host.pump(reading: false)
            stream.send(operation, flags: 3)
            #expect(guest.run { guest.events.poll(); return operation == .reset || stream.isReset })
            #expect(guest.run { host.pump(); return host.isAtEnd })
            #expect(difference(of: host.inbox, from: bytes) == nil)
        }
    }

    @Test func theGuestReadsNoMore() throws {
        let guest = try SocketGuest()
        let (host, stream) = try connected(guest)
        stream.send(.shutdown, flags: 1)
        guest.pump()
        host.write("anybody?")
        host.pump()
        #expect(host.isBroken, "EPIPE")
        stream.outbox += Array("still here".utf8)
        #expect(guest.run { host.pump(); return host.text == "still here" })
        for _ in 0..<5 { #expect(!guest.events.poll()) }
        host.leave()
        // Neither direction goes on.
        #expect(guest.run { stream.hostEnded == 3 })
    }

    @Test func theHostReadsNoMore() throws {
        let guest = try SocketGuest()
        let (host, stream) = try connected(guest)
        host.end(Int(SHUT_RD))
        stream.outbox += Array("anybody?".utf8)
        #expect(guest.run { stream.hostEnded == 1 })
        host.write("still here")
        host.pump(reading: false)
        #expect(guest.run { stream.inbox == Array("still here".utf8) })
        stream.send(.shutdown, flags: 2)
        guest.pump()
        #expect(stream.hostEnded == 1, "the other direction goes on")
        host.write("!")
        host.pump(reading: false)
        host.end(Int(SHUT_WR))
        #expect(guest.run { stream.hostEnded == 3 && stream.inbox.last == UInt8(ascii: "!") })
    }

    /// Four ends, of which each side has two, in all 24 orders, with bytes before each: all that was sent before the sender's
    /// own end comes, and nothing is left behind.
    @Test func endsInEveryOrder() throws {
        enum Ending: CaseIterable { case guestSends, guestReceives, hostSends, hostReceives }
        let guest = try SocketGuest()
        let service = HostService(guest, port: 80)
        var round: UInt32 = 0
        func permutations(_ list: [Ending]) -> [[Ending]] {
            list.count < 2 ? [list] : list.flatMap { first in permutations(list.filter { $0 != first }).map { [first] + $0 } }
        }
        for order in permutations(Ending.allCases) {
            round += 1
            let (host, stream) = try connectedFromGuest(guest, service, from: round)
            var done: Set<Ending> = []
            var (toHost, toGuest) = (0, 0)
            for ending in order {
                // A byte each way, where that direction is whole.
                if !done.contains(.guestSends), !done.contains(.hostReceives), stream.isOpen {
                    toHost += 1
                    stream.outbox += [UInt8(toHost)]
                    let hasCome = guest.run(until: { host.pump(); return host.inbox.count == toHost }, turns: 1000)
                    #expect(hasCome, "\(order) at \(ending)")
                }
                if !done.contains(.hostSends), !done.contains(.guestReceives), stream.isOpen {
                    toGuest += 1
                    host.outbox += [UInt8(toGuest)]
                    host.pump(reading: !done.contains(.hostReceives))
                    let hasCome = guest.run(until: { stream.inbox.count == toGuest }, turns: 1000)
                    #expect(hasCome, "\(order) at \(ending)")
                }
                done.insert(ending)
                switch ending {
                case .guestSends: if stream.isOpen { stream.send(.shutdown, flags: 2) }
                case .guestReceives: if stream.isOpen { stream.send(.shutdown, flags: 1) }
                case .hostSends: host.end(Int(SHUT_WR))
                case .hostReceives: host.end(Int(SHUT_RD))
                }
                for _ in 0..<3 { guest.pump() }
            }
            host.leave()
            #expect(guest.run(until: { stream.isReset }, turns: 1000), "\(order)")
        }
        #expect(guest.openSockets == 0 && guest.places == 0)
        #expect(guest.statistic("connections") == 24 && !guest.needsReset)
    }

    @Test func aGuestThatNeverSaysItsLastIsCutOff() throws {
        let guest = try SocketGuest()
        let (host, stream) = try connected(guest)
        host.leave()
        #expect(guest.run { stream.hostEnded == 3 })
        #expect(!stream.isReset)
        guest.events.clock.advance(by: 11_000_000_000)
        #expect(guest.run { stream.isReset })
        #expect(guest.places == 0)
    }

    // MARK: Resets

    @Test(arguments: ringKinds) func aResetOfTheDeviceClosesTheHostsSockets(ring: FeatureSet) throws {
        let guest = try SocketGuest(ring: ring)
        let (host, stream) = try connected(guest)
        let service = HostService(guest, port: 80)
        let (other, second) = try connectedFromGuest(guest, service)
        stream.outbox += Array("last words".utf8)
        second.outbox += Array("likewise".utf8)
        guest.pump()
        guest.transport.writeStatus([])
        host.pump()
        other.pump()
        #expect(host.isAtEnd && host.text == "last words")
        #expect(other.isAtEnd && other.text == "likewise")
        #expect(guest.openSockets == 0 && guest.places == 0)
        // And the next driver has all of it again.
        guest.start(ring: ring)
        let (again, third) = try connected(guest)
        echo(guest, again, third, pattern(10_000, seed: 9))
    }

    @Test(arguments: ringKinds) func aTransportReset(ring: FeatureSet) throws {
        let guest = try SocketGuest(ring: ring)
        let (host, _) = try connected(guest)
        #expect(guest.transportResets == 0)
        for round in 1...5 {
            guest.device.resetTransport()
            guest.events.run()
            guest.take()
            // Two buffers were there; more come later, and the event waits for them.
            if round > 2 {
                #expect(guest.transportResets == round - 1)
                try guest.driver.queues[2].add(writable: [8])
                try guest.driver.queues[2].kick()
                guest.events.run()
                guest.take()
            }
            #expect(guest.transportResets == round)
        }
        host.pump()
        #expect(host.isAtEnd && guest.badEvents == 0)
        let (again, stream) = try connected(guest, port: 7)
        echo(guest, again, stream, pattern(1000, seed: 9))
    }

    @Test func theConfigurationSpaceIsTheContextIdentifier() throws {
        let guest = try SocketGuest()
        #expect(guest.transport.readConfiguration(offset: 0, width: .long) == 3)
        #expect(guest.transport.readConfiguration(offset: 4, width: .long) == 0)
        #expect(guest.transport.readConfiguration(offset: 8, width: .long) == 0)
        guest.transport.writeConfiguration(offset: 0, width: .long, value: 9)
        #expect(guest.transport.readConfiguration(offset: 0, width: .long) == 3)
        #expect(guest.transport.readDeviceID() == 19)
    }
}
