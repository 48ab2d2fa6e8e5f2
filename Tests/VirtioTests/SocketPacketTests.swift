import Testing
import MonitorTesting

@testable import Virtio

@Suite(.behindEachTransport) struct SocketPacketTests {
    /// Every field at its place. Source: [VIRTIO1.2 §5.10.6].
    @Test func theHeaderIsLaidOutAsTheManualSays() {
        let packet = SocketPacket(
            sourceCID: 0x0102_0304_0506_0708, destinationCID: 0x1112_1314_1516_1718, sourcePort: 0x2122_2324,
            destinationPort: 0x3132_3334, count: 0x4142_4344, type: 0x5152, operation: 0x6162, flags: 0x7172_7374,
            bufAlloc: 0x8182_8384, fwdCnt: 0x9192_9394)
        #expect(MemoryLayout<SocketPacket.Wire>.size == Int(SocketPacket.byteCount))
        let bytes = withUnsafeBytes(of: packet.wire) { Array($0.prefix(44)) }
        let expected: [UInt8] = [
            8, 7, 6, 5, 4, 3, 2, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,
            0x24, 0x23, 0x22, 0x21, 0x34, 0x33, 0x32, 0x31, 0x44, 0x43, 0x42, 0x41, 0x52, 0x51, 0x62, 0x61,
            0x74, 0x73, 0x72, 0x71, 0x84, 0x83, 0x82, 0x81, 0x94, 0x93, 0x92, 0x91,
        ]
        #expect(bytes == expected)
        #expect(SocketPacket(packet.wire) == packet)
    }

    @Test func aRefusalGoesBackWhereThePacketCameFrom() {
        let packet = SocketPacket(
            sourceCID: 3, destinationCID: 2, sourcePort: 10, destinationPort: 20, count: 5, type: 7, operation: 1, flags: 9,
            bufAlloc: 1, fwdCnt: 2)
        let refusal = packet.refusal
        #expect((refusal.sourceCID, refusal.destinationCID) == (2, 3))
        #expect((refusal.sourcePort, refusal.destinationPort) == (20, 10))
        #expect(refusal.isReset && refusal.count == 0 && refusal.type == 7 && refusal.flags == 0)
    }

    private func parse(_ text: String, pieces: Int = 64) -> ConnectLine.Step {
        var line = ConnectLine()
        var rest = Array(text.utf8)[...]
        var step = ConnectLine.Step.incomplete
        while !rest.isEmpty, step == .incomplete {
            let piece = Array(rest.prefix(min(pieces, line.room)))
            let length = ConnectLine.length(in: piece.span)
            step = line.append(piece.span.extracting(first: length))
            rest = rest.dropFirst(length)
        }
        return step
    }

    @Test func connectLines() {
        for pieces in [1, 3, 32] {
            #expect(parse("CONNECT 52\n", pieces: pieces) == .port(52))
            #expect(parse("connect 0\n", pieces: pieces) == .port(0))
            #expect(parse("CONNECT 4294967295\nGET / HTTP", pieces: pieces) == .port(.max))
            #expect(parse("CONNECT 00000000000000000000052\n", pieces: pieces) == .port(52), "32 bytes")
            #expect(parse("CONNECT 5", pieces: pieces) == .incomplete)
            for bad in [
                "\n", "CONNECT\n", "CONNECT \n", "CONNECT  52\n", "CONNECT 52 \n", "CONNECT 52\r\n", "CONNECT -1\n",
                "CONNECT 0x10\n", "CONNECT 4294967296\n", "CONNECT 99999999999999999999999\n", "CONNECT\0 52\n",
                "GET / HTTP/1.1\n", "CONNECT\u{00}52\n",
                "CONNECT 000000000000000000000052\n", String(repeating: "x", count: 100), "CoNNECT:52\n", "cONNECT 5\u{7f}\n",
            ] {
                #expect(parse(bad, pieces: pieces) == .malformed, "\(bad.debugDescription) in pieces of \(pieces)")
            }
        }
    }

    @Test func aByteRingKeepsOrderAndSize() {
        var random = SeededRandom(seed: 1)
        let ring = ByteRing(capacity: 37)
        var (next, expected): (UInt8, UInt8) = (0, 0)
        for _ in 0..<10_000 {
            if random.oneIn(2) {
                let space = ring.free
                let count = random.below(space.count + 1)
                for index in 0..<count {
                    space[index] = next
                    next &+= 1
                }
                ring.grew(count)
            } else {
                let run = ring.pending
                let count = random.below(run.count + 1)
                for index in 0..<count {
                    #expect(run[index] == expected)
                    expected &+= 1
                }
                ring.shrank(count)
            }
            #expect(ring.count == Int(next &- expected) && ring.count <= 37)
            #expect(ring.isEmpty || !ring.pending.isEmpty)
            #expect(ring.count == 37 || !ring.free.isEmpty)
        }
    }

    @Test func aReadyQueueHoldsEachOnce() {
        var queue = ReadyQueue(capacity: 4)
        for index in [2, 0, 2, 3, 0, 1, 1] { queue.append(index) }
        #expect([queue.popFirst(), queue.popFirst()] == [2, 0])
        queue.append(0)
        #expect([queue.popFirst(), queue.popFirst(), queue.popFirst(), queue.popFirst()] == [3, 1, 0, nil])
    }
}
