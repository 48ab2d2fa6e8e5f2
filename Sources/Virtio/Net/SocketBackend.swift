public import Glibc
public import VMCore

/// A link over a socket that keeps messages apart (SOCK_SEQPACKET, SOCK_DGRAM): each is a frame. Two machines can be joined by
/// a pair of them; so can a machine and a test.
@safe public final class SocketBackend: NetworkBackend, @unchecked Sendable {
    public let carriesHeader: Bool
    public private(set) var isUp = true
    private let descriptor: Int32
    nonisolated(unsafe) private let buffer: UnsafeMutableRawBufferPointer
    private var frameBytes = 0
    private var events: (any EventService)?
    private var token: UInt64?

    /// - Parameter descriptor: connected; closed with this.
    public init(descriptor: Int32, carriesHeader: Bool = false) {
        self.descriptor = descriptor
        self.carriesHeader = carriesHeader
        unsafe buffer = .allocate(byteCount: NetworkFrame.header + NetworkFrame.largest + 1, alignment: 64)
    }

    /// Two links that lead to each other; nil where the host is out of descriptors.
    public static func pair(carriesHeader: Bool = false) -> (SocketBackend, SocketBackend)? {
        var ends: [Int32] = [-1, -1]
        let type = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        guard unsafe socketpair(AF_UNIX, type, 0, &ends) == 0 else { return nil }
        return (
            SocketBackend(descriptor: ends[0], carriesHeader: carriesHeader),
            SocketBackend(descriptor: ends[1], carriesHeader: carriesHeader)
        )
    }

    deinit {
        if let token { events?.unwatch(descriptor, token: token) }
        Glibc.close(descriptor)
        unsafe buffer.deallocate()
    }

    public func connect(
        _ events: any EventService, clock: any MonotonicClock, _ handler: @escaping @Sendable (Readiness) -> Void
    ) {
        self.events = events
        token = events.watch(descriptor, for: [], handler)
    }

    public func wait(for readiness: Readiness) {
        if let token { events?.change(descriptor, token: token, to: readiness) }
    }

    public func send(_ frame: UnsafeMutableBufferPointer<iovec>, count: Int) -> NetworkSendResult {
        guard isUp else { return .down }
        var message = unsafe msghdr()
        unsafe message.msg_iov = frame.baseAddress
        unsafe message.msg_iovlen = frame.count
        var sent = -1
        repeat {
            sent = unsafe sendmsg(descriptor, &message, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
        } while sent < 0 && errno == EINTR
        guard sent < 0 else { return .sent }
        switch errno {
        case EAGAIN: return .full
        case EPIPE, ECONNRESET, ENOTCONN, ECONNREFUSED:
            close()
            return .down
        default: return .refused
        }
    }

    public func nextFrame() -> UnsafeRawBufferPointer? {
        if frameBytes == 0, isUp {
            let count = unsafe recv(descriptor, buffer.baseAddress, buffer.count, Int32(MSG_DONTWAIT))
            if count > 0 {
                frameBytes = count
            } else if count == 0 || (errno != EAGAIN && errno != EINTR) {
                close()
            }
        }
        return frameBytes > 0 ? unsafe UnsafeRawBufferPointer(rebasing: buffer[..<frameBytes]) : nil
    }

    public func removeFrame() { frameBytes = 0 }

    public func close() {
        isUp = false
        frameBytes = 0
        if let token { events?.unwatch(descriptor, token: token) }
        token = nil
        shutdown(descriptor, Int32(SHUT_RDWR))
    }
}
