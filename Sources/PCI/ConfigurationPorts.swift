internal import Synchronization
public import VMCore

/// Configuration mechanism #1: ports 0xCF8 to 0xCFF.
/// ```
/// CF8  31 enable | 23:16 bus | 15:11 device | 10:8 function | 7:2 register    32 bits at once, or not this register at all
/// CFC  a window on the four bytes of that register, 1, 2 or 4 bytes wide
/// ```
/// The reset control register is the byte at 0xCF9, inside the address register: the chipset tells them apart by the width of
/// the access. So this device takes all eight ports, and passes on what is not for it.
///
/// Put on a bus with a widest access of four bytes. Source: [PCI3.0 §3.2.2.3.2].
public final class ConfigurationPorts: BusDevice {
    public static let base: UInt64 = 0xCF8
    public static let length: UInt64 = 8

    private let bridge: PCIHostBridge?
    private let resetControl: (any BusDevice)?
    private let address = Atomic<UInt32>(0)

    /// - Parameters:
    ///   - bridge: nil for a machine without a bus: the mechanism is there, and nothing answers.
    ///   - resetControl: what is at 0xCF9, one byte wide; nil for nothing.
    public init(bridge: PCIHostBridge?, resetControl: (any BusDevice)?) {
        self.bridge = bridge
        self.resetControl = resetControl
    }

    /// Reserved bits and the two lowest read as zero.
    private static let addressMask: UInt32 = 0x80FF_FFFC
    private static let resetOffset: UInt64 = 1
    private static let dataOffset: UInt64 = 4

    /// The place that the address register selects; nil where none answers: disabled, another bus, another function.
    private func place(_ offset: UInt64) -> (device: Int, register: UInt16)? {
        let address = address.load(ordering: .relaxed)
        guard address >> 31 == 1, address >> 16 & 0xFF == 0, address >> 8 & 7 == 0 else { return nil }
        return (Int(address >> 11 & 0x1F), UInt16(address & 0xFC) | UInt16(truncatingIfNeeded: offset & 3))
    }

    public func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        if offset == 0, width == .long { return UInt64(address.load(ordering: .relaxed)) }
        if offset >= Self.dataOffset, offset &+ width.bytes <= Self.length {
            guard let bridge, let place = place(offset) else { return width.mask }
            return bridge.readConfiguration(device: place.device, offset: place.register, width: width) & width.mask
        }
        if width == .byte {
            guard offset == Self.resetOffset, let resetControl else { return 0xFF }
            return resetControl.read(offset: 0, width: .byte) & 0xFF
        }
        var value: UInt64 = 0
        for index in 0..<width.bytes { value |= read(offset: offset &+ index, width: .byte) << (index &* 8) }
        return value
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        if offset == 0, width == .long {
            return address.store(UInt32(truncatingIfNeeded: value) & Self.addressMask, ordering: .relaxed)
        }
        if offset >= Self.dataOffset, offset &+ width.bytes <= Self.length {
            guard let bridge, let place = place(offset) else { return }
            return bridge.writeConfiguration(
                device: place.device, offset: place.register, width: width, value: value & width.mask)
        }
        if width == .byte {
            if offset == Self.resetOffset { resetControl?.write(offset: 0, width: .byte, value: value & 0xFF) }
            return
        }
        for index in 0..<width.bytes { write(offset: offset &+ index, width: .byte, value: value >> (index &* 8)) }
    }
}
