/// What a disk's file holds. Never guessed: a guest that may write its first bytes could choose.
public enum DiskFormat: String, Hashable, Sendable, CaseIterable {
    /// The disk's bytes, one for one.
    case raw
    /// QEMU's copy-on-write format.
    case qcow2
}

/// One `--disk`.
public struct DiskConfiguration: Hashable, Sendable {
    public let path: String
    public let isReadOnly: Bool
    public let format: DiskFormat
    /// Whether the format was said, and is not only the usual one.
    public let isFormatNamed: Bool
    /// The file that a qcow2 image stands on, and its format.
    public let backing: Backing?
    /// Past the host's page cache.
    public let isDirect: Bool
    /// At most 20 bytes; nil leaves it empty.
    public let serial: String?
    public let queues: Int
    /// Bytes a second, and operations a second.
    public let bandwidth: RateText?
    public let operations: RateText?

    public enum Backing: Hashable, Sendable {
        case file(path: String, format: DiskFormat)
        /// Zeros stand in for a file that the image names.
        case absent
    }

    static let form = "FILE[,readonly][,format=raw|qcow2][,backing=FILE|none][,backing-format=raw|qcow2][,direct][,serial=TEXT][,queues=N]"
        + "[,bandwidth=RATE][,operations=RATE]"

    /// - Throws: `ConfigurationError`, one line that names the option and the way out.
    public init(_ text: String) throws(ConfigurationError) {
        var words = try OptionWords(text, of: "--disk")
        guard !words.first.isEmpty else { throw .malformed("--disk names no file: its form is \(Self.form)") }
        path = words.first
        isReadOnly = try words.takeFlag("readonly")
        isDirect = try words.takeFlag("direct")
        let named = try Self.format(words.takeValue("format"), key: "format")
        format = named ?? .raw
        isFormatNamed = named != nil
        let backingFormat = try Self.format(words.takeValue("backing-format"), key: "backing-format")
        if let backing = try words.takeValue("backing") {
            guard format == .qcow2 else {
                throw .malformed("--disk: only a qcow2 image stands on another file: say format=qcow2, or leave backing out")
            }
            guard backing != "none" || backingFormat == nil else {
                throw .malformed("--disk: backing=none has no backing-format; a file of that name is ./none")
            }
            self.backing = backing == "none" ? .absent : .file(path: backing, format: backingFormat ?? .raw)
        } else {
            guard backingFormat == nil else { throw .malformed("--disk: backing-format is there without backing=FILE") }
            backing = nil
        }
        if let serial = try words.takeValue("serial") {
            guard serial.utf8.count <= 20, serial.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
                throw .malformed("--disk: a serial number has up to 20 visible ASCII characters, which '\(serial)' has not")
            }
            self.serial = serial
        } else {
            serial = nil
        }
        queues = Int(try words.takeCount("queues", most: 16) ?? 1)
        bandwidth = try words.takeValue("bandwidth").map { text throws(ConfigurationError) in
            try RateText(text, option: "--disk: bandwidth", isBytes: true)
        }
        operations = try words.takeValue("operations").map { text throws(ConfigurationError) in
            try RateText(text, option: "--disk: operations", isBytes: false)
        }
        try words.finish(known: Self.form)
    }

    private static func format(_ text: String?, key: String) throws(ConfigurationError) -> DiskFormat? {
        guard let text else { return nil }
        guard let format = DiskFormat(rawValue: text) else { throw .malformed("--disk: \(key) takes raw or qcow2, not '\(text)'") }
        return format
    }
}

/// A rate as it is written: so much a second, and behind a slash how much at once: `10M`, `10M/64M`, `500`, `500/1000`.
public struct RateText: Hashable, Sendable {
    public let perSecond: UInt64
    /// nil for a second's worth.
    public let burst: UInt64?

    init(_ text: String, option: String, isBytes: Bool) throws(ConfigurationError) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count <= 2, let first = Self.number(parts[0]), first > 0 else { throw Self.failure(text, option, isBytes) }
        perSecond = first
        if parts.count == 2 {
            guard let second = Self.number(parts[1]), second > 0 else { throw Self.failure(text, option, isBytes) }
            burst = second
        } else {
            burst = nil
        }
    }

    private static func failure(_ text: String, _ option: String, _ isBytes: Bool) -> ConfigurationError {
        let example = isBytes ? "10M, or 10M/64M for up to 64M at once" : "1000, or 1000/5000 for up to 5000 at once"
        return .malformed("\(option) wants so much a second, such as \(example), not '\(text)'")
    }

    /// Digits, and K, M or G: powers of 1024.
    private static func number(_ text: Substring) -> UInt64? {
        let digits = Substring(text.utf8.prefix(while: Digit.contains))
        let shift: UInt64
        switch text[digits.endIndex...].lowercased() {
        case "": shift = 0
        case "k": shift = 10
        case "m": shift = 20
        case "g": shift = 30
        default: return nil
        }
        guard let count = UInt64(digits) else { return nil }
        let (value, overflow) = count.multipliedReportingOverflow(by: 1 << shift)
        return overflow ? nil : value
    }
}
