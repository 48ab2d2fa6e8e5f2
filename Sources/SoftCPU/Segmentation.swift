internal import VMCore

/// Segments: from offset to linear address, and loading segment registers from descriptor tables.
///
/// Source: [SDM3 §3.4, §5].
extension CPU {
    /// The linear address of `size` bytes at `offset` in a segment, checked as a data access.
    @inline(__always)
    func linear(_ segment: Int, _ offset: UInt64, _ size: Int, write: Bool) throws(Fault) -> UInt64 {
        if is64 {
            let linear = segment >= SegmentIndex.fs ? segmentBase(segment) &+ offset : offset
            if !isCanonical(linear) || !isCanonical(linear &+ UInt64(truncatingIfNeeded: size &- 1)) {
                throw segment == SegmentIndex.ss ? .stack : .protection
            }
            return linear
        }
        return try linearSegmented(segment, offset, size, write: write)
    }

    @inline(__always) func isCanonical(_ linear: UInt64) -> Bool {
        let sign = Int64(bitPattern: linear) &>> 47
        return sign == 0 || sign == -1
    }

    @inline(never)
    func linearSegmented(_ number: Int, _ offset: UInt64, _ size: Int, write: Bool) throws(Fault) -> UInt64 {
        let segment = segment(number)
        let fault = number == SegmentIndex.ss ? Fault.stack : .protection
        if !isReal {
            if segment.isUnusable { throw fault }
            if write {
                // Writable data only.
                if segment.attributes & 0x1A != 0x12 { throw fault }
            } else if segment.attributes & 0x1A == 0x18 {
                // Execute-only code.
                throw fault
            }
        }
        let last = offset &+ UInt64(truncatingIfNeeded: size &- 1)
        if segment.attributes & 0x1C == 0x14 {
            // Expand-down: valid offsets lie above the limit.
            let upper: UInt64 = segment.isBig ? 0xFFFF_FFFF : 0xFFFF
            if offset <= UInt64(segment.limit) || last > upper { throw fault }
        } else if last > UInt64(segment.limit) || offset > UInt64(segment.limit) {
            // A segment of 4 GiB has no end: what is past it starts anew.
            if segment.limit != .max { throw fault }
        }
        return (segment.base &+ offset) & 0xFFFF_FFFF
    }

    // MARK: Descriptor tables

    /// Reads a descriptor's eight bytes.
    /// - Throws: `fault` where the table does not reach that far.
    func readDescriptor(_ selector: UInt16, _ fault: Fault) throws(Fault) -> UInt64 {
        let index = UInt64(selector & 0xFFF8)
        let base: UInt64
        let limit: UInt64
        if selector & 4 != 0 {
            let ldt = segment(SegmentIndex.ldtr)
            if ldt.isUnusable { throw fault }
            base = ldt.base
            limit = UInt64(ldt.limit)
        } else {
            base = s.gdtrBase
            limit = UInt64(s.gdtrLimit)
        }
        guard index &+ 7 <= limit else { throw fault }
        return try load(tableAddress(base &+ index), 8, user: false)
    }

    /// The upper eight bytes of a 16-byte descriptor.
    func readUpperDescriptor(_ selector: UInt16, _ fault: Fault) throws(Fault) -> UInt64 {
        let index = UInt64(selector & 0xFFF8) &+ 8
        let ldt = segment(SegmentIndex.ldtr)
        let base = selector & 4 != 0 ? ldt.base : s.gdtrBase
        let limit = selector & 4 != 0 ? UInt64(ldt.limit) : UInt64(s.gdtrLimit)
        guard index &+ 7 <= limit else { throw fault }
        return try load(tableAddress(base &+ index), 8, user: false)
    }

    @inline(__always) func tableAddress(_ linear: UInt64) -> UInt64 { isLongMode ? linear : linear & 0xFFFF_FFFF }

    /// Sets the accessed bit of a code or data descriptor.
    func markAccessed(_ selector: UInt16, _ descriptor: UInt64) throws(Fault) {
        guard descriptor & 1 &<< 40 == 0 else { return }
        let ldt = segment(SegmentIndex.ldtr)
        let base = selector & 4 != 0 ? ldt.base : s.gdtrBase
        let at = tableAddress(base &+ UInt64(selector & 0xFFF8) &+ 5)
        let type = try load(at, 1, user: false)
        try store(at, 1, type | 1, user: false)
    }

    /// The hidden part that a descriptor gives.
    func makeSegment(_ selector: UInt16, _ descriptor: UInt64) -> Segment {
        var segment = Segment()
        segment.selector = selector
        segment.base = descriptor &>> 16 & 0xFF_FFFF | (descriptor &>> 56) &<< 24
        segment.attributes = UInt16(truncatingIfNeeded: descriptor &>> 40) & 0xFF | UInt16(truncatingIfNeeded: descriptor &>> 44) & 0xF00
        var limit = UInt32(truncatingIfNeeded: descriptor & 0xFFFF) | UInt32(truncatingIfNeeded: descriptor &>> 32 & 0xF_0000)
        if descriptor & 1 &<< 55 != 0 { limit = limit &<< 12 | 0xFFF }
        segment.limit = limit
        return segment
    }

    // MARK: Data segments

