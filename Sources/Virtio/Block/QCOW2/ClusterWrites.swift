internal import Glibc

// What changes the disk's bytes, beside writing to clusters that are its own already.
extension QCOW2Tables {
    /// Bytes from `position` on that may be written where they are; nil where the first of them may not.
    mutating func writableRun(_ position: UInt64, limit: UInt64) throws(BlockError) -> (offset: UInt64, count: UInt64)? {
        let within = position & layout.clusterMask
        var guest = position &>> layout.clusterBits
        let index = l1Index(guest)
        guard index < l1.count, l1[index] & L2Entry.copiedFlag != 0, let slot = try l2Slot(guest) else { return nil }
        guard let first = try ownCluster(l2.entry(slot, sliceIndex(guest))) else { return nil }
        var count = layout.clusterSize &- within
        var next = first &+ 1
        while count < limit, sliceIndex(guest &+ 1) != 0 {
            guest &+= 1
            let raw = l2.entry(slot, sliceIndex(guest))
            guard let cluster = try? ownCluster(raw), cluster == next else { break }
            next &+= 1
            count &+= layout.clusterSize
        }
        return (first &<< layout.clusterBits &+ within, min(limit, count))
    }

    /// The host cluster of an entry that may be written in place.
    private func ownCluster(_ raw: UInt64) throws(BlockError) -> UInt64? {
        guard case .standard(let cluster, isCopied: true) = try L2Entry(raw, layout) else { return nil }
        try checkOwn(cluster)
        return cluster
    }

    /// The disk's bytes may not be where the tables are, nor outside the file.
    private func checkOwn(_ cluster: UInt64) throws(BlockError) {
        guard cluster < layout.clusters(fileSize) else {
            throw .corrupt("the disk's bytes at \(cluster &<< layout.clusterBits) are not within the file")
        }
        try checkUnlinkable(cluster...cluster)
    }

    /// Writes within one guest cluster that has no host cluster of its own yet: it gets one, with what was there before
    /// around the new bytes.
    /// - Returns: bytes written.
    mutating func allocateAndWrite(
        _ position: UInt64, limit: UInt64, from cursor: inout VectorCursor
    ) throws(BlockError) -> UInt64 {
        try relieve()
        let guest = position &>> layout.clusterBits
        let within = position & layout.clusterMask
        let count = min(limit, layout.clusterSize &- within)
        let old = try entry(guest)
        let oldClusters = old.hostClusters(layout)
        var target: (cluster: UInt64, isFresh: Bool)
        var isReused = false
        if case .zero(let cluster?, isCopied: true) = old, isTableOwn(guest) {
            try checkOwn(cluster)
            target = (cluster, false)
            isReused = true
        } else {
            if let oldClusters { for cluster in oldClusters { try checkUsed(cluster) } }
            try makeTableWritable(guest)
            target = try allocateCluster()
        }
        let start = target.cluster &<< layout.clusterBits
        do throws(BlockError) {
            if count < layout.clusterSize {
                try fill(target.isFresh, start, old, guest, 0, within)
                try fill(target.isFresh, start, old, guest, within &+ count, layout.clusterSize)
            }
            try file.write(at: start &+ within, from: &cursor, count: Int(truncatingIfNeeded: count))
            try setEntry(guest, start | L2Entry.copiedFlag)
        } catch {
            if !isReused { abandon(target.cluster) }
            throw error
        }
        if !isReused, let oldClusters { unlink(oldClusters) }
        return count
    }

    private func isTableOwn(_ guest: UInt64) -> Bool {
        let index = l1Index(guest)
        return index < l1.count && l1[index] & L2Entry.copiedFlag != 0
    }

    /// Brings `from..<to` of a guest cluster into its new host cluster at `start`.
    private func fill(
        _ isFresh: Bool, _ start: UInt64, _ old: L2Entry, _ guest: UInt64, _ from: UInt64, _ to: UInt64
    ) throws(BlockError) {
        guard from < to else { return }
        switch old {
        case .zero: try fillWithZeroes(isFresh, start &+ from, to &- from)
        case .unallocated:
            let position = guest &<< layout.clusterBits
            let available = backing.map { $0.capacity > position ? $0.capacity &- position : 0 } ?? 0
            let end = max(from, min(to, available))
            if let backing, end > from { try copy(from: backing, position &+ from, to: start &+ from, count: end &- from) }
            try fillWithZeroes(isFresh, start &+ end, to &- end)
        case .standard(let cluster, _):
            let source = cluster &<< layout.clusterBits
            guard source < fileSize else { throw .corrupt("the disk's bytes at \(source) are not within the file") }
            var done = from
            while done < to {
                let part = Int(min(to &- done, UInt64(Self.scratchSize)))
                let piece = unsafe UnsafeMutableRawBufferPointer(rebasing: scratch[..<part])
                try unsafe file.read(at: source &+ done, into: piece)
                try unsafe file.write(at: start &+ done, from: UnsafeRawBufferPointer(piece))
                done &+= UInt64(piece.count)
            }
        case .compressed(let packed):
            try unsafe compressed.withBytes(packed, offset: Int(from), count: Int(to &- from)) { (bytes) throws(BlockError) in
                try unsafe file.write(at: start &+ from, from: bytes)
            }
        }
    }

