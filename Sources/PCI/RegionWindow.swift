public import VMCore

/// The bridge's memory window as a device on the bus: it passes an access to the function whose region it falls in.
///
/// Put on a bus at `bridge.window`, with a widest access of eight bytes.
public final class RegionWindow: BusDevice {
    private let bridge: PCIHostBridge

    public init(bridge: PCIHostBridge) { self.bridge = bridge }

    public func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        bridge.readMemory(bridge.window.base &+ offset, width: width)
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        bridge.writeMemory(bridge.window.base &+ offset, width: width, value: value)
    }
}
