import Foundation
import Testing

@testable import Windhover

/// `hover exec` on the software CPU, as its users call it.
enum Exec {
    /// Seconds that a run may take: on a machine that has much else to do a boot takes ten times as long as on a quiet one.
    static let deadline = 300.0

    private static let fetched = Task { _ = try ImageStore().fetch("linux") }

    /// The kernel, fetched as users fetch it.
    static func image() async throws {
        do { try await fetched.value } catch { try Requirement.missing("interpreter", "the image linux is not to be had: \(error)") }
    }

    static func words(_ options: [String], _ command: [String]) -> [String] {
        let memory = options.contains("--memory") ? [] : ["--memory", "256M"]
        return [Hover.path, "exec", "--engine", "interpreter"] + memory + options + ["--"] + command
    }

    /// - Parameter directory: where the caller stands.
    static func run(
        _ options: [String] = [], _ command: [String], input: [UInt8] = [], in directory: String = "/",
        environment: [String: String] = [:], deadline: Double = Exec.deadline
    ) async throws -> ChildResult {
        try await image()
        return try await ChildProcess.run(
            ["env", "-C", directory] + words(options, command), input: input, environment: environment, deadline: deadline)
    }

    /// A shell of the host's around it, in which `hover exec` and its words are `"$@"`.
    static func around(_ script: String, _ options: [String] = [], _ command: [String], in directory: String = "/") async throws -> ChildResult {
        try await image()
        return try await ChildProcess.run(
            ["env", "-C", directory, "bash", "-c", script, "bash"] + words(options, command), deadline: deadline)
    }

    /// Seconds from the line `cause` of the command's, which the guest has half a second to get rid of, to hover's end.
    struct Timed {
        var result: ChildResult
        var seconds: Double?
    }

    /// - Parameter script: a shell's, which says `cause` and does it half a second later.
    static func timed(_ options: [String] = [], script: String) async throws -> Timed {
        let watch = """
            "$@" | while IFS= read -r line; do echo "$line"; [ "$line" = cause ] && echo "@cause $(date +%s.%N)"; done
            status=${PIPESTATUS[0]}; echo "@end $(date +%s.%N)"; exit $status
            """
        let result = try await around(watch, options, ["sh", "-c", script])
        func moment(_ mark: String) -> Double? {
            ExpectedOutput.lines(of: result.output).first { $0.hasPrefix(mark + " ") }.flatMap { Double($0.dropFirst(mark.count + 1)) }
        }
        guard let cause = moment("@cause"), let end = moment("@end") else { return Timed(result: result, seconds: nil) }
        return Timed(result: result, seconds: end - cause - 0.5)
    }

    /// Two seconds of a machine that has nothing else to do: on one with more to do than processors, as many more.
    static var promptly: Double {
        var load = 0.0
        guard getloadavg(&load, 1) == 1 else { return 2 }
        return 2 * max(1, load / Double(ProcessInfo.processInfo.activeProcessorCount))
    }

    static func needs(_ program: String, package: String) throws {
        for directory in ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
        where FileManager.default.isExecutableFile(atPath: "\(directory)/\(program)") { return }
        try Requirement.missing("interpreter", "there is no \(program): apt-get install \(package)")
    }
}

/// A directory for one test, where everybody may look, removed at its end.
final class ExecScratch {
    let path = NSTemporaryDirectory() + "hover-exec-\(UUID().uuidString.prefix(8))"

    init() throws {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
    }
    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { path + "/" + name }

    /// - Returns: its path.
    @discardableResult
    func directory(_ name: String) throws -> String {
        try FileManager.default.createDirectory(atPath: file(name), withIntermediateDirectories: true)
        return file(name)
    }

    @discardableResult
    func write(_ text: String, to name: String, mode: Int = 0o644) throws -> String {
        try text.write(toFile: file(name), atomically: false, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: file(name))
        return file(name)
    }

    func has(_ name: String) -> Bool { FileManager.default.fileExists(atPath: file(name)) }
    func text(_ name: String) -> String? { try? String(contentsOfFile: file(name), encoding: .utf8) }

    /// A tree to be a guest's root: busybox under the names of some programs, a user with groups, and no more. `/proc`, `/sys`, `/dev`
    /// are for the guest to make.
    func busyboxRoot(_ name: String, programs: [String]) throws -> String {
        try Exec.needs("busybox", package: "busybox-static")
        for part in ["bin", "etc", "work"] { try directory("\(name)/\(part)") }
        try FileManager.default.copyItem(atPath: "/bin/busybox", toPath: file("\(name)/bin/busybox"))
        for program in programs {
            try FileManager.default.createSymbolicLink(atPath: file("\(name)/bin/\(program)"), withDestinationPath: "busybox")
        }
        try write("root:x:0:0::/root:/bin/sh\ntester:x:1234:1235::/home/tester:/bin/sh\n", to: "\(name)/etc/passwd")
        try write("root:x:0:\ntester:x:1235:\nfirst:x:2001:other,tester\nother:x:2002:other\nlast:x:2003:tester\n", to: "\(name)/etc/group")
        return file(name)
    }
}
