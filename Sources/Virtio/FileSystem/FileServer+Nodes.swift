internal import CHost
internal import Glibc
internal import Synchronization

/// From the guest's numbers to the host's files.
extension FileServer {
    /// How deep a place may be below the nearest directory whose descriptor is at hand.
    private static let mostSteps = 512

    /// Makes a call that opens something; where descriptors have run out, once more after those that are kept were given up.
    func opening<Result>(_ body: () throws(FileError) -> Result) throws(FileError) -> Result {
        do throws(FileError) { return try body() } catch {
            guard error.isExhaustion else { throw error }
            let evicted = nodes.withLock { $0.evictAll() }
            guard !evicted.isEmpty else { throw .tooManyFiles }
        }
        do throws(FileError) { return try body() } catch { throw error.isExhaustion ? .tooManyFiles : error }
    }

    /// A descriptor with O_PATH of the guest's file: the one at hand, or its place opened anew, if the same file is still
    /// there.
    func descriptor(_ number: UInt64, mayWait: Bool = true) throws(FileError) -> OpenDescriptor {
        if let descriptor = nodes.withLock({ $0.descriptor(number) }) { return descriptor }
        // Upwards to the first that is open, then down again.
        var steps: [(number: UInt64, node: NodeTable.Node)] = []
        var current = number
        var base: OpenDescriptor?
        while base == nil {
            let (node, found) = try nodes.withLock { nodes throws(FileError) in
                (try nodes.node(current), nodes.descriptor(current))
            }
            guard mayWait || node.home != .remote else { throw .wouldWait }
            if let found {
                base = found
            } else {
                guard !node.name.isNone, steps.count < Self.mostSteps else { throw .stale }
                steps.append((current, node))
                current = node.parent
            }
        }
        guard var place = base else { throw .stale }
        for step in steps.reversed() {
            let directory = place
            do throws(FileError) {
                place = try opening { () throws(FileError) in try directory.open(step.node.name, flags: chost_open_path) }
            } catch {
                throw error.code == ENOENT || error.code == ENOTDIR ? .stale : error
            }
            let found = try place.attributes(isCached: !mayWait)
            guard found.identity == step.node.identity, found.birth == step.node.birth, found.kind == step.node.kind
            else { throw .stale }
            let opened = place
            _ = nodes.withLock { $0.attach(opened, to: step.number) }
        }
        return place
    }

    /// A directory of the guest's, for its entries.
    func directory(_ number: UInt64, isChange: Bool = false, mayWait: Bool = true) throws(FileError) -> OpenDescriptor {
        if isChange { try checkWritable() }
        let node = try nodes.withLock { nodes throws(FileError) in try nodes.node(number) }
        guard node.kind == UInt32(S_IFDIR) else { throw FileError(ENOTDIR) }
        guard !node.isBarred else { throw isChange ? FileError(EACCES) : .noEntry }
        return try descriptor(number, mayWait: mayWait)
    }

    func checkWritable() throws(FileError) { if shared.isReadOnly { throw .readOnly } }

    /// The attributes of a guest's file, without opening it where its directory is at hand.
    func attributes(_ number: UInt64, mayWait: Bool = true) throws(FileError) -> chost_file_attributes {
        let (node, descriptor) = try nodes.withLock { nodes throws(FileError) in
            (try nodes.node(number), nodes.descriptor(number))
        }
        var found: chost_file_attributes
        if let descriptor {
            found = try descriptor.attributes(isCached: !mayWait)
        } else {
            guard !node.name.isNone else { throw .stale }
            do throws(FileError) {
                found = try self.descriptor(node.parent, mayWait: mayWait).attributes(node.name, isCached: !mayWait)
            } catch {
                throw error.code == ENOENT || error.code == ENOTDIR ? .stale : error
            }
            guard found.identity == node.identity, found.birth == node.birth, found.kind == node.kind else { throw .stale }
        }
        if node.isBarred { found.conceal() }
        return found
    }

    /// Finds a name in a directory, and remembers that the guest was told of it.
    func entry(
        _ name: FileName, in directory: OpenDescriptor, parent: UInt64, mayWait: Bool = true
    ) throws(FileError) -> FUSEEntry {
        try entry(try directory.attributes(name, isCached: !mayWait), name, in: directory, parent: parent, mayWait: mayWait)
    }

    func entry(
        _ found: chost_file_attributes, _ name: FileName, in directory: OpenDescriptor, parent: UInt64, mayWait: Bool = true
    ) throws(FileError) -> FUSEEntry {
        let above = try nodes.withLock { nodes throws(FileError) in try nodes.node(parent) }
        var found = found
        var home = above.home
        if found.mayBeMounted(in: above.identity.device) {
            guard mayWait else { throw .wouldWait }
            (found, home) = try mounted(name, in: directory)
        }
        let number = try nodes.withLock { nodes throws(FileError) in
            try nodes.remember(found, parent: parent, name: name, home: home)
        }
        if home == .kernels { found.conceal() }
        return entry(number, found)
    }

    /// What another file system begins with, and which one it is: both of one descriptor, so that nothing comes in between.
    private func mounted(
        _ name: FileName, in directory: OpenDescriptor
    ) throws(FileError) -> (chost_file_attributes, FileSystemKind) {
        let place = try opening { () throws(FileError) in try directory.open(name, flags: chost_open_path) }
        let found = try place.attributes()
        let home = shared.kind(of: place, found)
        // Files of the kernel's that are bound to a place are not even there.
        guard home != .kernels || found.isDirectory else { throw .noEntry }
        return (found, home)
    }

    func entry(_ number: UInt64, _ found: chost_file_attributes) -> FUSEEntry {
        var entry = FUSEEntry()
        entry.node = number
        entry.entryValid = validSeconds
        entry.attributesValid = validSeconds
        entry.attributes = shown(found)
        return entry
    }

    var validSeconds: UInt64 {
        switch shared.options.caching {
        case .none: 0
        case .auto: 1
        case .always: 86_400
        }
    }

    /// Attributes as the guest sees them.
    func shown(_ found: chost_file_attributes) -> FUSEAttributes {
        var attributes = FUSEAttributes()
        attributes.inode = nodes.withLock { $0.shownInode(found.identity) }
        attributes.size = found.size
        attributes.blocks = found.blocks
        attributes.accessed = UInt64(bitPattern: found.accessed)
        attributes.modified = UInt64(bitPattern: found.modified)
        attributes.changed = UInt64(bitPattern: found.changed)
        attributes.accessedNanoseconds = found.accessed_ns
        attributes.modifiedNanoseconds = found.modified_ns
        attributes.changedNanoseconds = found.changed_ns
        attributes.mode = found.mode
        attributes.links = UInt32(clamping: found.links)
        attributes.user = shared.shownUser(found.user)
        attributes.group = shared.shownGroup(found.group)
        attributes.rawDevice = found.raw_device
        attributes.blockSize = found.block_size
        return attributes
    }

    /// What the guest has open under a number; it belongs to the node that the request names.
    func file(_ handle: UInt64, node: UInt64, isDirectory: Bool? = false) throws(FileError) -> OpenFile {
        guard let file = handles.withLock({ $0.file(handle) }), file.node == node,
            isDirectory ?? file.isDirectory == file.isDirectory
        else { throw .badHandle }
        return file
    }
}
