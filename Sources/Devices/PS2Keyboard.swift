/// The PS/2 keyboard at the other end of the keyboard controller's first port. It answers every command at once, and
/// nobody ever presses a key: the guest's terminal is its serial port.
///
/// Source: [IBM-KBD] commands from the system, and to the system.
///
/// Not emulated: keys, typematic repeat, the delay of the self-test.
public struct PS2Keyboard: Sendable {
    public enum Reply {
        public static let acknowledge: UInt8 = 0xFA
        public static let selfTestPassed: UInt8 = 0xAA
        public static let resend: UInt8 = 0xFE
        public static let echo: UInt8 = 0xEE
    }

    /// What it has to say. What does not fit is lost, as in a real keyboard's buffer of this size.
    private var output = CharacterFIFO()
    /// The command whose parameter comes next.
    private var awaiting: UInt8?
    /// 1-3; 2 after power-on.
    private var scancodeSet: UInt8 = 2
    private var lastSent: UInt8 = 0
    /// Scroll, num and caps lock: bits 0-2.
    public private(set) var leds: UInt8 = 0

    public init() {}

    /// Takes the next byte it sends.
    public mutating func next() -> UInt8? {
        guard let entry = output.popFirst() else { return nil }
        lastSent = UInt8(truncatingIfNeeded: entry)
        return lastSent
    }

    /// Takes back the byte that `next` gave last: the controller could not pass it on.
    mutating func putBack() {
        var replies = CharacterFIFO()
        replies.append(UInt16(lastSent))
        while let entry = output.popFirst() { replies.append(entry) }
        output = replies
    }

    /// Receives one byte: a command, or the parameter of the last.
    public mutating func receive(_ byte: UInt8) {
        // No parameter is that large: a command in its place ends the one before it.
        if let command = awaiting, byte < 0xED {
            takeParameter(byte, of: command)
            return
        }
        awaiting = nil
        switch byte {
        case 0xED, 0xF0, 0xF3, 0xFB, 0xFC, 0xFD:
            // LEDs; scancode set; typematic rate; the type of single keys, until the next command.
            awaiting = byte
            reply(Reply.acknowledge)
        case 0xEE:
            reply(Reply.echo)
        case 0xF2:
            reply(Reply.acknowledge)
            reply(0xAB)
            reply(0x83)
        case 0xF4, 0xF7, 0xF8, 0xF9, 0xFA:
            // Scanning on; the type of all keys.
            reply(Reply.acknowledge)
        case 0xF5, 0xF6:
            // Defaults; F5 stops scanning too.
            scancodeSet = 2
            reply(Reply.acknowledge)
        case 0xFE:
            reply(lastSent)
        case 0xFF:
            output.removeAll()
            scancodeSet = 2
            leds = 0
            reply(Reply.acknowledge)
            reply(Reply.selfTestPassed)
        default:
            reply(Reply.resend)
        }
    }

    private mutating func takeParameter(_ byte: UInt8, of command: UInt8) {
        switch command {
        case 0xED:
            awaiting = nil
            leds = byte & 7
        case 0xF0:
            awaiting = nil
            guard byte <= 3 else { return reply(Reply.resend) }
            reply(Reply.acknowledge)
            if byte == 0 { reply(scancodeSet) } else { scancodeSet = byte }
            return
        case 0xF3:
            awaiting = nil
        default:
            break
        }
        reply(Reply.acknowledge)
    }

    private mutating func reply(_ byte: UInt8) { output.append(UInt16(byte)) }
}
