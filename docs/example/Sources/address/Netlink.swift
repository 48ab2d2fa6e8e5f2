import Glibc

/// A conversation with the kernel about network interfaces: rtnetlink(7).
struct Netlink: ~Copyable {
    /// Why the kernel did not do what it was asked to.
    struct Failure: Error { var errno: Int32 }

    private let descriptor: Int32

    init() throws(Failure) {
        descriptor = socket(AF_NETLINK, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0 /* NETLINK_ROUTE */)
        guard descriptor >= 0 else { throw Failure(errno: errno) }
    }

    deinit { close(descriptor) }

    /// Gives an interface an IPv4 address: RTM_NEWADDR.
    func add(_ address: [UInt8], prefix: UInt8, to interface: UInt32) throws(Failure) {
        // struct ifaddrmsg, then the attributes IFA_LOCAL (2) and IFA_ADDRESS (1).
        var body: [UInt8] = [UInt8(AF_INET), prefix, 0, 0] + bytes(interface)
        for attribute: UInt16 in [2, 1] { body += bytes(UInt16(4 + address.count)) + bytes(attribute) + address }
        // NLM_F_REQUEST, ACK, EXCL, CREATE.
        let answers = try ask(20, flags: 0x1 | 0x4 | 0x200 | 0x400, body)
        try check(answers)
    }

    /// All IPv4 addresses, as "interface address/prefix": RTM_GETADDR, of which the answers are RTM_NEWADDR.
    func list() throws(Failure) -> [String] {
        // NLM_F_REQUEST, DUMP.
        let answers = try ask(22, flags: 0x1 | 0x300, [UInt8(AF_INET), 0, 0, 0, 0, 0, 0, 0])
        try check(answers)
        return answers.filter { $0.kind == 20 }.compactMap { answer in
            let body = answer.body
            guard body.count >= 8 else { return nil }
            var name = [CChar](repeating: 0, count: Int(IF_NAMESIZE))
            guard if_indextoname(number(body, at: 4), &name) != nil else { return nil }
            var rest = body.dropFirst(8)
            while rest.count >= 4 {
                let length = Int(UInt16(rest[rest.startIndex]) | UInt16(rest[rest.startIndex + 1]) << 8)
                guard length >= 4, length <= rest.count else { break }
                if rest[rest.startIndex + 2] == 2, length == 8 {
                    let text = rest.dropFirst(4).prefix(4).map(String.init).joined(separator: ".")
                    return String(decoding: name.prefix { $0 != 0 }.map(UInt8.init), as: UTF8.self) + " \(text)/\(body[1])"
                }
                rest = rest.dropFirst((length + 3) & ~3)
            }
            return nil
        }
    }

    // MARK: Messages

    private struct Message {
        var kind: UInt16
        var body: [UInt8]
    }

    /// Sends a message, and takes answers up to the one that says it is the last: NLMSG_ERROR (2), which is also the yes, or NLMSG_DONE (3).
    private func ask(_ kind: UInt16, flags: UInt16, _ body: [UInt8]) throws(Failure) -> [Message] {
        let message = bytes(UInt32(16 + body.count)) + bytes(kind) + bytes(flags) + bytes(UInt32(1)) + bytes(UInt32(0)) + body
        guard send(descriptor, message, message.count, 0) == message.count else { throw Failure(errno: errno) }
        var answers: [Message] = []
        var buffer = [UInt8](repeating: 0, count: 32 << 10)
        while true {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            guard count > 0 else { throw Failure(errno: count == 0 ? EIO : errno) }
            var rest = buffer[..<count]
            while rest.count >= 16 {
                let length = Int(number(Array(rest.prefix(4)), at: 0))
                guard length >= 16, length <= rest.count else { throw Failure(errno: EBADMSG) }
                let kind = UInt16(rest[rest.startIndex + 4]) | UInt16(rest[rest.startIndex + 5]) << 8
                answers.append(Message(kind: kind, body: Array(rest.prefix(length).dropFirst(16))))
                if kind == 2 || kind == 3 { return answers }
                rest = rest.dropFirst((length + 3) & ~3)
            }
        }
    }

    private func check(_ answers: [Message]) throws(Failure) {
        guard let last = answers.last, last.kind == 2, last.body.count >= 4 else { return }
        let code = Int32(bitPattern: number(last.body, at: 0))
        if code < 0 { throw Failure(errno: -code) }
    }

    private func number(_ bytes: [UInt8], at offset: Int) -> UInt32 {
        (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) }
    }

    private func bytes(_ value: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }
}
