internal import VMCore

/// Delivering exceptions and interrupts, in every mode.
///
/// Source: [SDM3 §6], [SDM3 §20] for real and virtual-8086 mode.
struct Event: BitwiseCopyable {
    enum Kind: UInt8, BitwiseCopyable {
        /// Faults, and traps other than the two below.
        case exception
        /// INT n.
        case software
        /// INT3 and INTO: exceptions that check the gate's DPL.
        case softwareException
        /// External interrupts and NMI.
        case external
    }
    var vector: UInt8
    var kind: Kind
    /// -1 for none.
    var code: Int32 = -1

    /// The EXT bit of error codes of faults met while it is delivered.
    var external: UInt16 { kind == .software || kind == .softwareException ? 0 : 1 }
}

extension CPU {
    /// Delivers a fault, and the double fault where that fails.
    /// - Returns: false for a shutdown.
    func deliver(_ event: Event) -> Bool {
        var event = event
        // What comes next is not where the last block leads.
        s.link = 0
        // A contributory chain ends in a double fault after one step and in a shutdown after another; benign ones
        // (a #DB, an interrupt) add one more.
        for _ in 0..<6 {
            do throws(Fault) {
                try deliverOnce(event)
                s.injected = 0
                // The handler of a #DB may touch the debug registers. Source: [SDM3 §18.2.4].
                if event.vector == 1, event.kind == .exception { s.dr7 &= ~0x2000 }
                return true
            } catch {
                if error.vector == 0xFF || event.vector == 8 && event.kind == .exception { return false }
                event = Self.combine(event, error)
            }
        }
        return false
    }

    /// What a fault during delivery becomes. Source: [SDM3 §6.15, table 6-5].
    private static func combine(_ first: Event, _ second: Fault) -> Event {
        func isContributory(_ vector: UInt8) -> Bool { vector == 0 || vector >= 10 && vector <= 13 }
        if first.kind == .exception {
            let isPageFault = first.vector == 14
            if isContributory(first.vector) && isContributory(second.vector)
                || isPageFault && (isContributory(second.vector) || second.vector == 14)
            {
                return Event(vector: 8, kind: .exception, code: 0)
            }
        }
        return Event(vector: second.vector, kind: .exception, code: second.code)
    }

    private func deliverOnce(_ event: Event) throws(Fault) {
        if !isProtected { return try deliverReal(event) }
        if isLongMode { return try deliverLong(event) }
        try deliverProtected(event)
    }

    /// INT n, INT3, INTO and INT1: a fault met on the way is the instruction's own.
    func deliverSoftware(_ event: Event) throws(Fault) { try deliverOnce(event) }

    // MARK: Real mode

    private func deliverReal(_ event: Event) throws(Fault) {
        let entry = UInt64(event.vector) &* 4
        guard entry &+ 3 <= UInt64(s.idtrLimit) else {
            throw .protection(UInt16(event.vector) &* 8 &+ 2 &+ event.external)
        }
        let target = try load((s.idtrBase &+ entry) & 0xFFFF_FFFF, 4, user: false)
        var sp = self[4]
        try push16(&sp, rflags)
        try push16(&sp, UInt64(cs.selector))
        try push16(&sp, s.rip)
        self[4] = sp
        s.flags &= ~(RFLAGS.if | RFLAGS.tf | RFLAGS.ac | RFLAGS.rf)
        refreshAccessMode()
        loadRealSegment(SegmentIndex.cs, UInt16(truncatingIfNeeded: target &>> 16))
        s.rip = target & 0xFFFF
    }

    /// Pushes a word on the stack that SS names, as far as `sp` goes.
    func push16(_ sp: inout UInt64, _ value: UInt64) throws(Fault) {
        let next = (sp &- 2) & s.stackMask
        try store(linear(SegmentIndex.ss, next, 2, write: true), 2, value, user: isUser)
        sp = sp & ~s.stackMask | next
    }

    // MARK: Gates

    /// Error codes name the vector: bit 1 says that the index is the IDT's.
    private func gateCode(_ event: Event) -> UInt16 { UInt16(event.vector) &* 8 | 2 | event.external }

