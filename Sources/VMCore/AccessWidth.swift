/// How many bytes one port or memory-mapped access moves.
public enum AccessWidth: UInt8, Sendable, BitwiseCopyable, CaseIterable {
    case byte = 1
    case word = 2
    case long = 4
    case quad = 8

    /// The width of `count` bytes, or nil where no single access is that wide.
    @inlinable
    public init?(bytes count: Int) {
        switch count {
        case 1: self = .byte
        case 2: self = .word
        case 4: self = .long
        case 8: self = .quad
        default: return nil
        }
    }

    @inlinable
    public var bytes: UInt64 { UInt64(rawValue) }

    /// All ones in the bits that an access of this width moves: what an undriven bus reads as.
    @inlinable
    public var mask: UInt64 { self == .quad ? .max : (1 << (bytes &* 8)) &- 1 }
}
