/// The first bytes of a qcow2 image, checked against the format and against what is supported here.
///
/// Not supported: encryption, external data files, extended L2 entries (subclusters), compression other than zlib's.
///
/// Source: [QCOW2 §Header].
struct QCOW2Header: Hashable, Sendable {
    static let magic: UInt32 = 0x5146_49FB
    /// Bytes of version 2's header, and the fewest of version 3's.
    static let lengths: (version2: Int, version3: Int) = (72, 104)
    static let clusterBits: ClosedRange<UInt32> = 9...21
    /// The most that is kept in memory of an image's first-level tables.
    static let largestL1: UInt64 = 32 << 20
    static let largestRefcountTable: UInt64 = 8 << 20
    static let longestName = 1023

    /// Offsets of the fields that are written again. Source: [QCOW2 §Header].
    enum Field {
        static let refcountTable: UInt64 = 48
        static let autoclear: UInt64 = 88
    }

    struct Incompatible: OptionSet, Hashable, Sendable {
        let rawValue: UInt64
        static let dirty = Self(rawValue: 1 << 0), corrupt = Self(rawValue: 1 << 1)
        static let externalData = Self(rawValue: 1 << 2), compressionType = Self(rawValue: 1 << 3)
        static let extendedL2 = Self(rawValue: 1 << 4)
        static let known: Self = [.dirty, .corrupt, .externalData, .compressionType, .extendedL2]
    }

    var version: UInt32 = 3
    var backingNameOffset: UInt64 = 0
    var backingNameLength: UInt32 = 0
    var clusterBits: UInt32 = 16
    /// Bytes of the disk.
    var size: UInt64 = 0
    var encryption: UInt32 = 0
    var l1Count: UInt32 = 0
    var l1Offset: UInt64 = 0
    var refcountTableOffset: UInt64 = 0
    var refcountTableClusters: UInt32 = 0
    var snapshotCount: UInt32 = 0
    var snapshotOffset: UInt64 = 0
    var incompatible: Incompatible = []
    var compatible: UInt64 = 0
    var autoclear: UInt64 = 0
    var refcountOrder: UInt32 = 4
    var length: UInt32 = 104
    var compressionType: UInt8 = 0

    var layout: QCOW2Layout {
        QCOW2Layout(clusterBits: UInt64(clusterBits), refcountOrder: UInt64(refcountOrder), hasZeroFlag: version >= 3)
    }

    init() {}

    /// Takes the fields apart. `bytes` are the file's first; what the file has not reads as zero.
    init?(_ bytes: [UInt8]) {
        guard bytes.count >= Self.lengths.version2, bytes.bigEndian32(0) == Self.magic else { return nil }
        version = bytes.bigEndian32(4)
        backingNameOffset = bytes.bigEndian64(8)
        backingNameLength = bytes.bigEndian32(16)
        clusterBits = bytes.bigEndian32(20)
        size = bytes.bigEndian64(24)
        encryption = bytes.bigEndian32(32)
        l1Count = bytes.bigEndian32(36)
        l1Offset = bytes.bigEndian64(40)
        refcountTableOffset = bytes.bigEndian64(48)
        refcountTableClusters = bytes.bigEndian32(56)
        snapshotCount = bytes.bigEndian32(60)
        snapshotOffset = bytes.bigEndian64(64)
        guard version >= 3 else {
            length = UInt32(Self.lengths.version2)
            return
        }
        incompatible = Incompatible(rawValue: bytes.bigEndian64(72))
        compatible = bytes.bigEndian64(80)
        autoclear = bytes.bigEndian64(88)
        refcountOrder = bytes.bigEndian32(96)
        length = bytes.bigEndian32(100)
        if length > 104 { compressionType = UInt8(truncatingIfNeeded: bytes.bigEndian32(104) &>> 24) }
    }