    /// MOV, POP, LDS and family: loads ES, SS, DS, FS or GS.
    func loadSegment(_ number: Int, _ selector: UInt16) throws(Fault) {
        if isReal {
            loadRealSegment(number, selector)
            return
        }
        if number == SegmentIndex.ss { return try loadStackSegment(selector) }
        guard selector & 0xFFFC != 0 else {
            setNull(number, selector)
            segmentsChanged()
            return
        }
        let code = selector & 0xFFFC
        let descriptor = try readDescriptor(selector, .protection(code))
        var segment = makeSegment(selector, descriptor)
        // Data or readable code.
        guard !segment.isSystem, segment.attributes & 0x0A != 0x08 else { throw .protection(code) }
        if !segment.isConforming, UInt8(truncatingIfNeeded: selector & 3) > segment.dpl || s.cpl > segment.dpl {
            throw .protection(code)
        }
        guard segment.isPresent else { throw .notPresent(code) }
        try markAccessed(selector, descriptor)
        segment.attributes |= 1
        setSegment(number, segment)
        segmentsChanged()
    }

    func loadRealSegment(_ number: Int, _ selector: UInt16) {
        var segment = segment(number)
        segment.selector = selector
        segment.base = UInt64(selector) &<< 4
        if isVirtual8086 {
            segment.limit = 0xFFFF
            segment.attributes = 0xF3
        } else {
            // The limit and the rest stay: "unreal mode". An unusable one becomes an ordinary one.
            segment.attributes = segment.isUnusable ? 0x93 : segment.attributes & ~0x1000
            if number == SegmentIndex.cs { segment.attributes = segment.attributes & ~0x60 | 0x90 }
        }
        setSegment(number, segment)
        segmentsChanged()
    }

    func setNull(_ number: Int, _ selector: UInt16) {
        var segment = Segment()
        segment.selector = selector
        segment.limit = 0
        segment.attributes = Segment.unusable
        // In long mode a null selector leaves the base that WRMSR set to AMD's; Intel's clears it. Source: [SDM2 MOV].
        segment.base = 0
        setSegment(number, segment)
    }

    func loadStackSegment(_ selector: UInt16) throws(Fault) {
        let code = selector & 0xFFFC
        let rpl = UInt8(truncatingIfNeeded: selector & 3)
        guard code != 0 else {
            // Only 64-bit code outside ring 3 may hold a null SS. Source: [SDM2 MOV].
            guard is64, s.cpl < 3, rpl == s.cpl else { throw .protection }
            setNull(SegmentIndex.ss, selector)
            var segment = ss
            segment.attributes |= UInt16(s.cpl) &<< 5
            setSegment(SegmentIndex.ss, segment)
            segmentsChanged()
            return
        }
        let descriptor = try readDescriptor(selector, .protection(code))
        var segment = makeSegment(selector, descriptor)
        guard rpl == s.cpl, segment.attributes & 0x1A == 0x12, segment.dpl == s.cpl else { throw .protection(code) }
        guard segment.isPresent else { throw .stack(code) }
        try markAccessed(selector, descriptor)
        segment.attributes |= 1
        setSegment(SegmentIndex.ss, segment)
        segmentsChanged()
    }

    // MARK: Modes

    /// What depends on CPL, the segments and the control registers: the mode of blocks, the stack's width.
    func segmentsChanged() {
        let code = cs
        var mode: UInt32
        if isLongMode && code.isLong && !isVirtual8086 {
            mode = Mode.bits64 | Mode.flat
            s.stackMask = ~0
        } else {
            mode = code.isBig ? Mode.bits32 : Mode.bits16
            let stack = ss
            s.stackMask = stack.isBig ? 0xFFFF_FFFF : 0xFFFF
            if isReal { mode |= Mode.real }
            let data = segment(SegmentIndex.ds)
            let extra = segment(SegmentIndex.es)
            if code.isBig, stack.isBig, isFlat(stack), isFlat(data), isFlat(extra), code.base == 0, code.limit == .max,
                isProtected
            {
                mode |= Mode.flat
            }
            mode |= Mode.limit(code.limit)
        }
        if s.cpl == 3 { mode |= Mode.user }
        if s.cr0 & (CR0.em | CR0.ts) == 0, s.cr4 & CR4.osfxsr != 0 { mode |= Mode.vector }
        s.mode = mode
        refreshGeneration()
    }

    /// Writable data from 0 to 4 GiB.
    private func isFlat(_ segment: Segment) -> Bool {
        segment.base == 0 && segment.limit == .max && segment.attributes & 0x109E == 0x92
    }

    /// Sets CPL, and what depends on it.
    func setCPL(_ cpl: UInt8) {
        s.cpl = cpl
        segmentsChanged()
        refreshAccessMode()
    }

    /// On the way out to ring `cpl`: data segments that it must not see become null. Source: [SDM3 §5.8.6].
    func dropPrivilegedSegments() {
        dropIfPrivileged(SegmentIndex.es)
        dropIfPrivileged(SegmentIndex.ds)
        dropIfPrivileged(SegmentIndex.fs)
        dropIfPrivileged(SegmentIndex.gs)
        segmentsChanged()
    }

    private func dropIfPrivileged(_ number: Int) {
        let segment = segment(number)
        if !segment.isConforming, !segment.isUnusable, segment.dpl < s.cpl { setNull(number, 0) }
    }
}
