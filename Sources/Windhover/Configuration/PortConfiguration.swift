/// One `--port`: a named byte stream between a program in the guest and the host, beside the console.
public struct PortConfiguration: Hashable, Sendable {
    public enum Target: Hashable, Sendable {
        /// Gets what the guest sends; nothing comes from there.
        case file(String)
        /// A Unix socket that programs of the host connect to, one at a time.
        case socket(String)
    }

    /// What the guest finds it by.
    public let name: String
    public let target: Target

    static let form = "NAME:file:PATH or NAME:unix:PATH"
    /// Most ports of a machine, and bytes of a name: a console device's own.
    static let most = 31, longestName = 64

    /// - Throws: `ConfigurationError`, one line that names the option and the way out.
    public init(_ text: String) throws(ConfigurationError) {
        let parts = text.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 3, !parts[2].isEmpty, ["file", "unix"].contains(parts[1]) else {
            throw .malformed("--port wants \(Self.form), not '\(text)' (a port of the network's is led to the guest by --net user,forward=HOST:GUEST)")
        }
        name = parts[0]
        // It becomes a file's name in the guest, by the hands of whoever makes its /dev.
        guard (1...Self.longestName).contains(name.utf8.count), name != ".", name != "..", name.utf8.allSatisfy(Self.isAllowed) else {
            throw .malformed("--port: a name is of 1 to \(Self.longestName) letters, digits and the signs . _ -, which '\(name)' is not")
        }
        target = parts[1] == "file" ? .file(parts[2]) : .socket(parts[2])
    }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        let letter = byte | 0x20
        return Digit.contains(byte) || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(letter) || [0x2D, 0x2E, 0x5F].contains(byte)
    }

    /// Sees that several ports have each a name and a path of their own.
    static func check(_ ports: [PortConfiguration]) throws(ConfigurationError) {
        guard ports.count <= most else { throw .impossible("--port: a machine has at most \(most) ports, not \(ports.count): give fewer") }
        for (index, port) in ports.enumerated() {
            for other in ports[..<index] {
                guard port.name != other.name else {
                    throw .impossible("--port: two ports are called '\(port.name)': give each a name of its own")
                }
                guard port.path != other.path else {
                    throw .impossible("--port: '\(port.name)' and '\(other.name)' both lead to '\(port.path)': give each a path of its own")
                }
            }
        }
    }

    private var path: String {
        switch target {
        case .file(let path), .socket(let path): path
        }
    }
}
