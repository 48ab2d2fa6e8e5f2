import Devices
import Testing
import VMCore
import MonitorTesting

/// A chip after ICW1-4.
private func initialized(icw1: UInt8 = 0x11, base: UInt8 = 0x20, icw3: UInt8 = 4, icw4: UInt8 = 1) -> PIC8259 {
    var chip = PIC8259()
    chip.write(icw1, address: false)
    chip.write(base, address: true)
    if icw1 & 2 == 0 { chip.write(icw3, address: true) }
    if icw1 & 1 != 0 { chip.write(icw4, address: true) }
    return chip
}

private func raise(_ chip: inout PIC8259, _ inputs: UInt8...) {
    for input in inputs {
        chip.setInput(input, false)
        chip.setInput(input, true)
    }
}

private func isr(_ chip: inout PIC8259) -> UInt8 {
    chip.write(0x0B, address: false)
    return chip.read(address: false)
}

@Suite struct PIC8259Tests {
    @Test func fullyNestedInOrderOfNumbers() {
        var chip = initialized()
        raise(&chip, 5, 3)
        #expect(chip.output)
        #expect(chip.acknowledge().vector == 0x23)
        #expect(!chip.output, "5 must wait for 3")
        raise(&chip, 1)
        #expect(chip.acknowledge().vector == 0x21)
        #expect(isr(&chip) == 0b1010)
        raise(&chip, 1)
        #expect(!chip.output, "the same level again must wait too")
        chip.write(0x20, address: false)
        #expect(isr(&chip) == 0b1000)
        #expect(chip.acknowledge().vector == 0x21)
        chip.write(0x20, address: false)
        chip.write(0x20, address: false)
        #expect(chip.acknowledge().vector == 0x25)
        chip.write(0x65, address: false)
        #expect(isr(&chip) == 0)
    }

    @Test func silentUntilInitialized() {
        var chip = PIC8259()
        raise(&chip, 0)
        #expect(!chip.output)
        #expect(chip.acknowledge().isSpurious)
        chip = initialized()
        #expect(!chip.output)
    }

    /// On a slave ICW3 is its own number, not a set of inputs.
    @Test func aSlaveHasNoSlaves() {
        var chip = PIC8259(isMaster: false)
        for (value, address): (UInt8, Bool) in [(0x11, false), (0x28, true), (2, true), (0x11, true)] {
            chip.write(value, address: address)
        }
        raise(&chip, 1)
        _ = chip.acknowledge()
        raise(&chip, 1)
        #expect(!chip.output)
    }

    @Test func maskAndRegisters() {
        var chip = initialized()
        chip.write(0xFB, address: true)
        #expect(chip.read(address: true) == 0xFB)
        raise(&chip, 1)
        #expect(!chip.output)
        chip.write(0x0A, address: false)
        #expect(chip.read(address: false) == 2)
        chip.write(0, address: true)
        #expect(chip.output)
    }

    @Test func initializationForgets() {
        var chip = initialized()
        raise(&chip, 0, 1)
        _ = chip.acknowledge()
        chip.write(0xFF, address: true)
        chip.write(0x13, address: false)  // single: no ICW3
        chip.write(0x47, address: true)
        chip.write(0x01, address: true)
        #expect(chip.imr == 0 && chip.isr == 0 && chip.irr == 0)
        #expect(!chip.output, "an input that stayed high must fall and rise again")
        chip.write(0xAA, address: true)
        #expect(chip.imr == 0xAA)
        raise(&chip, 2)
        #expect(chip.acknowledge().vector == 0x42)
    }

    @Test func spuriousWhenTheRequestWentAway() {
        var chip = initialized()
        chip.writeELCR(0x20)
        chip.setInput(5, true)
        #expect(chip.output)
        chip.setInput(5, false)
        #expect(!chip.output)
        let (input, vector, isSpurious) = chip.acknowledge()
        #expect(input == 7 && vector == 0x27 && isSpurious)
        #expect(chip.isr == 0)
    }