    var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendBigEndian(Self.magic)
        bytes.appendBigEndian(version)
        bytes.appendBigEndian(backingNameOffset)
        bytes.appendBigEndian(backingNameLength)
        bytes.appendBigEndian(clusterBits)
        bytes.appendBigEndian(size)
        bytes.appendBigEndian(encryption)
        bytes.appendBigEndian(l1Count)
        bytes.appendBigEndian(l1Offset)
        bytes.appendBigEndian(refcountTableOffset)
        bytes.appendBigEndian(refcountTableClusters)
        bytes.appendBigEndian(snapshotCount)
        bytes.appendBigEndian(snapshotOffset)
        guard version >= 3 else { return bytes }
        bytes.appendBigEndian(incompatible.rawValue)
        bytes.appendBigEndian(compatible)
        bytes.appendBigEndian(autoclear)
        bytes.appendBigEndian(refcountOrder)
        bytes.appendBigEndian(length)
        return bytes
    }

    // MARK: Checks

    /// Refuses what is not supported and what cannot be.
    /// - Parameters:
    ///   - fileSize: bytes of the file.
    ///   - featureName: a name the image itself gives to an incompatible feature, by its bit.
    func check(path: String, fileSize: UInt64, readOnly: Bool, featureName: (Int) -> String?) throws(QCOW2Error) {
        try checkFeatures(path: path, readOnly: readOnly, featureName: featureName)
        let layout = layout
        guard size % 512 == 0, size <= UInt64(Int64.max) else {
            throw .corrupt(path: path, reason: "its disk has \(size) bytes, which is no number of sectors")
        }
        guard UInt64(l1Count) &* 8 <= Self.largestL1 else {
            throw .corrupt(path: path, reason: "its L1 table of \(l1Count) entries is larger than \(Self.largestL1 >> 20) MiB")
        }
        guard layout.l1Entries(size) <= UInt64(l1Count) else {
            throw .corrupt(path: path, reason: "its L1 table of \(l1Count) entries is too short for \(size) bytes")
        }
        let l1 = try area("L1 table", l1Offset, UInt64(l1Count) &* 8, fileSize, path)
        guard !readOnly else { return }
        let tableBytes = UInt64(refcountTableClusters) &<< layout.clusterBits
        guard tableBytes > 0, tableBytes <= Self.largestRefcountTable else {
            throw .corrupt(
                path: path,
                reason: "its refcount table of \(refcountTableClusters) clusters is empty or larger than "
                    + "\(Self.largestRefcountTable >> 20) MiB")
        }
        let refcounts = try area("refcount table", refcountTableOffset, tableBytes, fileSize, path)
        guard !l1.overlaps(refcounts) else {
            throw .corrupt(path: path, reason: "its L1 table and its refcount table overlap")
        }
    }

    private func checkFeatures(path: String, readOnly: Bool, featureName: (Int) -> String?) throws(QCOW2Error) {
        guard version == 2 || version == 3 else {
            throw .unsupported(
                path: path, feature: "version \(version) of qcow2", remedy: "convert it with `qemu-img convert -O qcow2`")
        }
        guard Self.clusterBits.contains(clusterBits) else {
            throw .corrupt(path: path, reason: "its cluster size, 2^\(clusterBits) bytes, is not in 2^9...2^21")
        }
        guard refcountOrder <= 6 else {
            throw .corrupt(path: path, reason: "its refcounts are 2^\(refcountOrder) bits wide, more than 64")
        }
        guard version == 2 || length >= Self.lengths.version3 && length % 8 == 0 && length <= 1 << clusterBits else {
            throw .corrupt(path: path, reason: "its header is \(length) bytes long")
        }
        let plain = "convert it with `qemu-img convert -O qcow2`"
        let unknown = incompatible.subtracting(.known).rawValue
        if unknown != 0 {
            let names = (0..<64).filter { unknown &>> UInt64($0) & 1 != 0 }
                .map { bit in featureName(bit).map { "\"\($0)\" (bit \(bit))" } ?? "bit \(bit)" }
            throw .unsupported(
                path: path, feature: "incompatible feature \(names.joined(separator: ", "))", remedy: plain)
        }
        if encryption != 0 { throw .unsupported(path: path, feature: "encryption", remedy: plain) }
        if incompatible.contains(.externalData) {
            throw .unsupported(
                path: path, feature: "an external data file, which could be any file of this host's", remedy: plain)
        }
        if incompatible.contains(.extendedL2) {
            throw .unsupported(path: path, feature: "extended L2 entries (subclusters)", remedy: plain)
        }
        if incompatible.contains(.compressionType) != (compressionType != 0) {
            throw .corrupt(path: path, reason: "its compression type does not agree with its feature bit")
        }
        if compressionType != 0 {
            throw .unsupported(
                path: path, feature: compressionType == 1 ? "zstd compression" : "compression of type \(compressionType)",
                remedy: plain)
        }
        guard !readOnly else { return }
        if incompatible.contains(.corrupt) {
            throw .notWritable(
                path: path, reason: "it is marked as damaged", remedy: "repair it with `qemu-img check -r all \(path)`")
        }
        if incompatible.contains(.dirty) {
            throw .notWritable(
                path: path, reason: "its reference counts were not brought up to date when it was last written",
                remedy: "repair it with `qemu-img check -r all \(path)`")
        }
    }

    /// The range of one of the tables: on a cluster boundary, behind the header's cluster, within the file.
    private func area(
        _ name: String, _ offset: UInt64, _ count: UInt64, _ fileSize: UInt64, _ path: String
    ) throws(QCOW2Error) -> Range<UInt64> {
        if count == 0 { return 0..<0 }
        guard offset & (1 << UInt64(clusterBits) &- 1) == 0 else {
            throw .corrupt(path: path, reason: "its \(name) is not at a cluster boundary")
        }
        guard offset != 0 else { throw .corrupt(path: path, reason: "its \(name) overlaps its header") }
        guard offset <= fileSize, count <= fileSize &- offset else {
            throw .corrupt(path: path, reason: "its \(name) is not within the file")
        }
        return offset..<offset &+ count
    }
}

