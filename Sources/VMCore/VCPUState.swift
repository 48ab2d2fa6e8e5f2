/// A segment register with its hidden part, as `kvm_segment` and the VMCS hold it.
/// Source: [SDM3 §3.4.3] segment registers, [SDM3 §3.4.5] descriptors.
public struct SegmentState: Hashable, Sendable, BitwiseCopyable {
    public var selector: UInt16 = 0
    public var base: UInt64 = 0
    /// The last valid offset, in bytes (granularity already applied).
    public var limit: UInt32 = 0
    /// Descriptor type, 4 bits.
    public var type: UInt8 = 0
    public var present = false
    public var dpl: UInt8 = 0
    /// D/B: 32-bit default size.
    public var big = false
    /// S: a code or data segment, not a system one.
    public var codeOrData = false
    /// L: 64-bit code.
    public var long = false
    /// G: the descriptor's limit counted pages.
    public var granular = false
    public var available = false
    /// Loaded with a null selector, so not usable.
    public var unusable = false

    public init() {}
}

/// GDTR or IDTR.
public struct TableState: Hashable, Sendable, BitwiseCopyable {
    public var base: UInt64 = 0
    public var limit: UInt16 = 0
    public init(base: UInt64 = 0, limit: UInt16 = 0) {
        self.base = base
        self.limit = limit
    }
}

/// The general registers, in the encoding order of the instruction set, with RIP and RFLAGS.
public struct GeneralRegisters: Hashable, Sendable, BitwiseCopyable {
    public var rax: UInt64 = 0, rcx: UInt64 = 0, rdx: UInt64 = 0, rbx: UInt64 = 0
    public var rsp: UInt64 = 0, rbp: UInt64 = 0, rsi: UInt64 = 0, rdi: UInt64 = 0
    public var r8: UInt64 = 0, r9: UInt64 = 0, r10: UInt64 = 0, r11: UInt64 = 0
    public var r12: UInt64 = 0, r13: UInt64 = 0, r14: UInt64 = 0, r15: UInt64 = 0
    public var rip: UInt64 = 0
    /// Bit 1 always reads as one. Source: [SDM1 §3.4.3].
    public var rflags: UInt64 = 2
    public init() {}
}

/// Segments, tables, control registers: all that `kvm_sregs` holds but the interrupt bitmap.
public struct SystemRegisters: Hashable, Sendable, BitwiseCopyable {
    public var cs = SegmentState(), ds = SegmentState(), es = SegmentState()
    public var fs = SegmentState(), gs = SegmentState(), ss = SegmentState()
    public var tr = SegmentState(), ldtr = SegmentState()
    public var gdtr = TableState(), idtr = TableState()
    public var cr0: UInt64 = 0, cr2: UInt64 = 0, cr3: UInt64 = 0, cr4: UInt64 = 0
    public var cr8: UInt64 = 0
    public var efer: UInt64 = 0
    public var apicBase: UInt64 = 0
    public init() {}
}

/// DR0-3, DR6, DR7. The values at reset: [SDM3 §10.1.1, table 10-1].
public struct DebugRegisters: Hashable, Sendable, BitwiseCopyable {
    public var dr0: UInt64 = 0, dr1: UInt64 = 0, dr2: UInt64 = 0, dr3: UInt64 = 0
    public var dr6: UInt64 = 0xFFFF_0FF0
    public var dr7: UInt64 = 0x400
    public init() {}
}

/// One model-specific register and its value.
public struct ModelSpecificRegister: Hashable, Sendable, BitwiseCopyable {
    public var index: UInt32
    public var value: UInt64
    public init(index: UInt32, value: UInt64) {
        self.index = index
        self.value = value
    }
}

/// Exceptions and interrupts on their way into a vCPU.
public struct PendingEvents: Hashable, Sendable, BitwiseCopyable {
    public var exceptionInjected = false
    public var exceptionPending = false
    public var exceptionVector: UInt8 = 0
    public var exceptionHasErrorCode = false
    public var exceptionErrorCode: UInt32 = 0
    public var interruptInjected = false
    public var interruptVector: UInt8 = 0
    public var interruptIsSoft = false
    /// Interrupt shadow: 1 after STI, 2 after MOV SS. Source: [SDM3 §25.4.2] interruptibility state.
    public var shadow: UInt8 = 0
    public var nmiInjected = false
    public var nmiPending = false
    public var nmiMasked = false
    public var inSystemManagement = false
    public init() {}
}

/// Whether a vCPU executes, as INIT, SIPI and HLT make it.
public enum RunState: UInt8, Hashable, Sendable, BitwiseCopyable {
    case runnable = 0
    /// An application processor before its INIT.
    case uninitialized = 1
    case waitingForStartup = 2
    case halted = 3
    case startupReceived = 4
}

/// Everything a vCPU is, in the one form that snapshots, the debugger, the differential tests and the
/// emulation rescue share, whatever the engine.
public struct VCPUState: Hashable, Sendable {
    public var general = GeneralRegisters()
    public var system = SystemRegisters()
    public var debug = DebugRegisters()
    /// x87, MMX, SSE and what follows, in the XSAVE area's standard form: 512 bytes of FXSAVE image,
    /// the 64-byte header, then components. Source: [SDM1 §13.4].
    public var extended: [UInt8] = []
    public var xcr0: UInt64 = 1
    public var msrs: [ModelSpecificRegister] = []
    /// The local APIC's register page, 1 KiB as `KVM_GET_LAPIC` lays it out; empty where the engine has none.
    public var localAPIC: [UInt8] = []
    public var events = PendingEvents()
    public var runState = RunState.runnable

    public init() {}
}
