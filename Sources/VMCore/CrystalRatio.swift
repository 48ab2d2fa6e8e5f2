/// CPUID leaf 0x15: the TSC's rate as a fraction of a 1 GHz crystal, which a guest also takes for the rate of its local
/// APIC timer.
///
/// Linux multiplies the crystal's kHz by the numerator in 32 bits, so the numerator stays below 4295; the nearest such
/// fraction is good to less than one part in a million from 1 MHz on.
/// Source: [SDM2 CPUID 15H].
public struct CrystalRatio: Equatable, Sendable {
    /// Hz, for ECX.
    public static let crystal: UInt32 = 1_000_000_000
    /// For EBX; 0, which means "not told", where no fraction is near.
    public var numerator: UInt32
    /// For EAX.
    public var denominator: UInt32

    /// The fraction nearest to a TSC of `kilohertz`.
    public init(kilohertz: UInt32) {
        let wanted = UInt64(kilohertz)
        var best: (numerator: UInt64, denominator: UInt64, error: UInt64) = (0, 1, .max)
        for denominator in 1...2000 as ClosedRange<UInt64> {
            let numerator = (wanted &* denominator &+ 500_000) / 1_000_000
            if numerator > 4294 { break }
            // In kHz, this denominator times over: less than 2^33, so that no product is too large, and nothing is divided.
            let (rate, meant) = (numerator &* 1_000_000, wanted &* denominator)
            let error = rate > meant ? rate &- meant : meant &- rate
            if numerator > 0, best.numerator == 0 || error &* best.denominator < best.error &* denominator {
                best = (numerator, denominator, error)
            }
        }
        numerator = UInt32(truncatingIfNeeded: best.numerator)
        denominator = UInt32(truncatingIfNeeded: best.denominator)
    }
}
