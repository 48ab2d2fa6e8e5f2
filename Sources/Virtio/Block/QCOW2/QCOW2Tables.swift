internal import Glibc

/// Everything an open image knows of its file beside the bytes of the disk: the first-level tables whole, the others through
/// caches of a fixed size. Under the image's lock.
///
/// What is changed here reaches the file in `commit`, in an order that leaves it sound whenever it is cut short.
@safe struct QCOW2Tables: ~Copyable {
    let file: any ImageFile
    let layout: QCOW2Layout
    let backing: (any BlockImage)?
    /// Whether the image is a layer over another one, given or not: then a cluster that is not allocated is not zero.
    let isLayer: Bool
    let compressed: CompressedClusters
    let transfers: TransferGate

    let l1Offset: UInt64
    /// The L1 table, in the host's byte order.
    var l1: [UInt64]
    var l2: TableCache

    var refcountTableOffset: UInt64
    /// Empty where the image is read only.
    var refcountTable: [UInt64] = []
    var refcounts: TableCache

    var fileSize: UInt64
    /// The first cluster that lies behind the file, and was never used.
    var frontier: UInt64
    /// Clusters below are used, as far as is known.
    var cursor: UInt64 = 0
    /// L2 tables and refcount blocks, by their clusters: no disk's bytes may be written there.
    var metadata: Set<UInt64> = []

    /// L1 entries to be written, of L2 tables that nothing in the file refers to yet.
    var dirtyL1: [Int] = []
    var newTables: Set<UInt64> = []
    /// Clusters whose last mention was taken out of an L2 or L1 table, which the file does not know yet.
    var unlinked: [UInt64] = []
    /// Clusters that the file no longer refers to, but transfers in flight may.
    var retiring: [(epoch: UInt64, clusters: [UInt64])] = []
    var epoch: UInt64 = 0

    /// Autoclear bits that the file still has. Source: [QCOW2 §Header].
    var autoclear: UInt64
    /// Set when the host could not make something durable: what it dropped is not known, so nothing is written any more.
    var failure: Int32 = 0

    let scratch: UnsafeMutableRawBufferPointer
    static let scratchSize = 64 << 10

    /// - Parameters:
    ///   - header: checked.
    ///   - cacheLimit: bytes of L2 tables that are kept in memory, and of refcount blocks likewise.
    init(
        file: any ImageFile, header: QCOW2Header, fileSize: UInt64, backing: (any BlockImage)?,
        compressed: CompressedClusters, transfers: TransferGate, cacheLimit: Int
    ) {
        self.file = file
        layout = header.layout
        self.backing = backing
        isLayer = header.backingNameOffset != 0
        self.compressed = compressed
        self.transfers = transfers
        l1Offset = header.l1Offset
        l1 = []
        refcountTableOffset = header.refcountTableOffset
        self.fileSize = fileSize
        frontier = layout.clusters(fileSize)
        autoclear = header.autoclear
        l2 = TableCache(sliceSize: Int(layout.sliceSize), limit: cacheLimit)
        refcounts = TableCache(sliceSize: Int(layout.sliceSize), limit: cacheLimit)
        unsafe scratch = .allocate(byteCount: Self.scratchSize, alignment: 4096)
    }

    deinit { unsafe scratch.deallocate() }

    /// Reads the first-level tables.
    mutating func load(_ header: QCOW2Header, readOnly: Bool) throws(BlockError) {
        l1 = try readTable(header.l1Offset, count: Int(header.l1Count))
        guard !readOnly else { return }
        let bytes = UInt64(header.refcountTableClusters) &<< layout.clusterBits
        refcountTable = try readTable(header.refcountTableOffset, count: Int(bytes / 8))
        try checkMetadata()
    }

    private func readTable(_ offset: UInt64, count: Int) throws(BlockError) -> [UInt64] {
        var table: [UInt64] = []
        table.reserveCapacity(count)
        let perPiece = Self.scratchSize / 8
        while table.count < count {
            let entries = min(perPiece, count &- table.count)
            let piece = unsafe UnsafeMutableRawBufferPointer(rebasing: scratch[..<(entries &* 8)])
            try unsafe file.read(at: offset &+ UInt64(table.count) &* 8, into: piece)
            for index in 0..<entries {
                unsafe table.append(UInt64(bigEndian: piece.loadUnaligned(fromByteOffset: index &* 8, as: UInt64.self)))
            }
        }
        return table
    }

    /// Before anything is written: no two tables may share a cluster, nor lie outside the file.
    private mutating func checkMetadata() throws(BlockError) {
        for entry in refcountTable where entry & L2Entry.offsetMask != 0 || entry & ~0x1FF != 0 {
            try addTable(entry & ~0x1FF, "refcount block")
        }
        for entry in l1 where entry & L2Entry.offsetMask != 0 { try addTable(entry & L2Entry.offsetMask, "L2 table") }
    }

    private mutating func addTable(_ offset: UInt64, _ name: String) throws(BlockError) {
        let cluster = try checkTable(offset, name)
        guard !isFirstLevel(cluster), metadata.insert(cluster).inserted else {
            throw .corrupt("a table's cluster, at \(offset), is used twice")
        }
    }

