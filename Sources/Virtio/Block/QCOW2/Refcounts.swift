internal import Glibc

// Which host clusters are in use. Source: [QCOW2 §Host cluster management].
extension QCOW2Tables {
    /// How often the cluster is referred to, by the file's own account.
    mutating func refcount(_ cluster: UInt64) throws(BlockError) -> UInt64 {
        guard let slot = try refcountSlot(cluster) else { return 0 }
        let (byte, shift) = refcountPlace(cluster)
        let bytes = unsafe refcounts.buffer(slot)
        switch layout.refcountOrder {
        case 0, 1, 2: return unsafe UInt64(bytes[byte]) &>> shift & (1 &<< (1 &<< layout.refcountOrder) &- 1)
        case 3: return unsafe UInt64(bytes[byte])
        case 4: return unsafe UInt64(UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: byte, as: UInt16.self)))
        case 5: return unsafe UInt64(UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: byte, as: UInt32.self)))
        default: return unsafe UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: byte, as: UInt64.self))
        }
    }

    /// - Parameter value: no more than the width of the counts holds: 1, or less than what was there.
    mutating func setRefcount(_ cluster: UInt64, _ value: UInt64) throws(BlockError) {
        guard let slot = try refcountSlot(cluster) else { throw .corrupt("a refcount block went away") }
        let (byte, shift) = refcountPlace(cluster)
        let bytes = unsafe refcounts.buffer(slot)
        switch layout.refcountOrder {
        case 0, 1, 2:
            let mask: UInt8 = 1 &<< (1 &<< UInt8(truncatingIfNeeded: layout.refcountOrder)) &- 1
            let bits = UInt8(truncatingIfNeeded: shift)
            unsafe bytes[byte] = bytes[byte] & ~(mask &<< bits) | (UInt8(truncatingIfNeeded: value) & mask) &<< bits
        case 3: unsafe bytes[byte] = UInt8(truncatingIfNeeded: value)
        case 4: unsafe bytes.storeBytes(of: UInt16(truncatingIfNeeded: value).bigEndian, toByteOffset: byte, as: UInt16.self)
        case 5: unsafe bytes.storeBytes(of: UInt32(truncatingIfNeeded: value).bigEndian, toByteOffset: byte, as: UInt32.self)
        default: unsafe bytes.storeBytes(of: value.bigEndian, toByteOffset: byte, as: UInt64.self)
        }
        refcounts.setDirty(slot, true)
    }

    /// Within its slice: the first byte of a cluster's count, and the bits below it where several share a byte.
    private func refcountPlace(_ cluster: UInt64) -> (byte: Int, shift: UInt64) {
        let bit = (cluster & (1 &<< layout.blockBits &- 1)) &<< layout.refcountOrder
        return (Int(truncatingIfNeeded: bit &>> 3 & (layout.sliceSize &- 1)), bit & 7)
    }

    /// The slot with a cluster's count; nil where there is no refcount block for it.
    private mutating func refcountSlot(_ cluster: UInt64) throws(BlockError) -> Int? {
        let index = cluster &>> layout.blockBits
        guard index < UInt64(refcountTable.count) else { return nil }
        let block = refcountTable[Int(truncatingIfNeeded: index)] & ~0x1FF
        guard block != 0 else { return nil }
        let bit = (cluster & (1 &<< layout.blockBits &- 1)) &<< layout.refcountOrder
        let slice = block &+ bit &>> 3 & ~(layout.sliceSize &- 1)
        if let slot = refcounts.slot(at: slice) { return slot }
        var claimed = refcounts.claim(slice)
        if claimed == nil {
            // A count may be written at any time: one that is too high is a leak, and it is only lowered when it may be.
            try writeRefcounts()
            claimed = refcounts.claim(slice)
        }
        guard let slot = claimed else { throw .host(errno: ENOMEM) }
        do throws(BlockError) {
            try unsafe file.read(at: slice, into: refcounts.buffer(slot))
        } catch {
            refcounts.forget(slot)
            throw error
        }
        return slot
    }

    func hasRefcountBlock(_ cluster: UInt64) -> Bool {
        let index = cluster &>> layout.blockBits
        return index < UInt64(refcountTable.count) && refcountTable[Int(truncatingIfNeeded: index)] & ~0x1FF != 0
    }

    mutating func writeRefcounts() throws(BlockError) {
        guard refcounts.dirtyCount > 0 else { return }
        for slot in 0..<refcounts.slotCount where refcounts.isDirty(slot) {
            try unsafe file.write(at: refcounts.offset(slot), from: UnsafeRawBufferPointer(refcounts.buffer(slot)))
            refcounts.setDirty(slot, false)
        }
    }

    // MARK: More of them

    /// Makes a refcount block of a free cluster, for the clusters around it and itself.
    ///
    /// It is durable before the table says where it is: what the table refers to is never rubbish.
    mutating func makeRefcountBlock(at cluster: UInt64, isFresh: Bool) throws(BlockError) {
        let index = Int(truncatingIfNeeded: cluster &>> layout.blockBits)
        let offset = cluster &<< layout.clusterBits
        if !isFresh { try writeZeroes(offset, layout.clusterSize) }
        refcounts.forget(table: offset, count: layout.clusterSize)
        refcountTable[index] = offset
        do throws(BlockError) {
            try setRefcount(cluster, 1)
            try writeRefcounts()
            try sync()
            var entry: [UInt8] = []
            entry.appendBigEndian(offset)
            try writeLast(entry, at: refcountTableOffset &+ UInt64(index) &* 8)
        } catch {
            refcounts.forget(table: offset, count: layout.clusterSize)
            refcountTable[index] = 0
            throw error
        }
        metadata.insert(cluster)
    }

    /// The few bytes, in one sector, that make new tables count. Where the host fails at it, and not only for want of space,
    /// what the file says is not known: nothing is written any more.
    private mutating func writeLast(_ bytes: [UInt8], at offset: UInt64) throws(BlockError) {
        do throws(BlockError) {
            try file.write(at: offset, from: bytes)
        } catch {
            if error != .host(errno: ENOSPC), error != .host(errno: EDQUOT) { fail(error) }
            throw error
        }
    }

    /// Moves the refcount table to a larger place, behind everything that the old one accounts for.
    ///
    /// The new one and its blocks are durable before the header says where they are.
    mutating func growRefcountTable() throws(BlockError) {
        let perCluster = layout.clusterSize / 8
        let oldClusters = UInt64(refcountTable.count) / perCluster
        let start = max(UInt64(refcountTable.count) &<< layout.blockBits, frontier)
        let first = start &>> layout.blockBits
        var tableClusters = oldClusters &+ oldClusters / 2 &+ 1
        var blocks: UInt64 = 1
        // The new table and its blocks account for themselves. Both numbers only rise, up to a limit.
        while true {
            let end = start &+ tableClusters &+ blocks
            guard tableClusters &<< layout.clusterBits <= QCOW2Header.largestRefcountTable, end < layout.clusterLimit else {
                throw .host(errno: EFBIG)
            }
            let last = (end &- 1) &>> layout.blockBits
            let (neededBlocks, neededClusters) = (last &- first &+ 1, last / perCluster &+ 1)
            if blocks >= neededBlocks, tableClusters >= neededClusters { break }
            blocks = max(blocks, neededBlocks)
            tableClusters = max(tableClusters, neededClusters)
        }
        try placeRefcountTable(at: start, tableClusters: tableClusters, blocks: blocks)
    }

    private mutating func placeRefcountTable(at start: UInt64, tableClusters: UInt64, blocks: UInt64) throws(BlockError) {
        let end = start &+ tableClusters &+ blocks
        for cluster in start..<end where metadata.contains(cluster) {
            throw .corrupt("a table at \(cluster &<< layout.clusterBits) is accounted for as free")
        }
        try extend(toCover: end &- 1)
        frontier = max(frontier, end)
        let old = (offset: refcountTableOffset, table: refcountTable)
        let first = start &>> layout.blockBits
        let blockStart = start &+ tableClusters
        refcountTable += Array(repeating: 0, count: Int(tableClusters &<< (layout.clusterBits &- 3)) &- refcountTable.count)
        for block in 0..<blocks { refcountTable[Int(first &+ block)] = (blockStart &+ block) &<< layout.clusterBits }
        refcountTableOffset = start &<< layout.clusterBits
        do throws(BlockError) {
            for cluster in start..<end { try setRefcount(cluster, 1) }
            try writeRefcounts()
            try writeTable(refcountTableOffset, refcountTable)
            try sync()
            var field: [UInt8] = []
            field.appendBigEndian(refcountTableOffset)
            field.appendBigEndian(UInt32(tableClusters))
            try writeLast(field, at: QCOW2Header.Field.refcountTable)
            try sync()
        } catch {
            for block in blockStart..<end {
                refcounts.forget(table: block &<< layout.clusterBits, count: layout.clusterSize)
            }
            (refcountTableOffset, refcountTable) = old
            throw error
        }
        for block in blockStart..<end { metadata.insert(block) }
        let oldFirst = old.offset &>> layout.clusterBits
        retiring.append((epoch, Array(oldFirst..<oldFirst &+ layout.clusters(UInt64(old.table.count) &* 8))))
    }

    private mutating func writeTable(_ offset: UInt64, _ table: [UInt64]) throws(BlockError) {
        var done = 0
        while done < table.count {
            let entries = min(Self.scratchSize / 8, table.count &- done)
            for index in 0..<entries {
                unsafe scratch.storeBytes(of: table[done &+ index].bigEndian, toByteOffset: index &* 8, as: UInt64.self)
            }
            try unsafe file.write(
                at: offset &+ UInt64(done) &* 8, from: UnsafeRawBufferPointer(rebasing: scratch[..<(entries &* 8)]))
            done &+= entries
        }
    }
}
