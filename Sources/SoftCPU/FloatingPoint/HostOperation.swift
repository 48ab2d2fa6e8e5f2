/// One x87, MMX or SSE instruction, ready to be executed by the host's processor.
///
/// `HostOperations.prepare` makes it when an instruction is decoded; executing it is one indirect call. It holds the
/// address of a thunk (see `ThunkEmitter`) or of a function of ours, where the operands are, and what the core must
/// know of the memory operand. Nothing in it needs releasing.
///
/// What the core sees to: CR0.EM and TS, CR4.OSFXSR, CPUID's answer (`prepare` knows the host's only), address,
/// alignment (`requiresAlignment`) and access of the memory operand, #MF under CR0.NE or FERR# without it, #XM under
/// CR4.OSXMMEXCPT or #UD without it.
struct HostOperation: BitwiseCopyable {
    /// Whose rules surround the host instruction.
    enum Unit: UInt8, BitwiseCopyable {
        /// SSE and what has no rules: CRC32, FXSAVE, LDMXCSR, and the non-waiting x87 control instructions.
        case plain
        /// Uses an MMX register: #MF if one is pending, then the x87 registers become the MMX registers.
        case mmx
        /// A waiting x87 instruction that records where it and its operand are.
        case x87
        /// A waiting x87 control instruction, and FWAIT and EMMS: #MF if one is pending, nothing else.
        case waiting
    }

    enum MemoryAccess: UInt8, BitwiseCopyable {
        case none
        case read
        case write
        /// MASKMOVQ, MASKMOVDQU: to DS:rDI (the segment can be overridden), and only the bytes of `Outcome.byteMask`.
        /// The core stores them, after the instruction was run, from the image at `destination.offset`.
        case maskedWrite
    }

    /// Where the first or second operand is: in the image, in the general registers, or in the memory operand.
    struct Operand: BitwiseCopyable {
        var offset: UInt16 = 0
        var base: Base = .image

        enum Base: UInt8, BitwiseCopyable {
            case image, general, memory
        }
    }

    /// Address of a `HostThunk`.
    var entry: UInt
    var destination = Operand()
    var source = Operand()
    /// Bytes of memory read or written; 0 without a memory operand.
    var memorySize: UInt16 = 0
    /// FOP: the low three bits of the opcode and the ModRM byte. x87 only.
    var opcode: UInt16 = 0
    var unit: Unit = .plain
    var access: MemoryAccess = .none
    var traits: Traits = []

    struct Traits: OptionSet, BitwiseCopyable {
        let rawValue: UInt8

        static var requiresAlignment: Self { Self(rawValue: 1) }
        static var writesFlags: Self { Self(rawValue: 2) }
        static var readsFlags: Self { Self(rawValue: 4) }
        static var destinationIsMMX: Self { Self(rawValue: 8) }
    }

    /// A memory operand that is not 16-byte-aligned raises #GP(0).
    @inline(__always) var requiresAlignment: Bool { traits.contains(.requiresAlignment) }
    /// `Outcome.flags` are the new CF, PF, AF, ZF, SF and OF.
    @inline(__always) var writesFlags: Bool { traits.contains(.writesFlags) }
    /// The context must hold CF, PF and ZF as they are: FCMOVcc.
    @inline(__always) var readsFlags: Bool { traits.contains(.readsFlags) }
}

/// Code that executes one instruction form.
///
/// - destination, source: the first and second operand, wherever they are.
/// - image: the vCPU's `FXSaveImage`. general: its sixteen general registers in encoding order.
/// - context: a `HostOperation.Context`.
/// - Returns: a `HostOperation.Outcome`.
typealias HostThunk = @convention(c) (
    _ destination: UnsafeMutableRawPointer, _ source: UnsafeMutableRawPointer, _ image: UnsafeMutableRawPointer,
    _ general: UnsafeMutablePointer<UInt64>, _ context: UInt32
) -> UInt32

extension HostOperation {
    /// What an instruction may ask besides its operands.
    struct Context: BitwiseCopyable {
        let rawValue: UInt32

        /// - Parameters:
        ///   - flags: RFLAGS, where `readsFlags`.
        ///   - realAddress: real or virtual-8086 mode: FNSTENV and its like use the formats of that.
        @inline(__always)
        init(flags: UInt32 = 0, realAddress: Bool = false) { rawValue = flags & 0xFFFF | (realAddress ? 0x1_0000 : 0) }
    }

