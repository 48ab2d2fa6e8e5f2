import Testing
import MonitorTesting

@testable import Virtio

/// The state machine alone: no socket, no queue.
@Suite(.behindEachTransport) struct SocketConnectionTests {
    private func packet(
        _ operation: SocketPacket.Operation, count: UInt32 = 0, flags: UInt32 = 0, bufAlloc: UInt32 = 1000, fwdCnt: UInt32 = 0
    ) -> SocketPacket {
        SocketPacket(
            sourceCID: 3, destinationCID: 2, sourcePort: 9, destinationPort: 52, count: count, type: 1,
            operation: operation.rawValue, flags: flags, bufAlloc: bufAlloc, fwdCnt: fwdCnt)
    }

    private func accepted(window: UInt32 = 1000) -> Connection {
        var connection = Connection(accepting: packet(.request), window: window)
        let response = connection.takeControl(guestCID: 3)
        #expect(response?.operation == SocketPacket.Operation.response.rawValue)
        #expect(response?.bufAlloc == window && response?.sourcePort == 52 && response?.destinationPort == 9)
        return connection
    }

    private func operations(_ connection: inout Connection) -> [UInt16] {
        var list: [UInt16] = []
        while let packet = connection.takeControl(guestCID: 3) { list.append(packet.operation) }
        return list
    }

    @Test func theHostAsksAndTheGuestAnswers() {
        var connection = Connection(fromHost: 77, toGuest: 9, window: 1000)
        #expect(connection.isUnannounced && connection.allowance == 0)
        #expect(operations(&connection) == [1])
        #expect(!connection.isUnannounced && !connection.isEstablished)
        #expect(connection.receive(packet(.response), available: 0) == .accepted)
        #expect(connection.allowance == 1000)
        // Once is enough.
        #expect(connection.receive(packet(.response), available: 0) == [.reset, .over])
    }

    @Test func anAnswerBeforeTheQuestionIsNone() {
        var connection = Connection(fromHost: 77, toGuest: 9, window: 1000)
        #expect(connection.receive(packet(.response), available: 0) == [.reset, .over])
    }

    @Test func beforeTheAnswerOnlyAnAnswerCounts() {
        for operation in [SocketPacket.Operation.request, .data, .shutdown, .creditRequest] {
            var connection = Connection(fromHost: 77, toGuest: 9, window: 1000)
            _ = operations(&connection)
            #expect(connection.receive(packet(operation, count: 1), available: 1) == [.reset, .over], "\(operation)")
        }
        var connection = Connection(fromHost: 77, toGuest: 9, window: 1000)
        _ = operations(&connection)
        #expect(connection.receive(packet(.reset), available: 0) == .over, "a reset is not answered")
    }

    @Test func whatTheWindowHasNoRoomForEndsTheConnection() {
        var connection = accepted()
        #expect(connection.receive(packet(.data, count: 1000), available: 1000) == .deliver)
        #expect(connection.receive(packet(.data, count: 0), available: 0) == [])
        #expect(connection.receive(packet(.data, count: 1), available: 1) == [.reset, .over])

        connection = accepted()
        _ = connection.receive(packet(.data, count: 1000), available: 1000)
        connection.hostTook(600)
        #expect(connection.receive(packet(.data, count: 600), available: 600) == .deliver)
        #expect(connection.receive(packet(.data, count: .max), available: .max) == [.reset, .over])

        connection = accepted()
        #expect(connection.receive(packet(.data, count: 10), available: 9) == [.reset, .over], "fewer bytes than it says")
    }

    @Test func creditIsReportedAQuarterAtATimeAndOnRequest() {
        var connection = accepted()
        _ = connection.receive(packet(.data, count: 500), available: 500)
        connection.hostTook(249)
        #expect(!connection.owesControl)
        connection.hostTook(1)
        #expect(connection.owesControl)
        #expect(connection.takeControl(guestCID: 3)?.fwdCnt == 250)
        #expect(!connection.owesControl)
        #expect(connection.receive(packet(.creditRequest), available: 0) == [])
        #expect(connection.receive(packet(.creditRequest), available: 0) == [])
        #expect(operations(&connection) == [6], "a flood of requests has one answer")
        connection.hostTook(5000)
        #expect(connection.takeControl(guestCID: 3)?.fwdCnt == 500, "never more than was received")
    }

    @Test func countsWrap() {
        var connection = Connection(accepting: packet(.request, bufAlloc: 100, fwdCnt: 0), window: 1 << 20)
        _ = operations(&connection)
        var (sent, received): (UInt32, UInt32) = (0, 0)
        var random = SeededRandom(seed: 5)
        for _ in 0..<6000 {
            // Past 2^32 in both directions.
            let count = UInt32(random.below(1 << 20) + 1)
            let data = packet(.data, count: count, bufAlloc: 2 << 20, fwdCnt: sent)
            #expect(connection.receive(data, available: 2 << 20) == .deliver)
            received &+= count
            connection.hostTook(count)
            let allowed = connection.allowance
            #expect(allowed == 2 << 20)
            let header = connection.takeData(allowed, guestCID: 3)
            sent &+= allowed
            #expect(header.fwdCnt == received)
            #expect(connection.allowance == 0)
        }
    }

