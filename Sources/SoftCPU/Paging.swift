internal import CHost

/// Linear to physical: 32-bit, PAE and 4-level paging, with permissions, accessed and dirty bits.
///
/// Source: [SDM3 §4].
struct PageAccess: BitwiseCopyable {
    var isWrite = false
    var isFetch = false
    /// CPL 3, and not an access the processor makes for itself (descriptor tables, TSS).
    var isUser = false

    static var read: PageAccess { PageAccess() }
    static var write: PageAccess { PageAccess(isWrite: true) }
}

private enum Entry {
    static var present: UInt64 { 1 }
    static var writable: UInt64 { 2 }
    static var user: UInt64 { 4 }
    static var accessed: UInt64 { 0x20 }
    static var dirty: UInt64 { 0x40 }
    static var large: UInt64 { 0x80 }
    static var global: UInt64 { 0x100 }
    static var noExecute: UInt64 { 1 << 63 }
    static var frame: UInt64 { 0x000F_FFFF_FFFF_F000 }
}

/// What a walk found.
private struct Walk: BitwiseCopyable {
    var physical: UInt64 = 0
    /// AND of the levels' R/W and U/S, bits 1 and 2; A of all levels in bit 5; the leaf's D in bit 6.
    var rights: UInt64 = 0x67
    /// The leaf's protection key.
    var key: UInt32 = 0
    var noExecute = false
    var isGlobal = false
    var isLarge = false
}

extension CPU {
    /// The physical address of a linear one. Enters it in the TLB where it is RAM.
    ///
    /// - Throws: the page fault, with CR2 set.
    @inline(never)
    func translate(_ linear: UInt64, _ access: PageAccess) throws(Fault) -> UInt64 {
        guard s.cr0 & CR0.pg != 0 else {
            let physical = linear
            enter(linear, physical, writable: true, executable: true, access, global: false)
            return physical
        }
        // Tables that a device makes up as it goes may never hold still.
        var patience = 64
        while true {
            let walk = try walk(linear, access)
            let executable = !walk.noExecute
                && !(s.cr4 & CR4.smep != 0 && !access.isUser && walk.rights & Entry.user != 0)
            var writable = walk.rights & Entry.writable != 0
            if !access.isUser, s.cr0 & CR0.wp == 0 { writable = true }
            if access.isUser && walk.rights & Entry.user == 0 || access.isWrite && !writable
                || access.isFetch && !executable
            {
                throw pageFault(linear, access, Entry.present)
            }
            if s.cr4 & (CR4.smap | CR4.pke) != 0, walk.rights & Entry.user != 0, !access.isFetch {
                try checkUserPage(linear, access, key: walk.key)
            }
            let needed = access.isWrite ? Entry.accessed | Entry.dirty : Entry.accessed
            if walk.rights & needed != needed {
                // Another processor may change an entry between the two walks: then the first is out of date.
                if !mark(linear, dirty: access.isWrite), patience > 0 {
                    patience &-= 1
                    continue
                }
            }
            let isDirty = access.isWrite || walk.rights & Entry.dirty != 0
            if walk.isLarge { noteLarge(linear, global: walk.isGlobal && !access.isUser) }
            // A protection key may allow reading alone: then a write is to come here again.
            let keyAllows = access.isWrite || s.cr4 & CR4.pke == 0
            enter(linear, walk.physical, writable: writable && isDirty && keyAllows, executable: executable, access, global: walk.isGlobal)
            return walk.physical
        }
    }

    /// Enters a translation where it leads to RAM.
    @inline(__always)
    private func enter(
        _ linear: UInt64, _ physical: UInt64, writable: Bool, executable: Bool, _ access: PageAccess, global: Bool
    ) {
        let frame = physical & TLB.pageMask
        guard let page = ramPage(frame), frame != s.apicPage else { return }
        let isCode = Host.load(UInt8.self, s.codeOwners &+ UInt(page)) != 0
        fill(
            linear, host: ram(frame), write: writable && !isCode, execute: executable, user: access.isUser, global: global)
    }

    private func pageFault(_ linear: UInt64, _ access: PageAccess, _ cause: UInt64) -> Fault {
        s.cr2 = linear
        var code = Int32(truncatingIfNeeded: cause)
        if access.isWrite { code |= 2 }
        if access.isUser { code |= 4 }
        let tellsFetch = s.efer & EFER.nxe != 0 && s.cr4 & CR4.pae != 0 || s.cr4 & CR4.smep != 0
        if access.isFetch, tellsFetch { code |= 16 }
        return Fault(vector: 14, code: code)
    }

