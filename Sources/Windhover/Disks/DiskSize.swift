/// How large a disk is.
public struct DiskSize: Hashable, Sendable {
    /// A whole number of 4 KiB blocks.
    public let bytes: UInt64

    /// What a file system with a journal takes.
    public static let minimum: UInt64 = 4 << 20
    /// As far as 4 KiB blocks with 32-bit numbers reach.
    public static let maximum: UInt64 = 16 << 40

    /// - Throws: `ConfigurationError` for less than 4 MiB, more than 16 TiB, and part of a block.
    public init(bytes: UInt64) throws(ConfigurationError) {
        guard bytes >= Self.minimum, bytes < Self.maximum, bytes % 4096 == 0 else {
            throw .impossible("no disk can have \(ByteCount.text(bytes)): give --size from 4M to less than 16T, such as 2G")
        }
        self.bytes = bytes
    }

    /// Reads `512M`, `2G`, `8GiB`: a number and a unit, powers of 1024.
    public init(_ text: String) throws(ConfigurationError) {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        let shift: UInt64? =
            switch text[digits.endIndex...].lowercased() {
            case "k", "kib": 10
            case "m", "mib": 20
            case "g", "gib": 30
            case "t", "tib": 40
            default: nil
            }
        guard let shift, !digits.isEmpty else {
            throw .malformed("--size wants a size such as 512M or 2G, not '\(text)'")
        }
        guard let count = UInt64(digits), count <= Self.maximum >> shift else {
            throw .impossible("no disk can have \(text): give --size from 4M to less than 16T, such as 2G")
        }
        try self.init(bytes: count << shift)
    }
}
