internal import Glibc
public import VMCore

/// The two clocks that a processor and its local APIC count by.
public protocol ProcessorClock: AnyObject, Sendable {
    /// This moment; the time-stamp counter without any vCPU's offset. Neither part ever goes back.
    func now() -> LocalAPIC.Instant

    /// When the time-stamp counter, without any vCPU's offset, reaches a value.
    /// - Returns: nanoseconds on the clock that `now` gives; in the past where it has; `.max` beyond what fits.
    func nanoseconds(whenTSC tsc: UInt64) -> UInt64
}

/// The host's clocks: CLOCK_MONOTONIC, and its time-stamp counter.
final class HostProcessorClock: ProcessorClock {
    private let time: TimeSource

    init(_ time: TimeSource) { self.time = time }

    func now() -> LocalAPIC.Instant {
        var spec = timespec()
        _ = unsafe clock_gettime(CLOCK_MONOTONIC, &spec)
        let seconds = UInt64(truncatingIfNeeded: spec.tv_sec)
        return LocalAPIC.Instant(
            nanoseconds: seconds &* 1_000_000_000 &+ UInt64(truncatingIfNeeded: spec.tv_nsec), tsc: time.ticks)
    }

    /// From the present moment on, so that an error of the counter's measured rate matters only for as long as there is to wait.
    func nanoseconds(whenTSC tsc: UInt64) -> UInt64 {
        let now = now()
        let ahead = tsc &- now.tsc
        // A wait of centuries is one that has passed.
        guard ahead <= UInt64(Int64.max) else { return now.nanoseconds }
        let (wait, overflow) = SteadyProcessorClock.scale(ahead, by: 1_000_000, over: UInt64(max(1, time.kilohertz)))
        let (sum, wraps) = now.nanoseconds.addingReportingOverflow(wait &+ 1)
        return overflow || wraps ? .max : sum
    }
}

/// A time-stamp counter made of a monotonic clock: what a test, and an instruction-counted clock, can own.
public final class SteadyProcessorClock: ProcessorClock {
    private let clock: any MonotonicClock
    private let kilohertz: UInt64

    /// - Parameter tscKilohertz: the counter's rate; at least 1.
    public init(_ clock: any MonotonicClock, tscKilohertz: UInt32) {
        self.clock = clock
        kilohertz = UInt64(max(1, tscKilohertz))
    }

    public func now() -> LocalAPIC.Instant {
        let time = clock.now()
        return LocalAPIC.Instant(nanoseconds: time, tsc: Self.scale(time, by: kilohertz, over: 1_000_000).value)
    }

    public func nanoseconds(whenTSC tsc: UInt64) -> UInt64 {
        let (value, overflow) = Self.scale(tsc, by: 1_000_000, over: kilohertz)
        // Rounded up: at that moment the counter must have arrived.
        return overflow ? .max : value == .max ? .max : value &+ 1
    }

    /// value * factor / divisor through 128 bits; wrapped where it does not fit.
    static func scale(_ value: UInt64, by factor: UInt64, over divisor: UInt64) -> (value: UInt64, overflow: Bool) {
        let product = value.multipliedFullWidth(by: factor)
        let high = product.high / divisor
        let result = divisor.dividingFullWidth((product.high % divisor, product.low)).quotient
        return (result, high != 0)
    }
}
