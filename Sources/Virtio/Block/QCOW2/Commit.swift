internal import Glibc
internal import Synchronization

// How changes reach the file so that it is sound whenever the host stops, at worst with clusters that are used by nobody:
//
//   1. counts of clusters newly in use, and L2 tables that nothing refers to yet; wait until they and the disk's bytes in
//      those clusters are durable
//   2. L2 entries and L1 entries, that refer to them; wait until they are durable
//   3. counts of clusters that are referred to no more; those may now be used again
//
// A cluster is thus never referred to without being counted, nor used again while the file on disk may still refer to it.
// An L2 slice whose turn to leave the cache comes before a flush takes all of this with it.
extension QCOW2Tables {
    var isClean: Bool {
        refcounts.dirtyCount == 0 && l2.dirtyCount == 0 && dirtyL1.isEmpty && unlinked.isEmpty && retiring.isEmpty
    }

    func checkFailure() throws(BlockError) {
        if failure != 0 { throw .host(errno: failure) }
    }

    mutating func fail(_ error: BlockError) {
        guard failure == 0 else { return }
        if case .host(let code) = error { failure = code } else { failure = EIO }
    }

    /// Where it fails the host may have dropped what it could not write, and would call the next attempt a success.
    mutating func sync() throws(BlockError) {
        try checkFailure()
        do throws(BlockError) {
            try file.sync()
        } catch {
            fail(error)
            throw error
        }
    }

    /// Makes everything durable. Where it throws, what is not written yet stays to be written, if the host is still trusted.
    mutating func commit() throws(BlockError) {
        try checkFailure()
        try writeRefcounts()
        try writeL2(onlyNew: true)
        try sync()
        if l2.dirtyCount > 0 || !dirtyL1.isEmpty {
            try writeL2(onlyNew: false)
            try writeL1()
            try sync()
        }
        release()
        // They need not be durable: a count that stays too high is a leak.
        try writeRefcounts()
    }

    /// Nobody uses the image any more.
    mutating func close() throws(BlockError) {
        if !isClean { try commit() }
    }

    private mutating func writeL2(onlyNew: Bool) throws(BlockError) {
        guard l2.dirtyCount > 0 else { return }
        for slot in 0..<l2.slotCount where l2.isDirty(slot) {
            if onlyNew, !newTables.contains(l2.offset(slot) & ~layout.clusterMask) { continue }
            try unsafe file.write(at: l2.offset(slot), from: UnsafeRawBufferPointer(l2.buffer(slot)))
            l2.setDirty(slot, false)
        }
    }

    private mutating func writeL1() throws(BlockError) {
        while let index = dirtyL1.last {
            var entry: [UInt8] = []
            entry.appendBigEndian(l1[index])
            try file.write(at: l1Offset &+ UInt64(index) &* 8, from: entry)
            newTables.remove(l1[index] & L2Entry.offsetMask)
            dirtyL1.removeLast()
        }
    }

    /// Before the first byte is changed: bits of features that this writer does not keep up are taken out of the header.
    mutating func clearAutoclear() throws(BlockError) {
        guard autoclear != 0 else { return }
        try file.write(at: QCOW2Header.Field.autoclear, from: Array(repeating: 0, count: 8))
        try sync()
        autoclear = 0
    }
}

/// Counts transfers that go on outside the image's lock, so that no cluster is used again that one of them may still mean.
///
/// A transfer belongs to the epoch it began in. An epoch ends when none of the one before is left: what was unlinked in an
/// epoch is nobody's two epochs later.
final class TransferGate: Sendable {
    private let even = Atomic<Int>(0)
    private let odd = Atomic<Int>(0)

    /// Under the image's lock.
    func enter(_ epoch: UInt64) -> UInt64 {
        add(1, to: epoch)
        return epoch
    }

    func leave(_ epoch: UInt64) { add(-1, to: epoch) }

    /// Whether none is left of the epochs that share their counter with this one: under the image's lock, of the last but one.
    func isIdle(_ epoch: UInt64) -> Bool {
        let count = epoch & 1 == 0 ? even.load(ordering: .sequentiallyConsistent) : odd.load(ordering: .sequentiallyConsistent)
        return count == 0
    }

    private func add(_ change: Int, to epoch: UInt64) {
        if epoch & 1 == 0 {
            even.wrappingAdd(change, ordering: .sequentiallyConsistent)
        } else {
            odd.wrappingAdd(change, ordering: .sequentiallyConsistent)
        }
    }
}