    /// SMAP and protection keys: what only the vCPUs of rescues have.
    /// Source: [SDM3 §4.6.1] supervisor-mode accesses to user pages, [SDM3 §4.6.2] protection keys.
    @inline(never)
    private func checkUserPage(_ linear: UInt64, _ access: PageAccess, key: UInt32) throws(Fault) {
        // At CPL 3 a supervisor access is one that the processor makes for itself, which AC does not free.
        if s.cr4 & CR4.smap != 0, !access.isUser, s.cpl == 3 || s.flags & RFLAGS.ac == 0 {
            throw pageFault(linear, access, Entry.present)
        }
        guard s.cr4 & CR4.pke != 0, isLongMode else { return }
        let rights = s.pkru &>> (key &* 2)
        let isDenied = rights & 1 != 0 || access.isWrite && rights & 2 != 0 && (access.isUser || s.cr0 & CR0.wp != 0)
        if isDenied { throw pageFault(linear, access, Entry.present | 32) }
    }

    private func walk(_ linear: UInt64, _ access: PageAccess) throws(Fault) -> Walk {
        if isLongMode { return try walkLong(linear, access, table: s.cr3 & Entry.frame, levels: 4) }
        if s.cr4 & CR4.pae != 0 {
            let pointer = pdpte(linear)
            guard pointer & Entry.present != 0 else { throw pageFault(linear, access, 0) }
            return try walkLong(linear, access, table: pointer & Entry.frame, levels: 2)
        }
        return try walk32(linear, access)
    }

    private func pdpte(_ linear: UInt64) -> UInt64 {
        switch linear &>> 30 & 3 {
        case 0: s.pdpte.0
        case 1: s.pdpte.1
        case 2: s.pdpte.2
        default: s.pdpte.3
        }
    }

    private func walkLong(
        _ linear: UInt64, _ access: PageAccess, table: UInt64, levels: UInt64
    ) throws(Fault) -> Walk {
        var walk = Walk()
        var table = table
        var level = levels
        let reserved = s.reservedPhysical | (s.efer & EFER.nxe == 0 ? Entry.noExecute : 0)
        while true {
            let shift = 3 &+ level &* 9
            let entry = readPhysical(table &+ (linear &>> shift & 0x1FF) &* 8)
            guard entry & Entry.present != 0 else { throw pageFault(linear, access, 0) }
            let isLeaf = level == 1 || entry & Entry.large != 0
            let offset = (1 &<< shift) &- 1 as UInt64
            var forbidden = reserved
            // Bit 7 is reserved where no large page is possible; below a large page's frame bits 13 and up are.
            if level == 4 || (level == 3 && levels != 4) { forbidden |= Entry.large }
            if isLeaf, level > 1 { forbidden |= offset & ~0x1FFF }
            // Outside long mode the high word has no software bits.
            if levels == 2 { forbidden |= 0x7FF0_0000_0000_0000 }
            if entry & forbidden != 0 { throw pageFault(linear, access, Entry.present | 8) }
            walk.noExecute = walk.noExecute || entry & Entry.noExecute != 0
            if isLeaf {
                walk.rights &= entry
                walk.key = UInt32(truncatingIfNeeded: entry &>> 59) & 15
                walk.physical = entry & Entry.frame & ~offset | linear & offset
                walk.isLarge = level > 1
                walk.isGlobal = entry & Entry.global != 0 && s.cr4 & CR4.pge != 0
                return walk
            }
            walk.rights &= entry | Entry.dirty
            table = entry & Entry.frame
            level &-= 1
        }
    }

