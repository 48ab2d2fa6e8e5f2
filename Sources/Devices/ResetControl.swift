import Synchronization
public import VMCore

/// The chipset's reset control register: one byte-wide port, 0xCF9 on a PC.
/// ```
///  7 6 5 4      3            2            1       0
///  0 0 0 0  power cycle  reset CPU   hard reset   0
/// ```
/// Raising bit 2 resets; every kind of reset is the same one here. Bits 1 and 3 read as written.
/// Source: [ICH9 §13.7.5] RST_CNT.
public final class ResetControl: BusDevice {
    private static let resetCPU: UInt8 = 0x04
    private static let kept: UInt8 = 0x0A

    private let machine: any MachineControl
    private let control = Mutex<UInt8>(0)

    public init(machine: any MachineControl) { self.machine = machine }

    public func read(offset: UInt64, width: AccessWidth) -> UInt64 { control.withLock { UInt64($0) } }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        let value = UInt8(truncatingIfNeeded: value)
        // The reset clears bit 2, so each write of a 1 is a rising edge.
        control.withLock { $0 = value & Self.kept }
        if value & Self.resetCPU != 0 { machine.request(.reset) }
    }
}
