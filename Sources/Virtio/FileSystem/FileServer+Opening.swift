internal import CHost
internal import Glibc
internal import Synchronization

/// Opening and closing.
extension FileServer {
    /// Flags of open(2) that the guest's have a say in; the rest is ours.
    private static let passedFlags = UInt32(bitPattern: O_ACCMODE | O_TRUNC | O_APPEND | O_SYNC | O_DSYNC)

    private func hostFlags(_ guest: UInt32) throws(FileError) -> Int32 {
        let flags = Int32(bitPattern: guest & Self.passedFlags)
        guard flags & O_ACCMODE != O_ACCMODE else { throw .invalid }
        if flags & O_ACCMODE != O_RDONLY || flags & O_TRUNC != 0 { try checkWritable() }
        return flags
    }

    /// Opens what a descriptor with O_PATH is of: a regular file, or, where that is asked for, a directory. FIFOs, sockets
    /// and device nodes are never opened, and nothing waits.
    func reopen(
        _ place: OpenDescriptor, flags: Int32
    ) throws(FileError) -> (file: OpenDescriptor, attributes: chost_file_attributes) {
        let found = try place.attributes()
        let isDirectory = flags & O_DIRECTORY != 0
        guard isDirectory ? found.isDirectory : found.isRegular else {
            switch found.kind {
            case UInt32(S_IFLNK): throw FileError(ELOOP)
            case UInt32(S_IFDIR): throw FileError(EISDIR)
            default: throw isDirectory ? FileError(ENOTDIR) : FileError(EACCES)
            }
        }
        let file = try opening { () throws(FileError) in
            OpenDescriptor(
                try checked(chost_file_reopen(shared.table.number, place.number, flags | O_NONBLOCK | O_NOCTTY, 0)))
        }
        return (file, found)
    }

    private func checkRoomForHandle() throws(FileError) {
        guard handles.withLock({ $0.hasRoom }) else { throw .tooManyFiles }
    }

    private func add(_ file: OpenFile) throws(FileError) -> UInt64 {
        try handles.withLock { handles throws(FileError) in try handles.add(file) }
    }

