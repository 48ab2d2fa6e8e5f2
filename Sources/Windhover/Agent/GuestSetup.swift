/// What the agent makes of a guest before any command is run in it.
public struct GuestSetup: Hashable, Sendable {
    /// Where the guest's root directory comes from.
    public enum Root: Hashable, Sendable {
        /// It stays in the initial RAM disk.
        case initramfs
        /// A directory of the host's, shared under this tag.
        case share(tag: String, writes: Writes)
        /// A block device of the guest's, such as `/dev/vda`.
        /// - Parameter type: of its file system; nil: tried one after the other.
        case disk(device: String, type: String?, writes: Writes)
    }

    /// What becomes of the guest's writes to its root.
    public enum Writes: UInt32, Hashable, Sendable {
        /// They go to where the root is.
        case through = 0
        /// They go to a layer in the guest's memory, and are gone with it.
        case inMemory = 1
        /// There are none.
        case forbidden = 2
    }

    public struct Share: Hashable, Sendable {
        public var tag: String
        /// Where it is mounted in the guest.
        public var path: String
        public var isReadOnly: Bool

        public init(tag: String, path: String, isReadOnly: Bool = false) {
            self.tag = tag
            self.path = path
            self.isReadOnly = isReadOnly
        }
    }

    public enum Network: UInt32, Hashable, Sendable {
        /// The loopback interface only.
        case none = 0
        /// The first interface is configured by DHCP.
        case dhcp = 1
    }

    /// Nanoseconds since 1970-01-01 00:00 UTC.
    public var unixNanoseconds: Int64
    public var hostname: String
    public var root: Root
    public var shares: [Share]
    public var network: Network

    public init(
        unixNanoseconds: Int64, hostname: String = "guest", root: Root = .initramfs, shares: [Share] = [], network: Network = .none
    ) {
        self.unixNanoseconds = unixNanoseconds
        self.hostname = hostname
        self.root = root
        self.shares = shares
        self.network = network
    }
}
