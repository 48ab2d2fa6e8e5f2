internal import Synchronization
internal import Windhover

/// What the host has for guests of tests that run at once, given out in order. Any task.
final class HostCapacity: Sendable {
    private struct Share {
        var memory: UInt64
        var cpus: Int
    }

    private struct Waiter {
        var token: UInt64
        var share: Share
        var continuation: CheckedContinuation<Bool, Never>
    }

    private struct State {
        var memoryInUse: UInt64 = 0
        var cpusInUse = 0
        var holders = 0
        var waiters: [Waiter] = []
        var nextToken: UInt64 = 0
    }

    /// This process's: four fifths of the memory that the host has left, and its processors.
    static let shared = HostCapacity(
        memory: HostFacts.availableMemory().map { $0 / 5 * 4 } ?? 1 << 30, cpus: HostFacts.processorCount())

    /// Bytes that a guest takes beside its own memory.
    private static let overhead: UInt64 = 64 << 20

    private let memory: UInt64
    private let cpus: Int
    private let state = Mutex(State())

    init(memory: UInt64, cpus: Int) {
        self.memory = memory
        self.cpus = cpus
    }

    /// Runs `body` once there is room for a guest.
    ///
    /// One that is larger than all the host has gets it when nobody else has any.
    /// - Parameter isUrgent: it does not wait.
    /// - Throws: `CancellationError` while it waits; what `body` throws.
    func withShare(
        of configuration: VirtualMachineConfiguration, isUrgent: Bool, _ body: () async throws -> Void
    ) async throws {
        let (memory, overflow) = configuration.memory.bytes.addingReportingOverflow(Self.overhead)
        let share = Share(memory: overflow ? .max : memory, cpus: configuration.cpuCount)
        try await acquire(share, isUrgent)
        defer { release(share) }
        try await body()
    }

    /// Guests that there is no room for yet.
    var waitingCount: Int { state.withLock { $0.waiters.count } }

    private func fits(_ share: Share, _ state: State) -> Bool {
        guard state.holders > 0 else { return true }
        let (sum, overflow) = state.memoryInUse.addingReportingOverflow(share.memory)
        return !overflow && sum <= memory && state.cpusInUse + share.cpus <= cpus
    }

    private static func take(_ share: Share, _ state: inout State) {
        state.holders += 1
        state.memoryInUse &+= share.memory
        state.cpusInUse += share.cpus
    }

    private func acquire(_ share: Share, _ isUrgent: Bool) async throws {
        let token = state.withLock { state in
            defer { state.nextToken += 1 }
            return state.nextToken
        }
        let isGiven = await withTaskCancellationHandler {
            await withCheckedContinuation { (continuation: CheckedContinuation<Bool, Never>) in
                let answer = state.withLock { state -> Bool? in
                    // A cancellation that comes later finds the waiter.
                    if Task.isCancelled { return false }
                    guard isUrgent || state.waiters.isEmpty && fits(share, state) else {
                        state.waiters.append(Waiter(token: token, share: share, continuation: continuation))
                        return nil
                    }
                    Self.take(share, &state)
                    return true
                }
                if let answer { continuation.resume(returning: answer) }
            }
        } onCancel: {
            let waiter = state.withLock { state in
                state.waiters.firstIndex { $0.token == token }.map { state.waiters.remove(at: $0) }
            }
            waiter?.continuation.resume(returning: false)
            // Who stood behind it may fit.
            if waiter != nil { serve() }
        }
        guard isGiven else { throw CancellationError() }
    }

    private func release(_ share: Share) {
        state.withLock { state in
            state.holders -= 1
            state.memoryInUse &-= share.memory
            state.cpusInUse -= share.cpus
        }
        serve()
    }

    /// In the order in which they came, so that a large one is not passed over for ever.
    private func serve() {
        let served = state.withLock { state -> [Waiter] in
            var served: [Waiter] = []
            while let first = state.waiters.first, fits(first.share, state) {
                Self.take(first.share, &state)
                served.append(state.waiters.removeFirst())
            }
            return served
        }
        for waiter in served { waiter.continuation.resume(returning: true) }
    }
}
