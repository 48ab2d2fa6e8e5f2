import SoftCPU
import Testing
import VMCore

/// Priorities, acceptance, EOI, pins and destinations of one local APIC.
@Suite struct LocalAPICInterruptTests {
    private let apic = TestAPIC()

    // MARK: Priorities [SDM3 §11.8.3.1]

    /// PPR is TPR where its class is at least ISRV's, else ISRV's class with 0 below: every pair.
    @Test func processorPriorityOfEveryPair() {
        for service in stride(from: 16, through: 255, by: 7) {
            let apic = apic.copy()
            _ = apic.accept(UInt8(service), isLevelTriggered: false)
            #expect(apic.acknowledge() == UInt8(service))
            for task in 0...255 as ClosedRange<UInt64> {
                apic.write(0x80, task)
                let expected = task >> 4 >= UInt64(service) >> 4 ? task : UInt64(service) & 0xF0
                #expect(apic.read(0xA0) == expected)
            }
        }
    }

    /// Only a class above the processor's is delivered.
    @Test func deliversOnlyAHigherClass() {
        let apic = apic.copy()
        _ = apic.accept(0x5F, isLevelTriggered: false)
        apic.write(0x80, 0x50)
        #expect(apic.chip.pendingVector == nil)
        apic.write(0x80, 0x4F)
        #expect(apic.chip.pendingVector == 0x5F)
    }

    @Test func nesting() {
        let apic = apic.copy()
        for vector in [0x31, 0x52, 0x5A] as [UInt8] { _ = apic.accept(vector, isLevelTriggered: false) }
        #expect(apic.acknowledge() == 0x5A)
        #expect(apic.chip.pendingVector == nil, "the same class waits")
        _ = apic.accept(0x80, isLevelTriggered: false)
        #expect(apic.acknowledge() == 0x80)
        apic.write(0xB0, 0)
        #expect(apic.isInService(0x5A) && !apic.isInService(0x80))
        apic.write(0xB0, 0)
        #expect(apic.acknowledge() == 0x52)
        apic.write(0xB0, 0)
        #expect(apic.acknowledge() == 0x31)
    }

    /// [SDM3 §11.8.6]: CR8 is TPR's class.
    @Test func cr8() {
        let apic = apic.copy()
        apic.write(0x80, 0x9C)
        #expect(apic.chip.cr8 == 9)
        apic.chip.cr8 = 0xF
        #expect(apic.read(0x80) == 0xF0)
    }

    /// [SDM3 §11.9]: the spurious vector is in no register and needs no EOI.
    @Test func spuriousVector() {
        let apic = apic.copy()
        apic.write(0xF0, 0x1EF)
        let before = apic.chip
        #expect(apic.acknowledge() == 0xEF)
        #expect(apic.chip == before)
    }

    // MARK: Acceptance [SDM3 §11.8.4]

    @Test func oneRequestAndOneInService() {
        let apic = apic.copy()
        _ = apic.accept(0x66, isLevelTriggered: false)
        _ = apic.accept(0x66, isLevelTriggered: false)
        #expect(apic.acknowledge() == 0x66)
        #expect(!apic.isRequested(0x66))
        _ = apic.accept(0x66, isLevelTriggered: false)
        #expect(apic.isRequested(0x66) && apic.isInService(0x66))
        #expect(apic.chip.pendingVector == nil)
        apic.write(0xB0, 0)
        #expect(apic.acknowledge() == 0x66)
    }

    @Test func triggerModeFollowsTheLastArrival() {
        let apic = apic.copy()
        _ = apic.accept(0x66, isLevelTriggered: true)
        #expect(apic.isLevel(0x66))
        _ = apic.accept(0x66, isLevelTriggered: false)
        #expect(!apic.isLevel(0x66))
    }

    /// Every vector goes through the registers it belongs in.
    @Test func everyVector() {
        for vector in UInt8(16)...255 {
            let apic = apic.copy()
            #expect(apic.accept(vector, isLevelTriggered: true))
            #expect(apic.isRequested(vector) && apic.isLevel(vector) && !apic.isInService(vector))
            #expect(apic.acknowledge() == vector)
            #expect(!apic.isRequested(vector) && apic.isInService(vector))
            apic.write(0xB0, 0)
            #expect(apic.effects.endOfInterrupt == vector)
            #expect(!apic.isInService(vector))
        }
        for vector in UInt8(0)..<16 {
            let apic = apic.copy()
            #expect(!apic.accept(vector, isLevelTriggered: true))
        }
    }

    // MARK: EOI [SDM3 §11.8.5]

