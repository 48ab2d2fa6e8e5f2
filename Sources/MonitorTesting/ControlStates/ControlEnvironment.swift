internal import VMCore

/// What a mode's programs start from: memory and registers.
struct ControlEnvironment: Sendable {
    let memory: [UInt8]
    let state: VCPUState

    static func descriptor(base: UInt32 = 0, limit: UInt32 = 0xFFFFF, access: UInt8, flags: UInt8) -> UInt64 {
        UInt64(limit & 0xFFFF) | UInt64(base & 0xFF_FFFF) << 16 | UInt64(access) << 40 | UInt64(limit >> 16 & 15) << 48
            | UInt64(flags & 15) << 52 | UInt64(base >> 24) << 56
    }

    /// CR2 until a page fault.
    static let untouchedCR2: UInt64 = 0x1_2345

    /// Flags of a descriptor, G D L AVL.
    private static let flat: UInt8 = 0xC, flat64: UInt8 = 0xA, flat16: UInt8 = 0x8

    private static func put(_ value: UInt64, _ size: Int = 8, at address: UInt64, in memory: inout [UInt8]) {
        for byte in 0..<size { memory[Int(address) + byte] = UInt8(truncatingIfNeeded: value >> UInt64(8 * byte)) }
    }

    init(_ mode: ControlProgram.Mode, hasLDT: Bool) {
        var memory = [UInt8](repeating: 0, count: Int(ControlLayout.end))
        for address in Int(ControlLayout.code)..<Int(ControlLayout.handlers) { memory[address] = 0xCC }
        for address in Int(ControlLayout.handlers)..<Int(ControlLayout.idt) { memory[address] = 0xCC }
        for address in Int(ControlLayout.data)..<Int(ControlLayout.pml4) { memory[address] = 0xC3 }
        for port in 0..<256 as Range<UInt64> {
            // out %al, $port; jmp to itself.
            Self.put(0xFEEB_00E6 | port << 8, 4, at: ControlLayout.handlers + 4 * port, in: &memory)
            Self.put(mode == .real16 ? ControlLayout.handlers + 4 * port : 0xCCCC_CCCC, 4, at: 4 * port, in: &memory)
        }
        let isLong = mode == .long64
        Self.putDescriptors(isLong, in: &memory)
        for vector in 0..<ControlLayout.vectors {
            let dpl: UInt64 = vector == 3 || vector == 4 ? 3 : 0
            let gate = ControlGate(target: ControlLayout.handlers + 4 * vector, selector: 8, access: UInt8(0x8E | dpl << 5))
            for (offset, byte) in gate.bytes(isLong: isLong).enumerated() {
                memory[Int(ControlLayout.idt + vector * (isLong ? 16 : 8)) + offset] = byte
            }
        }
        Self.putPageTables(mode, in: &memory)
        self.memory = memory
        state = Self.state(mode, hasLDT: hasLDT)
    }

