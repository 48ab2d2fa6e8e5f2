internal import Synchronization
public import VMCore

/// A sink that keeps interrupt messages until a test takes them.
public final class RecordingMessages: InterruptMessageSink {
    private let messages = Mutex<[InterruptMessage]>([])

    public init() {}

    public func send(_ message: InterruptMessage) { messages.withLock { $0.append(message) } }

    /// Removes and returns what was sent, in its order.
    public func take() -> [InterruptMessage] {
        messages.withLock { messages in
            defer { messages = [] }
            return messages
        }
    }
}
