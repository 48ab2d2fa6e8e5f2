internal import X86

/// The x87 control instructions, FXSAVE and FXRSTOR, LDMXCSR and STMXCSR: they move or reset state and compute nothing,
/// so they work on the image and need no host instruction.
///
/// All have the shape of a `HostThunk`: the memory operand is the destination of a store and the source of a load.
enum X87Control {
    /// Prepares one of them; nil if the instruction is another.
    static func prepare(_ instruction: Instruction) -> HostOperation? {
        let short = instruction.operandSize == 2
        let long = instruction.mode == .bits64
        let thunk: HostThunk
        var unit = HostOperation.Unit.plain
        var stores = false
        switch instruction.mnemonic {
        case .fninit: unsafe thunk = fninit
        case .fnclex: unsafe thunk = fnclex
        case .fneni, .fndisi, .fnsetpm: unsafe thunk = nothing
        case .fnstcw: unsafe (thunk, stores) = (fnstcw, true)
        case .fnstsw: unsafe (thunk, stores) = (fnstsw, true)
        case .fnstenv: unsafe (thunk, stores) = (short ? fnstenv16 : fnstenv32, true)
        case .fnsave: unsafe (thunk, stores) = (short ? fnsave16 : fnsave32, true)
        case .fwait: unsafe (thunk, unit) = (nothing, .waiting)
        case .fldcw: unsafe (thunk, unit) = (fldcw, .waiting)
        case .fldenv: unsafe (thunk, unit) = (short ? fldenv16 : fldenv32, .waiting)
        case .frstor: unsafe (thunk, unit) = (short ? frstor16 : frstor32, .waiting)
        case .emms: unsafe (thunk, unit) = (emms, .waiting)
        case .stmxcsr: unsafe (thunk, stores) = (stmxcsr, true)
        case .ldmxcsr: unsafe thunk = ldmxcsr
        case .fxsave: unsafe (thunk, stores) = (long ? fxsave : fxsaveLegacy, true)
        case .fxsave64: unsafe (thunk, stores) = (fxsave64, true)
        case .fxrstor: unsafe thunk = long ? fxrstor : fxrstorLegacy
        case .fxrstor64: unsafe thunk = fxrstor64
        default: return nil
        }
        var operation = HostOperation(entry: unsafe unsafeBitCast(thunk, to: UInt.self))
        operation.unit = unit
        if instruction.hasMemory {
            operation.destination.base = .memory
            operation.source.base = .memory
            operation.access = stores ? .write : .read
            // Of the 512 bytes of FXSAVE's area, those that it reads or writes.
            operation.memorySize = UInt16(truncatingIfNeeded: instruction.size(0))
            if operation.memorySize == 512 {
                operation.memorySize = UInt16(long ? FXSaveImage.end : FXSaveImage.legacyEnd)
                operation.traits.insert(.requiresAlignment)
            }
        } else {
            // FNSTSW's AX.
            operation.destination.base = .general
        }
        return operation
    }

    // MARK: Control and status word

    /// Source: [SDM2 FINIT].
    static let fninit: HostThunk = { _, _, image, _, _ in
        unsafe initialise(image)
        return 0
    }

    private static func initialise(_ image: UnsafeMutableRawPointer) {
        unsafe FXSaveImage.setTop(image, 0)
        unsafe image.storeBytes(of: FXSaveImage.fcwReset, toByteOffset: FXSaveImage.fcw, as: UInt16.self)
        unsafe image.storeBytes(of: 0, toByteOffset: FXSaveImage.fsw, as: UInt16.self)
        unsafe image.storeBytes(of: 0, toByteOffset: FXSaveImage.ftw, as: UInt8.self)
        unsafe image.storeBytes(of: 0, toByteOffset: FXSaveImage.fop, as: UInt16.self)
        unsafe image.storeBytes(of: 0, toByteOffset: FXSaveImage.fip, as: UInt64.self)
        unsafe image.storeBytes(of: 0, toByteOffset: FXSaveImage.fdp, as: UInt64.self)
    }

    /// The exception flags, SF, ES and B go; TOP and the condition codes stay.
    ///
    /// Source: [SDM2 FCLEX]; the condition codes, which it leaves undefined, stay as they are.
    static let fnclex: HostThunk = { _, _, image, _, _ in
        let status = unsafe image.load(fromByteOffset: FXSaveImage.fsw, as: UInt16.self)
        unsafe image.storeBytes(of: status & 0x7F00, toByteOffset: FXSaveImage.fsw, as: UInt16.self)
        return 0
    }

