internal import CHost
internal import Glibc

/// Frames over a stream socket, each behind its length in 32 bits, the high byte first: the protocol of passt, and of QEMU's
/// stream links. Never blocks.
///
/// Source: [PASST].
@safe struct FrameStream: ~Copyable {
    /// The longest frame that either side may send.
    static let largest = 65_600
    private static let lengthBytes = 4
    private static let capacity = 256 << 10

    let descriptor: Int32
    /// The other side has closed, broken the protocol, or cannot be reached: nothing further comes or goes.
    private(set) var isClosed = false
    /// It sent a length that no frame has.
    private(set) var isBroken = false

    private let incoming: UnsafeMutableRawPointer
    private var start = 0
    private var end = 0
    /// The last read got all that there was: the next one is left out, once.
    private var isDrained = false

    private let outgoing: UnsafeMutableRawPointer
    private var sendStart = 0
    private var sendEnd = 0
    /// What is left of the frame at `sendStart`, where part of it has gone.
    private var sendRest = 0

    /// - Parameter descriptor: a connected stream socket, closed with this.
    init(descriptor: Int32) {
        self.descriptor = descriptor
        // Pages of it are the process's only once frames come.
        unsafe incoming = .allocate(byteCount: Self.capacity, alignment: 64)
        unsafe outgoing = .allocate(byteCount: Self.capacity, alignment: 64)
    }

    deinit {
        unsafe incoming.deallocate()
        unsafe outgoing.deallocate()
        Glibc.close(descriptor)
    }

    // MARK: Coming in

    /// The frame at the front, read if need be; nil where no whole one has come yet.
    mutating func next() -> UnsafeRawBufferPointer? {
        guard !isBroken else { return nil }
        if let count = frameLength() { return unsafe frame(count) }
        guard !isBroken, !isClosed else { return nil }
        if isDrained {
            isDrained = false
            return nil
        }
        makeRoom()
        let room = Self.capacity &- end
        let count = unsafe recv(descriptor, incoming + end, room, Int32(MSG_DONTWAIT))
        if count > 0 {
            end &+= count
            guard let whole = frameLength() else { return nil }
            isDrained = count < room
            return unsafe frame(whole)
        } else if count == 0 || (errno != EAGAIN && errno != EINTR) {
            isClosed = true
        }
        return nil
    }

    /// Done with the frame at the front.
    mutating func remove() {
        guard let count = frameLength() else { return }
        start &+= Self.lengthBytes &+ count
        if start == end { (start, end) = (0, 0) }
    }

    private func frame(_ count: Int) -> UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(start: incoming + start + Self.lengthBytes, count: count)
    }

    /// Length of the frame at the front where all of it is here.
    @inline(__always)
    private mutating func frameLength() -> Int? {
        guard end &- start >= Self.lengthBytes else { return nil }
        let count = unsafe UInt32(bigEndian: incoming.loadUnaligned(fromByteOffset: start, as: UInt32.self))
        guard count > 0, count <= UInt32(Self.largest) else {
            isBroken = true
            isClosed = true
            return nil
        }
        return end &- start &- Self.lengthBytes >= Int(count) ? Int(count) : nil
    }

    /// Moves an incomplete frame to the front where its rest would not fit behind it.
    private mutating func makeRoom() {
        guard start > 0, Self.capacity &- start < Self.lengthBytes &+ Self.largest else { return }
        unsafe incoming.copyMemory(from: incoming + start, byteCount: end &- start)
        end &-= start
        start = 0
    }

    // MARK: Going out

    /// Puts a frame behind those that wait to be sent.
    /// - Returns: false where there is no room: nothing was taken.
    mutating func append(_ parts: UnsafeMutableBufferPointer<iovec>, count: Int) -> Bool {
        let total = Self.lengthBytes &+ count
        if Self.capacity &- sendEnd < total {
            guard flush(), Self.capacity >= total else { return false }
        }
        unsafe outgoing.storeBytes(of: UInt32(truncatingIfNeeded: count).bigEndian, toByteOffset: sendEnd, as: UInt32.self)
        var place = sendEnd &+ Self.lengthBytes
        let end = sendEnd &+ total
        for unsafe part in unsafe parts {
            guard let base = unsafe part.iov_base else { continue }
            let length = unsafe min(part.iov_len, end &- place)
            unsafe (outgoing + place).copyMemory(from: base, byteCount: length)
            place &+= length
        }
        // A frame shorter than it was said to be would shift all that follow.
        guard place == end else { return true }
        sendEnd = end
        return true
    }

    /// Each frame in a message of its own. A passt of before 2024 takes a length of which its read got a part, or all without any of the
    /// frame, for nothing, and is out of step from there on; frames of up to 48 KiB are never cut.
    ///
    /// - Returns: whether all that waited has gone.
    mutating func flush() -> Bool {
        while sendStart < sendEnd, !isClosed {
            let count = unsafe chost_send_frames(descriptor, outgoing + sendStart, sendEnd &- sendStart, &sendRest)
            if count > 0 {
                sendStart &+= count
            } else if count == -Int(EAGAIN) {
                return false
            } else {
                isClosed = true
            }
        }
        (sendStart, sendEnd, sendRest) = (0, 0, 0)
        return true
    }
}
