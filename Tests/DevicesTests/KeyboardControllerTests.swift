import Testing
import VMCore
import MonitorTesting

@testable import Devices

/// Notes what devices ask of the machine.
final class RecordingControl: MachineControl, @unchecked Sendable {
    private(set) var requests: [MachineRequest] = []
    func request(_ request: MachineRequest) { requests.append(request) }
}

private struct KeyboardBench {
    let keyboardLine = RecordingLine()
    let auxiliaryLine = RecordingLine()
    let control = RecordingControl()
    let controller: KeyboardController

    init() {
        controller = KeyboardController(keyboardLine: keyboardLine, auxiliaryLine: auxiliaryLine, control: control)
    }

    var status: UInt8 { UInt8(truncatingIfNeeded: controller.command.read(offset: 0, width: .byte)) }
    func command(_ value: UInt8) { controller.command.write(offset: 0, width: .byte, value: UInt64(value)) }
    func data(_ value: UInt8) { controller.data.write(offset: 0, width: .byte, value: UInt64(value)) }
    func data() -> UInt8 { UInt8(truncatingIfNeeded: controller.data.read(offset: 0, width: .byte)) }

    /// All that is in the buffers, as a driver that looks at OBF reads it.
    func answers() -> [UInt8] {
        var bytes: [UInt8] = []
        while status & 0x01 != 0, bytes.count < 100 { bytes.append(data()) }
        return bytes
    }

    /// A command with its answer.
    func ask(_ value: UInt8) -> [UInt8] {
        command(value)
        return answers()
    }

    /// A byte to the keyboard with its answers.
    func tell(_ value: UInt8) -> [UInt8] {
        data(value)
        return answers()
    }
}

@Suite struct KeyboardControllerTests {
    @Test func selfTests() {
        let bench = KeyboardBench()
        #expect(bench.ask(0xAA) == [0x55])
        #expect(bench.ask(0xAB) == [0x00])
        #expect(bench.ask(0xA9) == [0x02])
        #expect(bench.ask(0xA4) == [0xF1])
        #expect(bench.status == 0x1C)
    }

