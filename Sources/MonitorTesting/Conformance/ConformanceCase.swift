/// One thing every engine must do, with the least guest that shows it.
public struct ConformanceCase: Sendable, CustomStringConvertible {
    public let name: String
    /// What an engine needs for the case to have a meaning.
    public let requires: EngineFactory.Features
    public let run: @Sendable (EngineFactory) throws -> Void
    /// The code it runs.
    public let snippets: [Snippet]

    init(
        _ name: String, requires: EngineFactory.Features = [], _ snippets: [Snippet],
        _ run: @escaping @Sendable (EngineFactory) throws -> Void
    ) {
        self.name = name
        self.requires = requires
        self.snippets = snippets
        self.run = run
    }

    public var description: String { name }

    /// The suite.
    public static let all: [ConformanceCase] = ports + memoryMapped + doorbells + execution + translation + state + kicks + interrupts
}
