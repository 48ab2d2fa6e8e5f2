/// Where in an instruction an operand is encoded.
public enum OperandPlace: UInt8, Sendable, BitwiseCopyable {
    case none
    /// ModRM.rm: a register or memory.
    case rm
    /// ModRM.reg.
    case reg
    /// A register that the opcode alone names: ST(0), XMM0 of BLENDVPS, AX of FNSTSW.
    case implied
    case immediate
    /// Anywhere else: the opcode's low bits, VEX.vvvv, a branch displacement, string and far operands.
    case elsewhere
}

/// What it takes to encode a row anew, with other registers.
extension RowID {
    /// 66, F3 or F2 where it is part of the row's opcode; 0 where it is none. CRC32 and MOVBE may have 66 besides.
    public var mandatoryPrefix: UInt8 {
        let match = row.match
        if match.mask & Match.Bit.f3 != 0, match.value & Match.Bit.f3 != 0 { return 0xF3 }
        if match.mask & Match.Bit.f2 != 0, match.value & Match.Bit.f2 != 0 { return 0xF2 }
        if match.mask & Match.Bit.p66 != 0, match.value & Match.Bit.p66 != 0 { return 0x66 }
        return 0
    }

    /// ModRM.reg where it extends the opcode, 0 to 7.
    public var modRMReg: UInt8? {
        row.match.mask & 7 == 7 ? UInt8(truncatingIfNeeded: row.match.value & 7) : nil
    }

    /// ModRM.rm where it extends the opcode, 0 to 7.
    public var modRMRM: UInt8? {
        row.match.mask & 0x38 == 0x38 ? UInt8(truncatingIfNeeded: row.match.value &>> 3 & 7) : nil
    }

    /// Whether ModRM.rm must be memory (`true`), must be a register (`false`), or may be either (nil).
    public var wantsMemory: Bool? {
        row.match.mask & Match.Bit.register == 0 ? nil : row.match.value & Match.Bit.register == 0
    }

    public var usesModRM: Bool { row.usesModRM }

    /// Where operand `position`, counted from 0 in Intel order, is encoded.
    public func place(_ position: Int) -> OperandPlace {
        let spec: OperandSpec
        switch position {
        case 0: spec = row.operand0
        case 1: spec = row.operand1
        case 2: spec = row.operand2
        case 3: spec = row.operand3
        default: return .none
        }
        switch spec.source {
        case .none: return .none
        case .rm: return .rm
        case .reg: return .reg
        case .fixed: return .implied
        case .immediate: return .immediate
        default: return .elsewhere
        }
    }
}
