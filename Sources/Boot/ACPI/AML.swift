/// ACPI Machine Language: terms as the bytes they encode to, built from names the ACPI specification uses.
///
/// Only what describing devices needs: no bytecode is ever interpreted here.
/// Source: [ACPI6.5 §20.2] AML grammar.
public struct AML: Hashable, Sendable {
    public var bytes: [UInt8]

    public init(bytes: [UInt8] = []) { self.bytes = bytes }

    /// Terms one after the other.
    public init(_ terms: [AML]) { bytes = terms.flatMap(\.bytes) }

    // MARK: Data

    /// An integer in its shortest encoding.
    public static func integer(_ value: UInt64) -> AML {
        switch value {
        case 0: AML(bytes: [0x00])  // ZeroOp
        case 1: AML(bytes: [0x01])  // OneOp
        case ...0xFF: AML(bytes: [0x0A] + little(value, 1))
        case ...0xFFFF: AML(bytes: [0x0B] + little(value, 2))
        case ...0xFFFF_FFFF: AML(bytes: [0x0C] + little(value, 4))
        default: AML(bytes: [0x0E] + little(value, 8))
        }
    }

    /// An ASCII string; a byte that ASCII strings cannot hold becomes "?".
    public static func string(_ text: String) -> AML {
        AML(bytes: [0x0D] + text.utf8.map { (0x01...0x7F).contains($0) ? $0 : 0x3F } + [0])
    }

    public static func buffer(_ contents: [UInt8]) -> AML {
        AML(bytes: [0x11] + sized(integer(UInt64(contents.count)).bytes + contents))
    }

    /// At most 255 elements.
    public static func package(_ elements: [AML]) -> AML {
        precondition(elements.count <= 255)
        return AML(bytes: [0x12] + sized([UInt8(elements.count)] + AML(elements).bytes))
    }

    /// A compressed PnP identifier: three letters and four hexadecimal digits, "PNP0501".
    /// Source: [ACPI6.5 §19.3.4] EISAID macro.
    public static func eisaID(_ text: StaticString) -> AML {
        let characters = Array("\(text)".utf8)
        precondition(characters.count == 7)
        let letters = characters[0..<3].map { UInt32($0 - 0x40) }
        let digits = String(decoding: characters[3...], as: UTF8.self)
        guard let product = UInt32(digits, radix: 16) else { preconditionFailure("no PnP identifier") }
        let value = letters[0] << 26 | letters[1] << 21 | letters[2] << 16 | product
        return AML(bytes: [0x0C] + little(UInt64(value.byteSwapped), 4))
    }

    /// A reference to a named object.
    public static func reference(_ path: String) -> AML { AML(bytes: nameString(path)) }

    // MARK: Named objects

    public static func name(_ path: String, _ value: AML) -> AML {
        AML(bytes: [0x08] + nameString(path) + value.bytes)
    }

    public static func scope(_ path: String, _ terms: [AML]) -> AML {
        AML(bytes: [0x10] + sized(nameString(path) + AML(terms).bytes))
    }

    public static func device(_ path: String, _ terms: [AML]) -> AML {
        AML(bytes: [0x5B, 0x82] + sized(nameString(path) + AML(terms).bytes))
    }

    /// - Parameter arguments: 0 to 7.
    public static func method(_ path: String, arguments: UInt8 = 0, serialized: Bool = false, _ terms: [AML]) -> AML {
        let flags = arguments & 7 | (serialized ? 8 : 0)
        return AML(bytes: [0x14] + sized(nameString(path) + [flags] + AML(terms).bytes))
    }

    public static func `return`(_ value: AML) -> AML { AML(bytes: [0xA4] + value.bytes) }

    // MARK: Resources

    /// A resource template: descriptors and the end tag.
    public static func resources(_ descriptors: [Resource]) -> AML {
        buffer(descriptors.flatMap(\.bytes) + [0x79, 0])  // a checksum of zero: not checked
    }

    // MARK: Encoding

    static func little(_ value: UInt64, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
    }

