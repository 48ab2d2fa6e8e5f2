internal import VMCore

/// One vCPU's state: a raw, page-aligned block that handlers reach through this one address.
///
/// ```
/// 0x0000  16 general registers, UInt64, in encoding order; the 17th is always zero: an absent base or index
/// 0x0100  `Registers`: what handlers read and write all the time, then control registers and the rest
/// 0x0600  8 segment registers, 32 bytes each: ES, CS, SS, DS, FS, GS, LDTR, TR
/// 0x0900  MTRRs and other registers that are only stored
/// 0x0E00  x87, MMX and SSE: a FXSAVE64 image, 512 bytes
/// 0x1000  TLB of supervisor accesses, TLB of user accesses, a TLB that stays empty
///         jump cache: virtual address to block
/// ```
/// It is an integer, not a pointer type, so that it can be a parameter of `@convention(c)` handlers without each use of
/// it being marked unsafe; the accessors here are the only places that turn it into a pointer.
@safe struct CPU: BitwiseCopyable {
    let address: UInt

    @inline(__always) init(_ address: UInt) { self.address = address }
}

enum Layout {
    static var registers: UInt { 0x100 }
    static var segments: UInt { 0x600 }
    static var stored: UInt { 0x900 }
    static var fx: UInt { 0xE00 }
    /// Bytes being decoded; bytes fetched from two pages; an instruction decoded again; a block of one instruction.
    static var scratchBytes: UInt { 0xA80 }
    static var scratchFetch: UInt { 0xA90 }
    static var scratchInsn: UInt { 0xAC0 }
    static var scratchBlock: UInt { 0xB20 }
    /// The `HostOperation` of the instruction decoded last.
    static var scratchHost: UInt { 0xC40 }
    static var tlb: UInt { 0x1000 }
    static var tlbBytes: UInt { (TLB.entryCount + TLB.victimCount) * TLB.entrySize }
    static var userTLB: UInt { tlb + tlbBytes }
    static var emptyTLB: UInt { userTLB + tlbBytes }
    static var jumpCache: UInt { emptyTLB + tlbBytes }
    static var jumpCacheEntries: UInt { 4096 }
    /// Instructions of the block being made, 96 bytes each, and the flags that each must make.
    static var decoded: UInt { jumpCache + jumpCacheEntries * 8 }
    static var live: UInt { decoded + 64 * 96 }
    /// A memory operand of up to 512 bytes, 64-byte-aligned.
    static var operand: UInt { live + 64 }
    /// Offsets of TLB entries that a load of CR3 drops; regions with large pages; pages with blocks: see `TLB.swift`.
    static var userLog: UInt { operand + 512 }
    static var kernelLog: UInt { userLog + UInt(TLB.logLength) * 2 }
    static var globalLarge: UInt { kernelLog + UInt(TLB.logLength) * 2 }
    static var localLarge: UInt { globalLarge + UInt(TLB.largeRegions) * 8 }
    static var codePages: UInt { localLarge + UInt(TLB.largeRegions) * 8 }
    static var size: UInt { codePages + 512 }
}

/// Host memory at an address that was checked when it was made.
enum Host {
    @inline(__always) static func load<T: BitwiseCopyable>(_: T.Type, _ address: UInt) -> T {
        unsafe UnsafeRawPointer(bitPattern: address).unsafelyUnwrapped.loadUnaligned(as: T.self)
    }
    @inline(__always) static func store<T: BitwiseCopyable>(_ value: T, _ address: UInt) {
        unsafe UnsafeMutableRawPointer(bitPattern: address).unsafelyUnwrapped.storeBytes(of: value, as: T.self)
    }
}

