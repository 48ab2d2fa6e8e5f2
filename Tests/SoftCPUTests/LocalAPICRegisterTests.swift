import SoftCPU
import Testing
import VMCore

/// A local APIC under a test's hand: the chip, its time, and everything it asked for.
final class TestAPIC {
    var chip: LocalAPIC
    var now = LocalAPIC.Instant(nanoseconds: 1_000_000, tsc: 3_000_000)
    /// What the last call asked for.
    var effects = LocalAPIC.Effects()

    init(id: UInt32 = 0, isBootstrap: Bool = true, enabled: Bool = true) {
        chip = LocalAPIC(id: id, isBootstrap: isBootstrap)
        if enabled { write(0xF0, 0x1FF) }
    }

    func copy() -> TestAPIC {
        let copy = TestAPIC(id: chip.id, enabled: false)
        copy.chip = chip
        copy.now = now
        return copy
    }

    @discardableResult
    func read(_ offset: UInt64, _ width: AccessWidth = .long) -> UInt64 {
        effects = LocalAPIC.Effects()
        return chip.read(offset: offset, width: width, at: now, &effects)
    }

    func write(_ offset: UInt64, _ value: UInt64, _ width: AccessWidth = .long) {
        effects = LocalAPIC.Effects()
        chip.write(offset: offset, width: width, value: value, at: now, &effects)
    }

    func rdmsr(_ index: UInt32) -> UInt64? {
        effects = LocalAPIC.Effects()
        return chip.read(msr: index, at: now, &effects)
    }

    func wrmsr(_ index: UInt32, _ value: UInt64) -> Bool {
        effects = LocalAPIC.Effects()
        return chip.write(msr: index, value, at: now, &effects)
    }

    @discardableResult
    func acknowledge() -> UInt8 { chip.acknowledge() }

    @discardableResult
    func accept(_ vector: UInt8, isLevelTriggered: Bool) -> Bool {
        chip.accept(vector, isLevelTriggered: isLevelTriggered)
    }

    func restore(page: [UInt8], base: UInt64, tscDeadline: UInt64, at now: LocalAPIC.Instant) -> Bool {
        chip.restore(page: page, base: base, tscDeadline: tscDeadline, at: now)
    }

    func enterX2APIC() {
        let base = chip.apicBase
        #expect(wrmsr(0x1B, base | 0xC00))
    }

    /// Lets time pass on both clocks; the TSC runs at 3 GHz.
    func pass(_ nanoseconds: UInt64) {
        now.nanoseconds += nanoseconds
        now.tsc += 3 * nanoseconds
        effects = LocalAPIC.Effects()
        chip.advance(to: now, &effects)
    }

    func contains(_ vector: UInt8, inRegister first: UInt64) -> Bool {
        copy().read(first + 0x10 * UInt64(vector / 32)) >> UInt64(vector % 32) & 1 != 0
    }
    func isRequested(_ vector: UInt8) -> Bool { contains(vector, inRegister: 0x200) }
    func isInService(_ vector: UInt8) -> Bool { contains(vector, inRegister: 0x100) }
    func isLevel(_ vector: UInt8) -> Bool { contains(vector, inRegister: 0x180) }
}

/// Registers, their reset values and their reserved bits.
@Suite struct LocalAPICRegisterTests {
    // MARK: After power-up [SDM3 §11.4.7.1]

