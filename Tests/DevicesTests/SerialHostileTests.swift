import Testing
import VMCore
import MonitorTesting

@testable import Devices

/// SplitMix64: small, seeded, the same everywhere.
private struct Random: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }
}

/// Accesses no driver would make: any offset, width, value, in any order, with the host busy at the other end.
@Suite struct SerialHostileTests {
    @Test(arguments: UInt64(1)...8)
    func serialPort(seed: UInt64) {
        var random = Random(state: seed)
        let bench = SerialBench(capacity: 8)
        for step in 0..<20_000 {
            let offset = random.next() % 4 == 0 ? random.next() : random.next() % 8
            let width = AccessWidth.allCases.randomElement(using: &random)!
            switch random.next() % 8 {
            case 0...2: bench.port.write(offset: offset, width: width, value: random.next())
            case 3...5: #expect(bench.port.read(offset: offset, width: width) <= 0xFF, "seed \(seed), step \(step)")
            case 6:
                let count = Int(random.next() % 40)
                let taken = bench.type([UInt8](repeating: 0x55, count: count))
                #expect(taken >= 0 && taken <= min(count, 16), "seed \(seed), step \(step)")
            default:
                switch random.next() % 4 {
                case 0: bench.sink.pause()
                case 1: bench.sink.resume()
                case 2: bench.sink.drain(Int(random.next() % 12))
                default: bench.port.sendBreak()
                }
            }
        }
        // Whatever was done to it, it can be programmed again and works.
        bench.sink.resume()
        for _ in 0..<10 { bench.sink.drain() }
        bench.out(4, 0)
        bench.out(3, 0x03)
        bench.out(1, 0)
        bench.out(2, 0x00)
        bench.out(2, 0x07)
        bench.start()
        _ = bench.readAll()
        _ = bench.in(2)
        bench.sink.drain()
        bench.out(0, 0x41)
        #expect(bench.sink.drain() == [0x41], "seed \(seed)")
        #expect(bench.type([1, 2]) == 2, "seed \(seed)")
        #expect(bench.line.isHigh, "seed \(seed)")
        #expect(bench.readAll() == [1, 2], "seed \(seed)")
    }

    /// The level the device drives is always the one the chip asks for.
    @Test(arguments: UInt64(1)...4)
    func chipInvariants(seed: UInt64) {
        var random = Random(state: seed)
        var chip = UART16550()
        for step in 0..<50_000 {
            let register = UInt8(truncatingIfNeeded: random.next())
            let value = UInt8(truncatingIfNeeded: random.next())
            switch random.next() % 6 {
            case 0, 1: chip.write(value, register: register)
            case 2, 3: _ = chip.read(register: register)
            case 4: chip.receive(value)
            default: chip.transmitted(Int(truncatingIfNeeded: random.next()))
            }
            #expect(chip.transmitCount <= 16 && chip.receivedCount <= 16 && chip.receiveRoom >= 0)
            var copy = chip
            let iir = copy.read(register: 2)
            let gate = chip.read(register: 4) & 0x10 == 0
            #expect(chip.interrupt == (gate && iir & 1 == 0), "seed \(seed), step \(step)")
            if chip.isLoopback { #expect(chip.receiveRoom == 0) }
        }
    }

    @Test(arguments: UInt64(1)...8)
    func keyboardController(seed: UInt64) {
        var random = Random(state: seed)
        let line = RecordingLine()
        let auxiliary = RecordingLine()
        let controller = KeyboardController(
            keyboardLine: line, auxiliaryLine: auxiliary, control: RecordingControl())
        for step in 0..<20_000 {
            let port = random.next() % 2 == 0 ? controller.data : controller.command
            let width = AccessWidth.allCases.randomElement(using: &random)!
            if random.next() % 2 == 0 {
                port.write(offset: random.next(), width: width, value: random.next())
            } else {
                #expect(port.read(offset: random.next(), width: width) <= 0xFF, "seed \(seed), step \(step)")
            }
            let status = controller.command.read(offset: 0, width: .byte)
            #expect(status & 0x02 == 0)
            if line.isHigh || auxiliary.isHigh { #expect(status & 0x01 != 0, "seed \(seed), step \(step)") }
            #expect(!(line.isHigh && auxiliary.isHigh), "seed \(seed), step \(step)")
        }
        for _ in 0..<40 { _ = controller.data.read(offset: 0, width: .byte) }
        controller.command.write(offset: 0, width: .byte, value: 0xAA)
        #expect(controller.data.read(offset: 0, width: .byte) == 0x55, "seed \(seed)")
    }

    @Test func debugPorts() {
        var random = Random(state: 1)
        let devices: [any BusDevice] = [
            DebugExit(control: RecordingControl()), PostCode(), DebugConsole(sink: MemorySink(capacity: 10)),
        ]
        for _ in 0..<10_000 {
            let device = devices.randomElement(using: &random)!
            let width = AccessWidth.allCases.randomElement(using: &random)!
            device.write(offset: random.next(), width: width, value: random.next())
            #expect(device.read(offset: random.next(), width: width) <= 0xFF)
        }
    }
}