/// The named part of the state. Addresses are host addresses, 0 for none.
struct Registers: BitwiseCopyable {
    /// The TLB that accesses of the present mode use: supervisor, user, or the empty one where each access needs a
    /// closer look (alignment checks, data breakpoints).
    var tlb: UInt = 0
    /// The block being executed.
    var block: UInt = 0
    /// Translations known to hold, of code of the present mode; see `Block.generation`. Counts up, never 0.
    var generation: UInt64 = 1
    /// The attention word: other threads set bits, block exits look at it.
    var attention: UInt = 0
    var instructions: UInt64 = 0
    /// Between instructions the next one's offset; within the general path the present one's.
    var rip: UInt64 = 0
    /// Within the general path, the offset after the present instruction.
    var nextRIP: UInt64 = 0
    /// Arithmetic flags, lazily: see `Flags.swift`. Valid whenever no handler runs.
    var flagResult: UInt64 = 0
    var flagCarries: UInt64 = 0
    /// All flags but the arithmetic ones; bit 1 is set.
    var flags: UInt64 = 2
    /// What blocks are decoded for: see `Mode`.
    var mode: UInt32 = 0
    /// 0 to 3.
    var cpl: UInt8 = 0
    /// Why the handlers returned: see `Leave`.
    var leave: UInt8 = 0
    /// 1 after STI, 2 after MOV SS or POP SS: interrupts (and for 2 also debug traps) wait for one instruction.
    var shadow: UInt8 = 0
    /// A store went to a page that holds blocks: the block being executed may be gone.
    var codeChanged: UInt8 = 0
    /// Where the link goes that the next block found is to be entered in; 0 for none.
    var link: UInt = 0
    /// The fault that made the handlers return.
    var fault = Fault(vector: 0)

    // Control registers.
    var cr0: UInt64 = 0x6000_0010
    var cr2: UInt64 = 0
    var cr3: UInt64 = 0
    var cr4: UInt64 = 0
    var efer: UInt64 = 0
    /// PAE's four page-directory pointers, loaded with CR3. Source: [SDM3 §4.4.1].
    var pdpte: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
    var dr: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
    var dr6: UInt64 = 0xFFFF_0FF0
    var dr7: UInt64 = 0x400
    /// DR6's bits of breakpoints met by the present instruction, delivered when it is done.
    var pendingDebug: UInt64 = 0

    // Tables.
    var gdtrBase: UInt64 = 0
    var idtrBase: UInt64 = 0
    var gdtrLimit: UInt16 = 0xFFFF
    var idtrLimit: UInt16 = 0xFFFF

    // Model-specific registers.
    var star: UInt64 = 0
    var lstar: UInt64 = 0
    var cstar: UInt64 = 0
    var fmask: UInt64 = 0
    var kernelGSBase: UInt64 = 0
    var sysenterCS: UInt64 = 0
    var sysenterESP: UInt64 = 0
    var sysenterEIP: UInt64 = 0
    var pat: UInt64 = 0x0007_0406_0007_0406
    var tscAux: UInt64 = 0
    var tscOffset: UInt64 = 0
    var tscAdjust: UInt64 = 0
    var miscEnable: UInt64 = 1
    var apicBase: UInt64 = 0
    /// The local APIC's page, ~0 where memory accesses do not reach it.
    var apicPage: UInt64 = ~0
    /// CR8 where there is no local APIC that holds it.
    var cr8: UInt64 = 0

    // Events.
    /// HLT, INIT and SIPI: `RunState`.
    var runState: UInt8 = 0
    /// The local APIC or the 8259A pair may have an interrupt: to be asked once IF is set.
    var interruptPossible: UInt8 = 0
    /// INT n has cleared TF: no trap follows it.
    var stepTrap: UInt8 = 0
    var nmiPending: UInt8 = 0
    var nmiMasked: UInt8 = 0
    /// Instructions are executed one at a time: TF, breakpoints, `step`.
    var slow: UInt8 = 0
    /// An event that was taken and not yet delivered, as in `PendingEvents`: 0 none, 1 exception, 2 interrupt, 3 NMI.
    var injected: UInt8 = 0
    var injectedVector: UInt8 = 0
    var injectedHasCode: UInt8 = 0
    var injectedSoft: UInt8 = 0
    var injectedCode: UInt32 = 0
    /// Whether the present instruction's stack pointer is 64, 32 or 16 bits: its mask.
    var stackMask: UInt64 = 0xFFFF

