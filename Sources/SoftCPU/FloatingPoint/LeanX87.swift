internal import X86

/// x87 instructions that need not carry the whole state in and out, where the guest masks all exceptions and the
/// registers they read are not empty: loads, stores, the four operations, comparisons, FXCH.
///
/// Only the registers that take part are loaded. The status word is put together from the guest's and what the
/// instruction reports; TOP and tags are kept here, and the image, being in stack order, turns round by one register for
/// a push or pop. Every other case goes on to the thunk's full path, so this decides speed only.
struct LeanX87 {
    enum Kind {
        /// A new ST(0) from memory, a register or a constant.
        case push
        /// ST(0) to memory.
        case store
        /// ST(0) to ST(i).
        case move
        /// ST(0) becomes what an instruction makes of it, and of memory where it has that.
        case unary
        /// ST(0) and ST(i), with the result in either.
        case binary
        /// ST(0) with ST(i) or memory; nothing is stored.
        case compare
        case exchange
    }

    let kind: Kind
    /// The guest's stack is popped once.
    let pops: Bool
    /// The result of `.binary` goes to ST(i), not to ST(0).
    let resultInStackRegister: Bool

    /// What a form is, or nil where it is none of these.
    init?(_ form: ThunkForm) {
        let register = form.stackRegister
        let memory = form.hasMemory
        var pops = false
        var resultInStackRegister = false
        switch form.mnemonic {
        case .fld, .fild, .fld1, .fldl2t, .fldl2e, .fldpi, .fldlg2, .fldln2, .fldz: kind = .push
        case .fst, .fist: kind = memory ? .store : .move
        // DD D8+i; its aliases are left alone.
        case .fstp where memory || form.opcode == 0xDD: (kind, pops) = (memory ? .store : .move, true)
        case .fistp, .fisttp: (kind, pops) = (.store, true)
        case .fchs, .fabs, .fsqrt, .frndint: kind = .unary
        case .fiadd, .fisub, .fisubr, .fimul, .fidiv, .fidivr: kind = .unary
        case .fadd, .fsub, .fsubr, .fmul, .fdiv, .fdivr:
            kind = memory ? .unary : .binary
            resultInStackRegister = form.opcode == 0xDC
        case .faddp, .fsubp, .fsubrp, .fmulp, .fdivp, .fdivrp:
            guard register != 0 else { return nil }
            (kind, pops, resultInStackRegister) = (.binary, true, true)
        case .fcom, .fucom, .ficom, .fcomi, .fucomi: kind = .compare
        case .fcomp, .fucomp, .ficomp, .fcomip, .fucomip: (kind, pops) = (.compare, true)
        case .fxch where form.opcode == 0xD9: kind = .exchange
        default: return nil
        }
        self.pops = pops
        self.resultInStackRegister = resultInStackRegister
    }

    /// The condition codes that the instruction sets: C1, and where it compares, all. FCOMI and its kin set none here:
    /// Intel's processors clear C1 and AMD's leave it, so only a C1 that is clear already is for the lean path.
    func conditionCodes(_ form: ThunkForm) -> UInt32 { form.writesFlags ? 0 : kind == .compare ? 0x4700 : 0x0200 }
}

