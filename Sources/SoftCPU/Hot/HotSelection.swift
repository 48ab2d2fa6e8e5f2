internal import X86

/// Which instructions have a handler of their own, and what it is given.
struct HotSelection {
    var handler: Handler
    var fields = Op.Fields()
    var isBranch = false
    var target: UInt64 = 0

    private init(_ handler: Handler) { self.handler = handler }

    /// - Parameters:
    ///   - rip: the instruction's own address.
    ///   - live: flags that are read before they are written again.
    init?(_ i: Instruction, rip: UInt64, mode: UInt32, live: UInt8) {
        let is64 = mode & Mode.bits64 != 0
        if i.kind(0) == .memory, is64, i.prefixes.contains(.lock) || i.mnemonic == .xchg {
            self.init(locked: i, rip)
            return
        }
        guard !i.prefixes.contains(.lock) else { return nil }
        let flagsLive = live & 0x3F != 0
        switch i.mnemonic {
        case .mov: self.init(move: i, rip, is64)
        case .add: self.init(alu: .add, i, rip, is64, flagsLive)
        case .or: self.init(alu: .or, i, rip, is64, flagsLive)
        case .adc: self.init(alu: .adc, i, rip, is64, flagsLive)
        case .sbb: self.init(alu: .sbb, i, rip, is64, flagsLive)
        case .and: self.init(alu: .and, i, rip, is64, flagsLive)
        case .sub: self.init(alu: .sub, i, rip, is64, flagsLive)
        case .xor: self.init(alu: .xor, i, rip, is64, flagsLive)
        case .cmp, .test:
            guard let form = Self.form(i), Self.isLow(i) else { return nil }
            let size = i.size(0)
            // TEST reads its memory operand as the first one, whichever way round.
            let found = i.mnemonic == .cmp ? Handlers.compare(form, size) : Handlers.test(form, size)
            guard let found else { return nil }
            self.init(found)
            guard fill(i, form, rip, is64) else { return nil }
        case .lea:
            guard is64, i.addressSize == 8, let found = Handlers.loadAddress(i.size(0), indexed: i.index.registerClass != .none) else { return nil }
            self.init(found)
            fields.dst = i.register(0).number
            guard fillMemory(i, rip, segments: false) else { return nil }
        case .movzx, .movsx, .movsxd:
            let from = i.size(1)
            let to = i.size(0)
            let signed = i.mnemonic != .movzx
            if i.kind(1) == .register {
                guard i.register(1).registerClass != .high8, let found = Handlers.extendR(from, to, signed: signed) else { return nil }
                self.init(found)
                fields.src = i.register(1).number
            } else {
                guard is64, let found = Handlers.extendM(from, to, signed: signed, indexed: Self.isIndexed(i)) else { return nil }
                self.init(found)
                guard fillMemory(i, rip) else { return nil }
            }
            fields.dst = i.register(0).number
        case .inc, .dec:
            let isRegister = i.kind(0) == .register
            let size = i.size(0)
            let found =
                i.mnemonic == .inc
                ? (isRegister ? Handlers.increment(size, live: flagsLive) : Handlers.incrementM(size, live: flagsLive, indexed: Self.isIndexed(i)))
                : (isRegister ? Handlers.decrement(size, live: flagsLive) : Handlers.decrementM(size, live: flagsLive, indexed: Self.isIndexed(i)))
            guard let found else { return nil }
            self.init(found)
            if isRegister {
                fields.dst = i.register(0).number
            } else {
                guard is64, fillMemory(i, rip) else { return nil }
            }
        case .neg, .not:
            guard i.kind(0) == .register else { return nil }
            guard let found = i.mnemonic == .neg ? Handlers.negate(i.size(0)) : Handlers.invert(i.size(0)) else { return nil }
            self.init(found)
            fields.dst = i.register(0).number
        case .imul: self.init(multiply: i, rip, is64)
        case .shl, .shr, .sar, .rol, .ror: self.init(shift: i, flagsLive)
        case .push:
            guard is64, i.operandSize == 8 else { return nil }
            if i.kind(0) == .register, i.register(0).registerClass == .general64 {
                self.init(Handlers.pushR)
                fields.src = i.register(0).number
            } else if i.kind(0) == .immediate {
                self.init(Handlers.pushI)
                fields.immediate = Int32(truncatingIfNeeded: i.immediate)
            } else {
                return nil
            }
        case .pop:
            guard is64, i.operandSize == 8, i.kind(0) == .register, i.register(0).registerClass == .general64 else { return nil }
            self.init(Handlers.popR)
            fields.dst = i.register(0).number
        case .leave:
            guard is64, i.operandSize == 8 else { return nil }
            self.init(Handlers.leaveFrame)
        case .cqo: self.init(Handlers.signExtendRAX)
        case .cdq: self.init(Handlers.signExtendToEDX)
        case .bswap:
            guard let found = Handlers.swapBytes(i.size(0)) else { return nil }
            self.init(found)
            fields.dst = i.register(0).number
        case .swapgs:
            guard is64, mode & Mode.user == 0 else { return nil }
            self.init(Handlers.swapGS)
        case .cli:
            guard is64, mode & Mode.user == 0 else { return nil }
            self.init(Handlers.clearInterruptFlag)
        case .cdqe: self.init(Handlers.signExtendEAX)
        case .xchg:
            guard i.kind(0) == .register, i.size(0) == 8 else { return nil }
            self.init(Handlers.exchangeRR)
            fields.dst = i.register(0).number
            fields.src = i.register(1).number
        case .bt:
            guard i.kind(0) == .register, i.kind(1) == .immediate, i.size(0) >= 4 else { return nil }
            self.init(Handlers.bitTestI)
            fields.dst = i.register(0).number
            fields.immediate = Int32(truncatingIfNeeded: i.immediate & (i.size(0) == 8 ? 63 : 31))
        case .cmova, .cmovae, .cmovb, .cmovbe, .cmove, .cmovg, .cmovge, .cmovl, .cmovle, .cmovne, .cmovno, .cmovnp, .cmovns,
            .cmovo, .cmovp, .cmovs:
            let code = i.row.opcode & 15
            let isRegister = i.kind(1) == .register
            guard let found = isRegister ? Handlers.moveIf(i.size(0), code) : Handlers.loadIf(i.size(0), code) else { return nil }
            self.init(found)
            fields.dst = i.register(0).number
            if isRegister {
                fields.src = i.register(1).number
            } else {
                guard is64, fillMemory(i, rip) else { return nil }
            }
        case .seta, .setae, .setb, .setbe, .sete, .setg, .setge, .setl, .setle, .setne, .setno, .setnp, .setns, .seto, .setp,
            .sets:
            guard i.kind(0) == .register, i.register(0).registerClass == .low8 else { return nil }
            self.init(Handlers.setIf(i.row.opcode & 15))
            fields.dst = i.register(0).number
        default:
            if i.row.unit == .sse { self.init(vector: i, rip, mode) } else { self.init(branch: i, rip, mode) }
        }
    }

