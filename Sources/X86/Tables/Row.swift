/// Which flags an instruction reads, leaves with a defined result, and leaves undefined.
///
/// One byte each: bit 0 CF, 1 PF, 2 AF, 3 ZF, 4 SF, 5 OF, 6 DF, 7 any other flag (IF, TF, AC, …).
struct FlagEffects: BitwiseCopyable {
    let read, written, undefined: UInt8

    @inline(__always)
    init(read: UInt8 = 0, written: UInt8 = 0, undefined: UInt8 = 0) {
        self.read = read
        self.written = written
        self.undefined = undefined
    }

    @inline(__always) static var none: Self { Self() }
    /// ADD, SUB, CMP, NEG, …: all six from the result.
    @inline(__always) static var arithmetic: Self { Self(written: 0x3F) }
    /// ADC, SBB.
    @inline(__always) static var arithmeticWithCarry: Self { Self(read: 0x01, written: 0x3F) }
    /// AND, OR, XOR, TEST: CF and OF cleared, AF undefined.
    @inline(__always) static var logic: Self { Self(written: 0x3B, undefined: 0x04) }
    /// INC, DEC: all but CF.
    @inline(__always) static var increment: Self { Self(written: 0x3E) }
    /// Shifts by one.
    @inline(__always) static var shiftByOne: Self { Self(written: 0x3B, undefined: 0x04) }
    /// Shifts by a count: OF is defined for a count of one only, and a count of zero changes nothing.
    @inline(__always) static var shift: Self { Self(written: 0x1B, undefined: 0x24) }
    /// Rotates by one.
    @inline(__always) static var rotateByOne: Self { Self(written: 0x21) }
    /// Rotates by a count: OF as for `shift`.
    @inline(__always) static var rotate: Self { Self(written: 0x01, undefined: 0x20) }
    @inline(__always) static var rotateCarryByOne: Self { Self(read: 0x01, written: 0x21) }
    @inline(__always) static var rotateCarry: Self { Self(read: 0x01, written: 0x01, undefined: 0x20) }
    /// MUL, IMUL: CF and OF tell whether the high half matters.
    @inline(__always) static var multiply: Self { Self(written: 0x21, undefined: 0x1E) }
    /// DIV, IDIV.
    @inline(__always) static var divide: Self { Self(undefined: 0x3F) }
    /// BT and family: CF is the bit, ZF is kept.
    @inline(__always) static var bitTest: Self { Self(written: 0x01, undefined: 0x36) }
    /// BSF, BSR.
    @inline(__always) static var bitScan: Self { Self(written: 0x08, undefined: 0x37) }
    /// LZCNT, TZCNT.
    @inline(__always) static var countZeros: Self { Self(written: 0x09, undefined: 0x36) }
    /// ANDN, BLSR and family.
    @inline(__always) static var bitManipulation: Self { Self(written: 0x39, undefined: 0x06) }
    /// BEXTR.
    @inline(__always) static var bitExtract: Self { Self(written: 0x29, undefined: 0x16) }
    /// DAA, DAS.
    @inline(__always) static var decimalAdjust: Self { Self(read: 0x05, written: 0x1F, undefined: 0x20) }
    /// AAA, AAS.
    @inline(__always) static var asciiAdjust: Self { Self(read: 0x04, written: 0x05, undefined: 0x3A) }
    /// AAM, AAD.
    @inline(__always) static var asciiDivide: Self { Self(written: 0x1A, undefined: 0x25) }
    /// UCOMIS, FCOMI, PTEST, …: all six written.
    @inline(__always) static var compare: Self { Self(written: 0x3F) }
    /// String steps that set no other flag.
    @inline(__always) static var string: Self { Self(read: 0x40) }
    /// CMPS, SCAS.
    @inline(__always) static var stringCompare: Self { Self(read: 0x40, written: 0x3F) }
    @inline(__always) static var readCarry: Self { Self(read: 0x01) }
    @inline(__always) static var readZero: Self { Self(read: 0x08) }
    @inline(__always) static var readOverflow: Self { Self(read: 0x20) }
    @inline(__always) static var readSign: Self { Self(read: 0x10) }
    @inline(__always) static var readParity: Self { Self(read: 0x02) }
    @inline(__always) static var readCarryZero: Self { Self(read: 0x09) }
    @inline(__always) static var readSignOverflow: Self { Self(read: 0x30) }
    @inline(__always) static var readSignOverflowZero: Self { Self(read: 0x38) }
    /// PUSHF.
    @inline(__always) static var readAll: Self { Self(read: 0xFF) }
    /// POPF, IRET, and the system calls that load a new flag word.
    @inline(__always) static var writeAll: Self { Self(written: 0xFF) }
    /// INT n, SYSCALL: the flag word is saved, and IF, TF and others change.
    @inline(__always) static var interrupt: Self { Self(read: 0xFF, written: 0x80) }
    @inline(__always) static var writeCarry: Self { Self(written: 0x01) }
    @inline(__always) static var toggleCarry: Self { Self(read: 0x01, written: 0x01) }
    /// ADOX.
    @inline(__always) static var addOverflow: Self { Self(read: 0x20, written: 0x20) }
    @inline(__always) static var writeDirection: Self { Self(written: 0x40) }
    @inline(__always) static var writeSystem: Self { Self(written: 0x80) }
    @inline(__always) static var writeZero: Self { Self(written: 0x08) }
    /// LAHF, SAHF.
    @inline(__always) static var loadAH: Self { Self(read: 0x1F) }
    @inline(__always) static var storeAH: Self { Self(written: 0x1F) }
    /// Instructions that report by CF, or CF and ZF, and clear the rest.
    @inline(__always) static var report: Self { Self(written: 0x3F) }
}