extension ThunkEmitter {
    /// Code for the lean case; jumps to what follows it where that does not apply.
    ///
    /// rdx image, rsi memory; rax, rcx, r9, r10 are free.
    mutating func lean(_ lean: LeanX87, _ form: ThunkForm) {
        let register = form.stackRegister
        let usesRegister = !form.hasMemory && form.row.modRMRM == nil

        // FCW's six masks are all set.
        put(0x8B, 0x02, 0x89, 0xC1, 0xF7, 0xD1)  // mov eax, [rdx]; mov ecx, eax; not ecx
        put(0xF6, 0xC1, 0x3F)  // test cl, 3Fh
        var exits = [jump(0x85)]  // jnz
        if form.writesFlags {
            put(0xF6, 0x42, UInt8(FXSaveImage.fsw + 1), 0x02)  // test byte [rdx + fsw + 1], C1
            exits.append(jump(0x85))  // jnz
        }
        put(0xC1, 0xE8, 0x1B)  // shr eax, 27: TOP in the low three bits
        put(0x0F, 0xB6, 0x4A, UInt8(FXSaveImage.ftw))  // movzx ecx, byte [rdx + ftw]
        if lean.kind == .push {
            exits.append(testTag(-1, mustBeEmpty: true))
            if usesRegister { exits.append(testTag(Int8(register), mustBeEmpty: false)) }
        } else {
            exits.append(testTag(0, mustBeEmpty: false))
            if usesRegister, register != 0 { exits.append(testTag(Int8(register), mustBeEmpty: false)) }
        }

        if lean.kind == .exchange {
            moveStack(0, xmm: 0, store: false)
            moveStack(register, xmm: 1, store: false)
            moveStack(register, xmm: 0, store: true)
            moveStack(0, xmm: 1, store: true)
            put(0x66, 0x81, 0x62, UInt8(FXSaveImage.fsw), 0xFF, 0xFD)  // and word [rdx + fsw], ~C1
            setResult(0)
            ret()
        } else {
            leanOperation(lean, form, usesRegister: usesRegister)
        }
        for exit in exits { patch(exit, to: code.count) }
    }

    private mutating func leanOperation(_ lean: LeanX87, _ form: ThunkForm, usesRegister: Bool) {
        let register = form.stackRegister
        // Flags left over from before may stay if the guest has them too: what is merged below is then right anyway.
        put(0xDF, 0xE0)  // fnstsw ax
        put(0x8A, 0x4A, UInt8(FXSaveImage.fsw))  // mov cl, [rdx + fsw]
        put(0xF6, 0xD1, 0x20, 0xC1, 0xF6, 0xC1, 0x7F)  // not cl; and cl, al; test cl, 7Fh
        put(0x74, 0x02, 0xDB, 0xE2)  // jz over; fnclex
        put(0xD9, 0x2A)  // fldcw [rdx]

        let reg = form.row.modRMReg ?? 0
        // Host registers: st0 is ST(0), st1 is ST(i).
        let two = usesRegister && register != 0 && (lean.kind == .binary || lean.kind == .compare)
        if two { loadStack(register) }
        if lean.kind != .push { loadStack(0) }
        switch lean.kind {
        case .push where usesRegister: loadStack(register)
        case .move, .exchange: break
        default:
            if form.hasMemory {
                putInstruction(form, reg: reg, rm: .source)
            } else {
                putInstruction(form, reg: reg, rm: .register(form.row.modRMRM ?? (two ? 1 : 0)))
            }
        }
        put(0xDF, 0xE0, 0x41, 0x89, 0xC2)  // fnstsw ax; mov r10d, eax
        if form.writesFlags { captureFlags() }

        // The host's stack becomes empty.
        let drop: [UInt8] = [0xDD, 0xD8]  // fstp st0
        switch lean.kind {
        case .push:
            turn(by: 1)
            storeStack(0)
        case .store: if !lean.pops { put(drop) }
        case .move: storeStack(register)
        case .unary: storeStack(0)
        case .binary:
            if lean.pops {
                storeStack(register)
            } else if lean.resultInStackRegister, two {
                put(drop)
                storeStack(register)
            } else {
                storeStack(0)
                if two { put(drop) }
            }
        case .compare:
            if !lean.pops { put(drop) }
            if two { put(drop) }
        case .exchange: break
        }
        if lean.pops { turn(by: -1) }
        if form.writesFlags { packFlags() }
        put(0x41, 0x89, 0xC1)  // mov r9d, eax: the result
        updateStatus(lean, form)
        loadHostControlWord()
        if form.writesFlags { put(0x44, 0x89, 0xC8) } else { setResult(0) }  // mov eax, r9d
        ret()
    }

