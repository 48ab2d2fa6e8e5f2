import Synchronization
import VMCore
import MonitorTesting

@testable import PCI

/// A function that remembers what reached its regions.
final class TestFunction: PCIFunction {
    struct Access: Hashable {
        var bar: Int
        var offset: UInt64
        var width: AccessWidth
        /// nil for a read.
        var value: UInt64?
    }

    let configuration: FunctionConfiguration
    let doorbells: DoorbellRegion?
    private let log = Mutex<[Access]>([])
    /// Called in a region's handler.
    let onAccess = Mutex<(@Sendable () -> Void)?>(nil)

    init(
        bars: [BaseAddressRegister] = [BaseAddressRegister(index: 0, size: 0x1000)], line: (any InterruptLine)? = nil,
        sink: (any InterruptMessageSink)? = nil, vectorCount: Int = 4, messageBAR: Int = 5, doorbells: DoorbellRegion? = nil
    ) {
        configuration = FunctionConfiguration(
            PCIIdentity(
                vendor: 0x1234, device: 0x5678, revision: 9, classCode: 0xABCDEF, subsystemVendor: 0x2345, subsystem: 0x6789),
            bars: bars, capabilities: [PCICapability(PCICapability.vendorSpecific, [7, 1, 2, 3, 4], writable: [0, 0, 0xF0])],
            line: line, sink: sink, vectorCount: vectorCount, messageBAR: messageBAR)
        self.doorbells = doorbells
    }

    func read(bar: Int, offset: UInt64, width: AccessWidth) -> UInt64 {
        note(Access(bar: bar, offset: offset, width: width))
        return 0x8877_6655_4433_2211
    }

    func write(bar: Int, offset: UInt64, width: AccessWidth, value: UInt64) {
        note(Access(bar: bar, offset: offset, width: width, value: value))
    }

    private func note(_ access: Access) {
        log.withLock { $0.append(access) }
        onAccess.withLock { $0 }?()
    }

    func take() -> [Access] {
        log.withLock { log in
            defer { log = [] }
            return log
        }
    }
}

/// A port that remembers its last byte.
final class BytePort: BusDevice {
    let written = Mutex<[UInt64]>([])
    func read(offset: UInt64, width: AccessWidth) -> UInt64 { 0xFFFF_FFFF_FFFF_FF5A }
    func write(offset: UInt64, width: AccessWidth, value: UInt64) { written.withLock { $0.append(value) } }
}
