import ArgumentParser
import Testing
import Windhover

@testable import hover

/// The quick way to read arguments says what the parser says, or nothing.
@Suite struct PlainRunArgumentsTests {
    func parse(_ words: [String]) throws -> RunCommand {
        try #require(try Hover.parseAsRoot(words) as? RunCommand)
    }

    @Test(arguments: [
        ["run"], ["run", "linux"], ["run", "--no-reboot", "a.bin", "--timeout", "5s"], ["run", "-v"], ["run", "--verbose"],
        ["run", "--append", "quiet", "--append", "panic=-1 x=y", "linux"],
        [
            "run", "--kernel", "k", "--initrd", "i", "--append", "quiet", "--memory", "1G", "--cpus", "3", "--engine", "kvm",
            "--irqchip", "split", "--console", "file:out", "--timeout", "30s", "--no-reboot", "--stats", "s.json",
            "--huge-pages", "transparent", "--decompress", "guest", "--disk", "a.img",
            "--disk", "b.img,readonly", "--net", "user", "--net", "tap:t", "--share", "/a:b,readonly", "--share", ".", "--vsock", "v", "--balloon", "--memory-target", "512M",
            "--port", "a:file:b", "--port", "c:unix:d", "--transport", "pci", "-v",
        ],
    ])
    func agreesWithTheParser(words: [String]) throws {
        let plain = try #require(PlainRunArguments(words))
        let command = try parse(words)
        #expect(plain.options == command.options)
        #expect(plain.isVerbose == command.session.verbose)
    }

    /// An option that the help names and this reader does not would start slowly for ever, unnoticed.
    @Test func readsEveryOptionOfTheHelp() throws {
        let help = Hover.helpMessage(for: RunCommand.self, columns: 200)
        var options: Set<String> = []
        for line in help.split(separator: "\n") where line.hasPrefix("  -") {
            for word in line.split(whereSeparator: { " ,".contains($0) }).prefix(2) where word.hasPrefix("--") {
                options.insert(String(word))
            }
        }
        options.subtract(["--help", "--version"])
        #expect(options.count >= 14)
        for option in options.sorted() {
            let read = PlainRunArguments(["run", option]) ?? PlainRunArguments(["run", option, "1"])
            #expect(read != nil, "\(option) is left to the parser")
        }
    }

    @Test(arguments: [
        [], ["doctor"], ["images", "list"], ["run", "--help"], ["run", "-h"], ["run", "--memory=1G"], ["run", "-m", "1G"],
        ["run", "a", "b"], ["run", "--cpus"], ["run", "--cpus", "-1"], ["run", "--frob"], ["run", "--memory", "1G", "--memory", "2G"],
        ["run", ""], ["run", "--", "x"], ["run", "--append", "-v"], ["run", "--kernel", ""],
    ])
    func leavesTheRestToTheParser(words: [String]) {
        #expect(PlainRunArguments(words) == nil)
    }
}
