public import Glibc
internal import VMCore

/// One request of a driver's: the buffers of its descriptor chain, the readable ones first, checked to lie in guest memory.
///
/// An object is used over and over, so that taking a request allocates nothing: make as many as are in flight at once.
/// The guest may write its memory while it is read: what is looked at is copied out once.
///
/// Source: [VIRTIO1.2 §2.6.4], [VIRTIO1.2 §2.7.4].
@safe public final class DescriptorChain: @unchecked Sendable {
    /// Most buffers of one chain, whatever the queue's size: longer ones are refused.
    public static let capacity = 1024

    /// Split layout: the index of the chain's first descriptor. Packed: the buffer's identifier.
    public internal(set) var identifier: UInt16 = 0
    /// How many descriptors of the ring itself the chain takes: more than one only without an indirect table.
    var ringDescriptors: UInt16 = 0

    /// The buffers as `readv` and `writev` take them.
    nonisolated(unsafe) private let vectors: UnsafeMutablePointer<iovec>
    nonisolated(unsafe) private let addresses: UnsafeMutablePointer<GuestAddress>
    public private(set) var readableBuffers = 0
    public private(set) var writableBuffers = 0
    /// Bytes in the readable buffers together; at most 2^32.
    public private(set) var readableBytes: UInt64 = 0
    /// Bytes in the writable buffers together; at most 2^32.
    public private(set) var writableBytes: UInt64 = 0

    public init() {
        unsafe vectors = .allocate(capacity: Self.capacity)
        unsafe addresses = .allocate(capacity: Self.capacity)
    }

    deinit {
        unsafe vectors.deallocate()
        unsafe addresses.deallocate()
    }

    /// The device-readable buffers, as vectors for the host's calls. Valid until the chain takes the next request.
    public var readable: UnsafeMutableBufferPointer<iovec> {
        unsafe UnsafeMutableBufferPointer(start: vectors, count: readableBuffers)
    }

    /// The device-writable buffers, likewise.
    public var writable: UnsafeMutableBufferPointer<iovec> {
        unsafe UnsafeMutableBufferPointer(start: vectors + readableBuffers, count: writableBuffers)
    }

    /// Where in guest memory a device-writable buffer lies.
    /// - Parameter index: below `writableBuffers`.
    func writableAddress(_ index: Int) -> GuestAddress { unsafe addresses[readableBuffers &+ index] }

    // MARK: Filling

    @inline(__always)
    func clear() {
        readableBuffers = 0
        writableBuffers = 0
        readableBytes = 0
        writableBytes = 0
        ringDescriptors = 0
    }

    /// Adds one descriptor's buffer. One without bytes adds none.
    @inline(__always)
    func append(
        address: GuestAddress, count: UInt32, isWritable: Bool, memory: GuestMemory
    ) -> QueueError? {
        if !isWritable, writableBuffers > 0 { return .readableAfterWritable }
        guard count > 0 else { return nil }
        let index = readableBuffers &+ writableBuffers
        guard index < Self.capacity else { return .endlessChain }
        guard let bytes = unsafe memory.hostBytes(at: address, count: UInt64(count)) else {
            return .outsideMemory(address: address, count: UInt64(count))
        }
        guard readableBytes &+ writableBytes &+ UInt64(count) <= 1 << 32 else { return .tooManyBytes }
        unsafe vectors[index] = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
        unsafe addresses[index] = address
        if isWritable {
            writableBuffers &+= 1
            writableBytes &+= UInt64(count)
        } else {
            readableBuffers &+= 1
            readableBytes &+= UInt64(count)
        }
        return nil
    }

    // MARK: Copying

    /// Copies readable bytes out, from `offset` on.
    /// - Returns: how many there were; less than asked for at the end of them.
    public func read(at offset: UInt64, into target: UnsafeMutableRawBufferPointer) -> Int {
        var copied = 0
        unsafe Self.walk(readable, from: offset, count: target.count) { source in
            unsafe UnsafeMutableRawBufferPointer(rebasing: target[copied...]).copyMemory(from: UnsafeRawBufferPointer(source))
            copied &+= source.count
        }
        return copied
    }

    /// Copies a plain value out of the readable bytes; nil where they end before.
    public func load<Value: BitwiseCopyable>(_ type: Value.Type, at offset: UInt64) -> Value? {
        unsafe withUnsafeTemporaryAllocation(
            byteCount: MemoryLayout<Value>.size, alignment: MemoryLayout<Value>.alignment
        ) { bytes in
            guard unsafe read(at: offset, into: bytes) == MemoryLayout<Value>.size else { return nil }
            return unsafe bytes.loadUnaligned(as: type)
        }
    }

    /// Copies bytes into the writable buffers, from `offset` on.
    /// - Returns: how many there was room for.
    @discardableResult
    public func write(_ source: UnsafeRawBufferPointer, at offset: UInt64) -> Int {
        var copied = 0
        unsafe Self.walk(writable, from: offset, count: source.count) { target in
            unsafe target.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[copied..<(copied &+ target.count)]))
            copied &+= target.count
        }
        return copied
    }

    /// Copies a plain value into the writable buffers.
    /// - Returns: whether there was room for all of it.
    @discardableResult
    public func store<Value: BitwiseCopyable>(_ value: Value, at offset: UInt64) -> Bool {
        unsafe withUnsafeBytes(of: value) { bytes in unsafe write(bytes, at: offset) == MemoryLayout<Value>.size }
    }

    /// Calls `body` for each run of host bytes in `count` bytes from `offset` on, as far as there are any.
    static func walk(
        _ vectors: UnsafeMutableBufferPointer<iovec>, from offset: UInt64, count: Int,
        _ body: (UnsafeMutableRawBufferPointer) -> Void
    ) {
        var skip = offset
        var rest = count
        var index = 0
        while rest > 0, index < vectors.count {
            let vector = unsafe vectors[index]
            index &+= 1
            let length = unsafe UInt64(vector.iov_len)
            guard skip < length else {
                skip &-= length
                continue
            }
            let part = min(rest, Int(length &- skip))
            if let base = unsafe vector.iov_base {
                unsafe body(UnsafeMutableRawBufferPointer(start: base + Int(skip), count: part))
            }
            rest &-= part
            skip = 0
        }
    }

    /// Tells the memory's observers that the first `count` writable bytes were written.
    func tellWritten(_ count: UInt64, to memory: GuestMemory) {
        var rest = count
        var index = readableBuffers
        let end = readableBuffers &+ writableBuffers
        while rest > 0, index < end {
            let part = unsafe min(rest, UInt64(vectors[index].iov_len))
            memory.written(at: unsafe addresses[index], count: part)
            rest &-= part
            index &+= 1
        }
    }
}
