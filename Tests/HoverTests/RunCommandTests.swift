import ArgumentParser
import Testing
import Windhover

@testable import hover

@Suite struct RunCommandTests {
    func parse(_ words: [String]) throws -> RunCommand {
        try #require(try Hover.parseAsRoot(["run"] + words) as? RunCommand)
    }

    /// What a command that cannot run ends with.
    func outcome(_ command: RunCommand) throws -> any ReportableError {
        var command = command
        let error = try #require(throws: (any Error).self) { try command.run() }
        return try #require(error as? any ReportableError)
    }

    @Test func everyOptionReachesTheConfiguration() throws {
        let command = try parse([
            "--kernel", "k", "--initrd", "i", "--append", "-v quiet", "--append", "panic=-1", "--memory", "1G",
            "--cpus", "3", "--engine", "kvm", "--irqchip", "split", "--console", "file:out", "--timeout", "30s",
            "--no-reboot", "--stats", "s.json", "--huge-pages", "transparent", "--decompress", "guest", "-v",
        ])
        let configuration = try RunConfiguration(command.options)
        #expect(configuration.source == .file("k"))
        #expect(configuration.initrd == "i")
        #expect(configuration.append == "-v quiet panic=-1")
        #expect(configuration.memory.bytes == 1 << 30)
        #expect(configuration.cpus == 3)
        #expect(configuration.engine == .kvm)
        #expect(configuration.interruptChips == .split)
        #expect(configuration.console == .file("out"))
        #expect(configuration.timeout?.milliseconds == 30_000)
        #expect(configuration.noReboot)
        #expect(configuration.statistics == "s.json")
        #expect(configuration.hugePages == .transparent)
        #expect(configuration.decompression == .guest)
        #expect(command.session.verbose)
    }

    @Test func noWordsMeanTheDefaults() throws {
        #expect(try parse([]).options == RunOptions())
        #expect(try parse(["linux"]).options.image == "linux")
    }

    @Test(arguments: [
        ["--share"], ["--disk"], ["--net"], ["--cpus"], ["a", "b"], ["--no-reboot=yes"], ["--frob"],
    ])
    func whatIsUnknownIsUsage(words: [String]) throws {
        let error = try #require(throws: (any Error).self) { try parse(words) }
        #expect(Hover.exitCode(for: error).rawValue == ExitStatus.usage.rawValue)
    }

    @Test(arguments: ["execute", "tests", "frob"])
    func commandsThatAreNotThere(name: String) throws {
        let error = try #require(throws: (any Error).self) { try Hover.parseAsRoot([name]) }
        #expect(Hover.exitCode(for: error).rawValue == ExitStatus.usage.rawValue)
    }

    @Test func filesThatAreNotThere() throws {
        var command = try parse(["--kernel", "/nonexistent/kernel"])
        #expect(try outcome(command).exitStatus == .noSuchFile)
        command = try parse(["--kernel", "/etc/hostname", "--initrd", "/nonexistent/initrd"])
        let error = try outcome(command)
        #expect(error.exitStatus == .noSuchFile)
        #expect(error.description.contains("initrd"))
    }

    @Test func helpNamesEveryStatus() {
        let help = Hover.helpMessage(for: RunCommand.self)
        for status in ExitStatus.allCases where status != .success {
            #expect(help.contains("  \(status.rawValue) "), "status \(status.rawValue)")
        }
    }
}
