import Testing

@testable import Devices

private typealias UART = UART16550

/// Reads and writes by the datasheet's names.
extension UART16550 {
    fileprivate mutating func rbr() -> UInt8 { read(register: 0) }
    fileprivate mutating func iir() -> UInt8 { read(register: 2) & 0x0F }
    fileprivate mutating func lsr() -> UInt8 { read(register: 5) }
    fileprivate mutating func msr() -> UInt8 { read(register: 6) }
    fileprivate mutating func thr(_ value: UInt8) { write(value, register: 0) }
    fileprivate mutating func ier(_ value: UInt8) { write(value, register: 1) }
    fileprivate mutating func fcr(_ value: UInt8) { write(value, register: 2) }
    fileprivate mutating func lcr(_ value: UInt8) { write(value, register: 3) }
    fileprivate mutating func mcr(_ value: UInt8) { write(value, register: 4) }
}

@Suite struct UART16550Tests {
    @Test func resetValues() {
        var chip = UART()
        #expect(chip.read(register: 1) == 0)
        #expect(chip.read(register: 2) == 0x01)
        #expect(chip.read(register: 3) == 0)
        #expect(chip.read(register: 4) == 0)
        #expect(chip.read(register: 5) == 0x60)
        #expect(chip.read(register: 6) == 0xB0)
        #expect(!chip.interrupt)
    }

    @Test func registersKeepTheBitsTheyHave() {
        var chip = UART()
        for value in UInt8.min ... .max {
            chip.write(value, register: 7)
            #expect(chip.read(register: 7) == value)
            chip.write(value, register: 3)
            #expect(chip.read(register: 3) == value)
            chip.lcr(0)
            chip.ier(value)
            #expect(chip.read(register: 1) == value & 0x0F)
            chip.mcr(value)
            #expect(chip.read(register: 4) == value & 0x1F)
        }
        chip.write(0xFF, register: 5)
        #expect(chip.lsr() == 0x60, "LSR is read-only")
    }

    @Test func divisorLatchIsBehindDLAB() {
        var chip = UART()
        chip.ier(0x05)
        chip.lcr(0x83)
        chip.write(0x34, register: 0)
        chip.write(0x12, register: 1)
        #expect(chip.read(register: 0) == 0x34)
        #expect(chip.read(register: 1) == 0x12)
        #expect(chip.transmitCount == 0)
        chip.lcr(0x03)
        #expect(chip.read(register: 1) == 0x05)
    }

    // MARK: Transmitter

    @Test func characterModeHoldsOne() {
        var chip = UART()
        chip.thr(1)
        #expect(chip.lsr() & 0x60 == 0)
        chip.thr(2)
        #expect(chip.transmitCount == 1)
        #expect(chip.transmitCharacter(at: 0) == 2, "the holding register is overwritten")
        chip.transmitted(1)
        #expect(chip.lsr() & 0x60 == 0x60)
    }

    @Test func fifoModeHoldsSixteen() {
        var chip = UART()
        chip.fcr(1)
        for value in 0..<20 { chip.thr(UInt8(value)) }
        #expect(chip.transmitCount == 16)
        #expect((0..<16).map { chip.transmitCharacter(at: $0) } == Array(0..<16))
        chip.transmitted(15)
        #expect(chip.lsr() & 0x60 == 0, "THRE means the FIFO is empty")
        chip.transmitted(1)
        #expect(chip.lsr() & 0x60 == 0x60)
        chip.transmitted(1)
        #expect(chip.transmitCharacter(at: 0) == 0)
        #expect(chip.transmitCharacter(at: -1) == 0)
    }

    @Test func transmitterInterrupt() {
        var chip = UART()
        chip.mcr(0x08)
        chip.ier(0x02)
        #expect(chip.interrupt, "enabling it with an empty transmitter asks at once")
        #expect(chip.iir() == 0x02)
        #expect(!chip.interrupt, "reading IIR acknowledges it")
        #expect(chip.iir() == 0x01)
        chip.thr(0x41)
        #expect(!chip.interrupt)
        chip.transmitted(1)
        #expect(chip.interrupt)
        chip.thr(0x42)
        #expect(!chip.interrupt, "so does writing THR")
        chip.transmitted(1)
        chip.ier(0)
        #expect(!chip.interrupt)
        chip.ier(0x02)
        #expect(chip.interrupt)
        #expect(chip.iir() == 0x02)
        chip.ier(0x02)
        #expect(!chip.interrupt, "only the enabling asks, not the enabled")
    }

