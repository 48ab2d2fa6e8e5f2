/// The x87, MMX and SSE state of a vCPU as it lies in memory: 512 bytes, 64-byte-aligned, in the form that FXSAVE64
/// writes. The registers are where the host's own FXRSTOR64 finds them, so no state is ever converted.
///
/// ```
///   0 FCW   2 FSW   4 FTW (abridged)   6 FOP   8 FIP (64 bits)   16 FDP (64 bits)   24 MXCSR   28 MXCSR_MASK
///  32 + 16 i   ST(i), counted from the top of the stack
/// 160 + 16 i   XMM i
/// 416 to 511   not used
/// ```
/// Every instruction keeps the image canonical: reserved bits of FCW, FSW and MXCSR as a processor has them, ES and B
/// of FSW as the exception flags and masks make them, MXCSR without a bit that LDMXCSR would refuse. State that comes
/// from elsewhere goes through `canonicalise` first.
///
/// Source: [SDM1 §10.5.1, Table 10-2], [SDM2 FXSAVE].
enum FXSaveImage {
    static var byteCount: Int { 512 }
    static var fcw: Int { 0 }
    static var fsw: Int { 2 }
    static var ftw: Int { 4 }
    static var fop: Int { 6 }
    static var fip: Int { 8 }
    static var fdp: Int { 16 }
    static var mxcsr: Int { 24 }
    static var mxcsrMask: Int { 28 }
    static var st: Int { 32 }
    static var xmm: Int { 160 }
    /// Where FXSAVE stops writing: with sixteen XMM registers, and with eight.
    static var end: Int { 416 }
    static var legacyEnd: Int { 288 }

    /// All that MXCSR may hold: DAZ is there, AMD's misaligned-exception mask (bit 17) is not.
    /// Source: [SDM1 §10.2.3, §11.6.6].
    static var mxcsrMaskValue: UInt32 { 0xFFFF }
    static var mxcsrReset: UInt32 { 0x1F80 }
    static var fcwReset: UInt16 { 0x037F }

    /// FSW.ES and FSW.B.
    static var summaryBits: UInt16 { 0x8080 }
    /// IE, DE, ZE, OE, UE, PE of FSW, and their masks in FCW.
    static var exceptionBits: UInt16 { 0x003F }
    static var topBits: UInt16 { 0x3800 }

    /// The control word as FLDCW stores it: bit 6 is one, bits 7 and 13 to 15 are zero.
    @inline(__always)
    static func controlWord(_ value: UInt16) -> UInt16 { value & 0x1F3F | 0x0040 }

    /// The status word with ES and B as exception flags and masks make them.
    ///
    /// Source: [SDM1 §8.1.3.3].
    @inline(__always)
    static func statusWord(_ status: UInt16, control: UInt16) -> UInt16 {
        let pending = status & ~control & exceptionBits != 0
        return status & ~summaryBits | (pending ? summaryBits : 0)
    }

    /// An instruction or data pointer as the register holds it: 48 bits, sign-extended.
    @inline(__always)
    static func pointer(_ value: UInt64) -> UInt64 {
        UInt64(bitPattern: Int64(bitPattern: value &<< 16) &>> 16)
    }
}

extension FXSaveImage {
    /// What a processor holds after reset, as far as this image tells.
    ///
    /// Source: [SDM3 §10.1.1, Table 10-1]; FCW is FNINIT's rather than 0040h, as KVM starts a vCPU.
    static func reset(_ image: UnsafeMutableRawPointer) {
        unsafe image.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
        unsafe image.storeBytes(of: fcwReset, toByteOffset: fcw, as: UInt16.self)
        unsafe image.storeBytes(of: mxcsrReset, toByteOffset: mxcsr, as: UInt32.self)
        unsafe image.storeBytes(of: mxcsrMaskValue, toByteOffset: mxcsrMask, as: UInt32.self)
    }

