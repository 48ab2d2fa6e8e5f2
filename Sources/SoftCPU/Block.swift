internal import CHost
internal import Glibc
internal import Synchronization
internal import VMCore

/// A decoded run of instructions: a header, then operations.
///
/// It ends at a branch, at the page's end, or when it is long enough. Its key is all that its operations were made for:
/// the physical and linear address of its first byte, the instruction pointer, and the mode.
@safe struct Block: BitwiseCopyable {
    let address: UInt
    @inline(__always) init(_ address: UInt) { self.address = address }

    static var headerSize: UInt { 64 }
    /// Instructions at most.
    static var longest: Int { 40 }

    struct Header: BitwiseCopyable {
        var rip: UInt64 = 0
        var linear: UInt64 = 0
        var physical: UInt64 = 0
        /// `Registers.generation` when the translation of `linear` to `physical` was last seen to hold. While they are
        /// equal the block may be entered by a link with no look at the page tables.
        var generation: UInt64 = 0
        var mode: UInt32 = 0
        /// Instructions in it.
        var count: UInt32 = 0
        /// The next in the hash chain, and of the same physical page.
        var next: UInt = 0
        var nextOnPage: UInt = 0
        /// Of an instruction across two pages, which is a block by itself: the physical address of its second page, else ~0.
        /// In a `stub`, the block it stands for.
        var second: UInt64 = ~0
    }

    /// What `physical` is of a header that stands in a second page's list for a block across two pages.
    static var stub: UInt64 { ~1 }

    @inline(__always) var h: Header {
        unsafeAddress { unsafe UnsafePointer(bitPattern: address).unsafelyUnwrapped }
        nonmutating unsafeMutableAddress { unsafe UnsafeMutablePointer(bitPattern: address).unsafelyUnwrapped }
    }

    @inline(__always) var firstOp: UInt { address &+ Block.headerSize }
}

/// Memory for a vCPU's blocks. When it is full, all are dropped: what is in use comes back soon.
@safe final class BlockCache {
    static var arenaSize: UInt64 { 40 << 20 }
    /// About as many as the arena has room for blocks: a step along a chain is a miss of the host's caches.
    static var bucketBits: UInt64 { 17 }
    static var buckets: UInt64 { 1 << bucketBits }

    let arena: UInt
    let hash: UInt
    let pageHeads: UInt
    let pages: UInt64

    init(pages: UInt64) throws(EngineError) {
        self.pages = pages
        arena = CodePages.allocate(Self.arenaSize)
        hash = CodePages.allocate(Self.buckets &* 8)
        pageHeads = CodePages.allocate(pages &* 8)
        guard arena != 0, hash != 0, pageHeads != 0 else { throw .host(call: "mmap of the block cache", errno: 12) }
    }

    deinit {
        _ = unsafe munmap(UnsafeMutableRawPointer(bitPattern: arena), Int(Self.arenaSize))
        _ = unsafe munmap(UnsafeMutableRawPointer(bitPattern: hash), Int(Self.buckets &* 8))
        _ = unsafe munmap(UnsafeMutableRawPointer(bitPattern: pageHeads), Int(pages &* 8))
    }
}

extension CPU {
    /// By both addresses: a program that is run again and again is at other linear addresses each time, and the blocks of all its runs
    /// would be one chain.
    @inline(__always) func bucket(_ physical: UInt64, _ linear: UInt64) -> UInt {
        let mixed = ((physical ^ linear &<< 20) &* 0x9E37_79B9_7F4A_7C15) &>> (64 &- BlockCache.bucketBits)
        return s.blockHash &+ UInt(truncatingIfNeeded: mixed) &* 8
    }

    @inline(__always) func jumpSlot(_ linear: UInt64) -> UInt {
        address &+ Layout.jumpCache &+ UInt(truncatingIfNeeded: (linear ^ linear &>> 12) & UInt64(Layout.jumpCacheEntries &- 1)) &* 8
    }

    /// Room for a block's header and operations; drops all blocks where there is none.
    func reserveBlock(_ size: UInt) -> UInt {
        if s.arenaNext &+ size > s.arenaEnd { dropAllBlocks() }
        return s.arenaNext
    }

    func dropAllBlocks() {
        let cache = vcpu.blocks
        chost_store_bytes(cache.hash, 0, BlockCache.buckets &* 8)
        chost_store_bytes(address &+ Layout.jumpCache, 0, UInt64(Layout.jumpCacheEntries &* 8))
        for page in 0..<UInt(cache.pages) where Host.load(UInt.self, cache.pageHeads &+ page &* 8) != 0 {
            Host.store(0 as UInt, cache.pageHeads &+ page &* 8)
            _ = releaseCode(page: UInt64(page))
        }
        s.arenaNext = cache.arena
        s.block = 0
        s.link = 0
    }

    /// Puts a block that was just made where it is found.
    func register(_ block: Block, page: UInt64) {
        let head = bucket(block.h.physical, block.h.linear)
        block.h.next = Host.load(UInt.self, head)
        Host.store(block.address, head)
        list(block, page: page)
    }

    /// Puts a block, or a stub of one, on its page's list.
    func list(_ block: Block, page: UInt64) {
        let list = s.blockPageHeads &+ UInt(page) &* 8
        block.h.nextOnPage = Host.load(UInt.self, list)
        Host.store(block.address, list)
    }

