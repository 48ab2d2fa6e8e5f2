import SoftCPU
import Testing

/// The timer in its modes, and the state page.
@Suite struct LocalAPICTimerTests {
    private let apic = TestAPIC()
    private static let vector: UInt64 = 0x40
    private static let periodic: UInt64 = 1 << 17
    private static let tscDeadline: UInt64 = 2 << 17
    private static let masked: UInt64 = 1 << 16

    init() {
        apic.write(0x3E0, 0xB)
        apic.write(0x320, Self.vector)
    }

    private func fired(_ apic: TestAPIC) -> Bool {
        guard apic.chip.pendingVector == UInt8(Self.vector) else { return false }
        _ = apic.acknowledge()
        apic.write(0xB0, 0)
        return true
    }

    // MARK: Counting [SDM3 §11.5.4]

    /// Figure 11-10: all eight dividers.
    @Test(arguments: [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (0xA, 128), (0xB, 1)] as [(UInt64, UInt64)])
    func dividers(_ row: (UInt64, UInt64)) {
        let apic = apic.copy()
        apic.write(0x3E0, row.0)
        apic.write(0x380, 1000)
        apic.pass(row.1 * 999)
        #expect(apic.read(0x390) == 1)
        #expect(!fired(apic))
        apic.pass(row.1)
        #expect(apic.read(0x390) == 0)
        #expect(fired(apic))
    }

    @Test func oneShotFiresOnce() {
        let apic = apic.copy()
        apic.write(0x380, 5000)
        #expect(apic.chip.deadline == .nanoseconds(apic.now.nanoseconds + 5000))
        apic.pass(2000)
        #expect(apic.read(0x390) == 3000)
        apic.pass(3000)
        #expect(fired(apic))
        #expect(apic.chip.deadline == .never)
        apic.pass(1_000_000)
        #expect(!fired(apic))
        #expect(apic.read(0x380) == 5000)
    }

    @Test func periodicReloads() {
        let apic = apic.copy()
        apic.write(0x320, Self.vector | Self.periodic)
        apic.write(0x380, 1_000_000)
        for _ in 0..<5 {
            apic.pass(999_999)
            #expect(!fired(apic))
            apic.pass(1)
            #expect(fired(apic))
        }
        // Periods missed are one interrupt, and the phase is kept.
        apic.pass(10_400_000)
        #expect(fired(apic))
        #expect(!fired(apic))
        #expect(apic.read(0x390) == 600_000)
        apic.write(0x380, 0)
        apic.pass(10_000_000)
        #expect(!fired(apic))
        #expect(apic.chip.deadline == .never)
    }

    @Test func writingTheCountRestartsIt() {
        let apic = apic.copy()
        apic.write(0x380, 1000)
        apic.pass(900)
        apic.write(0x380, 1000)
        apic.pass(900)
        #expect(!fired(apic))
        #expect(apic.read(0x390) == 100)
    }

    @Test func aNewDividerKeepsTheCount() {
        let apic = apic.copy()
        apic.write(0x380, 1000)
        apic.pass(400)
        apic.write(0x3E0, 0)
        #expect(apic.read(0x390) == 600)
        apic.pass(2 * 599)
        #expect(apic.read(0x390) == 1)
        apic.pass(2)
        #expect(fired(apic))
    }

    /// Masked it counts without interrupting, and what passed meanwhile is lost.
    @Test func masked() {
        let apic = apic.copy()
        apic.write(0x320, Self.vector | Self.masked)
        apic.write(0x380, 1000)
        #expect(apic.chip.deadline == .never)
        apic.pass(500)
        #expect(apic.read(0x390) == 500)
        apic.pass(600)
        apic.write(0x320, Self.vector)
        #expect(!fired(apic))
    }

    /// Between one-shot and periodic the count goes on.
    @Test func modeChangeWhileCounting() {
        let apic = apic.copy()
        apic.write(0x380, 1000)
        apic.pass(300)
        apic.write(0x320, Self.vector | Self.periodic)
        #expect(apic.read(0x390) == 700)
        apic.pass(700)
        #expect(fired(apic))
        apic.pass(1000)
        #expect(fired(apic))
    }

    @Test func reservedModeStandsStill() {
        let apic = apic.copy()
        apic.write(0x320, Self.vector | 3 << 17)
        apic.write(0x380, 1000)
        apic.pass(10_000)
        #expect(!fired(apic))
        #expect(apic.read(0x390) == 0)
    }

    /// An illegal vector is an error when the timer fires. [SDM3 §11.5.2].
    @Test func illegalVector() {
        let apic = apic.copy()
        apic.write(0x320, 0x0F)
        apic.write(0x380, 1000)
        apic.pass(1000)
        #expect(apic.chip.pendingVector == nil)
        apic.write(0x280, 0)
        #expect(apic.read(0x280) == 0x40)
    }

