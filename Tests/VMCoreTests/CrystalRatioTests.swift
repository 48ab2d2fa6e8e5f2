import Testing
import VMCore

@Suite struct CrystalRatioTests {
    /// As Linux computes it: 32 bits, in kHz.
    @Test(arguments: [800_000, 1_996_249, 2_095_078, 2_595_124, 2_999_999, 3_000_000, 3_892_688, 4_290_000, 6_200_000] as [UInt32])
    func linuxReadsTheRate(kilohertz: UInt32) {
        let ratio = CrystalRatio(kilohertz: kilohertz)
        let product = (CrystalRatio.crystal / 1000).multipliedReportingOverflow(by: ratio.numerator)
        #expect(!product.overflow)
        let read = Double(product.partialValue) / Double(ratio.denominator)
        #expect(abs(read / Double(kilohertz) - 1) < 1e-6)
    }

    @Test(arguments: [0, UInt32.max]) func noRateIsNotTold(kilohertz: UInt32) {
        #expect(CrystalRatio(kilohertz: kilohertz).numerator == 0)
        #expect(CrystalRatio(kilohertz: kilohertz).denominator == 1)
    }
}
