public import Virtio

/// One `--net`.
public struct NetworkConfiguration: Hashable, Sendable {
    public enum Kind: Hashable, Sendable {
        /// Through the host's own connections, with no privilege.
        case user
        /// A TAP interface of the host, by name.
        case tap(String)
    }

    public let kind: Kind
    public let forwards: [PortForward]
    /// nil for one that is made up.
    public let address: MACAddress?
    /// Pairs of queues.
    public let queues: Int
    /// Bytes a second, each way.
    public let bandwidth: RateText?
    /// Frames a second, each way.
    public let operations: RateText?

    static let form = "user[,forward=[udp:]HOST:GUEST]... or tap:NAME[,queues=N], both with [,mac=ADDRESS][,bandwidth=RATE][,operations=RATE]"

    /// - Throws: `ConfigurationError`, one line that names the option and the way out.
    public init(_ text: String) throws(ConfigurationError) {
        var words = try OptionWords(text, of: "--net")
        if words.first == "user" {
            kind = .user
        } else if words.first.hasPrefix("tap:") {
            let name = String(words.first.dropFirst(4))
            // What the kernel takes for an interface's name: IFNAMSIZ is 16 with its zero byte.
            guard (1...15).contains(name.utf8.count), name.utf8.allSatisfy({ (0x21...0x7E).contains($0) && $0 != UInt8(ascii: "/") })
            else { throw .malformed("--net: an interface's name has 1 to 15 visible characters and no slash, which '\(name)' has not") }
            kind = .tap(name)
        } else {
            throw .malformed("--net takes \(Self.form), not '\(words.first)'")
        }
        forwards = try words.takeValues("forward").map { text throws(ConfigurationError) in try Self.forward(text) }
        queues = Int(try words.takeCount("queues", most: 8) ?? 1)
        if kind != .user, !forwards.isEmpty {
            throw .malformed("--net: only user forwards ports; a TAP interface is the host's to route")
        }
        if kind == .user, queues > 1 { throw .malformed("--net user has one pair of queues: leave queues out, or use tap:NAME") }
        address = try words.takeValue("mac").map { text throws(ConfigurationError) in try Self.address(text) }
        bandwidth = try words.takeValue("bandwidth").map { text throws(ConfigurationError) in
            try RateText(text, option: "--net: bandwidth", isBytes: true)
        }
        operations = try words.takeValue("operations").map { text throws(ConfigurationError) in
            try RateText(text, option: "--net: operations", isBytes: false)
        }
        try words.finish(known: Self.form)
    }

    private static func forward(_ text: String) throws(ConfigurationError) -> PortForward {
        var parts = text.split(separator: ":", omittingEmptySubsequences: false)
        var transport = PortForward.Transport.tcp
        if parts.count == 3, let named = PortForward.Transport(rawValue: String(parts[0])) {
            transport = named
            parts.removeFirst()
        }
        guard parts.count == 2, let host = port(parts[0]), let guest = port(parts[1]) else {
            throw .malformed("--net: forward wants ports of host and guest, such as 8080:80 or udp:5353:53, not '\(text)'")
        }
        return PortForward(transport, host: host, guest: guest)
    }

    private static func port(_ text: Substring) -> UInt16? {
        guard text.utf8.allSatisfy(Digit.contains), let port = UInt16(text), port > 0 else { return nil }
        return port
    }

    private static func address(_ text: String) throws(ConfigurationError) -> MACAddress {
        guard let address = MACAddress(text), address != MACAddress(0, 0, 0, 0, 0, 0) else {
            throw .malformed("--net: mac wants a unicast address such as 02:00:00:12:34:56, not '\(text)'")
        }
        return address
    }
}
