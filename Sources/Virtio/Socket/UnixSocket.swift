internal import CHost
internal import Glibc

/// The host's calls for Unix stream sockets. None of them blocks.
///
/// Source: [LINUX-UNIX].
enum UnixSocket {
    /// Most bytes of a path: `sun_path` and its zero.
    static let longestPath = 107

    /// A new descriptor, or -errno.
    static func make() -> Int32 {
        let kind = SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue
        let descriptor = socket(AF_UNIX, Int32(bitPattern: kind), 0)
        return descriptor >= 0 ? descriptor : -errno
    }

    /// Two new descriptors that are connected: the service's end blocks, the device's does not. nil where the host has none left.
    static func makePair() -> (device: Int32, service: Int32)? {
        var pair = InlineArray<2, Int32>(repeating: -1)
        let kind = SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue
        let code = unsafe withUnsafeMutableBytes(of: &pair) {
            unsafe socketpair(AF_UNIX, Int32(bitPattern: kind), 0, $0.bindMemory(to: Int32.self).baseAddress)
        }
        guard code == 0 else { return nil }
        guard fcntl(pair[0], F_SETFL, O_NONBLOCK) == 0 else {
            close(pair[0])
            close(pair[1])
            return nil
        }
        return (pair[0], pair[1])
    }

    static func close(_ descriptor: Int32) { _ = Glibc.close(descriptor) }

    /// - Returns: 0 or -errno.
    static func connect(_ descriptor: Int32, to path: String) -> Int32 {
        unsafe withAddress(path) { address, length in unsafe Glibc.connect(descriptor, address, length) == 0 ? 0 : -errno }
    }

    /// - Returns: 0 or -errno.
    static func bind(_ descriptor: Int32, to path: String) -> Int32 {
        unsafe withAddress(path) { address, length in unsafe Glibc.bind(descriptor, address, length) == 0 ? 0 : -errno }
    }

    private static func withAddress(
        _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        guard !path.isEmpty, path.utf8.count <= longestPath else { return -ENAMETOOLONG }
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
        return unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }

    /// Sends what the socket takes. A closed other end is EPIPE, not a signal.
    /// - Returns: bytes, or -errno.
    static func send(_ descriptor: Int32, _ vectors: UnsafeMutableBufferPointer<iovec>) -> Int {
        var message = unsafe msghdr()
        unsafe message.msg_iov = vectors.baseAddress
        unsafe message.msg_iovlen = .init(vectors.count)
        while true {
            let count = unsafe sendmsg(descriptor, &message, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
            if count >= 0 { return count }
            if errno != EINTR { return Int(-errno) }
        }
    }

    /// - Returns: bytes, 0 at the end, or -errno.
    static func receive(_ descriptor: Int32, _ vectors: UnsafeMutableBufferPointer<iovec>) -> Int {
        while true {
            let count = unsafe readv(descriptor, vectors.baseAddress, Int32(vectors.count))
            if count >= 0 { return count }
            if errno != EINTR { return Int(-errno) }
        }
    }

    /// Looks at what has come, without taking it. As `receive`.
    static func peek(_ descriptor: Int32, into buffer: UnsafeMutableRawBufferPointer) -> Int {
        let count = unsafe recv(
            descriptor, buffer.baseAddress, buffer.count, Int32(MSG_PEEK) | Int32(MSG_DONTWAIT))
        return count >= 0 ? count : Int(-errno)
    }
}
