internal import Glibc

/// What a new image is to be.
public struct QCOW2Parameters: Hashable, Sendable {
    /// Bytes of the disk; rounded up to sectors of 512.
    public var size: UInt64
    /// 9...21: the cluster size as a power of two.
    public var clusterBits: Int
    /// 2 or 3.
    public var version: Int
    /// 0...6: the width of the reference counts as a power of two. Version 2 has 4.
    public var refcountOrder: Int
    /// The image that the new one is to be a layer over, as other programs are to find it, and its format. It is not looked at.
    public var backingName: String?
    public var backingFormat: String?

    public init(
        size: UInt64, clusterBits: Int = 16, version: Int = 3, refcountOrder: Int = 4, backingName: String? = nil,
        backingFormat: String? = nil
    ) {
        self.size = size
        self.clusterBits = clusterBits
        self.version = version
        self.refcountOrder = refcountOrder
        self.backingName = backingName
        self.backingFormat = backingFormat
    }
}

extension QCOW2Image {
    /// Makes an empty image, durable when this returns; a file that was there stays as it was, and is an error.
    public static func create(path: String, _ parameters: QCOW2Parameters) throws(QCOW2Error) {
        let plan = try NewImage(parameters)
        let file = try HostImageFile(path: path, readOnly: false, creating: true)
        do throws(BlockError) {
            try plan.write(to: file)
        } catch {
            unsafe _ = unlink(path)
            guard case .host(let code) = error else { throw .badParameter("\(error)") }
            throw .host(path: path, doing: "write", errno: code)
        }
    }
}

/// A new image's layout: header, refcount table, refcount blocks, L1 table, each behind the other.
struct NewImage {
    private var header = QCOW2Header()
    private let tail: [UInt8]
    private let tableClusters: UInt64
    private let blocks: UInt64
    private let l1Clusters: UInt64

    init(_ parameters: QCOW2Parameters) throws(QCOW2Error) {
        guard (9...21).contains(parameters.clusterBits) else {
            throw .badParameter("a cluster of 2^\(parameters.clusterBits) bytes: give 9...21")
        }
        guard parameters.version == 3 && (0...6).contains(parameters.refcountOrder)
            || parameters.version == 2 && parameters.refcountOrder == 4
        else {
            throw .badParameter(
                "version \(parameters.version) with counts of 2^\(parameters.refcountOrder) bits: give version 3 with 0...6, "
                    + "or version 2 with 4")
        }
        guard parameters.size <= UInt64(Int64.max) - 511 else { throw .badParameter("a disk of \(parameters.size) bytes") }
        header.version = UInt32(parameters.version)
        header.length = UInt32(parameters.version == 2 ? QCOW2Header.lengths.version2 : QCOW2Header.lengths.version3)
        header.clusterBits = UInt32(parameters.clusterBits)
        header.refcountOrder = UInt32(parameters.refcountOrder)
        header.size = (parameters.size + 511) / 512 * 512
        let layout = header.layout
        let entries = layout.l1Entries(header.size)
        guard entries * 8 <= QCOW2Header.largestL1 else {
            throw .badParameter(
                "a disk of \(parameters.size) bytes in clusters of \(layout.clusterSize) bytes: give larger clusters")
        }
        // A table without entries would have no place.
        header.l1Count = UInt32(max(1, entries))
        l1Clusters = layout.clusters(UInt64(header.l1Count) * 8)
        var (table, blocks): (UInt64, UInt64) = (1, 1)
        while true {
            let total = 1 + table + blocks + l1Clusters
            let (needed, tableNeeded) = ((total - 1) >> layout.blockBits + 1, layout.clusters(blocks * 8))
            if blocks >= needed, table >= tableNeeded { break }
            blocks = max(blocks, needed)
            table = max(table, tableNeeded)
        }
        tableClusters = table
        self.blocks = blocks
        header.refcountTableOffset = layout.clusterSize
        header.refcountTableClusters = UInt32(table)
        header.l1Offset = (1 + table + blocks) << layout.clusterBits
        tail = try Self.extensions(&header, parameters)
    }

    /// What follows the header. Source: [QCOW2 §Header extensions].
    private static func extensions(_ header: inout QCOW2Header, _ parameters: QCOW2Parameters) throws(QCOW2Error) -> [UInt8] {
        var bytes: [UInt8] = []
        guard let name = parameters.backingName else {
            bytes.appendBigEndian(UInt64(0))
            return bytes
        }
        if let format = parameters.backingFormat {
            let text = Array(format.utf8)
            bytes.appendBigEndian(HeaderExtensions.Kind.backingFormat)
            bytes.appendBigEndian(UInt32(clamping: text.count))
            bytes += text + Array(repeating: 0, count: (8 - text.count % 8) % 8)
        }
        bytes.appendBigEndian(UInt64(0))
        header.backingNameOffset = UInt64(header.length) + UInt64(bytes.count)
        header.backingNameLength = UInt32(clamping: name.utf8.count)
        bytes += Array(name.utf8)
        guard !name.isEmpty, name.utf8.count <= QCOW2Header.longestName,
            bytes.count + Int(header.length) <= 1 << parameters.clusterBits
        else {
            throw .badParameter("a backing file's name of \(name.utf8.count) bytes: give a shorter one, or larger clusters")
        }
        return bytes
    }

    /// Into an empty file. The header comes last: until then it is no image.
    func write(to file: any ImageFile) throws(BlockError) {
        let layout = header.layout
        let used = 1 + tableClusters + blocks + l1Clusters
        try file.truncate(to: used << layout.clusterBits)
        var table: [UInt8] = []
        for block in 0..<blocks { table.appendBigEndian((1 + tableClusters + block) << layout.clusterBits) }
        try Self.put(table, at: header.refcountTableOffset, file)
        for block in 0..<blocks {
            let covered = min(used - block << layout.blockBits, 1 << layout.blockBits)
            try Self.put(counts(covered), at: (1 + tableClusters + block) << layout.clusterBits, file)
        }
        try file.sync()
        try Self.put(header.encoded + tail, at: 0, file)
        try file.sync()
    }

    /// A refcount block's first counts, all of them 1.
    private func counts(_ count: UInt64) -> [UInt8] {
        let bits = UInt64(1) << UInt64(header.refcountOrder)
        guard bits >= 8 else {
            var bytes = Array(repeating: UInt8(0), count: Int((count * bits + 7) / 8))
            for index in 0..<count { bytes[Int(index * bits / 8)] |= 1 << UInt8(index * bits % 8) }
            return bytes
        }
        let one = Array(repeating: UInt8(0), count: Int(bits / 8) - 1) + [1]
        return (0..<count).flatMap { _ in one }
    }

    private static func put(_ bytes: [UInt8], at offset: UInt64, _ file: any ImageFile) throws(BlockError) {
        try file.write(at: offset, from: bytes)
    }
}