    /// FWAIT, and FNENI, FNDISI and FNSETPM, which do nothing since the 80387. [SDM1 §18.18.9]
    static let nothing: HostThunk = { _, _, _, _, _ in 0 }

    static let fnstcw: HostThunk = { destination, _, image, _, _ in
        let control = unsafe image.load(fromByteOffset: FXSaveImage.fcw, as: UInt16.self)
        unsafe destination.storeBytes(of: control, as: UInt16.self)
        return 0
    }

    /// To memory or to AX: sixteen bits either way.
    static let fnstsw: HostThunk = { destination, _, image, _, _ in
        let status = unsafe image.load(fromByteOffset: FXSaveImage.fsw, as: UInt16.self)
        unsafe destination.storeBytes(of: status, as: UInt16.self)
        return 0
    }

    /// May unmask an exception that is flagged already: the next waiting instruction raises it.
    ///
    /// Source: [SDM2 FLDCW].
    static let fldcw: HostThunk = { _, source, image, _, _ in
        let control = FXSaveImage.controlWord(unsafe source.loadUnaligned(as: UInt16.self))
        unsafe setControl(image, control)
        return 0
    }

    private static func setControl(_ image: UnsafeMutableRawPointer, _ control: UInt16) {
        let status = unsafe image.load(fromByteOffset: FXSaveImage.fsw, as: UInt16.self)
        unsafe image.storeBytes(of: control, toByteOffset: FXSaveImage.fcw, as: UInt16.self)
        unsafe image.storeBytes(
            of: FXSaveImage.statusWord(status, control: control), toByteOffset: FXSaveImage.fsw, as: UInt16.self)
    }

    /// Source: [SDM2 EMMS]; TOP as any MMX instruction leaves it, [SDM1 §9.5.1].
    static let emms: HostThunk = { _, _, image, _, _ in
        unsafe FXSaveImage.setTop(image, 0)
        unsafe image.storeBytes(of: 0, toByteOffset: FXSaveImage.ftw, as: UInt8.self)
        return 0
    }

    // MARK: Environment and state, in 16- and 32-bit formats

    static let fnstenv16: HostThunk = { destination, _, image, _, context in
        unsafe X87Environment(image).store(to: destination, short: true, realAddress: context & 0x1_0000 != 0)
        unsafe maskAll(image)
        return 0
    }

    static let fnstenv32: HostThunk = { destination, _, image, _, context in
        unsafe X87Environment(image).store(to: destination, short: false, realAddress: context & 0x1_0000 != 0)
        unsafe maskAll(image)
        return 0
    }

    /// What FNSTENV does after the store, so that a handler is not interrupted by what it handles.
    private static func maskAll(_ image: UnsafeMutableRawPointer) {
        unsafe setControl(
            image, image.load(fromByteOffset: FXSaveImage.fcw, as: UInt16.self) | FXSaveImage.exceptionBits)
    }

    static let fldenv16: HostThunk = { _, source, image, _, context in
        unsafe X87Environment(from: source, image, short: true, realAddress: context & 0x1_0000 != 0).apply(to: image)
        return 0
    }

    static let fldenv32: HostThunk = { _, source, image, _, context in
        unsafe X87Environment(from: source, image, short: false, realAddress: context & 0x1_0000 != 0).apply(to: image)
        return 0
    }

    static let fnsave16: HostThunk = { destination, _, image, _, context in
        unsafe X87Environment(image).store(to: destination, short: true, realAddress: context & 0x1_0000 != 0)
        unsafe storeRegisters(image, destination + X87Environment.shortByteCount)
        unsafe initialise(image)
        return 0
    }

    static let fnsave32: HostThunk = { destination, _, image, _, context in
        unsafe X87Environment(image).store(to: destination, short: false, realAddress: context & 0x1_0000 != 0)
        unsafe storeRegisters(image, destination + X87Environment.byteCount)
        unsafe initialise(image)
        return 0
    }

    static let frstor16: HostThunk = { _, source, image, _, context in
        unsafe X87Environment(from: source, image, short: true, realAddress: context & 0x1_0000 != 0).apply(to: image)
        unsafe loadRegisters(image, source + X87Environment.shortByteCount)
        return 0
    }

    static let frstor32: HostThunk = { _, source, image, _, context in
        unsafe X87Environment(from: source, image, short: false, realAddress: context & 0x1_0000 != 0).apply(to: image)
        unsafe loadRegisters(image, source + X87Environment.byteCount)
        return 0
    }

