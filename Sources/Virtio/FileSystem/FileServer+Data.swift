internal import CHost
internal import Glibc
internal import Synchronization

/// The bytes of files: straight between the host's files and the guest's buffers.
extension FileServer {
    /// Bytes that one COPY_FILE_RANGE copies; a guest asks again for the rest.
    private static let mostCopied: UInt64 = 64 << 20
    /// Bytes that are read without a thread that may wait: more take longer than to wake one.
    private static let mostReadAtOnce: UInt64 = 128 << 10

    func read(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSETransfer.self)
        let file = try file(wanted.handle, node: call.header.node)
        try file.mayBeAsked(call)
        let count = min(UInt64(wanted.size), call.room, Self.mostBytes)
        guard call.mayWait || count <= Self.mostReadAtOnce else { throw .wouldWait }
        let vectors = unsafe call.target(count)
        let done = try unsafe transfer(file, vectors, at: wanted.offset, call.mayWait ? .reading : .readingCached)
        counters.bytesRead.wrappingAdd(done, ordering: .relaxed)
        call.finish(done)
    }

    func write(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSETransfer.self)
        try call.needsRoom(MemoryLayout<FUSECount>.size)
        try checkWritable()
        let file = try file(wanted.handle, node: call.header.node)
        let count = UInt64(wanted.size)
        guard count <= Self.mostBytes, count <= call.argumentBytes - FUSETransfer.byteCount else { throw .invalid }
        if wanted.transferFlags & FUSEBits.writeKillsPrivileges != 0 { try killPrivileges(file.descriptor) }
        let vectors = unsafe call.source(at: FUSETransfer.byteCount, count)
        let done = try unsafe transfer(file, vectors, at: wanted.offset, .writing)
        counters.bytesWritten.wrappingAdd(done, ordering: .relaxed)
        try call.answer(FUSECount(size: UInt32(truncatingIfNeeded: done)))
    }

    private enum Transfer { case reading, readingCached, writing }

    /// - Returns: bytes transferred, fewer than there is room for only at the file's end or where an error comes after them.
    private func transfer(
        _ file: OpenFile, _ vectors: UnsafeMutableBufferPointer<iovec>, at offset: UInt64, _ kind: Transfer
    ) throws(FileError) -> UInt64 {
        guard offset <= UInt64(Int64.max) else { throw .invalid }
        var kind = kind
        var rest = unsafe vectors
        var done: UInt64 = 0
        var retries = 0
        while unsafe VectorTransfer.advance(&rest, by: 0), let first = rest.baseAddress {
            let place = off_t(truncatingIfNeeded: offset &+ done)
            guard place >= 0 else { break }
            let number = Int32(truncatingIfNeeded: min(rest.count, VectorTransfer.mostVectors))
            let descriptor = file.descriptor.number
            var result = 0
            switch kind {
            case .writing: result = unsafe pwritev(descriptor, first, number, place)
            case .reading: result = unsafe preadv(descriptor, first, number, place)
            case .readingCached:
                result = unsafe chost_file_read_cached(descriptor, first, number, Int64(place))
                // A short answer is the file's end to a guest: what is not there yet is all waited for.
                if result == -Int(EAGAIN) { throw .wouldWait }
                if result == -Int(EOPNOTSUPP) {
                    kind = .reading
                    continue
                }
                if result < 0 { throw FileError(Int32(truncatingIfNeeded: -result)) }
            }
            if result < 0 {
                let code = errno
                retries += 1
                if code == EINTR, retries < VectorTransfer.mostRetries { continue }
                guard done > 0 else { throw FileError(code) }
                break
            }
            guard result > 0 else { break }
            done &+= UInt64(result)
            unsafe _ = VectorTransfer.advance(&rest, by: result)
        }
        return done
    }

    func sync(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSESync.self)
        let file = try file(wanted.handle, node: call.header.node, isDirectory: nil)
        try checked(chost_file_sync(file.descriptor.number, wanted.flags & FUSEBits.syncDataOnly != 0))
        call.answerEmpty()
    }

    func syncFileSystem(_ call: FileCall) throws(FileError) {
        // There is nothing of the guest's to be synchronised where it cannot write.
        if !shared.isReadOnly { try checked(chost_file_sync_system(shared.root.number)) }
        call.answerEmpty()
    }

    func allocate(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSEAllocate.self)
        try checkWritable()
        let file = try file(wanted.handle, node: call.header.node)
        // Keeping the size, holes, collapsing, zeroing and inserting. Source: fallocate(2).
        guard wanted.mode & ~0x3B == 0 else { throw .notSupported }
        // Holes and collapsing take none. Else a host would fill its disk first, and see only then that it is too small.
        if wanted.mode & 0x0A == 0 {
            var space = chost_file_space()
            try checked(unsafe chost_file_space_of(file.descriptor.number, &space))
            let (bytes, isMore) = space.available.multipliedReportingOverflow(by: UInt64(max(space.fragment_size, 1)))
            guard isMore || wanted.length <= bytes else { throw FileError(ENOSPC) }
        }
        try checked(
            chost_file_allocate(file.descriptor.number, Int32(wanted.mode), wanted.offset, wanted.length))
        call.answerEmpty()
    }

    /// Data and holes; the rest of lseek(2) is the guest's own affair.
    func seek(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSESeek.self)
        let file = try file(wanted.handle, node: call.header.node)
        let whence = Int32(truncatingIfNeeded: wanted.whence)
        guard whence == chost_seek_data || whence == chost_seek_hole, wanted.offset <= UInt64(Int64.max) else { throw .invalid }
        let found = try checked(chost_file_seek(file.descriptor.number, Int64(wanted.offset), whence))
        try call.answer(UInt64(bitPattern: found))
    }

    func copyRange(_ call: FileCall) throws(FileError) {
        let wanted = try call.argument(FUSECopyRange.self)
        try call.needsRoom(MemoryLayout<FUSECount>.size)
        try checkWritable()
        guard wanted.flags == 0 else { throw .invalid }
        let source = try file(wanted.handle, node: call.header.node)
        let target = try file(wanted.targetHandle, node: wanted.targetNode)
        let copied = try checked(
            chost_file_copy(
                source.descriptor.number, wanted.offset, target.descriptor.number, wanted.targetOffset,
                min(wanted.length, Self.mostCopied)))
        counters.bytesWritten.wrappingAdd(UInt64(copied), ordering: .relaxed)
        try call.answer(FUSECount(size: UInt32(truncatingIfNeeded: copied)))
    }
}
