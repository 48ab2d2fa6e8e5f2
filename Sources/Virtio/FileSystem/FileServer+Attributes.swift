internal import CHost
internal import Glibc
internal import Synchronization

/// Modes, owners, sizes and times.
extension FileServer {
    func getAttributes(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSEGetAttributes.self)
        var found: chost_file_attributes
        if wanted.flags & FUSEBits.getAttributesOfHandle != 0 {
            let file = try file(wanted.handle, node: call.header.node, isDirectory: nil)
            try file.mayBeAsked(call)
            found = try file.descriptor.attributes()
            if file.home == .kernels { found.conceal() }
        } else {
            found = try attributes(call.header.node, mayWait: call.mayWait)
        }
        try answer(call, found)
    }

    private func answer(_ call: FileCall, _ found: chost_file_attributes) throws(FileError) {
        try call.answer(
            FUSEAttributesAnswer(valid: validSeconds, validNanoseconds: 0, attributes: shown(found)))
    }

    func setAttributes(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSESetAttributes.self)
        try call.needsRoom(MemoryLayout<FUSEAttributesAnswer>.size)
        try checkWritable()
        let node = try nodes.withLock { nodes throws(FileError) in try nodes.node(call.header.node) }
        guard !node.isBarred else { throw FileError(EACCES) }
        let open = wanted.valid & FUSEBits.setByHandle != 0
            ? try file(wanted.handle, node: call.header.node, isDirectory: nil) : nil
        // A descriptor that was opened does as well as one of the place, and goes on when that is gone.
        let place: OpenDescriptor
        if let open { place = open.descriptor } else { place = try descriptor(call.header.node) }
        if wanted.valid & FUSEBits.setMode != 0 {
            guard node.kind != UInt32(S_IFLNK) else { throw .notSupported }
            try checked(chost_file_set_mode(shared.table.number, place.number, wanted.mode))
        }
        if wanted.valid & (FUSEBits.setUser | FUSEBits.setGroup) != 0 { try setOwner(place, wanted) }
        if wanted.valid & FUSEBits.setSize != 0 { try setSize(place, node, open, wanted) }
        if wanted.valid & (FUSEBits.setAccessed | FUSEBits.setModified) != 0 { try setTimes(place, wanted) }
        try answer(call, try place.attributes())
    }

    /// What is the server's own stays so: only a server that is the host's root can give files away.
    private func setOwner(_ place: OpenDescriptor, _ wanted: FUSESetAttributes) throws(FileError) {
        let found = try place.attributes()
        var user = UInt32.max
        var group = UInt32.max
        if wanted.valid & FUSEBits.setUser != 0, wanted.user != shared.shownUser(found.user) {
            user = shared.hostUser(wanted.user)
        }
        if wanted.valid & FUSEBits.setGroup != 0, wanted.group != shared.shownGroup(found.group) {
            group = shared.hostGroup(wanted.group)
        }
        // Even one that changes nothing takes set-user-ID away, where it is the guest's wish to have the owner set.
        try checked(chost_file_set_owner(place.number, user, group))
    }

    private func setSize(
        _ place: OpenDescriptor, _ node: NodeTable.Node, _ open: OpenFile?, _ wanted: FUSESetAttributes
    ) throws(FileError) {
        guard node.kind == UInt32(S_IFREG) else {
            throw node.kind == UInt32(S_IFDIR) ? FileError(EISDIR) : .invalid
        }
        let file: OpenDescriptor
        if let open {
            file = open.descriptor
        } else {
            file = try reopen(place, flags: O_WRONLY).file
        }
        try checked(chost_file_truncate(file.number, wanted.size))
        if wanted.valid & FUSEBits.setKillsPrivileges != 0 { try killPrivileges(file) }
    }

    private func setTimes(_ place: OpenDescriptor, _ wanted: FUSESetAttributes) throws(FileError) {
        func time(_ bit: UInt32, _ nowBit: UInt32, _ nanoseconds: UInt32) throws(FileError) -> UInt32 {
            guard wanted.valid & bit != 0 else { return chost_time_omit }
            guard wanted.valid & nowBit == 0 else { return chost_time_now }
            guard nanoseconds < 1_000_000_000 else { throw .invalid }
            return nanoseconds
        }
        let accessed = try time(FUSEBits.setAccessed, FUSEBits.setAccessedNow, wanted.accessedNanoseconds)
        let modified = try time(FUSEBits.setModified, FUSEBits.setModifiedNow, wanted.modifiedNanoseconds)
        try checked(
            chost_file_set_times(
                shared.table.number, place.number, Int64(bitPattern: wanted.accessed), accessed,
                Int64(bitPattern: wanted.modified), modified))
    }

    /// Takes set-user-ID and set-group-ID away, as a write by somebody without privileges would. The host does so for what it
    /// does not take for its root's.
    func killPrivileges(_ file: OpenDescriptor) throws(FileError) {
        let found = try file.attributes()
        guard found.isRegular else { return }
        let hasGroup = found.mode & 0o2010 == 0o2010
        guard found.mode & 0o4000 != 0 || hasGroup else { return }
        let mode = found.mode & ~(hasGroup ? 0o6000 : 0o4000)
        try checked(chost_file_set_mode(shared.table.number, file.number, mode))
    }

    // MARK: Extended attributes

    /// `user.` ones may be read and written. Capabilities of programs may be read, so that a system's tree works as one; a
    /// guest gives the host's programs none. Nothing else is there.
    private func attributeName(_ call: FileCall, at offset: UInt64, isChange: Bool) throws(FileError) -> (FileName, UInt64) {
        guard shared.options.hasExtendedAttributes else { throw FileError(ENOSYS) }
        let (bytes, end) = try call.text(at: offset, limit: 255)
        guard Self.isShown(bytes[...], isChange: isChange) else { throw .notSupported }
        return (try FileName(attribute: bytes), end)
    }

    private static func isShown(_ name: some Collection<UInt8>, isChange: Bool) -> Bool {
        name.starts(with: "user.".utf8) || !isChange && name.elementsEqual("security.capability".utf8)
    }

    private func attributePlace(_ call: FileCall) throws(FileError) -> OpenDescriptor {
        let node = try nodes.withLock { nodes throws(FileError) in try nodes.node(call.header.node) }
        guard !node.isBarred else { throw .notSupported }
        return try descriptor(call.header.node, mayWait: call.mayWait)
    }

    func getExtendedAttribute(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSECount.self)
        let (name, _) = try attributeName(call, at: 8, isChange: false)
        let place = try attributePlace(call)
        guard let target = unsafe call.scratch.bytes.baseAddress else { return }
        let count = try checked(
            unsafe name.call { name in
                unsafe chost_file_get_attribute(place.number, name, target, UInt(FileScratch.byteCount))
            })
        try unsafe answer(call, UnsafeRawBufferPointer(start: target, count: count), wanted)
    }

    private func answer(_ call: FileCall, _ bytes: UnsafeRawBufferPointer, _ wanted: FUSECount) throws(FileError) {
        guard wanted.size > 0 else { return try call.answer(FUSECount(size: UInt32(truncatingIfNeeded: bytes.count))) }
        guard bytes.count <= Int(wanted.size) else { throw FileError(ERANGE) }
        try unsafe call.answer(bytes: bytes)
    }

    func listExtendedAttributes(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSECount.self)
        guard shared.options.hasExtendedAttributes else { throw FileError(ENOSYS) }
        let place = try attributePlace(call)
        guard let target = unsafe call.scratch.bytes.baseAddress else { return }
        let count = try checked(unsafe chost_file_list_attributes(place.number, target, UInt(FileScratch.byteCount)))
        // Those that are shown move to the front.
        let all = unsafe Array(UnsafeRawBufferPointer(start: target, count: count))
        var shown: [UInt8] = []
        for name in all.split(separator: 0) where Self.isShown(name, isChange: false) { shown += name + [0] }
        // They have come out of it, and fit.
        let bytes = unsafe UnsafeMutableRawBufferPointer(rebasing: call.scratch.bytes[..<shown.count])
        unsafe bytes.copyBytes(from: shown)
        try unsafe answer(call, UnsafeRawBufferPointer(bytes), wanted)
    }

    func setExtendedAttribute(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSESetExtendedAttribute.self)
        try checkWritable()
        let (name, end) = try attributeName(call, at: 8, isChange: true)
        guard wanted.size <= FileScratch.byteCount else { throw FileError(E2BIG) }
        guard wanted.flags & ~3 == 0 else { throw .invalid }
        let place = try attributePlace(call)
        let value = unsafe call.copyArguments(from: end, count: Int(wanted.size))
        guard value.count == Int(wanted.size) else { throw .invalid }
        try checked(
            unsafe name.call { name in
                unsafe chost_file_set_attribute(
                    place.number, name, value.baseAddress, UInt(value.count), Int32(wanted.flags))
            })
        call.answerEmpty()
    }

    func removeExtendedAttribute(_ call: FileCall) throws(FileError) {
        try checkWritable()
        let (name, _) = try attributeName(call, at: 0, isChange: true)
        let place = try attributePlace(call)
        try checked(unsafe name.call { name in unsafe chost_file_remove_attribute(place.number, name) })
        call.answerEmpty()
    }
}