    private func deliverLong(_ event: Event) throws(Fault) {
        let code = gateCode(event)
        let index = UInt64(event.vector) &* 16
        guard index &+ 15 <= UInt64(s.idtrLimit) else { throw .protection(code) }
        let low = try load(s.idtrBase &+ index, 8, user: false)
        let high = try load(s.idtrBase &+ index &+ 8, 8, user: false)
        let type = low &>> 40 & 0x1F
        guard type == 0xE || type == 0xF else { throw .protection(code) }
        let dpl = UInt8(truncatingIfNeeded: low &>> 45) & 3
        if event.kind == .software || event.kind == .softwareException, dpl < s.cpl { throw .protection(code) }
        guard low &>> 47 & 1 != 0 else { throw .notPresent(code) }
        let ist = low &>> 32 & 7
        let target = low & 0xFFFF | low &>> 32 & 0xFFFF_0000 | high &<< 32
        let selector = UInt16(truncatingIfNeeded: low &>> 16)

        let selectorCode = selector & 0xFFFC
        guard selectorCode != 0 else { throw .protection(event.external) }
        let descriptor = try readDescriptor(selector, .protection(selectorCode | event.external))
        var segment = makeSegment(selector, descriptor)
        guard segment.isCode, segment.dpl <= s.cpl else { throw .protection(selectorCode | event.external) }
        guard segment.isPresent else { throw .notPresent(selectorCode | event.external) }
        guard segment.isLong, !segment.isBig else { throw .protection(selectorCode | event.external) }
        guard isCanonical(target) else { throw .protection(event.external) }

        let newCPL = segment.isConforming ? s.cpl : segment.dpl
        var rsp: UInt64
        if newCPL < s.cpl || ist != 0 {
            rsp = try longStack(ist != 0 ? 0x1C &+ ist &* 8 : 4 &+ UInt64(newCPL) &* 8, event.external)
        } else {
            rsp = self[4]
        }
        guard isCanonical(rsp) else { throw .stack(event.external) }
        rsp &= ~15
        let user = newCPL == 3
        var flags = rflags
        if event.kind == .exception, isFaultWithRestart(event.vector) { flags |= RFLAGS.rf }
        // No register changes before all five or six words are written.
        let frame = rsp &- (event.code >= 0 ? 48 : 40)
        guard isCanonical(frame) else { throw .stack(event.external) }
        // From the top, as pushes: CR2 of a fault and what is written before it depend on that.
        try storeFrame(rsp &- 8, UInt64(ss.selector), user)
        try storeFrame(rsp &- 16, self[4], user)
        try storeFrame(rsp &- 24, flags, user)
        try storeFrame(rsp &- 32, UInt64(cs.selector), user)
        try storeFrame(rsp &- 40, s.rip, user)
        if event.code >= 0 { try storeFrame(frame, UInt64(UInt32(bitPattern: event.code)), user) }

        try markAccessed(selector, descriptor)
        let changes = newCPL != s.cpl
        segment.selector = selector & ~3 | UInt16(newCPL)
        segment.attributes |= 1
        setSegment(SegmentIndex.cs, segment)
        s.flags &= ~(RFLAGS.tf | RFLAGS.nt | RFLAGS.rf | RFLAGS.vm)
        if type == 0xE { s.flags &= ~RFLAGS.if }
        if changes {
            var stack = Segment()
            stack.selector = UInt16(newCPL)
            stack.limit = 0
            stack.attributes = Segment.unusable | UInt16(newCPL) &<< 5
            setSegment(SegmentIndex.ss, stack)
        }
        self[4] = frame
        s.rip = target
        setCPL(newCPL)
    }

    @inline(__always)
    private func storeFrame(_ at: UInt64, _ value: UInt64, _ user: Bool) throws(Fault) {
        try store(at, 8, value, user: user)
    }

    /// A stack pointer of the 64-bit TSS.
    private func longStack(_ offset: UInt64, _ external: UInt16) throws(Fault) -> UInt64 {
        let tss = segment(SegmentIndex.tr)
        guard offset &+ 7 <= UInt64(tss.limit) else { throw .invalidTSS(tss.selector & 0xFFFC | external) }
        return try load(tss.base &+ offset, 8, user: false)
    }