    /// How an instruction ended.
    struct Outcome: RawRepresentable, Equatable, BitwiseCopyable {
        let rawValue: UInt32

        @inline(__always)
        init(rawValue: UInt32) { self.rawValue = rawValue }

        @inline(__always) static var done: Self { Self(rawValue: 0) }
        /// An unmasked SIMD exception: MXCSR has its flags, no register or memory changed. #XM, or #UD.
        @inline(__always) static var simdException: Self { Self(rawValue: 0x1_0000) }
        /// An unmasked x87 exception of an earlier instruction: nothing changed. #MF, or FERR#.
        @inline(__always) static var x87Exception: Self { Self(rawValue: 0x2_0000) }
        /// A reserved bit of MXCSR: nothing changed. #GP(0).
        @inline(__always) static var generalProtection: Self { Self(rawValue: 0x4_0000) }
        /// Done, but an unmasked x87 exception kept a store from memory: do not copy the operand out.
        @inline(__always) static var memoryUntouched: Self { Self(rawValue: 0x8_0000) }

        /// Whether the instruction ended without a fault.
        @inline(__always) var isDone: Bool { rawValue & 0x7_0000 == 0 }
        /// Whether what was written to the operand buffer goes to the guest's memory.
        @inline(__always) var storesMemory: Bool { rawValue < 0x1_0000 }
        /// CF, PF, AF, ZF, SF and OF in their places in RFLAGS, where `writesFlags`.
        @inline(__always) var flags: UInt32 { rawValue & 0x8D5 }
        /// Bit i tells whether byte i is stored, where `access` is `.maskedWrite`.
        @inline(__always) var byteMask: UInt16 { UInt16(truncatingIfNeeded: rawValue) }
    }

    @inline(__always)
    private func pointer(
        _ operand: Operand, _ image: UnsafeMutableRawPointer, _ general: UnsafeMutablePointer<UInt64>,
        _ memory: UnsafeMutableRawPointer
    ) -> UnsafeMutableRawPointer {
        let base =
            unsafe operand.base == .image
            ? image : operand.base == .memory ? memory : UnsafeMutableRawPointer(general)
        return unsafe base + Int(operand.offset)
    }

    @inline(__always)
    private func call(
        _ image: UnsafeMutableRawPointer, _ general: UnsafeMutablePointer<UInt64>, _ memory: UnsafeMutableRawPointer,
        _ context: Context
    ) -> Outcome {
        let thunk = unsafe unsafeBitCast(entry, to: HostThunk.self)
        return unsafe Outcome(
            rawValue: thunk(
                pointer(destination, image, general, memory), pointer(source, image, general, memory), image, general,
                context.rawValue))
    }

    /// Executes the instruction where `unit` is `.plain`.
    ///
    /// - Parameters:
    ///   - image: an `FXSaveImage`, 64-byte-aligned.
    ///   - general: the sixteen general registers.
    ///   - memory: the memory operand: the guest's memory itself, where it is contiguous in the host's and access and
    ///     alignment are checked, or a 16-byte-aligned copy of at least `memorySize` bytes. Not used without one.
    @inline(__always)
    func runPlain(
        _ image: UnsafeMutableRawPointer, _ general: UnsafeMutablePointer<UInt64>, _ memory: UnsafeMutableRawPointer,
        _ context: Context = Context()
    ) -> Outcome {
        unsafe call(image, general, memory, context)
    }

    /// `run` with addresses: of a state that is one block.
    @inline(__always)
    func run(
        image: UInt, general: UInt, memory: UInt, _ context: Context, instructionPointer: UInt64, dataPointer: UInt64
    ) -> Outcome {
        unsafe run(
            UnsafeMutableRawPointer(bitPattern: image).unsafelyUnwrapped,
            UnsafeMutablePointer(bitPattern: general).unsafelyUnwrapped,
            // Never read where there is no memory operand, but it must not be null.
            UnsafeMutableRawPointer(bitPattern: memory == 0 ? image : memory).unsafelyUnwrapped,
            context, instructionPointer: instructionPointer, dataPointer: dataPointer)
    }

    /// `runPlain` with addresses.
    @inline(__always)
    func runPlain(image: UInt, general: UInt, memory: UInt) -> Outcome {
        unsafe runPlain(
            UnsafeMutableRawPointer(bitPattern: image).unsafelyUnwrapped,
            UnsafeMutablePointer(bitPattern: general).unsafelyUnwrapped,
            UnsafeMutableRawPointer(bitPattern: memory == 0 ? image : memory).unsafelyUnwrapped)
    }

