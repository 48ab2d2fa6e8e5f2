internal import Glibc
internal import VMCore

/// The host's ends of a device's connections: descriptors, what they are waited for, and what they have yet to take.
///
/// Nothing blocks, and no descriptor is waited for that nothing would be done about: an event loop that reports levels
/// would otherwise report it for ever. Not synchronised: the device's lock guards it.
///
/// A place outlives its descriptor: the guest may have to be heard before the place can be another connection's.
@safe final class HostSocketTable: @unchecked Sendable {
    /// A place and which of its users, one after the other, is meant: an event may come after its socket has gone.
    struct Handle: Hashable, Sendable {
        let index: Int
        let generation: UInt64
    }

    /// What became of bytes for the host.
    enum Sent: Hashable {
        /// So many were taken; what is left over waits in the table.
        case taken(UInt32)
        /// The host takes nothing any more.
        case refused
    }

    /// What came from the host.
    enum Received: Hashable {
        case bytes(UInt32)
        case nothing
        case ended
    }

    struct HostSocket {
        var descriptor: Int32 = -1
        var token: UInt64 = 0
        var generation: UInt64 = 0
        var isInUse = false
        /// What it is waited for at present.
        var interest: Readiness = []
        /// Whether there is a use for what it sends.
        var wantsInput = false
        /// It was reported readable, and has not been emptied since.
        var mayRead = false
        var isReadingOver = false
        var isHungUp = false
        var endsWriting = false
        var closesWhenFlushed = false
        var pending: ByteRing?

        var hasPending: Bool { pending.map { !$0.isEmpty } ?? false }

        /// What there is to wait for.
        var needs: Readiness {
            var needs: Readiness = []
            if wantsInput, !isReadingOver, !mayRead { needs.insert(.readable) }
            if hasPending { needs.insert(.writable) }
            if needs.isEmpty, !isHungUp, !mayRead { needs = .hangup }
            return needs
        }
    }

    private(set) var sockets: [HostSocket]
    private var free: [Int]
    private let events: any EventService
    nonisolated(unsafe) private let vectors: UnsafeMutablePointer<iovec>

    init(capacity: Int, events: any EventService) {
        self.events = events
        sockets = Array(repeating: HostSocket(), count: capacity)
        free = (0..<capacity).reversed().map { $0 }
        unsafe vectors = .allocate(capacity: DescriptorChain.capacity)
    }

    deinit {
        for index in sockets.indices where sockets[index].isInUse { release(index) }
        unsafe vectors.deallocate()
    }

    var inUse: Int { sockets.count - free.count }

    func isCurrent(_ handle: Handle) -> Bool {
        sockets.indices.contains(handle.index) && sockets[handle.index].isInUse
            && sockets[handle.index].generation == handle.generation
    }

    // MARK: Places

    /// Takes a connected socket over.
    /// - Returns: its place; nil, and the descriptor closed, where there is none.
    func add(
        _ descriptor: Int32, wantsInput: Bool, _ handler: @escaping @Sendable (Handle, Readiness) -> Void
    ) -> Int? {
        guard let index = free.popLast() else {
            close(descriptor)
            return nil
        }
        let handle = Handle(index: index, generation: sockets[index].generation &+ 1)
        var socket = HostSocket()
        socket.descriptor = descriptor
        socket.generation = handle.generation
        socket.isInUse = true
        socket.wantsInput = wantsInput
        socket.interest = socket.needs
        guard let token = events.watch(descriptor, for: socket.interest, { handler(handle, $0) }) else {
            close(descriptor)
            free.append(index)
            return nil
        }
        socket.token = token
        sockets[index] = socket
        return index
    }

    /// Frees a place; its socket goes at once, with whatever it has yet to take.
    func release(_ index: Int) {
        guard sockets[index].isInUse else { return }
        closeSocket(index)
        sockets[index].isInUse = false
        free.append(index)
    }

    /// Closes the socket once it has taken what waits for it; the place stays. Nothing more is read.
    func closeWhenFlushed(_ index: Int) {
        sockets[index].closesWhenFlushed = true
        sockets[index].wantsInput = false
        sockets[index].mayRead = false
        finishWriting(index)
        settleInterest(index)
    }