    private static func storeRegisters(_ image: UnsafeMutableRawPointer, _ memory: UnsafeMutableRawPointer) {
        for register in 0..<8 {
            unsafe (memory + register &* 10).copyMemory(
                from: image + (FXSaveImage.st &+ register &* 16), byteCount: 10)
        }
    }

    private static func loadRegisters(_ image: UnsafeMutableRawPointer, _ memory: UnsafeMutableRawPointer) {
        for register in 0..<8 {
            unsafe (image + (FXSaveImage.st &+ register &* 16)).copyMemory(
                from: memory + register &* 10, byteCount: 10)
        }
    }

    // MARK: SSE control, FXSAVE and FXRSTOR

    static let stmxcsr: HostThunk = { destination, _, image, _, _ in
        let value = unsafe image.load(fromByteOffset: FXSaveImage.mxcsr, as: UInt32.self)
        unsafe destination.storeBytes(of: value, as: UInt32.self)
        return 0
    }

    static let ldmxcsr: HostThunk = { _, source, image, _, _ in
        let value = unsafe source.loadUnaligned(as: UInt32.self)
        guard value & ~FXSaveImage.mxcsrMaskValue == 0 else {
            return HostOperation.Outcome.generalProtection.rawValue
        }
        unsafe image.storeBytes(of: value, toByteOffset: FXSaveImage.mxcsr, as: UInt32.self)
        return 0
    }

    /// FXSAVE64, in 64-bit mode.
    static let fxsave64: HostThunk = { destination, _, image, _, _ in
        unsafe save(image, destination, byteCount: FXSaveImage.end)
        return 0
    }

    /// FXSAVE without REX.W, in 64-bit mode: pointers of 32 bits.
    static let fxsave: HostThunk = { destination, _, image, _, _ in
        unsafe save(image, destination, byteCount: FXSaveImage.end)
        unsafe shortenPointers(destination)
        return 0
    }

    /// FXSAVE outside 64-bit mode: eight XMM registers.
    static let fxsaveLegacy: HostThunk = { destination, _, image, _, _ in
        unsafe save(image, destination, byteCount: FXSaveImage.legacyEnd)
        unsafe shortenPointers(destination)
        return 0
    }

    private static func save(_ image: UnsafeRawPointer, _ area: UnsafeMutableRawPointer, byteCount: Int) {
        unsafe area.copyMemory(from: image, byteCount: byteCount)
        // An x87 thunk's own FXSAVE leaves the host's mask in the image.
        unsafe area.storeBytes(of: FXSaveImage.mxcsrMaskValue, toByteOffset: FXSaveImage.mxcsrMask, as: UInt32.self)
    }

    /// Leaves the low 32 bits of FIP and FDP, and zero for FCS and FDS: the processor that we are has deprecated them.
    private static func shortenPointers(_ area: UnsafeMutableRawPointer) {
        unsafe area.storeBytes(of: 0, toByteOffset: FXSaveImage.fip &+ 4, as: UInt32.self)
        unsafe area.storeBytes(of: 0, toByteOffset: FXSaveImage.fdp &+ 4, as: UInt32.self)
    }

    static let fxrstor64: HostThunk = { _, source, image, _, _ in
        unsafe restore(image, source, byteCount: FXSaveImage.end, wide: true)
    }

    static let fxrstor: HostThunk = { _, source, image, _, _ in
        unsafe restore(image, source, byteCount: FXSaveImage.end, wide: false)
    }

    static let fxrstorLegacy: HostThunk = { _, source, image, _, _ in
        unsafe restore(image, source, byteCount: FXSaveImage.legacyEnd, wide: false)
    }

    /// Source: [SDM2 FXRSTOR].
    private static func restore(
        _ image: UnsafeMutableRawPointer, _ area: UnsafeMutableRawPointer, byteCount: Int, wide: Bool
    ) -> UInt32 {
        // Nothing may change before the one fault that the contents can cause. The area may be the guest's memory,
        // which another vCPU may be writing, so what was checked is what is loaded.
        let value = unsafe area.loadUnaligned(fromByteOffset: FXSaveImage.mxcsr, as: UInt32.self)
        guard value & ~FXSaveImage.mxcsrMaskValue == 0 else {
            return HostOperation.Outcome.generalProtection.rawValue
        }
        unsafe image.copyMemory(from: area, byteCount: byteCount)
        unsafe image.storeBytes(of: value, toByteOffset: FXSaveImage.mxcsr, as: UInt32.self)
        if !wide { unsafe shortenPointers(image) }
        unsafe FXSaveImage.canonicalise(image)
        return 0
    }
}
