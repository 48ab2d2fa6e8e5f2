internal import X86

/// The general path: every instruction, by its mnemonic.
extension CPU {
    /// Executes one instruction. `rip` and `nextRIP` are set; registers change only where it succeeds.
    @inline(never)
    func execute(_ i: Insn) throws(Fault) -> Flow {
        let facts = i.f.facts
        if facts != 0 {
            if facts & 2 != 0, isReal { throw .invalidOpcode }
            if facts & 1 != 0, s.cpl != 0 { throw .protection }
        }
        switch i.f.mnemonic {
        // Moves.
        case .mov: return try executeMove(i)
        case .movzx: writeRegister(i.register(0), try read(i, 1))
        case .movsx, .movsxd: try executeMoveSignExtended(i)
        case .lea: writeRegister(i.register(0), offset(i))
        case .xchg: try executeExchange(i)
        case .bswap: executeSwapBytes(i)
        case .movbe: try executeMoveBigEndian(i)
        case .movnti: try write(i, 0, try read(i, 1))
        case .xlat: try executeTranslate(i)
        case .cmova, .cmovae, .cmovb, .cmovbe, .cmove, .cmovg, .cmovge, .cmovl, .cmovle, .cmovne, .cmovno, .cmovnp, .cmovns,
            .cmovo, .cmovp, .cmovs:
            // The source is read whatever the condition; a 32-bit destination is zero-extended.
            let value = try read(i, 1)
            writeRegister(i.register(0), condition(i.f.condition) ? value : readRegister(i.register(0)))
        case .seta, .setae, .setb, .setbe, .sete, .setg, .setge, .setl, .setle, .setne, .setno, .setnp, .setns, .seto, .setp,
            .sets:
            try write(i, 0, condition(i.f.condition) ? 1 : 0)

        // Arithmetic and logic.
        case .add: try executeAdd(i, carry: 0)
        case .adc: try executeAdd(i, carry: Flags.carry(s.flagCarries))
        case .sub: try executeSubtract(i, borrow: 0)
        case .sbb: try executeSubtract(i, borrow: Flags.carry(s.flagCarries))
        case .cmp: try executeCompare(i)
        case .test: try executeTest(i)
        case .and: try executeAnd(i)
        case .or: try executeOr(i)
        case .xor: try executeXor(i)
        case .not: try executeNot(i)
        case .neg: try executeNegate(i)
        case .inc: try executeIncrement(i)
        case .dec: try executeDecrement(i)
        case .mul, .imul: try executeMultiply(i)
        case .div: try executeDivide(i)
        case .idiv: try executeDivideSigned(i)
        case .xadd: try executeExchangeAdd(i)
        case .cmpxchg: try executeCompareExchange(i)
        case .cmpxchg8b: try executeCompareExchange8(i)
        case .cmpxchg16b: try executeCompareExchange16(i)
        case .cbw: writeRegister(0, size: 2, signExtend(self[0], 1))
        case .cwde: writeRegister(0, size: 4, signExtend(self[0], 2))
        case .cdqe: self[0] = signExtend(self[0], 4)
        case .cwd: writeRegister(2, size: 2, signExtend(self[0], 2) &>> 16)
        case .cdq: writeRegister(2, size: 4, signExtend(self[0], 4) &>> 32)
        case .cqo: self[2] = UInt64(bitPattern: Int64(bitPattern: self[0]) &>> 63)
        case .aaa: executeASCIIAdjust(subtract: false)
        case .aas: executeASCIIAdjust(subtract: true)
        case .aam: try executeASCIIMultiply(i)
        case .aad: executeASCIIDivide(i)
        case .daa: executeDecimalAdjust(subtract: false)
        case .das: executeDecimalAdjust(subtract: true)
        case .salc: self[0] = self[0] & ~0xFF | (Flags.carry(s.flagCarries) != 0 ? 0xFF : 0)

        // Shifts and bits.
        case .shl: try executeShiftLeft(i)
        case .shr: try executeShiftRight(i)
        case .sar: try executeShiftArithmetic(i)
        case .rol: try executeRotateLeft(i)
        case .ror: try executeRotateRight(i)
        case .rcl: try executeRotateCarryLeft(i)
        case .rcr: try executeRotateCarryRight(i)
        case .shld: try executeShiftDouble(i, left: true)
        case .shrd: try executeShiftDouble(i, left: false)
        case .shlx, .shrx, .sarx, .rorx: try executeShiftNoFlags(i)
        case .bt: try executeBitTest(i, .none)
        case .bts: try executeBitTest(i, .set)
        case .btr: try executeBitTest(i, .reset)
        case .btc: try executeBitTest(i, .complement)
        case .bsf: try executeBitScan(i, forward: true)
        case .bsr: try executeBitScan(i, forward: false)
        case .tzcnt: try executeCountZeros(i, trailing: true)
        case .lzcnt: try executeCountZeros(i, trailing: false)
        case .popcnt: try executePopulationCount(i)
        case .andn, .bextr, .blsi, .blsmsk, .blsr: try executeBMI1(i)
        case .bzhi, .pdep, .pext, .mulx: try executeBMI2(i)
        case .adcx, .adox: try executeAddOneFlag(i)

        // Flags.
        case .clc: setCarry(0)
        case .stc: setCarry(1)
        case .cmc: s.flagCarries ^= Flags.top
        case .cld: s.flags &= ~RFLAGS.df
        case .std: s.flags |= RFLAGS.df
        case .cli: return try executeInterruptFlag(false)
        case .sti: return try executeInterruptFlag(true)
        case .lahf: self[0] = self[0] & ~0xFF00 | (rflags & 0xD5 | 2) &<< 8
        case .sahf: setArithmeticFlags(rflags & RFLAGS.of | self[0] &>> 8 & 0xD5)

        // Stack.
        case .push: try executePush(i)
        case .pop: return try executePop(i)
        case .pusha: try executePushAll(2)
        case .pushad: try executePushAll(4)
        case .popa: try executePopAll(2)
        case .popad: try executePopAll(4)
        case .pushf: try executePushFlags(2)
        case .pushfd: try executePushFlags(4)
        case .pushfq: try executePushFlags(8)
        case .popf: return try executePopFlags(2)
        case .popfd: return try executePopFlags(4)
        case .popfq: return try executePopFlags(8)
        case .enter: try executeEnter(i)
        case .leave: try executeLeave(i.operandSize)

        // Branches.
        case .ja, .jae, .jb, .jbe, .je, .jg, .jge, .jl, .jle, .jne, .jno, .jnp, .jns, .jo, .jp, .js:
            return try branch(i, condition(i.f.condition))
        case .jcxz: return try branch(i, self[1] & 0xFFFF == 0)
        case .jecxz: return try branch(i, self[1] & 0xFFFF_FFFF == 0)
        case .jrcxz: return try branch(i, self[1] == 0)
        case .loop, .loope, .loopne: return try executeLoop(i)
        case .jmp: return try executeJump(i)
        case .call: return try executeCall(i)
        case .ret: return try executeReturn(i)
        case .jmpf: return try executeFarJump(i)
        case .callf: return try executeFarCall(i)
        case .retf: return try executeFarReturn(i)
        case .iret: return try executeInterruptReturn(2)
        case .iretd: return try executeInterruptReturn(4)
        case .iretq: return try executeInterruptReturn(8)
        case .int:
            // In virtual-8086 mode with IOPL below 3 it is #GP. Source: [SDM3 §20.3.3].
            if isVirtual8086, s.flags & RFLAGS.iopl != RFLAGS.iopl { throw .protection }
            return executeInterrupt(UInt8(truncatingIfNeeded: i.f.immediate), .software)
        case .int3: return executeInterrupt(3, .softwareException)
        case .into:
            if Flags.overflow(s.flagCarries) == 0 { return .next }
            return executeInterrupt(4, .softwareException)
        case .int1: return executeInterrupt(1, .exception)
        case .bound: try executeBound(i)
        case .syscall: return try executeSyscall()
        case .sysret: return try executeSysret(wide: false)
        case .sysretq: return try executeSysret(wide: true)
        case .sysenter: return try executeSysenter()
        case .sysexit: return try executeSysexit(wide: false)
        case .sysexitq: return try executeSysexit(wide: true)

        // Strings and ports.
        case .movs, .stos, .lods, .scas, .cmps, .ins, .outs: return try executeString(i)
        case .in: return try executeIn(i)
        case .out: return try executeOut(i)

        // Segments and tables.
        case .les: return try executeLoadFarPointer(i, SegmentIndex.es)
        case .lds: return try executeLoadFarPointer(i, SegmentIndex.ds)
        case .lss:
            let flow = try executeLoadFarPointer(i, SegmentIndex.ss)
            return flow
        case .lfs: return try executeLoadFarPointer(i, SegmentIndex.fs)
        case .lgs: return try executeLoadFarPointer(i, SegmentIndex.gs)
        case .sgdt: try executeStoreTable(i, base: s.gdtrBase, limit: s.gdtrLimit)
        case .sidt: try executeStoreTable(i, base: s.idtrBase, limit: s.idtrLimit)
        case .lgdt: try executeLoadTable(i, isInterrupt: false)
        case .lidt: try executeLoadTable(i, isInterrupt: true)
        case .sldt: try executeStoreSelector(i, SegmentIndex.ldtr)
        case .str: try executeStoreSelector(i, SegmentIndex.tr)
        case .lldt: try executeLoadLDT(i)
        case .ltr: try executeLoadTask(i)
        case .lar: try executeLoadAccessRights(i)
        case .lsl: try executeLoadLimit(i)
        case .verr: try executeVerify(i, write: false)
        case .verw: try executeVerify(i, write: true)
        case .arpl: try executeAdjustRPL(i)

        // System.
        case .smsw: try executeStoreMachineStatus(i)
        case .lmsw: return try executeLoadMachineStatus(i)
        case .clts:
            s.cr0 &= ~CR0.ts
            segmentsChanged()
            return .end
        case .invlpg:
            flushPage(try invalidationTarget(i))
            noteDroppedTranslations()
            return .end
        case .invd, .wbinvd: return .next
        case .hlt:
            s.runState = 3
            return .end
        case .rdmsr: try executeReadMSR()
        case .wrmsr:
            try executeWriteMSR()
            return .end
        case .rdtsc: try executeReadTimeStamp(aux: false)
        case .rdtscp: try executeReadTimeStamp(aux: true)
        case .rdpid: writeRegister(i.register(0), s.tscAux & 0xFFFF_FFFF)
        case .rdpmc: throw .protection
        case .cpuid: executeCPUID()
        case .rdrand, .rdseed: executeRandom(i)
        case .swapgs: executeSwapGS()
        case .rdfsbase, .rdgsbase, .wrfsbase, .wrgsbase: try executeBase(i)
        case .nop, .pause, .endbr32, .endbr64, .prefetch, .prefetchnta, .prefetcht0, .prefetcht1, .prefetcht2, .prefetchw:
            return .next
        case .lfence, .sfence: return .next
        case .mfence: fence()
        case .clflush:
            _ = try load(linear(i, 1, write: false), 1, user: isUser)
        case .xsave, .xsave64, .xsaveopt, .xsaveopt64, .xsavec, .xsavec64, .xsaves, .xsaves64, .xrstor, .xrstor64, .xrstors, .xrstors64,
            .xgetbv, .xsetbv, .stac, .clac, .invpcid, .wbnoinvd, .clflushopt, .clwb, .clzero:
            return try executeForRescue(i)
        case .ud2:
            // What the decoder refused comes here too; 1 stands for too long an instruction.
            if i.f.immediate == 1 { throw .protection }
            throw .invalidOpcode
        default:
            return try executeOther(i)
        }
        return .next
    }

    /// INVLPG does not check its address: non-canonical ones do nothing.
    private func invalidationTarget(_ i: Insn) throws(Fault) -> UInt64 {
        let offset = offset(i)
        if is64 { return Int(i.f.segment) >= SegmentIndex.fs ? segmentBase(Int(i.f.segment)) &+ offset : offset }
        return (segmentBase(Int(i.f.segment)) &+ offset) & 0xFFFF_FFFF
    }
}