    private init?(locked i: Instruction, _ rip: UInt64) {
        let found: Handler? =
            switch i.mnemonic {
            case .xchg: Handlers.exchangeM(i.size(0))
            case .cmpxchg: Handlers.compareExchangeM(i.size(0))
            case .xadd: Handlers.exchangeAddM(i.size(0))
            default: nil
            }
        guard let found, i.kind(1) == .register else { return nil }
        self.init(found)
        fields.src = i.register(1).number
        guard fillMemory(i, rip) else { return nil }
    }

    private init?(vector i: Instruction, _ rip: UInt64, _ mode: UInt32) {
        guard mode & Mode.vector != 0, let operation = HotVector.classify(i) else { return nil }
        let isMemory = i.kind(0) == .memory || i.kind(1) == .memory
        guard !isMemory || mode & Mode.bits64 != 0 else { return nil }
        let indexed = isMemory && Self.isIndexed(i)
        let form: HotVectorForm =
            switch (i.kind(0), i.kind(1)) {
            case (.memory, _): indexed ? .ix : .mx
            case (_, .memory): indexed ? .xi : .xm
            default:
                i.register(0).registerClass == .xmm ? i.register(1).registerClass == .xmm ? .xx : .xg : .gx
            }
        guard let found = Handlers.vector(operation, form) else { return nil }
        self.init(found)
        if i.kind(0) == .register { fields.dst = i.register(0).number }
        if i.kind(1) == .register { fields.src = i.register(1).number }
        fields.immediate = Int32(truncatingIfNeeded: i.immediate)
        guard isMemory else { return }
        if i.size(0) == 16 || i.size(1) == 16, !i.row.allowsUnaligned { fields.alignment = memorySize(i) == 16 ? 15 : 0 }
        guard fillMemory(i, rip) else { return nil }
    }

    private func memorySize(_ i: Instruction) -> Int { i.kind(0) == .memory ? i.size(0) : i.size(1) }

    // MARK: Branches

