internal import CHost

/// An Ethernet address.
public struct MACAddress: Hashable, Sendable, BitwiseCopyable {
    /// The six bytes in the low 48 bits, the first one uppermost.
    private let value: UInt64

    public init(_ a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8, _ e: UInt8, _ f: UInt8) {
        value = UInt64(a) << 40 | UInt64(b) << 32 | UInt64(c) << 24 | UInt64(d) << 16 | UInt64(e) << 8 | UInt64(f)
    }

    /// Reads six hexadecimal bytes with colons between; nil where the text is not that, or names a group of stations.
    public init?(_ text: String) {
        var bytes: [UInt8] = []
        for word in text.split(separator: ":", omittingEmptySubsequences: false) {
            guard bytes.count < 6, word.utf8.count == 2, word.utf8.allSatisfy({ Self.isHexadecimal($0) }),
                let byte = UInt8(word, radix: 16)
            else { return nil }
            bytes.append(byte)
        }
        guard bytes.count == 6, bytes[0] & 1 == 0 else { return nil }
        self.init(bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5])
    }

    /// A fresh address of one station, locally administered: 02 and five random bytes.
    public static func random() -> MACAddress {
        var number: UInt64 = 0
        _ = unsafe withUnsafeMutableBytes(of: &number) { unsafe chost_random_bytes($0.baseAddress, UInt($0.count)) }
        return MACAddress(value: 0x02 << 40 | number & 0xFF_FFFF_FFFF)
    }

    private init(value: UInt64) { self.value = value }

    private static func isHexadecimal(_ character: UInt8) -> Bool {
        switch character {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"),
            UInt8(ascii: "A")...UInt8(ascii: "F"):
            true
        default: false
        }
    }

    public var bytes: [UInt8] { (0..<6).map { UInt8(truncatingIfNeeded: value >> (40 &- UInt64($0) &* 8)) } }
}

extension MACAddress: CustomStringConvertible {
    public var description: String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
    }
}
