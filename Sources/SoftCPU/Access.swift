internal import CHost
internal import VMCore

/// Memory accesses of the general path: any size, any place. Linear addresses; segments are `Segmentation.swift`'s.
extension CPU {
    @inline(__always) var isUser: Bool { s.cpl == 3 }

    /// Reads 1, 2, 4 or 8 bytes.
    @inline(__always) func load(_ linear: UInt64, _ size: Int, user: Bool) throws(Fault) -> UInt64 {
        if user == isUser {
            switch size {
            case 1:
                let host = fastRead(UInt8.self, linear)
                if host != 0 { return UInt64(Host.load(UInt8.self, host)) }
            case 2:
                let host = fastRead(UInt16.self, linear)
                if host != 0 { return UInt64(Host.load(UInt16.self, host)) }
            case 4:
                let host = fastRead(UInt32.self, linear)
                if host != 0 { return UInt64(Host.load(UInt32.self, host)) }
            default:
                let host = fastRead(UInt64.self, linear)
                if host != 0 { return Host.load(UInt64.self, host) }
            }
        }
        return try loadSlow(linear, size, user: user)
    }

    /// Writes 1, 2, 4 or 8 bytes.
    @inline(__always) func store(_ linear: UInt64, _ size: Int, _ value: UInt64, user: Bool) throws(Fault) {
        if user == isUser {
            switch size {
            case 1:
                let host = fastWrite(UInt8.self, linear)
                if host != 0 { return Host.store(UInt8(truncatingIfNeeded: value), host) }
            case 2:
                let host = fastWrite(UInt16.self, linear)
                if host != 0 { return Host.store(UInt16(truncatingIfNeeded: value), host) }
            case 4:
                let host = fastWrite(UInt32.self, linear)
                if host != 0 { return Host.store(UInt32(truncatingIfNeeded: value), host) }
            default:
                let host = fastWrite(UInt64.self, linear)
                if host != 0 { return Host.store(value, host) }
            }
        }
        try storeSlow(linear, size, value, user: user)
    }

    /// Bytes from `linear` to the end of its page.
    @inline(__always) func bytesInPage(_ linear: UInt64) -> Int { Int(truncatingIfNeeded: 0x1000 &- (linear & 0xFFF)) }

    /// The next page's linear address, cut to 32 bits outside 64-bit mode.
    @inline(__always) func wrapped(_ linear: UInt64) -> UInt64 { isLongMode ? linear : linear & 0xFFFF_FFFF }

    @inline(never)
    func loadSlow(_ linear: UInt64, _ size: Int, user: Bool) throws(Fault) -> UInt64 {
        if user { try checkAlignment(linear, size) }
        noteData(linear, size, isWrite: false)
        let access = PageAccess(isUser: user)
        let first = bytesInPage(linear)
        if size <= first { return readPhysical(try translate(linear, access), size) }
        let low = try translate(linear, access)
        let high = try translate(wrapped(linear &+ UInt64(truncatingIfNeeded: first)), access)
        let value = readPhysical(low, first)
        return value | readPhysical(high, size &- first) &<< UInt64(truncatingIfNeeded: first &* 8)
    }

    @inline(never)
    func storeSlow(_ linear: UInt64, _ size: Int, _ value: UInt64, user: Bool) throws(Fault) {
        if user { try checkAlignment(linear, size) }
        noteData(linear, size, isWrite: true)
        let access = PageAccess(isWrite: true, isUser: user)
        let first = bytesInPage(linear)
        if size <= first { return writePhysical(try translate(linear, access), size, value) }
        let low = try translate(linear, access)
        let high = try translate(wrapped(linear &+ UInt64(truncatingIfNeeded: first)), access)
        writePhysical(low, first, value)
        writePhysical(high, size &- first, value &>> UInt64(truncatingIfNeeded: first &* 8))
    }

    /// Whether all of `size` bytes could be written, before anything is: read-modify-write instructions fault first.
    @inline(__always) func probeWrite(_ linear: UInt64, _ size: Int, user: Bool) throws(Fault) {
        if user == isUser, fastWrite(UInt8.self, linear) != 0, size <= bytesInPage(linear) { return }
        try probeWriteSlow(linear, size, user: user)
    }

    @inline(never)
    private func probeWriteSlow(_ linear: UInt64, _ size: Int, user: Bool) throws(Fault) {
        if user { try checkAlignment(linear, size) }
        let access = PageAccess(isWrite: true, isUser: user)
        _ = try translate(linear, access)
        let first = bytesInPage(linear)
        if size > first { _ = try translate(wrapped(linear &+ UInt64(truncatingIfNeeded: first)), access) }
    }

    /// The host address of `size` bytes of RAM that may be written, where they lie together; 0 for devices and where
    /// two pages are apart. After writing there, call `stored`.
    func hostForWrite(_ linear: UInt64, _ size: Int, user: Bool) throws(Fault) -> (host: UInt, physical: UInt64) {
        if user == isUser {
            // What may be stored to without a closer look is RAM and nobody's code.
            let entry = s.tlb &+ TLB.offset(linear)
            let last = linear &+ UInt64(truncatingIfNeeded: size &- 1)
            if last & TLB.pageMask == Host.load(UInt64.self, entry &+ 8) {
                let host = UInt(truncatingIfNeeded: linear &+ Host.load(UInt64.self, entry &+ 24))
                return (host, physical(ofRAM: host))
            }
        }
        if user { try checkAlignment(linear, size) }
        noteData(linear, size, isWrite: true)
        let access = PageAccess(isWrite: true, isUser: user)
        let physical = try translate(linear, access)
        let first = bytesInPage(linear)
        let host = ram(physical)
        if size > first {
            let high = try translate(wrapped(linear &+ UInt64(truncatingIfNeeded: first)), access)
            if ram(high) != host &+ UInt(bitPattern: first) { return (0, physical) }
        }
        if physical & TLB.pageMask == s.apicPage { return (0, physical) }
        return (host, physical)
    }

