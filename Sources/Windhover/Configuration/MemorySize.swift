/// How much RAM a guest has.
public struct MemorySize: Hashable, Sendable {
    /// A whole number of 4 KiB pages, `minimum` or more.
    public let bytes: UInt64

    /// One mebibyte: what the real-mode part of a PC's address map fills.
    public static let minimum: UInt64 = 1 << 20
    private static let pageSize: UInt64 = 4096

    /// One gibibyte: what a command's guest has if nothing else is said.
    public static let standard = MemorySize(wholePages: 1 << 30)

    private init(wholePages: UInt64) { bytes = wholePages }

    /// - Throws: `ConfigurationError` for less than 1 MiB, for part of a page, and for 2^63 bytes or more.
    public init(bytes: UInt64) throws(ConfigurationError) { try self.init(bytes: bytes, of: "--memory") }

    private init(bytes: UInt64, of option: String) throws(ConfigurationError) {
        guard bytes > 0 else {
            throw .impossible("no guest runs in a memory of 0: give it 1M or more, such as \(option) 512M")
        }
        guard bytes >= Self.minimum else {
            throw .impossible("a memory of \(ByteCount.text(bytes)) is too small: give 1M or more, such as \(option) 512M")
        }
        guard bytes % Self.pageSize == 0 else {
            throw .impossible("a memory of \(bytes) bytes is not a whole number of 4 KiB pages: give a multiple of 4K, such as \(option) 512M")
        }
        guard bytes <= UInt64(Int64.max) else {
            throw .impossible("a memory of \(bytes) bytes is more than a host can address: give less")
        }
        self.bytes = bytes
    }

    /// Reads `512M`, `1G`, `2GiB`, `65536K`. Units are powers of 1024; case does not matter. A number without
    /// a unit is refused, because tools disagree about what it means.
    ///
    /// - Throws: `ConfigurationError` naming the text.
    public init(_ text: String) throws(ConfigurationError) { try self.init(text, of: "--memory") }

    /// - Parameter option: for messages.
    init(_ text: String, of option: String) throws(ConfigurationError) {
        let digits = Substring(text.utf8.prefix(while: Digit.contains))
        let unit = text[digits.endIndex...].lowercased()
        guard !digits.isEmpty else {
            throw .malformed("\(option) wants a size such as 512M or 2GiB, not '\(text)'")
        }
        let shift: UInt64
        switch unit {
        case "k", "kib": shift = 10
        case "m", "mib": shift = 20
        case "g", "gib": shift = 30
        case "t", "tib": shift = 40
        case "" where digits.utf8.allSatisfy { $0 == UInt8(ascii: "0") }: shift = 0
        case "": throw .malformed("\(option) \(text) has no unit: say \(text)M for mebibytes or \(text)G for gibibytes")
        default: throw .malformed("\(option) wants a size such as 512M or 2GiB, not '\(text)'")
        }
        guard let count = UInt64(digits) else {
            throw .impossible("\(option) \(text) is more than a host can address: give less")
        }
        let (bytes, overflow) = count.multipliedReportingOverflow(by: 1 << shift)
        guard !overflow else {
            throw .impossible("\(option) \(text) is more than a host can address: give less")
        }
        try self.init(bytes: bytes, of: option)
    }

    /// - Parameter physical: bytes of RAM the host has.
    /// - Throws: `ConfigurationError` where the guest's would not fit into it.
    public func check(againstHost physical: UInt64) throws(ConfigurationError) {
        guard bytes <= physical else {
            throw .impossible(
                "--memory \(self) is more than this host's \(ByteCount.text(physical)): give the guest less")
        }
    }
}

extension MemorySize: CustomStringConvertible {
    /// In the largest unit that divides it: "512M", "2G".
    public var description: String {
        for (shift, unit) in [(40, "T"), (30, "G"), (20, "M")] as [(UInt64, String)]
        where bytes % (1 << shift) == 0 {
            return "\(bytes >> shift)\(unit)"
        }
        return "\(bytes >> 10)K"
    }
}

/// Byte counts as people read them.
public enum ByteCount {
    /// "512 B", "14.2 MiB", "2 GiB": three significant figures or so, powers of 1024, rounded down.
    public static func text(_ bytes: UInt64) -> String {
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
        var unit = 0
        var divisor: UInt64 = 1
        while unit < units.count - 1, bytes / divisor >= 1024 {
            unit += 1
            divisor <<= 10
        }
        let whole = bytes / divisor
        let tenth = bytes % divisor * 10 / divisor
        return whole >= 100 || tenth == 0 || divisor == 1 ? "\(whole) \(units[unit])" : "\(whole).\(tenth) \(units[unit])"
    }
}

/// The ten digits, in UTF-8: what a character is beyond that takes Unicode's tables to say, which a guest's start need not
/// wait for.
enum Digit {
    static func contains(_ byte: UInt8) -> Bool { byte &- UInt8(ascii: "0") < 10 }
}
