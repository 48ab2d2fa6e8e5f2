/// A word that a command gets: an argument, or one of its environment. The kernel hands over bytes, which need not be text.
public struct CommandWord: Hashable, Sendable, ExpressibleByStringInterpolation, CustomStringConvertible {
    /// All but a zero, which would end it.
    public let bytes: [UInt8]

    public init(_ text: String) { bytes = Array(text.utf8) }
    public init(stringLiteral text: String) { self.init(text) }
    public init(bytes: some Sequence<UInt8>) { self.bytes = Array(bytes) }

    /// For a person: what is no UTF-8 is U+FFFD.
    public var description: String { String(decoding: bytes, as: UTF8.self) }
}