    /// Brings an image from outside (a snapshot, a debugger) into the form that the instructions rely on.
    ///
    /// Without it a reserved bit of MXCSR would fault the host's own LDMXCSR.
    static func canonicalise(_ image: UnsafeMutableRawPointer) {
        let control = controlWord(unsafe image.load(fromByteOffset: fcw, as: UInt16.self))
        let status = statusWord(unsafe image.load(fromByteOffset: fsw, as: UInt16.self), control: control)
        let opcode = unsafe image.load(fromByteOffset: fop, as: UInt16.self)
        let value = unsafe image.load(fromByteOffset: mxcsr, as: UInt32.self)
        unsafe image.storeBytes(of: control, toByteOffset: fcw, as: UInt16.self)
        unsafe image.storeBytes(of: status, toByteOffset: fsw, as: UInt16.self)
        unsafe image.storeBytes(of: 0, toByteOffset: ftw + 1, as: UInt8.self)
        unsafe image.storeBytes(of: opcode & 0x7FF, toByteOffset: fop, as: UInt16.self)
        let instruction = pointer(unsafe image.load(fromByteOffset: fip, as: UInt64.self))
        let data = pointer(unsafe image.load(fromByteOffset: fdp, as: UInt64.self))
        unsafe image.storeBytes(of: instruction, toByteOffset: fip, as: UInt64.self)
        unsafe image.storeBytes(of: data, toByteOffset: fdp, as: UInt64.self)
        unsafe image.storeBytes(of: value & mxcsrMaskValue, toByteOffset: mxcsr, as: UInt32.self)
        unsafe image.storeBytes(of: mxcsrMaskValue, toByteOffset: mxcsrMask, as: UInt32.self)
        for register in 0..<8 {
            let padding = st &+ register &* 16 &+ 10
            unsafe image.storeBytes(of: 0, toByteOffset: padding, as: UInt16.self)
            unsafe image.storeBytes(of: 0, toByteOffset: padding &+ 2, as: UInt32.self)
        }
    }

    /// Whether an unmasked x87 exception waits for the next waiting instruction to raise #MF.
    @inline(__always)
    static func isX87ExceptionPending(_ image: UnsafeRawPointer) -> Bool {
        let control = unsafe image.load(fromByteOffset: fcw, as: UInt16.self)
        let status = unsafe image.load(fromByteOffset: fsw, as: UInt16.self)
        return (status & ~control & exceptionBits) | (status & 0x80) != 0
    }

    /// Makes physical register `top` ST(0).
    ///
    /// The image holds the registers in stack order, so they change places while the physical ones keep theirs.
    static func setTop(_ image: UnsafeMutableRawPointer, _ top: UInt16) {
        let status = unsafe image.load(fromByteOffset: fsw, as: UInt16.self)
        let distance = Int(top &- status &>> 11 & 7) & 7
        unsafe image.storeBytes(of: status & ~topBits | (top & 7) &<< 11, toByteOffset: fsw, as: UInt16.self)
        guard distance != 0 else { return }
        let old = unsafe image.loadUnaligned(fromByteOffset: st, as: InlineArray<16, UInt64>.self)
        for register in 0..<8 {
            let from = ((register &+ distance) & 7) &* 2
            let to = st &+ register &* 16
            unsafe image.storeBytes(of: old[from], toByteOffset: to, as: UInt64.self)
            unsafe image.storeBytes(of: old[from &+ 1], toByteOffset: to &+ 8, as: UInt64.self)
        }
    }

    /// The tag word in full, two bits a physical register: 0 valid, 1 zero, 2 special, 3 empty.
    ///
    /// Source: [SDM1 §8.1.7, Figure 8-7], [SDM2 FXSAVE, "Recreating FSAVE format"].
    static func fullTagWord(_ image: UnsafeRawPointer) -> UInt16 {
        let present = unsafe image.load(fromByteOffset: ftw, as: UInt8.self)
        let top = Int(unsafe image.load(fromByteOffset: fsw, as: UInt16.self) &>> 11 & 7)
        var word: UInt16 = 0
        for physical in 0..<8 {
            var tag: UInt16 = 3
            if present &>> UInt8(physical) & 1 != 0 {
                let register = st &+ ((physical &- top) & 7) &* 16
                let significand = unsafe image.load(fromByteOffset: register, as: UInt64.self)
                let exponent = unsafe image.load(fromByteOffset: register &+ 8, as: UInt16.self) & 0x7FFF
                if exponent == 0, significand == 0 {
                    tag = 1
                } else {
                    tag = exponent == 0 || exponent == 0x7FFF || significand &>> 63 == 0 ? 2 : 0
                }
            }
            word |= tag &<< UInt16(physical &* 2)
        }
        return word
    }

    /// The abridged tag of a full tag word: a one for every register that is not empty.
    static func abridgedTag(_ word: UInt16) -> UInt8 {
        var tag: UInt8 = 0
        for physical in 0..<8 where word &>> UInt16(physical &* 2) & 3 != 3 { tag |= 1 &<< UInt8(physical) }
        return tag
    }
}
