internal import CHost
internal import Glibc
internal import Synchronization
internal import VMCore

/// Which pages of guest RAM hold code that a vCPU has decoded: what stores must not pass by.
///
/// One byte a page, a bit for each vCPU (the eighth is shared by all from index 7 on), and one word a page with a bit for
/// each 128 bytes. Shared by the vCPUs of a machine; all changes are atomic.
///
/// What the monitor writes (a device's DMA, a loader) is seen too: `GuestMemory` tells, on the writer's thread, and every
/// vCPU drops its blocks of the page when it next looks at its attention word. The writer waits for none of them: what
/// tells the guest of the write, an interrupt or a ring's index, comes after it, and a processor that has seen that has
/// seen the attention word too.
@safe final class CodePages: GuestMemoryObserver {
    let lowPages: UInt64
    let pages: UInt64
    let owners: UInt
    let chunks: UInt
    /// Pages that others wrote to, one list a vCPU.
    let changes: Mutex<[CodeChanges]>
    /// How many vCPUs are marking pages: until each is through, stores to one of those pages may pass unseen.
    let marksUnderWay = Atomic<Int>(0)
    private let attentions: [Attention]
    private let lowSize: UInt64
    /// Several vCPUs: a page's marks may only go while no other makes new ones.
    private let marks = Mutex(())

    init(_ memory: GuestMemory, _ attentions: [Attention]) {
        self.attentions = attentions
        changes = Mutex(Array(repeating: CodeChanges(), count: attentions.count))
        lowSize = memory.regions.first?.count ?? 0
        lowPages = memory.regions.first.map { $0.count >> 12 } ?? 0
        pages = memory.size >> 12
        owners = CodePages.allocate(pages)
        chunks = CodePages.allocate(pages &* 4)
    }

    deinit {
        _ = unsafe munmap(UnsafeMutableRawPointer(bitPattern: owners), Int(pages))
        _ = unsafe munmap(UnsafeMutableRawPointer(bitPattern: chunks), Int(pages &* 4))
    }

    // MARK: Marks

    /// A bit for each 128 bytes from one offset in a page to another.
    @inline(__always) static func chunks(_ first: UInt64, _ last: UInt64) -> UInt32 {
        let first = min(first &>> 7, 31)
        let last = min(last &>> 7, 31)
        return (~0 as UInt32) &<< UInt32(first) & (~0 as UInt32) &>> UInt32(31 &- last)
    }

    /// - Returns: the owners there were before.
    func mark(_ page: UInt64, owner: UInt8, _ bits: UInt32) -> UInt8 {
        marks.withLock { _ in
            let before = chost_or8(owners &+ UInt(page), owner)
            _ = chost_or32(chunks &+ UInt(page) &* 4, bits)
            return before
        }
    }

    /// - Returns: the owners that are left.
    func release(_ page: UInt64, owner: UInt8) -> UInt8 {
        marks.withLock { _ in
            let left = chost_and8(owners &+ UInt(page), ~owner) & ~owner
            if left == 0 { _ = chost_and32(chunks &+ UInt(page) &* 4, 0) }
            return left
        }
    }

    // MARK: Writes

    /// Tells all vCPUs but one (-1 for none) that a page of code was written to.
    func changed(_ page: UInt64, by index: Int) {
        changes.withLock { changes in
            for other in changes.indices where other != index { changes[other].add(page) }
        }
        for other in attentions.indices where other != index { attentions[other].raise(.code) }
    }

    func memoryWritten(at address: GuestAddress, count: UInt64) {
        var at = address.rawValue
        var left = count
        while left > 0 {
            let part = min(left, 0x1000 &- (at & 0xFFF))
            guard let page = page(at) else { return }
            if chost_load8(owners &+ UInt(page)) != 0 {
                let bits = Self.chunks(at & 0xFFF, (at & 0xFFF) &+ (part &- 1))
                if chost_load32(chunks &+ UInt(page) &* 4) & bits != 0 { changed(page, by: -1) }
            }
            at = at &+ part
            left = left &- part
        }
    }

    private func page(_ physical: UInt64) -> UInt64? {
        if physical < lowSize { return physical &>> 12 }
        let number = (lowSize &+ (physical &- GuestMemory.holeEnd.rawValue)) &>> 12
        return physical >= GuestMemory.holeEnd.rawValue && number < pages ? number : nil
    }

    /// Zeroed address space; what is not touched costs nothing.
    static func allocate(_ bytes: UInt64) -> UInt {
        let mapped = unsafe mmap(
            nil, Int(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let mapped = unsafe mapped, unsafe mapped != MAP_FAILED else { return 0 }
        return UInt(bitPattern: mapped)
    }
}

extension CPU {
    /// The number of a page of RAM, counted without the hole; nil for addresses that are not RAM.
    @inline(__always) func ramPage(_ physical: UInt64) -> UInt64? {
        if physical < s.lowSize { return physical &>> 12 }
        let above = physical &- 0x1_0000_0000
        if above < s.highSize { return (s.lowSize &+ above) &>> 12 }
        return nil
    }

    /// The host address of a byte of RAM, 0 where there is none.
    @inline(__always) func ram(_ physical: UInt64) -> UInt {
        if physical < s.lowSize { return s.lowRAM &+ UInt(physical) }
        let above = physical &- 0x1_0000_0000
        if above < s.highSize { return s.highRAM &+ UInt(above) }
        return 0
    }
}

/// Pages of code that others wrote to, for one vCPU to take up. Bounded: too many are all.
struct CodeChanges: Sendable {
    private(set) var pages: [UInt64] = []
    private(set) var isAll = false

    mutating func add(_ page: UInt64) {
        if isAll || pages.last == page { return }
        if pages.count >= 64 {
            pages = []
            isAll = true
        } else {
            pages.append(page)
        }
    }
}
