/// A guest physical address: where a byte lies in the guest's physical address space.
///
/// The number is the guest's to choose, so there is no trapping `+`: moving an address reports overflow.
public struct GuestAddress: Hashable, Comparable, Sendable, BitwiseCopyable {
    /// The address in bytes from physical zero.
    public var rawValue: UInt64

    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    @inlinable
    public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }

    /// The address `bytes` above this one, or nil where that is past 2^64.
    @inlinable
    public func advanced(by bytes: UInt64) -> GuestAddress? {
        let (sum, overflow) = rawValue.addingReportingOverflow(bytes)
        return overflow ? nil : GuestAddress(sum)
    }

    /// This address rounded up to a multiple of `alignment` (a power of two), or nil past 2^64.
    @inlinable
    public func alignedUp(to alignment: UInt64) -> GuestAddress? {
        guard let sum = advanced(by: alignment &- 1) else { return nil }
        return GuestAddress(sum.rawValue & ~(alignment &- 1))
    }

    /// This address rounded down to a multiple of `alignment` (a power of two).
    @inlinable
    public func alignedDown(to alignment: UInt64) -> GuestAddress {
        GuestAddress(rawValue & ~(alignment &- 1))
    }
}

extension GuestAddress: CustomStringConvertible {
    public var description: String { "0x" + String(rawValue, radix: 16) }
}

/// Bytes in the binary multiples that sizes here are given in.
public enum ByteCount {
    public static let kibibyte: UInt64 = 1 << 10
    public static let mebibyte: UInt64 = 1 << 20
    public static let gibibyte: UInt64 = 1 << 30
}