    @Test func commandByteAndMemory() {
        let bench = KeyboardBench()
        #expect(bench.ask(0x20) == [0x65])
        for value in UInt8.min ... .max {
            bench.command(0x60)
            #expect(bench.status & 0x08 != 0)
            bench.data(value)
            #expect(bench.status & 0x08 == 0)
            #expect(bench.status & 0x04 == value & 0x04)
            #expect(bench.ask(0x20) == [value])
        }
        for index in UInt8(1)..<32 {
            bench.command(0x60 + index)
            bench.data(index &* 5)
        }
        for index in UInt8(1)..<32 { #expect(bench.ask(0x20 + index) == [index &* 5]) }
    }

    @Test func enablingAndDisabling() {
        let bench = KeyboardBench()
        bench.command(0xAD)
        bench.command(0xA8)
        #expect(bench.ask(0x20) == [0x55])
        bench.command(0xAE)
        bench.command(0xA7)
        #expect(bench.ask(0x20) == [0x65])
    }

    @Test func aDisabledKeyboardWaits() {
        let bench = KeyboardBench()
        bench.data(0xF2)
        #expect(bench.data() == 0xFA)
        bench.command(0xAD)
        #expect(bench.answers() == [0xAB], "what was in the buffer stays there")
        bench.command(0xAE)
        #expect(bench.answers() == [0x41])
    }

    @Test func anAnswerGoesBeforeTheKeyboardsBytes() {
        let bench = KeyboardBench()
        bench.data(0xF2)
        #expect(bench.status & 0x01 != 0)
        bench.command(0x20)
        #expect(bench.answers() == [0x65, 0xFA, 0xAB, 0x41])
    }

    @Test func keyboardCommands() {
        let bench = KeyboardBench()
        bench.command(0x60)
        bench.data(0x05)
        #expect(bench.tell(0xFF) == [0xFA, 0xAA])
        #expect(bench.tell(0xF2) == [0xFA, 0xAB, 0x83])
        #expect(bench.tell(0xED) == [0xFA])
        #expect(bench.tell(0x07) == [0xFA])
        #expect(bench.tell(0xF3) == [0xFA])
        #expect(bench.tell(0x2B) == [0xFA])
        #expect(bench.tell(0xF0) == [0xFA])
        #expect(bench.tell(0x00) == [0xFA, 0x02])
        #expect(bench.tell(0xF0) + bench.tell(0x03) == [0xFA, 0xFA])
        #expect(bench.tell(0xF0) + bench.tell(0x00) == [0xFA, 0xFA, 0x03])
        #expect(bench.tell(0xF0) + bench.tell(0x04) == [0xFA, 0xFE])
        #expect(bench.tell(0xEE) == [0xEE])
        #expect(bench.tell(0xFE) == [0xEE], "resend")
        #expect(bench.tell(0xF4) == [0xFA])
        #expect(bench.tell(0xF5) == [0xFA])
        #expect(bench.tell(0xF6) == [0xFA])
        #expect(bench.tell(0xF0) + bench.tell(0x00) == [0xFA, 0xFA, 0x02])
        #expect(bench.tell(0x12) == [0xFE])
        #expect(bench.tell(0xED) + bench.tell(0xF2) == [0xFA, 0xFA, 0xAB, 0x83], "a command ends the one before it")
        #expect(bench.tell(0xFB) + bench.tell(0x1C) + bench.tell(0x32) + bench.tell(0xF4) == [0xFA, 0xFA, 0xFA, 0xFA])
    }

    @Test func translatedAnswers() {
        let bench = KeyboardBench()
        #expect(bench.tell(0xF2) == [0xFA, 0xAB, 0x41])
        #expect(bench.tell(0xF0) + bench.tell(0x00) == [0xFA, 0xFA, 0x41])
        #expect(bench.tell(0xFF) == [0xFA, 0xAA])
    }

    @Test func everyByteIsAnEdge() {
        let bench = KeyboardBench()
        bench.data(0xF2)
        for count in 1...3 {
            #expect(bench.keyboardLine.isHigh)
            #expect(bench.keyboardLine.risingEdges == count)
            _ = bench.data()
        }
        #expect(!bench.keyboardLine.isHigh)
        #expect(bench.auxiliaryLine.risingEdges == 0)
        bench.command(0x60)
        bench.data(0x44)
        bench.data(0xF2)
        #expect(!bench.keyboardLine.isHigh, "the command byte masks it")
    }

    @Test func nobodyIsAtTheAuxiliaryPort() {
        let bench = KeyboardBench()
        bench.command(0x60)
        bench.data(0x47)
        bench.command(0xD4)
        bench.data(0xFF)
        #expect(bench.auxiliaryLine.isHigh)
        #expect(!bench.keyboardLine.isHigh)
        #expect(bench.status & 0x61 == 0x61, "from the auxiliary port, timed out")
        #expect(bench.data() == 0xFE)
        #expect(!bench.auxiliaryLine.isHigh)
        #expect(bench.status & 0x61 == 0)
    }

    @Test func outputPort() {
        let bench = KeyboardBench()
        #expect(bench.ask(0xD0) == [0xC3])
        bench.command(0xD1)
        bench.data(0xDD)
        #expect(bench.ask(0xD0) == [0xC1], "A20 is remembered")
        #expect(bench.control.requests.isEmpty)
        bench.command(0xD1)
        bench.data(0xFE)
        #expect(bench.control.requests == [.reset])
        bench.command(0xD2)
        bench.data(0x99)
        #expect(bench.answers() == [0x99])
    }

    @Test func resetByPulse() {
        for command in UInt8.min ... .max {
            let bench = KeyboardBench()
            bench.command(command)
            let resets = command >= 0xF0 && command & 1 == 0
            #expect(bench.control.requests == (resets ? [.reset] : []))
        }
    }

    @Test func aFloodIsBounded() {
        let bench = KeyboardBench()
        for _ in 0..<100_000 { bench.data(0xF2) }
        #expect(bench.answers().count <= 17)
        #expect(bench.tell(0xEE) == [0xEE])
    }

    /// Linux's probe of controller, auxiliary port and keyboard: every wait ends at the first look.
    /// Source: Linux 6.1, drivers/input/serio/i8042.c and drivers/input/keyboard/atkbd.c.
    @Test func linuxProbeNeverWaits() {
        let bench = KeyboardBench()
        func command(_ value: UInt8, _ parameters: [UInt8] = [], expecting answers: Int = 0) -> [UInt8] {
            #expect(bench.status & 0x02 == 0)
            bench.command(value)
            for parameter in parameters {
                #expect(bench.status & 0x02 == 0)
                bench.data(parameter)
            }
            return (0..<answers).map { _ in
                #expect(bench.status & 0x01 != 0, "half a second lost to command \(value)")
                return bench.data()
            }
        }
        #expect(bench.answers().isEmpty)
        #expect(command(0xAA, expecting: 1) == [0x55])
        let control = command(0x20, expecting: 1)
        #expect(control == command(0x20, expecting: 1))
        var ctr = control[0]
        #expect(ctr & 0x40 != 0, "translated, as firmware leaves it")
        #expect(bench.status & 0x10 != 0, "not locked")
        ctr = (ctr | 0x10) & ~0x01
        _ = command(0x60, [ctr])

        // The auxiliary port: the loop-back's answer is there and is not the auxiliary port's; the test says absent.
        _ = command(0xD3, [0x5A])
        #expect(bench.status & 0x01 != 0)
        #expect(bench.status & 0x20 == 0)
        let test = command(0xA9, expecting: 1)
        #expect(test != [0x00] && test != [0xFA] && test != [0xFF])
        #expect(bench.answers().isEmpty)

        // The keyboard, by interrupt.
        ctr = ctr & ~0x10 | 0x01
        _ = command(0x60, [ctr])
        func keyboard(_ bytes: [UInt8], expecting answers: [UInt8]) {
            var received: [UInt8] = []
            for byte in bytes {
                bench.data(byte)
                while bench.keyboardLine.isHigh {
                    #expect(bench.status & 0x21 == 0x01)
                    received.append(bench.data())
                }
            }
            #expect(received == answers)
        }
        keyboard([0xF2], expecting: [0xFA, 0xAB, 0x41])
        keyboard([0xF5], expecting: [0xFA])
        keyboard([0xED, 0x00], expecting: [0xFA, 0xFA])
        keyboard([0xF3, 0x00], expecting: [0xFA, 0xFA])
        keyboard([0xF4], expecting: [0xFA])
        #expect(bench.auxiliaryLine.risingEdges == 0)
        #expect(bench.control.requests.isEmpty)
    }
}
