import Testing
import VMCore

/// A device that remembers what reached it.
private final class Recorder: BusDevice, @unchecked Sendable {
    var log: [String] = []
    func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        log.append("r\(width.rawValue)@\(offset)")
        return 0x1122_3344_5566_7788
    }
    func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        log.append("w\(width.rawValue)@\(offset)=\(String(value, radix: 16))")
    }
}

@Suite struct BusTests {
    @Test func routesByOffsetAndMasksToWidth() throws {
        let device = Recorder()
        var map = BusMap()
        try map.add(device, name: "a", base: 0x3F8, count: 8, widest: .quad)
        let bus = Bus(map)
        #expect(bus.read(0x3FA, width: .word) == 0x7788)
        bus.write(0x3F8, width: .byte, value: 0xFFFF)
        #expect(device.log == ["r2@2", "w1@0=ff"])
    }

    @Test func unclaimedReadsAllOnes() {
        let bus = Bus(BusMap())
        for width in AccessWidth.allCases { #expect(bus.read(.max, width: width) == width.mask) }
        bus.write(.max, width: .quad, value: 1)
        #expect(bus.read(5, count: 3) == 0xFF_FFFF)
    }

    @Test func splitsWhatIsTooWideLowBytesFirst() throws {
        let device = Recorder()
        var map = BusMap()
        try map.add(device, name: "a", base: 0x70, count: 2, widest: .byte)
        let bus = Bus(map)
        bus.write(0x70, width: .long, value: 0xAABB_CCDD)
        #expect(device.log == ["w1@0=dd", "w1@1=cc"])
        #expect(bus.read(0x6F, width: .word) == 0x88FF)
    }

    @Test func refusesOverlapsAndWraps() throws {
        let device = Recorder()
        var map = BusMap()
        try map.add(device, name: "a", base: 0x100, count: 0x10, widest: .byte)
        #expect(throws: BusError.overlaps(name: "b", other: "a", base: 0x10F)) {
            try map.add(device, name: "b", base: 0x10F, count: 1, widest: .byte)
        }
        #expect(throws: BusError.overlaps(name: "b", other: "a", base: 0xF0)) {
            try map.add(device, name: "b", base: 0xF0, count: 0x11, widest: .byte)
        }
        #expect(throws: BusError.wraps(name: "c", base: .max, count: 2)) {
            try map.add(device, name: "c", base: .max, count: 2, widest: .byte)
        }
        #expect(throws: BusError.empty(name: "d")) {
            try map.add(device, name: "d", base: 0, count: 0, widest: .byte)
        }
        try map.add(device, name: "e", base: .max, count: 1, widest: .byte)
        #expect(Bus(map).read(.max, width: .byte) == 0x88)
    }
}
