import Devices
import Synchronization
import Testing
import VMCore
import MonitorTesting

private final class RecordingSink: InterruptMessageSink {
    let messages = Mutex<[InterruptMessage]>([])
    func send(_ message: InterruptMessage) { messages.withLock { $0.append(message) } }
    var count: Int { messages.withLock { $0.count } }
    var last: InterruptMessage? { messages.withLock { $0.last } }
}

private final class RecordingRoutes: Sendable {
    let routes = Mutex<[[InterruptRoute?]]>([])
    var count: Int { routes.withLock { $0.count } }
    var last: [InterruptRoute?] { routes.withLock { $0.last ?? [] } }
}

@Suite struct IOAPICTests {
    private let sink = RecordingSink()
    private let routes = RecordingRoutes()
    private let device: IOAPICDevice

    init() {
        let routes = routes
        device = IOAPICDevice(id: 5, sink: sink) { new in routes.routes.withLock { $0.append(new) } }
    }

    private func write(_ register: UInt64, _ value: UInt64) {
        device.write(offset: 0, width: .long, value: register)
        device.write(offset: 0x10, width: .long, value: value)
    }
    private func read(_ register: UInt64) -> UInt64 {
        device.write(offset: 0, width: .long, value: register)
        return device.read(offset: 0x10, width: .long)
    }
    private func setEntry(_ input: UInt64, _ value: UInt64) {
        write(0x11 + 2 * input, value >> 32)
        write(0x10 + 2 * input, value & 0xFFFF_FFFF)
    }

    @Test func identification() {
        #expect(read(0) == 5 << 24)
        #expect(read(2) == 5 << 24)
        #expect(read(1) == 0x0017_0020)
        write(0, 0xFFFF_FFFF)
        #expect(read(0) == 0x0F00_0000)
        #expect(read(2) == 0x0F00_0000)
        write(1, 0)
        #expect(read(1) == 0x0017_0020)
    }

    @Test func entriesStartMaskedAndKeepReadOnlyBits() {
        for input in UInt64(0)..<24 {
            #expect(read(0x10 + 2 * input) == 0x1_0000)
            write(0x10 + 2 * input, 0xFFFF_FFFF)
            #expect(read(0x10 + 2 * input) == 0x1_AFFF)
            write(0x11 + 2 * input, 0xAB00_0000)
            #expect(read(0x11 + 2 * input) == 0xAB00_0000)
        }
        #expect(read(0x40) == 0)
        #expect(read(0xFF) == 0)
        #expect(sink.count == 0)
    }

    @Test func edgeMessageFormat() {
        setEntry(4, 0x1200_0000_0000_0931)
        let line = device.line(gsi: 4)
        line.setLevel(true)
        #expect(sink.last == InterruptMessage(address: 0xFEE1_2004, data: 0x131))
        line.setLevel(true)
        #expect(sink.count == 1)
        line.pulse()
        line.pulse()
        #expect(sink.count == 2, "the first of these found the line high already")
        #expect(read(0x18) & 1 << 14 == 0)
    }

    @Test func edgesWhileMaskedAreLost() {
        setEntry(4, 0x1_0031)
        device.line(gsi: 4).setLevel(true)
        setEntry(4, 0x31)
        #expect(sink.count == 0)
    }

    @Test func levelsWaitForTheirEOI() {
        setEntry(10, 0x8041)
        let line = device.line(gsi: 10)
        line.setLevel(true)
        #expect(sink.last == InterruptMessage(address: 0xFEE0_0000, data: 0xC041))
        #expect(read(0x24) & 1 << 14 != 0)
        line.setLevel(false)
        line.setLevel(true)
        #expect(sink.count == 1)
        device.endOfInterrupt(vector: 0x40)
        #expect(sink.count == 1)
        for expected in 2...1000 {
            device.endOfInterrupt(vector: 0x41)
            #expect(sink.count == expected, "still asserted: once more for each EOI")
        }
        line.setLevel(false)
        device.endOfInterrupt(vector: 0x41)
        #expect(sink.count == 1000)
        #expect(read(0x24) & 1 << 14 == 0)
        device.endOfInterrupt(vector: 0x41)
        #expect(sink.count == 1000)
    }

