import Devices
import Synchronization
import Testing
import VMCore
import MonitorTesting

@testable import SoftCPU

/// A machine's local APICs with a clock that only the test moves, and an I/O APIC or whatever else hears of EOIs.
private final class TestFabric {
    let clock = FakeClock(time: 1_000_000)
    let attentions: [Attention]
    let fabric: InterruptFabric
    let processors: [ProcessorInterrupts]

    init(_ count: Int, alarms: Bool = true, x2APIC: Bool = false) throws {
        attentions = (0..<count).map { _ in Attention() }
        let fabric = InterruptFabric(
            attentions: attentions, clock: SteadyProcessorClock(clock, tscKilohertz: 2_000_000),
            alarms: alarms ? clock : nil)
        self.fabric = fabric
        processors = (0..<count).compactMap { fabric.processor($0) }
        try #require(processors.count == count && fabric.processor(count) == nil)
        for (index, processor) in processors.enumerated() {
            processor.write(offset: 0xF0, width: .long, value: 0x1FF)
            processor.write(offset: 0xD0, width: .long, value: 1 << (24 + UInt64(index % 8)))
            if x2APIC { #expect(processor.writeMSR(0x1B, processor.apicBase | 0xC00)) }
        }
    }

    /// An xAPIC's ICR write.
    func command(_ low: UInt64, destination: UInt64 = 0, from sender: Int = 0) {
        processors[sender].write(offset: 0x310, width: .long, value: destination << 24)
        processors[sender].write(offset: 0x300, width: .long, value: low)
    }

    /// What each processor can take now; taking it, and ending it.
    func taken() -> [UInt8?] {
        processors.map { processor in
            let vector = processor.acknowledge()
            if vector != nil {
                if processor.page == nil { _ = processor.writeMSR(0x80B, 0) } else { processor.write(offset: 0xB0, width: .long, value: 0) }
            }
            return vector
        }
    }

    /// The attention bits of each since the last call.
    func attention() -> [Attention.Bits] { attentions.map { $0.take(Attention.Bits(rawValue: .max)) } }
}

private final class Counts: Sendable {
    private let counts: Mutex<[Int]>
    init(_ count: Int) { counts = Mutex([Int](repeating: 0, count: count)) }
    func set(_ index: Int, _ value: Int) { counts.withLock { $0[index] = value } }
    var all: [Int] { counts.withLock { $0 } }
}

private final class RecordingListener: EndOfInterruptListener {
    let vectors = Mutex<[UInt8]>([])
    func endOfInterrupt(vector: UInt8) { vectors.withLock { $0.append(vector) } }
}

@Suite struct InterruptFabricTests {
    // MARK: Destinations [SDM3 §11.6.1], [SDM3 §11.6.2]

    @Test func shorthands() throws {
        let machine = try TestFabric(3)
        machine.command(0x4_4050, from: 1)
        #expect(machine.taken() == [nil, 0x50, nil])
        machine.command(0x8_4050, from: 1)
        #expect(machine.taken() == [0x50, 0x50, 0x50])
        machine.command(0xC_4050, from: 1)
        #expect(machine.taken() == [0x50, nil, 0x50])
    }

    @Test func physicalAndBroadcast() throws {
        let machine = try TestFabric(3)
        machine.command(0x4050, destination: 2)
        #expect(machine.taken() == [nil, nil, 0x50])
        machine.command(0x4050, destination: 0xFF, from: 2)
        #expect(machine.taken() == [0x50, 0x50, 0x50])
        for destination in 3..<0xFF as Range<UInt64> { machine.command(0x4050, destination: destination) }
        #expect(machine.taken() == [nil, nil, nil])
    }

    @Test func logicalFlatAndCluster() throws {
        let machine = try TestFabric(4)
        machine.command(0x4850, destination: 0b0101)
        #expect(machine.taken() == [0x50, nil, 0x50, nil])
        for (index, processor) in machine.processors.enumerated() {
            processor.write(offset: 0xE0, width: .long, value: 0)
            processor.write(offset: 0xD0, width: .long, value: (UInt64(index / 2) << 4 | 1 << UInt64(index % 2)) << 24)
        }
        machine.command(0x4850, destination: 0x13)
        #expect(machine.taken() == [nil, nil, 0x50, 0x50])
        machine.command(0x4850, destination: 0x02)
        #expect(machine.taken() == [nil, 0x50, nil, nil])
    }

