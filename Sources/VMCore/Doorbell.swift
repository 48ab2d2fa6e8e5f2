/// A place in the address space that a guest writes to wake a device: nothing is read from it, and what is written does not
/// have to be looked at before the guest goes on.
public struct Doorbell: Hashable, Sendable, BitwiseCopyable {
    public var address: GuestAddress
    /// How wide the write is; others go to the bus, as all would.
    public var width: AccessWidth
    /// The value that rings it; nil for any.
    public var value: UInt32?

    public init(address: GuestAddress, width: AccessWidth, value: UInt32? = nil) {
        self.address = address
        self.width = width
        self.value = value
    }
}
