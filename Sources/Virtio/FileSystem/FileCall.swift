internal import Glibc

/// A request while it is worked on: what it holds, read once, and its answer.
struct FileCall {
    let request: FileRequest
    let header: FUSERequestHeader
    let scratch: FileScratch
    /// Whether the host may take its time. Else `FileError.wouldWait` is thrown before anything has been done.
    let mayWait: Bool

    private var chain: DescriptorChain { request.chain }
    /// Bytes behind the header, as the header says and as there are.
    var argumentBytes: UInt64 { UInt64(header.length) - FUSERequestHeader.byteCount }
    /// Bytes that there are for an answer behind its header.
    var room: UInt64 { chain.writableBytes &- min(chain.writableBytes, FUSEAnswerHeader.byteCount) }

    // MARK: What it holds

    func argument<Value: BitwiseCopyable>(_ type: Value.Type) throws(FileError) -> Value {
        guard UInt64(MemoryLayout<Value>.size) <= argumentBytes,
            let value = chain.load(type, at: FUSERequestHeader.byteCount)
        else { throw .invalid }
        return value
    }

    /// Copies up to `count` bytes of the arguments to the scratch memory.
    func copyArguments(from offset: UInt64, count: Int) -> UnsafeRawBufferPointer {
        let rest = argumentBytes - min(argumentBytes, offset)
        let wanted = Int(min(rest, UInt64(min(count, FileScratch.byteCount))))
        let target = unsafe UnsafeMutableRawBufferPointer(rebasing: scratch.bytes[..<wanted])
        let copied = unsafe chain.read(at: FUSERequestHeader.byteCount &+ offset, into: target)
        return unsafe UnsafeRawBufferPointer(rebasing: target[..<copied])
    }

    /// The zero-terminated bytes at `offset`, at most `limit` of them, and where what follows them begins.
    func text(at offset: UInt64, limit: Int) throws(FileError) -> (bytes: [UInt8], end: UInt64) {
        let found = unsafe copyArguments(from: offset, count: limit + 1)
        guard let end = unsafe found.firstIndex(of: 0) else {
            throw found.count > limit ? FileError(ENAMETOOLONG) : .invalid
        }
        return (unsafe Array(found[..<end]), offset &+ UInt64(end) &+ 1)
    }

    /// A checked component at `offset`, and where what follows it begins.
    func name(at offset: UInt64) throws(FileError) -> (name: FileName, end: UInt64) {
        let found = unsafe copyArguments(from: offset, count: 256)
        guard let end = unsafe found.firstIndex(of: 0) else { throw found.count > 255 ? FileError(ENAMETOOLONG) : .invalid }
        return (try unsafe FileName(UnsafeRawBufferPointer(rebasing: found[..<end])), offset &+ UInt64(end) &+ 1)
    }

    // MARK: The answer

    /// To be asked before anything is done whose answer the guest must get.
    func needsRoom(_ count: Int) throws(FileError) { if room < UInt64(count) { throw .invalid } }

    func answer<Value: BitwiseCopyable>(_ value: Value) throws(FileError) {
        guard chain.store(value, at: FUSEAnswerHeader.byteCount) else { throw .invalid }
        finish(UInt64(MemoryLayout<Value>.size))
    }

    func answer(bytes: UnsafeRawBufferPointer) throws(FileError) {
        guard UInt64(bytes.count) <= room else { throw FileError(ERANGE) }
        unsafe chain.write(bytes, at: FUSEAnswerHeader.byteCount)
        finish(UInt64(bytes.count))
    }

    func answerEmpty() { request.answer(error: 0) }

    /// Puts bytes behind what the answer holds already.
    func append<Value: BitwiseCopyable>(_ value: Value, at offset: Int) {
        chain.store(value, at: FUSEAnswerHeader.byteCount &+ UInt64(offset))
    }

    func append(bytes: UnsafeRawBufferPointer, at offset: Int) {
        unsafe chain.write(bytes, at: FUSEAnswerHeader.byteCount &+ UInt64(offset))
    }

    /// The answer has so many bytes behind its header.
    func finish(_ count: UInt64) {
        let length = FUSEAnswerHeader.byteCount &+ min(count, room)
        let header = FUSEAnswerHeader(length: UInt32(truncatingIfNeeded: length), error: 0, unique: header.unique)
        request.written = chain.store(header, at: 0) ? length : 0
    }

    // MARK: Data

    /// The guest's buffers for `count` bytes of data, for the host to write to.
    func target(_ count: UInt64) -> UnsafeMutableBufferPointer<iovec> {
        request.touched = FUSEAnswerHeader.byteCount &+ count
        return unsafe Self.cut(chain.writable, skip: FUSEAnswerHeader.byteCount, count: count, into: scratch.vectors)
    }

    /// The guest's bytes from `offset` in the arguments on.
    func source(at offset: UInt64, _ count: UInt64) -> UnsafeMutableBufferPointer<iovec> {
        unsafe Self.cut(
            chain.readable, skip: FUSERequestHeader.byteCount &+ offset, count: count, into: scratch.vectors)
    }

    private static func cut(
        _ all: UnsafeMutableBufferPointer<iovec>, skip: UInt64, count: UInt64, into vectors: UnsafeMutableBufferPointer<iovec>
    ) -> UnsafeMutableBufferPointer<iovec> {
        var skip = skip
        var rest = count
        var used = 0
        for unsafe vector in unsafe all {
            guard rest > 0 else { break }
            let length = unsafe UInt64(vector.iov_len)
            guard skip < length else {
                skip &-= length
                continue
            }
            let part = min(rest, length &- skip)
            if let base = unsafe vector.iov_base {
                unsafe vectors[used] = iovec(iov_base: base + Int(skip), iov_len: Int(part))
                used &+= 1
            }
            rest &-= part
            skip = 0
        }
        return unsafe UnsafeMutableBufferPointer(rebasing: vectors[..<used])
    }
}
