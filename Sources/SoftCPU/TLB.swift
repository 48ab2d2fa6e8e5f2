internal import CHost

/// Translations from linear pages to host memory: one table for supervisor and one for user accesses, each direct-mapped,
/// with a few places behind it for what others have displaced.
///
/// An entry is four words: the linear page if it may be read, the same if it may be written by a plain store (writable,
/// dirty, RAM, and no vCPU's code), the same if it may be executed, and what to add to a linear address to get the host's.
/// A word that does not apply is ~0, which no page equals. Devices are never entered; what is entered may be read.
///
/// An access compares the page of its *last* byte with the entry of its *first* byte's page, so that one comparison sees
/// both the miss and the page crossing: neighbouring pages never share an entry.
enum TLB {
    static var entryCount: UInt { 1024 }
    /// The displaced ones, behind the table. They are looked at when the table's entry is another page's.
    static var victimCount: UInt { 8 }
    static var entrySize: UInt { 32 }
    static var pageMask: UInt64 { ~0xFFF }
    /// Entries that a load of CR3 drops are written down, so that it need not look at all. More than so many are all.
    static var logLength: UInt32 { 512 }
    /// Regions of 1 GiB with large pages in them that are told apart.
    static var largeRegions: UInt32 { 8 }

    /// The entry's offset in its table.
    @inline(__always) static func offset(_ linear: UInt64) -> UInt { UInt(truncatingIfNeeded: linear &>> 7) & 0x7FE0 }
}

extension CPU {
    /// What the TLB knows of an operand. Two members, so that a handler that was inlined branches once.
    struct Reached {
        var isKnown: Bool
        var host: UInt
    }

    /// Where to read `T` at `linear`, for handlers.
    @inline(__always) func reachRead<T>(_: T.Type, _ linear: UInt64) -> Reached {
        let entry = s.tlb &+ TLB.offset(linear)
        let last = linear &+ UInt64(truncatingIfNeeded: MemoryLayout<T>.size &- 1)
        guard last & TLB.pageMask == Host.load(UInt64.self, entry) else { return Reached(isKnown: false, host: 0) }
        return Reached(isKnown: true, host: UInt(truncatingIfNeeded: linear &+ Host.load(UInt64.self, entry &+ 24)))
    }

    /// Where to write `T` at `linear` by a plain store, for handlers.
    @inline(__always) func reachWrite<T>(_: T.Type, _ linear: UInt64) -> Reached {
        let entry = s.tlb &+ TLB.offset(linear)
        let last = linear &+ UInt64(truncatingIfNeeded: MemoryLayout<T>.size &- 1)
        guard last & TLB.pageMask == Host.load(UInt64.self, entry &+ 8) else { return Reached(isKnown: false, host: 0) }
        return Reached(isKnown: true, host: UInt(truncatingIfNeeded: linear &+ Host.load(UInt64.self, entry &+ 24)))
    }

    /// The host address for reading `T` at `linear`; 0 where the TLB does not know.
    @inline(__always) func fastRead<T: FixedWidthInteger>(_: T.Type, _ linear: UInt64) -> UInt {
        let entry = s.tlb &+ TLB.offset(linear)
        let last = linear &+ UInt64(truncatingIfNeeded: MemoryLayout<T>.size &- 1)
        guard last & TLB.pageMask == Host.load(UInt64.self, entry) else { return 0 }
        return UInt(truncatingIfNeeded: linear &+ Host.load(UInt64.self, entry &+ 24))
    }

    /// The host address for writing `T` at `linear`; 0 where a plain store will not do.
    @inline(__always) func fastWrite<T: FixedWidthInteger>(_: T.Type, _ linear: UInt64) -> UInt {
        let entry = s.tlb &+ TLB.offset(linear)
        let last = linear &+ UInt64(truncatingIfNeeded: MemoryLayout<T>.size &- 1)
        guard last & TLB.pageMask == Host.load(UInt64.self, entry &+ 8) else { return 0 }
        return UInt(truncatingIfNeeded: linear &+ Host.load(UInt64.self, entry &+ 24))
    }

