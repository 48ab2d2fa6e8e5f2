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
}

extension GuestAddress: CustomStringConvertible {
    public var description: String { "0x" + String(rawValue, radix: 16) }
}

/// Bytes in the binary multiples that sizes here are given in.
public enum ByteCount {
    public static let mebibyte: UInt64 = 1 << 20
    public static let gibibyte: UInt64 = 1 << 30
}
