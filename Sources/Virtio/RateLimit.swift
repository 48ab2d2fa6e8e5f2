/// How much a device may do: so many a second in the long run, and so many at once after a pause.
public struct Rate: Hashable, Sendable {
    public let perSecond: UInt64
    public let burst: UInt64

    /// - Parameters:
    ///   - perSecond: at least 1.
    ///   - burst: what may be done at once; a second's worth where it is left out.
    public init(perSecond: UInt64, burst: UInt64? = nil) {
        self.perSecond = max(1, perSecond)
        self.burst = max(1, burst ?? perSecond)
    }
}

/// The limits of one device.
public struct RateLimits: Hashable, Sendable {
    public var bytes: Rate?
    public var operations: Rate?
    public init(bytes: Rate? = nil, operations: Rate? = nil) {
        self.bytes = bytes
        self.operations = operations
    }
    public var isUnlimited: Bool { bytes == nil && operations == nil }
}

/// Tokens that come at a rate up to a burst, and are taken by what is done.
///
/// Something larger than the burst is let through as soon as the bucket is full, and leaves it in debt: it is never refused
/// for good.
struct TokenBucket {
    private let rate: Rate
    /// Billionths of a token. Below zero: debt.
    private var level: Int128
    private var last: UInt64

    private static let unit: Int128 = 1_000_000_000

    /// - Parameter now: in nanoseconds, on the clock that is given to the other functions too.
    init(_ rate: Rate, now: UInt64) {
        self.rate = rate
        level = Int128(rate.burst) * Self.unit
        last = now
    }

    /// - Returns: how many nanoseconds it takes until `count` may be taken; 0 for now.
    mutating func delay(for count: UInt64, now: UInt64) -> UInt64 {
        refill(now)
        let wanted = Int128(min(count, rate.burst)) * Self.unit
        guard wanted > level else { return 0 }
        let missing = wanted - level
        let perSecond = Int128(rate.perSecond)
        return UInt64(clamping: (missing + perSecond - 1) / perSecond)
    }

    /// Takes what `delay` said may be taken.
    mutating func take(_ count: UInt64) { level -= Int128(count) * Self.unit }

    private mutating func refill(_ now: UInt64) {
        guard now > last else { return }
        level = min(Int128(rate.burst) * Self.unit, level + Int128(now - last) * Int128(rate.perSecond))
        last = now
    }
}

/// Both of a device's limits together.
struct RateLimiter {
    private var bytes: TokenBucket?
    private var operations: TokenBucket?

    init(_ limits: RateLimits, now: UInt64) {
        bytes = limits.bytes.map { TokenBucket($0, now: now) }
        operations = limits.operations.map { TokenBucket($0, now: now) }
    }

    /// Takes one operation of `count` bytes if both limits allow it now.
    /// - Returns: 0 where it was taken; else how many nanoseconds to wait before asking again.
    mutating func take(bytes count: UInt64, now: UInt64) -> UInt64 {
        let wait = max(bytes?.delay(for: count, now: now) ?? 0, operations?.delay(for: 1, now: now) ?? 0)
        guard wait == 0 else { return wait }
        bytes?.take(count)
        operations?.take(1)
        return 0
    }
}
