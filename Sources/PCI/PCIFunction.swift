public import VMCore

/// A function behind the host bridge: its configuration space, and what its regions do.
///
/// Called on vCPUs' threads, several at a time, with no lock of the bridge held.
public protocol PCIFunction: AnyObject, Sendable {
    var configuration: FunctionConfiguration { get }

    /// Any width at any offset of the 4 KiB. A function overrides it whose space is more than bytes.
    func readConfiguration(offset: UInt16, width: AccessWidth) -> UInt64

    /// - Returns: whether a region appeared, moved or vanished: what `configuration.write` says.
    func writeConfiguration(offset: UInt16, width: AccessWidth, value: UInt64) -> Bool

    /// Reads from a region that is the function's own: `offset + width` lies within its size. The MSI-X table's region is
    /// served without it.
    func read(bar: Int, offset: UInt64, width: AccessWidth) -> UInt64

    func write(bar: Int, offset: UInt64, width: AccessWidth, value: UInt64)

    /// Where a driver's notifications are written; nil for a function without.
    var doorbells: DoorbellRegion? { get }
}

extension PCIFunction {
    public func readConfiguration(offset: UInt16, width: AccessWidth) -> UInt64 {
        configuration.read(offset: offset, width: width)
    }

    public func writeConfiguration(offset: UInt16, width: AccessWidth, value: UInt64) -> Bool {
        configuration.write(offset: offset, width: width, value: value)
    }

    public var doorbells: DoorbellRegion? { nil }
}