    /// Marks bytes of a page as code. To be called before they are decoded: whoever writes to them looks at the marks
    /// afterwards, so that either the writer sees the mark or the decoder what was written.
    ///
    /// - Parameters:
    ///   - first: the first byte's offset in the page; `last`: the last one's.
    ///   - marked: what was marked before for the same block, a bit for each 128 bytes.
    @inline(__always) func markCode(page: UInt64, first: UInt64, last: UInt64, _ marked: inout UInt32) {
        let bits = CodePages.chunks(first, last)
        guard bits & ~marked != 0 else { return }
        marked |= bits
        let owners = Host.load(UInt8.self, s.codeOwners &+ UInt(page))
        // The eighth bit stands for many, one of whom may still wait for write tags to go.
        if owners & s.codeBit != 0, s.codeBit != 0x80, chost_load32(s.codeChunks &+ UInt(page) &* 4) & bits == bits { return }
        markCodeSlow(page, bits)
    }

    @inline(never)
    private func markCodeSlow(_ page: UInt64, _ bits: UInt32) {
        let pages = vcpu.engine.codePages
        guard vcpu.engine.vcpuCount > 1 else {
            if pages.mark(page, owner: s.codeBit, bits) == 0 { dropWriteTags() }
            return
        }
        pages.marksUnderWay.wrappingAdd(1, ordering: .sequentiallyConsistent)
        if pages.mark(page, owner: s.codeBit, bits) == 0 {
            dropWriteTags()
            dropWriteTagsElsewhere()
            pages.marksUnderWay.wrappingSubtract(1, ordering: .sequentiallyConsistent)
        } else {
            pages.marksUnderWay.wrappingSubtract(1, ordering: .sequentiallyConsistent)
            // The one who marked the page first may still wait for write tags to go.
            while pages.marksUnderWay.load(ordering: .sequentiallyConsistent) != 0 {
                takeTranslations()
                sched_yield()
            }
        }
    }

    /// - Returns: whether other vCPUs may hold blocks of the page.
    func releaseCode(page: UInt64) -> Bool {
        // The eighth bit stands for many: whether it may go nobody knows.
        if s.codeBit == 0x80, vcpu.engine.vcpuCount > 8 { return true }
        return vcpu.engine.codePages.release(page, owner: s.codeBit) != 0
    }

    private func takeTranslations() {
        if vcpu.attention.bits.contains(.translations) {
            _ = vcpu.attention.take(.translations)
            dropWriteTags()
        }
    }

    // MARK: Stores to code

    /// After a store to RAM that did not go through the TLB's write tags.
    @inline(__always) func storedPhysical(_ physical: UInt64, _ size: Int) {
        guard let page = ramPage(physical), Host.load(UInt8.self, s.codeOwners &+ UInt(page)) != 0 else { return }
        codeWritten(page, physical & 0xFFF, size)
        let last = physical &+ UInt64(truncatingIfNeeded: size &- 1)
        if last &>> 12 != physical &>> 12, let next = ramPage(last) { codeWritten(next, 0, Int(truncatingIfNeeded: last & 0xFFF) &+ 1) }
    }

    /// Drops this vCPU's blocks of a page where the bytes written are some block's, and tells the others.
    @inline(never)
    func codeWritten(_ page: UInt64, _ offset: UInt64, _ size: Int) {
        let bits = CodePages.chunks(offset, offset &+ UInt64(truncatingIfNeeded: max(size, 1) &- 1))
        // First the store, then the look at the marks: who decodes does it the other way round.
        chost_fence()
        guard chost_load32(s.codeChunks &+ UInt(page) &* 4) & bits != 0 else { return }
        dropBlocks(onPage: page)
        if releaseCode(page: page) { vcpu.engine.codePages.changed(page, by: vcpu.index) }
    }

    func dropBlocks(onPage page: UInt64) {
        let list = s.blockPageHeads &+ UInt(page) &* 8
        var at = Host.load(UInt.self, list)
        Host.store(0 as UInt, list)
        while at != 0 {
            var block = Block(at)
            at = block.h.nextOnPage
            if block.h.physical == Block.stub { block = Block(UInt(truncatingIfNeeded: block.h.second)) }
            unlink(block)
            block.h.generation = 0
            // Links that lead here come to this handler.
            Op(block.firstOp).setHandler(Handlers.stale)
            if block.address == s.block { s.codeChanged = 1 }
        }
        s.link = 0
    }

    private func unlink(_ block: Block) {
        let head = bucket(block.h.physical, block.h.linear)
        var at = Host.load(UInt.self, head)
        if at == block.address { return Host.store(block.h.next, head) }
        while at != 0 {
            let other = Block(at)
            if other.h.next == block.address {
                other.h.next = block.h.next
                return
            }
            at = other.h.next
        }
    }

    /// The other vCPUs must not go on storing past the new mark: waits until each has dropped its write tags, or does
    /// not run. Serves what they ask meanwhile, so that two that wait for each other both go on.
    private func dropWriteTagsElsewhere() {
        let vcpu = self.vcpu
        for attention in vcpu.engine.attentions where attention !== vcpu.attention { attention.raise(.translations) }
        for attention in vcpu.engine.attentions where attention !== vcpu.attention {
            while true {
                let bits = attention.bits
                if !bits.contains(.translations) || !bits.isDisjoint(with: [.sleeping, .outside]) { break }
                takeTranslations()
                sched_yield()
            }
        }
    }
}
