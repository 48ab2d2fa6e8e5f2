/// Finds, in what is typed at a command's terminal, what is meant for hover: `~.` at the beginning of a line leaves, `~?` helps, `~~` is
/// one `~`. Ctrl-A is every shell's own key; these are ssh's.
struct TerminalEscape {
    enum Action: Hashable {
        case leave
        case help
    }

    private static let escape = UInt8(ascii: "~")

    private var isLineStart = true
    private var isPending = false

    /// Appends to `output` what is the command's.
    mutating func filter(_ input: some Sequence<UInt8>, into output: inout [UInt8]) -> [Action] {
        var actions: [Action] = []
        for byte in input {
            if isPending {
                isPending = false
                switch byte {
                case UInt8(ascii: "."):
                    actions.append(.leave)
                    continue
                case UInt8(ascii: "?"):
                    actions.append(.help)
                    continue
                case Self.escape: break
                default: output.append(Self.escape)
                }
                isLineStart = byte == 13 || byte == 10
                output.append(byte)
            } else if isLineStart, byte == Self.escape {
                isPending = true
            } else {
                isLineStart = byte == 13 || byte == 10
                output.append(byte)
            }
        }
        return actions
    }
}
