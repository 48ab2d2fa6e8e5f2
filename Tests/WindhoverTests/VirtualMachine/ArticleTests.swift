import Foundation
import Testing
import Windhover
import WindhoverTesting

// The code of the articles in Sources/Windhover/Windhover.docc, so that it is compiled; `ArticleTests` sees that it is the same.

private func landingPage() async throws {
    var configuration = VirtualMachineConfiguration()
    configuration.memory = try MemorySize("512M")
    let machine = try VirtualMachine(configuration)
    try await machine.start()
    let result = try await machine.run("uname", "-r")
    print(result.output)
    await machine.stop()
}

private func commands(_ machine: VirtualMachine) async throws {
    do {
        let result = try await machine.shell("mount -t tmpfs none /mnt && df /mnt")
        guard result.isSuccess else { return print("status \(result.status): \(result.errorOutput)") }
        print(result.output)
    } catch let failure as GuestFailure {
        // The guest's kernel panicked, the program is not there, its time is over...
        print(failure.kind, failure.description)
    }
}

private func options(_ machine: VirtualMachine) async throws -> CommandResult {
    var options = CommandOptions()
    options.environment.append("LANG=C.UTF-8")
    options.directory = "/usr/share"
    options.user = "nobody"
    options.input = Array("one\ntwo\n".utf8)
    options.timeLimit = .seconds(10)
    let result = try await machine.run("wc", "-l", options: options)
    return result
}

private func files(_ machine: VirtualMachine, _ configuration: inout VirtualMachineConfiguration) async throws -> [UInt8] {
    configuration.shares.append(ExecShare(directory: "/home/me/results", path: "/results"))
    try await machine.write(Array("vm.swappiness = 10\n".utf8), to: "/etc/sysctl.d/test.conf")
    let log = try await machine.read("/var/log/dmesg")
    return log
}

private func console(_ machine: VirtualMachine) async throws {
    async let warning = machine.console.expectLine(within: .seconds(5)) { $0.contains("orphan inode") }
    _ = try await machine.run("mount", "/dev/vda", "/mnt")
    print(try await warning)
    for await line in machine.console { print("guest:", line) }
}

private func memory(_ machine: VirtualMachine, _ configuration: inout VirtualMachineConfiguration) async throws {
    configuration.hasBalloon = true
    try await machine.setMemoryTarget(MemorySize("512M"))
    let memory = try await machine.memoryStatistics()
    print("\(memory.available ?? 0) bytes are left to programs")
}

@Suite(.disabled("they are here to be compiled")) struct ArticleCode {
    @Suite(.guest { $0.memory = try MemorySize("512M") }) struct MountTests {
        @Test func aFileSystemIsMounted() async throws {
            let guest = try Guest.current
            let result = try await guest.shell("mount -t tmpfs none /mnt && grep /mnt /proc/mounts")
            #expect(result.output.contains("tmpfs"))
        }
    }

    @Test(.guest(sharing: .test), .timeLimit(.minutes(1))) func theClockIsSet() async throws {
        #expect(try await Guest.current.run("date", "--set", "2001-01-01").isSuccess)
    }

    @Test(.guest(whenMissing: .skip) { $0.engine = .kvm }) func timersAreExact() async throws {
        #expect(try await Guest.current.run("cyclictest", "-l", "1000", "-q").isSuccess)
    }
}

@Suite struct ArticleTests {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()

    /// Every line of an article's code stands in this file, in a row with the others of its block.
    @Test(arguments: ["Windhover", "RunningCommands", "TestingWithGuests"]) func theCodeOfTheArticlesIsCompiled(name: String) throws {
        func lines(_ text: Substring) -> [String] {
            text.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
        }
        let article = try String(
            contentsOf: Self.root.appendingPathComponent("Sources/Windhover/Windhover.docc/\(name).md"), encoding: .utf8)
        let compiled = lines(Substring(try String(contentsOf: URL(fileURLWithPath: #filePath), encoding: .utf8)))
        let blocks = article.components(separatedBy: "```swift\n").dropFirst().map { lines(($0.components(separatedBy: "```").first ?? "")[...]) }
        #expect(!blocks.isEmpty)
        for block in blocks {
            let isThere = compiled.indices.contains { compiled[$0...].starts(with: block) }
            #expect(isThere, "\(name).md has code that nobody compiles:\n\(block.joined(separator: "\n"))")
        }
    }
}
