import ArgumentParser
import Testing
import Windhover

@testable import hover

/// What the parser shows as text is handed on as it was given.
@Suite struct CommandLineWordsTests {
    private func word(_ bytes: [UInt8]) -> CommandWord { CommandWord(bytes: bytes) }
    private func option(_ text: String, _ bytes: [UInt8]) -> CommandWord { word(Array(text.utf8) + bytes) }

    @Test func theWordsAtTheEndAreTheCommands() {
        let command = [option("a", [0xFF]), "", option("", [0xC3, 0x28]), "größer"]
        let words = CommandLineWords(["exec", "--rw", "--"] + command)
        #expect(words.last(command.map(\.description)) == command)
        #expect(words.last([]) == [])
        // What is not there as it is shown is what is shown.
        #expect(words.last(["other"]) == ["other"])
        #expect(CommandLineWords([]).last(["a"]) == ["a"])
    }

    @Test func anOptionsValuesAreFoundInTheirOrder() {
        let (first, second) = (option("A=", [0xFF]), option("A=", [0xFE]))
        // All of these look alike.
        let words = CommandLineWords(
            ["exec", "--append", option("A=", [0xFD]), "--env", first, "--env", "B=1", option("--env=A=", [0xFE]), "--", "--env", option("A=", [0xFC])])
        #expect(words.values([first.description, "B=1", second.description], of: "--env") == [first, "B=1", second])
        #expect(words.values(["C=1"], of: "--env") == ["C=1"])
        #expect(words.values([], of: "--env") == [])
    }

    @Test func theParserLeavesACommandAtTheEnd() throws {
        for (arguments, command) in [
            (["--rw", "--cpus", "2", "--", "make", "--rw", "--", "-x"], ["make", "--rw", "--", "-x"]), (["make", "--cpus", "2"], ["make", "--cpus", "2"]),
            (["--env", "A=1", "echo", "--env", "B=2"], ["echo", "--env", "B=2"]),
        ] {
            let parsed = try #require(try Hover.parseAsRoot(["exec"] + arguments) as? ExecCommand)
            #expect(parsed.command.suffix(command.count) == command[...])
            #expect(parsed.command.count == command.count || parsed.command == ["--"] + command)
        }
    }
}