    private func fillWithZeroes(_ isFresh: Bool, _ offset: UInt64, _ count: UInt64) throws(BlockError) {
        if !isFresh { try writeZeroes(offset, count) }
    }

    private func copy(
        from backing: any BlockImage, _ position: UInt64, to offset: UInt64, count: UInt64
    ) throws(BlockError) {
        var done: UInt64 = 0
        while done < count {
            let part = Int(min(count &- done, UInt64(Self.scratchSize)))
            var vector = unsafe iovec(iov_base: scratch.baseAddress, iov_len: part)
            try unsafe withUnsafeMutablePointer(to: &vector) { (vector) throws(BlockError) in
                try unsafe backing.read(
                    at: position &+ done, into: UnsafeMutableBufferPointer(start: vector, count: 1))
            }
            try unsafe file.write(at: offset &+ done, from: UnsafeRawBufferPointer(rebasing: scratch[..<part]))
            done &+= UInt64(part)
        }
    }

    // MARK: Discarding

    /// What becomes of whole clusters that are not needed, or are to be zero.
    enum Removal {
        /// A guest does not need them: only what is allocated is given up.
        case discard
        /// They are to read as zero; `keepingSpace`: what is allocated stays set aside.
        case zero(keepingSpace: Bool)
    }

    /// Takes up to `limit` whole guest clusters away, of one L2 slice at most.
    /// - Returns: how many guest clusters were seen to, at least one; nil where the first one's bytes must be written as zeros
    ///   instead.
    mutating func remove(_ guest: UInt64, limit: UInt64, _ removal: Removal) throws(BlockError) -> UInt64? {
        try relieve()
        if try l2Slot(guest) == nil {
            // No table: it is zero already, or not worth a table to throw away.
            let covered = min(limit, 1 &<< layout.l2Bits &- guest & (1 &<< layout.l2Bits &- 1))
            guard isLayer, case .zero = removal else { return covered }
            guard layout.hasZeroFlag else { return nil }
        }
        var count: UInt64 = 0
        repeat {
            let done = try removeOne(guest &+ count, removal)
            guard done else { return count > 0 ? count : nil }
            count &+= 1
        } while count < limit && sliceIndex(guest &+ count) != 0
        return count
    }

    /// - Returns: whether it could be done in the tables alone.
    private mutating func removeOne(_ guest: UInt64, _ removal: Removal) throws(BlockError) -> Bool {
        let old = try entry(guest)
        let clusters = old.hostClusters(layout)
        var keepsSpace = false
        switch (removal, old) {
        case (_, .unallocated) where !isLayer, (.discard, .unallocated), (_, .zero(cluster: nil, _)): return true
        case (.zero(keepingSpace: true), .zero): return true
        case (.zero(keepingSpace: true), .standard(_, isCopied: true)): keepsSpace = isTableOwn(guest)
        default: break
        }
        // Version 2 cannot say that a cluster is zero where the backing file's would show.
        guard layout.hasZeroFlag || !isLayer else {
            if case .discard = removal { return true }
            return false
        }
        // Nor can it set space aside.
        if keepsSpace, !layout.hasZeroFlag { return false }
        if let clusters {
            for cluster in clusters {
                if keepsSpace { try checkOwn(cluster) } else { try checkUsed(cluster) }
            }
        }
        try makeTableWritable(guest)
        let zero: UInt64 = layout.hasZeroFlag ? L2Entry.zeroFlag : 0
        if keepsSpace, let clusters {
            try setEntry(guest, clusters.lowerBound &<< layout.clusterBits | L2Entry.copiedFlag | L2Entry.zeroFlag)
            return true
        }
        try setEntry(guest, zero)
        if let clusters { unlink(clusters) }
        return true
    }
}
