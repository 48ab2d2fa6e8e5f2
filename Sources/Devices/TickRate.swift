/// A crystal's ticks against the monotonic clock's nanoseconds, exactly: no rate is rounded, so nothing drifts.
struct TickRate: Sendable {
    /// Ticks per nanosecond, as a fraction below one.
    private let numerator: UInt64
    private let denominator: UInt64

    private init(_ numerator: UInt64, _ denominator: UInt64) {
        self.numerator = numerator
        self.denominator = denominator
    }

    /// 105/88 MHz, a twelfth of the PC's 14.31818 MHz crystal: the 8254's CLK.
    static let intervalTimer = TickRate(21, 17_600)
    /// 315/88 MHz, a quarter of the same crystal: the ACPI PM timer.
    static let powerManagementTimer = TickRate(63, 17_600)
    /// 32,768 Hz: the real-time clock.
    static let realTimeClock = TickRate(64, 1_953_125)

    /// How many ticks have happened `nanoseconds` after tick 0. Rounds down.
    func ticks(after nanoseconds: UInt64) -> UInt64 {
        // The fraction is below one, so the quotient fits whatever the operand.
        denominator.dividingFullWidth(nanoseconds.multipliedFullWidth(by: numerator)).quotient
    }

    /// The first nanosecond at which `ticks(after:)` has reached `tick`; `UInt64.max` where that is past the clock's range.
    func nanoseconds(toReach tick: UInt64) -> UInt64 {
        let (high, low) = tick.multipliedFullWidth(by: denominator)
        let (rounded, carry) = low.addingReportingOverflow(numerator &- 1)
        let top = high &+ (carry ? 1 : 0)
        guard top < numerator else { return .max }
        return numerator.dividingFullWidth((top, rounded)).quotient
    }
}
