internal import CHost
internal import Glibc
internal import Synchronization
internal import VMCore

/// Has the host's kernel read, write and flush a descriptor through io_uring(7), without a thread that waits.
///
/// What the ring does not do goes to a thread: discards and zeros, and direct transfers whose buffers are not aligned.
@safe final class RingExecutor: BlockExecutor {
    let kind = BlockExecution.ring
    /// Bytes from which on the kernel is not to copy from its cache while we wait, on the event loop.
    private static let mostInline: UInt64 = 256 << 10
    private let image: any DescriptorImage
    private let events: any EventService
    private let side: ThreadExecutor
    private let event: WakeupEvent
    private let watch: UInt64
    private let state: Mutex<State>

    private struct State {
        let ring: UInt
        /// More than that would have completions wait for room.
        let most: Int
        /// With the kernel, or queued for it.
        var inFlight = 0
        /// For which there is no room yet.
        var backlog = RequestList<BlockRequest>()
        var finished = RequestList<BlockRequest>()
        var isDraining = false
        /// Something was queued since the last entry.
        var hasQueued = false
    }

    /// - Parameters:
    ///   - requests: how many there may be at once; more have to wait for each other.
    ///   - finished: is scheduled when there is something to take.
    /// - Returns: nil where the host has no io_uring for us.
    init?(_ image: any DescriptorImage, requests: Int, threads: Int, events: any EventService, finished: WorkSlot) {
        guard let event = WakeupEvent() else { return nil }
        var ring: UInt = 0
        let size = UInt32(clamping: min(max(requests, 8), 1024))
        guard unsafe chost_ring_open(size, event.descriptor, &ring) == 0 else { return nil }
        let token = events.watch(event.descriptor, for: .readable) { _ in
            // Before the completions are taken: what comes in between counts it up again.
            event.clear()
            finished.schedule()
        }
        guard let token else {
            chost_ring_close(ring)
            return nil
        }
        self.image = image
        self.events = events
        self.event = event
        watch = token
        side = ThreadExecutor(image, threads: threads, finished: finished)
        state = Mutex(State(ring: ring, most: max(1, Int(chost_ring_capacity(ring)) - 8)))
    }

    deinit {
        events.unwatch(event.descriptor, token: watch)
        state.withLock { chost_ring_close($0.ring) }
    }

    // MARK: BlockExecutor

    func submit(_ request: BlockRequest) -> Bool {
        switch request.operation {
        case .read, .write:
            guard unsafe VectorTransfer.fit(request.rest, at: request.offset, alignment: image.alignment) == .aligned else {
                return side.submit(request)
            }
        case .flush: break
        case .discard, .writeZeroes: return side.submit(request)
        }
        state.withLock { state in
            if state.inFlight < state.most { queue(request, &state) } else { state.backlog.append(request) }
        }
        return false
    }

    func commit() { state.withLock { hand(&$0) } }

    func takeFinished() -> BlockRequest? {
        let request = state.withLock { state in
            if state.finished.isEmpty { reap(&state) }
            return state.finished.popFirst()
        }
        return request ?? side.takeFinished()
    }

    func drain(milliseconds: UInt64) -> Bool {
        let deadline = Monitor.now() &+ milliseconds &* 1_000_000
        var isDrained = state.withLock { state in
            state.isDraining = true
            while let request = state.backlog.popFirst() { finish(request, ECANCELED, &state) }
            reap(&state)
            guard state.inFlight > 0 else { return true }
            // What has begun on a file is not to be stopped; what waits in the kernel's own queues is.
            if chost_ring_push(state.ring, Int32(chost_ring_cancel_all), -1, 0, 0, 0, false, 0) { state.hasQueued = true }
            hand(&state)
            return state.inFlight == 0
        }
        while !isDrained, Monitor.now() < deadline {
            // A short wait: the event loop may take the completions away.
            var ready = pollfd(fd: state.withLock { chost_ring_descriptor($0.ring) }, events: Int16(POLLIN), revents: 0)
            _ = unsafe poll(&ready, 1, 10)
            isDrained = state.withLock { state in
                reap(&state)
                return state.inFlight == 0
            }
        }
        let now = Monitor.now()
        return side.drain(milliseconds: now < deadline ? (deadline &- now) / 1_000_000 : 0) && isDrained
    }

    // MARK: The ring