    /// A name: segments of four characters, shorter ones filled with underscores; "\\" for the root, "^" for a parent.
    static func nameString(_ path: String) -> [UInt8] {
        var rest = Substring(path)
        var bytes: [UInt8] = []
        while let first = rest.utf8.first, first == 0x5C || first == 0x5E {
            bytes.append(first)
            rest.removeFirst()
        }
        let segments = rest.split(separator: ".")
        switch segments.count {
        case 0: return bytes + [0]
        case 1: break
        case 2: bytes.append(0x2E)
        default: bytes += [0x2F, UInt8(segments.count)]
        }
        for segment in segments {
            precondition(segment.utf8.count <= 4, "an AML name segment has four characters")
            bytes += Array(segment.utf8) + [UInt8](repeating: 0x5F, count: 4 - segment.utf8.count)
        }
        return bytes
    }

    /// `contents` behind their length, which counts its own bytes too. Source: [ACPI6.5 §20.2.4] PkgLength.
    static func sized(_ contents: [UInt8]) -> [UInt8] {
        if contents.count + 1 < 1 << 6 { return [UInt8(contents.count + 1)] + contents }
        for extra in 1...3 {
            let total = contents.count + 1 + extra
            guard total < 1 << (4 + 8 * extra) else { continue }
            let first = UInt8(extra << 6) | UInt8(total & 0xF)
            return [first] + little(UInt64(total >> 4), extra) + contents
        }
        preconditionFailure("an AML package is smaller than 256 MiB")
    }
}

/// One descriptor of a resource template. Source: [ACPI6.5 §6.4].
public struct Resource: Hashable, Sendable {
    var bytes: [UInt8]

    /// `count` ports from `base`, 16-bit decoded.
    public static func ports(_ base: UInt16, count: UInt8) -> Resource {
        let address = AML.little(UInt64(base), 2)
        return Resource(bytes: [0x47, 1] + address + address + [1, count])
    }

    /// An ISA interrupt: edge-triggered, active high, not shared. 0 to 15.
    public static func isaInterrupt(_ irq: UInt8) -> Resource {
        Resource(bytes: [0x22] + AML.little(1 << UInt64(irq & 15), 2))
    }

    /// Any global system interrupt.
    public static func interrupt(
        gsi: UInt32, edgeTriggered: Bool, activeLow: Bool = false, shared: Bool = false
    ) -> Resource {
        let flags: UInt8 = 1 | (edgeTriggered ? 2 : 0) | (activeLow ? 4 : 0) | (shared ? 8 : 0)
        return Resource(bytes: [0x89, 6, 0, flags, 1] + AML.little(UInt64(gsi), 4))
    }

    /// Memory at a fixed 32-bit address.
    public static func memory32(_ base: UInt32, count: UInt32, writable: Bool = true) -> Resource {
        Resource(
            bytes: [0x86, 9, 0, writable ? 1 : 0] + AML.little(UInt64(base), 4) + AML.little(UInt64(count), 4))
    }

    /// A window of bus numbers that a bridge passes on.
    public static func busNumbers(first: UInt16, last: UInt16) -> Resource {
        window(0x88, type: 2, flags: 0, first: UInt64(first), last: UInt64(last), bytes: 2)
    }

    /// A window of ports that a bridge passes on.
    public static func portWindow(first: UInt16, last: UInt16) -> Resource {
        window(0x88, type: 1, flags: 3, first: UInt64(first), last: UInt64(last), bytes: 2)
    }

    /// A window of memory below 4 GiB that a bridge passes on, uncached and writable.
    public static func memoryWindow32(first: UInt32, last: UInt32) -> Resource {
        window(0x87, type: 0, flags: 1, first: UInt64(first), last: UInt64(last), bytes: 4)
    }

    /// A window of memory anywhere that a bridge passes on, uncached and writable.
    public static func memoryWindow64(first: UInt64, last: UInt64) -> Resource {
        window(0x8A, type: 0, flags: 1, first: first, last: last, bytes: 8)
    }

    /// An address space descriptor: produced, positively decoded, both ends fixed. Source: [ACPI6.5 §6.4.3.5].
    private static func window(
        _ tag: UInt8, type: UInt8, flags: UInt8, first: UInt64, last: UInt64, bytes count: Int
    ) -> Resource {
        let numbers = [0, first, last, 0, last &- first &+ 1].flatMap { AML.little($0, count) }
        return Resource(
            bytes: [tag] + AML.little(UInt64(3 + numbers.count), 2) + [type, 0x0C, flags] + numbers)
    }
}
