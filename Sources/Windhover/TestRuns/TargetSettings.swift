/// The keys of a target that are set so far: by `[defaults]`, by the target, by its matrix, the later above the earlier.
struct TargetSettings {
    /// Every key that a target and `[defaults]` may both have.
    static let sharedKeys = [
        "append", "command", "cpus", "disk", "engine", "env", "expect", "kernel", "matrix", "memory", "modules", "net", "root", "rw",
        "shares", "skip", "timeout", "user", "when_missing", "workdir",
    ]

    /// The keys whose values a matrix varies.
    static let variedKeys = sharedKeys.filter { $0 != "env" && $0 != "matrix" && $0 != "skip" }

    /// How long a target runs whose file says nothing: a test must end.
    static let usualTimeout = "10m"

    private var kernel: String?
    private var modules: String?
    private var root: String?
    private var disks: [String] = []
    private var isWritable = false
    private(set) var command: [String]?
    private var workingDirectory: String?
    private var cpus = 1
    private var memory = RunOptions().memory
    private(set) var engine = EngineChoice.auto
    private var skipsWithoutEngine = false
    private var timeout = usualTimeout
    private var environment: [TestTarget.Variable] = []
    private var network: String?
    private var user: String?
    private var shares: [String] = []
    private var append: [String] = []
    private var expectation = TestTarget.Expectation.status(0)
    private var skipReason: String?

    /// Takes a key's value.
    ///
    /// - Throws: why it is none for this key. The key is one of `sharedKeys` other than `matrix`.
    mutating func set(_ key: String, _ node: TOMLNode) throws(TOMLError) {
        switch key {
        case "kernel": kernel = try Self.text(node, key)
        case "modules": modules = try Self.text(node, key)
        case "root": root = try Self.text(node, key)
        case "disk": disks = try Self.words(node, key)
        case "rw": isWritable = try Self.flag(node, key)
        case "command": command = try Self.command(node)
        case "workdir": workingDirectory = try Self.text(node, key)
        case "cpus": cpus = try Self.integer(node, key, 1...RunConfiguration.maximumCPUs)
        case "memory":
            memory = try Self.text(node, key)
            _ = try Self.checked(node) { () throws(ConfigurationError) in try MemorySize(memory) }
        case "engine":
            engine = try Self.choice(node, key, EngineChoice.allCases.map { ($0.rawValue, $0) })
        case "when_missing":
            skipsWithoutEngine = try Self.choice(node, key, [("fail", false), ("skip", true)])
        case "timeout":
            switch node.value {
            case .integer(let seconds): timeout = String(seconds)
            case .float(let seconds): timeout = "\(seconds)"
            default: timeout = try Self.text(node, key)
            }
            _ = try Self.checked(node) { () throws(ConfigurationError) in try TimeLimit(timeout) }
        case "env": try addVariables(node)
        case "net":
            let text = try Self.text(node, key)
            _ = try Self.checked(node) { () throws(ConfigurationError) in try NetworkConfiguration(text) }
            network = text
        case "user":
            let text = try Self.text(node, key)
            guard !text.hasPrefix("-") else { throw TOMLError(offset: node.offset, message: "'\(text)' is no user's name") }
            user = text
        case "shares": shares = try Self.words(node, key)
        case "append": append = try Self.words(node, key)
        case "expect": expectation = try Self.expectation(node)
        case "skip": skipReason = try Self.text(node, key)
        default: break
        }
    }

    /// - Returns: nil where there is no command.
    func target(named name: String) -> TestTarget? {
        guard let command, let memory = try? MemorySize(memory), let timeout = try? TimeLimit(timeout) else { return nil }
        var target = TestTarget(name: name, command: command, memory: memory, timeout: timeout)
        target.kernel = kernel
        target.modules = modules
        target.root = root
        target.disks = disks
        target.isWritable = isWritable
        target.workingDirectory = workingDirectory
        target.cpus = cpus
        target.engine = engine
        target.skipsWithoutEngine = skipsWithoutEngine
        target.environment = environment
        target.network = network
        target.user = user
        target.shares = shares
        target.append = append
        target.expectation = expectation
        target.skipReason = skipReason
        return target
    }

    // MARK: Values

    static func wrongType(_ node: TOMLNode, _ key: String, _ wanted: String) -> TOMLError {
        TOMLError(offset: node.offset, message: "\(key) wants \(wanted), not \(node.kind)")
    }

    /// A text that can be an argument: not empty, no zero byte.
    static func text(_ node: TOMLNode, _ key: String, _ wanted: String = "a string") throws(TOMLError) -> String {
        guard case .string(let text) = node.value else { throw wrongType(node, key, wanted) }
        guard !text.isEmpty else { throw TOMLError(offset: node.offset, message: "\(key) is empty: leave it out") }
        return try argument(text, node, key)
    }