    /// Faults push RF, so that the instruction is not stopped again by the breakpoint it was stopped by; #DB, traps and
    /// aborts do not. Source: [SDM3 §18.3.1.1].
    private func isFaultWithRestart(_ vector: UInt8) -> Bool {
        vector != 1 && vector != 3 && vector != 4 && vector != 8 && vector != 18
    }

    private func deliverProtected(_ event: Event) throws(Fault) {
        let code = gateCode(event)
        let index = UInt64(event.vector) &* 8
        guard index &+ 7 <= UInt64(s.idtrLimit) else { throw .protection(code) }
        // INT n in virtual-8086 mode needs IOPL 3.
        if isVirtual8086, event.kind == .software, s.flags & RFLAGS.iopl != RFLAGS.iopl { throw .protection }
        let gate = try load((s.idtrBase &+ index) & 0xFFFF_FFFF, 8, user: false)
        let type = gate &>> 40 & 0x1F
        guard type == 5 || type == 6 || type == 7 || type == 0xE || type == 0xF else { throw .protection(code) }
        let dpl = UInt8(truncatingIfNeeded: gate &>> 45) & 3
        if event.kind == .software || event.kind == .softwareException, dpl < s.cpl { throw .protection(code) }
        guard gate &>> 47 & 1 != 0 else { throw .notPresent(code) }
        let selector = UInt16(truncatingIfNeeded: gate &>> 16)
        if type == 5 {
            try switchTask(selector, .interrupt, returning: s.rip, external: event.external)
            if event.code >= 0 {
                let wide = segment(SegmentIndex.tr).type & 8 != 0
                var sp = self[4]
                try pushValue(&sp, UInt64(UInt32(bitPattern: event.code)), wide ? 4 : 2, user: isUser)
                self[4] = sp
            }
            return
        }
        let wide = type >= 0xE
        let size = wide ? 4 : 2
        let target = gate & 0xFFFF | (wide ? gate &>> 32 & 0xFFFF_0000 : 0)
        let selectorCode = selector & 0xFFFC
        guard selectorCode != 0 else { throw .protection(event.external) }
        let descriptor = try readDescriptor(selector, .protection(selectorCode | event.external))
        var segment = makeSegment(selector, descriptor)
        guard segment.isCode, segment.dpl <= s.cpl else { throw .protection(selectorCode | event.external) }
        guard segment.isPresent else { throw .notPresent(selectorCode | event.external) }
        var flags = rflags
        if event.kind == .exception, isFaultWithRestart(event.vector) { flags |= RFLAGS.rf }
        let fromV86 = isVirtual8086
        let newCPL = segment.isConforming ? s.cpl : segment.dpl
        if fromV86, newCPL != 0 { throw .protection(selectorCode | event.external) }

        if newCPL < s.cpl || fromV86 {
            let (stack, newESP) = try innerStack(newCPL, event.external)
            guard target <= UInt64(segment.limit) else { throw .protection(event.external) }
            let stackCode = stack.selector & 0xFFFC | event.external
            var frame = StackFrame(stack: stack, sp: newESP, size: size, user: newCPL == 3, code: stackCode)
            if fromV86 {
                try push(&frame, UInt64(self.segment(SegmentIndex.gs).selector))
                try push(&frame, UInt64(self.segment(SegmentIndex.fs).selector))
                try push(&frame, UInt64(self.segment(SegmentIndex.ds).selector))
                try push(&frame, UInt64(self.segment(SegmentIndex.es).selector))
            }
            try push(&frame, UInt64(ss.selector))
            try push(&frame, self[4])
            try push(&frame, flags)
            try push(&frame, UInt64(cs.selector))
            try push(&frame, s.rip)
            if event.code >= 0 { try push(&frame, UInt64(UInt32(bitPattern: event.code))) }
            try markAccessed(selector, descriptor)
            if fromV86 {
                s.flags &= ~RFLAGS.vm
                for number in SegmentIndex.ds...SegmentIndex.gs { setNull(number, 0) }
                setNull(SegmentIndex.es, 0)
            }
            setSegment(SegmentIndex.ss, stack)
            self[4] = stack.isBig ? frame.sp : self[4] & ~0xFFFF | frame.sp & 0xFFFF
        } else {
            guard target <= UInt64(segment.limit) else { throw .protection(event.external) }
            var frame = StackFrame(stack: ss, sp: self[4], size: size, user: isUser, code: event.external)
            try push(&frame, flags)
            try push(&frame, UInt64(cs.selector))
            try push(&frame, s.rip)
            if event.code >= 0 { try push(&frame, UInt64(UInt32(bitPattern: event.code))) }
            try markAccessed(selector, descriptor)
            self[4] = ss.isBig ? frame.sp : self[4] & ~0xFFFF | frame.sp & 0xFFFF
        }
        segment.selector = selector & ~3 | UInt16(newCPL)
        segment.attributes |= 1
        setSegment(SegmentIndex.cs, segment)
        s.flags &= ~(RFLAGS.tf | RFLAGS.nt | RFLAGS.rf | RFLAGS.vm)
        if type & 1 == 0 { s.flags &= ~RFLAGS.if }
        s.rip = target
        setCPL(newCPL)
    }

