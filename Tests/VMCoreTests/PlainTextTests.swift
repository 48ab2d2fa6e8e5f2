import Testing
import VMCore

@Suite struct PlainTextTests {
    @Test(arguments: [
        ("a\r\nb\n", "a\nb\n"), ("10%\r20%\r", "10%\n20%\n"), ("\u{1B}[31;1mred\u{1B}[0m", "red"), ("\u{1B}]0;title\u{7}x", "x"), ("\u{1B}]0;t\u{1B}\\x", "x"),
        ("\u{1B}(Bx", "x"), ("a\u{8}\u{7F}\u{0}b\tc", "ab\tc"), ("é 😀", "é 😀"), ("\u{1B}", ""), ("\u{9B}31m", "31m"), ("\u{FFFE}", ""),
        ("\u{1B}]never ended\nx", "\nx"), ("\u{1B}[1\nx", "\nx"), ("\u{1B}\nx", "\nx"),
    ] as [(String, String)])
    func controlsAreLeftOut(text: String, plain: String) { #expect(PlainText.of(text.utf8) == plain) }

    @Test(arguments: [
        ("a\r\n", "a"), ("a\nb\tc\n", "a b c"), ("10%\r20%\r", "10% 20%"), ("\u{1B}[31mred\u{7}\u{9B}2J\r\n\tend\u{0}", "red2J  end"), ("", ""), ("\n", ""),
        ("a\u{202E}b\u{2066}c\u{200F}d\u{2028}e\u{FEFF}", "abcde"), ("Grüße, 世界 🐦", "Grüße, 世界 🐦"),
    ] as [(String, String)])
    func aLineIsOne(text: String, plain: String) { #expect(PlainText.line(text.utf8) == plain) }

    @Test func linesAreWithoutEmptyOnes() {
        #expect(PlainText.lines("\n\u{1B}[1ma\tb\r\n\n\u{7}\n20%\r30%".utf8) == ["a b", "20%", "30%"])
        #expect(PlainText.lines([]).isEmpty)
    }

    @Test func longLinesAreCut() {
        #expect(PlainText.line("12345".utf8, limit: 5) == "12345")
        #expect(PlainText.line("12345\n".utf8, limit: 5) == "12345")
        #expect(PlainText.line("1\t3456".utf8, limit: 5) == "1 345…")
        // Characters count, not bytes, and only those that are shown.
        #expect(PlainText.line("ääääää".utf8, limit: 5) == "äääää…")
        #expect(PlainText.line("\u{1B}[1määä\u{0}\u{0}ää".utf8, limit: 5) == "äääää")
    }

    @Test func whatIsNoUTF8() {
        #expect(PlainText.of([0x61, 0xFF, 0x62]) == "a\u{FFFD}b")
        #expect(PlainText.line([0x61, 0xFF, 0xC3, 0x62]).unicodeScalars.allSatisfy { ["a", "b", "\u{FFFD}"].contains($0) })
    }

    /// Whatever the bytes are, at any place.
    @Test func nothingThatATerminalObeys() {
        for byte in UInt8.min...UInt8.max {
            for bytes in [[0x61, byte, 0x62], [byte, byte], [0xC2, byte], [0x1B, byte, 0x61], [0xE2, 0x80, byte]] {
                #expect(PlainText.line(bytes).unicodeScalars.allSatisfy(PlainText.isShown), "\(bytes)")
                #expect(PlainText.of(bytes).unicodeScalars.allSatisfy { PlainText.isShown($0) || $0 == "\n" || $0 == "\t" }, "\(bytes)")
            }
        }
        for scalar: Unicode.Scalar in ["\u{0}", "\u{1B}", "\u{7F}", "\u{85}", "\u{9B}", "\u{AD}", "\u{200B}", "\u{202E}", "\u{2069}", "\u{E000}", "\u{FFFF}"] {
            #expect(!PlainText.isShown(scalar))
        }
        for scalar: Unicode.Scalar in [" ", "~", "é", "世", "🐦", "\u{301}", "\u{A0}", "\u{FFFD}"] { #expect(PlainText.isShown(scalar)) }
    }

    @Test func lastLines() {
        #expect(PlainText.lastLines(2, of: "a\nb\nc\n\n") == ["b", "c"])
        #expect(PlainText.lastLines(2, of: "\n").isEmpty)
    }
}
