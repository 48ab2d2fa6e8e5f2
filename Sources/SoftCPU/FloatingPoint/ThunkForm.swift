internal import X86

/// All of an instruction that its thunk depends on: the row, whether an operand is memory, the width, the immediates.
/// Which registers it names is not among them (but for the x87 stack, whose registers cannot be renamed).
///
/// That bounds how many thunks there can be, whatever a guest executes: see `HostOperations.capacity`.
struct ThunkForm {
    /// What kind of thing an operand is.
    enum OperandClass: UInt8 {
        case xmm, mmx, memory
        /// A general register; one byte of it, for CRC32, which may be AH to BH.
        case general, generalByte
        case other
    }

    let row: RowID
    let hasMemory: Bool
    /// REX.W.
    let wide: Bool
    /// CRC32 of sixteen bits: the one instruction here that has an operand-size prefix.
    let wordOperand: Bool
    let stackRegister: UInt8
    let immediateCount: Int
    /// The first in the low byte.
    let immediates: UInt16
    private let classes: (OperandClass, OperandClass)

    init(_ instruction: Instruction) {
        row = instruction.row
        hasMemory = instruction.hasMemory
        wide = instruction.mode == .bits64 && instruction.prefixes.contains(.w) && row.unit != .x87
        wordOperand = row.mnemonic == .crc32 && row.opcode == 0xF1 && instruction.operandSize == 2
        classes = (ThunkForm.classify(instruction, 0), ThunkForm.classify(instruction, 1))
        var stack: UInt8 = 0
        var count = 0
        var bytes: UInt16 = 0
        for operand in 0..<instruction.operandCount {
            let register = instruction.register(operand)
            if register.registerClass == .x87, row.place(operand) == .rm { stack = register.number }
            switch instruction.kind(operand) {
            case .immediate:
                bytes |= UInt16(truncatingIfNeeded: instruction.immediate & 0xFF)
                count += 1
            case .secondImmediate:
                bytes |= (instruction.secondImmediate & 0xFF) &<< 8
                count += 1
            default: break
            }
        }
        stackRegister = stack
        immediateCount = count
        // EXTRQ and INSERTQ look at six bits of each; without the rest their forms are few. [APM4 EXTRQ, INSERTQ]
        immediates = count == 2 ? bytes & 0x3F3F : bytes
    }

    private static func classify(_ instruction: Instruction, _ operand: Int) -> OperandClass {
        switch instruction.kind(operand) {
        case .memory: return .memory
        case .register:
            switch instruction.register(operand).registerClass {
            case .xmm: return .xmm
            case .mmx: return .mmx
            case .general16, .general32, .general64: return .general
            case .low8, .high8: return .generalByte
            default: return .other
            }
        default: return .other
        }
    }

    /// Names the form among all forms.
    var key: UInt64 {
        UInt64(row.rawValue) | (hasMemory ? 1 << 16 : 0) | (wide ? 1 << 17 : 0) | (wordOperand ? 1 << 18 : 0)
            | (classes.1 == .generalByte ? 1 << 19 : 0)
            | UInt64(stackRegister) &<< 20 | UInt64(immediates) &<< 24
    }

    var mnemonic: Mnemonic { row.mnemonic }
    var place: (Int) -> OperandPlace { row.place }
    func operandClass(_ operand: Int) -> OperandClass { operand == 0 ? classes.0 : classes.1 }
    var usesMMX: Bool { classes.0 == .mmx || classes.1 == .mmx }
    var writesFlags: Bool { !row.flagsWritten.isEmpty }
    var readsFlags: Bool { !row.flagsRead.isEmpty }

    /// XMM0 that no operand field encodes.
    var readsXMM0: Bool {
        switch mnemonic {
        case .pblendvb, .blendvps, .blendvpd, .sha256rnds2: true
        default: false
        }
    }

    /// Whether the first operand, if it is a register, is written. Comparisons only read both.
    var writesDestination: Bool { !writesFlags && mnemonic != .maskmovq && mnemonic != .maskmovdqu }

    // MARK: What is executed in the instruction's place

    /// Non-temporal stores and loads are executed as ordinary ones: the hint is about the host's caches, and weak
    /// ordering would break what other instructions around it promise.
    private var ordinary: (prefix: UInt8, map: OpcodeMap, opcode: UInt8)? {
        switch mnemonic {
        case .movntps, .movntpd: (row.mandatoryPrefix, .map0F, 0x29)
        case .movntdq: (0x66, .map0F, 0x7F)
        case .movntq: (0, .map0F, 0x7F)
        case .movntdqa: (0x66, .map0F, 0x6F)
        case .movntss: (0xF3, .map0F, 0x11)
        case .movntsd: (0xF2, .map0F, 0x11)
        default: nil
        }
    }

    var mandatoryPrefix: UInt8 { ordinary?.prefix ?? row.mandatoryPrefix }
    var map: OpcodeMap { ordinary?.map ?? row.map }
    var opcode: UInt8 { ordinary?.opcode ?? row.opcode }

    /// Whether MXCSR decides the result, or the instruction can set its flags.
    ///
    /// Source: [SDM1 §11.5.1, App. E.4]; RCPPS and RSQRTPS raise nothing, but processors differ in whether DAZ is for
    /// them, so they are executed under the guest's MXCSR.
    var usesMXCSR: Bool {
        switch mnemonic {
        case .addps, .addpd, .addss, .addsd, .subps, .subpd, .subss, .subsd, .mulps, .mulpd, .mulss, .mulsd, .divps,
            .divpd, .divss, .divsd, .sqrtps, .sqrtpd, .sqrtss, .sqrtsd, .minps, .minpd, .minss, .minsd, .maxps,
            .maxpd, .maxss, .maxsd, .cmpps, .cmppd, .cmpss, .cmpsd, .comiss, .comisd, .ucomiss, .ucomisd, .addsubps,
            .addsubpd, .haddps, .haddpd, .hsubps, .hsubpd, .rcpps, .rcpss, .rsqrtps, .rsqrtss, .roundps, .roundpd,
            .roundss, .roundsd, .dpps, .dppd,
            .cvtdq2ps, .cvtpd2dq, .cvtpd2pi, .cvtpd2ps, .cvtpi2ps, .cvtps2dq, .cvtps2pd, .cvtps2pi, .cvtsd2si,
            .cvtsd2ss, .cvtsi2sd, .cvtsi2ss, .cvtss2sd, .cvtss2si, .cvttpd2dq, .cvttpd2pi, .cvttps2dq, .cvttps2pi,
            .cvttsd2si, .cvttss2si:
            true
        default: false
        }
    }
}
