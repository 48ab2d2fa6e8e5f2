internal import CHost
internal import Glibc

/// What ends another thread's poll: an eventfd.
final class WakeupEvent: Sendable {
    /// Readable from `signal` on until `clear`.
    let descriptor: Int32

    init() throws(AgentError) {
        descriptor = eventfd(0, chost_eventfd_flags)
        guard descriptor >= 0 else { throw .host(call: "eventfd", errno: errno) }
    }

    deinit { close(descriptor) }

    /// Any thread; never blocks.
    func signal() {
        var one: UInt64 = 1
        _ = unsafe write(descriptor, &one, 8)
    }

    func clear() {
        var value: UInt64 = 0
        _ = unsafe read(descriptor, &value, 8)
    }
}
