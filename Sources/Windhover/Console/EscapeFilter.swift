/// Finds the escape sequences in what a person types, and lets the rest through.
///
/// Ctrl-A is the escape key. `x` after it leaves, `p` presses the power button, `b` sends a break, `-` and `+` move
/// the guest's memory target, `?` or `h` asks for help, a second Ctrl-A sends one. Any other key after it goes to the guest together with the Ctrl-A, so that nothing typed is lost. The stream may be cut
/// anywhere: a Ctrl-A at the end of one read waits for the next.
///
/// Holds at most one byte. What it filters is never more than it was given plus that one.
public struct EscapeFilter: Sendable {
    /// What a sequence asks of the host.
    public enum Action: Hashable, Sendable {
        case leave
        case powerButton
        case sendBreak
        case lessMemory
        case moreMemory
        case help
    }

    /// Ctrl-A.
    public static let escape: UInt8 = 0x01

    private var afterEscape = false

    public init() {}

    /// Filters one read's bytes.
    ///
    /// - Parameter output: gets the guest's bytes appended.
    /// - Returns: the actions in the order typed. Nothing after a `leave` is looked at.
    public mutating func filter(_ input: some Sequence<UInt8>, into output: inout [UInt8]) -> [Action] {
        var actions: [Action] = []
        for byte in input {
            guard afterEscape else {
                if byte == Self.escape { afterEscape = true } else { output.append(byte) }
                continue
            }
            afterEscape = false
            switch byte {
            case UInt8(ascii: "x"):
                actions.append(.leave)
                return actions
            case UInt8(ascii: "p"):
                actions.append(.powerButton)
            case UInt8(ascii: "b"):
                actions.append(.sendBreak)
            case UInt8(ascii: "-"):
                actions.append(.lessMemory)
            case UInt8(ascii: "+"):
                actions.append(.moreMemory)
            case UInt8(ascii: "?"), UInt8(ascii: "h"):
                actions.append(.help)
            case Self.escape:
                output.append(Self.escape)
            default:
                output.append(Self.escape)
                output.append(byte)
            }
        }
        return actions
    }

    /// At the end of input: a Ctrl-A that nothing followed goes to the guest after all.
    public mutating func finish(into output: inout [UInt8]) {
        if afterEscape { output.append(Self.escape) }
        afterEscape = false
    }
}
