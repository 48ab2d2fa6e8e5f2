/// One entry of a function's list of capabilities. Source: [PCI3.0 §6.7].
public struct PCICapability: Hashable, Sendable {
    public var identifier: UInt8
    /// What follows the identifier and the link to the next.
    public var body: [UInt8]
    /// The bits of `body` that a write changes; none where it ends before.
    public var writable: [UInt8]

    public init(_ identifier: UInt8, _ body: [UInt8], writable: [UInt8] = []) {
        self.identifier = identifier
        self.body = body
        self.writable = writable
    }

    /// What a function's maker defines. Source: [PCI3.0 App. H].
    public static let vendorSpecific: UInt8 = 0x09
    static let messageSignalled: UInt8 = 0x11

    /// MSI-X: the driver may write the enable bit and the function's mask. Source: [PCI3.0 §6.8.2.3].
    static func messages(vectorCount: Int, bar: Int) -> PCICapability {
        let count = UInt16(vectorCount - 1)
        let pending = UInt32(MSIXTable.pendingOffset(vectorCount: vectorCount)) | UInt32(bar)
        let body = [UInt8(count & 0xFF), UInt8(count >> 8), UInt8(bar), 0, 0, 0]
        return PCICapability(
            messageSignalled, body + (0..<4).map { UInt8(truncatingIfNeeded: pending >> UInt32(8 * $0)) }, writable: [0, 0xC0])
    }
}
