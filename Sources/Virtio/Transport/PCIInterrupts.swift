internal import PCI
internal import Synchronization
internal import VMCore

/// How a virtio function interrupts its driver: which vector each kind of event is mapped to, and the ISR status for a driver
/// that uses none.
///
/// Its lock is the signal's in the lock order; the function's configuration comes after it.
/// Source: [VIRTIO1.2 §4.1.4.5], [VIRTIO1.2 §4.1.5.1.2].
final class PCIInterrupts: SignalTarget {
    /// An event that is mapped to no vector.
    static let noVector: UInt16 = 0xFFFF
    private static let queueBit: UInt8 = 1
    private static let configurationBit: UInt8 = 2

    private struct State {
        var status: UInt8 = 0
        var configurationVector = noVector
        var queueVectors: [UInt16]
    }

    private let function: FunctionConfiguration
    private let state: Mutex<State>

    init(function: FunctionConfiguration, queueCount: Int) {
        self.function = function
        state = Mutex(State(queueVectors: [UInt16](repeating: Self.noVector, count: queueCount)))
    }

    func bufferUsed(queue: Int) {
        state.withLock { state in
            guard queue >= 0, queue < state.queueVectors.count else { return }
            // With messages the status says nothing of queues.
            if function.raise(vector: Int(state.queueVectors[queue])) { return }
            setStatus(state.status | Self.queueBit, &state)
        }
    }

    func configurationChanged() {
        state.withLock { state in
            // The bit is set in either case, and before the driver is told. Source: [VIRTIO1.2 §4.1.4.5.1].
            setStatus(state.status | Self.configurationBit, &state)
            _ = function.raise(vector: Int(state.configurationVector))
        }
    }

    private func setStatus(_ status: UInt8, _ state: inout State) {
        state.status = status
        function.setInterrupt(status != 0)
    }

    /// The driver reads the status: it is cleared, and the wire goes low.
    func takeStatus() -> UInt8 {
        state.withLock { state in
            let status = state.status
            setStatus(0, &state)
            return status
        }
    }

    var configurationVector: UInt16 {
        get { state.withLock { $0.configurationVector } }
        set { state.withLock { $0.configurationVector = checked(newValue) } }
    }

    func vector(of queue: UInt16) -> UInt16 {
        state.withLock { Int(queue) < $0.queueVectors.count ? $0.queueVectors[Int(queue)] : Self.noVector }
    }

    func setVector(of queue: UInt16, to vector: UInt16) {
        state.withLock { state in
            guard Int(queue) < state.queueVectors.count else { return }
            state.queueVectors[Int(queue)] = checked(vector)
        }
    }

    /// A vector that the table has not maps to none: the driver reads it back and sees.
    private func checked(_ vector: UInt16) -> UInt16 { Int(vector) < function.vectorCount ? vector : Self.noVector }

    /// The device was reset: no event is mapped any more, and what has not been told is not told.
    func reset() {
        state.withLock { state in
            state.configurationVector = Self.noVector
            for index in state.queueVectors.indices { state.queueVectors[index] = Self.noVector }
            setStatus(0, &state)
            function.clearPending()
        }
    }
}
