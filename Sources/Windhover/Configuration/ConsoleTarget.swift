/// What the guest's serial console is connected to.
public enum ConsoleTarget: Hashable, Sendable {
    /// The command's own standard input and output; a terminal is put into raw mode.
    case standardIO
    /// Output to a file; no input.
    case file(String)
    /// Nothing: output is dropped.
    case none

    /// Reads `stdio`, `file:PATH`, `none`.
    public init(_ text: String) throws(ConfigurationError) {
        switch text {
        case "stdio": self = .standardIO
        case "none": self = .none
        case _ where text.hasPrefix("file:"):
            let path = String(text.dropFirst("file:".count))
            guard !path.isEmpty else {
                throw .malformed("--console file: names no file: say --console file:PATH")
            }
            self = .file(path)
        default:
            throw .malformed("--console takes stdio, file:PATH or none, not '\(text)'")
        }
    }
}