    private static func argument(_ text: String, _ node: TOMLNode, _ key: String) throws(TOMLError) -> String {
        guard !text.utf8.contains(0) else { throw TOMLError(offset: node.offset, message: "\(key) holds a zero byte, which no argument may") }
        return text
    }

    private static func words(_ node: TOMLNode, _ key: String) throws(TOMLError) -> [String] {
        let wanted = "a string or an array of strings"
        guard case .array(let nodes) = node.value else { return [try text(node, key, wanted)] }
        var words: [String] = []
        for node in nodes { words.append(try text(node, key, wanted)) }
        return words
    }

    /// A string is a shell's; the words of an array are the command and its arguments, which may be empty.
    private static func command(_ node: TOMLNode) throws(TOMLError) -> [String] {
        let wanted = "a string for /bin/sh, or an array of strings"
        guard case .array(let nodes) = node.value else { return ["/bin/sh", "-c", try text(node, "command", wanted)] }
        var words: [String] = []
        for node in nodes {
            guard case .string(let word) = node.value else { throw wrongType(node, "command", wanted) }
            words.append(try argument(word, node, "command"))
        }
        guard let program = words.first, !program.isEmpty else {
            throw TOMLError(offset: node.offset, message: "command is empty: name a program, as in command = [\"/bin/true\"]")
        }
        return words
    }

    private static func flag(_ node: TOMLNode, _ key: String) throws(TOMLError) -> Bool {
        guard case .boolean(let flag) = node.value else { throw wrongType(node, key, "true or false") }
        return flag
    }

    private static func integer(_ node: TOMLNode, _ key: String, _ range: ClosedRange<Int>) throws(TOMLError) -> Int {
        let wanted = "a number from \(range.lowerBound) to \(range.upperBound)"
        guard case .integer(let value) = node.value else { throw wrongType(node, key, wanted) }
        guard let value = Int(exactly: value), range.contains(value) else {
            throw TOMLError(offset: node.offset, message: "\(key) wants \(wanted), not \(value)")
        }
        return value
    }

    private static func choice<Choice>(_ node: TOMLNode, _ key: String, _ choices: [(String, Choice)]) throws(TOMLError) -> Choice {
        let list = choices.dropLast().map(\.0).joined(separator: ", ") + " or " + (choices.last?.0 ?? "")
        guard case .string(let text) = node.value else { throw wrongType(node, key, list) }
        guard let found = choices.first(where: { $0.0 == text }) else {
            throw TOMLError(offset: node.offset, message: "\(key) takes \(list), not '\(text)'")
        }
        return found.1
    }

    private static func expectation(_ node: TOMLNode) throws(TOMLError) -> TestTarget.Expectation {
        if case .string(let text) = node.value {
            guard text == "panic" else { throw TOMLError(offset: node.offset, message: "expect takes an exit status or \"panic\", not '\(text)'") }
            return .panic
        }
        guard case .integer = node.value else { throw wrongType(node, "expect", "an exit status or \"panic\"") }
        return .status(Int32(truncatingIfNeeded: try integer(node, "expect", 0...255)))
    }

    /// The variables of an `env` table: those of an earlier one stay, but for those of the same name.
    private mutating func addVariables(_ node: TOMLNode) throws(TOMLError) {
        guard case .table(let table) = node.value else { throw Self.wrongType(node, "env", "a table of strings") }
        for entry in table.entries {
            let name = entry.key.name
            guard let first = name.utf8.first, !Digit.contains(first),
                name.utf8.allSatisfy({ TOMLScanner.isBare($0) && $0 != UInt8(ascii: "-") })
            else { throw TOMLError(offset: entry.key.offset, message: "'\(name)' is no variable's name: letters, digits and _ make one") }
            guard case .string(let value) = entry.node.value else { throw Self.wrongType(entry.node, "env.\(name)", "a string") }
            environment.removeAll { $0.name == name }
            environment.append(TestTarget.Variable(name: name, value: try Self.argument(value, entry.node, "env.\(name)")))
        }
    }

    /// What the command line's own check says, without the dashes of its options.
    private static func checked<Value>(_ node: TOMLNode, _ body: () throws(ConfigurationError) -> Value) throws(TOMLError) -> Value {
        do throws(ConfigurationError) { return try body() } catch {
            let words = error.description.split(separator: " ").map { $0.hasPrefix("--") ? $0.dropFirst(2) : $0 }
            throw TOMLError(offset: node.offset, message: words.joined(separator: " "))
        }
    }
}

extension TOMLNode {
    /// What it is, with its article.
    var kind: String {
        switch value {
        case .string: "a string"
        case .integer: "an integer"
        case .float: "a float"
        case .boolean: "a boolean"
        case .date: "a date"
        case .array: "an array"
        case .table: "a table"
        case .tables: "an array of tables"
        }
    }
}
