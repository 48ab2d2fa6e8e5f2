internal import Synchronization
public import VMCore

/// A serial port: a 16550A, its interrupt line, and the host's two byte streams at the other end. 8 ports, byte-wide.
///
/// **Output** loses nothing as long as the guest heeds THRE. A character goes to the sink as it is written; when the sink
/// is full it stays in the transmitter, at most 16 of them, and THRE and TEMT are low until the sink has room.
/// A guest that writes on regardless loses what it writes, as on the chip. No vCPU ever waits for the host.
///
/// **Input** is taken only while the guest listens (`InputGate`) and only what the receiver has room for; the caller
/// keeps the rest and hears from the room handler when the guest has read all it had. Characters that a guest discards
/// unread (by clearing or switching the FIFOs, or by going to loop-back, as drivers do when they start) have not
/// arrived yet as far as the host is concerned: they are delivered again when the guest listens.
///
/// **Interrupts.** ISA interrupts are edges, and here the next cause often follows without the pause that a real
/// line's speed makes. So reading RBR, and writing THR, let the line fall for a moment even if a cause remains: a guest
/// that moves one character an interrupt sees an edge for each. A guest that acknowledges the transmitter
/// through IIR is spared the second, since its reading IIR drops the line.
///
/// Locks: the sink and the line are called with the device's lock held; neither may call back from there. The sink's
/// space handler and the room handler run with no lock held.
public final class SerialPort: BusDevice, ByteReceiver {
    private let board: SerialBoard
    private let link: SpaceLink

    /// - Parameters:
    ///   - line: an ISA interrupt's.
    ///   - sink: where the guest's output goes. Its space handler becomes this port's; the sink may outlive the port.
    ///   - observer: sees every character that the guest sends, one that is lost for want of room too. Called with the
    ///     device's lock held.
    public init(line: any InterruptLine, sink: any ByteSink, observer: (@Sendable (UInt8) -> Void)? = nil) {
        board = SerialBoard(line: line, sink: sink, observer: observer)
        link = SpaceLink(board)
        sink.setSpaceHandler { [link] in link.follow()?.transmitWaiting() }
    }

    deinit { link.cut() }

    // MARK: BusDevice

    public func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        UInt64(board.read(register: UInt8(truncatingIfNeeded: offset & 7)))
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        board.write(UInt8(truncatingIfNeeded: value), register: UInt8(truncatingIfNeeded: offset & 7))
    }

    // MARK: ByteReceiver

    public func receive(_ bytes: UnsafeRawBufferPointer) -> Int { unsafe board.receive(bytes) }

    public func setRoomHandler(_ handler: @escaping @Sendable () -> Void) { board.setRoomHandler(handler) }

    // MARK: The host's side

    /// Sends the guest a break: Linux's console takes one as the first half of a SysRq.
    public func sendBreak() { board.sendBreak() }

    /// Gives the sink what waits in the transmitter: after the sink had no room, and before a machine ends.
    public func transmitWaiting() { board.transmitWaiting() }
}

/// What the sink's space handler holds: the board, until the port is gone.
///
/// A weak reference would do, but an object that has one pays for it at every retain, which is twice an exit.
private final class SpaceLink: Sendable {
    private let board: Mutex<SerialBoard?>
    init(_ board: SerialBoard) { self.board = Mutex(board) }
    func follow() -> SerialBoard? { board.withLock { $0 } }
    func cut() { board.withLock { $0 = nil } }
}

/// The chip with its lock, line and sink.
private final class SerialBoard: Sendable {
    private struct State {
        var chip = UART16550()
        var gate = InputGate()
        /// What the guest discarded before it read it. With the receiver's never more than 16.
        var unread = CharacterFIFO()
        var isHigh = false
        /// The guest read IIR to acknowledge the transmitter since it last wrote IER.
        var acknowledgesByIIR = false
        /// A caller of `receive` was left with bytes.
        var isCallerWaiting = false
        var roomHandler: (@Sendable () -> Void)?
    }

    private let state = Mutex(State())
    private let line: any InterruptLine
    private let sink: any ByteSink
    private let observer: (@Sendable (UInt8) -> Void)?

    init(line: any InterruptLine, sink: any ByteSink, observer: (@Sendable (UInt8) -> Void)?) {
        self.line = line
        self.sink = sink
        self.observer = observer
    }

