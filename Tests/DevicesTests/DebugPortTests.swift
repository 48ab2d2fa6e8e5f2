import Testing
import VMCore
import MonitorTesting

@testable import Devices

@Suite struct DebugPortTests {
    @Test func debugExitTakesAnyWidthAndOffset() {
        let control = RecordingControl()
        let port = DebugExit(control: control)
        port.write(offset: 0, width: .byte, value: 0x1_2345)
        port.write(offset: 0, width: .word, value: 0x1_2345)
        port.write(offset: 2, width: .word, value: 7)
        port.write(offset: 0, width: .long, value: 0xFFFF_FFFF_0000_0003)
        port.write(offset: 0, width: .quad, value: .max)
        #expect(
            control.requests == [.debugExit(0x45), .debugExit(0x2345), .debugExit(7), .debugExit(3), .debugExit(.max)])
        #expect(port.read(offset: 0, width: .long) == 0)
    }

    @Test func debugExitOnItsBus() throws {
        let control = RecordingControl()
        var map = BusMap()
        try map.add(DebugExit(control: control), name: "debug-exit", base: 0xF4, count: 4, widest: .long)
        let bus = Bus(map)
        bus.write(0xF4, width: .long, value: 0x10)
        bus.write(0xF4, width: .byte, value: 0x11)
        #expect(control.requests == [.debugExit(0x10), .debugExit(0x11)])
    }

    @Test func postCodeReadsBack() {
        let port = PostCode()
        #expect(port.last == 0)
        for value in UInt8.min ... .max {
            port.write(offset: 0, width: .byte, value: UInt64(value) | 0xFF00)
            #expect(port.last == value)
            #expect(port.read(offset: 0, width: .byte) == UInt64(value))
        }
    }

    @Test func debugConsolePrintsAndIsThere() {
        let sink = MemorySink(capacity: 3)
        let port = DebugConsole(sink: sink)
        #expect(port.read(offset: 0, width: .byte) == 0xE9)
        for byte in "hello".utf8 { port.write(offset: 0, width: .byte, value: UInt64(byte)) }
        #expect(sink.bytes == Array("hel".utf8))
        #expect(port.lostCount == 2)
        sink.drain()
        port.write(offset: 0, width: .byte, value: 0x21)
        #expect(sink.bytes == [0x21])
    }
}