    @Test func x2APICDestinations() throws {
        let machine = try TestFabric(20, x2APIC: true)
        func taken(after command: UInt64) -> [Int] {
            #expect(machine.processors[0].writeMSR(0x830, command))
            return machine.taken().enumerated().compactMap { $0.element == nil ? nil : $0.offset }
        }
        #expect(taken(after: 17 << 32 | 0x4050) == [17])
        #expect(taken(after: 0xFF << 32 | 0x4050) == [])
        #expect(taken(after: 0xFFFF_FFFF << 32 | 0x4050) == Array(0..<20))
        #expect(taken(after: 0x0001_000A << 32 | 0x4850) == [17, 19])
        #expect(taken(after: 0x0000_8001 << 32 | 0x4850) == [0, 15])
        #expect(taken(after: 0xC_4050) == Array(1..<20))
        #expect(machine.processors[3].writeMSR(0x83F, 0x50))
        #expect(machine.taken().firstIndex(of: 0x50) == 3)
    }

    /// Each is reached through the mode it is in.
    @Test func mixedModes() throws {
        let machine = try TestFabric(3)
        #expect(machine.processors[2].writeMSR(0x1B, machine.processors[2].apicBase | 0xC00))
        machine.command(0x4050, destination: 2)
        #expect(machine.taken() == [nil, nil, 0x50])
        #expect(machine.processors[2].writeMSR(0x830, 1 << 32 | 0x4050))
        #expect(machine.taken() == [nil, 0x50, nil])
        machine.command(0x4050, destination: 0xFF)
        #expect(machine.taken() == [0x50, 0x50, 0x50])
    }

    // MARK: Lowest priority [SDM3 §11.6.2.4]

    @Test func lowestPriority() throws {
        let machine = try TestFabric(3)
        machine.processors[0].taskPriority = 5
        machine.processors[1].taskPriority = 3
        machine.processors[2].taskPriority = 4
        machine.command(0x4980, destination: 0b111)
        #expect(machine.taken() == [nil, 0x80, nil])
        machine.command(0x4980, destination: 0b101)
        #expect(machine.taken() == [nil, nil, 0x80])
        // One that software disabled takes none.
        machine.processors[1].write(offset: 0xF0, width: .long, value: 0xFF)
        machine.command(0x4980, destination: 0b011)
        #expect(machine.taken() == [0x80, nil, nil])
    }

    @Test func equalsTakeTurns() throws {
        let machine = try TestFabric(3)
        var counts = [0, 0, 0]
        for _ in 0..<30 {
            machine.fabric.send(InterruptMessage(address: 0xFEE0_7004, data: 0x180))
            for (index, vector) in machine.taken().enumerated() where vector == 0x80 { counts[index] += 1 }
        }
        #expect(counts == [10, 10, 10])
    }

    // MARK: Events beside interrupts

    @Test func nmiInitAndStartup() throws {
        let machine = try TestFabric(3)
        _ = machine.attention()
        machine.command(0xC_4400)
        #expect(machine.attention() == [[], .nmi, .nmi])
        machine.command(0x4500, destination: 1)
        #expect(machine.attention() == [[], .initialise, []])
        machine.command(0x8500, destination: 1)
        #expect(machine.attention() == [[], [], []], "INIT level de-assert")
        machine.command(0x4699, destination: 2)
        #expect(machine.attention() == [[], [], .startup])
        #expect(machine.attentions[2].startup.load(ordering: .relaxed) == 0x99)
    }

    /// Software-disabled APICs still hear NMI, INIT and SIPI; hardware-disabled ones nothing. [SDM3 §11.4.7.2], [SDM3 §11.4.3].
    @Test func disabledProcessors() throws {
        let machine = try TestFabric(3)
        machine.processors[1].write(offset: 0xF0, width: .long, value: 0xFF)
        #expect(machine.processors[2].writeMSR(0x1B, 0xFEE0_0000))
        _ = machine.attention()
        machine.command(0x8_4050)
        #expect(machine.attention() == [.interrupt, [], []])
        machine.command(0xC_4400)
        machine.command(0xC_4500)
        machine.command(0xC_4607)
        #expect(machine.attention() == [[], [.nmi, .initialise, .startup], []])
    }

