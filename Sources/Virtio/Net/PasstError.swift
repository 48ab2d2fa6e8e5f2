internal import Glibc
internal import VMCore

/// Why there is no user-mode network.
public enum PasstError: Error, Hashable, Sendable {
    /// No such program on the search path.
    case notInstalled(String)
    /// A port of the host's is not to be had.
    case portUnavailable(PortForward, errno: Int32)
    /// The host's reason.
    case host(call: String, errno: Int32)
}

extension PasstError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .notInstalled(let program):
            "user-mode networking needs \(program), which is not installed: do so with `sudo apt-get install passt`, "
                + "or use a tap device"
        case .portUnavailable(let forward, let code) where code == EADDRINUSE:
            "\(forward.transport.rawValue) port \(forward.host) of this host is in use: forward another one"
        case .portUnavailable(let forward, let code) where code == EACCES:
            "\(forward.transport.rawValue) port \(forward.host) of this host is reserved for root: forward one from 1024 up"
        case .portUnavailable(let forward, let code):
            "\(forward.transport.rawValue) port \(forward.host) of this host cannot be forwarded: \(HostError.message(code))"
        case .host(let call, let code): "cannot start passt: \(call) failed: \(HostError.message(code))"
        }
    }
}

/// A port of the host's that leads to one of the guest's.
public struct PortForward: Hashable, Sendable {
    public enum Transport: String, Hashable, Sendable {
        case tcp, udp
    }
    public var transport: Transport
    /// The host's port, on all its addresses.
    public var host: UInt16
    public var guest: UInt16

    public init(_ transport: Transport = .tcp, host: UInt16, guest: UInt16) {
        self.transport = transport
        self.host = host
        self.guest = guest
    }

    /// As passt takes it.
    var arguments: [String] { [transport == .tcp ? "-t" : "-u", "\(host):\(guest)"] }

    /// Tries to take the port for a moment: passt would only say so later, and die.
    func check() throws(PasstError) {
        let isTCP = transport == .tcp
        let type = Int32((isTCP ? SOCK_STREAM : SOCK_DGRAM).rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let probe = socket(AF_INET, type, 0)
        guard probe >= 0 else { throw .host(call: "socket", errno: errno) }
        defer { close(probe) }
        if isTCP {
            var one: Int32 = 1
            _ = unsafe setsockopt(probe, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<Int32>.size))
        }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = host.bigEndian
        let result = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                unsafe bind(probe, address, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { throw .portUnavailable(self, errno: errno) }
    }
}