    /// The socket, no longer the table's, with what it has yet to take. nil where that is nothing.
    func takeLastBytes(_ index: Int) -> LastBytes.Stream? {
        guard sockets[index].descriptor >= 0, let ring = sockets[index].pending, !ring.isEmpty else { return nil }
        events.unwatch(sockets[index].descriptor, token: sockets[index].token)
        defer {
            sockets[index].descriptor = -1
            sockets[index].pending = nil
            sockets[index].mayRead = false
        }
        return LastBytes.Stream(descriptor: sockets[index].descriptor, ring: ring)
    }

    func isOpen(_ index: Int) -> Bool { sockets[index].descriptor >= 0 }

    private func closeSocket(_ index: Int) {
        guard sockets[index].descriptor >= 0 else { return }
        events.unwatch(sockets[index].descriptor, token: sockets[index].token)
        close(sockets[index].descriptor)
        sockets[index].descriptor = -1
        sockets[index].pending = nil
        sockets[index].mayRead = false
    }

    // MARK: Waiting

    /// An event. What it says is kept; what is waited for is reduced when it says what was known already.
    func note(_ index: Int, _ readiness: Readiness) {
        let wasKnown = sockets[index].mayRead
        if !readiness.isDisjoint(with: .hangup) {
            sockets[index].isHungUp = true
            if !sockets[index].isReadingOver { sockets[index].mayRead = true }
        }
        if readiness.contains(.readable) { sockets[index].mayRead = true }
        // Once more than needed is cheaper than two calls for each piece of a stream that is read as fast as it comes.
        if wasKnown || !readiness.isDisjoint(with: .hangup) { settleInterest(index) }
    }

    func setWantsInput(_ index: Int, _ wanted: Bool) {
        sockets[index].wantsInput = wanted
        settleInterest(index)
    }

    /// Waits for what is needed, exactly.
    private func settleInterest(_ index: Int) {
        guard sockets[index].descriptor >= 0 else { return }
        let needs = sockets[index].needs
        guard needs != sockets[index].interest else { return }
        sockets[index].interest = needs
        events.change(sockets[index].descriptor, token: sockets[index].token, to: needs)
    }

    // MARK: To the host

    /// Sends `count` of the chain's readable bytes, from `offset` on; what the socket does not take is kept.
    ///
    /// - Parameter capacity: bytes that may be kept: the caller sees to it that there are never more.
    func send(_ index: Int, _ chain: DescriptorChain, from offset: UInt64, count: UInt32, capacity: Int) -> Sent {
        guard sockets[index].descriptor >= 0, !sockets[index].endsWriting else { return .refused }
        var taken = 0
        if !sockets[index].hasPending {
            let parts = unsafe slice(chain.readable, from: offset, count: Int(count))
            taken = unsafe UnixSocket.send(sockets[index].descriptor, UnsafeMutableBufferPointer(start: vectors, count: parts))
            if taken < 0 {
                guard taken == Int(-EAGAIN) else { return .refused }
                taken = 0
            }
        }
        var left = Int(count) &- taken
        guard left > 0 else { return .taken(UInt32(taken)) }
        let ring = sockets[index].pending ?? ByteRing(capacity: capacity)
        sockets[index].pending = ring
        while left > 0, unsafe !ring.free.isEmpty {
            let space = unsafe UnsafeMutableRawBufferPointer(rebasing: ring.free.prefix(left))
            let got = unsafe chain.read(at: offset &+ UInt64(Int(count) &- left), into: space)
            guard got > 0 else { break }
            ring.grew(got)
            left &-= got
        }
        settleInterest(index)
        return left == 0 ? .taken(UInt32(taken)) : .refused
    }

    /// Sends a short text of our own, as a whole.
    /// - Returns: whether it went.
    func send(_ index: Int, text: String) -> Bool {
        var bytes = Array(text.utf8)
        let count = bytes.count
        return unsafe bytes.withUnsafeMutableBytes { bytes in
            unsafe vectors[0] = iovec(iov_base: bytes.baseAddress, iov_len: count)
            let whole = unsafe UnsafeMutableBufferPointer(start: vectors, count: 1)
            return unsafe UnixSocket.send(sockets[index].descriptor, whole) == count
        }
    }

