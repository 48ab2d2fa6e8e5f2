import MonitorTesting

extension Scenario {
    /// Final states of privileged programs: the box's processor against the interpreter, which runs them in this process.
    ///
    /// The box is given the interpreter's digests and reports what is not like them, whole. One digest is wrong on purpose:
    /// where nothing were compared, that one would not come back.
    static func privilegedPrograms(in box: Box) -> Scenario {
        let programs = PrivilegedPrograms(box)
        var scenario = Scenario(
            PrivilegedPrograms.name,
            "exec conformance states \(PrivilegedPrograms.seed) \(programs.count) --engine kvm"
                + " --reference \(programs.reference.name) --expected",
            limit: 600, status: 1)
        scenario.makeInput = { try programs.digests() }
        scenario.judge = { programs.judge($0) }
        return scenario
    }
}

struct PrivilegedPrograms: Sendable {
    static let name = "privileged programs end as on the interpreter"
    static let seed: UInt64 = 0x57494E44

    let count: Int
    let reference: ControlReference

    /// Bochs takes seconds for what QEMU does in one.
    init(_ box: Box) {
        count = box == .amd ? 400 : 150
        reference = box == .amd ? .qemu : .bochs
    }

    private var generator: ControlGenerator { ControlGenerator(seed: Self.seed) }

    /// The program whose digest is wrong on purpose.
    private var planted: Int { (0..<count).first { reference.omission(of: generator.program($0)) == nil } ?? 0 }

    private func interpreter() throws -> ControlMachine {
        try ControlMachine(.interpreter(localAPICs: false), reference: reference)
    }

    func digests() throws -> [UInt8] {
        let machine = try interpreter()
        let planted = planted
        var text = ""
        for number in 0..<count {
            let program = generator.program(number)
            let digest = reference.omission(of: program) == nil ? try machine.run(program).digest : 0
            text += ControlReport.digits(number == planted ? ~digest : digest) + "\n"
        }
        return Array(text.utf8)
    }

    func judge(_ result: ScenarioResult) -> Scenario.Verdict {
        let lines = result.output.split(separator: "\n")
        let compared = (0..<count).filter { reference.omission(of: generator.program($0)) == nil }.count
        guard let last = lines.last, last.hasPrefix("\(count) programs, \(compared) compared, ") else {
            return .failed("the program did not come to its end")
        }
        do {
            let machine = try interpreter()
            var differences: [String] = []
            var hasPlanted = false
            for line in lines.dropLast() {
                guard let (number, outcome) = ControlReport.read(line) else { continue }
                let own = try machine.run(generator.program(number))
                hasPlanted = hasPlanted || number == planted
                if own == outcome { continue }
                let fields = own.differences(from: outcome).joined(separator: "; ")
                differences.append("\(fields): \(generator.program(number).listing)")
            }
            guard hasPlanted else { return .failed("the digest that is wrong on purpose was not noticed") }
            guard differences.isEmpty, last.hasSuffix(" 1 differ") else {
                return .failed("the interpreter's answer, not KVM's:\n" + differences.prefix(10).joined(separator: "\n"))
            }
            return .passed
        } catch {
            return .failed("\(error)")
        }
    }
}
