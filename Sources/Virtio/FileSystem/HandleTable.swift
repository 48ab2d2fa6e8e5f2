internal import Glibc
internal import Synchronization

/// A file or directory that the guest has open.
final class OpenFile: Sendable {
    let descriptor: OpenDescriptor
    let node: UInt64
    let isDirectory: Bool
    /// Where it is, for the inode numbers of a directory's entries.
    let device: UInt64
    /// Of the file system that it is on; of the kernel's nothing is shown.
    let home: FileSystemKind
    /// Held while a directory is read: its place in the host's list is one for all.
    let reading = Mutex<Void>(())

    init(_ descriptor: OpenDescriptor, node: UInt64, device: UInt64, isDirectory: Bool, home: FileSystemKind) {
        self.descriptor = descriptor
        self.node = node
        self.device = device
        self.isDirectory = isDirectory
        self.home = home
    }

    /// A request that may not wait has nothing to do with a file of somebody else's, whatever its node is.
    func mayBeAsked(_ call: FileCall) throws(FileError) { if !call.mayWait, home == .remote { throw .wouldWait } }
}

/// What the guest has open, by the numbers it was given: a slot and its generation. Not synchronised.
struct HandleTable {
    private var files: [OpenFile?] = []
    private var generations: [UInt32] = []
    private var free: [UInt32] = []
    private let limit: Int
    /// Locks of the guest's, each with a description of its own: who has them is an owner, not an open file.
    private var locks: [LockOwner: OpenDescriptor] = [:]

    struct LockOwner: Hashable {
        var node: UInt64
        var owner: UInt64
    }

    init(limit: Int) { self.limit = max(1, limit) }

    var count: Int { files.count - free.count }
    var hasRoom: Bool { count + locks.count < limit }

    mutating func add(_ file: OpenFile) throws(FileError) -> UInt64 {
        guard hasRoom else { throw .tooManyFiles }
        let slot: Int
        if let index = free.popLast() {
            slot = Int(index)
            files[slot] = file
        } else {
            files.append(file)
            generations.append(1)
            slot = files.count - 1
        }
        return UInt64(generations[slot]) << 32 | UInt64(slot)
    }

    private func slot(_ handle: UInt64) -> Int? {
        let slot = Int(UInt32(truncatingIfNeeded: handle))
        guard slot < files.count, generations[slot] == UInt32(truncatingIfNeeded: handle >> 32) else { return nil }
        return slot
    }

    func file(_ handle: UInt64) -> OpenFile? { slot(handle).flatMap { files[$0] } }

    /// - Returns: the file, which is to be closed without the lock.
    mutating func remove(_ handle: UInt64) -> OpenFile? {
        guard let slot = slot(handle), let file = files[slot] else { return nil }
        files[slot] = nil
        generations[slot] &+= 1
        free.append(UInt32(slot))
        return file
    }

    func lock(_ owner: LockOwner) -> OpenDescriptor? { locks[owner] }

    mutating func addLock(_ descriptor: OpenDescriptor, _ owner: LockOwner) throws(FileError) {
        guard hasRoom else { throw FileError(ENOLCK) }
        locks[owner] = descriptor
    }

    /// - Returns: what is to be closed, without the lock.
    mutating func removeLock(_ owner: LockOwner) -> OpenDescriptor? { locks.isEmpty ? nil : locks.removeValue(forKey: owner) }
}