    /// Enters a page that was found. `host` is its RAM.
    func fill(_ linear: UInt64, host: UInt, write: Bool, execute: Bool, user: Bool, global: Bool) {
        let table = address &+ (user ? Layout.userTLB : Layout.tlb)
        let offset = TLB.offset(linear)
        let entry = table &+ offset
        let page = linear & TLB.pageMask
        let before = Host.load(UInt64.self, entry)
        if before != ~0, before != page {
            Host.store(Host.load(Words.self, entry), victims(table) &+ UInt(s.nextVictim) &* TLB.entrySize)
            s.nextVictim = (s.nextVictim &+ 1) & UInt32(TLB.victimCount &- 1)
        }
        if user {
            log(&s.userLog, Layout.userLog, offset)
        } else if !global {
            log(&s.kernelLog, Layout.kernelLog, offset)
            if execute { s.localKernelCode = 1 }
        }
        Host.store(Words(page, write ? page : ~0, execute ? page : ~0, UInt64(host) &- page), entry)
    }

    private typealias Words = SIMD4<UInt64>

    @inline(__always) private func log(_ count: inout UInt32, _ log: UInt, _ offset: UInt) {
        if count < TLB.logLength { Host.store(UInt16(truncatingIfNeeded: offset), address &+ log &+ UInt(count) &* 2) }
        if count <= TLB.logLength { count &+= 1 }
    }

    @inline(__always) private func victims(_ table: UInt) -> UInt { table &+ TLB.entryCount &* TLB.entrySize }

    /// Puts a page that was displaced back in its place, and what is there in its stead.
    /// - Returns: false where it is not among the displaced ones, or may not be used so.
    func recall(_ linear: UInt64, isWrite: Bool) -> Bool {
        let page = linear & TLB.pageMask
        let entry = s.tlb &+ TLB.offset(linear)
        var victim = victims(s.tlb)
        for _ in 0..<TLB.victimCount {
            if Host.load(UInt64.self, victim &+ (isWrite ? 8 : 0)) == page {
                let words = Host.load(Words.self, victim)
                Host.store(Host.load(Words.self, entry), victim)
                Host.store(words, entry)
                return true
            }
            victim &+= TLB.entrySize
        }
        return false
    }

    /// Notes that pages of more than 4 KiB are entered near `linear`. Global ones have a list of their own, which lasts longer.
    func noteLarge(_ linear: UInt64, global: Bool) {
        if global { note(linear &>> 30, &s.globalLarge, Layout.globalLarge) } else { note(linear &>> 30, &s.localLarge, Layout.localLarge) }
    }

    private func note(_ region: UInt64, _ count: inout UInt32, _ list: UInt) {
        if count > TLB.largeRegions || has(region, count, list) { return }
        if count < TLB.largeRegions { Host.store(region, address &+ list &+ UInt(count) &* 8) }
        count &+= 1
    }

    private func has(_ region: UInt64, _ count: UInt32, _ list: UInt) -> Bool {
        for index in 0..<UInt(count) where Host.load(UInt64.self, address &+ list &+ index &* 8) == region { return true }
        return false
    }

    private func isNearLarge(_ linear: UInt64) -> Bool {
        if s.globalLarge > TLB.largeRegions || s.localLarge > TLB.largeRegions { return true }
        let region = linear &>> 30
        return has(region, s.globalLarge, Layout.globalLarge) || has(region, s.localLarge, Layout.localLarge)
    }

    // MARK: Dropping translations

    /// Drops every translation.
    func flushTLB() {
        chost_store_bytes(UInt(address &+ Layout.tlb), 0xFF, UInt64(Layout.tlbBytes &* 2))
        s.globalLarge = 0
        s.localLarge = 0
        s.userLog = 0
        s.kernelLog = 0
        s.localKernelCode = 0
        translationsChanged(kernel: true)
        forgetCodePages()
    }

