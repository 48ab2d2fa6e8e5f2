/// A short privileged program, with the machine it starts on: the same for every engine.
public struct ControlProgram: Sendable {
    /// The mode it starts in.
    public enum Mode: String, CaseIterable, Sendable {
        case long64, pae32, paged32, flat32, real16

        /// The width of code.
        var bits: Int {
            switch self {
            case .long64: 64
            case .pae32, .paged32, .flat32: 32
            case .real16: 16
            }
        }
    }

    /// A property for whose sake an engine's answer may not count: see `ControlReference`.
    public enum Trait: String, CaseIterable, Sendable {
        /// An MSR, a table's base or a branch with an address that is not canonical.
        case nonCanonicalBase
        /// A branch or a frame that leads to an address that is not canonical.
        case nonCanonicalTarget
        /// A stack that is not canonical.
        case nonCanonicalStack
        /// RFLAGS.TF or a breakpoint.
        case debugException
        /// The instruction of the one byte F1.
        case int1
        /// DR7.GD.
        case generalDetect
        /// A segment, outside 64-bit code, that does not allow every access of a flat one.
        case segmentLimits
        /// An access that reads and writes.
        case readModifyWrite
        /// A far branch to a task.
        case taskSwitch
        /// A jump through a call gate to code that is not present.
        case absentCode
        /// A code segment of both 64 and 32 bits.
        case longAndBig
        /// LTR of a null selector.
        case nullTask
        /// CR3 with a bit past the physical address.
        case reservedCR3
        /// An interrupt stack without a change of privilege.
        case interruptStack
        /// A fault of an instruction that hypervisors emulate, which is delivered through an odd gate.
        case oddGateAfterExit
        /// SYSCALL with an IA32_FMASK that leaves arithmetic flags.
        case arithmeticMask
        /// IRET that sets RFLAGS.RF.
        case resumeFlag
        /// IRET in 64-bit code with an operand size of 16 or 32 bits.
        case narrowReturn
        /// CR0 or CR4 with bits past the 32nd.
        case highControlBits
        /// What makes a processor in PAE mode read the four pointers again.
        case pointersReloaded
    }

    public let seed: UInt64
    public let number: Int
    public let mode: Mode
    /// What it does, in the order it was drawn.
    public let items: [String]
    public let kinds: Set<ControlItem>
    public let traits: Set<Trait>
    let code: [UInt8]
    /// Memory that differs from the mode's own: later ones go over earlier ones.
    let patches: [(address: UInt64, bytes: [UInt8])]
    let hasLDT: Bool

    /// For reports: what it does, and its code.
    public var listing: String {
        let traits = traits.map(\.rawValue).sorted().joined(separator: ",")
        let bytes = code.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        let places = patches.map { patch in
            String(patch.address, radix: 16) + "=" + patch.bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        }
        let what = items.joined(separator: "; ")
        return "\(number) \(mode.rawValue) [\(traits)]: \(what) | code \(bytes) | \(places.joined(separator: " "))"
    }
}

/// The kinds of things a program does.
public enum ControlItem: String, CaseIterable, Sendable {
    case loadSegment, storeSegment, loadTable, storeTable, loadSystemSegment, verify, writeControl, readControl, machineStatus
    case debugRegister, farJump, farCall, farReturn, interruptReturn, softwareInterrupt, systemCall, systemReturn, sysenter
    case readMSR, writeMSR, memoryAccess, pageEdit, flags, swapGS, undefined, stackAccess, protectedMode
}

/// Where everything is. All of it is below `end`, which is written anew for each program and compared after it.
///
///     0x0000 the vectors of real mode         0x4000 the stack; 0x5000 those of the TSS
///     0x0800 GDT; 0x0900 LDT; 0x0A00 TSSs     0x6000 data
///     0x0C00 operands in memory               0x7000 PML4, 0x8000 PDPT, 0x9000 PD, 0xA000 PT of what is here
///     0x1000 code                             0xB000 PT of the pages that accesses are aimed at, at 0x400000
///     0x2000 handlers, 4 bytes apart          0x200000, and 0x40000000 in long mode: large pages
///     0x3000 IDT
enum ControlLayout {
    static let gdt: UInt64 = 0x800, gdtLimit: UInt16 = 0xDF, ldt: UInt64 = 0x900, tss: UInt64 = 0xA00, operands: UInt64 = 0xC00
    static let code: UInt64 = 0x1000, handlers: UInt64 = 0x2000, idt: UInt64 = 0x3000, vectors: UInt64 = 0x40
    static let stack: UInt64 = 0x4800, innerStack: UInt64 = 0x5800, data: UInt64 = 0x6000
    static let pml4: UInt64 = 0x7000, pdpt: UInt64 = 0x8000, directory: UInt64 = 0x9000, table: UInt64 = 0xA000
    static let testTable: UInt64 = 0xB000, test: UInt64 = 0x40_0000, end: UInt64 = 0xC000
    /// The port that the program's own end writes to; a handler writes to that of its vector.
    static let completed: UInt8 = 0xF0
    static let syscallPort: UInt8 = 0xE0, syscall32Port: UInt8 = 0xE1, sysenterPort: UInt8 = 0xE2

    static func handler(_ port: UInt8) -> UInt64 { handlers + 4 * UInt64(port) }
}
