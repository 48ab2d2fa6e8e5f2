/// One bit for each of the 256 interrupt vectors: what IRR, ISR and TMR are.
///
/// Four plain words, so that copying a local APIC allocates nothing.
public struct VectorBitmap: Hashable, Sendable, BitwiseCopyable {
    private var word0: UInt64 = 0, word1: UInt64 = 0, word2: UInt64 = 0, word3: UInt64 = 0

    public init() {}

    private subscript(word index: UInt8) -> UInt64 {
        get {
            switch index & 3 {
            case 0: word0
            case 1: word1
            case 2: word2
            default: word3
            }
        }
        set {
            switch index & 3 {
            case 0: word0 = newValue
            case 1: word1 = newValue
            case 2: word2 = newValue
            default: word3 = newValue
            }
        }
    }

    public var isEmpty: Bool { word0 | word1 | word2 | word3 == 0 }

    public func contains(_ vector: UInt8) -> Bool { self[word: vector >> 6] &>> UInt64(vector & 63) & 1 != 0 }

    public mutating func insert(_ vector: UInt8) { self[word: vector >> 6] |= 1 &<< UInt64(vector & 63) }

    public mutating func remove(_ vector: UInt8) { self[word: vector >> 6] &= ~(1 &<< UInt64(vector & 63)) }

    /// The highest vector in it, which is the one of highest priority.
    public var highest: UInt8? {
        if word3 != 0 { return 255 &- UInt8(truncatingIfNeeded: word3.leadingZeroBitCount) }
        if word2 != 0 { return 191 &- UInt8(truncatingIfNeeded: word2.leadingZeroBitCount) }
        if word1 != 0 { return 127 &- UInt8(truncatingIfNeeded: word1.leadingZeroBitCount) }
        if word0 != 0 { return 63 &- UInt8(truncatingIfNeeded: word0.leadingZeroBitCount) }
        return nil
    }

    /// One of the eight 32-bit registers that software sees it as; the first holds vectors 0 to 31.
    public subscript(register index: UInt8) -> UInt32 {
        get { UInt32(truncatingIfNeeded: self[word: index >> 1] &>> (UInt64(index & 1) &* 32)) }
        set {
            let shift = UInt64(index & 1) &* 32
            self[word: index >> 1] =
                self[word: index >> 1] & ~(0xFFFF_FFFF &<< shift) | UInt64(newValue) &<< shift
        }
    }
}
