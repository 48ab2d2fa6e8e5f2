internal import CHost
internal import Glibc
public import VMCore

/// The host's clocks.
public final class HostClock: MonotonicClock, WallClock {
    public init() {}

    public func now() -> UInt64 { Self.read(CLOCK_MONOTONIC) }

    public func unixNanoseconds() -> Int64 { Int64(truncatingIfNeeded: Self.read(CLOCK_REALTIME)) }

    /// Nanoseconds of CPU time this process has used.
    public static func processTime() -> UInt64 { read(CLOCK_PROCESS_CPUTIME_ID) }

    private static func read(_ clock: clockid_t) -> UInt64 {
        var time = timespec()
        _ = unsafe clock_gettime(clock, &time)
        return UInt64(truncatingIfNeeded: time.tv_sec) &* 1_000_000_000 &+ UInt64(truncatingIfNeeded: time.tv_nsec)
    }
}
