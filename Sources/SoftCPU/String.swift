internal import CHost
internal import VMCore
internal import X86

/// String instructions. Each iteration is complete before the next begins, so that a fault or an interrupt leaves
/// rCX, rSI and rDI where the instruction goes on; whole runs within a page are one operation of the host's.
///
/// Source: [SDM2 REP/REPE/REPZ/REPNE/REPNZ, MOVS, STOS, ...].
extension CPU {
    /// How many iterations pass between two looks at the attention word.
    private static var patience: UInt64 { 64 }

    @inline(__always) private func addressMask(_ i: Insn) -> UInt64 { mask(Int(i.f.addressSize)) }

    @inline(__always) private func advance(_ register: Int, _ step: UInt64, _ mask: UInt64) {
        if mask == ~0 {
            self[register] = self[register] &+ step
        } else if mask == 0xFFFF_FFFF {
            self[register] = (self[register] &+ step) & mask
        } else {
            self[register] = self[register] & ~mask | (self[register] &+ step) & mask
        }
    }

    @inline(__always) private func setCount(_ count: UInt64, _ mask: UInt64) {
        self[1] = mask == 0xFFFF ? self[1] & ~mask | count : count
    }

    func executeString(_ i: Insn) throws(Fault) -> Flow {
        let mask = addressMask(i)
        let size = stringSize(i)
        let step = s.flags & RFLAGS.df != 0 ? 0 &- UInt64(truncatingIfNeeded: size) : UInt64(truncatingIfNeeded: size)
        guard i.hasRep else {
            _ = try iterate(i, size, step, mask)
            return .next
        }
        var count = self[1] & mask
        // The permission to use the port is asked for before the count.
        if i.f.mnemonic == .ins || i.f.mnemonic == .outs { try checkPort(UInt16(truncatingIfNeeded: self[2]), size) }
        // A count of zero leaves a 32-bit rCX's upper half as it is.
        guard count != 0 else { return .next }
        var sinceLook: UInt64 = 0
        // Steps and breakpoints come after each iteration.
        let isSlow = s.slow != 0
        let untilZero = i.f.mnemonic == .cmps || i.f.mnemonic == .scas
        let wanted: UInt64 = i.f.prefixes & 2 != 0 ? 1 : 0
        while count != 0 {
            let done = isSlow ? 0 : try bulk(i, size, count, mask)
            if done != 0 {
                count &-= done
                setCount(count, mask)
                sinceLook &+= Self.patience
            } else {
                let equal = try iterate(i, size, step, mask)
                count &-= 1
                setCount(count, mask)
                sinceLook &+= 1
                if untilZero, equal != wanted { return .next }
            }
            if sinceLook >= Self.patience || isSlow, count != 0 {
                sinceLook = 0
                if chost_load32(s.attention) != 0 || s.codeChanged != 0 || s.slow != 0 {
                    // The instruction counts once: where it ends. What stopped it before its first iteration is not to do so
                    // again before its next. Source: [SDM3 §18.3.1.1].
                    s.instructions &-= 1
                    s.flags |= RFLAGS.rf
                    return .branch
                }
            }
        }
        return .next
    }

    private func stringSize(_ i: Insn) -> Int {
        switch i.f.mnemonic {
        case .outs, .lods, .scas: i.size(1)
        default: i.size(0)
        }
    }

    /// One iteration.
    /// - Returns: ZF of a comparison.
    private func iterate(_ i: Insn, _ size: Int, _ step: UInt64, _ mask: UInt64) throws(Fault) -> UInt64 {
        let segment = Int(i.f.segment)
        switch i.f.mnemonic {
        case .movs:
            let value = try load(linear(segment, self[6] & mask, size, write: false), size, user: isUser)
            try store(linear(SegmentIndex.es, self[7] & mask, size, write: true), size, value, user: isUser)
            advance(6, step, mask)
            advance(7, step, mask)
        case .stos:
            try store(linear(SegmentIndex.es, self[7] & mask, size, write: true), size, self[0], user: isUser)
            advance(7, step, mask)
        case .lods:
            let value = try load(linear(segment, self[6] & mask, size, write: false), size, user: isUser)
            writeRegister(0, size: size, value)
            advance(6, step, mask)
        case .scas:
            let value = try load(linear(SegmentIndex.es, self[7] & mask, size, write: false), size, user: isUser)
            let a = self[0] & self.mask(size)
            setSubtractFlags(a, value, a &- value, size)
            advance(7, step, mask)
            return a == value ? 1 : 0
        case .cmps:
            let a = try load(linear(segment, self[6] & mask, size, write: false), size, user: isUser)
            let b = try load(linear(SegmentIndex.es, self[7] & mask, size, write: false), size, user: isUser)
            setSubtractFlags(a, b, a &- b, size)
            advance(6, step, mask)
            advance(7, step, mask)
            return a == b ? 1 : 0
        case .ins:
            let port = UInt16(truncatingIfNeeded: self[2])
            try checkPort(port, size)
            let at = try linear(SegmentIndex.es, self[7] & mask, size, write: true)
            try probeWrite(at, size, user: isUser)
            try store(at, size, readPort(port, size), user: isUser)
            advance(7, step, mask)
        default:
            let port = UInt16(truncatingIfNeeded: self[2])
            try checkPort(port, size)
            let value = try load(linear(segment, self[6] & mask, size, write: false), size, user: isUser)
            writePort(port, size, value)
            advance(6, step, mask)
        }
        return 0
    }