    func open(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSEOpen.self)
        try call.needsRoom(MemoryLayout<FUSEOpenAnswer>.size)
        let flags = try hostFlags(wanted.flags)
        guard call.mayWait || flags & (O_ACCMODE | O_TRUNC) == O_RDONLY else { throw .wouldWait }
        try checkRoomForHandle()
        let number = call.header.node
        let home = try nodes.withLock { nodes throws(FileError) in try nodes.node(number).home }
        let place = try descriptor(number, mayWait: call.mayWait)
        let (file, found) = try reopen(place, flags: flags)
        if flags & O_TRUNC != 0, wanted.openFlags & FUSEBits.openKillsPrivileges != 0 { try killPrivileges(file) }
        let handle = try add(OpenFile(file, node: number, device: found.device, isDirectory: false, home: home))
        try call.answer(FUSEOpenAnswer(handle: handle, flags: answerFlags(number, found, flags)))
    }

    /// Whether what the guest has of the file's bytes is still good: when nobody has changed it since it was last opened.
    private func answerFlags(_ number: UInt64, _ found: chost_file_attributes, _ flags: Int32) -> UInt32 {
        var answer: UInt32 = 0
        // Nothing to be told of at the end, but the locks of the one who closes it.
        if flags & O_ACCMODE == O_RDONLY, !shared.options.sharesLocks { answer |= FUSEBits.openWithoutFlush }
        switch shared.options.caching {
        case .none: return answer | FUSEBits.openIsDirect
        case .always: return answer | FUSEBits.openKeepsCache
        case .auto: break
        }
        let stamp = found.stamp
        let isSame = nodes.withLock { nodes in
            let last = try? nodes.node(number).stamp
            nodes.setStamp(number, stamp)
            return last == stamp
        }
        // A change within the clock's tick of the last one would not show.
        var now = timespec()
        unsafe clock_gettime(CLOCK_REALTIME, &now)
        let age = (Int64(now.tv_sec) &- found.changed) &* 1_000_000_000 &+ Int64(now.tv_nsec) &- Int64(found.changed_ns)
        let isSettled = age > 100_000_000
        if !isSettled { nodes.withLock { $0.setStamp(number, FileStamp()) } }
        return isSame && isSettled && flags & O_TRUNC == 0 ? answer | FUSEBits.openKeepsCache : answer
    }

    func create(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSECreate.self)
        let name = try call.name(at: 16).name
        try call.needsRoom(MemoryLayout<FUSECreateAnswer>.size)
        let flags = try hostFlags(wanted.flags)
        let directory = try directory(call.header.node, isChange: true)
        try checkRoomForHandle()
        let file: OpenDescriptor
        do throws(FileError) {
            file = try opening { () throws(FileError) in
                try directory.open(name, flags: flags | O_CREAT | O_EXCL | O_NONBLOCK | O_NOCTTY, mode: wanted.mode & 0o7777)
            }
        } catch {
            // Somebody else was faster.
            guard error.code == EEXIST, wanted.flags & UInt32(bitPattern: O_EXCL) == 0 else { throw error }
            let place = try opening { () throws(FileError) in try directory.open(name, flags: chost_open_path) }
            let there = try place.attributes()
            guard there.mount == chost_mount_no || shared.kind(of: place, there) != .kernels else { throw FileError(EACCES) }
            file = try reopen(place, flags: flags).file
            if flags & O_TRUNC != 0, wanted.openFlags & FUSEBits.openKillsPrivileges != 0 { try killPrivileges(file) }
        }
        let found = try file.attributes()
        let entry = try entry(found, name, in: directory, parent: call.header.node)
        try answer(call, entry, file, found, flags)
    }

    func makeTemporaryFile(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSECreate.self)
        try call.needsRoom(MemoryLayout<FUSECreateAnswer>.size)
        let flags = try hostFlags(wanted.flags)
        let directory = try directory(call.header.node, isChange: true)
        try checkRoomForHandle()
        let file = try opening { () throws(FileError) in
            OpenDescriptor(
                try checked(
                    chost_file_reopen(
                        shared.table.number, directory.number, flags | chost_open_temporary, wanted.mode & 0o7777)))
        }
        let found = try file.attributes()
        let number = try nodes.withLock { nodes throws(FileError) in
            let home = try nodes.node(call.header.node).home
            return try nodes.remember(found, parent: call.header.node, name: FileName.none, home: home)
        }
        // It has no place: this is all there is of it.
        let evicted = nodes.withLock { nodes in
            let evicted = nodes.attach(file, to: number)
            nodes.keepOpen(number)
            return evicted
        }
        withExtendedLifetime(evicted) {}
        try answer(call, entry(number, found), file, found, flags)
    }

    private func answer(
        _ call: FileCall, _ entry: FUSEEntry, _ file: OpenDescriptor, _ found: chost_file_attributes, _ flags: Int32
    ) throws(FileError) {
        do throws(FileError) {
            let home = try nodes.withLock { nodes throws(FileError) in try nodes.node(entry.node).home }
            let handle = try add(
                OpenFile(file, node: entry.node, device: found.device, isDirectory: false, home: home))
            let opened = FUSEOpenAnswer(handle: handle, flags: answerFlags(entry.node, found, flags))
            try call.answer(FUSECreateAnswer(entry: entry, opened: opened))
        } catch {
            // The guest is not told of it.
            _ = nodes.withLock { $0.forget(entry.node, 1) }
            throw error
        }
    }

    func flush(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSEFlush.self)
        let file = try file(wanted.handle, node: call.header.node)
        try file.mayBeAsked(call)
        let owner = HandleTable.LockOwner(node: call.header.node, owner: wanted.lockOwner)
        _ = handles.withLock { $0.removeLock(owner) }
        // What a close has to say, such as that a quota was reached, is said when any descriptor of the file closes.
        let copy = fcntl(file.descriptor.number, F_DUPFD_CLOEXEC, 0)
        if copy >= 0, close(copy) != 0, errno != EINTR { throw FileError(errno) }
        call.answerEmpty()
    }

    func release(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSERelease.self)
        // The last one to have it closes it, and a server may be told of that.
        try file(wanted.handle, node: call.header.node, isDirectory: nil).mayBeAsked(call)
        guard handles.withLock({ $0.remove(wanted.handle) }) != nil else { throw .badHandle }
        call.answerEmpty()
    }
}
