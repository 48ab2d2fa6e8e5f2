/// Who a function says that it is: the read-only part of its header. Source: [PCI3.0 §6.2.1].
public struct PCIIdentity: Hashable, Sendable {
    public var vendor: UInt16
    public var device: UInt16
    public var revision: UInt8
    /// Base class, sub-class and programming interface: 0x020000 is an Ethernet controller.
    public var classCode: UInt32
    public var subsystemVendor: UInt16
    public var subsystem: UInt16

    public init(
        vendor: UInt16, device: UInt16, revision: UInt8, classCode: UInt32, subsystemVendor: UInt16 = 0, subsystem: UInt16 = 0
    ) {
        self.vendor = vendor
        self.device = device
        self.revision = revision
        self.classCode = classCode
        self.subsystemVendor = subsystemVendor
        self.subsystem = subsystem
    }
}

/// A memory region that a function wants addresses for. Source: [PCI3.0 §6.2.5.1].
public struct BaseAddressRegister: Hashable, Sendable {
    /// 0 to 5; a 64-bit one takes the next too.
    public let index: Int
    /// Bytes: a power of two, 16 at least.
    public let size: UInt64
    public let is64Bit: Bool
    public let isPrefetchable: Bool

    public init(index: Int, size: UInt64, is64Bit: Bool = false, isPrefetchable: Bool = false) {
        precondition((0...(is64Bit ? 4 : 5)).contains(index), "a function has six base address registers")
        precondition(size >= 16 && size & (size - 1) == 0 && (is64Bit || size <= 1 << 31), "no size of a region")
        self.index = index
        self.size = size
        self.is64Bit = is64Bit
        self.isPrefetchable = isPrefetchable
    }
}
