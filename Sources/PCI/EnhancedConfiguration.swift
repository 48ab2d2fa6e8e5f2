public import VMCore

/// The enhanced configuration access mechanism: 4 KiB of memory for each function of bus 0.
/// ```
/// 19:15 device | 14:12 function | 11:0 register
/// ```
/// Put on a bus with a widest access of four bytes. Source: [PCIE4 §7.2.2].
public final class EnhancedConfiguration: BusDevice {
    /// Bytes of one bus.
    public static let length: UInt64 = 1 << 20

    private let bridge: PCIHostBridge

    public init(bridge: PCIHostBridge) { self.bridge = bridge }

    /// Whether an access stays in one function's 4 KiB.
    private static func isWhole(_ offset: UInt64, _ width: AccessWidth) -> Bool {
        offset & 0xFFF &+ width.bytes <= 0x1000
    }

    /// nil where no function answers.
    private static func place(_ offset: UInt64) -> (device: Int, register: UInt16)? {
        guard offset < length, offset >> 12 & 7 == 0 else { return nil }
        return (Int(offset >> 15), UInt16(offset & 0xFFF))
    }

    public func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard Self.isWhole(offset, width) else {
            var value: UInt64 = 0
            for index in 0..<width.bytes { value |= read(offset: offset &+ index, width: .byte) << (index &* 8) }
            return value
        }
        guard let place = Self.place(offset) else { return width.mask }
        return bridge.readConfiguration(device: place.device, offset: place.register, width: width) & width.mask
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard Self.isWhole(offset, width) else {
            for index in 0..<width.bytes { write(offset: offset &+ index, width: .byte, value: value >> (index &* 8)) }
            return
        }
        guard let place = Self.place(offset) else { return }
        bridge.writeConfiguration(device: place.device, offset: place.register, width: width, value: value & width.mask)
    }
}