    /// The word is raised for news only: an interrupt that waits for its class is announced when it can come.
    @Test func attentionFollowsPriority() throws {
        let machine = try TestFabric(1)
        let processor = machine.processors[0]
        processor.taskPriority = 8
        _ = machine.attention()
        machine.command(0x4_4050)
        #expect(machine.attention() == [[]])
        #expect(processor.deliverable == nil)
        processor.taskPriority = 4
        #expect(machine.attention() == [.interrupt])
        #expect(processor.deliverable == 0x50)
        machine.command(0x4_4090)
        #expect(machine.attention() == [.interrupt])
        #expect(processor.acknowledge() == 0x90)
        #expect(machine.attention() == [[]])
        processor.write(offset: 0xB0, width: .long, value: 0)
        #expect(machine.attention() == [.interrupt])
        #expect(processor.acknowledge() == 0x50)
        #expect(processor.acknowledge() == nil)
    }

    // MARK: Messages and EOI

    /// With the I/O APIC of the device layer: a level that stays high comes once an EOI.
    @Test func levelThroughTheIOAPIC() throws {
        let machine = try TestFabric(2)
        let ioapic = IOAPICDevice(sink: machine.fabric)
        machine.fabric.connect(endOfInterrupt: ioapic)
        func write(_ register: UInt64, _ value: UInt64) {
            ioapic.write(offset: 0, width: .long, value: register)
            ioapic.write(offset: 0x10, width: .long, value: value)
        }
        write(0x10 + 2 * 9 + 1, 1 << 24)
        write(0x10 + 2 * 9, 0x8061)
        let line = ioapic.line(gsi: 9)
        line.setLevel(true)
        #expect(machine.processors[1].acknowledge() == 0x61)
        #expect(machine.processors[1].deliverable == nil)
        for _ in 0..<3 {
            machine.processors[1].write(offset: 0xB0, width: .long, value: 0)
            #expect(machine.processors[1].acknowledge() == 0x61)
        }
        line.setLevel(false)
        machine.processors[1].write(offset: 0xB0, width: .long, value: 0)
        #expect(machine.processors[1].deliverable == nil)
    }

    @Test func onlyLevelsAreBroadcast() throws {
        let machine = try TestFabric(1)
        let listener = RecordingListener()
        machine.fabric.connect(endOfInterrupt: listener)
        machine.fabric.send(InterruptMessage(address: 0xFEE0_0000, data: 0x51))
        #expect(machine.taken() == [0x51])
        machine.fabric.send(InterruptMessage(address: 0xFEE0_0000, data: 0xC052))
        #expect(machine.taken() == [0x52])
        #expect(listener.vectors.withLock { $0 } == [0x52])
    }

    // MARK: The 8259A pair

    @Test func externalInterrupts() throws {
        let machine = try TestFabric(2)
        let pair = InterruptControllerPair(intr: FabricWire(machine.fabric))
        machine.fabric.connect(externalInterrupts: pair)
        for (device, values) in [(pair.master, [0x11, 0x20, 4, 1, 0]), (pair.slave, [0x11, 0x28, 2, 1, 0])] as [(any BusDevice, [UInt64])] {
            device.write(offset: 0, width: .byte, value: values[0])
            for value in values.dropFirst() { device.write(offset: 1, width: .byte, value: value) }
        }
        // The boot processor's APIC was enabled with LINT0 as firmware leaves it: ExtINT.
        machine.processors[0].write(offset: 0x350, width: .long, value: 0x700)
        _ = machine.attention()
        pair.line(irq: 4).setLevel(true)
        #expect(machine.attention() == [.interrupt, []])
        #expect(machine.processors[0].acceptsExternalInterrupts)
        #expect(pair.acknowledge() == 0x24)
        // As a fixed interrupt, and as an NMI: LINT0 is a pin like another.
        machine.processors[0].write(offset: 0x350, width: .long, value: 0x45)
        pair.line(irq: 3).setLevel(true)
        #expect(!machine.processors[0].acceptsExternalInterrupts)
        #expect(machine.processors[0].acknowledge() == 0x45)
    }

