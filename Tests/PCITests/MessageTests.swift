import Testing
import VMCore
import MonitorTesting

@testable import PCI

/// MSI-X, through the buses.
@Suite struct MessageTests {
    private struct Rig {
        let sink = RecordingMessages()
        let line = RecordingLine()
        let function: TestFunction
        let bus: PCIBus
        let table: UInt64
        let pending: UInt64
        let control: UInt64

        init(vectorCount: Int = 4) throws {
            function = TestFunction(line: line, sink: sink, vectorCount: vectorCount)
            let bus = try PCIBus([function])
            self.bus = bus
            let capability = try #require(bus.capabilities(device: 1).last).place
            control = capability + 2
            func place(_ register: UInt64) -> UInt64 {
                let value = bus.read(device: 1, register, .long)
                return bus.address(device: 1, bar: Int(value & 7)) + UInt64(value & ~7)
            }
            table = place(capability + 4)
            pending = place(capability + 8)
        }

        func setControl(_ value: UInt32) { bus.write(device: 1, control, .word, value) }
        func program(_ vector: UInt64, data: UInt64, masked: Bool = false) {
            bus.memory.write(table + vector * 16, width: .long, value: 0xFEE0_1000)
            bus.memory.write(table + vector * 16 + 4, width: .long, value: 1)
            bus.memory.write(table + vector * 16 + 8, width: .long, value: data)
            bus.memory.write(table + vector * 16 + 12, width: .long, value: masked ? 1 : 0)
        }
        func message(_ data: UInt32) -> InterruptMessage { InterruptMessage(address: 0x1_FEE0_1000, data: data) }
    }

    @Test(arguments: [1, 2, 63, 64, 65, 128, 129, 2048]) func tableIsAsLargeAsItSays(count: Int) throws {
        let rig = try Rig(vectorCount: count)
        #expect(Int(rig.bus.read(device: 1, rig.control, .word)) == count - 1)
        #expect(rig.pending >= rig.table + UInt64(count) * 16)
        for vector in Set([0, UInt64(count) - 1]) {
            #expect(rig.bus.memory.read(rig.table + vector * 16, width: .quad) == 0)
            #expect(rig.bus.memory.read(rig.table + vector * 16 + 12, width: .long) == 1)  // masked after a reset
            rig.program(vector, data: 7)
            #expect(rig.bus.memory.read(rig.table + vector * 16, width: .quad) == 0x1_FEE0_1000)
            #expect(rig.bus.memory.read(rig.table + vector * 16 + 8, width: .quad) == 7)
        }
        rig.setControl(0x8000)
        #expect(rig.function.configuration.raise(vector: count - 1))
        #expect(rig.sink.take() == [rig.message(7)])
        #expect(rig.function.configuration.raise(vector: count))
        #expect(rig.function.configuration.raise(vector: 0xFFFF))
        #expect(rig.function.configuration.raise(vector: -1))
        #expect(rig.sink.take().isEmpty)
    }

    @Test func disabledSendsNothing() throws {
        let rig = try Rig()
        rig.program(0, data: 1)
        #expect(!rig.function.configuration.raise(vector: 0))
        rig.setControl(0x8000)
        #expect(rig.sink.take().isEmpty)
        #expect(rig.function.configuration.raise(vector: 0))
        #expect(rig.sink.take() == [rig.message(1)])
    }