    // MARK: Stacks of other rings

    /// A stack that is being written to before it becomes the stack.
    struct StackFrame {
        var stack: Segment
        var sp: UInt64
        var size: Int
        var user: Bool
        /// The error code of the #SS where there is no room.
        var code: UInt16
    }

    func push(_ frame: inout StackFrame, _ value: UInt64) throws(Fault) {
        let mask: UInt64 = frame.stack.isBig ? 0xFFFF_FFFF : 0xFFFF
        let next = (frame.sp &- UInt64(truncatingIfNeeded: frame.size)) & mask
        let last = next &+ UInt64(truncatingIfNeeded: frame.size &- 1)
        let limit = UInt64(frame.stack.limit)
        if frame.stack.attributes & 0x1C == 0x14 {
            if next <= limit || last > mask { throw .stack(frame.code) }
        } else if last > limit {
            throw .stack(frame.code)
        }
        try store((frame.stack.base &+ next) & 0xFFFF_FFFF, frame.size, value, user: frame.user)
        frame.sp = next
    }

    /// SS and ESP of an inner ring, from the TSS, checked. Source: [SDM3 §6.12.1].
    func innerStack(_ cpl: UInt8, _ external: UInt16) throws(Fault) -> (Segment, UInt64) {
        let tss = segment(SegmentIndex.tr)
        let isWide = tss.type & 8 != 0
        let offset = isWide ? 4 &+ UInt64(cpl) &* 8 : 2 &+ UInt64(cpl) &* 4
        let width: UInt64 = isWide ? 6 : 4
        guard !tss.isUnusable, offset &+ width &- 1 <= UInt64(tss.limit) else {
            throw .invalidTSS(tss.selector & 0xFFFC | external)
        }
        let at = tss.base &+ offset
        let sp = try load(tableAddress(at), isWide ? 4 : 2, user: false)
        let selector = UInt16(truncatingIfNeeded: try load(tableAddress(at &+ (isWide ? 4 : 2)), 2, user: false))
        return (try checkInnerStack(selector, cpl, external), sp)
    }

    func checkInnerStack(_ selector: UInt16, _ cpl: UInt8, _ external: UInt16) throws(Fault) -> Segment {
        let code = selector & 0xFFFC
        guard code != 0 else { throw .invalidTSS(external) }
        let descriptor = try readDescriptor(selector, .invalidTSS(code | external))
        var stack = makeSegment(selector, descriptor)
        guard selector & 3 == UInt16(cpl), stack.dpl == cpl, stack.attributes & 0x1A == 0x12 else {
            throw .invalidTSS(code | external)
        }
        guard stack.isPresent else { throw .stack(code | external) }
        try markAccessed(selector, descriptor)
        stack.attributes |= 1
        return stack
    }
}