    @Test func edgesAreNotBroadcast() {
        let apic = apic.copy()
        _ = apic.accept(0x66, isLevelTriggered: false)
        _ = apic.acknowledge()
        apic.write(0xB0, 0)
        #expect(apic.effects.endOfInterrupt == nil)
        apic.write(0xB0, 0)
        #expect(apic.effects.endOfInterrupt == nil, "nothing is in service")
    }

    /// SVR bit 12. [SDM3 §11.8.5].
    @Test func broadcastSuppressed() {
        let apic = apic.copy()
        apic.write(0xF0, 0x11FF)
        _ = apic.accept(0x66, isLevelTriggered: true)
        _ = apic.acknowledge()
        apic.write(0xB0, 0)
        #expect(apic.effects.endOfInterrupt == nil)
        #expect(!apic.isInService(0x66))
    }

    // MARK: Pins [SDM3 §11.5.1]

    private func pin(_ number: UInt8, _ level: Bool, _ apic: TestAPIC) {
        apic.effects = LocalAPIC.Effects()
        apic.chip.setPin(number, asserted: level, &apic.effects)
    }

    @Test func virtualWire() {
        var chip = LocalAPIC(id: 0, isBootstrap: true)
        #expect(!chip.acceptsExternalInterrupts, "masked after power-up")
        chip.setVirtualWire()
        #expect(chip.acceptsExternalInterrupts)
        var effects = LocalAPIC.Effects()
        chip.setPin(1, asserted: true, &effects)
        #expect(effects.raisesNMI)
    }

    @Test func externalInterruptsPassAnAPICThatIsOff() {
        let apic = apic.copy()
        #expect(!apic.chip.acceptsExternalInterrupts)
        apic.write(0x350, 0x700)
        #expect(apic.chip.acceptsExternalInterrupts)
        apic.write(0x350, 0x1_0700)
        #expect(!apic.chip.acceptsExternalInterrupts)
        #expect(apic.wrmsr(0x1B, 0xFEE0_0100))
        #expect(apic.chip.acceptsExternalInterrupts)
    }

    @Test func edgePins() {
        let apic = apic.copy()
        apic.write(0x350, 0x51)
        apic.write(0x360, 0x400)
        pin(0, true, apic)
        #expect(apic.acknowledge() == 0x51)
        apic.write(0xB0, 0)
        pin(0, true, apic)
        #expect(apic.chip.pendingVector == nil, "still high: no edge")
        pin(0, false, apic)
        pin(0, true, apic)
        #expect(apic.chip.pendingVector == 0x51)
        pin(1, true, apic)
        #expect(apic.effects.raisesNMI)
        pin(1, true, apic)
        #expect(!apic.effects.raisesNMI)
    }

    /// A level sets remote IRR; each EOI delivers it again while the pin is high.
    @Test func levelPin() {
        let apic = apic.copy()
        apic.write(0x350, 0x8051)
        pin(0, true, apic)
        #expect(apic.read(0x350) == 0xC051)
        #expect(apic.acknowledge() == 0x51)
        #expect(apic.chip.pendingVector == nil)
        apic.write(0xB0, 0)
        #expect(apic.acknowledge() == 0x51)
        pin(0, false, apic)
        apic.write(0xB0, 0)
        #expect(apic.chip.pendingVector == nil)
        #expect(apic.read(0x350) == 0x8051)
    }

    // MARK: ICR [SDM3 §11.6.1]

