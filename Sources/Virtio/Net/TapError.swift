internal import Glibc
internal import VMCore

/// Why a tap device cannot be used.
public enum TapError: Error, Hashable, Sendable {
    /// The host's kernel has no tap devices, or the place has no /dev/net/tun.
    case noTapDriver
    /// A name of more than 15 bytes, an empty one, or one that no interface can have.
    case badName(String)
    /// No such interface, and this user may not make one.
    case doesNotExist(String)
    /// It is another user's.
    case notPermitted(String)
    /// Something else is at its other end.
    case busy(String)
    /// An interface of another kind, or one made for another number of queues.
    case notATap(String, queues: Int)
    /// The host's reason.
    case host(call: String, name: String, errno: Int32)
}

extension TapError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .noTapDriver:
            "this host has no /dev/net/tun, which tap devices need: load it with `sudo modprobe tun`, or use --net user"
        case .badName(let name): "\"\(name)\" cannot be a network interface: give 1 to 15 letters and digits"
        case .doesNotExist(let name):
            "there is no tap device \(name), and making one takes root: "
                + "do so once with `sudo ip tuntap add \(name) mode tap user $USER && sudo ip link set \(name) up`"
        case .notPermitted(let name):
            "the tap device \(name) is not yours to use: make it again with "
                + "`sudo ip tuntap del \(name) mode tap; sudo ip tuntap add \(name) mode tap user $USER`"
        case .busy(let name): "the tap device \(name) is in use by another process: give this machine one of its own"
        case .notATap(let name, let queues):
            queues > 1
                ? "\(name) is not a tap device of several queues: make one with "
                    + "`sudo ip tuntap add \(name) mode tap multi_queue user $USER`"
                : "\(name) is not a tap device of one queue: make one with `sudo ip tuntap add \(name) mode tap user $USER`"
        case .host(let call, let name, let code):
            "cannot use the tap device \(name): \(call) failed: \(HostError.message(code))"
        }
    }
}
