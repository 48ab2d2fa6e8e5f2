import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// Sockets, random numbers, the balloon and the console.
@Suite(.serialized) struct HostileSmallDeviceTests {
    // MARK: Sockets

    private final class Host {
        let directory: TemporaryDirectory
        let service: Int32
        init() throws {
            directory = TemporaryDirectory()
            service = UnixSocket.make()
            guard UnixSocket.bind(service, to: directory.path + "/v_50") == 0 else { throw HostPeer.Failed(errno: errno) }
            listen(service, 64)
        }
        deinit { close(service) }

        func machine(_ kind: TransportKind, _ limits: SocketDevice.Limits = .init()) throws -> HostileMachine {
            let path = directory.path + "/v"
            return try HostileMachine(kind) { events in
                VirtioFuzzer.Subject(
                    try SocketDevice(guestCID: 3, path: path, events: events, clock: events.clock, limits: limits))
            }
        }

        func accept() -> Int32 { Glibc.accept(service, nil, nil) }
    }

    /// Descriptors that the process has open.
    private static var openDescriptors: Int {
        var count = 0
        for descriptor in 0..<Int32(4096) where fcntl(descriptor, F_GETFD) >= 0 { count += 1 }
        return count
    }

    private func packet(
        _ operation: SocketPacket.Operation, from port: UInt32, count: Int = 0, flags: UInt32 = 0, bufAlloc: UInt32 = 65_536
    ) -> [UInt8] {
        let packet = SocketPacket(
            sourceCID: 3, destinationCID: 2, sourcePort: port, destinationPort: 50,
            count: UInt32(truncatingIfNeeded: count), type: 1,
            operation: operation.rawValue, flags: flags, bufAlloc: bufAlloc, fwdCnt: 0)
        return withUnsafeBytes(of: packet.wire) { Array($0.prefix(44)) }
    }

    private func send(_ machine: HostileMachine, _ bytes: [UInt8]...) throws {
        for part in bytes {
            _ = try machine.queues[1].add(readable: [part])
        }
        machine.transport.notify(queue: 1)
        machine.rest()
        _ = try machine.queues[1].completions()
    }

    /// Takes what came, and gives the buffers again.
    @discardableResult
    private func receive(_ machine: HostileMachine) throws -> [SocketPacket] {
        let done = try machine.queues[0].completions()
        while try machine.queues[0].add([], [(machine.driver.allocate(4096), 4096)]) != nil {}
        machine.transport.notify(queue: 0)
        machine.rest()
        return done.map { item in SocketPacket(item.bytes.withUnsafeBytes { $0.loadUnaligned(as: SocketPacket.Wire.self) })
        }
    }

    @Test("HG-29: lengths that are not those of the buffers", arguments: TransportKind.allCases) func socketLengths(
        kind: TransportKind
    ) throws {
        let host = try Host()
        try hostile {
            try host.machine(kind)
        } _: { machine in
            machine.start(.eventIndex, size: 64)
            try receive(machine)
            for (number, claimed) in [1, 11, 4096, 65_536, 65_537, 0x7FFF_FFFF, 0xFFFF_FFFF].enumerated() {
                let port = UInt32(1000 + number)
                try send(machine, packet(.request, from: port))
                #expect(try receive(machine).map(\.operation) == [2])
                // Ten bytes, that are said to be more: a reset, and none of the host's memory goes anywhere.
                try send(
                    machine,
                    packet(.data, from: port, count: claimed) + (claimed == 1 ? [] : [UInt8](repeating: 1, count: 10)))
                #expect(try receive(machine).map(\.operation) == [3])
            }
            while true {
                let peer = host.accept()
                guard peer >= 0 else { break }
                var bytes = [UInt8](repeating: 0, count: 64)
                #expect(recv(peer, &bytes, 64, Int32(MSG_DONTWAIT)) <= 0)
                close(peer)
            }
        }
    }

