import Glibc
import Testing
import VMCore
import MonitorTesting

@testable import Virtio

/// Disks: requests beyond their ends, and images that a guest has made.
@Suite(.serialized) struct HostileBlockTests {
    /// A disk of 64 KiB in a raw file.
    enum Backend: CaseIterable, CustomTestStringConvertible {
        case threads, ring, qcow2
        var testDescription: String { "\(self)" }
    }

    static let places = Backend.allCases.flatMap { backend in TransportKind.allCases.map { (backend, $0) } }
    static let sectors: UInt64 = 128
    private static let capacity = Int(sectors) * 512

    private final class Disk {
        let directory = ScratchDirectory()
        let path: String
        let backend: Backend

        init(_ backend: Backend) throws {
            self.backend = backend
            path = directory.file(size: HostileBlockTests.capacity)
            guard backend == .qcow2 else { return }
            unlink(path)
            try QCOW2Image.create(path: path, QCOW2Parameters(size: UInt64(HostileBlockTests.capacity), clusterBits: 12))
        }

        func machine(_ kind: TransportKind) throws -> HostileMachine {
            let (path, backend) = (path, backend)
            return try HostileMachine(kind) { events in
                var options = BlockOptions()
                options.execution = backend == .ring ? .ring : .threads
                options.queueCount = 2
                let image: any BlockImage = backend == .qcow2 ? try QCOW2Image.open(path: path) : try RawImage(path: path)
                return VirtioFuzzer.Subject(
                    BlockDevice(image: image, options: options, events: events, clock: events.clock))
            }
        }
    }

    private static let everything = BlockRig.allFeatures.union([.indirectDescriptors, .eventIndex])

    /// Sends a request and waits for it.
    /// - Returns: the status; nil where there was no room for one.
    @discardableResult
    private func send(_ machine: HostileMachine, _ readable: [[UInt8]], _ writable: [Int] = [1]) throws -> UInt8? {
        _ = try #require(try machine.queues[0].add(readable: readable, writable: writable))
        machine.transport.notify(queue: 0)
        for _ in 0..<3000 {
            machine.turn()
            if let done = try machine.queues[0].completions().first { return done.bytes.last }
            usleep(500)
        }
        throw HostileFailure.noAnswer
    }

    private func expect(
        _ status: UInt8?, _ machine: HostileMachine, _ readable: [[UInt8]], _ writable: [Int] = [1],
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let answer = try send(machine, readable, writable)
        #expect(answer == status, sourceLocation: sourceLocation)
    }

    @Test("HG-2: requests of any length while the disk hangs", arguments: TransportKind.allCases)
    func aHangingDisk(kind: TransportKind) throws {
        var image = MemoryImage(capacity: Self.capacity)
        try hostile {
            image = MemoryImage(capacity: Self.capacity)
            let made = image
            return try HostileMachine(kind, memory: 64 << 20) { events in
                var options = BlockOptions()
                options.queueCount = 4
                options.resetLimit = 50
                return VirtioFuzzer.Subject(
                    BlockDevice(image: made, options: options, events: events, clock: events.clock),
                    settle: { made.letGo() })
            }
        } _: { machine in
            machine.start(Self.everything, size: 256)
            image.hold()
            let header = machine.driver.allocate(16)
            try machine.memory.write(BlockRig.header(0), at: header)
            let parts = Array(repeating: (address: GuestAddress(0x80_0000), count: 1), count: 1022)
            // One table for all of them: the longest chain there is.
            _ = try machine.queues[0].add([(header, 16)], parts + [(GuestAddress(0x80_0000), 3)])
            let table = try machine.memory.read(at: machine.queues[0].layout.descriptors, count: 16)
            for queue in machine.queues {
                for index in 0..<256 {
                    try machine.memory.write(table, at: machine.place(queue.layout.descriptors, index * 16))
                }
                try machine.publish((0..<256).map { UInt16($0) }, on: queue)
            }
            machine.notifyAll()
            for _ in 0..<50 { machine.turn() }
            let device = try #require(machine.device as? BlockDevice)
            #expect(device.requestsMade == BlockDevice.mostRequests)
            // Those that were not begun begin when others have come back: all of them are answered.
            image.letGo()
            for _ in 0..<4000 {
                if !machine.turn() { usleep(500) }
                let used = try machine.queues.map { queue in
                    try machine.memory.load(UInt16.self, at: machine.place(queue.layout.deviceArea, 2))
                }
                if used == [256, 256, 256, 256] { return }
            }
            throw HostileFailure.noAnswer
        }
    }