    private func walk32(_ linear: UInt64, _ access: PageAccess) throws(Fault) -> Walk {
        var walk = Walk()
        let directory = readPhysical32((s.cr3 & 0xFFFF_F000) &+ (linear &>> 22 & 0x3FF) &* 4)
        guard directory & Entry.present != 0 else { throw pageFault(linear, access, 0) }
        if directory & Entry.large != 0, s.cr4 & CR4.pse != 0 {
            // PSE-36: bits 20-13 are address bits 39-32; bit 21 is reserved.
            if directory & 1 << 21 != 0 { throw pageFault(linear, access, Entry.present | 8) }
            walk.rights &= directory
            walk.physical = (directory &>> 13 & 0xFF) &<< 32 | directory & 0xFFC0_0000 | linear & 0x3F_FFFF
            walk.isLarge = true
            walk.isGlobal = directory & Entry.global != 0 && s.cr4 & CR4.pge != 0
            return walk
        }
        let page = readPhysical32((directory & 0xFFFF_F000) &+ (linear &>> 12 & 0x3FF) &* 4)
        guard page & Entry.present != 0 else { throw pageFault(linear, access, 0) }
        walk.rights &= page & (directory | Entry.dirty)
        walk.physical = page & 0xFFFF_F000 | linear & 0xFFF
        walk.isGlobal = page & Entry.global != 0 && s.cr4 & CR4.pge != 0
        return walk
    }

    /// Sets A at every level, and D in the leaf. Bus-locked, as the processor does it.
    /// - Returns: false where an entry changed meanwhile.
    private func mark(_ linear: UInt64, dirty: Bool) -> Bool {
        if !isLongMode, s.cr4 & CR4.pae == 0 { return mark32(linear, dirty: dirty) }
        var table = isLongMode ? s.cr3 & Entry.frame : pdpte(linear) & Entry.frame
        var level: UInt64 = isLongMode ? 4 : 2
        while true {
            let at = table &+ (linear &>> (3 &+ level &* 9) & 0x1FF) &* 8
            let entry = readPhysical(at)
            guard entry & Entry.present != 0 else { return false }
            let isLeaf = level == 1 || entry & Entry.large != 0
            let wanted = entry | Entry.accessed | (isLeaf && dirty ? Entry.dirty : 0)
            if wanted != entry {
                // Tables in device space or nowhere keep no bits.
                let host = ram(at)
                if host != 0 {
                    guard chost_compare_exchange64(host, entry, wanted) == entry else { return false }
                    storedPhysical(at, 8)
                }
            }
            if isLeaf { return true }
            table = entry & Entry.frame
            level &-= 1
        }
    }

    private func mark32(_ linear: UInt64, dirty: Bool) -> Bool {
        var at = (s.cr3 & 0xFFFF_F000) &+ (linear &>> 22 & 0x3FF) &* 4
        var isLeaf = false
        while true {
            let entry = readPhysical32(at)
            guard entry & Entry.present != 0 else { return false }
            if !isLeaf, entry & Entry.large != 0, s.cr4 & CR4.pse != 0 { isLeaf = true }
            let wanted = entry | Entry.accessed | (isLeaf && dirty ? Entry.dirty : 0)
            if wanted != entry {
                let host = ram(at)
                if host != 0 {
                    let old = UInt32(truncatingIfNeeded: entry)
                    guard chost_compare_exchange32(host, old, UInt32(truncatingIfNeeded: wanted)) == old else { return false }
                    storedPhysical(at, 4)
                }
            }
            if isLeaf { return true }
            at = (entry & 0xFFFF_F000) &+ (linear &>> 12 & 0x3FF) &* 4
            isLeaf = true
        }
    }

    /// Eight bytes at a multiple of 8: a page-table entry. What is not RAM reads as the bus has it.
    @inline(__always) func readPhysical(_ physical: UInt64) -> UInt64 {
        let host = ram(physical)
        return host != 0 ? Host.load(UInt64.self, host) : readDevice(physical, 8)
    }

    @inline(__always) func readPhysical32(_ physical: UInt64) -> UInt64 {
        let host = ram(physical)
        return host != 0 ? UInt64(Host.load(UInt32.self, host)) : readDevice(physical, 4)
    }

    /// Loads PAE's four pointers from where CR3 says. Source: [SDM3 §4.4.1].
    /// - Returns: false where one has reserved bits set: #GP.
    func loadPDPTEs(_ cr3: UInt64) -> Bool {
        let table = cr3 & 0xFFFF_FFE0
        let entries = (
            readPhysical(table), readPhysical(table &+ 8), readPhysical(table &+ 16), readPhysical(table &+ 24)
        )
        let reserved: UInt64 = s.reservedPhysical | 0xFFF0_0000_0000_01E6
        func isBad(_ entry: UInt64) -> Bool { entry & 1 != 0 && entry & reserved != 0 }
        if isBad(entries.0) || isBad(entries.1) || isBad(entries.2) || isBad(entries.3) { return false }
        s.pdpte = entries
        return true
    }
}
