internal import VMCore

/// Why a socket device cannot be had.
public enum SocketError: Error, Hashable, Sendable {
    /// A guest's context identifier is 3 or more, and not all ones.
    case reservedCID(UInt32)
    /// An empty path, or one with a zero byte.
    case badPath(String)
    /// The path, with a port's digits behind it where there are some, is longer than a socket's can be.
    case pathTooLong(String, limit: Int)
    /// Somebody listens there.
    case inUse(String)
    /// Something is there that is not a socket.
    case notASocket(String)
    case host(call: StaticStringBox, path: String, errno: Int32)

    public typealias StaticStringBox = QueueError.StaticStringBox
}

extension SocketError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .reservedCID(let cid): "\(cid) cannot be a guest's context identifier: give a number from 3 to 4294967294"
        case .badPath(let path): path.isEmpty ? "a socket needs a path" : "the socket path '\(path)' has a zero byte in it"
        case .pathTooLong(let path, let limit):
            "the socket path '\(path)' is \(path.utf8.count) bytes long; \(limit) is the most: "
                + "give a shorter one, or one from the working directory on"
        case .inUse(let path):
            "'\(path)' is in use: another program listens there. Give this machine another path, or end that program"
        case .notASocket(let path): "'\(path)' is there already and is no socket: move it away, or give another path"
        case .host(let call, let path, let code): "\(call.text) of the socket '\(path)': \(HostError.message(code))"
        }
    }
}
