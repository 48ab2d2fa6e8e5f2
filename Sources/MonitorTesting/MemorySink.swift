internal import Synchronization
public import VMCore

/// A bounded sink that keeps what it is given until a test takes it.
public final class MemorySink: ByteSink {
    private struct State {
        var bytes: [UInt8] = []
        var isPaused = false
        /// A writer was left with bytes and has not been told of room since.
        var isWriterWaiting = false
        var handler: (@Sendable () -> Void)?
        var writes = 0
    }

    private let capacity: Int
    private let state = Mutex(State())

    /// - Parameter capacity: bytes it holds before it is full.
    public init(capacity: Int = 65_536) { self.capacity = capacity }

    public func write(_ bytes: UnsafeRawBufferPointer) -> Int {
        state.withLock { state in
            state.writes += 1
            let taken = state.isPaused ? 0 : min(bytes.count, capacity - state.bytes.count)
            let part = unsafe UnsafeRawBufferPointer(rebasing: bytes[..<taken])
            unsafe state.bytes.append(contentsOf: part)
            if taken < bytes.count { state.isWriterWaiting = true }
            return taken
        }
    }

    public func setSpaceHandler(_ handler: @escaping @Sendable () -> Void) {
        state.withLock { $0.handler = handler }
    }

    /// What it holds now.
    public var bytes: [UInt8] { state.withLock { $0.bytes } }
    /// How often it was written to, whatever it took.
    public var writes: Int { state.withLock { $0.writes } }

    /// Takes nothing from now on, as if full.
    public func pause() { state.withLock { $0.isPaused = true } }

    /// Takes bytes again, and says so to a writer that waits.
    public func resume() {
        state.withLock { $0.isPaused = false }
        tellWriter()
    }

    /// Removes and returns what it holds, at most `count` bytes, then tells a writer that waits.
    @discardableResult
    public func drain(_ count: Int = .max) -> [UInt8] {
        let taken = state.withLock { state in
            let taken = Array(state.bytes.prefix(max(0, count)))
            state.bytes.removeFirst(taken.count)
            return taken
        }
        tellWriter()
        return taken
    }

    /// Calls the space handler if there is somebody to tell and room to tell of; with no lock held.
    private func tellWriter() {
        let handler = state.withLock { state -> (@Sendable () -> Void)? in
            guard state.isWriterWaiting, !state.isPaused, state.bytes.count < capacity else { return nil }
            state.isWriterWaiting = false
            return state.handler
        }
        handler?()
    }
}
