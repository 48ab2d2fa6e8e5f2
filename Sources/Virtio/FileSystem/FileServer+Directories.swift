internal import CHost
internal import Glibc
internal import Synchronization

/// The entries of directories.
extension FileServer {
    func openDirectory(_ call: FileCall) throws(FileError) {
        try call.needsRoom(MemoryLayout<FUSEOpenAnswer>.size)
        guard handles.withLock({ $0.hasRoom }) else { throw .tooManyFiles }
        let node = try nodes.withLock { nodes throws(FileError) in try nodes.node(call.header.node) }
        guard node.kind == UInt32(S_IFDIR) else { throw FileError(ENOTDIR) }
        let place = try descriptor(call.header.node, mayWait: call.mayWait)
        // What is barred is not even opened: some of it would be mounted by that.
        let file = node.isBarred ? place : try reopen(place, flags: O_RDONLY | O_DIRECTORY).file
        let opened = OpenFile(
            file, node: call.header.node, device: node.identity.device, isDirectory: true, home: node.home)
        let handle = try handles.withLock { handles throws(FileError) in try handles.add(opened) }
        let flags = shared.options.caching == .always ? FUSEBits.openCachesDirectory | FUSEBits.openKeepsCache : 0
        try call.answer(FUSEOpenAnswer(handle: handle, flags: flags))
    }

    /// As many entries from an offset on as there is room for. Offsets are the host's, and good for as long as its file system
    /// keeps them so, whatever comes and goes meanwhile.
    func readDirectory(_ call: FileCall, withEntries: Bool) throws(FileError) {
        let wanted = try call.argument(FUSETransfer.self)
        let file = try file(wanted.handle, node: call.header.node, isDirectory: true)
        guard file.home != .kernels else { return call.finish(0) }
        try file.mayBeAsked(call)
        let room = Int(min(UInt64(wanted.size), call.room, UInt64(FileScratch.byteCount) * 4))
        // The guest's entries take more room than the host's: what does not fit is read again.
        let piece = max(512, min(FileScratch.byteCount, withEntries ? room / 4 : room))
        guard let start = unsafe call.scratch.bytes.baseAddress else { return }
        let list = { () throws(FileError) -> Int in
            _ = try checked(chost_file_seek(file.descriptor.number, Int64(bitPattern: wanted.offset), SEEK_SET))
            return try checked(unsafe chost_file_entries(file.descriptor.number, start, UInt(piece)))
        }
        let count: Int
        if call.mayWait {
            count = try file.reading.withLock { _ throws(FileError) in try list() }
        } else {
            guard let got = try file.reading.withLockIfAvailable({ _ throws(FileError) in try list() }) else { throw .wouldWait }
            count = got
        }
        let found = unsafe UnsafeRawBufferPointer(start: start, count: count)
        let before = withEntries ? FUSEDirectoryEntry.byteCountPlus : FUSEDirectoryEntry.byteCount
        var place = 0
        var used = 0
        while let entry = unsafe HostEntry(found, at: place) {
            place += entry.length
            let padded = (before + entry.nameLength + 7) & ~7
            guard used + padded <= room else {
                guard used > 0 else { throw .invalid }
                break
            }
            let name = unsafe UnsafeRawBufferPointer(rebasing: found[entry.nameRange])
            var offset = used
            if withEntries {
                call.append(unsafe self.entry(name, in: file, isCached: !call.mayWait), at: offset)
                offset += MemoryLayout<FUSEEntry>.size
            }
            let inode = nodes.withLock {
                $0.shownInode(FileIdentity(device: file.device, inode: entry.inode))
            }
            call.append(
                FUSEDirectoryEntry(
                    inode: inode, offset: entry.offset, nameLength: UInt32(entry.nameLength), type: UInt32(entry.type)),
                at: offset)
            unsafe call.append(bytes: name, at: offset + FUSEDirectoryEntry.byteCount)
            let end = before + entry.nameLength
            if padded > end {
                let zeros: UInt64 = 0
                unsafe withUnsafeBytes(of: zeros) { zeros in
                    unsafe call.append(bytes: UnsafeRawBufferPointer(rebasing: zeros[..<(padded - end)]), at: used + end)
                }
            }
            used += padded
        }
        call.finish(UInt64(used))
    }

    /// What READDIRPLUS tells of a name beside: nothing for `.` and `..`, and for what cannot be looked at now. What is mounted here
    /// is not looked at either: a list is not to wait for all the servers of what is in it.
    private func entry(_ name: UnsafeRawBufferPointer, in file: OpenFile, isCached: Bool) -> FUSEEntry {
        guard let name = unsafe try? FileName(name),
            let found = try? file.descriptor.attributes(name, isCached: isCached), !found.mayBeMounted(in: file.device),
            let entry = try? entry(found, name, in: file.descriptor, parent: file.node)
        else { return FUSEEntry() }
        return entry
    }
}

/// One entry as getdents64(2) has it.
private struct HostEntry {
    let inode: UInt64
    let offset: UInt64
    let type: UInt8
    let length: Int
    let nameRange: Range<Int>

    var nameLength: Int { nameRange.count }

    init?(_ bytes: UnsafeRawBufferPointer, at place: Int) {
        guard place + 19 < bytes.count else { return nil }
        unsafe inode = bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self)
        unsafe offset = bytes.loadUnaligned(fromByteOffset: place + 8, as: UInt64.self)
        length = Int(unsafe bytes.loadUnaligned(fromByteOffset: place + 16, as: UInt16.self))
        unsafe type = bytes[place + 18]
        guard length > 19, place + length <= bytes.count else { return nil }
        let rest = unsafe bytes[(place + 19)..<(place + length)]
        nameRange = (place + 19)..<(unsafe rest.firstIndex(of: 0) ?? place + length)
    }
}