    private static func putDescriptors(_ isLong: Bool, in memory: inout [UInt8]) {
        let code = isLong ? flat64 : flat
        let entries: [UInt64] = [
            0, descriptor(access: 0x9B, flags: code), descriptor(access: 0x93, flags: flat),
            descriptor(access: 0x9B, flags: flat), descriptor(access: 0xF3, flags: flat),
            descriptor(access: 0xFB, flags: code), descriptor(access: 0xFB, flags: flat),
            descriptor(access: 0x9B, flags: flat16),
            // Programs of 32-bit modes begin with an LTR of it.
            descriptor(base: UInt32(ControlLayout.tss), limit: 0x67, access: isLong ? 0x8B : 0x89, flags: 0), 0,
            descriptor(base: UInt32(ControlLayout.tss) + 0x100, limit: 0x67, access: 0x89, flags: 0), 0,
            descriptor(base: UInt32(ControlLayout.ldt), limit: 0x1F, access: 0x82, flags: 0), 0,
        ]
        for (index, entry) in entries.enumerated() { put(entry, at: ControlLayout.gdt + 8 * UInt64(index), in: &memory) }
        let local = [
            descriptor(access: 0x92, flags: flat), descriptor(access: 0xF3, flags: flat), descriptor(access: 0x9A, flags: code),
            descriptor(access: 0x12, flags: flat),
        ]
        for (index, entry) in local.enumerated() { put(entry, at: ControlLayout.ldt + 8 * UInt64(index), in: &memory) }
        // Of both TSSs: stacks of ring 0 and 1, and the interrupt stacks, of which the second is none.
        for tss in [ControlLayout.tss, ControlLayout.tss + 0x100] {
            if isLong {
                put(ControlLayout.innerStack, at: tss + 4, in: &memory)
                put(ControlLayout.innerStack + 0x200, at: tss + 12, in: &memory)
                put(ControlLayout.innerStack + 0x400, at: tss + 0x24, in: &memory)
                put(0x8000_0000_0000, at: tss + 0x2C, in: &memory)
                put(0x3F00_0000, at: tss + 0x34, in: &memory)
            } else {
                put(ControlLayout.innerStack, at: tss + 4, in: &memory)
                put(0x10, at: tss + 8, in: &memory)
                put(ControlLayout.innerStack + 0x200, at: tss + 12, in: &memory)
                put(0x21, at: tss + 16, in: &memory)
            }
            put(0xFFFF, 2, at: tss + 0x66, in: &memory)
        }
    }

    /// Flags of the pages at `ControlLayout.test`, all of them the data page.
    static func testPages(wide: Bool) -> [UInt64] {
        let page = ControlLayout.data
        let never: UInt64 = wide ? 1 << 63 : 0
        let reserved: UInt64 = wide ? 1 << 51 : 0
        return [
            page | 7, page | 5, 0, page | 3, page | 7 | never, page | 7 | reserved, page | 1, page | 5 | never,
            page | 0xFFE, page | 0x107, page | 0x9F, page | 0x67, page | 0x47, page | 1 | never, page | 0x25,
            page | 0x27 | reserved,
        ]
    }

    private static func putPageTables(_ mode: ControlProgram.Mode, in memory: inout [UInt8]) {
        guard mode == .long64 || mode == .pae32 || mode == .paged32 else { return }
        let wide = mode != .paged32
        let size = wide ? 8 : 4
        for page in 0..<16 as Range<UInt64> {
            put(page << 12 | 0x67, size, at: ControlLayout.table + UInt64(size) * page, in: &memory)
        }
        for (index, entry) in testPages(wide: wide).enumerated() {
            put(entry, size, at: ControlLayout.testTable + UInt64(size * index), in: &memory)
        }
        put(ControlLayout.table | 0x67, size, at: ControlLayout.directory, in: &memory)
        if wide {
            put(0x87, at: ControlLayout.directory + 8, in: &memory)
            put(ControlLayout.testTable | 7, at: ControlLayout.directory + 16, in: &memory)
            put(0x85, at: ControlLayout.directory + 24, in: &memory)
            // A bit of the frame that a large page has not.
            put(0x2087, at: ControlLayout.directory + 32, in: &memory)
        } else {
            put(ControlLayout.testTable | 7, 4, at: ControlLayout.directory + 4, in: &memory)
            put(0x87, 4, at: ControlLayout.directory + 8, in: &memory)
            put(0x85, 4, at: ControlLayout.directory + 12, in: &memory)
            put(0x20_0087, 4, at: ControlLayout.directory + 16, in: &memory)
        }
        put(ControlLayout.directory | (mode == .long64 ? 0x67 : 1), at: ControlLayout.pdpt, in: &memory)
        if mode == .long64 {
            put(0x87, at: ControlLayout.pdpt + 8, in: &memory)
            put(ControlLayout.pdpt | 0x67, at: ControlLayout.pml4, in: &memory)
        }
    }