    private init?(branch i: Instruction, _ rip: UInt64, _ mode: UInt32) {
        guard mode & Mode.bits64 != 0 else { return nil }
        switch i.mnemonic {
        case _ where Self.isConditionalJump(i):
            self.init(Handlers.branch(i.row.opcode & 15))
            target = i.branchTarget(at: rip) ?? 0
        case .jmp:
            if let relative = i.branchTarget(at: rip) {
                self.init(Handlers.jumpRelative)
                target = relative
            } else if i.kind(0) == .register {
                self.init(Handlers.jumpR)
                fields.src = i.register(0).number
            } else {
                self.init(Handlers.jumpM)
                guard fillMemory(i, rip) else { return nil }
            }
        case .call:
            if let relative = i.branchTarget(at: rip) {
                self.init(Handlers.callRelative)
                target = relative
            } else if i.kind(0) == .register {
                self.init(Handlers.callR)
                fields.src = i.register(0).number
            } else {
                self.init(Handlers.callM)
                guard fillMemory(i, rip) else { return nil }
            }
        case .ret:
            guard i.operandCount == 0 else { return nil }
            self.init(Handlers.returnNear)
        default: return nil
        }
        guard Self.isPossible(target) else { return nil }
        isBranch = true
    }

    /// A target that is not canonical is #GP at the branch: the general path's.
    static func isPossible(_ target: UInt64) -> Bool {
        let sign = Int64(bitPattern: target) &>> 47
        return sign == 0 || sign == -1
    }

    /// Jcc: its opcode's low four bits are the condition, which those of the other relative branches are not.
    private static func isConditionalJump(_ i: Instruction) -> Bool {
        switch i.mnemonic {
        case .ja, .jae, .jb, .jbe, .je, .jg, .jge, .jl, .jle, .jne, .jno, .jnp, .jns, .jo, .jp, .js: true
        default: false
        }
    }

    /// CMP or TEST with the conditional branch behind it.
    init?(comparison i: Instruction, branch: Instruction, rip: UInt64, mode: UInt32) {
        guard mode & Mode.bits64 != 0, let form = Self.form(i), Self.isLow(i), Self.isConditionalJump(branch) else { return nil }
        let code = branch.row.opcode & 15
        let found: Handler?
        switch i.mnemonic {
        case .cmp: found = Handlers.compareBranch(form, i.size(0), code)
        // OF is clear: L and GE are S and NS.
        case .test: found = Handlers.testBranch(form, i.size(0), code & 14 == 12 ? code & 1 | 8 : code)
        default: return nil
        }
        guard let found else { return nil }
        self.init(found)
        guard fill(i, form, rip, true) else { return nil }
        isBranch = true
    }

    // MARK: Parts

    private init?(move i: Instruction, _ rip: UInt64, _ is64: Bool) {
        guard Self.isLow(i) else { return nil }
        let size = i.size(0)
        switch (i.kind(0), i.kind(1)) {
        case (.register, .register):
            guard Self.isGeneral(i.register(0)), Self.isGeneral(i.register(1)), size == i.size(1),
                let found = Handlers.moveRR(size)
            else { return nil }
            self.init(found)
            fields.dst = i.register(0).number
            fields.src = i.register(1).number
        case (.register, .immediate):
            guard Self.isGeneral(i.register(0)) else { return nil }
            if size == 1 {
                self.init(Handlers.moveI8)
                fields.immediate = Int32(truncatingIfNeeded: i.immediate)
            } else if size >= 4 {
                self.init(Handlers.moveI)
                fields.displacement = i.immediate
            } else {
                return nil
            }
            fields.dst = i.register(0).number
        case (.register, .memory):
            guard is64, Self.isGeneral(i.register(0)), let found = Handlers.load(size, indexed: Self.isIndexed(i)) else { return nil }
            self.init(found)
            fields.dst = i.register(0).number
            guard fillMemory(i, rip) else { return nil }
        case (.memory, .register):
            guard is64, Self.isGeneral(i.register(1)), let found = Handlers.store(size, indexed: Self.isIndexed(i)) else { return nil }
            self.init(found)
            fields.src = i.register(1).number
            guard fillMemory(i, rip) else { return nil }
        case (.memory, .immediate):
            guard is64, let found = Handlers.storeI(size, indexed: Self.isIndexed(i)) else { return nil }
            self.init(found)
            fields.immediate = Int32(truncatingIfNeeded: i.immediate)
            guard fillMemory(i, rip) else { return nil }
        default: return nil
        }
    }

    private init?(alu op: HotALU, _ i: Instruction, _ rip: UInt64, _ is64: Bool, _ live: Bool) {
        guard let form = Self.form(i), Self.isLow(i), let found = Handlers.alu(op, form, i.size(0), live: live) else { return nil }
        self.init(found)
        guard fill(i, form, rip, is64) else { return nil }
    }

