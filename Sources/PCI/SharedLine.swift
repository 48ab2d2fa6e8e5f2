internal import Synchronization
public import VMCore

/// A wire that several functions drive: high as long as any of them asks.
///
/// There are fewer inputs of an interrupt controller than devices. Its lock is between a function's and the controller's.
public final class SharedLine: Sendable {
    private let line: any InterruptLine
    private let asking = Mutex(0)

    public init(_ line: any InterruptLine) { self.line = line }

    /// One function's end of the wire.
    public func input() -> any InterruptLine { Input(self) }

    private func change(by step: Int) {
        asking.withLock { asking in
            let wasHigh = asking > 0
            asking += step
            if (asking > 0) != wasHigh { line.setLevel(asking > 0) }
        }
    }

    private final class Input: InterruptLine {
        private let shared: SharedLine
        private let isHigh = Atomic<Bool>(false)

        init(_ shared: SharedLine) { self.shared = shared }

        func setLevel(_ isHigh: Bool) {
            guard self.isHigh.exchange(isHigh, ordering: .acquiringAndReleasing) != isHigh else { return }
            shared.change(by: isHigh ? 1 : -1)
        }
    }
}