    @Test func aWindowThatTheGuestLiesAboutIsHarmless() {
        var connection = accepted()
        _ = connection.takeData(1000, guestCID: 3)
        for (bufAlloc, fwdCnt) in [(0, 0), (1000, 0), (10, 1001), (.max, 1001), (0, .max), (1, .max)] as [(UInt32, UInt32)] {
            _ = connection.receive(packet(.creditUpdate, bufAlloc: bufAlloc, fwdCnt: fwdCnt), available: 0)
            #expect(connection.allowance <= bufAlloc)
        }
        _ = connection.receive(packet(.creditUpdate, bufAlloc: 1200, fwdCnt: 0), available: 0)
        #expect(connection.allowance == 200)
        // Less than is on its way already.
        _ = connection.receive(packet(.creditUpdate, bufAlloc: 500, fwdCnt: 0), available: 0)
        #expect(connection.allowance == 0)
    }

    @Test func aGuestWithoutRoomIsAskedOnce() {
        var connection = accepted()
        _ = connection.takeData(1000, guestCID: 3)
        connection.hostHasData()
        connection.hostHasData()
        #expect(operations(&connection) == [7])
        connection.hostHasData()
        _ = connection.receive(packet(.creditUpdate, bufAlloc: 1000, fwdCnt: 0), available: 0)
        connection.hostHasData()
        #expect(operations(&connection) == [], "an answer that gives nothing is not asked for again")
        _ = connection.receive(packet(.creditUpdate, bufAlloc: 1000, fwdCnt: 1000), available: 0)
        _ = connection.takeData(1000, guestCID: 3)
        connection.hostHasData()
        #expect(operations(&connection) == [7])
    }

    /// One thing that ends something, and what has ended when all have happened. Every order is tried.
    private enum Ending: CaseIterable { case guestSending, guestReceiving, hostSending, hostReceiving }

    private func permutations<Element>(_ list: [Element]) -> [[Element]] {
        guard list.count > 1 else { return [list] }
        return list.indices.flatMap { index in
            var rest = list
            let first = rest.remove(at: index)
            return permutations(rest).map { [first] + $0 }
        }
    }

    @Test func endsInEveryOrder() {
        for order in permutations(Ending.allCases) {
            var connection = accepted()
            var isOver = false
            var guestSees: UInt32 = 0
            var done: Set<Ending> = []
            for ending in order where !isOver {
                done.insert(ending)
                var effects: Connection.Effects = []
                switch ending {
                case .guestReceiving: effects = connection.receive(packet(.shutdown, flags: 1), available: 0)
                case .guestSending: effects = connection.receive(packet(.shutdown, flags: 2), available: 0)
                case .hostSending: connection.hostEndsSending()
                case .hostReceiving: connection.hostEndsReceiving()
                }
                isOver = effects.contains(.over)
                #expect(isOver == (done.contains(.guestReceiving) && done.contains(.guestSending)), "\(order) at \(ending)")
                guard !isOver else {
                    #expect(effects.contains(.reset), "the answer to a clean end")
                    break
                }
                while let packet = connection.takeControl(guestCID: 3) {
                    #expect(packet.operation == 4 && packet.flags & guestSees == guestSees, "bits only come")
                    guestSees = packet.flags
                }
                let toGuest = done.contains(.hostSending) || done.contains(.guestReceiving)
                let toHost = done.contains(.hostReceiving) || done.contains(.guestSending)
                #expect(connection.isClosing == (toGuest && toHost), "\(order) at \(ending)")
                #expect(connection.takesHostData == !toGuest || connection.isClosing)
            }
            #expect(isOver || guestSees == 3)
        }
    }

    @Test func dataAfterItsEnd() {
        var connection = accepted()
        #expect(connection.receive(packet(.shutdown, flags: 2), available: 0) == .endWriting)
        #expect(connection.receive(packet(.shutdown, flags: 2), available: 0) == [], "said before")
        #expect(connection.receive(packet(.data, count: 1), available: 1) == [.reset, .over])

        connection = accepted()
        connection.hostEndsReceiving()
        #expect(connection.receive(packet(.data, count: 1000), available: 1000) == [], "sent before the guest could know")
        #expect(connection.receive(packet(.data, count: 1000), available: 1000) == [], "and takes no room")
        // Bits that mean nothing are nothing.
        #expect(connection.receive(packet(.shutdown, flags: 0xFFFF_FFFC), available: 0) == [])
    }

    /// Whatever comes, in whatever order: it is one of a few answers, and what is owed stays bounded.
    @Test func randomEvents() {
        var random = SeededRandom(seed: 77)
        for _ in 0..<2000 {
            var connection = random.oneIn(2)
                ? Connection(accepting: packet(.request), window: UInt32(random.below(5000)))
                : Connection(fromHost: 5, toGuest: 9, window: UInt32(random.below(5000)))
            for _ in 0..<50 {
                switch random.below(8) {
                case 0: connection.hostEndsSending()
                case 1: connection.hostEndsReceiving()
                case 2: connection.hostTook(UInt32(truncatingIfNeeded: random.next()))
                case 3: connection.hostHasData()
                case 4:
                    let allowed = connection.allowance
                    if allowed > 0 { _ = connection.takeData(UInt32(random.below(Int(allowed)) + 1), guestCID: 3) }
                case 5: #expect(operations(&connection).count <= 6)
                default:
                    var packet = packet(.data)
                    packet.operation = UInt16(random.below(9))
                    packet.count = random.oneIn(2) ? UInt32(random.below(3000)) : UInt32(truncatingIfNeeded: random.next())
                    packet.flags = UInt32(truncatingIfNeeded: random.next())
                    packet.bufAlloc = UInt32(truncatingIfNeeded: random.next())
                    packet.fwdCnt = UInt32(truncatingIfNeeded: random.next())
                    _ = connection.receive(packet, available: UInt64(random.below(3000)))
                }
            }
        }
    }
}
