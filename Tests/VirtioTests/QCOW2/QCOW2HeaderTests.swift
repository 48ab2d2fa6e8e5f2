import Foundation
import MonitorTesting
import Testing

@testable import Virtio

/// What is refused when an image is opened, and in which words.
@Suite struct QCOW2HeaderTests {
    private static func image(
        _ parameters: QCOW2Parameters = QCOW2Parameters(size: 1 << 20), _ change: (inout [UInt8]) -> Void = { _ in }
    ) throws -> MemoryImageFile {
        var bytes = try newQCOW2Image(parameters)
        change(&bytes)
        return MemoryImageFile(bytes)
    }

    private static func set(_ value: UInt64, _ width: Int, at offset: Int, _ bytes: inout [UInt8]) {
        for index in 0..<width { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * (width - 1 - index))) }
    }

    /// What opening says; nil where it opens.
    private static func refusal(
        _ file: MemoryImageFile, readOnly: Bool = false, backing: QCOW2Backing = .unspecified
    ) -> String? {
        do {
            _ = try QCOW2Image(file: file, name: "disk.qcow2", readOnly: readOnly, backing: backing)
            return nil
        } catch { return "\(error)" }
    }

    struct Case: CustomTestStringConvertible, Sendable {
        var name: String
        var offset: Int
        var width: Int
        var value: UInt64
        var says: String
        /// What it says where the image is only read; nil where it then opens.
        var saysReading: String?
        var testDescription: String { name }

        init(_ name: String, _ offset: Int, _ width: Int, _ value: UInt64, _ says: String, reading: Bool = true) {
            (self.name, self.offset, self.width, self.value, self.says) = (name, offset, width, value, says)
            saysReading = reading ? says : nil
        }
    }

    static let cases: [Case] = [
        Case("magic", 0, 4, 0x5146_49FA, "not a qcow2 image"),
        Case("version", 4, 4, 4, "version 4"),
        Case("small clusters", 20, 4, 8, "cluster size"),
        Case("large clusters", 20, 4, 22, "cluster size"),
        Case("huge clusters", 20, 4, 0xFFFF_FFFF, "cluster size"),
        Case("size", 24, 8, 1 << 20 | 1, "no number of sectors"),
        Case("enormous size", 24, 8, .max - 511, "no number of sectors"),
        Case("size beyond its L1 table", 24, 8, 1 << 40, "too short"),
        Case("encryption", 32, 4, 2, "encryption is not supported"),
        Case("L1 table too large", 36, 4, 0xFFFF_FFFF, "larger than 32 MiB"),
        Case("L1 table too short", 36, 4, 0, "too short"),
        Case("L1 table not aligned", 40, 8, 0x30008, "not at a cluster boundary"),
        Case("L1 table over the header", 40, 8, 0, "overlaps its header"),
        Case("L1 table behind the file", 40, 8, 1 << 40, "not within the file"),
        Case("L1 table at the end of numbers", 40, 8, 0xFFFF_FFFF_FFFF_0000, "not within the file"),
        Case("refcount table not aligned", 48, 8, 0x10200, "not at a cluster boundary", reading: false),
        Case("refcount table over the L1 table", 48, 8, 0x30000, "overlap", reading: false),
        Case("refcount table behind the file", 48, 8, 1 << 50, "not within the file", reading: false),
        Case("no refcount table", 56, 4, 0, "empty or larger", reading: false),
        Case("refcount table too large", 56, 4, 0xFFFF_FFFF, "empty or larger", reading: false),
        Case("dirty", 72, 8, 1, "qemu-img check -r all", reading: false),
        Case("corrupt", 72, 8, 2, "qemu-img check -r all", reading: false),
        Case("external data file", 72, 8, 4, "external data file"),
        Case("compression type", 72, 8, 8, "does not agree"),
        Case("extended L2 entries", 72, 8, 16, "subclusters"),
        Case("unknown features", 72, 8, 0x8000_0100_0000_0000, "bit 40, bit 63"),
        Case("refcount width", 96, 4, 7, "more than 64"),
        Case("header length", 100, 4, 96, "96 bytes long"),
        Case("header length, odd", 100, 4, 108, "108 bytes long"),
        Case("header length, huge", 100, 4, 0xFFFF_FFF8, "bytes long"),
        Case("refcount block not aligned", 0x10000, 8, 0x20200, "not at a cluster boundary", reading: false),
        Case("refcount block behind the file", 0x10000, 8, 1 << 60, "not within the file", reading: false),
        Case("refcount block over the header", 0x10008, 8, 0x20000, "used twice", reading: false),
        Case("refcount block over its table", 0x10008, 8, 0x10000, "used twice", reading: false),
        Case("L2 table over the refcount block", 0x30000, 8, 0x8000_0000_0002_0000, "used twice", reading: false),
        Case("L2 table over the L1 table", 0x30000, 8, 0x8000_0000_0003_0000, "used twice", reading: false),
        Case("L2 table behind the file", 0x30000, 8, 0x8004_0000_0000_0000, "not within the file", reading: false),
    ]

    @Test(arguments: cases) func isRefused(_ fault: Case) throws {
        let file = try Self.image { Self.set(fault.value, fault.width, at: fault.offset, &$0) }
        let said = try #require(Self.refusal(file))
        #expect(said.contains(fault.says) && said.contains("disk.qcow2"), "\(said)")
        let reading = Self.refusal(file, readOnly: true)
        if let expected = fault.saysReading {
            #expect(reading?.contains(expected) == true, "\(reading ?? "opened")")
        } else {
            #expect(reading == nil)
        }
    }

    @Test func cutOffFilesAreRefused() throws {
        let bytes = try newQCOW2Image(QCOW2Parameters(size: 1 << 20, clusterBits: 9))
        for count in stride(from: 0, to: 1536 + 8, by: 61) {
            #expect(Self.refusal(MemoryImageFile(Array(bytes[..<count]))) != nil, "\(count) bytes")
        }
        #expect(Self.refusal(MemoryImageFile(bytes)) == nil)
    }

    @Test func unknownFeaturesAreCalledByTheirNames() throws {
        let file = try Self.image { bytes in
            Self.set(1 << 7, 8, at: 72, &bytes)
            Self.set(0x6803_F857, 4, at: 104, &bytes)
            Self.set(48, 4, at: 108, &bytes)
            Self.set(7, 2, at: 112, &bytes)
            for (index, byte) in "fancy \u{1B}[2J".utf8.enumerated() { bytes[114 + index] = byte }
        }
        let said = try #require(Self.refusal(file))
        #expect(said.contains("\"fancy ?[2J\" (bit 7)"), "\(said)")
    }

    @Test func backingFilesAreNotFollowed() throws {
        let parameters = QCOW2Parameters(size: 1 << 20, backingName: "/etc/shadow\u{7}", backingFormat: "raw")
        let file = try Self.image(parameters)
        let said = try #require(Self.refusal(file))
        for part in ["the raw image \"/etc/shadow?\"", "backing=FILE", "backing=none"] { #expect(said.contains(part)) }
        #expect(Self.refusal(file, readOnly: true) == said)
        let absent = try QCOW2Image(file: file, name: "disk.qcow2", readOnly: true, backing: .absent)
        #expect(try absent.bytes(at: 0, count: 4096).allSatisfy { $0 == 0 })
        let disk = MemoryDisk(Array(repeating: 9, count: 1024))
        let layer = try QCOW2Image(file: file, name: "disk.qcow2", readOnly: true, backing: .image(disk))
        #expect(try difference(of: layer.bytes(at: 512, count: 1024), from: Array(repeating: 9, count: 512) + Array(repeating: 0, count: 512)) == nil)
        let plain = try #require(Self.refusal(try Self.image(), backing: .image(disk)))
        #expect(plain.contains("has no backing file"))
    }

    @Test func namesOutsideTheFirstClusterAreRefused() throws {
        for (offset, length) in [(1 << 16, 10), (65530, 10), (Int.max, 10), (200, 1024), (200, 0xFFFF_FFFF)] {
            let file = try Self.image { bytes in
                Self.set(UInt64(offset), 8, at: 8, &bytes)
                Self.set(UInt64(length), 4, at: 16, &bytes)
            }
            #expect(Self.refusal(file, backing: .absent)?.contains("name") == true)
        }
    }

    @Test func autoclearBitsAreClearedBeforeTheFirstChange() throws {
        let file = try Self.image { Self.set(.max, 8, at: 88, &$0) }
        let image = try QCOW2Image(file: file, name: "disk.qcow2", readOnly: false)
        _ = try image.bytes(at: 0, count: 512)
        #expect(file.bytes.bigEndian64(88) == .max)
        file.startLog()
        try image.put([1], at: 0)
        #expect(file.bytes.bigEndian64(88) == 0)
        guard case .write(offset: 88, _) = file.log[0], case .sync = file.log[1] else {
            Issue.record("\(file.log.prefix(2))")
            return
        }
    }

    /// No cluster; not aligned; behind the file; the refcount table; the L1 table; compressed, behind the file; all ones.
    static let badEntries: [UInt64] = [
        0x8000_0000_0000_0000, 0x8000_0000_0005_0200, 0x8004_0000_0000_0000, 0x8000_0000_0001_0000, 0x8000_0000_0003_0000,
        0x4004_0000_0000_0000, 0xFFFF_FFFF_FFFF_FFFF,
    ]

    /// Entries of an L2 table that cannot be: what they are for fails, everything else goes on.
    @Test(arguments: badEntries) func badEntry(entry: UInt64) throws {
        let file = try Self.image()
        do {
            let image = try QCOW2Image(file: file, name: "disk.qcow2", readOnly: false)
            try image.put([1], at: 0)
            try image.put([2], at: 1 << 16)
        }
        var bytes = file.bytes
        let table = Int(bytes.bigEndian64(0x30000) & 0xFFFF_FFFF)
        Self.set(entry, 8, at: table + 8, &bytes)
        let image = try QCOW2Image(file: MemoryImageFile(bytes), name: "disk.qcow2", readOnly: false)
        for _ in 0..<2 {
            #expect(throws: BlockError.self) { try image.put([3], at: 1 << 16) }
            #expect(throws: BlockError.self) { try image.discard(at: 1 << 16, count: 1 << 16) }
        }
        #expect(try image.bytes(at: 0, count: 1) == [1])
        try image.put([4], at: 2 << 16)
        try image.flush()
        #expect(try image.bytes(at: 2 << 16, count: 1) == [4])
    }

    @Test func compressedClustersNeedAnInflater() throws {
        let file = try Self.image()
        do {
            let image = try QCOW2Image(file: file, name: "disk.qcow2", readOnly: false)
            try image.put([1], at: 0)
        }
        var bytes = file.bytes
        let table = Int(bytes.bigEndian64(0x30000) & 0xFFFF_FFFF)
        Self.set(bytes.bigEndian64(table) & 0xFFFF_FFFF | 1 << 62, 8, at: table, &bytes)
        let image = try QCOW2Image(file: MemoryImageFile(bytes), name: "disk.qcow2", readOnly: true)
        #expect(throws: BlockError.corrupt("the image has compressed clusters, and nothing to unpack them with was given")) {
            try image.bytes(at: 0, count: 1)
        }
    }

    @Test func creationRefusesNonsense() {
        for parameters in [
            QCOW2Parameters(size: 1, clusterBits: 8), QCOW2Parameters(size: 1, clusterBits: 22), QCOW2Parameters(size: .max),
            QCOW2Parameters(size: 1, version: 4), QCOW2Parameters(size: 1, version: 2, refcountOrder: 5),
            QCOW2Parameters(size: 1, refcountOrder: -1), QCOW2Parameters(size: 1 << 40, clusterBits: 9),
            QCOW2Parameters(size: 1, backingName: String(repeating: "x", count: 1024)),
            QCOW2Parameters(size: 1, clusterBits: 9, backingName: String(repeating: "x", count: 500)),
        ] {
            #expect(throws: QCOW2Error.self) { try NewImage(parameters) }
        }
        #expect(throws: Never.self) { try NewImage(QCOW2Parameters(size: 1 << 37, clusterBits: 9, refcountOrder: 6)) }
    }

    @Test func filesAreLocked() throws {
        let directory = try ImageDirectory()
        let path = directory.path("disk.qcow2")
        try QCOW2Image.create(path: path, QCOW2Parameters(size: 1 << 20))
        #expect(throws: QCOW2Error.self) { try QCOW2Image.create(path: path, QCOW2Parameters(size: 1 << 20)) }
        do {
            let writer = try QCOW2Image.open(path: path)
            #expect(throws: QCOW2Error.inUse(path: path)) { _ = try QCOW2Image.open(path: path) }
            #expect(throws: QCOW2Error.inUse(path: path)) { _ = try QCOW2Image.open(path: path, readOnly: true) }
            withExtendedLifetime(writer) {}
        }
        let readers = try [QCOW2Image.open(path: path, readOnly: true), QCOW2Image.open(path: path, readOnly: true)]
        #expect(throws: QCOW2Error.inUse(path: path)) { _ = try QCOW2Image.open(path: path) }
        withExtendedLifetime(readers) {}
        #expect(throws: QCOW2Error.self) { _ = try QCOW2Image.open(path: directory.path("nothing")) }
        #expect(throws: QCOW2Error.self) { _ = try QCOW2Image.open(path: directory.path(""), readOnly: true) }
    }
}

/// A directory that goes with its object.
final class ImageDirectory: Sendable {
    private let url: URL
    init() throws {
        url = URL(fileURLWithPath: NSTemporaryDirectory()).appendingPathComponent("qcow2-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }
    deinit { try? FileManager.default.removeItem(at: url) }
    func path(_ name: String) -> String { name.isEmpty ? url.path : url.appendingPathComponent(name).path }
}
