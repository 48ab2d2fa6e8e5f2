public import VMCore

/// Where in a function's regions its doorbells are, one after the other: a write to one says no more than which it is.
public struct DoorbellRegion: Hashable, Sendable {
    public var bar: Int
    public var offset: UInt64
    /// Bytes from one doorbell to the next.
    public var stride: UInt64
    public var count: UInt64

    public init(bar: Int, offset: UInt64, stride: UInt64, count: UInt64) {
        self.bar = bar
        self.offset = offset
        self.stride = stride
        self.count = count
    }
}

/// Doorbells in the guest's physical address space.
public struct DoorbellRange: Hashable, Sendable {
    public var base: GuestAddress
    public var stride: UInt64
    public var count: UInt64

    public init(base: GuestAddress, stride: UInt64, count: UInt64) {
        self.base = base
        self.stride = stride
        self.count = count
    }

    /// The address of one of them.
    public subscript(_ index: UInt64) -> GuestAddress { GuestAddress(base.rawValue &+ index &* stride) }
}

/// Who wants to know where doorbells are: an engine that can take a write to one without leaving the guest.
///
/// Called with the bridge's updates locked, one call after the other, on whichever thread wrote the configuration space: it
/// must not use the bridge. What is passed on at an address that is told of here is exactly what the function would be passed
/// itself, but for writes that are on their way while a doorbell vanishes.
public protocol DoorbellObserver: AnyObject, Sendable {
    /// A function's doorbells were at `old`, and are at `new` from now on; nil is nowhere.
    ///
    /// - Parameter device: the function's place on the bus.
    func doorbellsMoved(of function: any PCIFunction, device: Int, from old: DoorbellRange?, to new: DoorbellRange?)
}
