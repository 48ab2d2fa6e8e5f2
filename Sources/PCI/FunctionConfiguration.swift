internal import Synchronization
public import VMCore

/// A function's configuration space and how it interrupts: by MSI-X messages where the driver has enabled them, else by its
/// wire.
///
/// Lock order: the bridge's updates, a device's own lock, this one, interrupt controller. Messages are sent and the wire is
/// driven with this lock held: after a driver has masked a vector, nothing comes on it any more.
///
/// Source: [PCI3.0 §6.8.2], [PCI3.0 §2.2.6].
public final class FunctionConfiguration: Sendable {
    private struct State {
        var space: ConfigurationSpace
        var messages: MSIXTable?
        /// What the function asks for by wire.
        var isInterrupting = false
        var isLineHigh = false
    }

    private let state: Mutex<State>
    private let line: (any InterruptLine)?
    private let sink: (any InterruptMessageSink)?
    /// The region that holds the MSI-X table and its pending bits; nil without MSI-X.
    public let messageBAR: Int?
    /// Entries of the MSI-X table; 0 without.
    public let vectorCount: Int
    public let bars: [BaseAddressRegister]
    private let messageControl: Int
    /// Where each of the capabilities given is in the configuration space.
    public let capabilityOffsets: [Int]

    /// - Parameters:
    ///   - bars: the function's own regions.
    ///   - capabilities: in the list's order; the MSI-X one comes last.
    ///   - line: what INTA is wired to; nil for a function without. High as long as the function asks.
    ///   - sink: where messages go; nil for a function, or a machine, without MSI-X.
    ///   - vectorCount: entries of the MSI-X table, 1 to 2048.
    ///   - messageBAR: the region of that table, 32 bits wide: not one of `bars`.
    public init(
        _ identity: PCIIdentity, bars: [BaseAddressRegister] = [], capabilities: [PCICapability] = [],
        line: (any InterruptLine)? = nil, sink: (any InterruptMessageSink)? = nil, vectorCount: Int = 1, messageBAR: Int = 1
    ) {
        self.line = line
        self.sink = sink
        self.messageBAR = sink == nil ? nil : messageBAR
        self.vectorCount = sink == nil ? 0 : vectorCount
        let table = sink == nil ? nil : MSIXTable(vectorCount: vectorCount)
        let tableBAR = table.map { _ in
            BaseAddressRegister(index: messageBAR, size: MSIXTable.regionSize(vectorCount: vectorCount))
        }
        self.bars = bars + [tableBAR].compactMap { $0 }
        var space = ConfigurationSpace(identity, bars: self.bars, hasInterruptPin: line != nil)
        capabilityOffsets = capabilities.map { space.addCapability($0) }
        messageControl = table == nil ? 0 : 2 + space.addCapability(.messages(vectorCount: vectorCount, bar: messageBAR))
        state = Mutex(State(space: space, messages: table))
    }

    // MARK: Configuration space

    /// Any width at any offset of the 4 KiB.
    public func read(offset: UInt16, width: AccessWidth) -> UInt64 {
        state.withLock { $0.space.read(offset: offset, width: width) }
    }

    /// - Returns: whether a region appeared, moved or vanished.
    public func write(offset: UInt16, width: AccessWidth, value: UInt64) -> Bool {
        state.withLock { state in
            let before = state.space.decoded
            state.space.write(offset: offset, width: width, value: value)
            refresh(&state)
            return state.space.decoded != before
        }
    }

    /// Sets bytes of the space that are the function's to set.
    public func set(_ bytes: [UInt8], at offset: Int) { state.withLock { $0.space.set(bytes, at: offset) } }

    func assign(_ address: UInt64, to bar: BaseAddressRegister) { state.withLock { $0.space.assign(address, to: bar) } }

    var decoded: [DecodedRegion]? { state.withLock { $0.space.decoded } }

    // MARK: Interrupts

    /// Follows the control bits: messages that are no longer held back, the status bit and the wire.
    private func refresh(_ state: inout State) {
        if messageBAR != nil {
            let control = state.space.read(offset: UInt16(messageControl), width: .word)
            let (isEnabled, isMasked) = (control & 0x8000 != 0, control & 0x4000 != 0)
            let isFreed = isEnabled && !isMasked && !(state.messages?.isDelivering ?? false)
            state.messages?.isEnabled = isEnabled
            state.messages?.isFunctionMasked = isMasked
            if isFreed {
                for vector in 0..<vectorCount {
                    if let message = state.messages?.takePending(vector) { sink?.send(message) }
                }
            }
        }
        let isPending = state.isInterrupting && state.messages?.isEnabled != true
        state.space.setInterruptStatus(isPending)
        let isHigh = isPending && !state.space.isInterruptDisabled
        if isHigh != state.isLineHigh {
            state.isLineHigh = isHigh
            line?.setLevel(isHigh)
        }
    }

    /// Sends the message of a vector, or remembers that it is due. A vector that the table has not is dropped.
    /// - Returns: whether messages are how this function interrupts; false without effect where it is the wire.
    public func raise(vector: Int) -> Bool {
        state.withLock { state in
            guard state.messages?.isEnabled == true else { return false }
            if let message = state.messages?.raise(vector) { sink?.send(message) }
            return true
        }
    }

    /// What the function asks for by wire; the wire follows it unless messages are enabled or the driver disabled it.
    public func setInterrupt(_ isInterrupting: Bool) {
        state.withLock { state in
            guard state.isInterrupting != isInterrupting else { return }
            state.isInterrupting = isInterrupting
            refresh(&state)
        }
    }

    /// Forgets messages that wait: the events they tell of are gone.
    public func clearPending() { state.withLock { $0.messages?.clearPending() } }

    // MARK: The table's region

    func readTable(offset: UInt64, width: AccessWidth) -> UInt64 {
        state.withLock { $0.messages?.read(offset: offset, width: width) ?? 0 }
    }

    func writeTable(offset: UInt64, width: AccessWidth, value: UInt64) {
        state.withLock { state in
            guard let vector = state.messages?.write(offset: offset, width: width, value: value) else { return }
            if let message = state.messages?.takePending(vector) { sink?.send(message) }
        }
    }
}
