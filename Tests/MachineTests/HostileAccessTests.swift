import Machine
import SoftCPU
import Synchronization
import Testing
import VMCore
import MonitorTesting

/// Accesses that no driver makes, to every device of the board, in any order and width, with time and input in between: what
/// a hostile guest does. Each is answered, and the board is as usable afterwards as before.
@Suite struct HostileAccessTests {
    private final class Requests: MachineControl {
        let count = Atomic<Int>(0)
        func request(_ request: MachineRequest) { count.wrappingAdd(1, ordering: .relaxed) }
    }

    @Test(arguments: 1...6 as ClosedRange<UInt64>) func everyAccessIsAnswered(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let clock = FakeClock()
        let memory = try GuestMemory(size: 1 << 20)
        let engine = try SoftEngine(memory: memory, vcpuCount: 2, alarms: clock)
        let vcpus = try (0..<2).map { try engine.makeVCPU(index: $0) }
        let sink = MemorySink(capacity: 512)
        let board = try Mainboard(
            engine: engine, memory: memory, clock: clock, wallClock: clock, alarms: clock, console: sink, debugConsole: sink)
        engine.connect(ports: board.ports, mmio: board.mmio)
        let requests = Requests()
        board.control.connect(requests)

        let buses = [board.ports, board.mmio]
        let ports: [(base: UInt64, count: UInt64)] = [
            (AddressMap.picMaster, 2), (AddressMap.picSlave, 2), (AddressMap.picEdgeLevel, 2), (AddressMap.pit, 4),
            (AddressMap.keyboardData, 1), (AddressMap.systemControlB, 1), (AddressMap.keyboardCommand, 1), (AddressMap.rtc, 2),
            (AddressMap.postCode, 1), (AddressMap.debugConsole, 1), (AddressMap.debugExit, 4), (AddressMap.serial, 8),
            (AddressMap.powerManagement, 32), (0xCF8, 8),
        ]
        let ranges = ports.map { (bus: 0, base: $0.base, count: $0.count) } + [(bus: 1, base: AddressMap.ioapic.rawValue, count: 64)]
        for _ in 0..<150_000 {
            switch random.below(64) {
            case 0: clock.advance(by: UInt64(random.below(2_000_000)))
            case 1: sink.drain(random.below(600))
            case 2: random.oneIn(2) ? sink.pause() : sink.resume()
            case 3: [1, 200].randomElement(using: &random).map { count in [UInt8](repeating: 0x1B, count: count).withUnsafeBytes { _ = board.serial.receive($0) } }
            case 4: random.oneIn(4) ? board.powerManagement.pressPowerButton() : board.serial.sendBreak()
            default:
                let range = ranges[random.below(ranges.count)]
                let offset = UInt64(random.below(Int(min(range.count, 64)) &+ 4)) &- 2
                let address = random.oneIn(32) ? random.next() : range.base &+ offset
                let width = [AccessWidth.byte, .word, .long, .quad][random.oneIn(2) ? 0 : random.below(4)]
                if random.oneIn(2) {
                    let value = buses[range.bus].read(address, width: width)
                    #expect(value & ~width.mask == 0)
                } else {
                    let values: [UInt64] = [0, .max, UInt64(random.below(256)), random.next()]
                    buses[range.bus].write(address, width: width, value: values[random.below(4)])
                }
            }
        }
        #expect(requests.count.load(ordering: .relaxed) > 0)
        // The scratch register, behind a divisor latch that may be open.
        board.ports.write(AddressMap.serial &+ 3, width: .byte, value: 3)
        board.ports.write(AddressMap.serial &+ 7, width: .byte, value: 0x5A)
        #expect(board.ports.read(AddressMap.serial &+ 7, width: .byte) == 0x5A)
        // Counter 2 of the interval timer, in mode 0, counts down.
        board.ports.write(AddressMap.systemControlB, width: .byte, value: 1)
        board.ports.write(AddressMap.pit &+ 3, width: .byte, value: 0xB0)
        for byte in [0xFF, 0xFF] as [UInt64] { board.ports.write(AddressMap.pit &+ 2, width: .byte, value: byte) }
        clock.advance(by: 1_000_000)
        board.ports.write(AddressMap.pit &+ 3, width: .byte, value: 0x80)
        let low = board.ports.read(AddressMap.pit &+ 2, width: .byte), high = board.ports.read(AddressMap.pit &+ 2, width: .byte)
        #expect((0xFFFF &- (high << 8 | low)) / 100 == 11, "a millisecond is 1193 ticks of the timer")
        withExtendedLifetime(vcpus) {}
    }
}