    // MARK: Physical

    func readPhysical(_ physical: UInt64, _ size: Int) -> UInt64 {
        let host = physical & TLB.pageMask == s.apicPage ? 0 : ram(physical)
        guard host != 0 else { return readDevice(physical, size) }
        switch size {
        case 1: return UInt64(Host.load(UInt8.self, host))
        case 2: return UInt64(Host.load(UInt16.self, host))
        case 4: return UInt64(Host.load(UInt32.self, host))
        case 8: return Host.load(UInt64.self, host)
        default:
            var value: UInt64 = 0
            for index in 0..<UInt(bitPattern: size) {
                value |= UInt64(Host.load(UInt8.self, host &+ index)) &<< UInt64(index &* 8)
            }
            return value
        }
    }

    func writePhysical(_ physical: UInt64, _ size: Int, _ value: UInt64) {
        let host = physical & TLB.pageMask == s.apicPage ? 0 : ram(physical)
        guard host != 0 else { return writeDevice(physical, size, value) }
        switch size {
        case 1: Host.store(UInt8(truncatingIfNeeded: value), host)
        case 2: Host.store(UInt16(truncatingIfNeeded: value), host)
        case 4: Host.store(UInt32(truncatingIfNeeded: value), host)
        case 8: Host.store(value, host)
        default:
            for index in 0..<UInt(bitPattern: size) {
                Host.store(UInt8(truncatingIfNeeded: value &>> UInt64(index &* 8)), host &+ index)
            }
        }
        storedPhysical(physical, size)
    }

    @inline(never)
    func readDevice(_ physical: UInt64, _ size: Int) -> UInt64 {
        let vcpu = self.vcpu
        if physical & TLB.pageMask == s.apicPage, let local = vcpu.local {
            return readLocalAPIC(local, physical & 0xFFF, size)
        }
        if s.rescuing != 0, refuseOwnDevice(physical) { return 0 }
        s.exitStatistics.memoryReads &+= 1
        return vcpu.mmio.read(physical, count: size)
    }

    @inline(never)
    func writeDevice(_ physical: UInt64, _ size: Int, _ value: UInt64) {
        let vcpu = self.vcpu
        if physical & TLB.pageMask == s.apicPage, let local = vcpu.local {
            // Only aligned 32-bit stores have a meaning. Source: [SDM3 §11.4.1].
            if physical & 0xF == 0 { local.write(offset: physical & 0xFF0, value: UInt32(truncatingIfNeeded: value)) }
            return
        }
        if s.rescuing != 0, refuseOwnDevice(physical) { return }
        s.exitStatistics.memoryWrites &+= 1
        vcpu.mmio.write(physical, count: size, value: size < 8 ? value & ((1 &<< UInt64(size &* 8)) &- 1) : value)
    }

    private func readLocalAPIC(_ local: any LocalInterruptController, _ offset: UInt64, _ size: Int) -> UInt64 {
        let word = UInt64(local.read(offset: offset & 0xFF0))
        let shift = (offset & 15) &* 8
        guard shift < 32 else { return 0 }
        let value = word &>> shift
        return size < 8 ? value & ((1 &<< UInt64(size &* 8)) &- 1) : value
    }

    // MARK: Alignment and breakpoints

    /// #AC. Source: [SDM3 §6.15, table 6-7].
    @inline(__always) private func checkAlignment(_ linear: UInt64, _ size: Int) throws(Fault) {
        if s.flags & RFLAGS.ac != 0, s.cr0 & CR0.am != 0, s.cpl == 3,
            linear & UInt64(truncatingIfNeeded: CPU.alignmentUnit(size) &- 1) != 0
        {
            throw .alignment
        }
    }

    /// What the address of an operand must be a multiple of: an x87 number, environments and states have a unit that is
    /// not their size.
    @inline(__always) static func alignmentUnit(_ size: Int) -> Int {
        switch size {
        case 10: 8
        case 14, 94: 2
        case 28, 108: 4
        case 512: 16
        default: size
        }
    }

    /// Notes data breakpoints that an access touches. Source: [SDM3 §18.2].
    @inline(__always) func noteData(_ linear: UInt64, _ size: Int, isWrite: Bool) {
        if s.dr7 & 0xFF != 0 { matchData(linear, size, isWrite: isWrite, isPort: false) }
    }

    /// Picks the TLB that accesses use and whether instructions go one at a time, after CPL, flags, CR0 or DR7 changed.
    func refreshAccessMode() {
        let aligned = s.cpl == 3 && s.flags & RFLAGS.ac != 0 && s.cr0 & CR0.am != 0
        let breakpoints = s.dr7 & 0xFF != 0
        let table = aligned || breakpoints ? Layout.emptyTLB : s.cpl == 3 ? Layout.userTLB : Layout.tlb
        s.tlb = address &+ table
        s.slow = breakpoints || s.flags & RFLAGS.tf != 0 ? 1 : 0
    }
}
