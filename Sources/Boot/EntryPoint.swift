public import VMCore

/// How the boot processor begins: what a loader returns.
public struct EntryPoint: Hashable, Sendable {
    /// The processor mode the image expects, with the registers it is told about.
    public enum Mode: Hashable, Sendable {
        /// 64-bit mode on the loader's page tables and GDT.
        case long64(rip: UInt64, rsi: UInt64)
        /// Protected mode, flat 4 GiB segments, no paging.
        case protected32(eip: UInt32, eax: UInt32, ebx: UInt32, esi: UInt32)
        /// Real mode. DS and ES get the value of CS; the stack is 0000:`sp`.
        case real16(cs: UInt16, ip: UInt16, sp: UInt16, dx: UInt16)
    }

    public var mode: Mode
    /// How the image is started, for messages: "Linux 64-bit", "PVH", "Multiboot 2".
    public var method: String

    init(_ mode: Mode, method: String) {
        self.mode = mode
        self.method = method
    }

    /// The state to set on vCPU 0. Everything not named by the image's protocol is as after a reset, with caches on.
    ///
    /// The FPU area and the MSRs are left empty: as the engine makes them.
    public func initialState() -> VCPUState {
        var state = VCPUState()
        state.system.apicBase = 0xFEE0_0900  // enabled, boot processor: [SDM3 §11.4.4]
        state.system.cr0 = 0x10  // ET, which is always set
        state.system.ldtr.type = 2
        state.system.ldtr.limit = 0xFFFF
        state.system.ldtr.unusable = true
        // A busy TSS, present: VM entry refuses any other TR. Source: [SDM3 §27.3.1.2].
        state.system.tr.type = 0xB
        state.system.tr.present = true
        state.system.tr.limit = 0xFFFF
        switch mode {
        case .long64(let rip, let rsi):
            state.general.rip = rip
            state.general.rsi = rsi
            state.general.rsp = BootLayout.stackTop.rawValue
            state.system.setFlatSegments(long: true)
            state.system.gdtr = InitialTables.gdtr
            state.system.cr0 |= 0x8000_0001  // PG, PE
            state.system.cr3 = BootLayout.pageTables.rawValue
            state.system.cr4 = 0x20  // PAE
            state.system.efer = 0x500  // LME, LMA
        case .protected32(let eip, let eax, let ebx, let esi):
            state.general.rip = UInt64(eip)
            state.general.rax = UInt64(eax)
            state.general.rbx = UInt64(ebx)
            state.general.rsi = UInt64(esi)
            state.general.rsp = BootLayout.stackTop.rawValue
            state.system.setFlatSegments(long: false)
            state.system.gdtr = InitialTables.gdtr
            state.system.cr0 |= 1  // PE
        case .real16(let cs, let ip, let sp, let dx):
            state.general.rip = UInt64(ip)
            state.general.rsp = UInt64(sp)
            state.general.rdx = UInt64(dx)
            state.system.cs = SegmentState(realMode: cs, type: 0xB)
            state.system.ds = SegmentState(realMode: cs, type: 3)
            state.system.es = SegmentState(realMode: cs, type: 3)
            state.system.fs = SegmentState(realMode: 0, type: 3)
            state.system.gs = SegmentState(realMode: 0, type: 3)
            state.system.ss = SegmentState(realMode: 0, type: 3)
            state.system.gdtr = TableState(base: 0, limit: 0xFFFF)
            state.system.idtr = TableState(base: 0, limit: 0x3FF)
        }
        return state
    }
}

extension SystemRegisters {
    /// CS 0x10 and the data segments 0x18, base 0, 4 GiB, as the Linux boot protocol names them and the others allow.
    fileprivate mutating func setFlatSegments(long: Bool) {
        cs = SegmentState(flat: InitialTables.codeSelector, type: 0xB)
        cs.long = long
        cs.big = !long
        let data = SegmentState(flat: InitialTables.dataSelector, type: 3)
        (ds, es, fs, gs, ss) = (data, data, data, data, data)
        tr.selector = InitialTables.taskSelector
        tr.limit = 0x67
    }
}

extension SegmentState {
    fileprivate init(flat selector: UInt16, type: UInt8) {
        self.init()
        self.selector = selector
        self.type = type
        limit = 0xFFFF_FFFF
        present = true
        codeOrData = true
        big = true
        granular = true
    }

    fileprivate init(realMode selector: UInt16, type: UInt8) {
        self.init()
        self.selector = selector
        self.type = type
        base = UInt64(selector) << 4
        limit = 0xFFFF
        present = true
        codeOrData = true
    }
}

/// The tables that a processor entering in protected or 64-bit mode needs in memory.
enum InitialTables {
    static let codeSelector: UInt16 = 0x10
    static let dataSelector: UInt16 = 0x18
    static let taskSelector: UInt16 = 0x20
    /// Six entries: null, unused, code, data, and two for the task state of 64-bit mode.
    static let gdtr = TableState(base: BootLayout.gdt.rawValue, limit: 6 * 8 - 1)

    /// Writes the GDT, and for 64-bit mode the page tables, within what `MemoryPlan.claimTables` took.
    static func place(in memory: GuestMemory, long: Bool) throws(BootError) {
        var gdt = LittleEndianBytes()
        gdt.append(UInt64(0))
        gdt.append(UInt64(0))
        // Base 0, limit 4 GiB, present, ring 0, accessed; L or D. Source: [SDM3 §3.4.5].
        gdt.append(long ? 0x00AF_9B00_0000_FFFF as UInt64 : 0x00CF_9B00_0000_FFFF)
        gdt.append(0x00CF_9300_0000_FFFF as UInt64)
        gdt.append(0x0000_8B00_0000_0067 as UInt64)  // busy TSS, base 0, limit 0x67
        gdt.append(UInt64(0))
        let bytes = gdt.bytes
        try placing { () throws(GuestMemoryError) in try memory.write(bytes, at: BootLayout.gdt) }
        if long { try placePageTables(in: memory) }
    }

    /// PML4, PDPT and four page directories that map the first 4 GiB one to one.
    ///
    /// In 2 MiB pages: not every processor has 1 GiB ones. Source: [SDM3 §4.5].
    private static func placePageTables(in memory: GuestMemory) throws(BootError) {
        let present: UInt64 = 1, writable: UInt64 = 2, large: UInt64 = 0x80
        let base = BootLayout.pageTables
        guard let tables = unsafe memory.hostBytes(at: base, count: 6 * 4096) else {
            throw .outsideMemory(what: "the page tables", address: base, count: 6 * 4096, memory: memory.size)
        }
        func set(_ index: Int, _ entry: UInt64) {
            unsafe tables.storeBytes(of: entry | present | writable, toByteOffset: index * 8, as: UInt64.self)
        }
        _ = unsafe tables.initializeMemory(as: UInt8.self, repeating: 0)
        set(0, base.rawValue + 0x1000)
        for gibibyte in 0..<4 { set(512 + gibibyte, base.rawValue + 0x2000 + UInt64(gibibyte) << 12) }
        for page in 0..<2048 { set(1024 + page, UInt64(page) << 21 | large) }
    }
}