    @Test func levelsAreSeenWhenTheMaskGoes() {
        setEntry(10, 0x1_8041)
        device.line(gsi: 10).setLevel(true)
        #expect(sink.count == 0)
        setEntry(10, 0x8041)
        #expect(sink.count == 1)
        setEntry(10, 0x1_8041)
        device.endOfInterrupt(vector: 0x41)
        #expect(sink.count == 1, "masked")
        setEntry(10, 0x8041)
        #expect(sink.count == 2)
    }

    @Test func theEOIRegisterAndTheEdgeDetourClearRemoteIRR() {
        setEntry(10, 0x8041)
        device.line(gsi: 10).setLevel(true)
        device.line(gsi: 10).setLevel(false)
        device.write(offset: 0x40, width: .long, value: 0x41)
        #expect(read(0x24) & 1 << 14 == 0)
        device.line(gsi: 10).setLevel(true)
        device.line(gsi: 10).setLevel(false)
        #expect(read(0x24) & 1 << 14 != 0)
        write(0x24, 0x1_0041)
        write(0x24, 0x1_8041)
        #expect(read(0x24) & 1 << 14 == 0)
    }

    @Test func sharedVectorsEndTogether() {
        setEntry(10, 0x8041)
        setEntry(11, 0x8041)
        device.line(gsi: 10).setLevel(true)
        device.line(gsi: 11).setLevel(true)
        #expect(sink.count == 2)
        device.line(gsi: 10).setLevel(false)
        device.endOfInterrupt(vector: 0x41)
        #expect(sink.count == 3)
    }

    @Test func interruptsThatHaveNoEOIAreEdges() {
        for mode: UInt64 in [2, 4, 5, 7] {
            setEntry(3, 0x8000 | mode << 8 | 0x22)
            let before = sink.count
            device.line(gsi: 3).setLevel(true)
            #expect(sink.count == before + 1)
            #expect(sink.last?.data == UInt32(mode << 8 | 0x22))
            #expect(read(0x16) & 1 << 14 == 0)
            device.line(gsi: 3).setLevel(false)
        }
    }

    @Test func polarityIsKeptAndNotApplied() {
        setEntry(10, 0xA041)
        #expect(read(0x24) == 0xA041)
        #expect(sink.count == 0)
        device.line(gsi: 10).setLevel(true)
        #expect(sink.count == 1)
    }

    @Test func extendedDestinations() {
        let device = IOAPICDevice(sink: sink, extendedDestinations: true)
        device.write(offset: 0, width: .long, value: 0x11)
        device.write(offset: 0x10, width: .long, value: 0x34 << 24 | 0x12 << 17)
        device.write(offset: 0, width: .long, value: 0x10)
        device.write(offset: 0x10, width: .long, value: 0x30)
        device.line(gsi: 0).pulse()
        #expect(sink.last?.address == 0xFEE3_4240)
    }

    @Test func routesAreToldWhenTheyChangeAndNotOtherwise() {
        #expect(routes.count == 0)
        write(0x10, 0x1_0030)
        #expect(routes.count == 0, "still masked")
        setEntry(2, 0x8030)
        #expect(routes.count == 1)
        #expect(routes.last.count == 24)
        #expect(
            routes.last[2]
                == InterruptRoute(message: InterruptMessage(address: 0xFEE0_0000, data: 0xC030), isLevelTriggered: true))
        setEntry(2, 0x8030)
        device.line(gsi: 2).setLevel(true)
        #expect(routes.count == 1)
        // Masked with an EOI due: the route stays until it came, or nobody would broadcast it.
        setEntry(2, 0x1_8030)
        #expect(routes.count == 1)
        device.endOfInterrupt(vector: 0x30)
        #expect(routes.count == 2)
        #expect(routes.last.allSatisfy { $0 == nil })
    }

    @Test func hostileAccesses() {
        for seed in UInt64(1)...10 {
            var random = SeededGenerator(seed: seed)
            for _ in 0..<5000 {
                let width = AccessWidth.allCases.randomElement(using: &random) ?? .byte
                let offset = [0, 0x10, 0x40, UInt64.random(in: 0...0xFFF, using: &random)].randomElement(using: &random) ?? 0
                switch Int.random(in: 0..<4, using: &random) {
                case 0: _ = device.read(offset: offset, width: width)
                case 1: device.write(offset: offset, width: width, value: .random(in: 0...(.max), using: &random))
                case 2: device.line(gsi: .random(in: 0...25, using: &random)).setLevel(.random(using: &random))
                default: device.endOfInterrupt(vector: .random(in: 0...255, using: &random))
                }
            }
        }
    }
}
