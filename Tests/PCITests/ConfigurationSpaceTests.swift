import Testing
import VMCore
import MonitorTesting

@testable import PCI

@Suite struct ConfigurationSpaceTests {
    private func bus(_ functions: TestFunction...) throws -> PCIBus { try PCIBus(functions) }

    @Test func headerSaysWhoItIs() throws {
        let bus = try bus(TestFunction(line: UnconnectedLine()), TestFunction(bars: []))
        #expect(bus.read(device: 1, 0x00, .long) == 0x5678_1234)
        #expect(bus.read(device: 1, 0x08, .long) == 0xABCD_EF09)
        #expect(bus.read(device: 1, 0x0C, .long) == 0)  // one function, an ordinary header
        #expect(bus.read(device: 1, 0x2C, .long) == 0x6789_2345)
        #expect(bus.read(device: 1, 0x3C, .long) == 0x0000_01FF)  // INTA, no line yet
        #expect(bus.read(device: 2, 0x3C, .word) == 0)  // no pin
        // Memory is decoded where there is any.
        #expect(bus.read(device: 1, 0x04, .word) == 2)
        #expect(bus.read(device: 2, 0x04, .word) == 0)
    }

    @Test func theBridgeLooksLikeOne() throws {
        let bus = try bus()
        #expect(bus.read(device: 0, 0x08, .long) >> 8 == 0x06_00_00)
        #expect(bus.read(device: 0, 0x0E, .byte) == 0)
        #expect(bus.read(device: 0, 0x00, .word) != 0xFFFF)
        for bar in 0..<6 { #expect(bus.address(device: 0, bar: bar) == 0) }
    }

    @Test(arguments: [
        BaseAddressRegister(index: 2, size: 0x4000), BaseAddressRegister(index: 5, size: 16),
        BaseAddressRegister(index: 0, size: 1 << 20, isPrefetchable: true),
    ])
    func sizing32(bar: BaseAddressRegister) throws {
        let bus = try bus(TestFunction(bars: [bar]))
        let register = 0x10 + UInt64(bar.index) * 4
        let assigned = bus.read(device: 1, register, .long)
        let type: UInt32 = bar.isPrefetchable ? 8 : 0
        #expect(assigned & 0xF == type)
        bus.write(device: 1, register, .long, .max)
        #expect(bus.read(device: 1, register, .long) == UInt32(truncatingIfNeeded: ~(bar.size - 1)) | type)
        bus.write(device: 1, register, .long, assigned)
        #expect(bus.read(device: 1, register, .long) == assigned)
        for other in 0..<6 where other != bar.index {
            bus.write(device: 1, 0x10 + UInt64(other) * 4, .long, .max)
            #expect(bus.read(device: 1, 0x10 + UInt64(other) * 4, .long) == 0)
        }
    }

    @Test func sizing64() throws {
        let bus = try bus(
            TestFunction(bars: [BaseAddressRegister(index: 2, size: 0x2_0000, is64Bit: true, isPrefetchable: true)]))
        #expect(bus.read(device: 1, 0x18, .long) & 0xF == 0xC)
        #expect(bus.read(device: 1, 0x1C, .long) == 0)  // assigned below 4 GiB
        bus.write(device: 1, 0x18, .long, .max)
        bus.write(device: 1, 0x1C, .long, .max)
        #expect(bus.read(device: 1, 0x18, .long) == 0xFFFE_000C)
        #expect(bus.read(device: 1, 0x1C, .long) == .max)
    }

    @Test func largeRegionsOf64BitsHaveAllZeroLowHalves() throws {
        var space = ConfigurationSpace(
            PCIIdentity(vendor: 1, device: 2, revision: 0, classCode: 0),
            bars: [BaseAddressRegister(index: 0, size: 1 << 33, is64Bit: true)], hasInterruptPin: false)
        space.write(offset: 0x10, width: .quad, value: .max)
        #expect(space.read(offset: 0x10, width: .long) == 4)
        #expect(space.read(offset: 0x14, width: .long) == 0xFFFF_FFFE)
        space.write(offset: 0x04, width: .byte, value: 2)
        #expect(space.decoded?.first?.last == .max)
    }

    @Test func onlyWritableBitsChange() throws {
        let bus = try bus(TestFunction(line: UnconnectedLine(), sink: RecordingMessages()))
        let before = (0..<64).map { bus.read(device: 1, $0 * 4, .long) }
        for register in 0..<64 where register != 1 { bus.write(device: 1, UInt64(register) * 4, .long, .max) }
        bus.write(device: 1, 0x04, .long, .max)
        for (register, old) in before.enumerated() {
            let changed = bus.read(device: 1, UInt64(register) * 4, .long) ^ old
            let allowed: UInt32 =
                switch register {
                case 1: 0x0406  // memory, bus master, interrupt disable
                case 3: 0xFF  // cache line size
                case 4: 0xFFFF_F000  // the function's region
                case 9: 0xFFFF_F000  // the MSI-X region
                case 15: 0xFF  // interrupt line
                case 17: 0xF0  // the test's own capability
                case 18: 0xC000_0000  // MSI-X control
                default: 0
                }
            #expect(changed & ~allowed == 0, "register \(register * 4)")
        }
        #expect(bus.read(device: 1, 0x3C, .byte) == 0xFF)
        bus.write(device: 1, 0x3C, .byte, 11)
        #expect(bus.read(device: 1, 0x3C, .byte) == 11)
    }

    @Test func capabilitiesAreAList() throws {
        let bus = try bus(TestFunction(sink: RecordingMessages()), TestFunction())
        #expect(bus.capabilities(device: 1).map(\.identifier) == [0x09, 0x11])
        #expect(bus.capabilities(device: 2).map(\.identifier) == [0x09])
        #expect(bus.capabilities(device: 0).isEmpty)
        #expect(bus.capabilities(device: 1).allSatisfy { $0.place >= 0x40 && $0.place % 4 == 0 })
        bus.write(device: 1, 0x44, .long, .max)
        #expect(bus.read(device: 1, 0x44, .long) == 0x04_03F2)
    }

    /// Either mechanism, each width, at each offset: always the same bytes.
    @Test func widthsAndMechanismsAgree() throws {
        let bus = try bus(TestFunction(line: UnconnectedLine(), sink: RecordingMessages()))
        let bytes = (0..<256).map { bus.read(device: 1, $0, .byte) }
        for offset in 0..<UInt64(252) {
            for width in [AccessWidth.byte, .word, .long] {
                let wanted = (0..<Int(width.rawValue)).reduce(UInt32(0)) { $0 | bytes[Int(offset) + $1] << UInt32(8 * $1) }
                #expect(bus.read(device: 1, offset, width) == wanted)
                if offset % width.bytes == 0 { #expect(bus.readByPorts(device: 1, offset, width) == wanted) }
            }
        }
        bus.writeByPorts(device: 1, 0x12, .word, 0xD123)
        #expect(bus.read(device: 1, 0x10, .long) >> 16 == 0xD123)
        bus.write(device: 1, 0x11, .byte, 0xFF)
        #expect(bus.readByPorts(device: 1, 0x10, .long) == 0xD123_F000)
    }

    @Test func beyond256BytesThereIsNothing() throws {
        let bus = try bus(TestFunction())
        for register in stride(from: UInt64(256), to: 4096, by: 4) {
            bus.write(device: 1, register, .long, .max)
            #expect(bus.read(device: 1, register, .long) == 0)
        }
        #expect(bus.read(device: 1, 254, .long) == 0)  // across the end
    }
}

@Suite struct ConfigurationMechanismTests {
    @Test func absentPlacesReadAsOnes() throws {
        let bus = try PCIBus([TestFunction()])
        for device in 2..<32 {
            #expect(bus.read(device: device, 0, .long) == .max && bus.readByPorts(device: device, 0, .word) == 0xFFFF)
        }
        for function in 1..<UInt64(8) {
            #expect(bus.memory.read(PCIBus.ecamBase + 1 << 15 + function << 12, width: .long) == 0xFFFF_FFFF)
            bus.ports.write(0xCF8, width: .long, value: 1 << 31 | 1 << 11 | function << 8)
            #expect(bus.ports.read(0xCFC, width: .long) == 0xFFFF_FFFF)
        }
        bus.ports.write(0xCF8, width: .long, value: 1 << 31 | 1 << 16)  // bus 1
        #expect(bus.ports.read(0xCFC, width: .long) == 0xFFFF_FFFF)
        bus.ports.write(0xCF8, width: .long, value: 0)  // not enabled
        #expect(bus.ports.read(0xCFC, width: .long) == 0xFFFF_FFFF)
        bus.ports.write(0xCFC, width: .long, value: 0)
    }

    /// What Linux does to find out whether the mechanism is there.
    @Test func linuxFindsMechanismOne() throws {
        let bus = try PCIBus([])
        bus.ports.write(0xCFB, width: .byte, value: 1)
        let old = bus.ports.read(0xCF8, width: .long)
        bus.ports.write(0xCF8, width: .long, value: 0x8000_0000)
        #expect(bus.ports.read(0xCF8, width: .long) == 0x8000_0000)
        bus.ports.write(0xCF8, width: .long, value: old)
        bus.ports.write(0xCF8, width: .long, value: 0xFFFF_FFFF)
        #expect(bus.ports.read(0xCF8, width: .long) == 0x80FF_FFFC)
    }

    /// A machine without a bus: the mechanism is found, and nothing behind it.
    @Test func thereMayBeNoBus() throws {
        let port = BytePort()
        var map = BusMap()
        try map.add(
            ConfigurationPorts(bridge: nil, resetControl: port), name: "PCI configuration", base: ConfigurationPorts.base,
            count: ConfigurationPorts.length, widest: .long)
        let ports = Bus(map)
        for device in 0..<UInt64(32) {
            ports.write(0xCF8, width: .long, value: 1 << 31 | device << 11)
            #expect(ports.read(0xCF8, width: .long) == 1 << 31 | device << 11)
            #expect(ports.read(0xCFC, width: .long) == 0xFFFF_FFFF && ports.read(0xCFE, width: .word) == 0xFFFF)
            ports.write(0xCFC, width: .long, value: 0)
        }
        ports.write(0xCF9, width: .byte, value: 6)
        #expect(port.written.withLock { $0 } == [6])
    }

    @Test func resetControlIsInside() throws {
        let port = BytePort()
        let bus = try PCIBus([TestFunction()], resetControl: port)
        func written() -> [UInt64] {
            port.written.withLock { list in
                defer { list = [] }
                return list
            }
        }
        bus.ports.write(0xCF8, width: .long, value: 0x8000_0600)
        #expect(written().isEmpty)  // 32 bits at 0xCF8 are the address, whatever its second byte
        bus.ports.write(0xCF9, width: .byte, value: 6)
        #expect(written() == [6])
        #expect(bus.ports.read(0xCF8, width: .long) == 0x8000_0600)  // and a byte there is not
        #expect(bus.ports.read(0xCF9, width: .byte) == 0x5A)
        // Other widths are taken apart, as they were when the port stood alone.
        bus.ports.write(0xCF8, width: .word, value: 0x0EAA)
        bus.ports.write(0xCF9, width: .word, value: 0xBB02)
        bus.ports.write(0xCF7, width: .long, value: 0xAA_04_AA_AA)
        #expect(written() == [0x0E, 2, 4])
        #expect(bus.ports.read(0xCF8, width: .word) == 0x5AFF)
        for offset in [0xCF8, 0xCFA, 0xCFB] as [UInt64] {
            bus.ports.write(offset, width: .byte, value: 6)
            #expect(bus.ports.read(offset, width: .byte) == 0xFF)
        }
        #expect(written().isEmpty)
        let bare = try PCIBus([])
        bare.ports.write(0xCF9, width: .byte, value: 6)
        #expect(bare.ports.read(0xCF9, width: .byte) == 0xFF)
    }
}
