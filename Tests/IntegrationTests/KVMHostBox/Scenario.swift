/// One thing that is done inside a box, and what must come of it.
struct Scenario: Sendable {
    /// What a box found wrong, or nil.
    enum Verdict: Sendable {
        case passed
        case failed(String)
        /// Named, with the reason.
        case skipped(String)
    }

    var name: String
    /// A script for the box's shell, in an empty directory of its own.
    var command: String
    var input: [UInt8] = []
    /// Makes the input where that takes long: only for a scenario that is run.
    var makeInput: (@Sendable () throws -> [UInt8])?
    /// The box's seconds, which the box itself enforces.
    var limit = 120
    /// Boxes that it runs in.
    var boxes = Set(Box.allCases)
    var judge: @Sendable (ScenarioResult) -> Verdict

    /// Judges by exit status and by texts that must be there.
    init(
        _ name: String, _ command: String, input: String = "", limit: Int = 120, boxes: [Box] = Box.allCases, status: Int32,
        output: [String] = [], error: [String] = []
    ) {
        self.name = name
        self.command = command
        self.input = Array(input.utf8)
        self.limit = limit
        self.boxes = Set(boxes)
        judge = { result in
            guard result.status == status else { return .failed("status \(result.status), not \(status)") }
            for text in output where !result.output.contains(text) { return .failed("it did not print '\(text)'") }
            for text in error where !result.error.contains(text) { return .failed("standard error lacks '\(text)'") }
            // One line says it, but for a crash, which adds its registers.
            // The choice of the engine has one of its own.
            let lines = result.error.split(separator: "\n").filter { !$0.hasPrefix("hover: using the interpreter: ") }
            if status != 70, !error.isEmpty, lines.count != 1 {
                return .failed("standard error has more than one line")
            }
            return .passed
        }
    }

    /// A run of a guest program, judged by its guest.conf.
    init(_ program: GuestProgram, interruptChips: String, in box: Box) {
        name = "\(program.name), \(interruptChips) interrupt controllers"
        let options = program.options + box.shortened(program)
        // A time limit that is the expected end is kept as it is; others are for real processors.
        let time = program.status == 124 ? box.brief : program.timeout
        let words = ["--engine", "kvm", "--irqchip", interruptChips, "--timeout", time] + options + ["/guests/\(program.image).img"]
        command = "exec hover run " + words.map(Self.quoted).joined(separator: " ")
        input = program.input
        limit = 150
        boxes = [box]
        let tooLarge = program.memory > box.memory
        let quirk = box.quirk(of: program, interruptChips: interruptChips)
        judge = { result in
            if tooLarge { return .skipped("the box has \(box.memory) MiB") }
            var problem: String?
            if result.status != program.status {
                problem = "status \(result.status), not \(program.status)"
            } else {
                problem = program.expected.difference(from: result.output)
            }
            guard let problem else { return .passed }
            // Only the very symptom counts, and a box that has lost it passes.
            if let quirk, result.output.contains(quirk.symptom) { return .skipped(quirk.reason) }
            return .failed(problem)
        }
    }

    /// Whether a result is to be had once more: it failed, or it is a report with failed rows that no quirk of the box's explains.
    func mayHaveLapsed(_ result: ScenarioResult, in box: Box) -> Bool {
        if case .failed = judge(result) { return true }
        guard name == Self.conformanceName else { return false }
        return result.output.split(separator: "\n").contains { line in
            let fields = line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
            guard fields.first == "failed" else { return false }
            guard fields.count == 4, let quirk = box.quirk(ofConformance: fields[2]) else { return true }
            return !fields[3].contains(quirk.symptom)
        }
    }

    static func quoted(_ word: String) -> String {
        "'" + word.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
    }
}

/// What a box reported of a scenario.
struct ScenarioResult: Sendable {
    var status: Int32
    /// On the box's clock.
    var seconds: Double
    var output: String
    var error: String

    /// For messages.
    var summary: String {
        "status \(status) after \(seconds) s of the box\nstandard output:\n\(output.suffix(2000))\nstandard error:\n\(error.suffix(2000))"
    }
}

/// The box's serial port, read: see rig/init for its form.
struct BoxReport: Sendable {
    private(set) var results: [String: ScenarioResult] = [:]
    /// A scenario that was begun and not ended: the box stopped in it.
    private(set) var unfinished: String?
    private(set) var isComplete = false

    init(_ text: String) {
        var current: ScenarioResult?
        let lines = text.utf8.filter { $0 != UInt8(ascii: "\r") }.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: true)
        for line in lines.map({ String(decoding: $0, as: UTF8.self) }) {
            if line.hasPrefix("o|") {
                current?.output += line.dropFirst(2) + "\n"
            } else if line.hasPrefix("e|") {
                current?.error += line.dropFirst(2) + "\n"
            } else if line.hasPrefix("@begin ") {
                unfinished = String(line.dropFirst(7))
                current = ScenarioResult(status: -1, seconds: 0, output: "", error: "")
            } else if line.hasPrefix("@status ") {
                let words = line.split(separator: " ")
                guard words.count == 4 else { continue }
                current?.status = Int32(words[1]) ?? -1
                current?.seconds = (Double(words[3]) ?? 0) - (Double(words[2]) ?? 0)
            } else if line.hasPrefix("@end "), let result = current, String(line.dropFirst(5)) == unfinished {
                results[String(line.dropFirst(5))] = result
                unfinished = nil
                current = nil
            } else if line == "@done" {
                isComplete = true
            }
        }
    }
}
