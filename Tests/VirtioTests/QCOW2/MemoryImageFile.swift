import Glibc
import Synchronization

@testable import Virtio

/// What was done to a file.
enum FileOperation {
    case write(offset: Int, bytes: [UInt8])
    case truncate(Int)
    case punch(offset: Int, count: Int)
    case sync

    /// Does it to a file's bytes.
    func apply(to file: inout [UInt8]) {
        switch self {
        case .write(let offset, let bytes):
            if file.count < offset + bytes.count { file += Array(repeating: 0, count: offset + bytes.count - file.count) }
            file.withUnsafeMutableBytes { target in
                UnsafeMutableRawBufferPointer(rebasing: target[offset..<offset + bytes.count]).copyBytes(from: bytes)
            }
        case .truncate(let size):
            if size < file.count { file.removeLast(file.count - size) }
            if size > file.count { file += Array(repeating: 0, count: size - file.count) }
        case .punch(let offset, let count):
            let end = min(file.count, offset + count)
            guard offset < end else { return }
            file.withUnsafeMutableBytes { _ = memset($0.baseAddress! + offset, 0, end - offset) }
        case .sync: break
        }
    }
}

/// A file in memory, that remembers what is done to it, and fails when it is told to.
final class MemoryImageFile: ImageFile {
    private struct State {
        var bytes: [UInt8]
        var log: [FileOperation] = []
        var isLogging = false
        var failAfter = Int.max
        var failingSync = false
        var beforeRead: (@Sendable (UInt64) -> Void)?
    }

    private let state: Mutex<State>
    /// The most that it may grow to.
    private let limit: Int

    init(_ bytes: [UInt8] = [], limit: Int = 64 << 20) {
        state = Mutex(State(bytes: bytes))
        self.limit = limit
    }

    var bytes: [UInt8] { state.withLock { $0.bytes } }
    var log: [FileOperation] { state.withLock { $0.log } }
    var logCount: Int { state.withLock { $0.log.count } }

    func startLog() { state.withLock { ($0.log, $0.isLogging) = ([], true) } }
    /// Lets so many more changes succeed; the later ones fail with ENOSPC.
    func fail(after count: Int) { state.withLock { $0.failAfter = count } }
    func failSync(_ fails: Bool) { state.withLock { $0.failingSync = fails } }

    /// Is called before the next read, once, without the lock.
    func beforeNextRead(_ body: @escaping @Sendable (UInt64) -> Void) { state.withLock { $0.beforeRead = body } }

    private func change(_ operation: FileOperation) throws(BlockError) {
        let error: BlockError? = state.withLock { state in
            if case .sync = operation { if state.failingSync { return .host(errno: EIO) } } else {
                guard state.failAfter > 0 else { return .host(errno: ENOSPC) }
                if state.failAfter < Int.max { state.failAfter -= 1 }
            }
            if state.isLogging { state.log.append(operation) }
            operation.apply(to: &state.bytes)
            return nil
        }
        if let error { throw error }
    }

    func size() throws(BlockError) -> UInt64 { UInt64(state.withLock { $0.bytes.count }) }

    func readSome(at offset: UInt64, into vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) -> Int {
        guard let start = Int(exactly: offset) else { return 0 }
        let hook = state.withLock { state in
            defer { state.beforeRead = nil }
            return state.beforeRead
        }
        hook?(offset)
        // Addresses, as the lock's closure may not capture pointers.
        let pieces = vectors.map { (UInt(bitPattern: $0.iov_base), $0.iov_len) }
        return state.withLock { state in
            var done = 0
            for (address, length) in pieces {
                let count = min(length, max(0, state.bytes.count - start - done))
                guard count > 0 else { break }
                state.bytes.withUnsafeBytes {
                    _ = memcpy(UnsafeMutableRawPointer(bitPattern: address)!, $0.baseAddress! + start + done, count)
                }
                done += count
            }
            return done
        }
    }

    func writeSome(at offset: UInt64, from vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) -> Int {
        var bytes: [UInt8] = []
        for vector in vectors { bytes += UnsafeRawBufferPointer(start: vector.iov_base, count: vector.iov_len) }
        guard let start = Int(exactly: offset), start + bytes.count <= limit else { throw .host(errno: EFBIG) }
        try change(.write(offset: start, bytes: bytes))
        return bytes.count
    }

    func truncate(to size: UInt64) throws(BlockError) {
        guard size <= UInt64(limit) else { throw .host(errno: EFBIG) }
        try change(.truncate(Int(size)))
    }

    func punch(at offset: UInt64, count: UInt64) { try? change(.punch(offset: Int(offset), count: Int(count))) }
    func sync() throws(BlockError) { try change(.sync) }
}

extension BlockImage {
    func bytes(at offset: Int, count: Int) throws(BlockError) -> [UInt8] {
        var bytes = Array(repeating: UInt8(0xEE), count: count)
        var result: BlockError?
        bytes.withUnsafeMutableBytes { buffer in
            var vectors = Self.pieces(buffer)
            vectors.withUnsafeMutableBufferPointer { vectors in
                do throws(BlockError) { try read(at: UInt64(offset), into: vectors) } catch { result = error }
            }
        }
        if let result { throw result }
        return bytes
    }

    func put(_ bytes: [UInt8], at offset: Int) throws(BlockError) {
        var result: BlockError?
        bytes.withUnsafeBytes { buffer in
            var vectors = Self.pieces(UnsafeMutableRawBufferPointer(mutating: buffer))
            vectors.withUnsafeMutableBufferPointer { vectors in
                do throws(BlockError) { try write(at: UInt64(offset), from: vectors) } catch { result = error }
            }
        }
        if let result { throw result }
    }

    /// The buffer in a few vectors, some of them of odd lengths and one of none.
    private static func pieces(_ buffer: UnsafeMutableRawBufferPointer) -> [iovec] {
        guard buffer.count > 700 else { return [iovec(iov_base: buffer.baseAddress, iov_len: buffer.count)] }
        let cuts = [0, 13, 13, 600, buffer.count]
        return zip(cuts, cuts.dropFirst()).map { iovec(iov_base: buffer.baseAddress! + $0, iov_len: $1 - $0) }
    }
}

/// A disk of bytes in memory, to be under others.
final class MemoryDisk: BlockImage {
    private let content: [UInt8]
    init(_ content: [UInt8]) { self.content = content }
    var capacity: UInt64 { UInt64(content.count) }
    var isReadOnly: Bool { true }
    var preferredBlockSize: UInt32 { 512 }

    func read(at offset: UInt64, into vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) {
        var place = Int(offset)
        for vector in vectors where vector.iov_len > 0 {
            guard vector.iov_len <= content.count - place else { throw .outOfRange(offset: offset, count: 0) }
            content.withUnsafeBytes { _ = memcpy(vector.iov_base, $0.baseAddress! + place, vector.iov_len) }
            place += vector.iov_len
        }
    }
    func write(at offset: UInt64, from vectors: UnsafeMutableBufferPointer<iovec>) throws(BlockError) { throw .readOnly }
    func flush() throws(BlockError) {}
    func discard(at offset: UInt64, count: UInt64) throws(BlockError) { throw .readOnly }
    func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(BlockError) { throw .readOnly }
}

/// A new image's bytes.
func newQCOW2Image(_ parameters: QCOW2Parameters) throws -> [UInt8] {
    let file = MemoryImageFile()
    try NewImage(parameters).write(to: file)
    return file.bytes
}
