import CHost
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// What ends another thread's poll: an eventfd, open as long as anybody may still look at it.
public final class WakeupEvent: Sendable {
    /// Readable from `signal` on, or from another's writing to it, until `clear`.
    public let descriptor: Int32

    /// - Returns: nil where the host has no descriptor left; errno says why.
    public init?() {
        let number = eventfd(0, chost_eventfd_flags)
        guard number >= 0 else { return nil }
        descriptor = number
    }

    deinit { close(descriptor) }

    /// Any thread; never blocks.
    public func signal() {
        var one: UInt64 = 1
        _ = unsafe write(descriptor, &one, 8)
    }

    public func clear() {
        var value: UInt64 = 0
        _ = unsafe read(descriptor, &value, 8)
    }
}
