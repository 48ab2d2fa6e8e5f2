internal import Synchronization
public import VMCore

/// One wire that several devices pull: high while any of them does. For level-triggered interrupts.
public final class SharedLine: Sendable {
    private let line: any InterruptLine
    private let state = Mutex(State())

    private struct State {
        /// How many inputs are high.
        var high = 0
    }

    public init(_ line: any InterruptLine) { self.line = line }

    /// Another device's end of the wire.
    public func input() -> any InterruptLine { Input(self) }

    private final class Input: InterruptLine {
        private let shared: SharedLine
        private let isHigh = Mutex(false)

        init(_ shared: SharedLine) { self.shared = shared }

        func setLevel(_ level: Bool) {
            isHigh.withLock { isHigh in
                guard isHigh != level else { return }
                isHigh = level
                shared.change(by: level ? 1 : -1)
            }
        }
    }

    /// The wire is driven with the lock held, so that levels go out in the order in which they came about.
    private func change(by count: Int) {
        state.withLock { state in
            let before = state.high
            state.high += count
            if (before == 0) != (state.high == 0) { line.setLevel(state.high > 0) }
        }
    }
}