    private func isWithinSegment(_ segment: Int, _ offset: UInt64, _ bytes: UInt64, write: Bool) -> Bool {
        (try? linear(segment, offset, Int(truncatingIfNeeded: bytes), write: write)) != nil
    }

    /// As many iterations of MOVS and STOS as lie in a page on each side.
    /// - Returns: 0 where they must go one by one.
    private func bulk(_ i: Insn, _ size: Int, _ count: UInt64, _ mask: UInt64) throws(Fault) -> UInt64 {
        guard count > 1, s.flags & RFLAGS.df == 0, i.f.mnemonic == .movs || i.f.mnemonic == .stos else { return 0 }
        let width = UInt64(truncatingIfNeeded: size)
        let target = self[7] & mask
        let to = try linear(SegmentIndex.es, target, size, write: true)
        var run = min(count, (0x1000 &- (to & 0xFFF)) / width)
        // No run wraps at the end of the address size, nor passes the segment's end.
        run = min(run, (mask &- target) / width)
        if i.f.mnemonic == .stos {
            guard run > 1 else { return 0 }
            let bytes = run &* width
            guard isWithinSegment(SegmentIndex.es, target, bytes, write: true) else { return 0 }
            let host = fastWrite(UInt8.self, to)
            guard host != 0 else { return 0 }
            switch size {
            case 1: chost_store_bytes(host, UInt8(truncatingIfNeeded: self[0]), run)
            case 4: chost_store_longs(host, UInt32(truncatingIfNeeded: self[0]), run)
            case 8: chost_store_quads(host, self[0], run)
            default:
                for n in 0..<run { Host.store(UInt16(truncatingIfNeeded: self[0]), host &+ UInt(n) &* 2) }
            }
            advance(7, bytes, mask)
            return run
        }
        let source = self[6] & mask
        let from = try linear(Int(i.f.segment), source, size, write: false)
        run = min(run, (0x1000 &- (from & 0xFFF)) / width, (mask &- source) / width)
        guard run > 1 else { return 0 }
        let bytes = run &* width
        guard isWithinSegment(SegmentIndex.es, target, bytes, write: true), isWithinSegment(Int(i.f.segment), source, bytes, write: false)
        else { return 0 }
        // Two pages that share a place in the TLB displace each other: each is called back for its address, which stays true.
        var hostTo = fastWrite(UInt8.self, to)
        if hostTo == 0, recallPage(to, isWrite: true) { hostTo = fastWrite(UInt8.self, to) }
        guard hostTo != 0 else { return 0 }
        var hostFrom = fastRead(UInt8.self, from)
        if hostFrom == 0, recallPage(from, isWrite: false) { hostFrom = fastRead(UInt8.self, from) }
        guard hostFrom != 0 else { return 0 }
        // Bytes stand for wider items only where no item is read after a part of it was written.
        let distance = hostTo &- hostFrom
        if size > 1, distance != 0, distance < UInt(width) { return 0 }
        chost_move_bytes(hostTo, hostFrom, bytes)
        advance(7, bytes, mask)
        advance(6, bytes, mask)
        return run
    }

    /// `recall`, in no other function: more callers of its own would take it out of theirs.
    @inline(never) private func recallPage(_ linear: UInt64, isWrite: Bool) -> Bool { recall(linear, isWrite: isWrite) }

    func executeTranslate(_ i: Insn) throws(Fault) {
        let value = try load(linear(i, 1, write: false), 1, user: isUser)
        self[0] = self[0] & ~0xFF | value
    }

    // MARK: Ports

    /// IOPL and the I/O permission map. Source: [SDM1 §19.5].
    func checkPort(_ port: UInt16, _ size: Int) throws(Fault) {
        noteData(UInt64(port), size, isPort: true)
        guard isProtected, isVirtual8086 || UInt64(s.cpl) > s.flags &>> 12 & 3 else { return }
        let tss = segment(SegmentIndex.tr)
        guard !tss.isUnusable, tss.type & 8 != 0, tss.limit >= 103 else { throw .protection }
        let map = try load(tableAddress(tss.base &+ 102), 2, user: false)
        let byte = map &+ UInt64(port) / 8
        // Two bytes are read always: a map ends with a byte of ones.
        guard byte &+ 1 <= UInt64(tss.limit) else { throw .protection }
        let bits = try load(tableAddress(tss.base &+ byte), 2, user: false) &>> UInt64(port & 7)
        guard bits & ((1 &<< UInt64(truncatingIfNeeded: size)) &- 1) == 0 else { throw .protection }
    }

    func readPort(_ port: UInt16, _ size: Int) -> UInt64 {
        s.exitStatistics.portReads &+= 1
        return vcpu.ports.read(UInt64(port), count: size)
    }

    func writePort(_ port: UInt16, _ size: Int, _ value: UInt64) {
        s.exitStatistics.portWrites &+= 1
        vcpu.ports.write(UInt64(port), count: size, value: value & mask(size))
    }

    func executeIn(_ i: Insn) throws(Fault) -> Flow {
        let size = i.size(0)
        let port = UInt16(truncatingIfNeeded: try read(i, 1))
        try checkPort(port, size)
        writeRegister(0, size: size, readPort(port, size))
        return .end
    }

    func executeOut(_ i: Insn) throws(Fault) -> Flow {
        let size = i.size(1)
        let port = UInt16(truncatingIfNeeded: try read(i, 0))
        try checkPort(port, size)
        writePort(port, size, self[0])
        return .end
    }
}
