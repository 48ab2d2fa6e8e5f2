internal import Glibc

// Host clusters, from free to free again.
extension QCOW2Tables {
    /// Counts that one allocation looks at in search of a free cluster within the file: then it takes one behind it.
    private static let searchBudget = 2048
    /// Clusters waiting to be freed, after which a commit is due.
    private static let mostUnlinked = 4096
    /// Clusters whose freeing is given up, and which the file then accounts for as used: only where the host hangs.
    private static let mostRetiring = 1 << 20

    /// Takes a free cluster. Nothing refers to it yet, and its count may not be durable before `commit`.
    /// - Returns: `isFresh`: it was never used and is zero.
    mutating func allocateCluster() throws(BlockError) -> (cluster: UInt64, isFresh: Bool) {
        var budget = Self.searchBudget
        while true {
            let (cluster, isFresh) = try findFree(&budget)
            guard !isMetadata(cluster) else {
                throw .corrupt("a table at \(cluster &<< layout.clusterBits) is accounted for as free")
            }
            guard cluster &>> layout.blockBits < UInt64(refcountTable.count) else {
                try growRefcountTable()
                continue
            }
            guard cluster < layout.clusterLimit else { throw .host(errno: EFBIG) }
            try extend(toCover: cluster)
            if isFresh { frontier = max(frontier, cluster &+ 1) }
            guard hasRefcountBlock(cluster) else {
                try makeRefcountBlock(at: cluster, isFresh: isFresh)
                continue
            }
            try setRefcount(cluster, 1)
            if !isFresh { cursor = max(cursor, cluster &+ 1) }
            return (cluster, isFresh)
        }
    }

    private mutating func findFree(_ budget: inout Int) throws(BlockError) -> (cluster: UInt64, isFresh: Bool) {
        while cursor < frontier, budget > 0 {
            budget &-= 1
            if try refcount(cursor) == 0 { return (cursor, false) }
            cursor &+= 1
        }
        // Behind the file nothing should be in use; where it is said to be, that is believed, but not for ever.
        for _ in 0..<Self.searchBudget {
            if try refcount(frontier) == 0 { return (frontier, true) }
            frontier &+= 1
        }
        throw .corrupt("clusters behind the end of the file are accounted for as used")
    }

    /// Gives back a cluster that nothing came to refer to.
    mutating func abandon(_ cluster: UInt64) {
        // Where even that fails it is lost until the image is repaired.
        try? setRefcount(cluster, 0)
        cursor = min(cursor, cluster)
    }

    /// Makes the file long enough, by more than one cluster where they are small.
    mutating func extend(toCover cluster: UInt64) throws(BlockError) {
        let end = (cluster &+ 1) &<< layout.clusterBits
        guard end > fileSize else { return }
        let step = max(layout.clusterSize, 256 << 10)
        let size = (end &+ step &- 1) / step &* step
        do throws(BlockError) {
            try file.truncate(to: size)
            fileSize = size
        } catch {
            // Near a limit of the host's, just what is needed.
            try file.truncate(to: end)
            fileSize = end
        }
    }

    func writeZeroes(_ offset: UInt64, _ count: UInt64) throws(BlockError) {
        guard count > 0 else { return }
        unsafe scratch.initializeMemory(as: UInt8.self, repeating: 0)
        var done: UInt64 = 0
        while done < count {
            let part = min(count &- done, UInt64(Self.scratchSize))
            try unsafe file.write(at: offset &+ done, from: UnsafeRawBufferPointer(rebasing: scratch[..<Int(part)]))
            done &+= part
        }
    }

    // MARK: L2 tables

