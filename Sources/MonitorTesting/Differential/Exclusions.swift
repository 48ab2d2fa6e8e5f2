package import X86

/// Rows and encodings that native execution in ring 3 cannot answer for, each with its reason.
package enum Exclusions {
    /// Why no case of the row is made; nil for rows that are tested.
    package static func reason(for row: RowID) -> String? {
        switch row.mnemonic {
        case .syscall, .sysenter: "enters the host's kernel"
        case .vmcall, .vmmcall: "may be a call to the hypervisor the host runs under"
        case .rdtsc, .rdtscp, .rdpmc, .rdpid, .rdpru, .rdrand, .rdseed: "has no repeatable result"
        case .cpuid, .xgetbv: "tells what the processor is, which differs by intent"
        case .sgdt, .sidt, .sldt, .str, .smsw: "is emulated by the host's kernel under UMIP"
        case .lfs, .lgs: "loads FS or GS, which the host's C library owns"
        case .pop where row == popFS || row == popGS: "loads FS or GS, which the host's C library owns"
        case .monitor, .mwait, .monitorx, .mwaitx: "waits, or is refused as the host's hypervisor likes"
        case .rdpkru, .wrpkru: "changes the protection of the executor's own memory"
        case .int1: "is re-injected by hypervisors, with another RIP"
        case .vmfunc, .skinit: "belongs to a hypervisor below the host"
        case .iretq where HostVendor.current == .intel: "may not come to an end on Intel's processors"
        default: nil
        }
    }

    private static let popFS = RowID.all.first { $0.mnemonic == .pop && $0.map == .map0F && $0.opcode == 0xA1 }
    private static let popGS = RowID.all.first { $0.mnemonic == .pop && $0.map == .map0F && $0.opcode == 0xA9 }

    /// Whether a case may be made of this encoding: false for those on which processors differ.
    static func allows(_ instruction: Instruction) -> Bool {
        let long = instruction.mode == .bits64
        if HostVendor.current == .intel, HostVendor.intelDiffers(instruction) != nil { return false }
        switch instruction.mnemonic {
        case .call, .jmp, .ret, .loop, .loope, .loopne, .jcxz, .jecxz, .jrcxz, .jo, .jno, .jb, .jae, .je, .jne, .jbe, .ja, .js, .jns, .jp,
            .jnp, .jl, .jge, .jle, .jg:
            // With 66, Intel's ignore it in 64-bit mode, and AMD's do not.
            if long && instruction.prefixes.contains(.operandSize) { return false }
            // AMD's take F2 and F3 for the condition of LOOPE and LOOPNE, which no manual says.
            let isConditionalLoop = instruction.mnemonic == .loope || instruction.mnemonic == .loopne
            return !(isConditionalLoop && !instruction.prefixes.isDisjoint(with: [.rep, .repne]))
        case .callf, .jmpf, .lss:
            // With REX.W, Intel's take a 64-bit offset, and AMD's a 32-bit one.
            return !instruction.prefixes.contains(.w)
        case .mov:
            // FS and GS are the host's C library's.
            return !(instruction.register(0) == .fs || instruction.register(0) == .gs)
        case .movsxd:
            // With a 16-bit operand size, Intel's read two bytes, and AMD's four.
            return instruction.operandSize != 2
        case .int: return instruction.immediate != 0x80
        case .bswap: return instruction.operandSize != 2
        default: return true
        }
    }

    /// Instructions whose result shows RFLAGS.TF, or that trap like it.
    static func showsTrapFlag(_ row: RowID) -> Bool {
        switch row.mnemonic {
        case .pushf, .pushfd, .pushfq, .int1: true
        // MOV SS and POP SS hold the trap back for an instruction.
        case .mov: row.opcode == 0x8E && row.map == .primary
        case .pop: row.opcode == 0x17
        default: false
        }
    }
}
