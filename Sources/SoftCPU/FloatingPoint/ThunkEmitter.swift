internal import X86

/// Writes the host code of one thunk.
///
/// A thunk loads just the registers that its instruction reads, executes the instruction with its opcode and with
/// operands renamed, and stores what it wrote. The register operands come and go through `destination` and `source`,
/// so one thunk serves an instruction whatever its registers are, and memory is addressed through the same pointers.
///
/// ```
/// rdi destination   rsi source   rdx image   rcx general registers   r8d context      result in eax
/// ModRM.reg: xmm1, mm1 or rax    ModRM.rm: xmm2, mm2, rcx, [rdi] or [rsi]      implied: xmm0
/// r11: where to go on if the instruction raises an exception that the guest has unmasked
/// ```
/// On the way out MXCSR is the host's default, the x87 stack is empty, and no exception is left pending, as the calling
/// convention wants them.
///
/// Source: [SDM2 §2.1, §2.2.1], [PSABI-X86-64 §3.2.1, §3.2.3].
struct ThunkEmitter {
    private(set) var code: [UInt8] = []
    private var recoveryFixup: Int?
    private var defaultMXCSRFixups: [Int] = []
    private var defaultControlFixups: [Int] = []

    mutating func put(_ bytes: UInt8...) { code += bytes }

    mutating func put(_ bytes: [UInt8]) { code += bytes }

    mutating func put32(_ value: UInt32) {
        for shift in 0..<4 { code.append(UInt8(truncatingIfNeeded: value &>> UInt32(shift &* 8))) }
    }

    // MARK: Frame

    /// LEA r11, [rip + recovery].
    private mutating func setRecovery() {
        put(0x4C, 0x8D, 0x1D)
        recoveryFixup = code.count
        put32(0)
    }

    /// LDMXCSR [rdx + mxcsr].
    private mutating func loadGuestMXCSR() { put(0x0F, 0xAE, 0x52, UInt8(FXSaveImage.mxcsr)) }

    /// STMXCSR [rdx + mxcsr].
    private mutating func storeGuestMXCSR() { put(0x0F, 0xAE, 0x5A, UInt8(FXSaveImage.mxcsr)) }

    /// LDMXCSR [rip + default].
    private mutating func loadHostMXCSR() {
        put(0x0F, 0xAE, 0x15)
        defaultMXCSRFixups.append(code.count)
        put32(0)
    }

    /// FLDCW [rip + default].
    mutating func loadHostControlWord() {
        put(0xD9, 0x2D)
        defaultControlFixups.append(code.count)
        put32(0)
    }

    private mutating func emms() { put(0x0F, 0x77) }
    private mutating func fninit() { put(0xDB, 0xE3) }
    mutating func ret() { put(0xC3) }

    /// MOV eax, value.
    mutating func setResult(_ value: UInt32) {
        if value == 0 {
            put(0x31, 0xC0)
        } else {
            put(0xB8)
            put32(value)
        }
    }

    /// SETO al; LAHF: before anything else changes the flags. LAHF has no place for OF, and leaves AL alone.
    mutating func captureFlags() { put(0x0F, 0x90, 0xC0, 0x9F) }

    /// AL and AH of `captureFlags` to the places the flags have in RFLAGS, in eax. Changes ecx.
    mutating func packFlags() {
        put(0x0F, 0xB6, 0xCC)  // movzx ecx, ah
        put(0x0F, 0xB6, 0xC0)  // movzx eax, al
        put(0xC1, 0xE0, 0x0B)  // shl eax, 11
        put(0x09, 0xC8)  // or eax, ecx
        put(0x25)  // and eax, CF | PF | AF | ZF | SF | OF
        put32(0x8D5)
    }

    /// Writes the constants and resolves what points forward.
    private mutating func finish() {
        let constant = code.count
        put32(FXSaveImage.mxcsrReset)
        for fixup in defaultMXCSRFixups { patch(fixup, to: constant) }
        if defaultControlFixups.isEmpty { return }
        put(UInt8(truncatingIfNeeded: FXSaveImage.fcwReset), UInt8(truncatingIfNeeded: FXSaveImage.fcwReset &>> 8))
        for fixup in defaultControlFixups { patch(fixup, to: constant + 4) }
    }

    mutating func patch(_ fixup: Int, to target: Int) {
        let distance = UInt32(truncatingIfNeeded: target - fixup - 4)
        for byte in 0..<4 { code[fixup + byte] = UInt8(truncatingIfNeeded: distance &>> UInt32(byte &* 8)) }
    }

    // MARK: The instruction itself

    /// ModRM of a renamed instruction: what its reg and rm fields are.
    enum RM {
        case register(UInt8)
        /// [rdi] or [rsi].
        case destination, source
    }

