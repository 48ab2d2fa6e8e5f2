internal import SoftCPU
internal import VMCore
package import X86

/// The software CPU in the surroundings of a Linux process: ring 3, the same segment selectors and sandbox addresses, and
/// an exception table whose handlers tell what came.
///
/// ```
/// physical  0x01000 page tables: PML4, PDPT, PD, PT of the sandbox; PDPT, PD, PT of the kernel part
///           0x10000 GDT, IDT, TSS, ring-0 stack, handlers: supervisor pages at 0xFFFFFFFF80000000
///           0x20000 code page, two data pages, stack page, read-only page
/// ```
@safe package final class SoftwareSubject: DifferentialSubject {
    private let memory: GuestMemory
    private let engine: SoftEngine
    private let cpu: SoftVCPU
    private let ram: UnsafeMutableRawPointer
    private let system64: SystemRegisters
    private let system32: SystemRegisters
    private var isPristine = false
    private var lastMode = CodeMode.bits64

    private enum Physical {
        static let gdt: UInt64 = 0x10000, idt: UInt64 = 0x11000, tss: UInt64 = 0x12000, ringZeroStack: UInt64 = 0x13000
        static let handlers: UInt64 = 0x14000
        static let code: UInt64 = 0x20000, data: UInt64 = 0x21000, stack: UInt64 = 0x23000, readOnly: UInt64 = 0x24000
    }
    private static let kernel: UInt64 = 0xFFFF_FFFF_8000_0000
    private static let stackTop = kernel &+ 0x4000
    private static let handlers = kernel &+ 0x4000

    package init() throws {
        memory = try GuestMemory(size: 4 << 20)
        engine = try SoftEngine(memory: memory, vcpuCount: 1)
        cpu = try engine.makeSoftVCPU(index: 0)
        guard let bytes = unsafe memory.hostBytes(at: GuestAddress(0), count: 4 << 20), let base = bytes.baseAddress else {
            throw EngineError.badState("no memory")
        }
        unsafe ram = unsafe base
        system64 = Self.system(long: true)
        system32 = Self.system(long: false)
        buildTables()
    }

    package func has(_ feature: Feature) -> Bool { SoftVCPU.has(feature) }

    static func executes(_ row: RowID) -> Bool { SoftVCPU.has(row.feature) }

    package func setReadOnly(_ bytes: [UInt8]) {
        for (position, byte) in bytes.prefix(4096).enumerated() {
            unsafe ram.storeBytes(of: byte, toByteOffset: Int(Physical.readOnly) &+ position, as: UInt8.self)
        }
    }

    // MARK: One case

    package func execute(_ generated: GeneratedCase, _ input: CaseRecord, into outcome: CaseRecord) {
        outcome.copy(from: input)
        unsafe (ram + Int(Physical.data)).copyMemory(from: input.memory, byteCount: 3 &* 4096)
        let code = input.code
        for (position, byte) in code.enumerated() {
            unsafe ram.storeBytes(of: byte, toByteOffset: Int(Physical.code) &+ input.codeOffset &+ position, as: UInt8.self)
        }
        cpu.memoryWritten(at: Physical.code &+ UInt64(input.codeOffset), count: code.count)

        let mode = generated.instruction.mode
        if !isPristine || mode != lastMode {
            try? cpu.setSystemRegisters(mode == .bits64 ? system64 : system32)
            lastMode = mode
        }
        setRegisters(input)
        // Of the cases that end at an INT3, every other runs as a block does, handlers, links and all; the rest steps.
        let asBlock = generated.isSequence || generated.usesBreakpoint && input.rip & 1 == 0
        if asBlock { _ = cpu.run() } else { _ = cpu.step(count: 1) }
        readOutcome(outcome)
        if asBlock, !generated.isSequence, outcome.vector == 3, outcome.rip == input.rip &+ UInt64(generated.instruction.length) &+ 1 {
            outcome.vector = Comparison.completed
            outcome.rip = outcome.rip &- 1
        } else {
            isPristine = outcome.vector == Comparison.completed && !Self.changesSegments(generated.row)
        }
        if asBlock { isPristine = false }
        unsafe outcome.memory.copyMemory(from: ram + Int(Physical.data), byteCount: 3 &* 4096)
    }

    private static func changesSegments(_ row: RowID) -> Bool {
        switch row.mnemonic {
        case .mov, .pop, .lss, .lds, .les, .jmpf, .callf, .retf, .iret, .iretd, .iretq, .popf, .popfd, .popfq, .sysret, .int, .int3, .int1, .into: true
        default: false
        }
    }

    private func setRegisters(_ input: CaseRecord) {
        var general = GeneralRegisters()
        general.rax = input[general: 0]
        general.rcx = input[general: 1]
        general.rdx = input[general: 2]
        general.rbx = input[general: 3]
        general.rsp = input[general: 4]
        general.rbp = input[general: 5]
        general.rsi = input[general: 6]
        general.rdi = input[general: 7]
        general.r8 = input[general: 8]
        general.r9 = input[general: 9]
        general.r10 = input[general: 10]
        general.r11 = input[general: 11]
        general.r12 = input[general: 12]
        general.r13 = input[general: 13]
        general.r14 = input[general: 14]
        general.r15 = input[general: 15]
        general.rip = input.rip
        general.rflags = input.rflags
        cpu.generalRegisters = general
        cpu.setBases(fs: input.fsBase, gs: input.gsBase)
        unsafe cpu.setFXSaveImage(UnsafeRawPointer(input.fx))
    }

    private func readOutcome(_ outcome: CaseRecord) {
        let general = cpu.generalRegisters
        outcome[general: 0] = general.rax
        outcome[general: 1] = general.rcx
        outcome[general: 2] = general.rdx
        outcome[general: 3] = general.rbx
        outcome[general: 4] = general.rsp
        outcome[general: 5] = general.rbp
        outcome[general: 6] = general.rsi
        outcome[general: 7] = general.rdi
        outcome[general: 8] = general.r8
        outcome[general: 9] = general.r9
        outcome[general: 10] = general.r10
        outcome[general: 11] = general.r11
        outcome[general: 12] = general.r12
        outcome[general: 13] = general.r13
        outcome[general: 14] = general.r14
        outcome[general: 15] = general.r15
        outcome.rip = general.rip
        outcome.rflags = general.rflags
        outcome.fsBase = cpu.fsBase
        outcome.gsBase = cpu.gsBase
        outcome.cs = UInt64(cpu.codeSelector)
        outcome.error = 0
        outcome.cr2 = 0
        outcome.vector = Comparison.completed
        unsafe cpu.copyFXSaveImage(to: outcome.fx)
        guard cpu.privilegeLevel == 0, general.rip &- Self.handlers < 0x1000 else { return }
        // In a handler: the frame on the ring-0 stack has what was interrupted.
        let vector = (general.rip &- Self.handlers) &>> 4
        outcome.vector = vector
        var frame = general.rsp
        let hasCode = vector == 8 || vector >= 10 && vector <= 14 || vector == 17 || vector == 21
        if hasCode {
            outcome.error = word(frame)
            frame = frame &+ 8
        }
        outcome.rip = word(frame)
        outcome.cs = word(frame &+ 8)
        outcome.rflags = word(frame &+ 16)
        outcome[general: 4] = word(frame &+ 24)
        if vector == 14 { outcome.cr2 = cpu.cr2 }
    }

    /// A word of the ring-0 stack.
    private func word(_ address: UInt64) -> UInt64 {
        let offset = address &- (Self.stackTop &- 4096)
        guard offset <= 4088 else { return 0xDEAD_DEAD_DEAD_DEAD }
        return unsafe ram.loadUnaligned(fromByteOffset: Int(Physical.ringZeroStack &+ offset), as: UInt64.self)
    }

    // MARK: Tables

    private func buildTables() {
        func store(_ value: UInt64, _ address: UInt64) { unsafe ram.storeBytes(of: value, toByteOffset: Int(address), as: UInt64.self) }
        let noExecute: UInt64 = 1 &<< 63
        // Sandbox: 0x20000000 is entry 256 of the first directory.
        store(0x2067, 0x1000)
        store(0x3067, 0x2000)
        store(0x4067, 0x3000 &+ (Sandbox.code &>> 21) &* 8)
        func page(_ address: UInt64, _ physical: UInt64, _ bits: UInt64) { store(physical | bits, 0x4000 &+ (address &>> 12 & 511) &* 8) }
        page(Sandbox.code, Physical.code, 0x65)
        page(Sandbox.data, Physical.data, 0x67 | noExecute)
        page(Sandbox.data &+ 4096, Physical.data &+ 4096, 0x67 | noExecute)
        page(Sandbox.readOnly, Physical.readOnly, 0x65 | noExecute)
        page(Sandbox.stack, Physical.stack, 0x67 | noExecute)
        // Kernel: 0xFFFFFFFF80000000 is entry 510 of the last directory pointer table.
        store(0x5063, 0x1000 &+ 511 &* 8)
        store(0x6063, 0x5000 &+ 510 &* 8)
        store(0x7063, 0x6000)
        for index in UInt64(0)..<8 { store((Physical.gdt &+ index &* 4096) | 0x63, 0x7000 &+ index &* 8) }

        // Linux's descriptors, where Linux has them.
        let descriptors: [UInt64] = [
            0, 0x00CF_9B00_0000_FFFF, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x00CF_FB00_0000_FFFF, 0x00CF_F300_0000_FFFF,
            0x00AF_FB00_0000_FFFF, 0,
        ]
        // The segment whose limit tells the processor's number: read-only, expand-down, for LSL in ring 3.
        store(0x0040_F500_0000_0000, Physical.gdt &+ 0x78)
        for (index, descriptor) in descriptors.enumerated() { store(descriptor, Physical.gdt &+ UInt64(index) &* 8) }
        let tss = Self.kernel &+ 0x2000
        store(0x67 | (tss & 0xFF_FFFF) &<< 16 | 0x8B &<< 40 | (tss &>> 24 & 0xFF) &<< 56, Physical.gdt &+ 0x40)
        store(tss &>> 32, Physical.gdt &+ 0x48)
        store(Self.stackTop &<< 32, Physical.tss)
        store(Self.stackTop &>> 32, Physical.tss &+ 8)
        // No I/O permission map: its offset is the limit's end.
        store(0x68 &<< 48, Physical.tss &+ 0x60)
        for vector in UInt64(0)..<256 {
            let handler = Self.handlers &+ vector &* 16
            let kind: UInt64 = vector == 3 || vector == 4 ? 0xEE : 0x8E
            store(handler & 0xFFFF | 0x10 &<< 16 | kind &<< 40 | (handler &>> 16 & 0xFFFF) &<< 48, Physical.idt &+ vector &* 16)
            store(handler &>> 32, Physical.idt &+ vector &* 16 &+ 8)
        }
        for offset in 0..<4096 {
            unsafe ram.storeBytes(of: 0xF4, toByteOffset: Int(Physical.handlers) &+ offset, as: UInt8.self)
            unsafe ram.storeBytes(of: 0xCC, toByteOffset: Int(Physical.code) &+ offset, as: UInt8.self)
        }
    }

    /// The system registers of a Linux process.
    private static func system(long: Bool) -> SystemRegisters {
        var system = SystemRegisters()
        func segment(_ selector: UInt16, type: UInt8, dpl: UInt8) -> SegmentState {
            var segment = SegmentState()
            segment.selector = selector
            segment.limit = 0xFFFF_FFFF
            segment.type = type
            segment.dpl = dpl
            segment.present = true
            segment.codeOrData = true
            segment.granular = true
            segment.big = true
            return segment
        }
        var code = segment(long ? 0x33 : 0x23, type: 0xB, dpl: 3)
        code.long = long
        code.big = !long
        system.cs = code
        system.ss = segment(0x2B, type: 3, dpl: 3)
        system.ds = segment(0x2B, type: 3, dpl: 3)
        system.es = segment(0x2B, type: 3, dpl: 3)
        var null = SegmentState()
        null.unusable = true
        system.fs = null
        system.gs = null
        system.ldtr = null
        var task = SegmentState()
        task.selector = 0x40
        task.base = kernel &+ 0x2000
        task.limit = 0x67
        task.type = 0xB
        task.present = true
        system.tr = task
        system.gdtr = TableState(base: kernel, limit: 0x7F)
        system.idtr = TableState(base: kernel &+ 0x1000, limit: 0xFFF)
        system.cr0 = 0x8005_0033
        system.cr3 = 0x1000
        // DE, PSE, PAE, MCE, PGE, OSFXSR, OSXMMEXCPT, FSGSBASE.
        system.cr4 = 0x1_06F8
        system.efer = 0xD01
        return system
    }
}