    /// Sends on what waits.
    func flush(_ index: Int) -> Sent {
        guard let ring = sockets[index].pending, sockets[index].descriptor >= 0 else { return .taken(0) }
        var total: UInt32 = 0
        while !ring.isEmpty {
            let run = unsafe ring.pending
            unsafe vectors[0] = unsafe iovec(iov_base: UnsafeMutableRawPointer(mutating: run.baseAddress), iov_len: run.count)
            let count = unsafe UnixSocket.send(
                sockets[index].descriptor, UnsafeMutableBufferPointer(start: vectors, count: 1))
            if count == Int(-EAGAIN) { break }
            guard count >= 0 else {
                discard(index)
                return .refused
            }
            ring.shrank(count)
            total &+= UInt32(truncatingIfNeeded: count)
        }
        finishWriting(index)
        settleInterest(index)
        return .taken(total)
    }

    /// The host takes no more: what waits for it is lost.
    func discard(_ index: Int) {
        sockets[index].pending?.removeAll()
        finishWriting(index)
        settleInterest(index)
    }

    /// The host is to see an end, behind what waits.
    func endWriting(_ index: Int) {
        guard !sockets[index].endsWriting else { return }
        sockets[index].endsWriting = true
        finishWriting(index)
    }

    private func finishWriting(_ index: Int) {
        guard !sockets[index].hasPending, sockets[index].descriptor >= 0 else { return }
        if sockets[index].closesWhenFlushed {
            closeSocket(index)
        } else if sockets[index].endsWriting {
            _ = shutdown(sockets[index].descriptor, Int32(SHUT_WR))
        }
    }

    // MARK: From the host

    /// Nothing is read any more, and the host is to see that.
    func endReading(_ index: Int) {
        sockets[index].isReadingOver = true
        sockets[index].mayRead = false
        if sockets[index].descriptor >= 0 { _ = shutdown(sockets[index].descriptor, Int32(SHUT_RD)) }
        settleInterest(index)
    }

    /// Reads at most `count` bytes into the chain's writable ones, from `offset` on.
    func receive(_ index: Int, _ chain: DescriptorChain, from offset: UInt64, count: Int) -> Received {
        guard sockets[index].mayRead, sockets[index].descriptor >= 0, count > 0 else { return .nothing }
        let parts = unsafe slice(chain.writable, from: offset, count: count)
        let got = unsafe UnixSocket.receive(
            sockets[index].descriptor, UnsafeMutableBufferPointer(start: vectors, count: parts))
        return received(index, got, asked: count)
    }

    private func received(_ index: Int, _ got: Int, asked: Int) -> Received {
        if got == Int(-EAGAIN) {
            sockets[index].mayRead = false
            settleInterest(index)
            return .nothing
        }
        guard got > 0 else {
            // The end, or an error, which is an end too: a peer that went without reading all is ECONNRESET.
            if got < 0 { sockets[index].isHungUp = true }
            sockets[index].isReadingOver = true
            sockets[index].mayRead = false
            settleInterest(index)
            return .ended
        }
        if got < asked, !sockets[index].isHungUp {
            // Emptied; what comes now is reported.
            sockets[index].mayRead = false
            settleInterest(index)
        }
        return .bytes(UInt32(truncatingIfNeeded: got))
    }

    /// Reads what belongs to a CONNECT line and nothing behind it.
    func receive(_ index: Int, into line: inout ConnectLine) -> ConnectLine.Step {
        var bytes = InlineArray<32, UInt8>(repeating: 0)
        let room = min(line.room, bytes.count)
        let descriptor = sockets[index].descriptor
        sockets[index].mayRead = false
        let seen = unsafe withUnsafeMutableBytes(of: &bytes) {
            unsafe UnixSocket.peek(descriptor, into: UnsafeMutableRawBufferPointer(rebasing: $0.prefix(room)))
        }
        if seen == Int(-EAGAIN) || seen == Int(-EINTR) { return .incomplete }
        guard seen > 0 else { return .malformed }
        let length = ConnectLine.length(in: bytes.span.extracting(first: seen))
        let got = unsafe withUnsafeMutableBytes(of: &bytes) { unsafe recv(descriptor, $0.baseAddress, length, 0) }
        guard got == length else { return .malformed }
        return line.append(bytes.span.extracting(first: length))
    }

    /// The part of `vectors` that is `count` bytes from `offset` on, in the table's own.
    private func slice(_ source: UnsafeMutableBufferPointer<iovec>, from offset: UInt64, count: Int) -> Int {
        var parts = 0
        unsafe DescriptorChain.walk(source, from: offset, count: count) { run in
            guard parts < DescriptorChain.capacity else { return }
            unsafe vectors[parts] = unsafe iovec(iov_base: run.baseAddress, iov_len: run.count)
            parts &+= 1
        }
        return parts
    }
}