    /// The instruction with its own prefixes, opcode and immediates, and the given ModRM fields.
    mutating func putInstruction(_ form: ThunkForm, reg: UInt8, rm: RM) {
        let id = form.row
        if form.wordOperand { put(0x66) }
        if form.mandatoryPrefix != 0 { put(form.mandatoryPrefix) }
        if form.wide { put(0x48) }
        switch form.map {
        case .map0F: put(0x0F)
        case .map0F38: put(0x0F, 0x38)
        case .map0F3A: put(0x0F, 0x3A)
        default: break
        }
        put(form.opcode)
        if id.usesModRM {
            switch rm {
            case .register(let number): put(0xC0 | reg &<< 3 | number)
            case .destination: put(reg &<< 3 | 7)
            case .source: put(reg &<< 3 | 6)
            }
        }
        for index in 0..<form.immediateCount {
            put(UInt8(truncatingIfNeeded: form.immediates &>> UInt16(index &* 8)))
        }
    }

    // MARK: SSE, MMX, CRC32

    /// MOVAPS xmm, [pointer], or the other way round.
    private mutating func moveXMM(_ number: UInt8, _ operand: Int, store: Bool) {
        put(0x0F, store ? 0x29 : 0x28, number &<< 3 | (operand == 0 ? 7 : 6))
    }

    /// MOVQ mm, [pointer], or the other way round.
    private mutating func moveMMX(_ number: UInt8, _ operand: Int, store: Bool) {
        put(0x0F, store ? 0x7F : 0x6F, number &<< 3 | (operand == 0 ? 7 : 6))
    }

    /// MOV r64, [pointer], or the other way round.
    private mutating func moveGeneral(_ number: UInt8, _ operand: Int, store: Bool) {
        put(0x48, store ? 0x89 : 0x8B, number &<< 3 | (operand == 0 ? 7 : 6))
    }

    /// MOVAPS xmm0, [base + 160], or the other way round, with base rdx or r10.
    private mutating func moveXMM0(store: Bool, imageInR10: Bool) {
        if imageInR10 { put(0x41) }
        put(0x0F, store ? 0x29 : 0x28, 0x82)
        put32(UInt32(FXSaveImage.xmm))
    }

    /// The thunk of a form.
    static func thunk(_ form: ThunkForm) -> [UInt8] {
        switch form.mnemonic {
        case .maskmovq, .maskmovdqu: byteMask(form)
        default: form.row.unit == .x87 ? x87(form) : vector(form)
        }
    }

    /// MASKMOVQ and MASKMOVDQU: the mask only, as PMOVMSKB gives it. Which bytes go to memory depends on data, so the
    /// core makes the store, and the data stay where they are.
    private static func byteMask(_ form: ThunkForm) -> [UInt8] {
        var emitter = ThunkEmitter()
        if form.usesMMX {
            emitter.moveMMX(2, 1, store: false)
            emitter.put(0x0F, 0xD7, 0xC2)  // pmovmskb eax, mm2
            emitter.emms()
        } else {
            emitter.moveXMM(2, 1, store: false)
            emitter.put(0x66, 0x0F, 0xD7, 0xC2)  // pmovmskb eax, xmm2
        }
        emitter.ret()
        return emitter.code
    }

