import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// Network devices: frames of any size, receive queues that run out.
@Suite(.serialized) struct HostileNetworkTests {
    /// A device over links of the test's own, which have headers if that is asked for.
    private func machine(_ kind: TransportKind, _ links: [FakeLink]) throws -> HostileMachine {
        try HostileMachine(kind) { events in
            VirtioFuzzer.Subject(
                NetworkDevice(links: links, address: MACAddress(2, 0, 0, 0, 0, 1), events: events, clock: events.clock))
        }
    }

    private static let mergeable: FeatureSet = [.netMergeableBuffers, .indirectDescriptors, .eventIndex]

    @Test("HG-26: frames shorter than their header, and longer than any", arguments: TransportKind.allCases, [false, true])
    func frameSizes(kind: TransportKind, carriesHeader: Bool) throws {
        var link = FakeLink(carriesHeader: carriesHeader)
        try hostile({
            link = FakeLink(carriesHeader: carriesHeader)
            return try machine(kind, [link])
        }) { machine in
            machine.start(Self.mergeable)
            for count in [1, 4, 11, 12, 13, 25, 26, 65_562, 65_563, 65_564, 1 << 20] {
                for cuts in [1, 2, 5] {
                    let part = max(1, count / cuts)
                    let buffers = (0..<cuts).map {
                        (address: GuestAddress(0x80_0000), count: $0 < cuts - 1 ? part : max(1, count - part * (cuts - 1)))
                    }
                    _ = try machine.queues[1].add(buffers, [])
                    machine.transport.notify(queue: 1)
                    machine.rest()
                    #expect(try machine.queues[1].completions().count == 1)
                }
            }
            let range = carriesHeader ? 26...65_562 : 14...65_550
            #expect(link.sent.allSatisfy { range.contains($0.count) })
            link.sent = []
            // The other way, where the host or somebody on its network is the one who sends.
            for _ in 0..<2 { _ = try machine.queues[0].add([], [(GuestAddress(0x90_0000), 70_000)]) }
            machine.transport.notify(queue: 0)
            for count in [1, 11, 12, 13, 14, 25, 65_551, 65_562, 65_563, 69_000] {
                link.bring([[UInt8](repeating: 0, count: count)])
                machine.rest()
                _ = try machine.queues[0].completions()
                while try machine.queues[0].add([], [(GuestAddress(0x90_0000), 70_000)]) != nil {}
                machine.transport.notify(queue: 0)
            }
            machine.rest()
            #expect(link.incoming.isEmpty && !machine.needsReset)
        }
    }

    @Test("HG-27: hash reports, and commands of any length", arguments: TransportKind.allCases) func hashReports(
        kind: TransportKind
    ) throws {
        var links: [FakeLink] = []
        try hostile({
            links = [FakeLink(), FakeLink()]
            return try machine(kind, links)
        }) { machine in
            // Neither HASH_REPORT nor RSS: the header is always of the same length.
            #expect(
                !machine.device.features.contains(FeatureSet(bit: 57))
                    && !machine.device.features.contains(FeatureSet(bit: 60)))
            machine.start([.netControlQueue, .netMultiqueue, .netMergeableBuffers])
            let control = machine.queues[machine.queues.count - 1]
            for command in [
                [4, 1], [4, 2], [0, 0], [1, 0], [255, 255], [4, 0], [4, 0, 0, 0], [4, 0, 255, 255], [4, 0, 3, 0], [4],
            ] as [[UInt8]] {
                for padding in [0, 1, 40, 4096] {
                    _ = try control.add(readable: [command + [UInt8](repeating: 0xFF, count: padding)], writable: [1])
                    machine.transport.notify(queue: control.index)
                    machine.rest()
                    let answer = try #require(try control.completions().first).bytes
                    // [4, 0] behind which anything follows may be two pairs or as many as 0xFF says.
                    #expect(answer == [1])
                }
            }
            // Many small buffers, so that a frame is spread over them: the count of them is written into the first.
            links[0].bring([.frame(1, count: 1400)])
            for _ in 0..<16 { _ = try machine.queues[0].add(writable: [100]) }
            machine.transport.notify(queue: 0)
            machine.rest()
            let done = try machine.queues[0].completions()
            #expect(done.count == 15 && done[0].bytes[10] == 15 && done[0].bytes[11] == 0)
        }
    }

    @Test(
        "HG-28: a flood while the receive queue is full", arguments: TransportKind.allCases,
        [
            [], .eventIndex, [.packedRing, .eventIndex], [.netMergeableBuffers, .eventIndex],
        ] as [FeatureSet])
    func floods(kind: TransportKind, features: FeatureSet) throws {
        var link = FakeLink()
        try hostile({
            link = FakeLink()
            return try machine(kind, [link])
        }) { machine in
            machine.start(features, size: 256)
            var random = SeededRandom(seed: 28)
            var (brought, got) = (0, 0)
            for _ in 0..<60 {
                // About as many as a turn has: some of the time they end together.
                let frames = 1 + random.below(140)
                link.bring((0..<frames).map { .frame(brought + $0) })
                brought += frames
                machine.rest()
                for _ in 0..<(random.oneIn(2) ? 120 + random.below(16) : random.below(8)) {
                    _ = try machine.queues[0].add([], [(GuestAddress(0x80_0000 + UInt64(random.below(1000)) * 256), 256)])
                }
                if random.oneIn(3) { machine.rest() }
                try machine.queues[0].kick()
                machine.rest()
                got += try machine.queues[0].completions().count
                #expect(machine.queues[0].outstanding == 0 || link.incoming.isEmpty, "frames wait though there are buffers")
            }
            // All that came is there in the end.
            while !link.incoming.isEmpty {
                let before = link.incoming.count
                while try machine.queues[0].add([], [(GuestAddress(0x80_0000), 256)]) != nil {}
                try machine.queues[0].kick()
                machine.rest()
                got += try machine.queues[0].completions().count
                guard link.incoming.count < before else {
                    Issue.record("reception has frozen with \(before) frames")
                    return
                }
            }
            #expect(got == brought)
            // A broken queue: frames that come are no reason to turn over and over.
            try machine.memory.store(UInt16(0x7777), at: machine.place(machine.queues[0].layout.driverArea, 2))
            try machine.memory.store(UInt64.max, at: machine.place(machine.queues[0].layout.descriptors, 8))
            link.bring([.frame(1), .frame(2)])
            machine.rest()
            link.incoming = []
        }
    }

    @Test("A broken receive queue, and a peer that goes on sending", arguments: TransportKind.allCases)
    func brokenReceiveQueue(kind: TransportKind) throws {
        var peer: Int32 = -1
        defer { close(peer) }
        try hostile({
            var ends: [Int32] = [-1, -1]
            #expect(socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &ends) == 0)
            if peer >= 0 { close(peer) }
            peer = ends[1]
            let backend = SocketBackend(descriptor: ends[0])
            return try HostileMachine(kind) { events in
                VirtioFuzzer.Subject(
                    NetworkDevice(
                        links: [backend], address: MACAddress(2, 0, 0, 0, 0, 1), events: events, clock: events.clock))
            }
        }) { machine in
            machine.start([])
            machine.rest()
            try machine.publish(index: 0x7777, on: machine.queues[0])
            for number in 0..<8 {
                let frame = [UInt8].frame(number)
                #expect(send(peer, frame, frame.count, 0) == frame.count)
            }
            // `hostile` sees whether the loop comes to rest: the descriptor stays readable.
            machine.turn()
            machine.turn()
            #expect(machine.needsReset)
        }
    }
}
