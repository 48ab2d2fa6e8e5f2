internal import Synchronization
public import VMCore

/// The keyboard controller: an 8042 with ports 60h and 64h, and the lines of IRQ 1 and IRQ 12.
///
/// Its two ports are not neighbours (61h is another device's), so each goes on the bus by itself.
public final class KeyboardController: Sendable {
    /// The data port, 60h: one byte.
    public let data: any BusDevice
    /// The status and command port, 64h: one byte.
    public let command: any BusDevice

    /// - Parameters:
    ///   - keyboardLine: IRQ 1.
    ///   - auxiliaryLine: IRQ 12.
    ///   - control: hears of `reset`, from the pulse commands (FEh and its kin) and from bit 0 of the output port.
    public init(keyboardLine: any InterruptLine, auxiliaryLine: any InterruptLine, control: any MachineControl) {
        let board = Board(keyboardLine: keyboardLine, auxiliaryLine: auxiliaryLine, control: control)
        data = DataPort(board)
        command = CommandPort(board)
    }

    /// What both ports share.
    private final class Board: Sendable {
        private struct State {
            var chip = I8042()
            var keyboardIsHigh = false
            var auxiliaryIsHigh = false
        }

        private let state = Mutex(State())
        private let keyboardLine: any InterruptLine
        private let auxiliaryLine: any InterruptLine
        private let control: any MachineControl

        init(keyboardLine: any InterruptLine, auxiliaryLine: any InterruptLine, control: any MachineControl) {
            self.keyboardLine = keyboardLine
            self.auxiliaryLine = auxiliaryLine
            self.control = control
        }

        func readStatus() -> UInt8 { state.withLock { $0.chip.readStatus() } }

        func readData() -> UInt8 {
            state.withLock { state in
                let (value, effects) = state.chip.readData()
                apply(effects, &state)
                return value
            }
        }

        func writeCommand(_ value: UInt8) {
            state.withLock { state in apply(state.chip.writeCommand(value), &state) }
        }

        func writeData(_ value: UInt8) {
            state.withLock { state in apply(state.chip.writeData(value), &state) }
        }

        private func apply(_ effects: I8042.Effects, _ state: inout State) {
            if effects.contains(.outputChanged) { drive(keyboard: false, auxiliary: false, &state) }
            drive(keyboard: state.chip.keyboardInterrupt, auxiliary: state.chip.auxiliaryInterrupt, &state)
            if effects.contains(.reset) { control.request(.reset) }
        }

        private func drive(keyboard: Bool, auxiliary: Bool, _ state: inout State) {
            if keyboard != state.keyboardIsHigh {
                state.keyboardIsHigh = keyboard
                keyboardLine.setLevel(keyboard)
            }
            if auxiliary != state.auxiliaryIsHigh {
                state.auxiliaryIsHigh = auxiliary
                auxiliaryLine.setLevel(auxiliary)
            }
        }
    }

    private final class DataPort: BusDevice {
        private let board: Board
        init(_ board: Board) { self.board = board }
        func read(offset: UInt64, width: AccessWidth) -> UInt64 { UInt64(board.readData()) }
        func write(offset: UInt64, width: AccessWidth, value: UInt64) {
            board.writeData(UInt8(truncatingIfNeeded: value))
        }
    }

    private final class CommandPort: BusDevice {
        private let board: Board
        init(_ board: Board) { self.board = board }
        func read(offset: UInt64, width: AccessWidth) -> UInt64 { UInt64(board.readStatus()) }
        func write(offset: UInt64, width: AccessWidth, value: UInt64) {
            board.writeCommand(UInt8(truncatingIfNeeded: value))
        }
    }
}