    /// A thunk for an instruction that is no x87 one.
    private static func vector(_ form: ThunkForm) -> [UInt8] {
        var emitter = ThunkEmitter()
        let explicitLengths = form.mnemonic == .pcmpestri || form.mnemonic == .pcmpestrm
        let returnsIndex = form.mnemonic == .pcmpestri || form.mnemonic == .pcmpistri
        let returnsMask = form.mnemonic == .pcmpestrm || form.mnemonic == .pcmpistrm
        let imageInR10 = explicitLengths || returnsIndex || returnsMask
        if form.usesMXCSR { emitter.setRecovery() }
        if imageInR10 {
            emitter.put(0x49, 0x89, 0xD2)  // mov r10, rdx
            emitter.put(0x49, 0x89, 0xC9)  // mov r9, rcx
        }

        // Registers in. The destination too: many instructions keep a part of it.
        var reg: UInt8 = form.row.modRMReg ?? 0
        var rm = RM.register(0)
        for operand in 0..<2 {
            let number: UInt8
            switch form.place(operand) {
            case .reg:
                number = form.operandClass(operand) == .general ? 0 : 1
                reg = number
            case .rm:
                if form.operandClass(operand) == .memory {
                    rm = operand == 0 ? .destination : .source
                    continue
                }
                number = form.operandClass(operand) == .general ? 1 : 2
                rm = .register(number)
            default: continue
            }
            switch form.operandClass(operand) {
            case .xmm: emitter.moveXMM(number, operand, store: false)
            case .mmx: emitter.moveMMX(number, operand, store: false)
            case .general: emitter.moveGeneral(number, operand, store: false)
            case .generalByte: emitter.put(0x0F, 0xB6, number &<< 3 | (operand == 0 ? 7 : 6))
            case .memory, .other: break
            }
        }
        if form.readsXMM0 { emitter.moveXMM0(store: false, imageInR10: imageInR10) }
        if explicitLengths {
            emitter.put(0x49, 0x8B, 0x01)  // mov rax, [r9]
            emitter.put(0x49, 0x8B, 0x51, 0x10)  // mov rdx, [r9 + 16]
        }

        if form.usesMXCSR { emitter.loadGuestMXCSR() }
        emitter.putInstruction(form, reg: reg, rm: rm)
        if form.writesFlags { emitter.captureFlags() }
        if form.usesMXCSR {
            emitter.storeGuestMXCSR()
            emitter.loadHostMXCSR()
        }

        // Registers out.
        if returnsIndex { emitter.put(0x49, 0x89, 0x49, 0x08) }  // mov [r9 + 8], rcx
        if returnsMask { emitter.moveXMM0(store: true, imageInR10: imageInR10) }
        if form.writesDestination {
            switch (form.operandClass(0), form.place(0)) {
            case (.xmm, .reg): emitter.moveXMM(1, 0, store: true)
            case (.xmm, .rm): emitter.moveXMM(2, 0, store: true)
            case (.mmx, .reg): emitter.moveMMX(1, 0, store: true)
            case (.mmx, .rm): emitter.moveMMX(2, 0, store: true)
            case (.general, .reg): emitter.moveGeneral(0, 0, store: true)
            case (.general, .rm): emitter.moveGeneral(1, 0, store: true)
            default: break
            }
        }
        if form.usesMMX { emitter.emms() }
        if form.writesFlags { emitter.packFlags() } else { emitter.setResult(0) }
        emitter.ret()

        if let fixup = emitter.recoveryFixup {
            // The exception's flags are in MXCSR, and no register was stored.
            emitter.patch(fixup, to: emitter.code.count)
            emitter.storeGuestMXCSR()
            emitter.loadHostMXCSR()
            if form.usesMMX { emitter.emms() }
            emitter.setResult(HostOperation.Outcome.simdException.rawValue)
            emitter.ret()
        }
        emitter.finish()
        return emitter.code
    }

    // MARK: x87

    /// A thunk for an x87 instruction: `LeanX87` where that applies, else the whole state goes in and comes out.
    ///
    /// An unmasked exception is recorded by the instruction and stays pending, which FXSAVE tells and FNINIT ends; no
    /// waiting instruction comes between, so the host raises none.
    private static func x87(_ form: ThunkForm) -> [UInt8] {
        var emitter = ThunkEmitter()
        if let lean = LeanX87(form) { emitter.lean(lean, form) }
        emitter.setRecovery()
        emitter.put(0x48, 0x0F, 0xAE, 0x0A)  // fxrstor64 [rdx]
        if form.readsFlags {
            emitter.put(0x44, 0x89, 0xC0)  // mov eax, r8d
            emitter.put(0xC1, 0xE0, 0x08)  // shl eax, 8
            emitter.put(0x9E)  // sahf
        }
        let reg = form.row.modRMReg ?? 0
        if let number = form.row.modRMRM {
            emitter.putInstruction(form, reg: reg, rm: .register(number))
        } else if form.hasMemory {
            emitter.putInstruction(form, reg: reg, rm: .source)
        } else {
            emitter.putInstruction(form, reg: reg, rm: .register(form.stackRegister))
        }
        if form.writesFlags { emitter.captureFlags() }
        emitter.put(0x48, 0x0F, 0xAE, 0x02)  // fxsave64 [rdx]
        emitter.loadHostMXCSR()
        if form.writesFlags { emitter.packFlags() } else { emitter.setResult(0) }
        // FNINIT takes longer than most instructions do, so it is for a pending exception only. EMMS and FLDCW give the
        // host an empty stack and its control word too, but they are waiting instructions.
        emitter.put(0xF6, 0x42, UInt8(FXSaveImage.fsw), 0x80)  // test byte [rdx + fsw], ES
        emitter.put(0x75, 9)  // jnz to fninit
        emitter.emms()
        emitter.loadHostControlWord()
        emitter.ret()
        emitter.fninit()
        emitter.ret()

        if let fixup = emitter.recoveryFixup {
            emitter.patch(fixup, to: emitter.code.count)
            emitter.fninit()
            emitter.loadHostMXCSR()
            emitter.setResult(HostOperation.Outcome.x87Exception.rawValue)
            emitter.ret()
        }
        emitter.finish()
        return emitter.code
    }
}
