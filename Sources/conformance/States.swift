import MonitorTesting

/// Final states of privileged programs on an engine.
///
/// Usage: `conformance states SEED COUNT [FIRST] [--engine kvm|interpreter]... [--reference NAME] [--programs] [--expected]`
///
/// A line a program and engine: the program's number, the state's digest, the engine where there are several, the state.
/// `--reference exact|qemu|bochs` leaves out what cannot be compared with that one, `--programs` adds what the program is.
/// With `--expected` there is a digest for each program on standard input, and only lines with another are printed; the last
/// line counts them.
enum ControlStates {
    /// - Returns: false for wrong arguments, an engine that is not there, or a difference.
    static func run(_ arguments: [String]) -> Bool {
        var numbers: [UInt64] = []
        var names: [String] = []
        var showsPrograms = false
        var isExpected = false
        var reference = ControlReference.exact
        var rest = arguments[...]
        while let word = rest.popFirst() {
            switch word {
            case "--engine": names.append(rest.popFirst() ?? "")
            case "--programs": showsPrograms = true
            case "--reference":
                let name = rest.popFirst() ?? ""
                guard let known = ControlReference.all.first(where: { $0.name == name }) else {
                    return complain("no reference is '\(name)'")
                }
                reference = known
            case "--expected": isExpected = true
            default:
                guard let number = UInt64(word) else { return complain("'\(word)' is no number") }
                numbers.append(number)
            }
        }
        guard numbers.count == 2 || numbers.count == 3, let count = Int(exactly: numbers[1]) else {
            return complain("usage: conformance states SEED COUNT [FIRST] [--engine kvm|interpreter]... [--reference NAME]"
                    + " [--programs] [--expected]")
        }
        let first = numbers.count == 3 ? Int(truncatingIfNeeded: numbers[2] & 0xFFFF_FFFF) : 0
        var machines: [(name: String, machine: ControlMachine)] = []
        for name in names.isEmpty ? ["interpreter"] : names {
            do {
                machines.append((name, try ControlMachine(try factory(name), reference: reference)))
            } catch {
                return complain("\(name): \(error)")
            }
        }
        let generator = ControlGenerator(seed: numbers[0])
        var different = 0
        var compared = 0
        for number in first..<first + count {
            let program = generator.program(number)
            let expected = isExpected ? readLine().flatMap { UInt32($0, radix: 16) } : nil
            if reference.omission(of: program) != nil { continue }
            compared += 1
            for (name, machine) in machines {
                do {
                    let outcome = try machine.run(program)
                    if isExpected, outcome.digest == expected { continue }
                    different += isExpected ? 1 : 0
                    Conformance.say(ControlReport.line(number, outcome, engine: machines.count > 1 ? name : nil))
                } catch {
                    return complain("\(name): program \(number): \(error)")
                }
            }
            if showsPrograms { Conformance.say("# " + program.listing) }
        }
        if isExpected { Conformance.say("\(count) programs, \(compared) compared, \(different) differ") }
        return different == 0
    }

    private static func factory(_ name: String) throws -> EngineFactory {
        guard let factory = ControlReport.engine(name) else { throw ConformanceFailure("there is no such engine") }
        if let reason = factory.unavailable { throw ConformanceFailure("\(reason)") }
        return factory
    }

    private static func complain(_ text: String) -> Bool {
        Conformance.say("conformance: " + text)
        return false
    }
}
