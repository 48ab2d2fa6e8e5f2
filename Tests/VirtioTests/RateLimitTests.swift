import Testing

@testable import Virtio

@Suite struct RateLimitTests {
    private let second: UInt64 = 1_000_000_000

    /// Takes operations of one size for ten seconds of a clock that goes as fast as it is told to.
    private func operations(of count: UInt64, _ limits: RateLimits) -> UInt64 {
        var limiter = RateLimiter(limits, now: 0)
        var (now, done): (UInt64, UInt64) = (0, 0)
        while now <= 10 * second {
            let wait = limiter.take(bytes: count, now: now)
            if wait == 0 { done += 1 } else { now += wait }
        }
        return done
    }

    @Test func aRateHoldsBeyondTheBurst() {
        #expect(operations(of: 512, RateLimits(operations: Rate(perSecond: 100, burst: 50))) == 1050)
        #expect(operations(of: 1000, RateLimits(bytes: Rate(perSecond: 10_000, burst: 5000))) == 105)
        // The tighter one counts.
        let both = RateLimits(bytes: Rate(perSecond: 1_000_000), operations: Rate(perSecond: 10, burst: 1))
        #expect(operations(of: 1000, both) == 101)
    }

    @Test func whatIsLargerThanTheBurstIsNotRefusedForGood() {
        let done = operations(of: 100_000, RateLimits(bytes: Rate(perSecond: 10_000, burst: 1000)))
        #expect(done == 2, "the first at once, the second when the debt is paid")
        var limiter = RateLimiter(RateLimits(bytes: Rate(perSecond: 10_000, burst: 1000)), now: 0)
        #expect(limiter.take(bytes: 100_000, now: 0) == 0)
        let wait = limiter.take(bytes: 100_000, now: 0)
        #expect(wait == 10 * second, "the debt, and a full bucket")
        #expect(limiter.take(bytes: 100_000, now: wait) == 0)
    }

    @Test func numbersOfAnySizeAreHarmless() {
        var limiter = RateLimiter(RateLimits(bytes: Rate(perSecond: .max), operations: Rate(perSecond: 1, burst: .max)), now: .max)
        #expect(limiter.take(bytes: .max, now: 0) == 0)
        #expect(limiter.take(bytes: .max, now: .max) >= 0)
        #expect(RateLimits().isUnlimited)
    }
}
