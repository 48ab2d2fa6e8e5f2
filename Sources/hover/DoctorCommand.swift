import ArgumentParser
import KVM
import Machine
import Windhover

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Shows what this host can do, what is missing, and the command that mends it.",
        discussion: """
            EXIT STATUS:
              0      guests can run here, by KVM or by the interpreter
              69     something is missing that they need
            """)

    func run() throws {
        var facts = HostFacts.gather(store: try? ImageStore(), askKVM: askKVM)
        if let engine = try? EngineSelection(.automatic) {
            facts.engine = HostFacts.EngineFacts(name: engine.name, reason: engine.reason)
        }
        let report = HostReport(facts)
        let columns = Terminal.size(of: STDOUT_FILENO)?.columns
        try StandardOutput.write(report.text(coloured: Style.isColoured, columns: columns))
        if report.exitStatus != .success { throw report.exitStatus }
    }

    /// Asks an open /dev/kvm for its version and abilities.
    private func askKVM(_ descriptor: Int32) -> HostFacts.KVMFacts {
        let probe = KVMProbe(descriptor: descriptor)
        func text(_ capability: KVMCapability) -> String { "\(capability.name) (\(capability.purpose))" }
        return HostFacts.KVMFacts(
            apiVersion: probe.apiVersion, maximumCPUs: probe.maximumVCPUs,
            missingRequired: probe.missing.filter(\.isRequired).map(text),
            missingOptional: probe.missing.filter { !$0.isRequired }.map(text))
    }
}

extension HostReport {
    /// The report as aligned lines: a mark, the subject, the finding, and under it what mends it.
    ///
    /// - Parameter columns: the terminal's width, to which the words are wrapped; nil leaves each finding on one line, for grep.
    func text(coloured: Bool, columns: Int? = nil) -> String {
        let width = (checks.map(\.subject.count).max() ?? 0) + 2
        var text = ""
        for check in checks {
            let mark =
                switch check.level {
                case .good: Style.green("ok  ", coloured)
                case .warning: Style.yellow("note", coloured)
                case .bad: Style.red("FAIL", coloured)
                }
            let subject = check.subject + String(repeating: " ", count: width - check.subject.count)
            let margin = String(repeating: " ", count: 6 + width)
            let finding = Self.wrapped(check.finding, to: columns.map { $0 - margin.count })
            text += "\(mark)  \(subject)\(finding.joined(separator: "\n" + margin))\n"
            if let remedy = check.remedy {
                for (index, line) in Self.wrapped(remedy, to: columns.map { $0 - margin.count - 3 }).enumerated() {
                    text += margin + Style.bold((index == 0 ? "-> " : "   ") + line, coloured) + "\n"
                }
            }
        }
        let reserved = checks.contains { $0.level == .warning } ? ", with the notes above" : ""
        text += exitStatus == .success ? "\nGuests can run here\(reserved).\n" : "\nNo guest can run here yet.\n"
        return text
    }

    /// Lines of at most `width` characters, broken between words; one line where there is no width, or hardly any.
    static func wrapped(_ text: String, to width: Int?) -> [String] {
        guard let width, width >= 20 else { return [text] }
        var lines: [String] = []
        for word in text.split(separator: " ") {
            if let last = lines.last, last.count + 1 + word.count <= width {
                lines[lines.count - 1] = "\(last) \(word)"
            } else {
                lines.append(String(word))
            }
        }
        return lines
    }
}
