/// Prints instructions in Intel syntax, in lower case: `lock add qword ptr gs:[rax+rcx*8-0x10], rdx`.
///
/// A memory operand always tells its size, if it has one; numbers are hexadecimal; a branch shows its target. Prefixes
/// that change nothing are not shown, nor is a segment that no prefix asked for.
public enum Disassembler {
    /// The instruction's text.
    ///
    /// - Parameter address: the instruction pointer at the instruction's first byte, from which branch targets follow.
    public static func text(_ instruction: Instruction, at address: UInt64) -> String {
        var text = prefix(of: instruction)
        text += name(of: instruction)
        for position in 0..<instruction.operandCount {
            text += position == 0 ? " " : ", "
            append(position, of: instruction, address, to: &text)
        }
        return text
    }

    /// One line a debugger might print for the bytes at `address`: the instruction, or `(bad)`.
    ///
    /// - Returns: the text, and how many bytes it stands for: 1 for bytes that are no instruction.
    public static func line(_ bytes: Span<UInt8>, mode: CodeMode, at address: UInt64) -> (text: String, length: Int) {
        do throws(DecodeError) {
            let instruction = try Decoder.decode(bytes, mode: mode)
            return (text(instruction, at: address), Int(instruction.length))
        } catch {
            return ("(bad)", 1)
        }
    }

    private static func prefix(of instruction: Instruction) -> String {
        if instruction.prefixes.contains(.lock) { return "lock " }
        guard instruction.row.isRepeatable else { return "" }
        if instruction.prefixes.contains(.rep) { return instruction.row.repeatsByZero ? "repe " : "rep " }
        if instruction.prefixes.contains(.repne) { return "repne " }
        return ""
    }

    private static func name(of instruction: Instruction) -> String {
        switch instruction.mnemonic {
        case .callf: return "call far"
        case .jmpf: return "jmp far"
        case .movs, .cmps, .stos, .lods, .scas, .ins, .outs:
            let isFirst = instruction.kind0 == .stringSource || instruction.kind0 == .stringDestination
            let letter =
                switch isFirst ? instruction.size0 : instruction.size1 {
                case 1: "b"
                case 2: "w"
                case 4: "d"
                default: "q"
                }
            return instruction.mnemonic.name + letter
        default: return instruction.mnemonic.name
        }
    }

    private static func append(_ position: Int, of instruction: Instruction, _ address: UInt64, to text: inout String) {
        switch instruction.kind(position) {
        case .none: break
        case .register: text += instruction.register(position).description
        case .memory: appendMemory(of: instruction, size: instruction.size(position), to: &text)
        case .stringSource:
            text += sizeKeyword(instruction.size(position))
            if instruction.prefixes.contains(.segment) { text += "\(instruction.segment):" }
            text += "[\(Register(addressClass(instruction), 6))]"
        case .stringDestination:
            text += sizeKeyword(instruction.size(position))
            text += "[\(Register(addressClass(instruction), 7))]"
        case .immediate: text += hexadecimal(instruction.immediate)
        case .secondImmediate: text += hexadecimal(UInt64(instruction.secondImmediate))
        case .relative: text += hexadecimal(instruction.branchTarget(at: address) ?? 0)
        case .farPointer:
            text += hexadecimal(UInt64(instruction.secondImmediate)) + ":" + hexadecimal(instruction.immediate)
        }
    }

    private static func appendMemory(of instruction: Instruction, size: Int, to text: inout String) {
        text += sizeKeyword(size)
        if instruction.prefixes.contains(.segment) { text += "\(instruction.segment):" }
        text += "["
        let hasBase = instruction.base != .none
        if hasBase { text += instruction.base.description }
        if instruction.index != .none {
            if hasBase { text += "+" }
            text += instruction.index.description
            // Without a base the scale is what tells an index from one.
            if instruction.scale > 1 || !hasBase { text += "*\(instruction.scale)" }
        }
        let displacement = instruction.displacement
        if !hasBase, instruction.index == .none {
            let mask: UInt64 =
                switch instruction.addressSize {
                case 2: 0xFFFF
                case 4: 0xFFFF_FFFF
                default: .max
                }
            text += hexadecimal(UInt64(bitPattern: displacement) & mask)
        } else if displacement != 0 {
            text += displacement < 0 ? "-" : "+"
            text += hexadecimal(displacement.magnitude)
        }
        text += "]"
    }

    private static func addressClass(_ instruction: Instruction) -> Register.Class {
        switch instruction.addressSize {
        case 2: .general16
        case 4: .general32
        default: .general64
        }
    }

    private static func sizeKeyword(_ size: Int) -> String {
        switch size {
        case 1: "byte ptr "
        case 2: "word ptr "
        case 4: "dword ptr "
        case 6: "fword ptr "
        case 8: "qword ptr "
        case 10: "tbyte ptr "
        case 16: "xmmword ptr "
        case 32: "ymmword ptr "
        default: ""
        }
    }

    private static func hexadecimal(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
}

extension Mnemonic {
    /// The name in lower case, as the manuals spell it otherwise. Not for a hot path.
    public var name: String { Self.names[Int(rawValue)] }

    private static let names = allCases.map { "\($0)" }
}
