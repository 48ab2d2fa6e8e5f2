import Foundation

/// One run of a program of guests/, as its guest.conf describes it.
///
/// guest.conf holds `key: value` lines and comments. What comes before the first `run: NAME` holds for every run; each
/// `run:` begins one of its own. Keys:
///
///     image     how it is linked: guests/build's business
///     cpus, memory, append    options of hover run
///     options   further options, as they are
///     status    the exit status it must end with
///     timeout   the time limit it is given
///     input     what is typed at it, with C's escapes
///     expect    the file with what it must print; `none` for nothing; `expect` where there is no word of it
///     requires  what it needs of the engine: `whole-ring0`, one on which every instruction of ring 0 runs
struct GuestProgram: Hashable, Sendable {
    /// "reset, keyboard"
    var name: String
    /// Of the image in guests/out.
    var image: String
    /// Options of hover run, without engine, interrupt controllers and time limit.
    var options: [String] = []
    var status: Int32 = 0
    var timeout = "10s"
    var input: [UInt8] = []
    var expected: ExpectedOutput
    var requirements: Set<String> = []

    /// Of the time limit.
    var seconds: Double { Double(timeout.dropLast()) ?? 0 }

    /// In MiB; what hover takes by itself where there is no word of it.
    var memory: Int {
        guard let index = options.firstIndex(of: "--memory") else { return 512 }
        let text = options[index + 1]
        return (Int(text.dropLast()) ?? 0) * (text.hasSuffix("G") ? 1024 : 1)
    }

    static let directory = Repository.root + "/guests"

    /// Every run of every guest, by name.
    static let all: [GuestProgram] = {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
        return names.sorted().flatMap { name -> [GuestProgram] in
            guard let text = try? String(contentsOfFile: "\(directory)/\(name)/guest.conf", encoding: .utf8) else { return [] }
            return parse(text, guest: name) { file in
                try? String(contentsOfFile: "\(directory)/\(name)/\(file)", encoding: .utf8)
            }
        }
    }()

    /// - Parameter contents: a file of the guest's directory.
    static func parse(_ text: String, guest: String, contents: (String) -> String?) -> [GuestProgram] {
        var blocks: [(name: String?, keys: [(String, String)])] = [(nil, [])]
        for line in text.split(whereSeparator: \.isNewline) where !line.hasPrefix("#") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let key = String(line[..<colon])
            let value = line[line.index(after: colon)...].drop { $0 == " " }
            if key == "run" { blocks.append((String(value), [])) } else { blocks[blocks.count - 1].keys.append((key, String(value))) }
        }
        let common = blocks.removeFirst().keys
        if blocks.isEmpty { blocks = [(nil, [])] }
        return blocks.map { block in
            var program = GuestProgram(
                name: block.name.map { "\(guest), \($0)" } ?? guest, image: guest, expected: ExpectedOutput(""))
            var file = "expect"
            // A run's own words come last and win.
            for (key, value) in common + block.keys {
                switch key {
                case "cpus", "memory", "append":
                    if let index = program.options.firstIndex(of: "--\(key)") {
                        program.options[index + 1] = value
                    } else {
                        program.options += ["--\(key)", value]
                    }
                case "options": program.options += value.split(separator: " ").map(String.init)
                case "status": program.status = Int32(value) ?? -1
                case "timeout": program.timeout = value
                case "input": program.input = unescape(value)
                case "expect": file = value
                case "requires": program.requirements = Set(value.split(separator: " ").map(String.init))
                default: break
                }
            }
            if file != "none" {
                program.expected = ExpectedOutput(contents(file) ?? "there is no file \(file)")
            }
            return program
        }
    }

    private static func unescape(_ text: String) -> [UInt8] {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "\\"), let next = rest.popFirst() else {
                bytes.append(byte)
                continue
            }
            switch next {
            case UInt8(ascii: "r"): bytes.append(13)
            case UInt8(ascii: "n"): bytes.append(10)
            default: bytes.append(next)
            }
        }
        return bytes
    }
}

/// Where this package's files are.
enum Repository {
    static let root: String = {
        // Tests/IntegrationTests/Support/GuestProgram.swift
        var parts = #filePath.split(separator: "/")
        parts.removeLast(4)
        return "/" + parts.joined(separator: "/")
    }()
}