    /// FSW from the guest's and r10; TOP and tags after a push or pop. Changes eax, ecx, r10d and r11d.
    private mutating func updateStatus(_ lean: LeanX87, _ form: ThunkForm) {
        let codes = lean.conditionCodes(form)
        put(0x0F, 0xB7, 0x42, UInt8(FXSaveImage.fsw))  // movzx eax, word [rdx + fsw]
        put(0x25)  // and eax, ~codes
        put32(~codes)
        put(0x41, 0x81, 0xE2)  // and r10d, codes | flags
        put32(codes | 0x7F)
        put(0x44, 0x09, 0xD0)  // or eax, r10d
        if lean.kind == .push || lean.pops {
            put(0x44, 0x0F, 0xB6, 0x5A, UInt8(FXSaveImage.ftw))  // movzx r11d, byte [rdx + ftw]
            if lean.pops { changeTag(set: false) }
            put(0x89, 0xC1)  // mov ecx, eax
            put(0x81, 0xC1)  // add ecx, TOP's step
            put32(lean.pops ? 0x0800 : UInt32(bitPattern: -0x0800))
            put(0x81, 0xE1)  // and ecx, TOP
            put32(UInt32(FXSaveImage.topBits))
            put(0x25)  // and eax, ~TOP
            put32(~UInt32(FXSaveImage.topBits))
            put(0x09, 0xC8)  // or eax, ecx
            if !lean.pops { changeTag(set: true) }
            put(0x44, 0x88, 0x5A, UInt8(FXSaveImage.ftw))  // mov [rdx + ftw], r11b
        }
        put(0x66, 0x89, 0x42, UInt8(FXSaveImage.fsw))  // mov [rdx + fsw], ax
    }

    /// BTS or BTR r11d, TOP of eax. Changes ecx.
    private mutating func changeTag(set: Bool) {
        put(0x89, 0xC1, 0xC1, 0xE9, 0x0B, 0x83, 0xE1, 0x07)  // mov ecx, eax; shr ecx, 11; and ecx, 7
        put(0x41, 0x0F, set ? 0xAB : 0xB3, 0xCB)
    }

    /// Leaves where the tag of ST(offset) is not as it must be. TOP is in eax, FTW in ecx.
    private mutating func testTag(_ offset: Int8, mustBeEmpty: Bool) -> Int {
        put(0x44, 0x8D, 0x48, UInt8(bitPattern: offset))  // lea r9d, [rax + offset]
        put(0x41, 0x83, 0xE1, 0x07)  // and r9d, 7
        put(0x44, 0x0F, 0xA3, 0xC9)  // bt ecx, r9d
        return jump(mustBeEmpty ? 0x82 : 0x83)
    }

    /// Jcc rel32; returns where its distance is.
    private mutating func jump(_ condition: UInt8) -> Int {
        put(0x0F, condition)
        put32(0)
        return code.count - 4
    }

    /// FLD tbyte of ST(register) in the image.
    private mutating func loadStack(_ register: UInt8) {
        put(0xDB, 0xAA)
        put32(UInt32(FXSaveImage.st) + UInt32(register) &* 16)
    }

    /// FSTP tbyte.
    private mutating func storeStack(_ register: UInt8) {
        put(0xDB, 0xBA)
        put32(UInt32(FXSaveImage.st) + UInt32(register) &* 16)
    }

    /// MOVAPS between ST(register) in the image and an XMM register.
    private mutating func moveStack(_ register: UInt8, xmm: UInt8, store: Bool) {
        put(0x0F, store ? 0x29 : 0x28, 0x82 | xmm &<< 3)
        put32(UInt32(FXSaveImage.st) + UInt32(register) &* 16)
    }

    /// ST(j) becomes ST(j + step), as a push (1) or pop (-1) has it.
    private mutating func turn(by step: Int) {
        for register in 0..<8 { moveStack(UInt8(register), xmm: UInt8(register), store: false) }
        for register in 0..<8 { moveStack(UInt8((register + step) & 7), xmm: UInt8(register), store: true) }
    }
}
