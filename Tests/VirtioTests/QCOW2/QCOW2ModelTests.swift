import Testing
import MonitorTesting

@testable import Virtio

/// One kind of image.
struct ImageKind: CustomTestStringConvertible, Sendable {
    var clusterBits = 16
    var version = 3
    var refcountOrder = 4
    var hasBacking = false
    var testDescription: String { "2^\(clusterBits) v\(version) 2^\(refcountOrder) bits\(hasBacking ? " layer" : "")" }

    func parameters(_ size: Int) -> QCOW2Parameters {
        QCOW2Parameters(
            size: UInt64(size), clusterBits: clusterBits, version: version, refcountOrder: refcountOrder,
            backingName: hasBacking ? "below" : nil)
    }
}

/// Random changes to an image, and what is to be read afterwards.
struct DiskModel {
    var random: SeededRandom
    var content: [UInt8]
    let size: Int

    init(seed: UInt64, size: Int, below: [UInt8]) {
        random = SeededRandom(seed: seed)
        self.size = size
        content = below + Array(repeating: 0, count: size - below.count)
    }

    /// Makes one change, of at most `most` bytes.
    mutating func change(_ image: QCOW2Image, most: Int) throws {
        let sectors = 1 + random.below(random.oneIn(3) ? most / 512 : 4)
        let start = random.below(size / 512) * 512
        let count = min(sectors * 512, size - start)
        let range = start..<start + count
        switch random.below(10) {
        case 0:
            try image.discard(at: UInt64(start), count: UInt64(count))
            let now = try image.bytes(at: start, count: count)
            for index in 0..<count where now[index] != 0 && now[index] != content[start + index] {
                Issue.record("byte \(start + index) is \(now[index]) after a discard")
            }
            content.replaceSubrange(range, with: now)
        case 1, 2:
            try image.writeZeroes(at: UInt64(start), count: UInt64(count), mayUnmap: random.oneIn(2))
            content.replaceSubrange(range, with: repeatElement(0, count: count))
        case 3: try image.flush()
        case 4:
            let now = try image.bytes(at: start, count: count)
            #expect(difference(of: now, from: Array(content[range])) == nil, "at \(start)")
        default:
            let byte = UInt8(truncatingIfNeeded: random.next())
            let bytes = Array(repeating: byte, count: count)
            try image.put(bytes, at: start)
            content.replaceSubrange(range, with: bytes)
        }
    }
}

@Suite struct QCOW2ModelTests {
    static let kinds = [
        ImageKind(clusterBits: 9), ImageKind(clusterBits: 9, version: 2), ImageKind(clusterBits: 9, refcountOrder: 6),
        ImageKind(clusterBits: 9, refcountOrder: 0, hasBacking: true), ImageKind(clusterBits: 10, refcountOrder: 1),
        ImageKind(clusterBits: 12, refcountOrder: 2, hasBacking: true), ImageKind(clusterBits: 12, refcountOrder: 3),
        ImageKind(clusterBits: 9, version: 2, hasBacking: true), ImageKind(clusterBits: 13, refcountOrder: 5),
        ImageKind(), ImageKind(hasBacking: true), ImageKind(clusterBits: 21),
    ]

    @Test(arguments: kinds) func randomChanges(kind: ImageKind) throws {
        // A size that ends within a cluster, over an image that is shorter.
        let size = 300 << 10 | 512
        let below = kind.hasBacking ? (0..<200 << 10).map { UInt8(truncatingIfNeeded: $0 / 512 | 1) } : []
        var model = DiskModel(seed: UInt64(kind.clusterBits * 100 + kind.refcountOrder), size: size, below: below)
        let backing: QCOW2Backing = kind.hasBacking ? .image(MemoryDisk(below)) : .unspecified
        let file = MemoryImageFile(try newQCOW2Image(kind.parameters(size)))
        for round in 0..<4 {
            do {
                // A cache of four slices: most of the tables have to make way.
                let image = try QCOW2Image(
                    file: file, name: "test", readOnly: false, backing: backing, cacheLimit: round % 2 == 0 ? 0 : 1 << 20)
                for _ in 0..<60 { try model.change(image, most: 24 << 10) }
                #expect(try difference(of: image.bytes(at: 0, count: size), from: model.content) == nil, "round \(round)")
            }
            let check = QCOW2Checker.check(file.bytes)
            #expect(check.errors.prefix(5) == [], "round \(round)")
            #expect(check.leaks == 0)
            let again = try QCOW2Image(file: file, name: "test", readOnly: true, backing: backing)
            #expect(try difference(of: again.bytes(at: 0, count: size), from: model.content) == nil, "round \(round), read again")
        }
    }

