import Testing
import Windhover

/// `hover exec` before there is a guest.
@Suite struct ExecCommandTests {
    /// Nobody who asks for help wants a machine first.
    @Test(arguments: [["exec", "--help"], ["exec", "-h"], ["exec", "--cpus", "2", "--help"], ["exec", "--rw", "-h", "--", "true"], ["help", "exec"]])
    func help(arguments: [String]) throws {
        let result = try HoverProcess.run(arguments)
        #expect(result.status == 0 && result.errors.isEmpty, "\(result)")
        #expect(result.output.contains("USAGE: hover exec") && result.output.contains("EXIT STATUS:"), "\(result)")
        #expect(!result.output.contains("--parent"), "\(result)")
        // A status and its meaning are a line.
        let statuses = result.output.split(separator: "\n").drop { $0 != "EXIT STATUS:" }.dropFirst().prefix { $0.hasPrefix("  ") }
        #expect(statuses.count == 12 && statuses.dropFirst().allSatisfy { $0.dropFirst(2).first?.isNumber == true }, "\(result)")
    }

    /// A slip in an option is one, and not a command's name.
    @Test(arguments: [
        (["--memry", "2G", "--", "true"], "Unknown option '--memry'. Did you mean '--memory'?"), (["--timout=3s", "true"], "'--timout'. Did you mean '--timeout'?"),
        (["-x", "true"], "Unknown option '-x'."), (["--xyzzy"], "Unknown option '--xyzzy'."), (["--cpus", "2", "-q"], "Unknown option '-q'."),
        (["--cpus"], "Missing value for '--cpus <n>'."), ([], "exec wants a command"), (["--"], "exec wants a command"),
    ] as [([String], String)])
    func mistakes(arguments: [String], words: String) throws {
        let result = try HoverProcess.run(["exec"] + arguments)
        #expect(result.status == ExitStatus.usage.rawValue && result.output.isEmpty, "\(result)")
        #expect(result.complaints.count == 1 && result.errors.hasPrefix("hover: ") && result.errors.contains(words), "\(result)")
    }

    @Test func version() throws {
        let result = try HoverProcess.run(["exec", "--version"])
        #expect(result.status == 0 && result.output.hasPrefix("hover "), "\(result)")
    }
}
