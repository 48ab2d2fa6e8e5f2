import Foundation
import Testing

/// The hot handlers as machine code: they hand over by jumps, and touch no reference count.
@Suite struct HandlerCodeTests {
    /// The program's functions that handlers are made of, disassembled: name, and its instructions. The closures themselves, and
    /// the thunks by which C reaches them: one of the two has the code.
    private static func handlers() throws -> [(name: String, code: [Substring])]? {
        guard let symbols = try output(of: "/usr/bin/nm", "-S"), let text = try output(of: "/usr/bin/objdump", "-d", "--no-show-raw-insn")
        else { return nil }
        // A function that has no symbol may follow one that has: each ends where its symbol says.
        var ends: [Substring: UInt64] = [:]
        for line in symbols.split(separator: "\n") {
            let fields = line.split(separator: " ")
            guard fields.count == 4, fields[3].hasPrefix("$s7SoftCPU8HandlersO"), fields[3].contains("Su_Sus6UInt64V"),
                !fields[3].hasSuffix("vgZ"), let start = UInt64(fields[0], radix: 16), let size = UInt64(fields[1], radix: 16)
            else { continue }
            ends[fields[3]] = start + size
        }
        var result: [(name: String, code: [Substring])] = []
        var end: UInt64 = 0
        for line in text.split(separator: "\n") {
            if line.hasSuffix(">:"), let start = line.firstIndex(of: "<") {
                let name = line[line.index(after: start)...].dropLast(2)
                end = ends[name] ?? 0
                if end != 0 { result.append((String(name), [])) }
            } else if end != 0, let colon = line.firstIndex(of: ":"),
                let address = UInt64(line[..<colon].drop { $0 == " " }, radix: 16), address < end
            {
                result[result.count - 1].code.append(line)
            }
        }
        return result
    }

    /// What a tool says about the test's own program; nil where it is not installed.
    private static func output(of tool: String, _ arguments: String...) throws -> String? {
        guard FileManager.default.isExecutableFile(atPath: tool) else { return nil }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: tool)
        let bundle = CommandLine.arguments.first { $0.hasSuffix(".xctest") } ?? CommandLine.arguments[0]
        process.arguments = arguments + [bundle]
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = FileHandle.nullDevice
        try process.run()
        let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return text
    }

    @Test func handOverByJumps() throws {
        guard let handlers = try Self.handlers() else {
            try Test.cancel("objdump or nm is not installed")
        }
        #expect(handlers.count > 1000, "the handlers were not found in the test's own program")
        // What leaves the fast path may call; nothing that a translated instruction starts in may.
        let slow = ["general", "slow", "miss"]
        for handler in handlers where !slow.contains(where: { handler.name.contains($0) }) {
            let call = handler.code.first { $0.contains("\tcall ") || $0.contains("swift_retain") || $0.contains("swift_release") }
            #expect(call == nil, "\(handler.name): \(call ?? "")")
        }
    }
}
