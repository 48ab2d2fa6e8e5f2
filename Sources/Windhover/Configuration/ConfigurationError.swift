/// A value that no machine can be made from.
public struct ConfigurationError: ReportableError, Hashable {
    /// Whether the words could not be understood (`usage`) or ask for the impossible (`badConfiguration`).
    public let exitStatus: ExitStatus
    public let description: String

    /// The text is not of the option's form.
    static func malformed(_ message: String) -> Self { .init(exitStatus: .usage, description: message) }
    /// The text is understood, and no machine can be so.
    static func impossible(_ message: String) -> Self { .init(exitStatus: .badConfiguration, description: message) }
}