    /// The shortest count a guest can ask for costs the host one alarm in 100 microseconds, and no more.
    @Test func periodicStormIsBounded() {
        let apic = apic.copy()
        apic.write(0x320, Self.vector | Self.periodic)
        apic.write(0x380, 1)
        var alarms = 0
        let end = apic.now.nanoseconds + 10_000_000
        while case .nanoseconds(let next) = apic.chip.deadline, next <= end {
            apic.pass(next - apic.now.nanoseconds)
            #expect(fired(apic))
            alarms += 1
        }
        #expect(alarms == 100)
    }

    @Test func timeThatGoesBackCountsNothing() {
        let apic = apic.copy()
        apic.write(0x380, 1000)
        apic.now.nanoseconds -= 10
        #expect(apic.read(0x390) == 1000)
        #expect(!fired(apic))
    }

    // MARK: TSC deadline [SDM3 §11.5.4.1]

    @Test func deadlineMode() {
        let apic = apic.copy()
        apic.write(0x320, Self.vector | Self.tscDeadline)
        let deadline = apic.now.tsc + 3000
        #expect(apic.wrmsr(0x6E0, deadline))
        #expect(apic.rdmsr(0x6E0) == deadline)
        #expect(apic.chip.deadline == .tsc(deadline))
        apic.pass(999)
        #expect(!fired(apic))
        apic.pass(1)
        #expect(fired(apic))
        #expect(apic.rdmsr(0x6E0) == 0)
        #expect(apic.chip.deadline == .never)
    }

    @Test func aDeadlineInThePastFiresAtOnce() {
        let apic = apic.copy()
        apic.write(0x320, Self.vector | Self.tscDeadline)
        #expect(apic.wrmsr(0x6E0, 1))
        #expect(fired(apic))
        #expect(apic.rdmsr(0x6E0) == 0)
    }

    @Test func zeroDisarms() {
        let apic = apic.copy()
        apic.write(0x320, Self.vector | Self.tscDeadline)
        #expect(apic.wrmsr(0x6E0, apic.now.tsc + 3000))
        #expect(apic.wrmsr(0x6E0, 0))
        apic.pass(10_000)
        #expect(!fired(apic))
    }

    @Test func eachModeIgnoresTheOthersRegister() {
        let apic = apic.copy()
        #expect(apic.wrmsr(0x6E0, 1))
        #expect(apic.rdmsr(0x6E0) == 0)
        #expect(!fired(apic))
        apic.write(0x320, Self.vector | Self.tscDeadline)
        apic.write(0x380, 1000)
        #expect(apic.read(0x380) == 0 && apic.read(0x390) == 0)
        apic.pass(10_000)
        #expect(!fired(apic))
    }

    @Test func changingModeDisarms() {
        let apic = apic.copy()
        apic.write(0x320, Self.vector | Self.tscDeadline)
        #expect(apic.wrmsr(0x6E0, apic.now.tsc + 3000))
        apic.write(0x320, Self.vector)
        apic.write(0x320, Self.vector | Self.tscDeadline)
        #expect(apic.rdmsr(0x6E0) == 0)
        apic.write(0x320, Self.vector)
        apic.write(0x380, 1000)
        apic.write(0x320, Self.vector | Self.tscDeadline)
        apic.write(0x320, Self.vector)
        apic.pass(10_000)
        #expect(!fired(apic))
    }

    // MARK: The state page, as KVM_GET_LAPIC lays it out

    private func restored(_ original: TestAPIC, tscDeadline: UInt64 = 0, at now: LocalAPIC.Instant) -> TestAPIC? {
        let page = original.chip.statePage(at: original.now)
        #expect(page.count == 1024)
        let copy = TestAPIC(id: original.chip.id, enabled: false)
        copy.now = now
        guard copy.restore(page: page, base: original.chip.apicBase, tscDeadline: tscDeadline, at: now) else { return nil }
        return copy
    }

    @Test func stateGoesThroughThePage() throws {
        let apic = TestAPIC(id: 3)
        apic.write(0x80, 0x20)
        apic.write(0xD0, 0x0800_0000)
        apic.write(0xE0, 0)
        apic.write(0x310, 0x0500_0000)
        apic.write(0x300, 0x44)
        for offset in stride(from: UInt64(0x320), through: 0x370, by: 0x10) { apic.write(offset, 0x50 + (offset >> 4 & 7)) }
        for vector in [0x31, 0x99, 0xF0] as [UInt8] { _ = apic.accept(vector, isLevelTriggered: vector == 0x99) }
        _ = apic.acknowledge()
        let copy = try #require(restored(apic, at: apic.now))
        for offset in stride(from: UInt64(0x20), through: 0x3E0, by: 0x10) {
            #expect(copy.read(offset) == apic.read(offset), "\(offset)")
        }
    }

