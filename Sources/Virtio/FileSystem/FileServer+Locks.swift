internal import CHost
internal import Glibc
internal import Synchronization

/// POSIX record locks, shared with the host's programs.
///
/// They are locks of open file descriptions on the host, one for each owner and file: a description locks once, whoever of
/// the guest's processes has opened the file how often.
extension FileServer {
    /// The last byte's offset that means the end, whatever it will be.
    private static let endless = UInt64(Int64.max)

    private func range(_ lock: FUSELock) throws(FileError) -> (start: UInt64, count: UInt64) {
        guard lock.start <= Self.endless, lock.start <= lock.end else { throw .invalid }
        return (lock.start, lock.end >= Self.endless ? 0 : lock.end - lock.start + 1)
    }

    private func wanted(_ call: FileCall) throws(FileError) -> (FUSELockRequest, OpenFile) {
        guard shared.options.sharesLocks else { throw FileError(ENOSYS) }
        let wanted = try call.argument(FUSELockRequest.self)
        guard wanted.flags & FUSEBits.lockIsFlock == 0 else { throw .notSupported }
        return (wanted, try file(wanted.handle, node: call.header.node))
    }

    func getLock(_ call: FileCall) throws(FileError) {
        let (wanted, file) = try wanted(call)
        guard wanted.lock.type == UInt32(F_RDLCK) || wanted.lock.type == UInt32(F_WRLCK) else { throw .invalid }
        var (start, count) = try range(wanted.lock)
        var type = Int32(wanted.lock.type)
        let owner = HandleTable.LockOwner(node: call.header.node, owner: wanted.owner)
        let descriptor = handles.withLock { $0.lock(owner) } ?? file.descriptor
        try checked(unsafe chost_file_test_lock(descriptor.number, &type, &start, &count))
        guard type != F_UNLCK else {
            return try call.answer(FUSELock(start: wanted.lock.start, end: wanted.lock.end, type: UInt32(F_UNLCK), process: 0))
        }
        // Who it is among the host's processes is not the guest's to know.
        let end = count == 0 ? Self.endless : start &+ count &- 1
        try call.answer(FUSELock(start: start, end: end, type: UInt32(bitPattern: type), process: 0))
    }

    func setLock(_ call: FileCall, waits: Bool) throws(FileError) {
        let (wanted, file) = try wanted(call)
        guard wanted.lock.type <= UInt32(F_UNLCK) else { throw .invalid }
        let (start, count) = try range(wanted.lock)
        let owner = HandleTable.LockOwner(node: call.header.node, owner: wanted.owner)
        var descriptor = handles.withLock { $0.lock(owner) }
        if descriptor == nil {
            guard wanted.lock.type != UInt32(F_UNLCK) else { return call.answerEmpty() }
            descriptor = try addLock(file, owner)
        }
        guard let descriptor else { throw FileError(ENOLCK) }
        let result = chost_file_lock(descriptor.number, Int32(wanted.lock.type), start, count)
        if waits, result == -EAGAIN || result == -EACCES {
            call.request.outcome = .waits
            return
        }
        try checked(result)
        call.answerEmpty()
    }

    /// A description of the file for one owner's locks, for writing too where it may be.
    private func addLock(_ file: OpenFile, _ owner: HandleTable.LockOwner) throws(FileError) -> OpenDescriptor {
        let mode = fcntl(file.descriptor.number, F_GETFL) & O_ACCMODE
        let opened: OpenDescriptor
        do throws(FileError) {
            opened = try reopen(file.descriptor, flags: shared.isReadOnly ? O_RDONLY : O_RDWR).file
        } catch {
            guard error.code == EACCES || error.code == EROFS || error.code == EPERM else { throw error }
            opened = try reopen(file.descriptor, flags: mode).file
        }
        return try handles.withLock { handles throws(FileError) in
            // Another thread of the same owner's may have been faster.
            if let other = handles.lock(owner) { return other }
            try handles.addLock(opened, owner)
            return opened
        }
    }
}