    @Test func levelInputsInterruptUntilReleased() {
        var chip = initialized()
        chip.writeELCR(0x08)
        chip.setInput(3, true)
        for _ in 0..<3 {
            #expect(chip.acknowledge().vector == 0x23)
            #expect(!chip.output)
            chip.write(0x20, address: false)
            #expect(chip.output)
        }
        chip.setInput(3, false)
        #expect(!chip.output)
        // LTIM does it for all.
        chip = initialized(icw1: 0x19)
        chip.setInput(6, true)
        _ = chip.acknowledge()
        chip.write(0x20, address: false)
        #expect(chip.output)
    }

    @Test func edgesInterruptOnce() {
        var chip = initialized()
        chip.setInput(3, true)
        chip.setInput(3, true)
        _ = chip.acknowledge()
        chip.write(0x20, address: false)
        #expect(!chip.output)
        // A bare pulse is enough, and two of them before the acknowledge are one.
        raise(&chip, 3, 3)
        chip.setInput(3, false)
        #expect(chip.acknowledge().vector == 0x23)
        chip.write(0x20, address: false)
        #expect(!chip.output)
    }

    @Test func rotation() {
        var chip = initialized()
        raise(&chip, 2, 4)
        #expect(chip.acknowledge().input == 2)
        chip.write(0xA0, address: false)  // rotate on non-specific EOI: 2 is lowest now
        raise(&chip, 2)
        #expect(chip.acknowledge().input == 4)
        chip.write(0xE4, address: false)  // rotate on specific EOI
        raise(&chip, 4, 5)
        #expect(chip.acknowledge().input == 5)
        chip.write(0x20, address: false)
        #expect(chip.acknowledge().input == 2)
        chip.write(0x20, address: false)
        #expect(chip.acknowledge().input == 4)
        chip.write(0x20, address: false)
        chip.write(0xC7, address: false)  // set priority: 7 lowest
        raise(&chip, 0, 7)
        #expect(chip.acknowledge().input == 0)
    }

    @Test func everyRotationPutsEveryInputInItsPlace() {
        for lowest in UInt8(0)..<8 {
            var chip = initialized()
            chip.write(0xC0 | lowest, address: false)
            raise(&chip, 0, 1, 2, 3, 4, 5, 6, 7)
            for step in UInt8(1)...8 {
                #expect(chip.acknowledge().input == (lowest + step) & 7)
                chip.write(0x20, address: false)
            }
            #expect(!chip.output)
        }
    }

    @Test func automaticEOIAndItsRotation() {
        var chip = initialized(icw4: 3)
        raise(&chip, 1, 2)
        #expect(chip.acknowledge().input == 1)
        #expect(chip.isr == 0)
        chip.write(0x80, address: false)
        raise(&chip, 1)
        #expect(chip.acknowledge().input == 1)
        raise(&chip, 1)
        #expect(chip.acknowledge().input == 2, "1 went to the end of the line")
        chip.write(0x00, address: false)
    }

    @Test func specialMaskModeLetsLowerOnesThrough() {
        var chip = initialized()
        raise(&chip, 2)
        _ = chip.acknowledge()
        raise(&chip, 6)
        #expect(!chip.output)
        chip.write(0x04, address: true)
        #expect(!chip.output)
        chip.write(0x68, address: false)
        #expect(chip.acknowledge().input == 6)
        // A non-specific EOI passes over the masked level in service.
        chip.write(0x20, address: false)
        #expect(chip.isr == 0x04)
        chip.write(0x20, address: false)
        #expect(chip.isr == 0x04)
        chip.write(0x62, address: false)
        #expect(chip.isr == 0)
        chip.write(0x48, address: false)
    }

    @Test func poll() {
        var chip = initialized()
        chip.write(0x0C, address: false)
        #expect(chip.read(address: false) & 0x80 == 0)
        raise(&chip, 4)
        chip.write(0x0C, address: false)
        #expect(chip.read(address: true) == 0x84)
        #expect(chip.isr == 0x10)
        #expect(chip.read(address: true) == 0)
    }