    @Test func commandsOfTheXAPIC() {
        let apic = apic.copy()
        apic.write(0x310, 0x0300_0000)
        apic.write(0x300, 0x4041)
        #expect(apic.effects.command == InterruptCommand(vector: 0x41, destination: 3))
        #expect(apic.read(0x300) == 0x4041, "delivery status reads idle")
        apic.write(0x300, 0x4941)
        #expect(
            apic.effects.command
                == InterruptCommand(vector: 0x41, deliveryMode: .lowestPriority, isLogical: true, destination: 3))
        apic.write(0x300, 0xC4041)
        #expect(apic.effects.command?.shorthand == .allButSelf)
        apic.write(0x310, 0xFF00_0000)
        apic.write(0x300, 0x4041)
        #expect(apic.effects.command?.isBroadcast == true)
        apic.write(0x300, 0x4500)
        #expect(apic.effects.command?.deliveryMode == .initialize)
        apic.write(0x300, 0x4608)
        #expect(apic.effects.command?.deliveryMode == .startup)
        apic.write(0x300, 0x4400)
        #expect(apic.effects.command?.deliveryMode == .nmi, "NMI has no vector to be illegal")
    }

    /// INIT level de-assert, and the reserved delivery mode, go nowhere.
    @Test func commandsThatGoNowhere() {
        let apic = apic.copy()
        apic.write(0x300, 0x8500)
        #expect(apic.effects.command == nil)
        apic.write(0x300, 0x4341)
        #expect(apic.effects.command == nil)
        apic.write(0x300, 0xC041)
        #expect(apic.effects.command?.isLevelTriggered == false, "the trigger mode is INIT's alone")
    }

    /// Any 64 bits: at most one command, and no trap.
    @Test func anyCommand() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<20_000 {
            let apic = apic.copy()
            apic.write(0x310, UInt64.random(in: 0...0xFFFF_FFFF, using: &random))
            apic.write(0x300, UInt64.random(in: 0...0xFFFF_FFFF, using: &random))
            if let command = apic.effects.command { _ = apic.chip.matches(command) }
            apic.enterX2APIC()
            if apic.wrmsr(0x830, .random(in: 0 ... .max, using: &random)), let command = apic.effects.command {
                _ = apic.chip.matches(command)
            }
        }
    }

    // MARK: Destinations [SDM3 §11.6.2]

    private func matches(
        _ destination: UInt32, logical: Bool, ldr: UInt64 = 0, dfr: UInt64 = 0xFFFF_FFFF, id: UInt32 = 0
    ) -> Bool {
        let apic = TestAPIC(id: id)
        apic.write(0xD0, ldr << 24)
        apic.write(0xE0, dfr)
        return apic.chip.matches(
            InterruptCommand(vector: 0x40, isLogical: logical, destination: destination, isBroadcast: destination == 0xFF))
    }

    @Test func physical() {
        for id in UInt32(0)..<255 {
            for destination in UInt32(0)..<255 where destination != id { #expect(!matches(destination, logical: false, id: id)) }
            #expect(matches(id, logical: false, id: id))
            #expect(matches(0xFF, logical: false, id: id), "broadcast")
        }
    }

    @Test func flatModel() {
        for ldr in UInt64(0)..<256 {
            for destination in UInt32(0)..<255 {
                #expect(matches(destination, logical: true, ldr: ldr) == (destination & UInt32(ldr) != 0))
            }
            #expect(matches(0xFF, logical: true, ldr: ldr), "broadcast")
        }
    }

    @Test func clusterModel() {
        for ldr in UInt64(0)..<256 {
            for destination in UInt32(0)..<255 {
                let expected = destination >> 4 == UInt32(ldr) >> 4 && destination & UInt32(ldr) & 0xF != 0
                #expect(matches(destination, logical: true, ldr: ldr, dfr: 0x0FFF_FFFF) == expected)
            }
        }
        #expect(!matches(0x11, logical: true, ldr: 0x11, dfr: 0x5FFF_FFFF), "a model that there is not")
    }

    /// [SDM3 §11.12.10.1], [SDM3 §11.12.10.2].
    @Test func x2APICLogical() {
        for id in [0, 1, 15, 16, 0x25, 0xFE] as [UInt32] {
            let apic = TestAPIC(id: id)
            apic.enterX2APIC()
            for cluster in UInt32(0)..<17 {
                for bit in UInt32(0)..<16 {
                    let command = InterruptCommand(vector: 0x40, isLogical: true, destination: cluster << 16 | 1 << bit)
                    #expect(apic.chip.matches(command) == (id == cluster << 4 | bit))
                }
            }
        }
    }

    @Test func disabledMatchesNothing() {
        let apic = apic.copy()
        #expect(apic.wrmsr(0x1B, 0xFEE0_0100))
        #expect(!apic.chip.matches(InterruptCommand(vector: 0x40, destination: 0)))
        #expect(!apic.chip.matches(InterruptCommand(vector: 0x40, isBroadcast: true)))
        #expect(!apic.accept(0x40, isLevelTriggered: false))
    }

    // MARK: Messages [SDM3 §11.11]

    @Test func messages() {
        func command(_ address: UInt64, _ data: UInt32) -> InterruptCommand? {
            InterruptCommand(InterruptMessage(address: address, data: data))
        }
        #expect(command(0xFEE0_3000, 0x41) == InterruptCommand(vector: 0x41, destination: 3))
        #expect(
            command(0xFEE0_3004, 0xC141)
                == InterruptCommand(
                    vector: 0x41, deliveryMode: .lowestPriority, isLogical: true, isLevelTriggered: true, destination: 3))
        #expect(command(0xFEEF_F000, 0x41)?.isBroadcast == true)
        #expect(command(0xFEE0_3020, 0x41)?.destination == 0x103)
        #expect(command(0xFEE0_3000, 0x8041)?.isLevelTriggered == true, "the assert bit is not looked at, as under KVM")
        #expect(command(0xFEE0_3000, 0x8500) == nil, "INIT level de-assert")
        #expect(command(0xFED0_3000, 0x41) == nil)
        #expect(command(0x1_FEE0_3000, 0x41) == nil)
    }
}