/// Where things are within clusters and tables. Source: [QCOW2 §Cluster mapping], [QCOW2 §Host cluster management].
struct QCOW2Layout: Hashable, Sendable {
    let clusterBits: UInt64
    let refcountOrder: UInt64
    /// Version 3: an L2 entry can say that its cluster is zero.
    let hasZeroFlag: Bool

    var clusterSize: UInt64 { 1 &<< clusterBits }
    var clusterMask: UInt64 { clusterSize &- 1 }
    /// Entries of an L2 table, as a power of two.
    var l2Bits: UInt64 { clusterBits &- 3 }
    /// Counts in a refcount block, as a power of two.
    var blockBits: UInt64 { clusterBits &+ 3 &- refcountOrder }
    /// Tables are kept in memory in pieces of this many bytes.
    var sliceSize: UInt64 { min(clusterSize, 4096) }
    /// Clusters that an entry can point to: its offset has 56 bits, and a file's no more than 63.
    var clusterLimit: UInt64 { 1 &<< (56 &- clusterBits) }

    func clusters(_ bytes: UInt64) -> UInt64 { bytes &>> clusterBits &+ (bytes & clusterMask != 0 ? 1 : 0) }

    /// Entries of the L1 table that a disk of `size` bytes needs.
    func l1Entries(_ size: UInt64) -> UInt64 {
        let clusters = clusters(size)
        return clusters &>> l2Bits &+ (clusters & (1 &<< l2Bits &- 1) != 0 ? 1 : 0)
    }
}

extension [UInt8] {
    /// The big-endian number at an offset; bytes that are not there are zero.
    func bigEndian32(_ offset: Int) -> UInt32 {
        var value: UInt32 = 0
        for index in offset..<offset + 4 { value = value &<< 8 | UInt32(index < count ? self[index] : 0) }
        return value
    }

    func bigEndian64(_ offset: Int) -> UInt64 { UInt64(bigEndian32(offset)) &<< 32 | UInt64(bigEndian32(offset + 4)) }

    mutating func appendBigEndian(_ value: some FixedWidthInteger) {
        for byte in stride(from: value.bitWidth - 8, through: 0, by: -8) { append(UInt8(truncatingIfNeeded: value >> byte)) }
    }
}
