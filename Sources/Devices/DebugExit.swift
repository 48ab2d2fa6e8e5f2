public import VMCore

/// The debug-exit port, usually 4 ports at F4h: a guest that writes a number here ends its machine with it.
///
/// QEMU's `isa-debug-exit`, which test guests expect: any offset and width will do, and reads are 0. How the number becomes
/// an exit status is the command's affair. Source: [QEMU-DEBUGEXIT].
public final class DebugExit: BusDevice {
    private let control: any MachineControl

    public init(control: any MachineControl) { self.control = control }

    public func read(offset: UInt64, width: AccessWidth) -> UInt64 { 0 }

    /// Requests `debugExit` with the low 32 bits of what was written.
    public func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        control.request(.debugExit(UInt32(truncatingIfNeeded: value & width.mask)))
    }
}