    /// MSRs that are set before a program and compared after it.
    static let msrs: [(index: UInt32, name: String, value: UInt64)] = [
        (0x174, "sysenter-cs", 8), (0x175, "sysenter-esp", ControlLayout.innerStack),
        (0x176, "sysenter-eip", ControlLayout.handler(ControlLayout.sysenterPort)),
        (0x277, "pat", 0x0007_0406_0007_0406), (0xC000_0081, "star", 0x0018_0008_0000_0000),
        (0xC000_0082, "lstar", ControlLayout.handler(ControlLayout.syscallPort)),
        (0xC000_0083, "cstar", ControlLayout.handler(ControlLayout.syscall32Port)), (0xC000_0084, "fmask", 0x4_7FD5),
        (0xC000_0102, "kernel-gs", 0x6100),
    ]

    private static func state(_ mode: ControlProgram.Mode, hasLDT: Bool) -> VCPUState {
        let start: ConformanceMachine.Mode = mode == .long64 ? .long64 : mode == .real16 ? .real16 : .protected32
        var (general, system) = ConformanceMachine.entry(start, at: ControlLayout.code)
        general.rsp = ControlLayout.stack
        general.rbx = 0x11
        general.rdi = ControlLayout.data + 0x80
        general.rsi = ControlLayout.data + 0x40
        general.rbp = 0x4600
        if start == .protected32 {
            system.cs.selector = 8
            // Segments of ring 3: a return there leaves them be.
            for keyPath in [\SystemRegisters.ds, \.es, \.fs, \.gs] {
                system[keyPath: keyPath].selector = 0x23
                system[keyPath: keyPath].dpl = 3
            }
        }
        system.gdtr = TableState(base: ControlLayout.gdt, limit: ControlLayout.gdtLimit)
        if mode != .real16 {
            system.idtr = TableState(
                base: ControlLayout.idt, limit: UInt16(ControlLayout.vectors * (mode == .long64 ? 16 : 8) - 1))
        }
        system.cr0 |= 0x20
        system.cr2 = untouchedCR2
        switch mode {
        case .long64:
            system.cr3 = ControlLayout.pml4
            system.cr4 = 0x620
            system.efer = 0xD01
            system.fs.base = 0x6200
            system.gs.base = 0x6300
        case .pae32:
            system.cr3 = ControlLayout.pdpt
            system.cr4 = 0x620
            system.cr0 |= 0x8000_0000
            system.efer = 0x801
        case .paged32:
            system.cr3 = ControlLayout.directory
            system.cr4 = 0x610
            system.cr0 |= 0x8000_0000
        case .flat32, .real16: system.cr4 = 0x600
        }
        system.tr.selector = 0x40
        system.tr.base = ControlLayout.tss
        system.tr.limit = 0x67
        if hasLDT {
            system.ldtr.selector = 0x60
            system.ldtr.base = ControlLayout.ldt
            system.ldtr.limit = 0x1F
        } else {
            system.ldtr = SegmentState()
            system.ldtr.unusable = true
        }
        var state = VCPUState()
        // Where no code is: B0 to B3 of DR6 may tell of breakpoints that are not enabled. Source: [SDM3 §18.2.3].
        (state.debug.dr0, state.debug.dr1) = (0x7777_0000, 0x7777_0010)
        (state.debug.dr2, state.debug.dr3) = (0x7777_0020, 0x7777_0030)
        state.general = general
        state.system = system
        state.msrs = msrs.map { ModelSpecificRegister(index: $0.index, value: $0.value) }
        return state
    }
}

/// A gate of an IDT or of a GDT.
struct ControlGate {
    var target: UInt64
    var selector: UInt16
    /// P, DPL, type.
    var access: UInt8
    /// IST, or the parameters of a 32-bit call gate.
    var low: UInt8 = 0

    func bytes(isLong: Bool) -> [UInt8] {
        var bytes: [UInt8] = []
        func put(_ value: UInt64, _ size: Int) {
            for byte in 0..<size { bytes.append(UInt8(truncatingIfNeeded: value >> UInt64(8 * byte))) }
        }
        put(target, 2)
        put(UInt64(selector), 2)
        bytes += [low, access]
        put(target >> 16, 2)
        if isLong {
            put(target >> 32, 4)
            put(0, 4)
        }
        return bytes
    }
}