    private final class FabricWire: InterruptLine {
        let fabric: InterruptFabric
        init(_ fabric: InterruptFabric) { self.fabric = fabric }
        func setLevel(_ isHigh: Bool) { fabric.externalInterruptsChanged() }
    }

    // MARK: Timers

    @Test func alarmsRaiseAttention() throws {
        let machine = try TestFabric(2)
        let processor = machine.processors[1]
        processor.write(offset: 0x3E0, width: .long, value: 0xB)
        processor.write(offset: 0x320, width: .long, value: 0x2_0040)
        processor.write(offset: 0x380, width: .long, value: 1_000_000)
        _ = machine.attention()
        for _ in 0..<4 {
            machine.clock.advance(by: 999_999)
            #expect(machine.attention() == [[], []])
            machine.clock.advance(by: 1)
            #expect(machine.attention() == [[], .interrupt])
            #expect(processor.acknowledge() == 0x40)
            processor.write(offset: 0xB0, width: .long, value: 0)
        }
    }

    /// The deadline is the guest's TSC's: it moves with the offset. 2 GHz here.
    @Test func tscDeadline() throws {
        let machine = try TestFabric(1)
        let processor = machine.processors[0]
        processor.setTSCOffset(1_000_000)
        processor.write(offset: 0x320, width: .long, value: 0x4_0040)
        let tsc = 2 * machine.clock.now() + 1_000_000
        #expect(processor.writeMSR(0x6E0, tsc + 10_000))
        _ = machine.attention()
        machine.clock.advance(by: 4_990)
        #expect(machine.attention() == [[]])
        machine.clock.advance(by: 20)
        #expect(machine.attention() == [.interrupt])
        #expect(processor.acknowledge() == 0x40)
        #expect(processor.readMSR(0x6E0) == 0)
        #expect(processor.writeMSR(0x6E0, tsc + 1_000_000))
        processor.setTSCOffset(2_000_000)
        processor.write(offset: 0xB0, width: .long, value: 0)
        machine.clock.advance(by: 2)
        #expect(machine.attention() == [.interrupt], "the counter jumped past the deadline")
    }

    @Test func farDeadlinesAreFar() throws {
        let machine = try TestFabric(1)
        machine.processors[0].write(offset: 0x320, width: .long, value: 0x4_0040)
        for deadline in [.max, .max - 1, 1 << 63] as [UInt64] {
            #expect(machine.processors[0].writeMSR(0x6E0, deadline))
            machine.clock.advance(by: 1_000_000)
            #expect(machine.processors[0].deliverable == nil)
        }
    }

    /// Whatever the guest has made of its counter: what is far by it is far.
    @Test(arguments: [0, 1 << 62, 1 << 63, .max - 1000] as [UInt64]) func deadlinesAreTheGuests(offset: UInt64) throws {
        let machine = try TestFabric(1)
        let processor = machine.processors[0]
        processor.setTSCOffset(offset)
        processor.write(offset: 0x320, width: .long, value: 0x4_0040)
        // Two ticks a nanosecond.
        func ticks() -> UInt64 { machine.clock.now() &* 2 &+ offset }
        let now = ticks()
        for ahead in [.max - now, 1 << 63] as [UInt64] where now <= .max - ahead {
            #expect(processor.writeMSR(0x6E0, now &+ ahead))
            machine.clock.advance(by: 1_000_000)
            #expect(processor.deliverable == nil)
        }
        #expect(processor.writeMSR(0x6E0, ticks() &+ 3_000))
        machine.clock.advance(by: 1_000_000)
        #expect(processor.deliverable == 0x40)
    }

    /// A clock that nobody but the vCPU looks at.
    @Test func withoutAlarms() throws {
        let machine = try TestFabric(1, alarms: false)
        let processor = machine.processors[0]
        processor.write(offset: 0x3E0, width: .long, value: 0xB)
        processor.write(offset: 0x320, width: .long, value: 0x40)
        #expect(processor.deadline == nil)
        processor.write(offset: 0x380, width: .long, value: 5000)
        #expect(processor.deadline == machine.clock.now() + 5000)
        machine.clock.advance(by: 5000)
        #expect(processor.deliverable == nil)
        processor.poll()
        #expect(processor.deliverable == 0x40)
        #expect(processor.deadline == nil)
    }