    /// A timer goes on where it was, on a clock that reads something else altogether.
    @Test(arguments: [0, Self.periodic] as [UInt64])
    func aRunningTimerGoesThroughThePage(_ mode: UInt64) throws {
        let apic = apic.copy()
        apic.write(0x320, Self.vector | mode)
        apic.write(0x380, 1_000_000)
        apic.pass(400_000)
        let copy = try #require(restored(apic, at: LocalAPIC.Instant(nanoseconds: 7)))
        #expect(copy.read(0x390) == 600_000)
        copy.pass(599_999)
        #expect(!fired(copy))
        copy.pass(1)
        #expect(fired(copy))
    }

    @Test func aSpentTimerStaysSpent() throws {
        let apic = apic.copy()
        apic.write(0x380, 1000)
        apic.pass(1000)
        _ = fired(apic)
        let copy = try #require(restored(apic, at: apic.now))
        copy.pass(100_000)
        #expect(!fired(copy))
    }

    @Test func aDeadlineIsGivenBesideThePage() throws {
        let apic = apic.copy()
        apic.write(0x320, Self.vector | Self.tscDeadline)
        let copy = try #require(restored(apic, tscDeadline: 9_000_000, at: apic.now))
        #expect(copy.rdmsr(0x6E0) == 9_000_000)
    }

    @Test func x2APICPage() throws {
        let apic = TestAPIC(id: 0x12)
        apic.enterX2APIC()
        #expect(apic.wrmsr(0x830, 0x1234_5678_0000_4041))
        let page = apic.chip.statePage(at: apic.now)
        #expect(page[0x23] == 0x12, "the ID is in its xAPIC place")
        let copy = try #require(restored(apic, at: apic.now))
        #expect(copy.rdmsr(0x802) == 0x12 && copy.rdmsr(0x80D) == 0x1_0004)
        #expect(copy.rdmsr(0x830) == 0x1234_5678_0000_4041)
    }

    /// A page from outside: any bytes leave an APIC that works, or are refused.
    @Test func hostilePages() {
        var random = SystemRandomNumberGenerator()
        for round in 0..<500 {
            let apic = TestAPIC()
            let page = (0..<1024).map { _ in UInt8.random(in: 0...255, using: &random) }
            let base = [0xFEE0_0900, 0xFEE0_0D00, 0xFEE0_0100, 0xFEE0_0500, .max][round % 5] as UInt64
            let accepted = apic.restore(
                page: page, base: base, tscDeadline: .random(in: 0 ... .max, using: &random), at: apic.now)
            #expect(accepted == (round % 5 < 3))
            for offset in stride(from: UInt64(0), to: 0x1000, by: 4) { _ = apic.read(offset) }
            _ = apic.acknowledge()
            apic.write(0xB0, 0)
            apic.pass(1_000_000)
        }
        let apic = TestAPIC()
        for count in [0, 1, 1023, 1025] {
            #expect(!apic.restore(page: [UInt8](repeating: 0, count: count), base: 0xFEE0_0900, tscDeadline: 0, at: apic.now))
        }
    }

    /// Any sequence of accesses, with time that jumps: no trap, and one pending vector at most at a time.
    @Test func anySequenceOfAccesses() {
        var random = SystemRandomNumberGenerator()
        let apic = TestAPIC()
        for _ in 0..<50_000 {
            let value = UInt64.random(in: 0 ... .max, using: &random) >> UInt64.random(in: 0..<64, using: &random)
            switch Int.random(in: 0..<7, using: &random) {
            case 0: _ = apic.read(.random(in: 0..<0x1008, using: &random), .allCases.randomElement(using: &random)!)
            case 1: apic.write(.random(in: 0..<0x40, using: &random) << 4, value)
            case 2: _ = apic.rdmsr([0x1B, 0x6E0, .random(in: 0x800...0x8FF, using: &random)].randomElement(using: &random)!)
            case 3: _ = apic.wrmsr([0x6E0, .random(in: 0x800...0x8FF, using: &random)].randomElement(using: &random)!, value)
            case 4: _ = apic.wrmsr(0x1B, 0xFEE0_0100 | .random(in: 0..<4, using: &random) << 10)
            case 5:
                apic.now.nanoseconds &+= value
                apic.now.tsc &+= value
                apic.pass(0)
            default:
                _ = apic.accept(UInt8(truncatingIfNeeded: value), isLevelTriggered: value & 256 != 0)
                _ = apic.acknowledge()
            }
        }
    }
}