    @Test("HG-29: half-closed connections, and credit that never comes", arguments: TransportKind.allCases)
    func stalls(kind: TransportKind) throws {
        let host = try Host()
        try hostile {
            try host.machine(kind)
        } _: { machine in
            machine.start(.eventIndex, size: 64)
            try receive(machine)
            // No credit from the beginning, one direction shut, both by halves; the host has sent more than there is room for.
            for (port, window, flags) in [(1, 0, 0), (2, 1, 0), (3, 0, 1), (4, 65_536, 1), (5, 0, 2), (6, 65_536, 2)]
                as [(UInt32, UInt32, UInt32)]
            {
                try send(machine, packet(.request, from: port, bufAlloc: window))
                let peer = host.accept()
                defer { close(peer) }
                let bytes = [UInt8](repeating: 7, count: 30_000)
                _ = Glibc.send(peer, bytes, bytes.count, Int32(MSG_NOSIGNAL | 0x40))
                machine.rest()
                if flags != 0 { try send(machine, packet(.shutdown, from: port, flags: flags, bufAlloc: window)) }
                machine.rest()
                shutdown(peer, Int32(SHUT_WR))
                // `rest` is what would find it turning.
                machine.rest()
                try receive(machine)
            }
        }
    }

    @Test("HG-29: ports and descriptors without end", arguments: TransportKind.allCases) func descriptorsAreBounded(
        kind: TransportKind
    ) throws {
        let host = try Host()
        var limits = SocketDevice.Limits()
        limits.connections = 32
        try hostile {
            try host.machine(kind, limits)
        } _: { machine in
            let before = Self.openDescriptors
            machine.start(.eventIndex, size: 64)
            for round in 0..<40 {
                for number in 0..<32 {
                    _ = try machine.queues[1].add(readable: [packet(.request, from: UInt32(round * 32 + number))])
                }
                machine.transport.notify(queue: 1)
                machine.rest()
                _ = try machine.queues[1].completions()
                while true {
                    let peer = host.accept()
                    guard peer >= 0 else { break }
                    close(peer)
                }
                // The answers are fetched half of the time.
                if round & 1 == 0 { try receive(machine) }
            }
            let device = try #require(machine.device as? SocketDevice)
            #expect(device.state.withLock { $0.sockets.inUse } <= 32)
            #expect(device.state.withLock { $0.refusals.count } <= SocketDevice.largestRefusalBacklog + 32)
            machine.transport.writeStatus([])
            machine.rest()
            machine.events.clock.advance(by: 60_000_000_000)
            machine.rest()
            #expect(device.state.withLock { $0.sockets.inUse } == 0)
            // Other tests have some, too, and not the number that this one has asked for.
            #expect(Self.openDescriptors < before + 500)
        }
    }

    // MARK: Random numbers

    @Test(
        "HG-30: one buffer over and over in a chain", arguments: TransportKind.allCases,
        [[.indirectDescriptors], [.packedRing, .indirectDescriptors]] as [FeatureSet])
    func repeatedBuffers(kind: TransportKind, features: FeatureSet) throws {
        try hostile({ try HostileMachine(HostilePlace(subject: .entropy, kind: kind)) }) { machine in
            for _ in 0..<4 {
                machine.start(features, size: 16)
                while try machine.queues[0].add([], Array(repeating: (GuestAddress(0x80_0000), 1 << 20), count: 1000))
                    != nil
                {}
                machine.transport.notify(queue: 0)
                machine.rest()
            }
            machine.start(features, size: 64)
            _ = try machine.queues[0].add([], Array(repeating: (GuestAddress(0x80_0000), 60_000), count: 10))
            machine.transport.notify(queue: 0)
            machine.rest()
            #expect(try machine.queues[0].completions().map(\.written) == [65_536])
        }
    }

    // MARK: Balloon

    private func balloon(_ kind: TransportKind, _ bytes: UInt64) throws -> HostileMachine {
        try HostileMachine(kind, memory: bytes) { events in
            VirtioFuzzer.Subject(BalloonDevice(statisticsInterval: 1_000_000_000, events: events, clock: events.clock))
        }
    }

    @Test("HG-31: lists and statistics of gigabytes", arguments: TransportKind.allCases) func gigabytesOfPages(
        kind: TransportKind
    ) throws {
        let features: FeatureSet = [BalloonRig.statistics, BalloonRig.reporting]
        try hostile({ try balloon(kind, 4 << 30) }) { machine in
            machine.start(features)
            let huge = (address: GuestAddress(0x100_0000), count: Int(GuestMemory.holeStart.rawValue - 0x100_0000))
            for queue in 0..<3 {
                _ = try machine.queues[queue].add([huge], [])
                machine.transport.notify(queue: UInt16(queue))
                for _ in 0..<20 { machine.turn() }
            }
            // The statistics are asked for, the rest of them is not looked at.
            machine.events.clock.advance(by: 2_000_000_000)
            machine.turn()
            let used = try machine.memory.load(UInt16.self, at: machine.place(machine.queues[2].layout.deviceArea, 2))
            #expect(used == 1)
            for _ in 0..<4 { _ = try machine.queues[4].add([], [huge]) }
            machine.transport.notify(queue: 4)
            for _ in 0..<20 { machine.turn() }
            // In the middle of it all.
            machine.transport.writeStatus([])
        }
    }