    @Test func powerUpValues() {
        let apic = TestAPIC(id: 5, isBootstrap: false, enabled: false)
        #expect(apic.read(0x20) == 5 << 24)
        #expect(apic.read(0x80) == 0)
        #expect(apic.read(0xA0) == 0)
        #expect(apic.read(0xD0) == 0)
        #expect(apic.read(0xE0) == 0xFFFF_FFFF)
        #expect(apic.read(0xF0) == 0xFF)
        for offset in stride(from: UInt64(0x100), to: 0x280, by: 0x10) { #expect(apic.read(offset) == 0) }
        #expect(apic.read(0x280) == 0)
        #expect(apic.read(0x300) == 0 && apic.read(0x310) == 0)
        for offset in stride(from: UInt64(0x320), through: 0x370, by: 0x10) { #expect(apic.read(offset) == 0x10000) }
        #expect(apic.read(0x380) == 0 && apic.read(0x390) == 0 && apic.read(0x3E0) == 0)
        #expect(apic.chip.apicBase == 0xFEE0_0800)
    }

    /// [SDM3 §11.4.4]: bit 8 tells the boot processor.
    @Test func bootstrapFlag() {
        #expect(TestAPIC(isBootstrap: true).chip.apicBase == 0xFEE0_0900)
    }

    /// [SDM3 §11.4.8]: 0x14 is an integrated APIC; entries - 1; bit 24 EOI-broadcast suppression.
    @Test func version() {
        let apic = TestAPIC()
        #expect(apic.read(0x30) == 0x0105_0014)
        apic.write(0x30, 0)
        #expect(apic.read(0x30) == 0x0105_0014)
    }

    /// [SDM3 §11.4.7.3]: INIT resets all but the APIC ID; IA32_APIC_BASE is not touched.
    @Test func initResetsAllButIDAndBase() {
        let apic = TestAPIC(id: 9, isBootstrap: false)
        apic.write(0x80, 0x55)
        apic.write(0xD0, 0x0100_0000)
        apic.write(0x320, 0x40)
        apic.write(0x380, 1000)
        _ = apic.accept(0x80, isLevelTriggered: false)
        let fresh = TestAPIC(id: 9, isBootstrap: false, enabled: false)
        apic.chip.initialize()
        #expect(apic.chip == fresh.chip)

        apic.enterX2APIC()
        apic.chip.initialize()
        #expect(apic.chip.mode == .x2APIC)
        #expect(apic.rdmsr(0x80D) == UInt64(1 << 9))
    }

    // MARK: Bits that software cannot set

    /// [SDM3 §11.5.1] figure 11-8, [SDM3 §11.9], [SDM3 §11.6.2.2], [SDM3 §11.5.4].
    @Test(arguments: [
        (0x80, 0xFF), (0xD0, 0xFF00_0000), (0xF0, 0x13FF), (0x310, 0xFF00_0000), (0x320, 0x7_00FF),
        (0x330, 0x1_07FF), (0x340, 0x1_07FF), (0x350, 0x1_A7FF), (0x360, 0x1_A7FF), (0x370, 0x1_00FF),
        (0x380, 0xFFFF_FFFF), (0x3E0, 0xB),
    ] as [(UInt64, UInt64)])
    func reservedBitsStayClear(_ row: (UInt64, UInt64)) {
        let apic = TestAPIC()
        apic.write(row.0, 0xFFFF_FFFF)
        #expect(apic.read(row.0) == row.1)
        apic.write(row.0, 0)
        #expect(apic.read(row.0) == 0)
    }

    /// [SDM3 §11.6.2.2]: only the model's four bits can be changed.
    @Test func destinationFormatKeepsItsOnes() {
        let apic = TestAPIC()
        apic.write(0xE0, 0)
        #expect(apic.read(0xE0) == 0x0FFF_FFFF)
    }

    @Test(arguments: [0x20, 0x30, 0xA0, 0x100, 0x180, 0x200, 0x390] as [UInt64])
    func readOnlyRegistersIgnoreWrites(_ offset: UInt64) {
        let apic = TestAPIC(id: 3)
        let before = apic.read(offset)
        apic.write(offset, ~before & 0xFFFF_FFFF)
        #expect(apic.read(offset) == before)
        apic.write(0x280, 0)
        #expect(apic.read(0x280) == 0, "a read-only register is no illegal address")
    }

    // MARK: Software disable [SDM3 §11.4.7.2]

    @Test func disablingMasksEveryEntryAndKeepsThemMasked() {
        let apic = TestAPIC()
        for offset in stride(from: UInt64(0x320), through: 0x370, by: 0x10) { apic.write(offset, 0x40) }
        apic.write(0xF0, 0xFF)
        for offset in stride(from: UInt64(0x320), through: 0x370, by: 0x10) {
            #expect(apic.read(offset) == 0x10040)
            apic.write(offset, 0x41)
            #expect(apic.read(offset) == 0x10041, "the mask cannot be cleared while disabled")
        }
        apic.write(0xF0, 0x1FF)
        for offset in stride(from: UInt64(0x320), through: 0x370, by: 0x10) { #expect(apic.read(offset) == 0x10041) }
    }

    @Test func disabledTakesNoNewInterruptAndHoldsOldOnes() {
        let apic = TestAPIC()
        #expect(apic.accept(0x50, isLevelTriggered: false))
        apic.write(0xF0, 0xFF)
        #expect(!apic.accept(0x60, isLevelTriggered: false))
        #expect(!apic.isRequested(0x60))
        #expect(apic.chip.pendingVector == 0x50)
    }

    // MARK: Errors [SDM3 §11.5.3]

    @Test func errorsShowAfterAWriteAndOnlyOnce() {
        let apic = TestAPIC()
        _ = apic.read(0x10)
        #expect(apic.read(0x280) == 0, "not before software writes ESR")
        apic.write(0x280, 0)
        #expect(apic.read(0x280) == 0x80)
        apic.write(0x280, 0)
        #expect(apic.read(0x280) == 0)
    }

    @Test func errorKinds() {
        let apic = TestAPIC()
        apic.write(0x300, 0x4005)  // fixed, vector 5
        #expect(apic.effects.command == nil)
        apic.write(0x280, 0)
        #expect(apic.read(0x280) == 0x20)
        #expect(!apic.accept(0x0F, isLevelTriggered: false))
        apic.write(0x280, 0)
        #expect(apic.read(0x280) == 0x40)
        apic.write(0x3F0, 0)  // SELF IPI is x2APIC's only
        apic.write(0x2F0, 0)  // no CMCI entry
        apic.write(0x400, 0)
        apic.write(0x280, 0)
        #expect(apic.read(0x280) == 0x80)
    }

    @Test func errorInterruptOnceUntilRearmed() {
        let apic = TestAPIC()
        apic.write(0x370, 0xE1)
        _ = apic.read(0x40)
        #expect(apic.acknowledge() == 0xE1)
        apic.write(0xB0, 0)
        _ = apic.read(0x40)
        #expect(apic.chip.pendingVector == nil, "not re-armed yet")
        apic.write(0x280, 0)
        _ = apic.read(0x40)
        #expect(apic.chip.pendingVector == 0xE1)
    }

    @Test func errorEntryWithAnIllegalVectorIsNoLoop() {
        let apic = TestAPIC()
        apic.write(0x370, 0x05)
        _ = apic.read(0x40)
        apic.write(0x280, 0)
        #expect(apic.read(0x280) == 0xC0)
        #expect(apic.chip.pendingVector == nil)
    }

    // MARK: Accesses of every width [SDM3 §11.4.1]

    @Test func narrowAndWideReadsGiveTheRegistersBytes() {
        let apic = TestAPIC(id: 0xAB)
        #expect(apic.read(0x23, .byte) == 0xAB)
        #expect(apic.read(0x22, .word) == 0xAB00)
        #expect(apic.read(0x20, .quad) == 0xAB00_0000)
        #expect(apic.read(0x24, .long) == 0)
        #expect(apic.read(0x2C, .quad) == 0x0105_0014 << 32, "the next register's bytes")
        #expect(apic.read(0x2F, .word) == 0x1400)
        #expect(apic.read(0xFFF, .quad) == 0)
    }

    @Test func onlyAlignedLongWritesCount() {
        let apic = TestAPIC()
        for (offset, width) in [(0x80, .byte), (0x80, .word), (0x80, .quad), (0x81, .long), (0x84, .long)] as [(UInt64, AccessWidth)] {
            apic.write(offset, 0x70, width)
            #expect(apic.read(0x80) == 0)
        }
        apic.write(0x80, 0x70)
        #expect(apic.read(0x80) == 0x70)
    }

    // MARK: IA32_APIC_BASE [SDM3 §11.12.5]

    @Test func transitions() {
        let apic = TestAPIC()
        #expect(!apic.wrmsr(0x1B, 0xFEE0_0500), "EXTD without EN")
        #expect(apic.wrmsr(0x1B, 0xFEE0_0D00))
        #expect(apic.chip.mode == .x2APIC)
        #expect(!apic.wrmsr(0x1B, 0xFEE0_0900), "x2APIC to xAPIC")
        #expect(!apic.wrmsr(0x1B, 0xFEE0_0500))
        #expect(apic.wrmsr(0x1B, 0xFEE0_0100))
        #expect(apic.chip.mode == .disabled)
        #expect(!apic.wrmsr(0x1B, 0xFEE0_0D00), "disabled to x2APIC")
        #expect(apic.wrmsr(0x1B, 0xFEE0_0900))
        #expect(apic.chip.mode == .xAPIC)
        #expect(apic.read(0xF0) == 0xFF, "as after power-up")
    }

    @Test(arguments: [1, 1 << 7, 1 << 9, 1 << 40, 1 << 63] as [UInt64])
    func reservedBaseBitsFault(_ bit: UInt64) {
        let apic = TestAPIC()
        let before = apic.chip
        #expect(!apic.wrmsr(0x1B, 0xFEE0_0900 | bit))
        #expect(apic.chip == before)
    }

    @Test func thePageMovesAndGoes() {
        let apic = TestAPIC()
        #expect(apic.chip.registerPage == 0xFEE0_0000)
        #expect(apic.wrmsr(0x1B, 0x12_3456_7900))
        #expect(apic.chip.registerPage == 0x12_3456_7000)
        #expect(apic.wrmsr(0x1B, 0x12_3456_7D00))
        #expect(apic.chip.registerPage == nil)
        #expect(apic.read(0x30) == 0)
        #expect(apic.rdmsr(0x1B) == 0x12_3456_7D00)
    }

    /// [SDM3 §11.12.5.1]: state is kept, the logical ID becomes the x2APIC one.
    @Test func enteringX2APICModeKeepsState() {
        let apic = TestAPIC(id: 0x25)
        apic.write(0x80, 0x30)
        apic.write(0xD0, 0x0400_0000)
        apic.write(0x370, 0xE1)
        _ = apic.accept(0x80, isLevelTriggered: true)
        apic.enterX2APIC()
        #expect(apic.rdmsr(0x808) == 0x30)
        #expect(apic.rdmsr(0x837) == 0xE1)
        #expect(apic.rdmsr(0x824) == 1)
        #expect(apic.rdmsr(0x80F) == 0x1FF)
        #expect(apic.rdmsr(0x802) == 0x25)
        #expect(apic.rdmsr(0x80D) == 0x0002_0020)
    }
}

/// The model-specific registers of x2APIC mode.
@Suite struct LocalAPICx2APICTests {
    private let apic = TestAPIC()
    init() { apic.enterX2APIC() }

    /// [SDM3 §11.12.1.2] table 11-6: everything that can be read, and nothing else.
    @Test func readableRegisters() {
        let apic = apic.copy()
        var readable: Set<UInt32> = [0x802, 0x803, 0x808, 0x80A, 0x80D, 0x80F, 0x828, 0x830, 0x838, 0x839, 0x83E]
        readable.formUnion(0x810...0x827)
        readable.formUnion(0x832...0x837)
        for index in LocalAPIC.registerMSRs { #expect((apic.rdmsr(index) != nil) == readable.contains(index), "\(index)") }
    }

    /// [SDM3 §11.12.1.2] table 11-6: everything that zero can be written to.
    @Test func writableRegisters() {
        let writable: Set<UInt32> = [
            0x808, 0x80B, 0x80F, 0x828, 0x830, 0x832, 0x833, 0x834, 0x835, 0x836, 0x837, 0x838, 0x83E, 0x83F,
        ]
        for index in LocalAPIC.registerMSRs {
            let apic = apic.copy()
            #expect(apic.wrmsr(index, 0) == writable.contains(index), "\(index)")
        }
    }

    /// [SDM3 §11.12.1.3]: each reserved bit faults, and nothing changes.
    @Test(arguments: [
        (0x808, 0xFF), (0x80B, 0), (0x80F, 0x13FF), (0x828, 0), (0x830, 0xFFFF_FFFF_000C_DFFF),
        (0x832, 0x7_10FF), (0x833, 0x1_17FF), (0x834, 0x1_17FF), (0x835, 0x1_F7FF), (0x836, 0x1_F7FF),
        (0x837, 0x1_10FF), (0x838, 0xFFFF_FFFF), (0x83E, 0xB), (0x83F, 0xFF),
    ] as [(UInt32, UInt64)])
    func reservedBitsFault(_ row: (UInt32, UInt64)) {
        for bit in 0..<64 as Range<UInt64> {
            let apic = apic.copy()
            let before = apic.chip
            let isLegal = row.1 >> bit & 1 != 0
            #expect(apic.wrmsr(row.0, 1 << bit) == isLegal, "bit \(bit)")
            if !isLegal { #expect(apic.chip == before) }
        }
    }

    @Test func nothingOutsideX2APICMode() {
        let apic = TestAPIC()
        for index in LocalAPIC.registerMSRs {
            #expect(apic.rdmsr(index) == nil)
            #expect(!apic.wrmsr(index, 0))
        }
    }

    /// [SDM3 §11.12.9]: one 64-bit write, with a 32-bit destination.
    @Test func interruptCommand() {
        let apic = apic.copy()
        #expect(apic.wrmsr(0x830, 0x1234_5678_0000_4041))
        #expect(apic.effects.command == InterruptCommand(vector: 0x41, destination: 0x1234_5678))
        #expect(apic.rdmsr(0x830) == 0x1234_5678_0000_4041)
        #expect(apic.wrmsr(0x830, 0xFF_0000_4041))
        #expect(apic.effects.command?.isBroadcast == false)
        #expect(apic.wrmsr(0x830, 0xFFFF_FFFF_0000_4841))
        #expect(apic.effects.command?.isBroadcast == true)
    }

    /// [SDM3 §11.12.11].
    @Test func selfIPI() {
        let apic = apic.copy()
        #expect(apic.wrmsr(0x83F, 0x77))
        #expect(apic.effects.command == InterruptCommand(vector: 0x77, shorthand: .toSelf))
        #expect(apic.wrmsr(0x83F, 0x0F))
        #expect(apic.effects.command == nil)
        #expect(apic.wrmsr(0x828, 0))
        #expect(apic.rdmsr(0x828) == 0x20)
    }
}