    /// A storm of the shortest periods, from every processor, rings at most once in 100 microseconds each.
    @Test func timerStorm() throws {
        let machine = try TestFabric(4)
        for processor in machine.processors {
            processor.write(offset: 0x3E0, width: .long, value: 0xB)
            processor.write(offset: 0x320, width: .long, value: 0x2_0040)
            processor.write(offset: 0x380, width: .long, value: 1)
        }
        var alarms = 0
        let end = machine.clock.now() + 10_000_000
        while let next = machine.clock.nextDeadline, next < end {
            machine.clock.advance(by: next - machine.clock.now())
            alarms += 1
        }
        #expect(alarms <= 100 * 4)
    }

    // MARK: State

    @Test func stateGoesToAnotherMachine() throws {
        let machine = try TestFabric(2, x2APIC: true)
        let other = try TestFabric(2)
        let processor = machine.processors[1]
        #expect(processor.writeMSR(0x832, 0x4_0040))
        #expect(processor.writeMSR(0x6E0, 1_000_000_000))
        #expect(processor.writeMSR(0x83F, 0x70))
        _ = other.attention()
        #expect(
            other.processors[1].restore(
                page: processor.state(), apicBase: processor.apicBase, tscDeadline: processor.tscDeadline))
        #expect(other.attention() == [[], .interrupt])
        #expect(other.processors[1].deliverable == 0x70)
        #expect(other.processors[1].readMSR(0x6E0) == 1_000_000_000)
        #expect(other.processors[1].deadline == processor.deadline)
        #expect(!other.processors[1].restore(page: [1], apicBase: 0xFEE0_0800, tscDeadline: 0))
        #expect(!other.processors[1].restore(page: [], apicBase: 0xFEE0_0400, tscDeadline: 0))
        #expect(other.processors[1].deliverable == 0x70, "a state that is refused changes nothing")
    }

    // MARK: Many threads

    /// Storms of commands between processors on threads of their own, with an I/O APIC level and the 8259A pair in between:
    /// no deadlock, and when it is over nothing was lost.
    @Test(.timeLimit(.minutes(1)))
    func storms() async throws {
        let machine = try TestFabric(4)
        let ioapic = IOAPICDevice(sink: machine.fabric)
        machine.fabric.connect(endOfInterrupt: ioapic)
        ioapic.write(offset: 0, width: .long, value: 0x10 + 2 * 9)
        ioapic.write(offset: 0x10, width: .long, value: 0x80A0)
        let pair = InterruptControllerPair(intr: FabricWire(machine.fabric))
        machine.fabric.connect(externalInterrupts: pair)
        let processors = machine.processors
        let rounds = 3000
        let commands: [UInt64] = [0x4050, 0x4060, 0xC_4070, 0x4980, 0x4B00]
        let seen = Counts(4)
        await withTaskGroup(of: Void.self) { group in
            for (index, processor) in processors.enumerated() {
                group.addTask {
                    var count = 0
                    for round in 0..<rounds {
                        processor.write(offset: 0x310, width: .long, value: UInt64(round % 5 == 4 ? 0xFF : round % 4) << 24)
                        processor.write(offset: 0x300, width: .long, value: commands[round % 5])
                        // The level may stay high: at most a few a round.
                        for _ in 0..<4 where processor.acknowledge() != nil {
                            count += 1
                            processor.write(offset: 0xB0, width: .long, value: 0)
                        }
                        ioapic.line(gsi: 9).setLevel((round + index) % 3 == 0)
                        pair.line(irq: 1).setLevel(round % 2 == 0)
                        if index == 0, pair.isPending { _ = pair.acknowledge() }
                    }
                    seen.set(index, count)
                }
            }
        }
        ioapic.line(gsi: 9).setLevel(false)
        for processor in processors {
            while processor.acknowledge() != nil { processor.write(offset: 0xB0, width: .long, value: 0) }
        }
        _ = machine.attention()
        machine.command(0x8_4050)
        #expect(machine.taken() == [0x50, 0x50, 0x50, 0x50])
        for count in seen.all { #expect(count > 0) }
    }
}