    @Test func specialFullyNestedAdmitsTheSlaveAgainAndNothingLower() {
        var chip = initialized(icw4: 0x11)
        chip.setCascadeInput(2, true)
        #expect(chip.acknowledge().input == 2)
        chip.setCascadeInput(2, false)
        raise(&chip, 5)
        #expect(!chip.output)
        chip.setCascadeInput(2, true)
        #expect(chip.output)
        #expect(chip.acknowledge().input == 2)
        chip = initialized()
        chip.setCascadeInput(2, true)
        _ = chip.acknowledge()
        chip.setCascadeInput(2, false)
        chip.setCascadeInput(2, true)
        #expect(!chip.output)
    }
}

@Suite struct InterruptControllerPairTests {
    let intr = RecordingLine()
    let pair: InterruptControllerPair

    init() {
        pair = InterruptControllerPair(intr: intr)
        // As Linux does, then everything unmasked.
        for (device, bytes): (any BusDevice, [(UInt64, UInt64)]) in [
            (pair.master, [(0, 0x11), (1, 0x30), (1, 4), (1, 1), (1, 0)]),
            (pair.slave, [(0, 0x11), (1, 0x38), (1, 2), (1, 1), (1, 0)]),
        ] {
            for (offset, value) in bytes { device.write(offset: offset, width: .byte, value: value) }
        }
    }

    @Test func bothChipsVectors() {
        for irq in UInt32(0)..<16 where irq != 2 {
            pair.line(irq: irq).pulse()
            #expect(pair.isPending && intr.isHigh)
            #expect(pair.acknowledge() == 0x30 + UInt8(irq))
            #expect(!pair.isPending && !intr.isHigh)
            if irq >= 8 { pair.slave.write(offset: 0, width: .byte, value: 0x20) }
            pair.master.write(offset: 0, width: .byte, value: 0x20)
        }
    }

    @Test func theSlavesSecondRequestComesAfterItsFirst() {
        pair.line(irq: 12).pulse()
        pair.line(irq: 9).pulse()
        pair.line(irq: 5).pulse()
        #expect(pair.acknowledge() == 0x39)
        #expect(!pair.isPending)
        pair.slave.write(offset: 0, width: .byte, value: 0x20)
        pair.master.write(offset: 0, width: .byte, value: 0x20)
        #expect(pair.acknowledge() == 0x3C)
        pair.slave.write(offset: 0, width: .byte, value: 0x20)
        pair.master.write(offset: 0, width: .byte, value: 0x20)
        #expect(pair.acknowledge() == 0x35)
    }

    @Test func withdrawnRequestsAreSpurious() {
        pair.edgeLevelControl.write(offset: 1, width: .byte, value: 0x08)
        let line = pair.line(irq: 11)
        line.setLevel(true)
        #expect(pair.isPending)
        line.setLevel(false)
        #expect(!pair.isPending)
        #expect(pair.acknowledge() == 0x37)
        #expect(pair.master.read(offset: 0, width: .byte) == 0)
    }

    @Test func edgeLevelControlKeepsFixedBits() {
        for offset: UInt64 in [0, 1] { pair.edgeLevelControl.write(offset: offset, width: .byte, value: 0xFF) }
        #expect(pair.edgeLevelControl.read(offset: 0, width: .byte) == 0xF8)
        #expect(pair.edgeLevelControl.read(offset: 1, width: .byte) == 0xDE)
    }

    @Test func cascadeAndAbsentLinesGoNowhere() {
        for irq: UInt32 in [2, 16, 255, .max] { pair.line(irq: irq).setLevel(true) }
        #expect(!pair.isPending)
    }

    @Test func hostileAccesses() {
        for seed in UInt64(1)...10 {
            var random = SeededGenerator(seed: seed)
            let devices: [any BusDevice] = [pair.master, pair.slave, pair.edgeLevelControl]
            for _ in 0..<5000 {
                let device = devices.randomElement(using: &random) ?? pair.master
                let width = AccessWidth.allCases.randomElement(using: &random) ?? .byte
                let offset = UInt64.random(in: 0...3, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: _ = device.read(offset: offset, width: width)
                case 1: device.write(offset: offset, width: width, value: .random(in: 0...(.max), using: &random))
                case 2: pair.line(irq: .random(in: 0...17, using: &random)).setLevel(.random(using: &random))
                default: _ = pair.acknowledge()
                }
                #expect(pair.isPending == intr.isHigh, "seed \(seed)")
            }
        }
    }
}