    @Test("HG-19: writes across the end of the disk", arguments: places) func acrossTheEnd(
        backend: Backend, kind: TransportKind
    ) throws {
        let disk = try Disk(backend)
        try hostile {
            try disk.machine(kind)
        } _: { machine in
            machine.start(Self.everything)
            let before = ScratchDirectory.contents(disk.path).count
            let data = [UInt8](repeating: 0xAA, count: 512)
            for pieces in [2, 3, 16, 100] {
                let readable = [BlockRig.header(1, Self.sectors - 1)] + Array(repeating: data, count: pieces)
                try expect(1, machine, readable)
                try expect(1, machine, [BlockRig.header(0, Self.sectors - 1)], Array(repeating: 512, count: pieces) + [1])
            }
            for sector in [Self.sectors, 1 << 55, (1 << 55) - 1, .max, .max / 512, 1 << 63] as [UInt64] {
                try expect(1, machine, [BlockRig.header(1, sector), data])
                try expect(1, machine, [BlockRig.header(0, sector)], [512, 1])
            }
            #expect(ScratchDirectory.contents(disk.path).count == before)
        }
        #expect(backend == .qcow2 || ScratchDirectory.contents(disk.path) == pattern(0..<Self.capacity))
    }

    @Test("HG-20: millions of segments, and sectors that overflow", arguments: places)
    func segments(backend: Backend, kind: TransportKind) throws {
        let disk = try Disk(backend)
        try hostile {
            try disk.machine(kind)
        } _: { machine in
            machine.start(Self.everything)
            for type in [11, 13] as [UInt32] {
                for (sector, count) in [
                    (0, .max), (.max, 1), (.max, .max), (1 << 55, 8), (Self.sectors, 1), (Self.sectors - 1, 2),
                ] as [(UInt64, UInt32)] {
                    try expect(1, machine, [BlockRig.header(type), BlockRig.segment(sector, count)])
                }
                // A MiB of them, all the same memory sixteen times over.
                let header = machine.driver.allocate(16)
                try machine.memory.write(BlockRig.header(type), at: header)
                let status = machine.driver.allocate(1)
                let list = Array(repeating: (address: GuestAddress(0x80_0000), count: 1 << 20), count: 16)
                _ = try machine.queues[0].add([(header, 16)] + list, [(status, 1)])
                machine.transport.notify(queue: 0)
                machine.rest()
                #expect(try machine.queues[0].completions().map(\.bytes) == [[1]])
            }
        }
    }

    @Test("HG-21: a header alone", arguments: places) func headerAlone(backend: Backend, kind: TransportKind) throws {
        let disk = try Disk(backend)
        try hostile {
            try disk.machine(kind)
        } _: { machine in
            machine.start(Self.everything, size: 4)
            // The queue has four descriptors: were they kept, there would soon be none.
            for round in 0..<64 {
                try expect(nil, machine, [BlockRig.header(UInt32(round % 16))], [])
                try expect(nil, machine, [[1, 2, 3]], [])
                try expect(0, machine, [BlockRig.header(0)], [512, 1])
            }
        }
    }

    @Test("HG-22: an image's header is written into a raw disk", arguments: TransportKind.allCases)
    func headerInARawDisk(kind: TransportKind) throws {
        let layer = try newQCOW2Image(
            QCOW2Parameters(size: 1 << 20, clusterBits: 9, backingName: "/etc/passwd", backingFormat: "raw"))
        let header = Array((layer + [UInt8](repeating: 0, count: 4096)).prefix(4096))
        let disk = try Disk(.threads)
        try hostile {
            try disk.machine(kind)
        } _: { machine in
            machine.start(Self.everything)
            try expect(0, machine, [BlockRig.header(1, 0), header])
            try expect(0, machine, [BlockRig.header(4)])
        }
        // After a reboot it is as raw as it was before: it is whoever opens it that says so.
        let image = try RawImage(path: disk.path)
        #expect(image.capacity == UInt64(Self.capacity))
        #expect(try difference(of: image.bytes(at: 0, count: 4096), from: header) == nil)
    }

