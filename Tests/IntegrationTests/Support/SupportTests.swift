import Testing

/// The matcher and the parser that the guests tier judges by.
@Suite struct ExpectedOutputTests {
    @Test func linesAreCompared() {
        let expected = ExpectedOutput("one\ntwo * four\n")
        #expect(expected.difference(from: "one\r\ntwo three four\r\n") == nil)
        #expect(expected.difference(from: "one\ntwo three four\n\n\n") == nil)
        for wrong in ["", "one", "one\ntwo", "one\ntwo three four\nfive", "zero\none\ntwo x four", "one\ntwo x four!"] {
            #expect(expected.difference(from: wrong) != nil, "\(wrong)")
        }
        #expect(ExpectedOutput("").difference(from: "") == nil)
        #expect(ExpectedOutput("").difference(from: "x") != nil)
    }

    @Test func dotsStandForAnyLines() {
        let expected = ExpectedOutput("...\nb\n...\nd\n")
        #expect(expected.difference(from: "b\nd") == nil)
        #expect(expected.difference(from: "a\nb\nb\nc\nd") == nil)
        #expect(expected.difference(from: "a\nb\nc") != nil)
        #expect(expected.difference(from: "a\nd\nb") != nil)
        #expect(expected.difference(from: "b\nd\ne") != nil)
        #expect(ExpectedOutput("a\n...").difference(from: "a") == nil)
    }

    @Test func starsStandForAnyText() {
        for (line, pattern, matches) in [
            ("", "*", true), ("abc", "*", true), ("abc", "a*c", true), ("ac", "a*c", true), ("abd", "a*c", false),
            ("aXbYc", "a*b*c", true), ("acb", "a*b*c", false), ("aba", "ab*ba", false), ("abba", "ab*ba", true),
            ("20x6-1", "20*-*", true), ("a", "", false), ("", "", true),
        ] as [(String, String, Bool)] {
            #expect(ExpectedOutput.matches(line, pattern) == matches, "'\(line)' '\(pattern)'")
        }
    }

    @Test func confsAreRead() throws {
        let text = """
            # A comment: with a colon.
            image: pvh
            cpus: 2
            status: 1
            timeout: 20s
            input: off\\r
            append: a

            run: first
            append: b c
            expect: none

            run: second
            status: 3
            options: --no-reboot
            requires: whole-ring0
            """
        let programs = GuestProgram.parse(text, guest: "thing") { $0 == "expect" ? "yes\n" : nil }
        try #require(programs.map(\.name) == ["thing, first", "thing, second"])
        #expect(programs[0].options == ["--cpus", "2", "--append", "b c"])
        #expect(programs[0].input == Array("off\r".utf8))
        #expect(programs[0].expected == ExpectedOutput(""))
        #expect(programs[0].timeout == "20s")
        #expect(programs[1].options == ["--cpus", "2", "--append", "a", "--no-reboot"])
        #expect(programs[1].status == 3)
        #expect(programs[1].requirements == ["whole-ring0"])
        #expect(programs[1].expected == ExpectedOutput("yes"))
    }
}
