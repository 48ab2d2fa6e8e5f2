internal import Glibc

/// The other end of a device's socket, which never waits.
final class FuzzPeer {
    struct NoSocket: Error { let errno: Int32 }

    private var descriptor: Int32
    private(set) var received: UInt64 = 0
    private var buffer = [UInt8](repeating: 0, count: 1 << 17)

    init(_ descriptor: Int32) {
        self.descriptor = descriptor
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
    }

    deinit { leave() }

    /// Two ends of one connection, or of one that keeps messages apart.
    static func pair(isStream: Bool) throws -> (Int32, Int32) {
        var ends: [Int32] = [-1, -1]
        let kind = Int32((isStream ? SOCK_STREAM : SOCK_SEQPACKET).rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        guard unsafe socketpair(AF_UNIX, kind, 0, &ends) == 0 else { throw NoSocket(errno: errno) }
        return (ends[0], ends[1])
    }

    func write(_ bytes: [UInt8]) {
        guard descriptor >= 0 else { return }
        _ = unsafe bytes.withUnsafeBytes { unsafe send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
    }

    /// Takes all that is there.
    func drain() {
        while descriptor >= 0 {
            let count = unsafe recv(descriptor, &buffer, buffer.count, 0)
            guard count > 0 else { return }
            received &+= UInt64(count)
        }
    }

    /// Sends its last, or hears its last.
    func end(_ how: Int) { if descriptor >= 0 { _ = shutdown(descriptor, Int32(how)) } }

    func leave() {
        if descriptor >= 0 { close(descriptor) }
        descriptor = -1
    }
}

extension TemporaryDirectory {
    /// In memory, where the host has such a place.
    convenience init(inMemory: Void) { unsafe self.init(in: access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp") }
}

/// The host around a socket device: programs that connect, and those that are connected to.
final class FuzzHost {
    private let directory: TemporaryDirectory
    /// Where the device listens.
    var path: String { directory.path + "/v" }
    private var services: [Int32] = []
    private var peers: [FuzzPeer] = []
    private var receivedBefore: UInt64 = 0
    var received: UInt64 { peers.reduce(receivedBefore) { $0 &+ $1.received } }

    init() throws {
        directory = TemporaryDirectory(inMemory: ())
        // At one port of three nobody is.
        for port in [50, 51] {
            let descriptor = Self.socket()
            guard descriptor >= 0, unsafe Self.named("\(path)_\(port)", { unsafe bind(descriptor, $0, $1) }) == 0 else {
                throw FuzzPeer.NoSocket(errno: errno)
            }
            listen(descriptor, 4)
            services.append(descriptor)
        }
    }

    deinit { for descriptor in services { close(descriptor) } }

    private static func socket() -> Int32 {
        Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    }

    private static func named(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
        return unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }

    func drain() { for peer in peers { peer.drain() } }

    func stir(_ random: inout SeededRandom) {
        for service in services {
            let descriptor = accept(service, nil, nil)
            if descriptor >= 0 { keep(FuzzPeer(descriptor)) }
        }
        switch random.below(8) {
        case 0...1: connect(&random)
        case 2: drain()
        case 3: if let index = peers.indices.randomElement(using: &random) { drop(index) }
        case 4: peers.randomElement(using: &random)?.end([Int(SHUT_RD), Int(SHUT_WR), Int(SHUT_RDWR)][random.below(3)])
        default:
            let count = 1 + random.below(random.oneIn(6) ? 100_000 : 400)
            peers.randomElement(using: &random)?.write([UInt8](repeating: 0x61, count: count))
        }
    }

    private func connect(_ random: inout SeededRandom) {
        let descriptor = Self.socket()
        guard descriptor >= 0 else { return }
        guard unsafe Self.named(path, { unsafe Glibc.connect(descriptor, $0, $1) }) == 0 else {
            close(descriptor)
            return
        }
        let peer = FuzzPeer(descriptor)
        let lines = [
            "CONNECT 1001\n", "CONNECT 1002\n", "CONNECT 4294967295\n", "CONNECT 99999999999\n", "CONN", "\n",
            "CONNECT x\n",
        ]
        peer.write(Array(lines[random.below(random.oneIn(4) ? lines.count : 2)].utf8))
        if random.oneIn(3) { peer.write([UInt8](repeating: 0x62, count: random.below(300))) }
        keep(peer)
    }

    private func keep(_ peer: FuzzPeer) {
        if peers.count > 12 { drop(0) }
        peers.append(peer)
    }

    private func drop(_ index: Int) { receivedBefore &+= peers.remove(at: index).received }
}