    // MARK: Receiver

    @Test func receivedDataInterruptInCharacterMode() {
        var chip = UART()
        chip.mcr(0x08)
        chip.ier(0x01)
        #expect(chip.receiveRoom == 1)
        chip.receive(0x61)
        #expect(chip.receiveRoom == 0)
        #expect(chip.interrupt)
        #expect(chip.iir() == 0x04)
        #expect(chip.iir() == 0x04, "only reading RBR ends it")
        #expect(chip.lsr() == 0x61)
        #expect(chip.rbr() == 0x61)
        #expect(!chip.interrupt)
        #expect(chip.lsr() == 0x60)
    }

    @Test(arguments: [(UInt8(0x01), 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
    func triggerLevels(fcr: UInt8, level: Int) {
        var chip = UART()
        chip.fcr(fcr)
        chip.ier(0x01)
        for count in 1...16 {
            chip.receive(UInt8(count))
            #expect(chip.iir() == (count >= level ? 0x04 : 0x0C))
        }
        for count in (0..<16).reversed() {
            #expect(chip.rbr() == UInt8(16 - count))
            #expect(chip.iir() == (count == 0 ? 0x01 : count >= level ? 0x04 : 0x0C))
        }
    }

    @Test func identificationShowsTheFIFOs() {
        var chip = UART()
        chip.fcr(0x01)
        #expect(chip.read(register: 2) == 0xC1)
        chip.fcr(0xC6)
        #expect(chip.read(register: 2) == 0x01, "without bit 0 the others do not count, and it switches off")
    }

    @Test func overrunKeepsTheFIFOAndLosesTheNewcomer() {
        var chip = UART()
        chip.fcr(1)
        chip.mcr(0x08)
        chip.ier(0x04)
        for value in 0..<17 { chip.receive(UInt8(value)) }
        #expect(chip.interrupt)
        #expect(chip.iir() == 0x06)
        #expect(chip.lsr() == 0x63)
        #expect(chip.lsr() == 0x61, "reading LSR clears OE")
        #expect(!chip.interrupt)
        #expect((0..<16).map { _ in chip.rbr() } == Array(0..<16))
    }

    @Test func overrunInCharacterModeReplaces() {
        var chip = UART()
        chip.receive(1)
        chip.receive(2)
        #expect(chip.lsr() == 0x63)
        #expect(chip.rbr() == 2)
        #expect(chip.lsr() == 0x60)
    }

    @Test func breakShowsAtTheTopOfTheFIFO() {
        var chip = UART()
        chip.fcr(1)
        chip.ier(0x05)
        chip.receive(0x41)
        chip.receiveBreak()
        chip.receive(0x42)
        #expect(chip.lsr() == 0xE1, "bit 7: an error is in the FIFO, not shown yet")
        #expect(chip.iir() == 0x04)
        #expect(chip.rbr() == 0x41)
        #expect(chip.iir() == 0x06)
        #expect(chip.lsr() == 0xF1)
        #expect(chip.lsr() == 0x61)
        #expect(chip.rbr() == 0)
        #expect(chip.rbr() == 0x42)
        #expect(chip.lsr() == 0x60)
    }

    @Test func clearingTheReceiver() {
        var chip = UART()
        chip.fcr(1)
        chip.receiveBreak()
        chip.receiveBreak()
        chip.receive(1)
        chip.fcr(3)
        #expect(chip.receivedCount == 0)
        #expect(chip.lsr() == 0x60)
        chip.receive(1)
        chip.fcr(0)
        #expect(chip.receivedCount == 0, "so does leaving FIFO mode")
        chip.receive(1)
        chip.fcr(0x02)
        #expect(chip.receivedCount == 1, "bit 1 counts only with bit 0")
        chip.fcr(1)
        #expect(chip.receivedCount == 0)
    }

    @Test func clearingTheTransmitter() {
        var chip = UART()
        chip.fcr(1)
        chip.thr(1)
        chip.fcr(5)
        #expect(chip.transmitCount == 0)
        #expect(chip.lsr() == 0x60)
        #expect(chip.read(register: 2) == 0xC1)
        chip.thr(1)
        chip.fcr(1)
        #expect(chip.transmitCount == 1, "writing the same mode clears nothing")
    }

    @Test func readingWhatIsNotThere() {
        var chip = UART()
        #expect(chip.rbr() == 0)
        #expect(chip.lsr() == 0x60)
    }

    // MARK: Priority

    @Test func interruptsInOrderOfPriority() {
        var chip = UART()
        chip.fcr(1)
        chip.mcr(0x08)
        chip.ier(0x0F)
        chip.setModemInputs(0)
        chip.receiveBreak()
        #expect(chip.iir() == 0x06)
        _ = chip.lsr()
        #expect(chip.iir() == 0x04)
        _ = chip.rbr()
        #expect(chip.iir() == 0x02)
        #expect(chip.iir() == 0x00)
        #expect(chip.interrupt)
        _ = chip.msr()
        #expect(chip.iir() == 0x01)
        #expect(!chip.interrupt)
    }

    @Test func maskedSourcesStayPending() {
        var chip = UART()
        chip.setModemInputs(0)
        chip.receive(1)
        #expect(chip.iir() == 0x01)
        chip.ier(0x08)
        #expect(chip.iir() == 0x00)
        chip.ier(0x09)
        #expect(chip.iir() == 0x04)
    }

    @Test func loopBackSilencesTheLineAndOUT2DoesNot() {
        var chip = UART()
        chip.ier(0x01)
        chip.receive(1)
        #expect(chip.interrupt, "kernels for virtual machines leave OUT2 alone")
        chip.mcr(0x08)
        #expect(chip.interrupt)
        chip.mcr(0x18)
        #expect(!chip.interrupt)
    }

    // MARK: Modem

    @Test func modemDeltas() {
        var chip = UART(modemInputs: 0)
        chip.setModemInputs(0x70)
        #expect(chip.msr() == 0x73, "RI's beginning is no event")
        #expect(chip.msr() == 0x70, "reading clears the deltas")
        chip.setModemInputs(0x80)
        #expect(chip.msr() == 0x8F)
        chip.setModemInputs(0x80)
        #expect(chip.msr() == 0x80)
    }

    @Test func loopbackOfTheModemLines() {
        var chip = UART()
        for outputs in UInt8(0)..<16 {
            chip.mcr(0x10 | outputs)
            let dtr = outputs & 1, rts = outputs >> 1 & 1, out1 = outputs >> 2 & 1, out2 = outputs >> 3 & 1
            #expect(chip.msr() & 0xF0 == rts << 4 | dtr << 5 | out1 << 6 | out2 << 7)
        }
        chip.mcr(0)
        #expect(chip.msr() & 0xF0 == 0xB0)
    }

    @Test func loopbackOfData() {
        var chip = UART()
        chip.fcr(1)
        chip.mcr(0x10)
        chip.ier(0x02)
        let heard = (chip.receive(0x55), chip.receiveBreak())
        #expect(heard == (false, false), "the line is not heard")
        #expect(chip.receiveRoom == 0)
        chip.thr(0xAE)
        #expect(chip.transmitCount == 0, "nor driven")
        #expect(chip.iir() == 0x02)
        #expect(chip.lsr() == 0x61)
        #expect(chip.rbr() == 0xAE)
        for value in 0..<17 { chip.thr(UInt8(value)) }
        #expect(chip.lsr() == 0x63)
    }

    @Test func withdrawingLeavesWhatCameRoundTheLoop() {
        var chip = UART()
        chip.fcr(1)
        chip.receive(1)
        chip.receiveBreak()
        chip.mcr(0x10)
        chip.thr(2)
        chip.mcr(0)
        chip.receive(3)
        var taken: [UInt16] = []
        var withdrawn = chip.withdrawReceived()
        while let entry = withdrawn.popFirst() { taken.append(entry) }
        #expect(taken == [1, 3])
        #expect(chip.receivedCount == 1)
        #expect(chip.rbr() == 2)
    }
}
