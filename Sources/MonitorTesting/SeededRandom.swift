/// A random source that a seed repeats: SplitMix64, whose every seed gives the full period.
public struct SeededRandom: RandomNumberGenerator, Sendable {
    private var state: UInt64

    public init(seed: UInt64) { state = seed }

    @inlinable
    public mutating func next() -> UInt64 { step() }

    @usableFromInline
    mutating func step() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed &>> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed &>> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed &>> 31
    }

    /// A number in 0..<`bound`, without the standard library's rejection loop.
    @inline(__always)
    public mutating func below(_ bound: Int) -> Int { Int(truncatingIfNeeded: next().multipliedFullWidth(by: UInt64(bound)).high) }

    /// True once in `count`.
    @inline(__always)
    public mutating func oneIn(_ count: Int) -> Bool { below(count) == 0 }
}