    // Translation.
    /// MAXPHYADDR's reserved bits of an entry.
    var reservedPhysical: UInt64 = ~((1 << 40) - 1) & 0x000F_FFFF_FFFF_F000
    /// What `generation` is in user and in supervisor code. A load of CR3 leaves global pages, which kernels execute from.
    var userGeneration: UInt64 = 1
    var kernelGeneration: UInt64 = 1
    /// Entries in the logs, regions in the lists of large pages; one more than there is room for stands for all.
    var userLog: UInt32 = 0
    var kernelLog: UInt32 = 0
    var globalLarge: UInt32 = 0
    var localLarge: UInt32 = 0
    var nextVictim: UInt32 = 0
    /// Supervisor code was entered that is not global.
    var localKernelCode: UInt8 = 0
    /// The `SoftVCPU` that this state belongs to, unretained.
    var owner: UInt = 0
    /// Guest RAM: `PhysicalMemory`'s two regions and its table of code pages.
    var lowRAM: UInt = 0
    var lowSize: UInt64 = 0
    var highRAM: UInt = 0
    var highSize: UInt64 = 0
    var codeOwners: UInt = 0
    var codeChunks: UInt = 0
    /// This vCPU's bit in the table of code pages.
    var codeBit: UInt8 = 1
    /// Memory of blocks: see `BlockCache`.
    var arenaNext: UInt = 0
    var arenaEnd: UInt = 0
    var blockHash: UInt = 0
    var blockPageHeads: UInt = 0
    var exitStatistics = ExitStatistics()

    // Rescue: see `Rescue/SoftwareRescue.swift`.
    /// This state is another engine's vCPU's, lent for an instruction.
    var rescuing: UInt8 = 0
    /// It cannot be rescued: `Refusal`.
    var refused: UInt8 = 0
    /// Rights of the protection keys; of the vCPUs that have them.
    var pkru: UInt32 = 0
}

/// A segment register with its hidden part.
struct Segment: BitwiseCopyable {
    var base: UInt64 = 0
    /// The last valid offset, granularity applied.
    var limit: UInt32 = 0xFFFF
    /// Bits 3-0 type, 4 S, 6-5 DPL, 7 P, 8 AVL, 9 L, 10 D/B, 11 G, as in a descriptor; 12: unusable.
    var attributes: UInt16 = 0x93
    var selector: UInt16 = 0

    static var unusable: UInt16 { 0x1000 }

    var type: UInt16 { attributes & 15 }
    var isSystem: Bool { attributes & 0x10 == 0 }
    var dpl: UInt8 { UInt8(truncatingIfNeeded: attributes &>> 5) & 3 }
    var isPresent: Bool { attributes & 0x80 != 0 }
    var isLong: Bool { attributes & 0x200 != 0 }
    var isBig: Bool { attributes & 0x400 != 0 }
    var isUnusable: Bool { attributes & Segment.unusable != 0 }
    var isCode: Bool { attributes & 0x18 == 0x18 }
    var isConforming: Bool { attributes & 0x1C == 0x1C }
}

enum SegmentIndex {
    static var es: Int { 0 }
    static var cs: Int { 1 }
    static var ss: Int { 2 }
    static var ds: Int { 3 }
    static var fs: Int { 4 }
    static var gs: Int { 5 }
    static var ldtr: Int { 6 }
    static var tr: Int { 7 }
}

extension CPU {
    @inline(__always) var s: Registers {
        unsafeAddress {
            unsafe UnsafePointer(bitPattern: address &+ Layout.registers).unsafelyUnwrapped
        }
        nonmutating unsafeMutableAddress {
            unsafe UnsafeMutablePointer(bitPattern: address &+ Layout.registers).unsafelyUnwrapped
        }
    }

    /// General register `number`, 0 to 15.
    @inline(__always) subscript(_ number: Int) -> UInt64 {
        get { Host.load(UInt64.self, address &+ UInt(bitPattern: number) &* 8) }
        nonmutating set { Host.store(newValue, address &+ UInt(bitPattern: number) &* 8) }
    }

