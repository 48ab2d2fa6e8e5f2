internal import Machine
internal import Synchronization

/// What waits in the host's kernel is done on a thread of its own: the threads that tasks share must not be held up.
enum Blocking {
    /// Runs `body` on a thread of its own. Where the host has no room for one, in place.
    static func run<Value: Sendable>(_ body: @escaping @Sendable () -> Value) async -> Value {
        await withCheckedContinuation { continuation in start { continuation.resume(returning: body()) } }
    }

    /// As above, for a task that may be cancelled: then `onCancel` is to bring `body` to its end, and where it does not within
    /// `patience`, nobody waits for it any longer.
    ///
    /// - Throws: what `body` throws; `CancellationError` where its end was not waited for.
    static func run<Value: Sendable>(
        patience: Duration, onCancel: @escaping @Sendable () -> Void, _ body: @escaping @Sendable () throws -> Value
    ) async throws -> Value {
        let promise = Promise<Value>()
        start { promise.resolve(Result(catching: body)) }
        return try await withTaskCancellationHandler {
            try await promise.value
        } onCancel: {
            onCancel()
            promise.resolve(.failure(CancellationError()), after: patience)
        }
    }

    static func start(_ work: @escaping @Sendable () -> Void) {
        if let thread = Thread(name: "guest-wait", work) { thread.detach() } else { work() }
    }
}

/// A result that is to come. The first that comes counts. Any thread.
final class Promise<Value: Sendable>: Sendable {
    private enum State {
        case open([CheckedContinuation<Value, any Error>])
        case resolved(Result<Value, any Error>)
    }

    private let state = Mutex(State.open([]))

    /// - Returns: whether it was the first.
    @discardableResult
    func resolve(_ result: Result<Value, any Error>) -> Bool {
        let waiting = state.withLock { state -> [CheckedContinuation<Value, any Error>]? in
            guard case .open(let waiting) = state else { return nil }
            state = .resolved(result)
            return waiting
        }
        for continuation in waiting ?? [] { continuation.resume(with: result) }
        return waiting != nil
    }

    /// As above, in some time, if nothing has come until then.
    func resolve(_ result: Result<Value, any Error>, after time: Duration) {
        Task.detached { [self] in
            try? await Task.sleep(for: time)
            resolve(result)
        }
    }

    /// Waits for it, whether the task is cancelled or not.
    var value: Value {
        get async throws {
            try await withCheckedThrowingContinuation { continuation in
                let result = state.withLock { state -> Result<Value, any Error>? in
                    switch state {
                    case .resolved(let result): return result
                    case .open(let waiting):
                        state = .open(waiting + [continuation])
                        return nil
                    }
                }
                if let result { continuation.resume(with: result) }
            }
        }
    }
}
