internal import KVM

/// The lines that tell of final states, written and read.
public enum ControlReport {
    /// An engine by the name it has for users. CR8 and HLT are compared too: so it is without interrupt controllers.
    public static func engine(_ name: String) -> EngineFactory? {
        switch name {
        case "kvm": .kvm(.none)
        case "interpreter": .interpreter(localAPICs: false)
        default: nil
        }
    }

    public static func digits(_ digest: UInt32) -> String {
        let digits = String(digest, radix: 16)
        return String(repeating: "0", count: 8 - digits.count) + digits
    }

    public static func line(_ number: Int, _ outcome: ControlOutcome, engine: String? = nil) -> String {
        "\(number) \(digits(outcome.digest)) \(engine.map { $0 + " " } ?? "")\(outcome)"
    }

    /// - Returns: nil where it is no such line, or its digest is not that of its state.
    public static func read(_ line: some StringProtocol) -> (number: Int, outcome: ControlOutcome)? {
        let words = line.split(separator: " ", maxSplits: 2)
        guard words.count == 3, let number = Int(words[0]), let digest = UInt32(words[1], radix: 16),
            let outcome = ControlOutcome(words[2]), outcome.digest == digest
        else { return nil }
        return (number, outcome)
    }
}