    /// Segment register `number`: `SegmentIndex`.
    @inline(__always) func segment(_ number: Int) -> Segment {
        Host.load(Segment.self, address &+ Layout.segments &+ UInt(bitPattern: number) &* 32)
    }

    @inline(__always) func setSegment(_ number: Int, _ value: Segment) {
        Host.store(value, address &+ Layout.segments &+ UInt(bitPattern: number) &* 32)
    }

    @inline(__always) func segmentBase(_ number: Int) -> UInt64 {
        Host.load(UInt64.self, address &+ Layout.segments &+ UInt(bitPattern: number) &* 32)
    }

    /// The FXSAVE64 image's host address.
    @inline(__always) var fx: UInt { address &+ Layout.fx }

    @inline(__always) var cs: Segment { segment(SegmentIndex.cs) }
    @inline(__always) var ss: Segment { segment(SegmentIndex.ss) }

    @inline(__always) var isLongMode: Bool { s.efer & EFER.lma != 0 }
    @inline(__always) var isProtected: Bool { s.cr0 & CR0.pe != 0 }
    @inline(__always) var isVirtual8086: Bool { s.flags & RFLAGS.vm != 0 }
    /// Real or virtual-8086 mode: segments are bases.
    @inline(__always) var isReal: Bool { !isProtected || isVirtual8086 }
    /// 64-bit code.
    @inline(__always) var is64: Bool { s.mode & Mode.bits64 != 0 }
}

/// What decides how bytes are decoded and what the decoded operations may assume. Part of a block's key.
enum Mode {
    static var bits16: UInt32 { 0 }
    static var bits32: UInt32 { 1 }
    static var bits64: UInt32 { 2 }
    /// CPL 3.
    static var user: UInt32 { 4 }
    /// ES, SS and DS have base 0 and limit 4 GiB (or it is 64-bit code), and the stack is 32 (64) bits wide.
    static var flat: UInt32 { 8 }
    /// Real or virtual-8086 mode.
    static var real: UInt32 { 16 }
    /// SSE instructions raise neither #UD nor #NM: CR4.OSFXSR, and neither CR0.EM nor CR0.TS.
    static var vector: UInt32 { 32 }
    /// The code segment's limit outside 64-bit mode, in the bits from 11 on: as a descriptor has it, 20 bits and a
    /// granularity. Blocks end at it, and belong to it.
    static func limit(_ limit: UInt32) -> UInt32 { (limit > 0xF_FFFF ? limit &>> 12 | 1 &<< 20 : limit) &<< 11 }
}

/// Which TF decides of the trap after an instruction. Source: [SDM3 §18.3.1.4].
enum StepTrap {
    /// The one it began with.
    static var asBegun: UInt8 { 0 }
    /// None: INT n, INT3, INTO.
    static var never: UInt8 { 1 }
    /// The one it ended with: SYSCALL, which masks it for the kernel, and SYSRET.
    static var asEnded: UInt8 { 2 }
}

enum RFLAGS {
    static var cf: UInt64 { 1 }
    static var pf: UInt64 { 4 }
    static var af: UInt64 { 0x10 }
    static var zf: UInt64 { 0x40 }
    static var sf: UInt64 { 0x80 }
    static var tf: UInt64 { 0x100 }
    static var `if`: UInt64 { 0x200 }
    static var df: UInt64 { 0x400 }
    static var of: UInt64 { 0x800 }
    static var iopl: UInt64 { 0x3000 }
    static var nt: UInt64 { 0x4000 }
    static var rf: UInt64 { 0x1_0000 }
    static var vm: UInt64 { 0x2_0000 }
    static var ac: UInt64 { 0x4_0000 }
    static var vif: UInt64 { 0x8_0000 }
    static var vip: UInt64 { 0x10_0000 }
    static var id: UInt64 { 0x20_0000 }
    static var arithmetic: UInt64 { 0x8D5 }
    /// All flags there are.
    static var all: UInt64 { 0x3F_7FD5 }
}

