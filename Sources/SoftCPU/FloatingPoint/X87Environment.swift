/// What FNSTENV stores and FLDENV loads: the x87 state without the registers.
///
/// Four formats: 14 or 28 bytes by operand size, each in a protected-mode and a real-mode form. FCS and FDS are stored
/// as zero and not loaded, as on a processor that reports FCS and FDS as deprecated (CPUID.(7,0):EBX[13]).
///
/// Source: [SDM1 §8.1.10, Figures 8-9 to 8-12].
struct X87Environment: BitwiseCopyable {
    static var byteCount: Int { 28 }
    static var shortByteCount: Int { 14 }

    private var control: UInt16
    private var status: UInt16
    private var tag: UInt16
    private var opcode: UInt16
    private var instructionPointer: UInt64
    private var dataPointer: UInt64

    /// The environment of an image.
    init(_ image: UnsafeRawPointer) {
        control = unsafe image.load(fromByteOffset: FXSaveImage.fcw, as: UInt16.self)
        status = unsafe image.load(fromByteOffset: FXSaveImage.fsw, as: UInt16.self)
        tag = unsafe FXSaveImage.fullTagWord(image)
        opcode = unsafe image.load(fromByteOffset: FXSaveImage.fop, as: UInt16.self)
        instructionPointer = unsafe image.load(fromByteOffset: FXSaveImage.fip, as: UInt64.self)
        dataPointer = unsafe image.load(fromByteOffset: FXSaveImage.fdp, as: UInt64.self)
    }

    func store(to memory: UnsafeMutableRawPointer, short: Bool, realAddress: Bool) {
        let ip = UInt32(truncatingIfNeeded: instructionPointer)
        let dp = UInt32(truncatingIfNeeded: dataPointer)
        if short {
            // The selector words of the real-mode form hold bits 19:16 of the addresses, and the opcode.
            let selectors: (UInt16, UInt16) =
                realAddress
                ? (
                    UInt16(truncatingIfNeeded: ip &>> 4) & 0xF000 | opcode,
                    UInt16(truncatingIfNeeded: dp &>> 4) & 0xF000
                ) : (0, 0)
            unsafe memory.storeBytes(of: control, toByteOffset: 0, as: UInt16.self)
            unsafe memory.storeBytes(of: status, toByteOffset: 2, as: UInt16.self)
            unsafe memory.storeBytes(of: tag, toByteOffset: 4, as: UInt16.self)
            unsafe memory.storeBytes(of: UInt16(truncatingIfNeeded: ip), toByteOffset: 6, as: UInt16.self)
            unsafe memory.storeBytes(of: selectors.0, toByteOffset: 8, as: UInt16.self)
            unsafe memory.storeBytes(of: UInt16(truncatingIfNeeded: dp), toByteOffset: 10, as: UInt16.self)
            unsafe memory.storeBytes(of: selectors.1, toByteOffset: 12, as: UInt16.self)
            return
        }
        // Reserved halves read as ones.
        let ones: UInt32 = 0xFFFF_0000
        unsafe memory.storeBytes(of: ones | UInt32(control), toByteOffset: 0, as: UInt32.self)
        unsafe memory.storeBytes(of: ones | UInt32(status), toByteOffset: 4, as: UInt32.self)
        unsafe memory.storeBytes(of: ones | UInt32(tag), toByteOffset: 8, as: UInt32.self)
        if realAddress {
            unsafe memory.storeBytes(of: ones | ip & 0xFFFF, toByteOffset: 12, as: UInt32.self)
            unsafe memory.storeBytes(of: ip &>> 4 & 0x0FFF_F000 | UInt32(opcode), toByteOffset: 16, as: UInt32.self)
            unsafe memory.storeBytes(of: ones | dp & 0xFFFF, toByteOffset: 20, as: UInt32.self)
            unsafe memory.storeBytes(of: dp &>> 4 & 0x0FFF_F000, toByteOffset: 24, as: UInt32.self)
        } else {
            unsafe memory.storeBytes(of: ip, toByteOffset: 12, as: UInt32.self)
            unsafe memory.storeBytes(of: UInt32(opcode) &<< 16, toByteOffset: 16, as: UInt32.self)
            unsafe memory.storeBytes(of: dp, toByteOffset: 20, as: UInt32.self)
            unsafe memory.storeBytes(of: ones, toByteOffset: 24, as: UInt32.self)
        }
    }

    /// The environment in memory. What its format does not hold stays as `image` has it.
    init(from memory: UnsafeRawPointer, _ image: UnsafeRawPointer, short: Bool, realAddress: Bool) {
        @inline(__always)
        func word(_ offset: Int) -> UInt16 { unsafe memory.loadUnaligned(fromByteOffset: offset, as: UInt16.self) }
        @inline(__always)
        func long(_ offset: Int) -> UInt32 { unsafe memory.loadUnaligned(fromByteOffset: offset, as: UInt32.self) }

        let ip: UInt32
        let dp: UInt32
        control = word(0)
        opcode = unsafe image.load(fromByteOffset: FXSaveImage.fop, as: UInt16.self)
        if short {
            status = word(2)
            tag = word(4)
            ip = UInt32(word(6)) | (realAddress ? UInt32(word(8) & 0xF000) &<< 4 : 0)
            dp = UInt32(word(10)) | (realAddress ? UInt32(word(12) & 0xF000) &<< 4 : 0)
            if realAddress { opcode = word(8) & 0x7FF }
        } else {
            status = word(4)
            tag = word(8)
            ip = realAddress ? UInt32(word(12)) | (long(16) &<< 4 & 0xFFFF_0000) : long(12)
            dp = realAddress ? UInt32(word(20)) | (long(24) &<< 4 & 0xFFFF_0000) : long(20)
            opcode = word(realAddress ? 16 : 18) & 0x7FF
        }
        instructionPointer = UInt64(ip)
        dataPointer = UInt64(dp)
    }

    /// Makes the environment that of `image`. The physical registers keep their contents, so TOP moves them.
    func apply(to image: UnsafeMutableRawPointer) {
        let control = FXSaveImage.controlWord(control)
        unsafe FXSaveImage.setTop(image, status &>> 11 & 7)
        unsafe image.storeBytes(of: control, toByteOffset: FXSaveImage.fcw, as: UInt16.self)
        unsafe image.storeBytes(
            of: FXSaveImage.statusWord(status, control: control), toByteOffset: FXSaveImage.fsw, as: UInt16.self)
        unsafe image.storeBytes(of: FXSaveImage.abridgedTag(tag), toByteOffset: FXSaveImage.ftw, as: UInt8.self)
        unsafe image.storeBytes(of: opcode, toByteOffset: FXSaveImage.fop, as: UInt16.self)
        unsafe image.storeBytes(of: instructionPointer, toByteOffset: FXSaveImage.fip, as: UInt64.self)
        unsafe image.storeBytes(of: dataPointer, toByteOffset: FXSaveImage.fdp, as: UInt64.self)
    }
}
