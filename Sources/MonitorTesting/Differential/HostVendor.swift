internal import CHost
internal import X86

/// Whose processor the host has. Where vendors' differ the interpreter does as one of them, mostly AMD's; on the other's hosts what
/// follows is not compared. Each was measured: on an EPYC of the fourth generation, and on a Xeon that names no model.
package enum HostVendor: Sendable {
    case intel
    case other

    package static let current: HostVendor = {
        var registers: [UInt32] = [0, 0, 0, 0]
        unsafe registers.withUnsafeMutableBufferPointer { unsafe chost_cpuid(0, 0, $0.baseAddress!) }
        // "GenuineIntel", in EBX, EDX and ECX. Source: [SDM2 CPUID].
        return registers[1] == 0x756E_6547 && registers[3] == 0x4965_6E69 && registers[2] == 0x6C65_746E ? .intel : .other
    }()

    /// Why Intel's processors do something else with an encoding, whatever its operands hold; nil for most.
    static func intelDiffers(_ instruction: Instruction) -> String? {
        let long = instruction.mode == .bits64
        switch instruction.mnemonic {
        case .push where instruction.operandSize == 4 && instruction.kind(0) == .register && instruction.register(0).registerClass == .segment:
            return "of four bytes two are written. Source: [SDM2 PUSH]"
        case .sysret where !long: return "there is none outside 64-bit mode. Source: [SDM2 SYSRET]"
        case .xchg where instruction.row.opcode == 0x90 && instruction.prefixes.contains(.rep):
            return "F3 90 is PAUSE with REX.B, too"
        case .iret, .iretd, .iretq:
            return long ? "a return to nowhere can be without end" : nil
        default: break
        }
        // With a 32-bit address size the upper halves of RCX, RSI and RDI are cleared also where nothing, or only a part, is done.
        return instruction.row.isRepeatable && long && instruction.addressSize == 4 ? "halves of counters are cleared early" : nil
    }

    /// Whether Intel's processors look at something else before they look at memory, or at less memory: a fault that the interpreter
    /// takes may not be there, or be another.
    static func intelLooksElsewhereFirst(_ instruction: Instruction) -> Bool {
        switch instruction.mnemonic {
        // A numeric exception that is not masked keeps the x87 from storing; an MMX store enters MMX mode before it faults.
        case .fst, .fstp, .fist, .fistp, .fisttp, .fbstp, .movd, .movq, .movntq: instruction.hasMemory
        // The lower bound is compared before the upper is read; loads of an environment and of selectors take what they need.
        case .bound, .fldenv, .frstor, .retf: true
        case .pop: instruction.kind(0) == .register && instruction.register(0).registerClass == .segment
        // Comparisons up to the fault have left their flags.
        case .scas, .cmps: instruction.isRepeated
        default: false
        }
    }
}

extension Instruction {
    fileprivate var isRepeated: Bool { row.isRepeatable && !prefixes.isDisjoint(with: [.rep, .repne]) }
}
