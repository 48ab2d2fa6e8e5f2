internal import Glibc

/// `--vsock`: sockets between host and guest.
public struct SocketConfiguration: Hashable, Sendable {
    /// The Unix socket that the host connects to.
    public let path: String
    /// The guest's context identifier.
    public let guest: UInt32

    static let form = "PATH[,cid=N]"

    /// - Throws: `ConfigurationError`, one line that names the option and the way out.
    public init(_ text: String) throws(ConfigurationError) {
        var words = try OptionWords(text, of: "--vsock")
        guard !words.first.isEmpty else { throw .malformed("--vsock names no socket: its form is \(Self.form)") }
        path = words.first
        // A port's own socket has an underscore and up to ten digits behind the path, and a zero byte ends it.
        let most = MemoryLayout.size(ofValue: sockaddr_un().sun_path) - 12
        guard path.utf8.count <= most else {
            throw .impossible("--vsock: a socket's path has at most \(most) bytes, and '\(path)' has \(path.utf8.count): name a shorter one")
        }
        if let text = try words.takeValue("cid") {
            // 0 to 2 are the hypervisor, the local machine and the host. Source: [VIRTIO1.2 §5.10.4].
            guard text.utf8.allSatisfy(Digit.contains), let cid = UInt32(text), cid > 2, cid < .max else {
                throw .malformed("--vsock: cid wants a number from 3 to 4294967294, not '\(text)'")
            }
            guest = cid
        } else {
            guest = 3
        }
        try words.finish(known: Self.form)
    }
}