    @Test("HG-32: pages beyond memory's ends, and over a file", arguments: TransportKind.allCases) func pagesBeyondTheEnds(
        kind: TransportKind
    ) throws {
        let directory = ScratchDirectory()
        let path = directory.file("mapped", size: 64 << 10)
        try hostile({ try balloon(kind, 16 << 20) }) { machine in
            let file = open(path, O_RDWR)
            defer { close(file) }
            try machine.memory.map(file: file, offset: 0, count: 64 << 10, at: GuestAddress(0xC0_0000))
            machine.start([BalloonRig.reporting])
            let end = UInt32((16 << 20) / 4096)
            let lists: [[UInt32]] = [
                (end - 4..<end + 64).map { $0 }, [.max, .max - 1, end, 0x8_0000, 0xC_0000, 0x10_0000],
                (0xC00 - 8..<0xC00 + 24).map { $0 }, (0..<1024).map { _ in 0xFFF_FFFF },
            ]
            for list in lists {
                for queue in 0..<2 {
                    _ = try machine.queues[queue].add(readable: [
                        list.flatMap { number in (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) } }
                    ])
                    machine.transport.notify(queue: UInt16(queue))
                }
                machine.rest()
                for queue in 0..<2 { #expect(try machine.queues[queue].completions().count == 1) }
            }
            // Reports: not page by page, up to the last byte, and all of the mapped part.
            for (address, count) in [(0xFF_F001, 0xFFF), (0xBF_F800, 0x2000), (0xC0_0000, 64 << 10), (0xFF_0000, 0x1_0000)]
                as [(UInt64, Int)]
            {
                _ = try machine.queues[4].add([], [(GuestAddress(address), count)])
            }
            machine.transport.notify(queue: 4)
            machine.rest()
            #expect(!machine.needsReset)
        }
        // What the guest lent was its own.
        #expect(difference(of: ScratchDirectory.contents(path), from: pattern(0..<(64 << 10))) == nil)
    }

    // MARK: Console

    @Test(
        "HG-33: output without end, and nobody who reads it", arguments: TransportKind.allCases, [FullSink.waits, .loses])
    func consoleFlood(kind: TransportKind, fullSink: FullSink) throws {
        var sink = MemorySink(capacity: 1000)
        try hostile({
            sink = MemorySink(capacity: 1000)
            let made = sink
            return try HostileMachine(kind) { events in
                let device = try ConsoleDevice(
                    sink: made, fullSink: fullSink,
                    channels: [ConsoleChannel(name: "a", sink: MemorySink(capacity: 0), fullSink: fullSink)],
                    events: events, clock: events.clock)
                return VirtioFuzzer.Subject(device, settle: { made.drain() })
            }
        }) { machine in
            machine.start([])
            for _ in 0..<200 {
                while try machine.queues[1].add([(GuestAddress(0x80_0000), 1 << 20)], []) != nil {}
                machine.transport.notify(queue: 1)
                machine.turn()
                _ = try machine.queues[1].completions()
                // Emergency writes are not waited for.
                machine.transport.writeConfiguration(offset: 8, width: .long, value: 0x21)
            }
            #expect(sink.bytes.count == 1000)
        }
        // Control messages that nobody takes: they do not pile up.
        try hostile({
            try HostileMachine(kind) { events in
                let channels = (0..<31).map {
                    ConsoleChannel(name: "c\($0)", sink: MemorySink(capacity: 0), fullSink: fullSink)
                }
                let sink = MemorySink()
                let device = try ConsoleDevice(sink: sink, channels: channels, events: events, clock: events.clock)
                return VirtioFuzzer.Subject(device, settle: { sink.drain() })
            }
        }) { machine in
            machine.start(ConsoleRig.multiport)
            for round in 0..<500 {
                for number in 0..<12 {
                    let message = ConsoleRig.Message(
                        UInt32(number % 40), UInt16([0, 3, 6, 3, 9][number % 5]), UInt16(round & 1))
                    _ = try machine.queues[3].add(readable: [message.bytes])
                }
                machine.transport.notify(queue: 3)
                machine.rest()
                _ = try machine.queues[3].completions()
            }
        }
    }
}