    @Test func maskedVectorsWait() throws {
        let rig = try Rig()
        rig.setControl(0x8000)
        rig.program(2, data: 0x22, masked: true)
        for _ in 0..<3 { #expect(rig.function.configuration.raise(vector: 2)) }
        #expect(rig.sink.take().isEmpty)
        #expect(rig.bus.memory.read(rig.pending, width: .long) == 4)
        #expect(rig.bus.memory.read(rig.pending, width: .quad) == 4)
        rig.bus.memory.write(rig.pending, width: .quad, value: 0xFF)  // read-only
        rig.bus.memory.write(rig.table + 40, width: .long, value: 0x33)
        rig.bus.memory.write(rig.table + 44, width: .long, value: 0)
        // Once, with what the entry says now.
        #expect(rig.sink.take() == [rig.message(0x33)])
        #expect(rig.bus.memory.read(rig.pending, width: .quad) == 0)
        rig.bus.memory.write(rig.table + 44, width: .long, value: 1)
        rig.bus.memory.write(rig.table + 44, width: .long, value: 0)
        #expect(rig.sink.take().isEmpty)
        // Unmasked by eight bytes too: data and control.
        rig.bus.memory.write(rig.table + 40, width: .quad, value: 1 << 32 | 0x44)
        #expect(rig.function.configuration.raise(vector: 2))
        rig.bus.memory.write(rig.table + 40, width: .quad, value: 0x45)
        #expect(rig.sink.take() == [rig.message(0x45)])
    }

    @Test func functionMaskHoldsAll() throws {
        let rig = try Rig(vectorCount: 70)
        for vector in 0..<UInt64(70) { rig.program(vector, data: vector, masked: vector == 5) }
        rig.setControl(0xC000)
        for vector in [69, 5, 64, 0] { #expect(rig.function.configuration.raise(vector: vector)) }
        #expect(rig.sink.take().isEmpty)
        #expect(rig.bus.memory.read(rig.pending + 8, width: .long) == 0x21)
        rig.setControl(0x4000)
        rig.setControl(0xC000)
        // A vector that is unmasked is still the function's to hold, and while messages are disabled nobody's to send.
        for control in [0xC000, 0x4000, 0] as [UInt32] {
            rig.setControl(control)
            rig.bus.memory.write(rig.table + 12, width: .long, value: 1)
            rig.bus.memory.write(rig.table + 12, width: .long, value: 0)
            #expect(rig.sink.take().isEmpty)
        }
        rig.setControl(0x8000)
        #expect(rig.sink.take() == [rig.message(0), rig.message(64), rig.message(69)])
        #expect(rig.bus.memory.read(rig.pending, width: .quad) == 1 << 5)
        rig.function.configuration.clearPending()
        rig.bus.memory.write(rig.table + 5 * 16 + 12, width: .long, value: 0)
        #expect(rig.sink.take().isEmpty)
    }

    @Test func oddAccessesAreHarmless() throws {
        let rig = try Rig()
        rig.program(0, data: 0x1234_5678)
        let end = rig.table + MSIXTable.regionSize(vectorCount: 4)
        for width in [AccessWidth.byte, .word] {
            #expect(rig.bus.memory.read(rig.table, width: width) == 0)
            rig.bus.memory.write(rig.table, width: width, value: .max)
        }
        rig.bus.memory.write(rig.table + 2, width: .long, value: .max)
        rig.bus.memory.write(rig.table + 4, width: .quad, value: .max)
        #expect(rig.bus.memory.read(rig.table + 2, width: .long) == 0)
        #expect(rig.bus.memory.read(rig.table, width: .quad) == 0x1_FEE0_1000)
        // Between the table and the pending bits, and behind them.
        for place in [rig.table + 64, rig.pending - 4, rig.pending + 8, end - 8] {
            rig.bus.memory.write(place, width: .long, value: .max)
            #expect(rig.bus.memory.read(place, width: .long) == 0)
        }
        #expect(rig.function.take().isEmpty)  // the function never hears of its table
    }

    @Test func withoutASinkThereIsNoCapability() throws {
        let function = TestFunction()
        let bus = try PCIBus([function])
        #expect(!bus.capabilities(device: 1).contains { $0.identifier == 0x11 })
        #expect(function.configuration.vectorCount == 0 && function.configuration.messageBAR == nil)
        #expect(!function.configuration.raise(vector: 0))
    }

    // MARK: The wire

    @Test func wireFollowsTheFunctionAndTheDriver() throws {
        let rig = try Rig()
        let configuration = rig.function.configuration
        func status() -> Bool { rig.bus.read(device: 1, 0x06, .word) & 8 != 0 }
        configuration.setInterrupt(true)
        #expect(rig.line.isHigh && status())
        rig.bus.write(device: 1, 0x04, .word, 0x0402)  // interrupt disable: the wire goes low, the status does not
        #expect(!rig.line.isHigh && status())
        rig.bus.write(device: 1, 0x04, .word, 0x0002)
        #expect(rig.line.isHigh)
        rig.setControl(0x8000)  // messages take its place
        #expect(!rig.line.isHigh && !status())
        rig.setControl(0)
        #expect(rig.line.isHigh && status())
        configuration.setInterrupt(false)
        #expect(!rig.line.isHigh && !status())
        #expect(rig.line.risingEdges == 3)
    }

    @Test func aSharedWireIsHighAsLongAsAnyAsks() {
        let line = RecordingLine()
        let shared = SharedLine(line)
        let inputs = (0..<3).map { _ in shared.input() }
        inputs[0].setLevel(true)
        inputs[0].setLevel(true)
        inputs[1].setLevel(true)
        inputs[0].setLevel(false)
        inputs[0].setLevel(false)
        inputs[2].setLevel(false)
        #expect(line.isHigh && line.risingEdges == 1)
        inputs[1].setLevel(false)
        #expect(!line.isHigh)
    }
}