    func read(register: UInt8) -> UInt8 {
        let (value, handler) = state.withLock { state -> (UInt8, (@Sendable () -> Void)?) in
            let value = state.chip.read(register: register)
            switch register {
            case 0 where !state.chip.isDLAB: setLine(false, &state)
            case 2 where value & 0x0F == UART16550.IIR.transmitterEmpty: state.acknowledgesByIIR = true
            case 5: state.gate.sawLineStatus(value)
            default: break
            }
            return (value, settle(&state))
        }
        handler?()
        return value
    }

    func write(_ value: UInt8, register: UInt8) {
        let handler = state.withLock { state -> (@Sendable () -> Void)? in
            switch register {
            case 0 where !state.chip.isDLAB:
                state.chip.write(value, register: register)
                if let observer, !state.chip.isLoopback { observer(value) }
                state.gate.sawTransmit()
                if state.isHigh, !state.acknowledgesByIIR { setLine(state.chip.interrupt, &state) }
                transmit(&state)
            case 1...4:
                program(value, register: register, &state)
            default:
                state.chip.write(value, register: register)
            }
            return settle(&state)
        }
        handler?()
    }

    func receive(_ bytes: UnsafeRawBufferPointer) -> Int {
        state.withLock { state in
            redeliver(&state)
            var taken = 0
            if state.unread.isEmpty, state.gate.isOpen(for: state.chip) {
                taken = min(state.chip.receiveRoom, bytes.count)
                for index in 0..<taken { state.chip.receive(unsafe bytes[index]) }
            }
            if taken < bytes.count { state.isCallerWaiting = true }
            setLine(state.chip.interrupt, &state)
            return taken
        }
    }

    func setRoomHandler(_ handler: @escaping @Sendable () -> Void) {
        state.withLock { $0.roomHandler = handler }
    }

    func sendBreak() {
        state.withLock { state in
            state.chip.receiveBreak()
            setLine(state.chip.interrupt, &state)
        }
    }

    func transmitWaiting() {
        state.withLock { state in
            transmit(&state)
            setLine(state.chip.interrupt, &state)
        }
    }

    // MARK: With the lock held

    private func program(_ value: UInt8, register: UInt8, _ state: inout State) {
        let discards = switch register {
        case 2: state.chip.clearsReceiver(fcr: value)
        case 4: value & UART16550.MCR.loop != 0
        default: false
        }
        if discards {
            var unread = state.chip.withdrawReceived()
            while let entry = state.unread.popFirst() { unread.append(entry) }
            state.unread = unread
        }
        if register == 1 { state.acknowledgesByIIR = false }
        state.chip.write(value, register: register)
        state.gate.sawProgramming()
    }

    /// Moves characters from the transmitter to the sink, as many as it takes.
    private func transmit(_ state: inout State) {
        let count = state.chip.transmitCount
        guard count > 0 else { return }
        var characters = InlineArray<16, UInt8>(repeating: 0)
        for index in 0..<count { characters[index] = state.chip.transmitCharacter(at: index) }
        let taken = unsafe withUnsafeBytes(of: characters) { bytes in
            unsafe sink.write(UnsafeRawBufferPointer(rebasing: bytes[..<count]))
        }
        state.chip.transmitted(taken)
    }

    /// Delivers again what was discarded unread, when the guest listens.
    private func redeliver(_ state: inout State) {
        guard !state.unread.isEmpty, state.gate.isOpen(for: state.chip) else { return }
        while state.chip.receiveRoom > 0, let entry = state.unread.popFirst() {
            state.chip.receive(UInt8(truncatingIfNeeded: entry))
        }
    }

    /// What every access ends with.
    /// - Returns: the room handler, to be called without the lock, if its time has come.
    private func settle(_ state: inout State) -> (@Sendable () -> Void)? {
        redeliver(&state)
        setLine(state.chip.interrupt, &state)
        // Not before all is read: a wake-up for 16 characters costs what one for a single character does.
        guard state.isCallerWaiting, state.chip.receivedCount == 0, state.gate.isOpen(for: state.chip) else { return nil }
        state.isCallerWaiting = false
        return state.roomHandler
    }

    /// Drives the line if its level changes: on some engines that is a system call.
    private func setLine(_ isHigh: Bool, _ state: inout State) {
        guard isHigh != state.isHigh else { return }
        state.isHigh = isHigh
        line.setLevel(isHigh)
    }
}
