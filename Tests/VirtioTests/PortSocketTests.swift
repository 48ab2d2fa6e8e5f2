import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// Ports of a console that lead to Unix sockets, with programs that connect to them.
@Suite struct PortSocketTests {
    private typealias Message = ConsoleRig.Message

    /// A console with one port, "a", at a socket of the host's.
    private final class Rig {
        let directory: TemporaryDirectory
        let console: ConsoleRig
        var path: String { directory.path + "/p" }
        /// All that the guest has been sent.
        private(set) var received: [UInt8] = []

        init(_ kind: TransportKind = .mmio) throws {
            let directory = TemporaryDirectory()
            self.directory = directory
            console = try ConsoleRig(kind, channels: ["a"]) { _, events in
                try PortSocket(path: directory.path + "/p", events: events, clock: events.clock)
            }
            console.socket?.connect(console.device.ports[1])
        }

        /// Serves the sockets and takes what the guest got, until the condition holds.
        func run(until condition: () throws -> Bool) throws -> Bool {
            for _ in 0..<2000 {
                console.events.poll(milliseconds: 1)
                try take()
                if try condition() { return true }
            }
            return false
        }

        /// Gives the guest's port so many buffers.
        func provide(_ count: Int, bytes: Int = 100) throws {
            for _ in 0..<count { try console.receiveQueue(1).add(writable: [bytes]) }
            try console.receiveQueue(1).kick()
            console.events.run()
        }

        private func take() throws {
            for done in try console.receiveQueue(1).completions() { received += done.bytes[..<Int(done.written)] }
        }
    }

    @Test(arguments: TransportKind.allCases, ringKinds) func whoConnectsSpeaksWithTheGuest(kind: TransportKind, ring: FeatureSet) throws {
        let rig = try Rig(kind)
        #expect(rig.console.driver.start(ring.union(ConsoleRig.multiport)))
        try rig.console.provideControlBuffers(16)
        for message in [Message(.max, 0, 1), Message(1, 3, 1), Message(1, 6, 1)] { try rig.console.send(message) }
        // Nobody is there yet.
        #expect(try rig.console.messages().suffix(2) == [Message(1, 7, 1, Array("a".utf8)), Message(1, 6, 0)])
        for round in 0..<3 {
            let peer = try HostPeer(path: rig.path)
            #expect(try rig.run { try rig.console.messages().contains(Message(1, 6, 1)) })
            try rig.console.transmit(Array("to host \(round)".utf8), port: 1)
            #expect(try rig.run { peer.pump(); return peer.inbox == Array("to host \(round)".utf8) })
            try rig.provide(2)
            peer.outbox = Array("to guest \(round);".utf8)[...]
            peer.pump()
            #expect(try rig.run { rig.received.count == (round + 1) * 11 })
            peer.leave()
            #expect(try rig.run { try rig.console.messages().contains(Message(1, 6, 0)) })
        }
        #expect(rig.received == Array("to guest 0;to guest 1;to guest 2;".utf8))
        #expect(rig.console.statistic("bytesLost") == 0)
    }

    /// More than either side holds, both ways at once.
    @Test(arguments: TransportKind.allCases) func streamsWaitForWhoeverIsSlow(kind: TransportKind) throws {
        let rig = try Rig(kind)
        try rig.console.open()
        let peer = try HostPeer(path: rig.path)
        #expect(try rig.run { try rig.console.messages().contains(Message(1, 6, 1)) })
        let (down, up) = (pattern(1 << 20, seed: 1), pattern(100_000, seed: 2))
        peer.outbox = up[...]
        peer.pump(reading: false)
        // Without buffers the guest gets nothing, and no more than a portion leaves the socket.
        #expect(!(try rig.run { !rig.received.isEmpty }))
        var sent = 0
        var isSlow = true
        let isDone = try rig.run {
            while sent < down.count, try rig.console.transmitQueue(1).add(readable: [Array(down[sent..<min(sent + 32_768, down.count)])]) != nil { sent += 32_768 }
            try rig.console.transmitQueue(1).kick()
            _ = try rig.console.transmitQueue(1).completions()
            try rig.provide(4, bytes: 700)
            peer.pump(reading: false)
            // Whatever the socket holds comes only once everything waits for it.
            if isSlow, rig.received.count == up.count { isSlow = false }
            if !isSlow { peer.pump() }
            return peer.inbox.count >= down.count && rig.received.count >= up.count
        }
        #expect(isDone, "\(peer.inbox.count) bytes down, \(rig.received.count) up")
        #expect(difference(of: peer.inbox, from: down) == nil)
        #expect(difference(of: rig.received, from: up) == nil)
    }

