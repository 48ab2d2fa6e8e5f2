/// A register an instruction can name: a class and a number within it.
///
/// The number is the architectural one, so that `number` indexes a register file directly; `ah` to `bh` carry the
/// number of the register they are part of (`ah` is class `.high8`, number 0).
public struct Register: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
    /// `class << 4 | number`.
    public let rawValue: UInt8

    @inlinable
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    @inlinable
    public init(_ registerClass: Class, _ number: UInt8) {
        rawValue = registerClass.rawValue &<< 4 | (number & 15)
    }

    /// Kinds of register. General registers have one class for each width.
    public enum Class: UInt8, Sendable, BitwiseCopyable, CaseIterable {
        /// AL, CL, DL, BL, SPL, BPL, SIL, DIL, R8B to R15B.
        case low8
        /// AH, CH, DH, BH: numbers 0 to 3.
        case high8
        case general16
        case general32
        case general64
        /// ES, CS, SS, DS, FS, GS: numbers 0 to 5.
        case segment
        case control
        case debug
        /// ST(0) to ST(7), counted from the top of the stack.
        case x87
        case mmx
        case xmm
        case ymm
        /// IP (0), EIP (1), RIP (2): only as the base of a memory operand.
        case instructionPointer
        /// No register.
        case none = 15
    }

    @inlinable
    public var number: UInt8 { rawValue & 15 }

    @inlinable
    public var registerClass: Class { Class(rawValue: rawValue &>> 4) ?? .none }

    /// No register: an absent base or index.
    @inlinable
    public static var none: Self { Self(rawValue: 0xFF) }

    @inlinable
    public static var al: Self { Self(.low8, 0) }
    @inlinable
    public static var cl: Self { Self(.low8, 1) }
    @inlinable
    public static var eax: Self { Self(.general32, 0) }
    @inlinable
    public static var rax: Self { Self(.general64, 0) }
    @inlinable
    public static var rsp: Self { Self(.general64, 4) }
    @inlinable
    public static var es: Self { Self(.segment, 0) }
    @inlinable
    public static var cs: Self { Self(.segment, 1) }
    @inlinable
    public static var ss: Self { Self(.segment, 2) }
    @inlinable
    public static var ds: Self { Self(.segment, 3) }
    @inlinable
    public static var fs: Self { Self(.segment, 4) }
    @inlinable
    public static var gs: Self { Self(.segment, 5) }
    @inlinable
    public static var rip: Self { Self(.instructionPointer, 2) }
}

extension Register: CustomStringConvertible {
    /// The register's name in lower case, as the disassembler prints it.
    public var description: String {
        let number = Int(self.number)
        switch registerClass {
        case .low8: return number < 8 ? Self.low8Names[number] : "r\(number)b"
        case .high8: return number < 4 ? Self.high8Names[number] : "?"
        case .general16: return number < 8 ? Self.legacyNames[number] : "r\(number)w"
        case .general32: return number < 8 ? "e" + Self.legacyNames[number] : "r\(number)d"
        case .general64: return number < 8 ? "r" + Self.legacyNames[number] : "r\(number)"
        case .segment: return number < 6 ? Self.segmentNames[number] : "?"
        case .control: return "cr\(number)"
        case .debug: return "dr\(number)"
        case .x87: return number == 0 ? "st" : "st(\(number))"
        case .mmx: return "mm\(number)"
        case .xmm: return "xmm\(number)"
        case .ymm: return "ymm\(number)"
        case .instructionPointer: return number < 3 ? Self.pointerNames[number] : "?"
        case .none: return "none"
        }
    }

    private static let legacyNames = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"]
    private static let low8Names = ["al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil"]
    private static let high8Names = ["ah", "ch", "dh", "bh"]
    private static let segmentNames = ["es", "cs", "ss", "ds", "fs", "gs"]
    private static let pointerNames = ["ip", "eip", "rip"]
}