    @Test("HG-23: files of the host's that an image names", arguments: TransportKind.allCases)
    func namedFiles(kind: TransportKind) throws {
        let directory = ScratchDirectory()
        let secret = directory.file("secret", size: 4096)
        var layer = try newQCOW2Image(
            QCOW2Parameters(size: 64 << 10, clusterBits: 9, backingName: secret, backingFormat: "raw"))
        #expect(throws: QCOW2Error.self) {
            _ = try QCOW2Image(file: MemoryImageFile(layer), name: "layer", readOnly: false)
        }
        // Opened as whoever trusts it may, it shows nothing of the file all the same.
        let bytes = layer
        try hostile({
            try HostileMachine(kind) { events in
                let image = try QCOW2Image(file: MemoryImageFile(bytes), name: "layer", readOnly: false, backing: .absent)
                return VirtioFuzzer.Subject(BlockDevice(image: image, events: events, clock: events.clock))
            }
        }) { machine in
            machine.start(Self.everything)
            _ = try #require(try machine.queues[0].add(readable: [BlockRig.header(0)], writable: [4096, 1]))
            machine.transport.notify(queue: 0)
            for _ in 0..<3000 {
                machine.turn()
                if let done = try machine.queues[0].completions().first {
                    return #expect(difference(of: done.bytes, from: [UInt8](repeating: 0, count: 4097)) == nil)
                }
                usleep(500)
            }
            throw HostileFailure.noAnswer
        }
        // An external data file: bit 2 of the incompatible features.
        layer[79] |= 4
        #expect(throws: QCOW2Error.self) {
            _ = try QCOW2Image(file: MemoryImageFile(layer), name: "layer", readOnly: false, backing: .absent)
        }
    }

    /// Offsets in the header, and what is put there. Source: [QCOW2 §Header].
    static let fields: [(name: String, offset: Int, bytes: Int)] = [
        ("backing file's offset", 8, 8), ("backing file's size", 16, 4), ("cluster bits", 20, 4), ("size", 24, 8),
        ("L1 size", 36, 4),
        ("L1 offset", 40, 8), ("refcount table's offset", 48, 8), ("refcount table's clusters", 56, 4),
        ("snapshots", 60, 4),
        ("snapshots' offset", 64, 8), ("refcount order", 96, 4), ("header length", 100, 4),
    ]

    @Test("HG-24: tables of any size, at any place", arguments: TransportKind.allCases) func crazyTables(
        kind: TransportKind
    ) throws {
        let sound = try newQCOW2Image(QCOW2Parameters(size: 64 << 10, clusterBits: 9))
        let values: [UInt64] = [
            0, 1, 0x1FF, 0x200, 0x400, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 55, 1 << 62, .max - 511, .max,
        ]
        var opened = 0
        let before = HostileMachine.residentBytes
        for field in Self.fields {
            for value in values {
                var bytes = sound
                for index in 0..<field.bytes {
                    bytes[field.offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * (field.bytes - 1 - index)))
                }
                guard
                    let image = try? QCOW2Image(
                        file: MemoryImageFile(bytes, limit: 4 << 20), name: "crazy", readOnly: false, backing: .absent)
                else { continue }
                opened += 1
                let machine = try HostileMachine(kind) { events in
                    VirtioFuzzer.Subject(BlockDevice(image: image, events: events, clock: events.clock))
                }
                machine.start(Self.everything)
                for sector in [0, 1, 127, image.capacity / 512 &- 1] as [UInt64] {
                    for type in [0, 1, 0] as [UInt32] {
                        let isRead = type == 0
                        let data = [UInt8](repeating: 9, count: 512)
                        _ = try send(
                            machine, [BlockRig.header(type, sector)] + (isRead ? [] : [data]), isRead ? [512, 1] : [1])
                    }
                }
                try machine.expectWorks()
            }
        }
        #expect(opened > 0)
        // All of them together; other tests may be at work, too.
        #expect(HostileMachine.residentBytes - before < 256 << 20)
    }

    /// What a driver has set before it gave up is not the next one's.
    @Test(arguments: TransportKind.allCases) func choicesEndWithTheirDriver(kind: TransportKind) throws {
        let disk = try Disk(.threads)
        let machine = try disk.machine(kind)
        machine.transport.writeStatus([.acknowledge, .driver])
        machine.transport.writeConfiguration(offset: BlockConfiguration.writebackOffset, width: .byte, value: 0)
        #expect(machine.transport.readConfiguration(offset: BlockConfiguration.writebackOffset, width: .byte) == 0)
        machine.start(Self.everything)
        #expect(machine.transport.readConfiguration(offset: BlockConfiguration.writebackOffset, width: .byte) == 1)
        try machine.expectWorks()
    }

    @Test("HG-25: SCSI commands", arguments: places) func scsi(backend: Backend, kind: TransportKind) throws {
        let disk = try Disk(backend)
        try hostile {
            try disk.machine(kind)
        } _: { machine in
            // VIRTIO_BLK_F_SCSI is not there.
            #expect(!machine.device.features.contains(FeatureSet(bit: 7)))
            machine.start(Self.everything)
            for type in [2, 3] as [UInt32] {
                let command = [UInt8](repeating: 0x12, count: 4096)
                try expect(2, machine, [BlockRig.header(type), command], [96, 512, 16, 1])
            }
        }
    }
}

enum HostileFailure: Error { case noAnswer }
