internal import VMCore

/// What is waited for: locks that others have, and threads that the host does not let go of.
extension FileSystemDevice {
    /// Requests that wait for a lock at once.
    static let mostWaiting = 32
    /// How often a lock is tried again, and for how long, in nanoseconds.
    private static let lockInterval: UInt64 = 20_000_000
    private static let lockPatience: UInt64 = 60_000_000_000
    /// For how long requests wait for a thread, in nanoseconds, before there is one more.
    private static let threadPatience: UInt64 = 50_000_000

    // MARK: Locks that others have

    func wait(_ request: FileRequest, _ state: inout State) {
        let now = clock.now()
        if request.waitsUntil == 0 { request.waitsUntil = now &+ Self.lockPatience }
        if let index = state.interrupted.firstIndex(of: request.unique) {
            state.interrupted.remove(at: index)
            return giveUp(request, &state)
        }
        guard state.waiting.count < Self.mostWaiting, now < request.waitsUntil else { return giveUp(request, &state) }
        state.waiting.append(request)
        guard state.retriesAt == nil else { return }
        state.retriesAt = now &+ Self.lockInterval
        retry.set(deadline: state.retriesAt)
    }

    /// A guest cannot interrupt a wait of its own: it is told that it was.
    func giveUp(_ request: FileRequest, _ state: inout State) {
        request.answer(error: FileSystemConfiguration.interrupted)
        giveBack(request, &state)
    }

    func interrupt(_ unique: UInt64, _ state: inout State) {
        if let index = state.waiting.firstIndex(where: { $0.unique == unique }) { return giveUp(state.waiting.remove(at: index), &state) }
        if state.interrupted.count == Self.mostWaiting { state.interrupted.removeFirst() }
        state.interrupted.append(unique)
    }

    func retryLocks(_ state: inout State) {
        guard let time = state.retriesAt, clock.now() >= time else { return }
        state.retriesAt = nil
        let all = state.waiting
        state.waiting.removeAll(keepingCapacity: true)
        for request in all { submit(request, &state) }
    }

    // MARK: Threads that the host does not let go of

    /// Requests wait for a thread: are any of them let go of? A server that is gone must not hold up what has nothing to do with it.
    func watchThreads(_ state: inout State) {
        guard state.relievesAt == nil else { return }
        state.takenBefore = workers.backlog.taken
        state.relievesAt = clock.now() &+ Self.threadPatience
        relief.set(deadline: state.relievesAt)
    }

    func relieve(_ state: inout State) {
        guard let time = state.relievesAt, clock.now() >= time else { return }
        state.relievesAt = nil
        let backlog = workers.backlog
        guard backlog.waiting > 0 else { return }
        // There are never more requests than that.
        if backlog.taken == state.takenBefore { workers.relieve(limit: Self.mostRequests) }
        watchThreads(&state)
    }
}