    /// `echo question | nc -U path`: the answer is still for whoever has no more to ask.
    @Test func whoEndsSendingStillHears() throws {
        let rig = try Rig()
        try rig.console.open()
        try rig.provide(2)
        let peer = try HostPeer(path: rig.path)
        peer.outbox = [1, 2, 3]
        peer.pump(reading: false)
        peer.end(Int(SHUT_WR))
        #expect(try rig.run { rig.received == [1, 2, 3] })
        try rig.console.transmit([4, 5], port: 1)
        #expect(try rig.run { peer.pump(); return peer.inbox == [4, 5] })
        #expect(!(try rig.console.messages().contains(Message(1, 6, 0))))
        // Nothing is left to be served again and again.
        #expect(!rig.console.events.poll(milliseconds: 5))
        peer.leave()
        #expect(try rig.run { try rig.console.messages().contains(Message(1, 6, 0)) })
    }

    /// What was sent is the guest's, whether or not it listened then; who comes next waits for its turn.
    @Test func onePeerAfterTheOther() throws {
        let rig = try Rig()
        let (first, second) = (try HostPeer(path: rig.path), try HostPeer(path: rig.path))
        for (peer, byte) in [(first, 1 as UInt8), (second, 2)] {
            peer.outbox = [UInt8](repeating: byte, count: 10_000)[...]
            peer.pump(reading: false)
            peer.leave()
        }
        // Before there is a driver: and it costs no turns.
        while rig.console.events.poll(milliseconds: 1) {}
        #expect(!rig.console.events.poll(milliseconds: 5))
        try rig.console.open()
        #expect(try rig.run { try rig.provide(8, bytes: 1000); return rig.received.count >= 20_000 })
        #expect(difference(of: rig.received, from: [UInt8](repeating: 1, count: 10_000) + [UInt8](repeating: 2, count: 10_000)) == nil)
    }

    /// Output to who has gone is lost, and holds the guest up no longer than that is unknown.
    @Test func whoGoesHoldsNobodyUp() throws {
        let rig = try Rig()
        try rig.console.open()
        let peer = try HostPeer(path: rig.path)
        #expect(try rig.run { try rig.console.messages().contains(Message(1, 6, 1)) })
        for _ in 0..<32 { try rig.console.transmitQueue(1).add(readable: [[UInt8](repeating: 9, count: 65_536)]) }
        try rig.console.transmitQueue(1).kick()
        rig.console.events.run()
        // The socket is full, and the guest waits.
        let taken = try rig.console.transmitQueue(1).completions().count
        #expect(taken < 32)
        #expect(rig.console.device.transmitWaiting())
        peer.leave()
        var completed = taken
        #expect(try rig.run { completed += try rig.console.transmitQueue(1).completions().count; return completed == 32 })
        #expect(!rig.console.device.transmitWaiting())
    }

    @Test func theSocketIsThereAsLongAsThePort() throws {
        var rig: Rig? = try Rig()
        let directory = rig?.directory
        let path = try #require(rig).path
        var status = stat()
        #expect(stat(path, &status) == 0 && status.st_mode & 0o777 == 0o600)
        let events = ManualEvents()
        #expect(throws: SocketError.inUse(path)) { try PortSocket(path: path, events: events, clock: events.clock) }
        let peer = try HostPeer(path: path)
        rig?.console.events.poll()
        rig = nil
        #expect(stat(path, &status) != 0)
        peer.pump()
        #expect(peer.isAtEnd)
        // As long as a path may be, with nothing behind it.
        let longest = try #require(directory).path + "/" + String(repeating: "x", count: UnixSocket.longestPath - path.utf8.count + 1)
        #expect(throws: Never.self) { try PortSocket(path: longest, events: events, clock: events.clock) }
        #expect(throws: SocketError.pathTooLong(longest + "x", limit: 107)) {
            try PortSocket(path: longest + "x", events: events, clock: events.clock)
        }
    }
}