    /// Sees to it that the L2 table for a guest cluster is there, and nobody else's.
    mutating func makeTableWritable(_ guest: UInt64) throws(BlockError) {
        let index = l1Index(guest)
        guard index < l1.count else { throw .corrupt("its L1 table is too short") }
        let old = l1[index] & L2Entry.offsetMask
        if old != 0, l1[index] & L2Entry.copiedFlag != 0 { return }
        if old != 0 { try checkUsed(try checkTable(old, "L2 table"), isTable: true) }
        let (cluster, isFresh) = try allocateCluster()
        let offset = cluster &<< layout.clusterBits
        do throws(BlockError) {
            if old != 0 {
                try copy(old, to: offset)
            } else if !isFresh {
                try writeZeroes(offset, layout.clusterSize)
            }
        } catch {
            abandon(cluster)
            throw error
        }
        l2.forget(table: offset, count: layout.clusterSize)
        l1[index] = offset | L2Entry.copiedFlag
        dirtyL1.append(index)
        newTables.insert(offset)
        metadata.insert(cluster)
        guard old != 0 else { return }
        l2.forget(table: old, count: layout.clusterSize)
        metadata.remove(old &>> layout.clusterBits)
        unlinked.append(old &>> layout.clusterBits)
    }

    /// Copies a cluster of the file's.
    private func copy(_ source: UInt64, to target: UInt64) throws(BlockError) {
        var done: UInt64 = 0
        while done < layout.clusterSize {
            let part = min(layout.clusterSize &- done, UInt64(Self.scratchSize))
            let piece = unsafe UnsafeMutableRawBufferPointer(rebasing: scratch[..<Int(part)])
            try unsafe file.read(at: source &+ done, into: piece)
            try unsafe file.write(at: target &+ done, from: UnsafeRawBufferPointer(piece))
            done &+= part
        }
    }

    // MARK: Freeing

    /// What is to be unlinked must be in use, and the disk's own.
    func checkUnlinkable(_ clusters: ClosedRange<UInt64>) throws(BlockError) {
        for cluster in clusters where isMetadata(cluster) {
            throw .corrupt("the disk's bytes at \(cluster &<< layout.clusterBits) are one of the image's tables")
        }
    }

    mutating func checkUsed(_ cluster: UInt64, isTable: Bool = false) throws(BlockError) {
        if !isTable { try checkUnlinkable(cluster...cluster) }
        guard try refcount(cluster) > 0 else {
            throw .corrupt("what is at \(cluster &<< layout.clusterBits) is accounted for as free")
        }
    }

    /// The entry no longer refers to these.
    mutating func unlink(_ clusters: ClosedRange<UInt64>) {
        for cluster in clusters { unlinked.append(cluster) }
    }

    /// Before more is changed: not so much may be waiting that memory would grow.
    mutating func relieve() throws(BlockError) {
        if unlinked.count > Self.mostUnlinked || newTables.count > Self.mostUnlinked { try commit() }
    }

    /// Frees what the file does not refer to and no transfer in flight can mean.
    mutating func release() {
        if !unlinked.isEmpty {
            let waiting = retiring.reduce(0) { $0 + $1.clusters.count }
            if waiting < Self.mostRetiring { retiring.append((epoch, unlinked)) }
            unlinked = []
        }
        for _ in 0..<2 where transfers.isIdle(epoch &+ 1) { epoch &+= 1 }
        while let batch = retiring.first, batch.epoch &+ 2 <= epoch {
            retiring.removeFirst()
            free(batch.clusters)
        }
    }

    private mutating func free(_ clusters: [UInt64]) {
        var holes: [UInt64] = []
        for cluster in clusters {
            // A count that cannot be read or is 0 already stays as it is.
            guard let count = try? refcount(cluster), count > 0, (try? setRefcount(cluster, count &- 1)) != nil, count == 1
            else { continue }
            holes.append(cluster)
            cursor = min(cursor, cluster)
        }
        holes.sort()
        var index = 0
        while index < holes.count {
            let start = holes[index]
            var end = start &+ 1
            index &+= 1
            while index < holes.count, holes[index] == end {
                end &+= 1
                index &+= 1
            }
            file.punch(at: start &<< layout.clusterBits, count: (end &- start) &<< layout.clusterBits)
        }
        compressed.forget()
    }
}