enum CR0 {
    static var pe: UInt64 { 1 }
    static var mp: UInt64 { 2 }
    static var em: UInt64 { 4 }
    static var ts: UInt64 { 8 }
    static var et: UInt64 { 0x10 }
    static var ne: UInt64 { 0x20 }
    static var wp: UInt64 { 0x1_0000 }
    static var am: UInt64 { 0x4_0000 }
    static var nw: UInt64 { 0x2000_0000 }
    static var cd: UInt64 { 0x4000_0000 }
    static var pg: UInt64 { 0x8000_0000 }
}

enum CR4 {
    static var vme: UInt64 { 1 }
    static var pvi: UInt64 { 2 }
    static var tsd: UInt64 { 4 }
    static var de: UInt64 { 8 }
    static var pse: UInt64 { 0x10 }
    static var pae: UInt64 { 0x20 }
    static var mce: UInt64 { 0x40 }
    static var pge: UInt64 { 0x80 }
    static var pce: UInt64 { 0x100 }
    static var osfxsr: UInt64 { 0x200 }
    static var osxmmexcpt: UInt64 { 0x400 }
    static var umip: UInt64 { 0x800 }
    static var fsgsbase: UInt64 { 0x1_0000 }
    static var pcide: UInt64 { 0x2_0000 }
    static var smep: UInt64 { 0x10_0000 }
    // Of rescued vCPUs only.
    static var la57: UInt64 { 0x1000 }
    static var osxsave: UInt64 { 0x4_0000 }
    static var smap: UInt64 { 0x20_0000 }
    static var pke: UInt64 { 0x40_0000 }
    static var cet: UInt64 { 0x80_0000 }
    /// What CPUID's answers allow.
    static var allowed: UInt64 {
        tsd | de | pse | pae | mce | pge | pce | osfxsr | osxmmexcpt | umip | fsgsbase | smep
    }
}

enum EFER {
    static var sce: UInt64 { 1 }
    static var lme: UInt64 { 0x100 }
    static var lma: UInt64 { 0x400 }
    static var nxe: UInt64 { 0x800 }
    static var allowed: UInt64 { sce | lme | lma | nxe }
}

/// An exception on its way to the guest.
struct Fault: Error, BitwiseCopyable {
    var vector: UInt8
    /// -1 for none.
    var code: Int32 = -1

    @inline(__always) init(vector: UInt8, code: Int32 = -1) {
        self.vector = vector
        self.code = code
    }

    static var divide: Fault { Fault(vector: 0) }
    static var debug: Fault { Fault(vector: 1) }
    static var breakpoint: Fault { Fault(vector: 3) }
    static var overflow: Fault { Fault(vector: 4) }
    static var bound: Fault { Fault(vector: 5) }
    static var invalidOpcode: Fault { Fault(vector: 6) }
    static var deviceNotAvailable: Fault { Fault(vector: 7) }
    static func invalidTSS(_ code: UInt16) -> Fault { Fault(vector: 10, code: Int32(code)) }
    static func notPresent(_ code: UInt16) -> Fault { Fault(vector: 11, code: Int32(code)) }
    static func stack(_ code: UInt16) -> Fault { Fault(vector: 12, code: Int32(code)) }
    static var stack: Fault { Fault(vector: 12, code: 0) }
    static func protection(_ code: UInt16) -> Fault { Fault(vector: 13, code: Int32(code)) }
    static var protection: Fault { Fault(vector: 13, code: 0) }
    static var floatingPoint: Fault { Fault(vector: 16) }
    static var alignment: Fault { Fault(vector: 17, code: 0) }
    static var simd: Fault { Fault(vector: 19) }
    /// Not an exception: the guest's thread ends, as a triple fault does it.
    static var shutdown: Fault { Fault(vector: 0xFF) }
}

/// Why the handlers returned to the loop.
enum Leave {
    /// `rip` is where to go on.
    static var next: UInt8 { 0 }
    /// `fault` is to be delivered at `rip`.
    static var fault: UInt8 { 1 }
}
