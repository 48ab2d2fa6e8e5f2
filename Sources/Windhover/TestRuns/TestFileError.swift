/// A test file that no tests can be had from, and the place in it.
public struct TestFileError: ReportableError, Hashable {
    /// The file as it was named.
    public let path: String
    /// From 1; columns in Unicode scalars.
    public let line: Int
    public let column: Int
    /// One line, without the place.
    public let message: String

    public var exitStatus: ExitStatus { .badConfiguration }
    /// As compilers put it, so that editors find the place.
    public var description: String { "\(path):\(line):\(column): \(message)" }
}