    /// 64-bit counts in clusters of 512 bytes: the refcount table has to move before the disk is full.
    @Test func refcountTableGrows() throws {
        let size = 3 << 20
        let file = MemoryImageFile(try newQCOW2Image(QCOW2Parameters(size: UInt64(size), clusterBits: 9, refcountOrder: 6)))
        let before = file.bytes.bigEndian64(48)
        do {
            let image = try QCOW2Image(file: file, name: "test", readOnly: false)
            for start in stride(from: 0, to: size, by: 64 << 10) {
                try image.put(Array(repeating: UInt8(start >> 16) | 0x80, count: 64 << 10), at: start)
            }
            for start in stride(from: 0, to: size, by: 64 << 10) {
                #expect(try image.bytes(at: start + 777, count: 1) == [UInt8(start >> 16) | 0x80])
            }
        }
        #expect(file.bytes.bigEndian64(48) != before)
        let check = QCOW2Checker.check(file.bytes)
        #expect(check.errors.prefix(5) == [])
        #expect(check.leaks == 0)
    }

    @Test func discardedSpaceIsUsedAgain() throws {
        let file = MemoryImageFile(try newQCOW2Image(QCOW2Parameters(size: 1 << 20, clusterBits: 12)))
        let image = try QCOW2Image(file: file, name: "test", readOnly: false)
        for round in 0..<20 {
            try image.put(Array(repeating: UInt8(round + 1), count: 1 << 20), at: 0)
            #expect(try image.bytes(at: 4096, count: 1) == [UInt8(round + 1)])
            try image.discard(at: 0, count: 1 << 20)
            try image.flush()
            #expect(try image.bytes(at: 4096, count: 1) == [0])
        }
        #expect(file.bytes.count < 2 << 20)
        #expect(file.bytes.filter { $0 != 0 }.count < 4096, "the space is given back")
    }

    @Test func rangesAreChecked() throws {
        let image = try QCOW2Image(
            file: MemoryImageFile(try newQCOW2Image(QCOW2Parameters(size: 64 << 10))), name: "test", readOnly: false)
        #expect(image.capacity == 64 << 10)
        for (offset, count) in [(64 << 10, 512), (64 << 10 - 512, 1024), (Int.max - 511, 512)] {
            #expect(throws: BlockError.self) { try image.bytes(at: offset, count: count) }
            #expect(throws: BlockError.self) { try image.put(Array(repeating: 1, count: count), at: offset) }
            #expect(throws: BlockError.self) { try image.discard(at: UInt64(offset), count: UInt64(count)) }
            #expect(throws: BlockError.self) { try image.writeZeroes(at: UInt64(offset), count: UInt64(count), mayUnmap: true) }
        }
        #expect(throws: BlockError.self) { try image.discard(at: 512, count: .max) }
        #expect(throws: BlockError.self) { try image.writeZeroes(at: .max, count: 512, mayUnmap: true) }
    }

    @Test func readOnlyImagesAreNotWritten() throws {
        let file = MemoryImageFile(try newQCOW2Image(QCOW2Parameters(size: 64 << 10)))
        file.startLog()
        let image = try QCOW2Image(file: file, name: "test", readOnly: true)
        #expect(throws: BlockError.readOnly) { try image.put([1], at: 0) }
        #expect(throws: BlockError.readOnly) { try image.discard(at: 0, count: 512) }
        #expect(throws: BlockError.readOnly) { try image.writeZeroes(at: 0, count: 512, mayUnmap: true) }
        try image.flush()
        #expect(file.logCount == 0)
    }
}
