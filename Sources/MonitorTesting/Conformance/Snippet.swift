/// A few instructions for a test to run: what an assembler made of `assembly`, so that both can be read side by side.
/// A test assembles them again and compares.
public struct Snippet: Sendable {
    /// 16, 32 or 64.
    public let bits: Int
    /// AT&T syntax, as clang takes it.
    public let assembly: String
    public let bytes: [UInt8]

    public init(bits: Int, _ assembly: String, _ bytes: [UInt8]) {
        self.bits = bits
        self.assembly = assembly
        self.bytes = bytes
    }
}