    /// - Returns: the number of the cluster that a second-level table is in.
    func checkTable(_ offset: UInt64, _ name: String) throws(BlockError) -> UInt64 {
        guard offset & layout.clusterMask == 0 else { throw .corrupt("its \(name) at \(offset) is not at a cluster boundary") }
        guard offset < fileSize, layout.clusterSize <= fileSize &- offset else {
            throw .corrupt("its \(name) at \(offset) is not within the file")
        }
        return offset &>> layout.clusterBits
    }

    /// Whether the cluster is the header's, the L1 table's or the refcount table's.
    func isFirstLevel(_ cluster: UInt64) -> Bool {
        let l1Start = l1Offset &>> layout.clusterBits
        let tableStart = refcountTableOffset &>> layout.clusterBits
        return cluster == 0
            || cluster >= l1Start && cluster &- l1Start < layout.clusters(UInt64(l1.count) &* 8)
            || cluster >= tableStart && cluster &- tableStart < layout.clusters(UInt64(refcountTable.count) &* 8)
    }

    func isMetadata(_ cluster: UInt64) -> Bool { isFirstLevel(cluster) || metadata.contains(cluster) }

    // MARK: Mapping

    /// Where a piece of the disk is.
    enum Place: Equatable {
        case zero
        case backing
        case host(UInt64)
        case compressed(CompressedCluster)
    }

    /// Where the bytes from `position` on are, and how many lie together: at most `limit`, at least one.
    /// - Parameter position: within the disk.
    mutating func locate(_ position: UInt64, limit: UInt64) throws(BlockError) -> (place: Place, count: UInt64) {
        let within = position & layout.clusterMask
        var guest = position &>> layout.clusterBits
        let hole = backing == nil ? Place.zero : .backing
        guard let slot = try l2Slot(guest) else {
            // The whole table is not there.
            let covered = (1 &<< layout.l2Bits &- guest & (1 &<< layout.l2Bits &- 1)) &<< layout.clusterBits &- within
            return (hole, min(limit, covered))
        }
        let place = try place(of: l2.entry(slot, sliceIndex(guest)), hole)
        var count = layout.clusterSize &- within
        if case .compressed = place { return (place, min(limit, count)) }
        while count < limit, sliceIndex(guest &+ 1) != 0 {
            guest &+= 1
            let raw = l2.entry(slot, sliceIndex(guest))
            // A fault there is for whoever reads there.
            guard let next = try? self.place(of: raw, hole), continues(place, next, count &+ within) else { break }
            count &+= layout.clusterSize
        }
        guard case .host(let offset) = place else { return (place, min(limit, count)) }
        return (.host(offset &+ within), min(limit, count))
    }

    private func continues(_ first: Place, _ next: Place, _ distance: UInt64) -> Bool {
        switch (first, next) {
        case (.zero, .zero), (.backing, .backing): true
        case (.host(let start), .host(let offset)): offset == start &+ distance
        default: false
        }
    }

    private func place(of raw: UInt64, _ hole: Place) throws(BlockError) -> Place {
        switch try L2Entry(raw, layout) {
        case .unallocated: return hole
        case .zero: return .zero
        case .standard(let cluster, _):
            let offset = cluster &<< layout.clusterBits
            guard offset < fileSize else { throw .corrupt("the disk's bytes at \(offset) are not within the file") }
            return .host(offset)
        case .compressed(let packed):
            guard packed.offset < fileSize else {
                throw .corrupt("the compressed bytes at \(packed.offset) are not within the file")
            }
            return .compressed(packed)
        }
    }

    /// The entry of a guest cluster.
    mutating func entry(_ guest: UInt64) throws(BlockError) -> L2Entry {
        guard let slot = try l2Slot(guest) else { return .unallocated }
        return try L2Entry(l2.entry(slot, sliceIndex(guest)), layout)
    }

    /// Changes the entry of a guest cluster, whose L2 table is there and writable.
    mutating func setEntry(_ guest: UInt64, _ raw: UInt64) throws(BlockError) {
        guard let slot = try l2Slot(guest) else { throw .corrupt("an L2 table went away") }
        l2.setEntry(slot, sliceIndex(guest), raw)
    }

    func l1Index(_ guest: UInt64) -> Int { Int(truncatingIfNeeded: guest &>> layout.l2Bits) }

    func sliceIndex(_ guest: UInt64) -> Int { Int(truncatingIfNeeded: guest & (layout.sliceSize / 8 &- 1)) }

    /// The slot with the entry of a guest cluster; nil where there is no L2 table. It stays until the next call.
    mutating func l2Slot(_ guest: UInt64) throws(BlockError) -> Int? {
        let index = l1Index(guest)
        guard index < l1.count else { return nil }
        let table = l1[index] & L2Entry.offsetMask
        guard table != 0 else { return nil }
        let inTable = (guest & (1 &<< layout.l2Bits &- 1)) &* 8
        let slice = table &+ inTable & ~(layout.sliceSize &- 1)
        if let slot = l2.slot(at: slice) { return slot }
        _ = try checkTable(table, "L2 table")
        var claimed = l2.claim(slice)
        if claimed == nil {
            try commit()
            claimed = l2.claim(slice)
        }
        guard let slot = claimed else { throw .host(errno: ENOMEM) }
        do throws(BlockError) {
            try unsafe file.read(at: slice, into: l2.buffer(slot))
        } catch {
            l2.forget(slot)
            throw error
        }
        return slot
    }
}
