internal import Machine
internal import Synchronization

/// What waits in the host's kernel is done on a thread of its own: the threads that tasks share must not be held up.
enum Blocking {
    /// Runs `body` on a thread of its own. Where the host has no room for one, in place.
    static func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            let work: @Sendable () -> Void = { continuation.resume(with: Result(catching: body)) }
            if let thread = Thread(name: "guest-wait", work) { thread.detach() } else { work() }
        }
    }

    static func run<Value: Sendable>(_ body: @escaping @Sendable () -> Value) async -> Value {
        await withCheckedContinuation { continuation in
            let work: @Sendable () -> Void = { continuation.resume(returning: body()) }
            if let thread = Thread(name: "guest-wait", work) { thread.detach() } else { work() }
        }
    }
}