    /// Queues the next step of a request: what is left of its transfer, or its flush.
    private func queue(_ request: BlockRequest, _ state: inout State) {
        let user = unsafe UInt64(UInt(bitPattern: Unmanaged.passRetained(request).toOpaque()))
        guard push(request, user, state.ring) || (chost_ring_enter(state.ring) == 0 && push(request, user, state.ring)) else {
            unsafe Unmanaged<BlockRequest>.fromOpaque(Self.pointer(user)).release()
            return moveAside(request, &state)
        }
        state.hasQueued = true
        state.inFlight &+= 1
    }

    private func push(_ request: BlockRequest, _ user: UInt64, _ ring: UInt) -> Bool {
        let vectors = unsafe request.rest
        guard request.operation != .flush, vectors.count > 0 else {
            return chost_ring_push(ring, Int32(chost_ring_datasync), image.descriptor, 0, 0, 0, false, user)
        }
        let operation = request.operation == .read ? chost_ring_readv : chost_ring_writev
        return chost_ring_push(
            ring, Int32(operation), image.descriptor, request.offset, UInt(bitPattern: vectors.baseAddress),
            UInt32(min(vectors.count, VectorTransfer.mostVectors)), request.bytes > Self.mostInline, user)
    }

    private static func pointer(_ user: UInt64) -> UnsafeRawPointer {
        // Only what `queue` made comes here.
        unsafe UnsafeRawPointer(bitPattern: UInt(user)).unsafelyUnwrapped
    }

    /// Hands what is queued to the kernel. What the kernel has no memory for goes to a thread.
    private func hand(_ state: inout State) {
        guard state.hasQueued else { return }
        state.hasQueued = false
        guard chost_ring_enter(state.ring) != 0 else { return }
        var user: UInt64 = 0
        while unsafe chost_ring_withdraw(state.ring, &user) {
            guard user != 0 else { continue }
            let request = unsafe Unmanaged<BlockRequest>.fromOpaque(Self.pointer(user)).takeRetainedValue()
            state.inFlight &-= 1
            moveAside(request, &state)
        }
    }

    private func moveAside(_ request: BlockRequest, _ state: inout State) {
        if state.isDraining { return finish(request, ECANCELED, &state) }
        if side.submit(request) { state.finished.append(request) }
    }

    private func finish(_ request: BlockRequest, _ result: Int32, _ state: inout State) {
        request.result = result
        state.finished.append(request)
    }

    /// Takes what the kernel has completed, and sends on what is not finished by that.
    private func reap(_ state: inout State) {
        var user: UInt64 = 0
        var result: Int32 = 0
        while unsafe chost_ring_pop(state.ring, &user, &result) {
            guard user != 0 else { continue }
            let request = unsafe Unmanaged<BlockRequest>.fromOpaque(Self.pointer(user)).takeRetainedValue()
            state.inFlight &-= 1
            completed(request, result, &state)
        }
        while state.inFlight < state.most, let request = state.backlog.popFirst() { queue(request, &state) }
        hand(&state)
        if state.inFlight == 0 { state.isDraining = false }
    }

    private func completed(_ request: BlockRequest, _ result: Int32, _ state: inout State) {
        // A reset's doing, and nothing that the disk has said.
        if result == -ECANCELED { return finish(request, ECANCELED, &state) }
        if unsafe request.operation == .flush || request.rest.isEmpty {
            let code = image.flushed(result < 0 ? -result : 0)
            if code == EINTR || code == EAGAIN, mayRetry(request, state) { return queue(request, &state) }
            return finish(request, code, &state)
        }
        if result < 0 {
            switch -result {
            case EINTR, EAGAIN:
                guard mayRetry(request, state) else { return finish(request, -result, &state) }
                return queue(request, &state)
            // Not this way: the thread's calls know others, or have the error that counts.
            case EINVAL, EOPNOTSUPP: return moveAside(request, &state)
            default: return finish(request, -result, &state)
            }
        }
        // The file ends before the image does: somebody has cut it.
        guard result > 0 else { return finish(request, EIO, &state) }
        request.retries = 0
        request.offset &+= UInt64(result)
        let isMore = unsafe VectorTransfer.advance(&request.rest, by: Int(result))
        guard isMore || request.flushesAfter else { return finish(request, 0, &state) }
        guard !state.isDraining else { return finish(request, ECANCELED, &state) }
        // A short transfer may leave a place that the ring cannot take: then the thread does the rest.
        if isMore, unsafe VectorTransfer.fit(request.rest, at: request.offset, alignment: image.alignment) != .aligned {
            return moveAside(request, &state)
        }
        queue(request, &state)
    }

    private func mayRetry(_ request: BlockRequest, _ state: State) -> Bool {
        request.retries &+= 1
        return !state.isDraining && request.retries < VectorTransfer.mostRetries
    }
}