/// What a row's instruction is, beyond its operands.
struct Traits: BitwiseCopyable {
    let bits: UInt32

    @inline(__always)
    init(_ bits: UInt32) { self.bits = bits }

    @inline(__always)
    func contains(_ other: Traits) -> Bool { bits & other.bits != 0 }

    @inline(__always) static var none: Self { Self(0) }
    /// LOCK is allowed where the first operand is memory.
    @inline(__always) static var lock: Self { Self(0x1) }
    /// A string instruction: F3 and F2 repeat it.
    @inline(__always) static var rep: Self { Self(0x2) }
    /// A string instruction whose repetition also ends by ZF: F3 is REPE, F2 is REPNE.
    @inline(__always) static var repCompare: Self { Self(0x4) }
    /// The operand size is 8 in 64-bit mode, or 2 with 66.
    @inline(__always) static var d64: Self { Self(0x8) }
    /// The operand size is 8 in 64-bit mode whatever the prefixes.
    @inline(__always) static var f64: Self { Self(0x10) }
    /// The row stands for its opcode up to the next multiple of eight: the low bits name a register.
    @inline(__always) static var plusR: Self { Self(0x20) }
    /// ModRM.rm is a register whatever ModRM.mod says.
    @inline(__always) static var modIgnored: Self { Self(0x40) }
    /// Raises #GP outside ring 0.
    @inline(__always) static var cpl0: Self { Self(0x80) }
    /// Checked against IOPL, the I/O permission map or CR4: not always allowed outside ring 0.
    @inline(__always) static var iopl: Self { Self(0x100) }
    /// Serialises the instruction stream.
    @inline(__always) static var serialising: Self { Self(0x200) }
    /// A 16-byte memory operand need not be aligned, although the encoding is a legacy SSE one.
    @inline(__always) static var unaligned: Self { Self(0x400) }
    /// May continue elsewhere than at the next instruction.
    @inline(__always) static var branch: Self { Self(0x800) }
    /// Raises #UD by definition.
    @inline(__always) static var alwaysUD: Self { Self(0x1000) }
    /// A vector index register, as wide as the vector.
    @inline(__always) static var vsib: Self { Self(0x2000) }
    /// A vector index register that is an XMM register whatever the vector length.
    @inline(__always) static var vsibHalf: Self { Self(0x4000) }
    /// #UD in real and virtual-8086 mode, which the decoder cannot see.
    @inline(__always) static var protected: Self { Self(0x8000) }
    @inline(__always) var lock: Self { Self(bits | 0x1) }
    @inline(__always) var rep: Self { Self(bits | 0x2) }
    @inline(__always) var repCompare: Self { Self(bits | 0x4) }
    @inline(__always) var d64: Self { Self(bits | 0x8) }
    @inline(__always) var f64: Self { Self(bits | 0x10) }
    @inline(__always) var plusR: Self { Self(bits | 0x20) }
    @inline(__always) var modIgnored: Self { Self(bits | 0x40) }
    @inline(__always) var cpl0: Self { Self(bits | 0x80) }
    @inline(__always) var iopl: Self { Self(bits | 0x100) }
    @inline(__always) var serialising: Self { Self(bits | 0x200) }
    @inline(__always) var unaligned: Self { Self(bits | 0x400) }
    @inline(__always) var branch: Self { Self(bits | 0x800) }
    @inline(__always) var alwaysUD: Self { Self(bits | 0x1000) }
    @inline(__always) var vsib: Self { Self(bits | 0x2000) }
    @inline(__always) var vsibHalf: Self { Self(bits | 0x4000) }
    @inline(__always) var protected: Self { Self(bits | 0x8000) }
}

/// One instruction form: the line of a table from which it is decoded, printed and generated.
struct Row: BitwiseCopyable {
    let match: Match
    let operand0, operand1, operand2, operand3: OperandSpec
    let traits: Traits
    let mnemonic: Mnemonic
    let opcode: UInt8
    let feature: Feature
    let flags: FlagEffects

    @inline(__always)
    init(
        _ opcode: UInt8, _ match: Match, _ mnemonic: Mnemonic,
        _ operand0: OperandSpec = .none, _ operand1: OperandSpec = .none,
        _ operand2: OperandSpec = .none, _ operand3: OperandSpec = .none,
        flags: FlagEffects = .none, traits: Traits = .none, in feature: Feature = .base
    ) {
        self.match = match
        self.operand0 = operand0
        self.operand1 = operand1
        self.operand2 = operand2
        self.operand3 = operand3
        self.traits = traits
        self.mnemonic = mnemonic
        self.opcode = opcode
        self.feature = feature
        self.flags = flags
    }

    /// Whether the encoding has a ModRM byte. All rows of one opcode agree.
    var usesModRM: Bool {
        match.mask & Match.modRMBits != 0 || operand0.usesModRM || operand1.usesModRM || operand2.usesModRM
            || operand3.usesModRM
    }
}

extension Row {
    private func hasOperand(in file: OperandSpec.File) -> Bool {
        operand0.file == file || operand1.file == file || operand2.file == file || operand3.file == file
    }

    var operandsAreVector: Bool { hasOperand(in: .vector) || mnemonic == .vzeroupper || mnemonic == .vzeroall }
    var operandsAreMMX: Bool { hasOperand(in: .mmx) }
}
