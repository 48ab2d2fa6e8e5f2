import Testing

@testable import Windhover

@Suite struct EscapeFilterTests {
    /// Filters pieces in turn and then the end of input.
    func filter(_ pieces: [[UInt8]]) -> (output: [UInt8], actions: [EscapeFilter.Action]) {
        var filter = EscapeFilter()
        var output: [UInt8] = []
        var actions: [EscapeFilter.Action] = []
        for piece in pieces {
            actions += filter.filter(piece, into: &output)
            if actions.last == .leave { return (output, actions) }
        }
        filter.finish(into: &output)
        return (output, actions)
    }

    @Test func everyByteButTheEscapePassesUnchanged() {
        let bytes = (0...255).map(UInt8.init).filter { $0 != 1 }
        #expect(filter([bytes]).output == bytes)
        #expect(filter([bytes]).actions.isEmpty)
    }

    @Test(arguments: [
        ("a\u{1}xb", "a", [.leave]),
        ("\u{1}?\u{1}hz", "z", [.help, .help]),
        ("\u{1}pp\u{1}b", "p", [.powerButton, .sendBreak]),
        ("-\u{1}-+\u{1}+", "-+", [.lessMemory, .moreMemory]),
        ("\u{1}\u{1}x", "\u{1}x", []),
        ("\u{1}\u{1}\u{1}x", "\u{1}", [.leave]),
        ("\u{1}ls\n", "\u{1}ls\n", []),
        ("\u{1}X", "\u{1}X", []),
        ("end\u{1}", "end\u{1}", []),
        ("", "", []),
    ] as [(String, String, [EscapeFilter.Action])])
    func sequencesCutAnywhere(input: String, output: String, actions: [EscapeFilter.Action]) {
        let bytes = Array(input.utf8)
        for cut in 0...bytes.count {
            let result = filter([Array(bytes[..<cut]), [], Array(bytes[cut...])])
            #expect(result.output == Array(output.utf8), "cut at \(cut)")
            #expect(result.actions == actions, "cut at \(cut)")
        }
        #expect(filter(bytes.map { [$0] }).output == Array(output.utf8))
    }

    @Test func helpIsWrittenForARawTerminal() {
        let bytes = Array(Terminal.help.utf8)
        for (index, byte) in bytes.enumerated() where byte == UInt8(ascii: "\n") {
            #expect(index > 0 && bytes[index - 1] == UInt8(ascii: "\r"))
        }
        for key in ["Ctrl-A x", "Ctrl-A p", "Ctrl-A b", "Ctrl-A - or +", "Ctrl-A ?", "Ctrl-A Ctrl-A"] { #expect(Terminal.help.contains(key)) }
    }
}
