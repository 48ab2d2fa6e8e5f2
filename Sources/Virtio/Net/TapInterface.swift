internal import Glibc

/// Calls on tap devices, as the kernel's header has them; its C cannot be imported.
/// Source: [LINUX-TUNTAP].
enum TapInterface {
    /// Bytes of a name with its terminating zero.
    static let nameBytes = 16

    private static let setInterface: UInt = 0x4004_54CA
    private static let setOffload: UInt = 0x4004_54D0
    private static let setHeaderSize: UInt = 0x4004_54D8
    private static let setQueue: UInt = 0x4004_54D9
    private static let getFlags: UInt = 0x8913
    private static let changeFlags: UInt = 0x8914

    private static let tap: UInt16 = 0x0002
    private static let noPacketInformation: UInt16 = 0x1000
    private static let withHeader: UInt16 = 0x4000
    private static let multiqueue: UInt16 = 0x0100
    private static let attachQueue: UInt16 = 0x0200
    private static let detachQueue: UInt16 = 0x0400
    private static let isUp: UInt16 = 0x0001

    /// An `ifreq`: a name, and flags in the union behind it.
    private static func withRequest(_ name: String, flags: UInt16, _ body: (UnsafeMutableRawBufferPointer) -> Int32) -> Int32 {
        unsafe withUnsafeTemporaryAllocation(byteCount: 40, alignment: 8) { request in
            unsafe request.initializeMemory(as: UInt8.self, repeating: 0)
            for (index, byte) in name.utf8.prefix(nameBytes - 1).enumerated() { unsafe request[index] = byte }
            unsafe request.storeBytes(of: flags, toByteOffset: nameBytes, as: UInt16.self)
            return unsafe body(request)
        }
    }

    private static func call(_ descriptor: Int32, _ request: UInt, _ bytes: UnsafeMutableRawBufferPointer) -> Int32 {
        guard let base = bytes.baseAddress else { return EINVAL }
        return unsafe ioctl(descriptor, request, base) == 0 ? 0 : errno
    }

    /// Whether the kernel takes the name as it is: without a slash, a colon, a space, or a pattern.
    static func isValid(name: String) -> Bool {
        let bytes = Array(name.utf8)
        guard !bytes.isEmpty, bytes.count < nameBytes, name != ".", name != ".." else { return false }
        return bytes.allSatisfy { $0 > 0x20 && $0 < 0x7F && !"/:%".utf8.contains($0) }
    }

    static func exists(_ name: String) -> Bool { unsafe if_nametoindex(name) != 0 }

    /// Opens one queue of the interface, which is made where it does not exist. Its frames have headers of 12 bytes.
    static func open(_ name: String, queues: Int) throws(TapError) -> Int32 {
        let descriptor = unsafe Glibc.open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw errno == ENOENT || errno == ENODEV || errno == ENXIO
                ? .noTapDriver : .host(call: "open of /dev/net/tun", name: name, errno: errno)
        }
        let flags = tap | noPacketInformation | withHeader | (queues > 1 ? multiqueue : 0)
        var code = unsafe withRequest(name, flags: flags) { request in unsafe call(descriptor, setInterface, request) }
        var what = "TUNSETIFF"
        if code == 0 {
            var size = Int32(NetworkFrame.header)
            code = unsafe withUnsafeMutableBytes(of: &size) { unsafe call(descriptor, setHeaderSize, $0) }
            what = "TUNSETVNETHDRSZ"
        }
        guard code != 0 else { return descriptor }
        close(descriptor)
        switch code {
        case EBUSY: throw .busy(name)
        case EPERM, EACCES: throw exists(name) ? .notPermitted(name) : .doesNotExist(name)
        case EINVAL, E2BIG: throw .notATap(name, queues: queues)
        default: throw .host(call: what, name: name, errno: code)
        }
    }

    /// What the other side may leave to the reader of this queue. All queues of an interface have the same.
    static func setOffloads(_ descriptor: Int32, _ offloads: NetworkOffloads) {
        // The bits are those of TUN_F_CSUM, TUN_F_TSO4 and TUN_F_TSO6.
        _ = ioctl(descriptor, setOffload, CInt(truncatingIfNeeded: offloads.rawValue))
    }

    /// Takes a queue of several into use, or out of it: the kernel spreads flows over those in use.
    static func setQueue(_ descriptor: Int32, isInUse: Bool) {
        _ = unsafe withRequest("", flags: isInUse ? attachQueue : detachQueue) { request in
            unsafe call(descriptor, setQueue, request)
        }
    }

    /// Brings an interface up. Of no consequence where it is not permitted.
    static func bringUp(_ name: String) {
        let control = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard control >= 0 else { return }
        defer { close(control) }
        _ = unsafe withRequest(name, flags: 0) { request in
            guard unsafe call(control, getFlags, request) == 0 else { return errno }
            let flags = unsafe request.loadUnaligned(fromByteOffset: nameBytes, as: UInt16.self)
            unsafe request.storeBytes(of: flags | isUp, toByteOffset: nameBytes, as: UInt16.self)
            return unsafe call(control, changeFlags, request)
        }
    }
}
