internal import CHost
internal import Glibc
internal import Synchronization

/// Names: finding, making, removing and moving them.
extension FileServer {
    func lookUp(_ call: FileCall) throws(FileError) {
        try call.needsRoom(MemoryLayout<FUSEEntry>.size)
        let name = try call.name(at: 0).name
        let directory = try directory(call.header.node, mayWait: call.mayWait)
        do throws(FileError) {
            try call.answer(try entry(name, in: directory, parent: call.header.node, mayWait: call.mayWait))
        } catch {
            // That there is no such name may be kept too, but only where nobody else makes one.
            guard error == .noEntry, shared.options.caching == .always else { throw error }
            var nothing = FUSEEntry()
            nothing.entryValid = validSeconds
            try call.answer(nothing)
        }
    }

    func readLink(_ call: FileCall) throws(FileError) {
        let node = try nodes.withLock { nodes throws(FileError) in try nodes.node(call.header.node) }
        guard node.kind == UInt32(S_IFLNK) else { throw .invalid }
        let link = try descriptor(call.header.node, mayWait: call.mayWait)
        guard let target = unsafe call.scratch.bytes.baseAddress else { return }
        let count = try checked(unsafe chost_file_read_link(link.number, target, UInt(FileScratch.byteCount)))
        // The text is the guest's to follow, in its own tree.
        try unsafe call.answer(bytes: UnsafeRawBufferPointer(start: target, count: Int(count)))
    }

    /// Makes something by one call, and tells the guest of it.
    private func make(
        _ call: FileCall, _ name: FileName, _ body: (Int32, UnsafePointer<CChar>) -> Int32
    ) throws(FileError) {
        try call.needsRoom(MemoryLayout<FUSEEntry>.size)
        let directory = try directory(call.header.node, isChange: true)
        try checked(unsafe name.call { name in unsafe body(directory.number, name) })
        try call.answer(try entry(name, in: directory, parent: call.header.node))
    }

    func makeDirectory(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSEMakeDirectory.self)
        let name = try call.name(at: 8).name
        try unsafe make(call, name) { directory, name in unsafe chost_file_make_directory(directory, name, wanted.mode) }
    }

    /// Regular files, FIFOs and sockets, which are only names here: none is ever opened but a regular file. No device nodes.
    func makeNode(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSEMakeNode.self)
        let name = try call.name(at: 16).name
        try checkWritable()
        try unsafe make(call, name) { directory, name in unsafe chost_file_make_node(directory, name, wanted.mode) }
    }

    func makeSymbolicLink(_ call: FileCall) throws(FileError) {
        let (name, end) = try call.name(at: 0)
        let target = try call.text(at: end, limit: 4095).bytes
        guard !target.isEmpty else { throw .noEntry }
        let text = target + [0]
        try unsafe make(call, name) { directory, name in
            unsafe text.withUnsafeBytes { text in
                guard let text = unsafe text.bindMemory(to: CChar.self).baseAddress else { return -EINVAL }
                return unsafe chost_file_make_link(directory, name, text)
            }
        }
    }

    func makeHardLink(_ call: FileCall) throws(FileError) {
        let number = try call.argument(UInt64.self)
        let name = try call.name(at: 8).name
        try checkWritable()
        let file = try descriptor(number)
        try unsafe make(call, name) { directory, name in
            unsafe chost_file_hard_link(shared.table.number, file.number, directory, name)
        }
    }

    // MARK: Removing and moving

    /// Holds on to a file that loses a name, where the guest knows it: it may have it open, or use it for as long as it
    /// remembers.
    private func hold(_ name: FileName, in directory: OpenDescriptor) -> FileIdentity? {
        guard let found = try? directory.attributes(name),
            let number = nodes.withLock({ $0.number(of: found.identity) })
        else { return nil }
        if nodes.withLock({ $0.descriptor(number) }) == nil,
            let opened = try? opening({ () throws(FileError) in try directory.open(name, flags: chost_open_path) }),
            (try? opened.attributes())?.identity == found.identity
        {
            _ = nodes.withLock { $0.attach(opened, to: number) }
        }
        return found.identity
    }

    func remove(_ call: FileCall, isDirectory: Bool) throws(FileError) {
        let name = try call.name(at: 0).name
        let directory = try directory(call.header.node, isChange: true)
        let held = hold(name, in: directory)
        try checked(unsafe name.call { name in unsafe chost_file_remove(directory.number, name, isDirectory) })
        if let held { nodes.withLock { $0.removed(held, parent: call.header.node, name: name) } }
        call.answerEmpty()
    }

    func rename(_ call: FileCall, extended: Bool) throws(FileError) {
        let target = try call.argument(UInt64.self)
        let flags = extended ? try call.argument(FUSERename2.self).flags : 0
        let (old, end) = try call.name(at: extended ? 16 : 8)
        let new = try call.name(at: end).name
        // NOREPLACE and EXCHANGE; WHITEOUT would make a device node.
        guard flags & ~3 == 0, flags != 3 else { throw .invalid }
        let from = try directory(call.header.node, isChange: true)
        let to = try directory(target, isChange: true)
        let moved = try? from.attributes(old)
        let replaced = hold(new, in: to)
        try checked(
            unsafe old.call { old in
                unsafe new.call { new in unsafe chost_file_rename(from.number, old, to.number, new, flags) }
            })
        nodes.withLock { nodes in
            if flags & 2 != 0 {
                if let replaced { nodes.moved(replaced, parent: call.header.node, name: old) }
            } else if let replaced, replaced != moved?.identity {
                nodes.removed(replaced, parent: target, name: new)
            }
            if let moved { nodes.moved(moved.identity, parent: target, name: new) }
        }
        call.answerEmpty()
    }

    func statFileSystem(_ call: FileCall) throws(FileError) {
        var space = chost_file_space()
        let file = try descriptor(call.header.node, mayWait: call.mayWait)
        try checked(unsafe chost_file_space_of(file.number, &space))
        try call.answer(
            FUSESpace(
                blocks: space.blocks, free: space.free, available: space.available, files: space.files,
                freeFiles: space.free_files, blockSize: space.block_size, nameLength: min(space.name_length, 255),
                fragmentSize: space.fragment_size))
    }
}