    /// Executes the instruction whatever its unit.
    ///
    /// - Parameters:
    ///   - instructionPointer: what FIP is to be: the offset in CS; in real and virtual-8086 mode, the linear address.
    ///   - dataPointer: what FDP is to be: the memory operand's offset in its segment, or its linear address likewise.
    ///     Both matter where `unit` is `.x87` only. See `runPlain` for the rest.
    func run(
        _ image: UnsafeMutableRawPointer, _ general: UnsafeMutablePointer<UInt64>, _ memory: UnsafeMutableRawPointer,
        _ context: Context, instructionPointer: UInt64, dataPointer: UInt64
    ) -> Outcome {
        switch unit {
        case .plain:
            return unsafe call(image, general, memory, context)
        case .waiting:
            if unsafe FXSaveImage.isX87ExceptionPending(image) { return .x87Exception }
            return unsafe call(image, general, memory, context)
        case .mmx:
            return unsafe runMMX(image, general, memory, context)
        case .x87:
            return unsafe runX87(image, general, memory, context, instructionPointer, dataPointer)
        }
    }

    /// TOP becomes 0 and every tag valid, whether or not the instruction then raises a SIMD exception; a write sets
    /// bits 79:64 of its register.
    ///
    /// Source: [SDM1 §9.5.1, Table 9-2]; what a SIMD exception leaves, as measured on AMD's Zen 4.
    private func runMMX(
        _ image: UnsafeMutableRawPointer, _ general: UnsafeMutablePointer<UInt64>, _ memory: UnsafeMutableRawPointer,
        _ context: Context
    ) -> Outcome {
        if unsafe FXSaveImage.isX87ExceptionPending(image) { return .x87Exception }
        // The registers must be where their numbers say before the thunk finds them.
        unsafe FXSaveImage.setTop(image, 0)
        unsafe image.storeBytes(of: 0xFF, toByteOffset: FXSaveImage.ftw, as: UInt8.self)
        let outcome = unsafe call(image, general, memory, context)
        if traits.contains(.destinationIsMMX), outcome.isDone {
            unsafe image.storeBytes(of: 0xFFFF, toByteOffset: Int(destination.offset) &+ 8, as: UInt16.self)
        }
        return outcome
    }

    /// The thunk leaves the host's own FIP, FDP and FOP in the image, so all three are written anew.
    private func runX87(
        _ image: UnsafeMutableRawPointer, _ general: UnsafeMutablePointer<UInt64>, _ memory: UnsafeMutableRawPointer,
        _ context: Context, _ instructionPointer: UInt64, _ dataPointer: UInt64
    ) -> Outcome {
        if unsafe FXSaveImage.isX87ExceptionPending(image) { return .x87Exception }
        let data =
            memorySize != 0
            ? FXSaveImage.pointer(dataPointer) : unsafe image.load(fromByteOffset: FXSaveImage.fdp, as: UInt64.self)
        var outcome = unsafe call(image, general, memory, context)
        unsafe image.storeBytes(of: opcode, toByteOffset: FXSaveImage.fop, as: UInt16.self)
        unsafe image.storeBytes(
            of: FXSaveImage.pointer(instructionPointer), toByteOffset: FXSaveImage.fip, as: UInt64.self)
        unsafe image.storeBytes(of: data, toByteOffset: FXSaveImage.fdp, as: UInt64.self)
        if access == .write {
            // All flags are new ones, for none was pending. Precision alone does not keep the result from memory.
            let control = unsafe image.load(fromByteOffset: FXSaveImage.fcw, as: UInt16.self)
            let status = unsafe image.load(fromByteOffset: FXSaveImage.fsw, as: UInt16.self)
            if status & ~control & 0x1F != 0 { outcome = .memoryUntouched }
        }
        return outcome
    }
}

extension UnsafePointer<HostOperation> {
    /// Executes `count` operations, `rounds` times over: a loop that is optimised where tests are not.
    func repeatForMeasurement(
        _ count: Int, _ rounds: Int, _ image: UnsafeMutableRawPointer, _ general: UnsafeMutablePointer<UInt64>,
        _ memory: UnsafeMutableRawPointer
    ) {
        for _ in 0..<rounds {
            for index in 0..<count {
                _ = unsafe self[index].run(
                    image, general, memory, HostOperation.Context(), instructionPointer: 0x1000, dataPointer: 0x2000)
            }
        }
    }
}
