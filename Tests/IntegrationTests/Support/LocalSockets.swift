import Foundation

/// Stream sockets of this host, blocking, for peers of a guest. They wait no longer for it than any guest here is given: what it does not
/// send is missing then, and the test says so.
enum LocalSocket {
    struct Failed: Error, CustomStringConvertible { var description: String }

    /// Seconds.
    private static let patience = 300

    private static func make(_ family: Int32) -> Int32 { patient(socket(family, Int32(SOCK_STREAM.rawValue), 0)) }

    private static func patient(_ end: Int32) -> Int32 {
        var limit = timeval(tv_sec: patience, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] { setsockopt(end, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size)) }
        return end
    }

    /// Waits for who connects.
    /// - Returns: -1 where nobody does: nothing is to be had from it then.
    static func accept(_ listener: Int32) -> Int32 { patient(Glibc.accept(listener, nil, nil)) }

    /// A listener on a port of 127.0.0.1 that the kernel chooses.
    static func listen() throws -> (descriptor: Int32, port: UInt16) {
        let listener = make(AF_INET)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                bind(listener, pointer, length) == 0 && Glibc.listen(listener, 4) == 0 && getsockname(listener, pointer, &length) == 0
            }
        }
        guard result else { throw Failed(description: "no listener: \(String(cString: strerror(errno)))") }
        return (listener, UInt16(bigEndian: address.sin_port))
    }

    private static func withUnix<Value>(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Value) -> Value {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8.prefix($0.count - 1)) }
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
    }

    static func listen(at path: String) throws -> Int32 {
        let listener = make(AF_UNIX)
        guard withUnix(path, { bind(listener, $0, $1) }) == 0, Glibc.listen(listener, 4) == 0 else {
            throw Failed(description: "no listener at \(path): \(String(cString: strerror(errno)))")
        }
        return listener
    }

    /// Connects, trying again for so many seconds.
    static func connect(to path: String, within seconds: Int) throws -> Int32 {
        for _ in 0..<(seconds * 20) {
            let end = make(AF_UNIX)
            if withUnix(path, { Glibc.connect(end, $0, $1) }) == 0 { return end }
            close(end)
            usleep(50_000)
        }
        throw Failed(description: "nobody listens at \(path)")
    }

    static func send(_ bytes: [UInt8], to end: Int32) {
        var done = 0
        while done < bytes.count {
            let count = bytes[done...].withUnsafeBytes { Glibc.send(end, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            guard count > 0 else { return }
            done += count
        }
    }

    /// Reads until the end, or until there are so many.
    static func receive(from end: Int32, atMost limit: Int = .max) -> [UInt8] {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while bytes.count < limit {
            let count = recv(end, &buffer, min(buffer.count, limit - bytes.count), 0)
            guard count > 0 else { break }
            bytes += buffer[..<count]
        }
        return bytes
    }
}
