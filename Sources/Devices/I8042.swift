/// Intel 8042 as a PC/AT uses it: keyboard controller, and the machine's oldest way to reset itself.
///
/// Every command is done when its write ends, so IBF is never set and nothing times out.
///
/// ```
/// status   7 PERR  6 TO  5 AUXOBF  4 INH (keylock open)  3 C/D  2 SYS  1 IBF  0 OBF
/// command  6 XLATE  5 AUX clock off  4 keyboard clock off  3 ignore keylock  2 SYS  1 AUX interrupt  0 KBD interrupt
/// output   7 keyboard data  6 keyboard clock  5 AUXOBF  4 OBF  1 gate A20  0 not reset
/// ```
/// Source: [IBM-AT] keyboard controller; [IBM-PS2] auxiliary device commands.
///
/// The auxiliary port has nothing plugged in and its interface test fails, and the loop-back of command D3h answers as
/// a keyboard's byte, as a controller without such a port does. That is how Linux learns in microseconds
/// that there is no mouse; a command left without an answer would cost it half a second.
///
/// Not emulated: the A20 gate (stored only, addresses never wrap), the password, the diagnostic dump (ACh), the test inputs'
/// change, key translation beyond what a keyboard that is never touched sends.
public struct I8042: Sendable {
    /// What a write or read asks of the board.
    public struct Effects: OptionSet, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        /// The reset line was pulsed.
        public static let reset = Effects(rawValue: 1)
        /// The output buffer was emptied or filled anew: interrupt lines that stay high had an edge in between.
        public static let outputChanged = Effects(rawValue: 2)
    }

    public enum Status {
        public static let outputFull: UInt8 = 0x01
        public static let inputFull: UInt8 = 0x02
        public static let system: UInt8 = 0x04
        public static let command: UInt8 = 0x08
        public static let unlocked: UInt8 = 0x10
        public static let auxiliary: UInt8 = 0x20
        public static let timeout: UInt8 = 0x40
    }

    public enum CommandByte {
        public static let keyboardInterrupt: UInt8 = 0x01
        public static let auxiliaryInterrupt: UInt8 = 0x02
        public static let system: UInt8 = 0x04
        public static let keyboardDisabled: UInt8 = 0x10
        public static let auxiliaryDisabled: UInt8 = 0x20
        public static let translate: UInt8 = 0x40
    }

    private enum Source { case controller, keyboard, auxiliary }

    public private(set) var keyboard = PS2Keyboard()
    /// Byte 0 is the command byte, as firmware leaves it: keyboard on, translated, with its interrupt.
    private var ram = InlineArray<32, UInt8>(repeating: 0)
    private var output: (byte: UInt8, source: Source)?
    /// The controller command whose parameter comes next.
    private var awaiting: UInt8?
    private var lastWasCommand = false
    /// Bits 0 and 1 of the output port; the others follow the buffers.
    private var outputPort: UInt8 = 0x03

    public init() {
        ram[0] = CommandByte.keyboardInterrupt | CommandByte.system | CommandByte.auxiliaryDisabled | CommandByte.translate
    }

    private var commandByte: UInt8 { ram[0] }

    /// IRQ 1: the output buffer is full, not from the auxiliary port.
    public var keyboardInterrupt: Bool {
        guard let output, output.source != .auxiliary else { return false }
        return commandByte & CommandByte.keyboardInterrupt != 0
    }

    /// IRQ 12: the output buffer is full from the auxiliary port.
    public var auxiliaryInterrupt: Bool {
        guard let output, output.source == .auxiliary else { return false }
        return commandByte & CommandByte.auxiliaryInterrupt != 0
    }

    // MARK: Port 64h

    /// Reads the status register. No side effects.
    public func readStatus() -> UInt8 {
        var status = Status.unlocked | commandByte & CommandByte.system
        if lastWasCommand { status |= Status.command }
        if let output {
            status |= Status.outputFull
            // Only ever the controller's word that nobody is there.
            if output.source == .auxiliary { status |= Status.auxiliary | Status.timeout }
        }
        return status
    }

    /// Writes a command to the controller.
    public mutating func writeCommand(_ command: UInt8) -> Effects {
        lastWasCommand = true
        awaiting = nil
        switch command {
        case 0x20...0x3F: return answer(ram[Int(command & 0x1F)])
        case 0x60...0x7F, 0xD1...0xD4: awaiting = command
        case 0xA4: return answer(0xF1)  // no password
        case 0xA7: ram[0] |= CommandByte.auxiliaryDisabled
        case 0xA8: ram[0] &= ~CommandByte.auxiliaryDisabled
        case 0xA9: return answer(0x02)  // clock line stuck high: nothing there
        case 0xAA:
            ram[0] |= CommandByte.system
            return answer(0x55)
        case 0xAB: return answer(0x00)
        case 0xAD: ram[0] |= CommandByte.keyboardDisabled
        case 0xAE:
            ram[0] &= ~CommandByte.keyboardDisabled
            return fillFromKeyboard()
        case 0xC0: return answer(0x80)  // input port: keyboard not inhibited
        case 0xD0: return answer(readOutputPort())
        case 0xE0: return answer(0x03)  // clock and data high
        case 0xF0...0xFF: return command & 1 == 0 ? .reset : []
        default: break
        }
        return []
    }

    // MARK: Port 60h

    /// Reads the output buffer; empty, it gives its last byte again on a real chip, here 0.
    public mutating func readData() -> (value: UInt8, effects: Effects) {
        guard let (byte, _) = output else { return (0, []) }
        output = nil
        _ = fillFromKeyboard()
        return (byte, .outputChanged)
    }

    /// Writes the input buffer: the parameter of a controller command, or a byte for the keyboard.
    public mutating func writeData(_ value: UInt8) -> Effects {
        lastWasCommand = false
        guard let command = awaiting else {
            // Talking to the keyboard switches its clock on. Source: [IBM-AT] command byte, bit 4.
            ram[0] &= ~CommandByte.keyboardDisabled
            keyboard.receive(value)
            return fillFromKeyboard()
        }
        awaiting = nil
        switch command {
        case 0x60...0x7F:
            ram[Int(command & 0x1F)] = value
            return fillFromKeyboard()
        case 0xD1:
            outputPort = value & 0x03
            guard value & 1 == 0 else { return [] }
            outputPort |= 1
            return .reset
        case 0xD2, 0xD3: return answer(value)
        default: return answer(PS2Keyboard.Reply.resend, from: .auxiliary)  // D4: nobody takes it
        }
    }

    // MARK: The output buffer

    private func readOutputPort() -> UInt8 {
        // Read before the answer goes into the buffer.
        var port = outputPort | 0xC0
        if let output { port |= output.source == .auxiliary ? 0x20 : 0x10 }
        return port
    }

    /// Puts the controller's own byte into the output buffer. An answer not fetched is overwritten;
    /// a keyboard's byte goes back and is sent again.
    private mutating func answer(_ byte: UInt8, from source: Source = .controller) -> Effects {
        if let output, output.source == .keyboard { keyboard.putBack() }
        output = (byte, source)
        return .outputChanged
    }

    private mutating func fillFromKeyboard() -> Effects {
        guard output == nil, commandByte & CommandByte.keyboardDisabled == 0, let byte = keyboard.next() else { return [] }
        output = (commandByte & CommandByte.translate != 0 ? Self.translate(byte) : byte, .keyboard)
        return .outputChanged
    }

    /// Scancode set 2 to set 1, for the bytes a keyboard answers with. Source: [IBM-PS2] scan code translation.
    private static func translate(_ byte: UInt8) -> UInt8 {
        switch byte {
        case 0x01: 0x43
        case 0x02, 0x83: 0x41
        case 0x03: 0x3F
        default: byte
        }
    }
}
