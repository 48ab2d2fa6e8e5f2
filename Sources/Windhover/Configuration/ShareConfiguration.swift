public import Virtio

/// One `--share`: a directory of the host's in the guest.
public struct ShareConfiguration: Hashable, Sendable {
    public let path: String
    /// What the guest mounts it by; nil for the usual one.
    public let tag: String?
    public let isReadOnly: Bool
    public let caching: ShareCaching

    static let form = "DIR[:TAG][,readonly][,cache=none|auto|always]"

    /// - Throws: `ConfigurationError`, one line that names the option and the way out.
    public init(_ text: String) throws(ConfigurationError) {
        var words = try OptionWords(text, of: "--share")
        // The last colon: a directory's name may have some of its own.
        if let colon = words.first.lastIndex(of: ":") {
            path = String(words.first[..<colon])
            let name = String(words.first[words.first.index(after: colon)...])
            // Source: [VIRTIO1.2 §5.11.4].
            guard (1...36).contains(name.utf8.count), !name.utf8.contains(0) else {
                throw .malformed("--share: a tag has 1 to 36 bytes, which '\(name)' has not: its form is \(Self.form)")
            }
            tag = name
        } else {
            path = words.first
            tag = nil
        }
        guard !path.isEmpty else { throw .malformed("--share names no directory: its form is \(Self.form)") }
        isReadOnly = try words.takeFlag("readonly")
        let cache = try words.takeValue("cache") ?? ShareCaching.auto.rawValue
        guard let caching = ShareCaching(rawValue: cache) else {
            throw .malformed("--share: cache takes none, auto or always, not '\(cache)'")
        }
        self.caching = caching
        try words.finish(known: Self.form)
    }

    /// The tags of several shares, each of which needs one of its own: those that have none are `share`, `share1` and on.
    static func tags(of shares: [ShareConfiguration]) throws(ConfigurationError) -> [String] {
        var tags: [String] = []
        for (index, share) in shares.enumerated() {
            let tag = share.tag ?? (index == 0 ? "share" : "share\(index)")
            guard !tags.contains(tag) else {
                throw .impossible("--share: two directories have the tag '\(tag)': give each one of its own, as in DIR:TAG")
            }
            tags.append(tag)
        }
        return tags
    }
}