    /// A load of CR3: drops all that is not global. User pages count as not global.
    func flushNonGlobal() {
        flushLogged(&s.userLog, Layout.userLog, address &+ Layout.userTLB)
        flushLogged(&s.kernelLog, Layout.kernelLog, address &+ Layout.tlb)
        translationsChanged(kernel: s.localKernelCode != 0)
        s.localKernelCode = 0
        s.localLarge = 0
    }

    private func flushLogged(_ count: inout UInt32, _ log: UInt, _ table: UInt) {
        if count > TLB.logLength {
            chost_store_bytes(table, 0xFF, UInt64(Layout.tlbBytes))
        } else if count != 0 {
            for index in 0..<UInt(count) {
                let entry = table &+ UInt(Host.load(UInt16.self, address &+ log &+ index &* 2))
                Host.store(Words(repeating: ~0), entry)
            }
            chost_store_bytes(victims(table), 0xFF, UInt64(TLB.victimCount &* TLB.entrySize))
        }
        count = 0
    }

    /// INVLPG: drops what is known of one page, in both tables.
    func flushPage(_ linear: UInt64) {
        // An entry of 4 KiB does not tell how large its page is: all that may be parts of the same go.
        let isLarge = isNearLarge(linear)
        let shift: UInt64 = isLarge ? 30 : 12
        for user in 0..<2 as Range<UInt> {
            let table = address &+ Layout.tlb &+ user &* Layout.tlbBytes
            if !isLarge { flushEntry(table &+ TLB.offset(linear), linear, shift) }
            var entry = isLarge ? table : victims(table)
            while entry < table &+ Layout.tlbBytes {
                flushEntry(entry, linear, shift)
                entry &+= TLB.entrySize
            }
        }
        if isLarge || hasCode(linear) {
            translationsChanged(kernel: true)
            forgetCodePages()
        }
    }

    @inline(__always) private func flushEntry(_ entry: UInt, _ linear: UInt64, _ shift: UInt64) {
        if (Host.load(UInt64.self, entry) ^ linear) &>> shift == 0 { Host.store(Words(repeating: ~0), entry) }
    }

    // MARK: Blocks and translations

    /// From now on no block's translation is known to hold: user code's, and with `kernel` supervisor code's too.
    private func translationsChanged(kernel: Bool) {
        s.userGeneration &+= 1
        if kernel { s.kernelGeneration &+= 1 }
        refreshGeneration()
    }

    /// Which of the two counts, by the mode.
    @inline(__always) func refreshGeneration() {
        s.generation = s.mode & Mode.user != 0 ? s.userGeneration : s.kernelGeneration
    }

    /// Notes that a block's translation was seen to hold, for INVLPG: one bit for all pages whose numbers are alike.
    @inline(__always) func noteCode(_ linear: UInt64) {
        let bit = (linear &>> 12) ^ (linear &>> 24)
        let word = address &+ Layout.codePages &+ UInt(truncatingIfNeeded: bit &>> 6 & 63) &* 8
        Host.store(Host.load(UInt64.self, word) | 1 &<< (bit & 63), word)
    }

    private func hasCode(_ linear: UInt64) -> Bool {
        let bit = (linear &>> 12) ^ (linear &>> 24)
        let word = address &+ Layout.codePages &+ UInt(truncatingIfNeeded: bit &>> 6 & 63) &* 8
        return Host.load(UInt64.self, word) &>> (bit & 63) & 1 != 0
    }

    private func forgetCodePages() { chost_store_bytes(address &+ Layout.codePages, 0, 512) }

    /// Takes the right to store without a closer look from every entry: a page has become code.
    func dropWriteTags() {
        var entry = address &+ Layout.tlb
        let end = entry &+ Layout.tlbBytes &* 2
        while entry < end {
            Host.store(~0 as UInt64, entry &+ 8)
            entry &+= TLB.entrySize
        }
    }
}