    private init?(multiply i: Instruction, _ rip: UInt64, _ is64: Bool) {
        guard i.operandCount >= 2 else { return nil }
        let size = i.size(0)
        if i.operandCount == 3 {
            guard i.kind(1) == .register, let found = Handlers.multiplyRI(size) else { return nil }
            self.init(found)
            fields.src = i.register(1).number
            fields.immediate = Int32(truncatingIfNeeded: i.immediate)
        } else if i.kind(1) == .register {
            guard let found = Handlers.multiplyRR(size) else { return nil }
            self.init(found)
            fields.src = i.register(1).number
        } else {
            guard is64, let found = Handlers.multiplyRM(size) else { return nil }
            self.init(found)
            guard fillMemory(i, rip) else { return nil }
        }
        fields.dst = i.register(0).number
    }

    private init?(shift i: Instruction, _ live: Bool) {
        guard i.kind(0) == .register else { return nil }
        let size = i.size(0)
        if i.kind(1) == .register {
            let found: Handler?
            switch i.mnemonic {
            case .shl: found = Handlers.shiftLeftByCL(size)
            case .shr: found = Handlers.shiftRightByCL(size)
            case .sar: found = Handlers.shiftArithmeticByCL(size)
            default: found = nil
            }
            guard let found else { return nil }
            self.init(found)
        } else {
            let bits = UInt64(truncatingIfNeeded: size &* 8)
            var count = i.immediate & (size == 8 ? 63 : 31)
            guard count != 0 else { return nil }
            let found: Handler?
            switch i.mnemonic {
            case .shl: found = Handlers.shiftLeft(size, live: live)
            case .shr: found = Handlers.shiftRight(size, live: live)
            case .sar: found = Handlers.shiftArithmetic(size, live: live)
            case .rol: found = Handlers.rotateI(size)
            default:
                // ROR's flags differ; it is a ROL of the rest only where nobody reads them.
                found = live ? nil : Handlers.rotateI(size)
                count = bits &- count
            }
            guard let found else { return nil }
            self.init(found)
            fields.immediate = Int32(truncatingIfNeeded: count)
        }
        fields.dst = i.register(0).number
    }

    private static func form(_ i: Instruction) -> HotForm? {
        switch (i.kind(0), i.kind(1)) {
        case (.register, .register): .rr
        case (.register, .immediate): .ri
        case (.register, .memory): isIndexed(i) ? .rx : .rm
        case (.memory, .register): isIndexed(i) ? .xr : .mr
        case (.memory, .immediate): isIndexed(i) ? .xi : .mi
        default: nil
        }
    }

    /// Whether its address is made of more than one register and a displacement; FS's and GS's bases are registers here.
    private static func isIndexed(_ i: Instruction) -> Bool {
        if i.index.registerClass != .none { return true }
        return (i.segment == .fs || i.segment == .gs) && i.base.registerClass != .none && i.base.registerClass != .instructionPointer
    }

    private static func isGeneral(_ register: Register) -> Bool { register.registerClass.rawValue <= 4 }

    /// No operand is AH, CH, DH or BH.
    private static func isLow(_ i: Instruction) -> Bool {
        !(i.kind(0) == .register && i.register(0).registerClass == .high8)
            && !(i.kind(1) == .register && i.register(1).registerClass == .high8)
    }

    private mutating func fill(_ i: Instruction, _ form: HotForm, _ rip: UInt64, _ is64: Bool) -> Bool {
        switch form {
        case .rr:
            fields.dst = i.register(0).number
            fields.src = i.register(1).number
            return true
        case .ri:
            fields.dst = i.register(0).number
            fields.immediate = Int32(truncatingIfNeeded: i.immediate)
            return true
        case .rm, .rx: fields.dst = i.register(0).number
        case .mr, .xr: fields.src = i.register(1).number
        case .mi, .xi: fields.immediate = Int32(truncatingIfNeeded: i.immediate)
        }
        return is64 && fillMemory(i, rip)
    }

    /// The memory operand, where two registers and a displacement make its linear address.
    private mutating func fillMemory(_ i: Instruction, _ rip: UInt64, segments: Bool = true) -> Bool {
        guard i.addressSize == 8 else { return false }
        var base = i.base.registerClass == .none ? 16 as UInt8 : i.base.number
        var index = i.index.registerClass == .none ? 16 as UInt8 : i.index.number
        fields.scale = UInt8(truncatingIfNeeded: i.scale.trailingZeroBitCount)
        fields.displacement = UInt64(bitPattern: i.displacement)
        if i.base.registerClass == .instructionPointer {
            base = 16
            fields.displacement = fields.displacement &+ rip &+ UInt64(i.length)
        }
        if segments, i.segment == .fs || i.segment == .gs {
            if index == 16 {
                index = base
                fields.scale = 0
            } else if base != 16 {
                return false
            }
            base = Op.segmentBase(Int(i.segment.number))
        }
        fields.base = base
        fields.index = index
        return true
    }
}
