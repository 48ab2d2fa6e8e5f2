internal import X86

/// Far jumps, calls and returns, and IRET: what loads CS.
///
/// Source: [SDM3 §5.8], [SDM2 CALL, JMP, RET, IRET].
extension CPU {
    /// Checks a code segment for a direct far transfer and gives the CS that it becomes.
    private func checkCode(_ selector: UInt16) throws(Fault) -> (segment: Segment, descriptor: UInt64) {
        let code = selector & 0xFFFC
        guard code != 0 else { throw .protection }
        let descriptor = try readDescriptor(selector, .protection(code))
        return (makeSegment(selector, descriptor), descriptor)
    }

    /// Makes `segment` the CS of ring `cpl`.
    private func setCode(_ segment: Segment, _ cpl: UInt8) {
        var segment = segment
        segment.selector = segment.selector & ~3 | UInt16(cpl)
        segment.attributes |= 1
        setSegment(SegmentIndex.cs, segment)
        setCPL(cpl)
    }

    /// Whether `rip` may be the next instruction's in `segment`.
    private func checkTarget(_ rip: UInt64, _ segment: Segment) throws(Fault) {
        if isLongMode, segment.isLong {
            if !isCanonical(rip) { throw .protection }
        } else if rip > UInt64(segment.limit) {
            throw .protection
        }
    }

    // MARK: Pointers

    /// The far pointer that an instruction carries or points at.
    func farPointer(_ i: Insn, _ n: Int) throws(Fault) -> (selector: UInt16, offset: UInt64) {
        if i.kind(n) == Insn.Kind.farPointer { return (i.f.secondImmediate, i.f.immediate) }
        let size = i.operandSize
        let at = try linear(i, size &+ 2, write: false)
        let offset = try load(at, size, user: isUser)
        let selector = try load(wrapped(at &+ UInt64(truncatingIfNeeded: size)), 2, user: isUser)
        return (UInt16(truncatingIfNeeded: selector), offset)
    }

    func executeLoadFarPointer(_ i: Insn, _ segment: Int) throws(Fault) -> Flow {
        let pointer = try farPointer(i, 1)
        try loadSegment(segment, pointer.selector)
        writeRegister(i.register(0), pointer.offset)
        return .end
    }

    // MARK: Jump and call

    func executeFarJump(_ i: Insn) throws(Fault) -> Flow {
        let (selector, offset) = try farPointer(i, 0)
        if isReal {
            guard offset <= UInt64(cs.limit) else { throw .protection }
            loadRealSegment(SegmentIndex.cs, selector)
            s.rip = offset
            return .branch
        }
        let (segment, descriptor) = try checkCode(selector)
        if segment.isSystem { return try transferSystem(selector, descriptor, .jump) }
        try checkDirect(segment, selector)
        try checkTarget(offset, segment)
        try markAccessed(selector, descriptor)
        setCode(segment, s.cpl)
        s.rip = offset
        return .branch
    }

    /// A direct transfer to a code segment: same privilege, or conforming and at least as privileged.
    private func checkDirect(_ segment: Segment, _ selector: UInt16) throws(Fault) {
        let code = selector & 0xFFFC
        guard segment.isCode else { throw .protection(code) }
        if segment.isConforming {
            guard segment.dpl <= s.cpl else { throw .protection(code) }
        } else {
            guard selector & 3 <= UInt16(s.cpl), segment.dpl == s.cpl else { throw .protection(code) }
        }
        guard segment.isPresent else { throw .notPresent(code) }
        if isLongMode, segment.isLong, segment.isBig { throw .protection(code) }
    }

    /// A transfer to what is no code segment: to a task, by its TSS or a task gate, or through a call gate.
    private func transferSystem(_ selector: UInt16, _ descriptor: UInt64, _ kind: TaskSwitch) throws(Fault) -> Flow {
        let code = selector & 0xFFFC
        let dpl = UInt8(truncatingIfNeeded: descriptor &>> 45) & 3
        let type = descriptor &>> 40 & 15
        let isKnown =
            switch type {
            // A TSS is in the GDT.
            case 1, 9: !isLongMode && selector & 4 == 0
            case 4, 5: !isLongMode
            default: type == 12
            }
        guard isKnown, dpl >= s.cpl, UInt16(dpl) >= selector & 3 else { throw .protection(code) }
        guard descriptor &>> 47 & 1 != 0 else { throw .notPresent(code) }
        switch type {
        case 1, 9: try switchTask(selector, kind, returning: s.nextRIP, external: 0)
        case 5: try switchTask(UInt16(truncatingIfNeeded: descriptor &>> 16), kind, returning: s.nextRIP, external: 0)
        default:
            let gate = try callGate(selector, descriptor, type)
            if kind == .call { try callThroughGate(gate) } else { try jumpThroughGate(gate) }
        }
        return .branch
    }

    private func jumpThroughGate(_ gate: CallGate) throws(Fault) {
        let (segment, descriptor) = try checkGateTarget(gate.selector)
        let code = gate.selector & 0xFFFC
        guard segment.isConforming ? segment.dpl <= s.cpl : segment.dpl == s.cpl else { throw .protection(code) }
        guard segment.isPresent else { throw .notPresent(code) }
        try checkTarget(gate.offset, segment)
        try markAccessed(gate.selector, descriptor)
        setCode(segment, s.cpl)
        s.rip = gate.offset
    }

    private struct CallGate {
        var selector: UInt16
        var offset: UInt64
        /// Operand size of what is pushed: 2, 4 or 8.
        var size: Int
        var parameters: Int
    }

    private func callGate(_ selector: UInt16, _ descriptor: UInt64, _ type: UInt64) throws(Fault) -> CallGate {
        var gate = CallGate(
            selector: UInt16(truncatingIfNeeded: descriptor &>> 16), offset: descriptor & 0xFFFF,
            size: type == 4 ? 2 : 4, parameters: Int(descriptor &>> 32 & 31))
        if type == 12 { gate.offset |= descriptor &>> 32 & 0xFFFF_0000 }
        if isLongMode {
            let code = selector & 0xFFFC
            let upper = try readUpperDescriptor(selector, .protection(code))
            guard upper &>> 40 & 0x1F == 0 else { throw .protection(code) }
            gate.offset |= upper &<< 32
            gate.size = 8
            gate.parameters = 0
        }
        return gate
    }

    private func checkGateTarget(_ selector: UInt16) throws(Fault) -> (segment: Segment, descriptor: UInt64) {
        let code = selector & 0xFFFC
        guard code != 0 else { throw .protection }
        let descriptor = try readDescriptor(selector, .protection(code))
        let segment = makeSegment(selector, descriptor)
        guard segment.isCode, segment.dpl <= s.cpl else { throw .protection(code) }
        if isLongMode { guard segment.isLong, !segment.isBig else { throw .protection(code) } }
        return (segment, descriptor)
    }

    func executeFarCall(_ i: Insn) throws(Fault) -> Flow {
        let (selector, offset) = try farPointer(i, 0)
        let size = i.operandSize
        if isReal {
            guard offset <= UInt64(cs.limit) else { throw .protection }
            var sp = self[4]
            try pushValue(&sp, UInt64(cs.selector), size, user: isUser)
            try pushValue(&sp, s.nextRIP, size, user: isUser)
            self[4] = sp
            loadRealSegment(SegmentIndex.cs, selector)
            s.rip = offset
            return .branch
        }
        let (segment, descriptor) = try checkCode(selector)
        if segment.isSystem { return try transferSystem(selector, descriptor, .call) }
        try checkDirect(segment, selector)
        try checkTarget(offset, segment)
        var sp = self[4]
        // From 64-bit to compatibility code the frame goes where that code's stack pointer is: its width counts already.
        // Source: an AMD EPYC, by the differential tests.
        if is64, !segment.isLong { sp &= ss.isBig ? 0xFFFF_FFFF : 0xFFFF }
        try pushValue(&sp, UInt64(cs.selector), size, user: isUser)
        try pushValue(&sp, s.nextRIP, size, user: isUser)
        try markAccessed(selector, descriptor)
        self[4] = sp
        setCode(segment, s.cpl)
        s.rip = offset
        return .branch
    }

    private func callThroughGate(_ gate: CallGate) throws(Fault) {
        let (segment, descriptor) = try checkGateTarget(gate.selector)
        guard segment.isPresent else { throw .notPresent(gate.selector & 0xFFFC) }
        let newCPL = segment.isConforming ? s.cpl : segment.dpl
        try checkTarget(gate.offset, segment)
        if newCPL == s.cpl {
            var sp = self[4]
            try pushValue(&sp, UInt64(cs.selector), gate.size, user: isUser)
            try pushValue(&sp, s.nextRIP, gate.size, user: isUser)
            try markAccessed(gate.selector, descriptor)
            self[4] = sp
        } else if isLongMode {
            let tss = self.segment(SegmentIndex.tr)
            let at = 4 &+ UInt64(newCPL) &* 8
            guard at &+ 7 <= UInt64(tss.limit) else { throw .invalidTSS(tss.selector & 0xFFFC) }
            let rsp = try load(tss.base &+ at, 8, user: false)
            guard isCanonical(rsp), isCanonical(rsp &- 32) else { throw .stack }
            let user = newCPL == 3
            try store(rsp &- 8, 8, UInt64(ss.selector), user: user)
            try store(rsp &- 16, 8, self[4], user: user)
            try store(rsp &- 24, 8, UInt64(cs.selector), user: user)
            try store(rsp &- 32, 8, s.nextRIP, user: user)
            try markAccessed(gate.selector, descriptor)
            var stack = Segment()
            stack.selector = UInt16(newCPL)
            stack.limit = 0
            stack.attributes = Segment.unusable | UInt16(newCPL) &<< 5
            setSegment(SegmentIndex.ss, stack)
            self[4] = rsp &- 32
        } else {
            let (stack, esp) = try innerStack(newCPL, 0)
            var frame = StackFrame(
                stack: stack, sp: esp, size: gate.size, user: newCPL == 3, code: stack.selector & 0xFFFC)
            let oldSP = self[4]
            try push(&frame, UInt64(ss.selector))
            try push(&frame, oldSP)
            var parameter = gate.parameters
            while parameter > 0 {
                parameter &-= 1
                let at = (oldSP &+ UInt64(truncatingIfNeeded: parameter &* gate.size)) & s.stackMask
                try push(&frame, try load(linear(SegmentIndex.ss, at, gate.size, write: false), gate.size, user: isUser))
            }
            try push(&frame, UInt64(cs.selector))
            try push(&frame, s.nextRIP)
            try markAccessed(gate.selector, descriptor)
            setSegment(SegmentIndex.ss, stack)
            self[4] = stack.isBig ? frame.sp : oldSP & ~0xFFFF | frame.sp & 0xFFFF
        }
        setCode(segment, newCPL)
        s.rip = gate.offset
    }

    // MARK: Far return

    func executeFarReturn(_ i: Insn) throws(Fault) -> Flow {
        let size = i.operandSize
        let extra = i.kind(0) == Insn.Kind.immediate ? i.f.immediate : 0
        var sp = self[4]
        let rip = try popValue(&sp, size)
        let selector = UInt16(truncatingIfNeeded: try popValue(&sp, size))
        if isReal {
            guard rip <= UInt64(cs.limit) else { throw .protection }
            self[4] = sp & ~s.stackMask | (sp &+ extra) & s.stackMask
            loadRealSegment(SegmentIndex.cs, selector)
            s.rip = rip
            return .branch
        }
        let (segment, descriptor) = try checkReturnCode(selector)
        let rpl = UInt8(truncatingIfNeeded: selector & 3)
        try checkTarget(rip, segment)
        if rpl == s.cpl {
            try markAccessed(selector, descriptor)
            self[4] = sp & ~s.stackMask | (sp &+ extra) & s.stackMask
            setCode(segment, rpl)
            s.rip = rip
            return .branch
        }
        sp = sp & ~s.stackMask | (sp &+ extra) & s.stackMask
        let newSP = try popValue(&sp, size)
        let stackSelector = UInt16(truncatingIfNeeded: try popValue(&sp, size))
        let stack = try checkOuterStack(stackSelector, rpl, segment)
        try markAccessed(selector, descriptor)
        setSegment(SegmentIndex.ss, stack)
        setCode(segment, rpl)
        let adjusted = newSP &+ extra
        self[4] = s.stackMask == 0xFFFF ? newSP & ~0xFFFF | adjusted & 0xFFFF : adjusted & s.stackMask
        s.rip = rip
        dropPrivilegedSegments()
        return .branch
    }

    private func checkReturnCode(_ selector: UInt16) throws(Fault) -> (segment: Segment, descriptor: UInt64) {
        let code = selector & 0xFFFC
        let (segment, descriptor) = try checkCode(selector)
        let rpl = UInt8(truncatingIfNeeded: selector & 3)
        guard segment.isCode, rpl >= s.cpl else { throw .protection(code) }
        guard segment.isConforming ? segment.dpl <= rpl : segment.dpl == rpl else { throw .protection(code) }
        guard segment.isPresent else { throw .notPresent(code) }
        if isLongMode, segment.isLong, segment.isBig { throw .protection(code) }
        return (segment, descriptor)
    }

    /// SS on the way out to ring `cpl`.
    private func checkOuterStack(_ selector: UInt16, _ cpl: UInt8, _ code: Segment) throws(Fault) -> Segment {
        let error = selector & 0xFFFC
        if error == 0 {
            // Only on the way to 64-bit code outside ring 3.
            guard isLongMode, code.isLong, cpl < 3, selector & 3 == UInt16(cpl) else { throw .protection }
            var stack = Segment()
            stack.selector = selector
            stack.limit = 0
            stack.attributes = Segment.unusable | UInt16(cpl) &<< 5
            return stack
        }
        let descriptor = try readDescriptor(selector, .protection(error))
        var stack = makeSegment(selector, descriptor)
        guard selector & 3 == UInt16(cpl), stack.attributes & 0x1A == 0x12, stack.dpl == cpl else {
            throw .protection(error)
        }
        guard stack.isPresent else { throw .stack(error) }
        try markAccessed(selector, descriptor)
        stack.attributes |= 1
        return stack
    }

    // MARK: IRET

    func executeInterruptReturn(_ size: Int) throws(Fault) -> Flow {
        let wasMasked = s.nmiMasked
        // NMIs are unmasked even where IRET faults. Source: [SDM3 §6.7.1].
        s.nmiMasked = 0
        if wasMasked != 0, s.nmiPending != 0 { wakeForPending() }
        if !isProtected { return try returnReal(size) }
        if isVirtual8086 {
            guard s.flags & RFLAGS.iopl == RFLAGS.iopl else { throw .protection }
            return try returnReal(size)
        }
        if s.flags & RFLAGS.nt != 0 {
            guard !isLongMode else { throw .protection }
            try returnTask()
            return .branch
        }
        var sp = self[4]
        let rip = try popValue(&sp, size)
        let selector = UInt16(truncatingIfNeeded: try popValue(&sp, size))
        let flags = try popValue(&sp, size)
        if !isLongMode, size == 4, flags & RFLAGS.vm != 0, s.cpl == 0 {
            try returnVirtual(&sp, rip, selector, flags)
            return .branch
        }
        let (segment, descriptor) = try checkReturnCode(selector)
        let rpl = UInt8(truncatingIfNeeded: selector & 3)
        try checkTarget(rip, segment)
        if rpl == s.cpl, !is64 {
            try markAccessed(selector, descriptor)
            self[4] = sp
            restoreFlags(flags, size)
            setCode(segment, rpl)
            s.rip = rip
            return .branch
        }
        // 64-bit mode always pops SS:RSP.
        let newSP = try popValue(&sp, size)
        let stackSelector = UInt16(truncatingIfNeeded: try popValue(&sp, size))
        let stack = try checkOuterStack(stackSelector, rpl, segment)
        try markAccessed(selector, descriptor)
        let leaves = rpl != s.cpl
        restoreFlags(flags, size)
        setSegment(SegmentIndex.ss, stack)
        setCode(segment, rpl)
        if isLongMode, segment.isLong {
            self[4] = newSP
        } else {
            self[4] = s.stackMask == 0xFFFF ? self[4] & ~0xFFFF | newSP & 0xFFFF : newSP & s.stackMask
        }
        s.rip = rip
        if leaves { dropPrivilegedSegments() }
        return .branch
    }

    /// Flags as IRET of the present ring may change them. Before CPL changes.
    private func restoreFlags(_ value: UInt64, _ size: Int) {
        var changeable = RFLAGS.arithmetic | RFLAGS.tf | RFLAGS.df | RFLAGS.nt
        if size > 2 { changeable |= RFLAGS.ac | RFLAGS.id | RFLAGS.rf }
        if s.cpl == 0 {
            changeable |= RFLAGS.iopl
            if size > 2 { changeable |= RFLAGS.vif | RFLAGS.vip }
        }
        if UInt64(s.cpl) <= s.flags &>> 12 & 3 { changeable |= RFLAGS.if }
        rflags = rflags & ~changeable | value & changeable
    }

    private func returnReal(_ size: Int) throws(Fault) -> Flow {
        var sp = self[4]
        let rip = try popValue(&sp, size)
        let selector = UInt16(truncatingIfNeeded: try popValue(&sp, size))
        let flags = try popValue(&sp, size)
        guard rip <= UInt64(cs.limit) else { throw .protection }
        self[4] = sp
        var changeable = RFLAGS.arithmetic | RFLAGS.tf | RFLAGS.df | RFLAGS.nt | RFLAGS.if
        if size > 2 { changeable |= RFLAGS.ac | RFLAGS.id | RFLAGS.rf }
        if !isVirtual8086 { changeable |= RFLAGS.iopl }
        rflags = rflags & ~changeable | flags & changeable
        loadRealSegment(SegmentIndex.cs, selector)
        refreshAccessMode()
        s.rip = rip
        return .branch
    }

    /// IRET to virtual-8086 mode. Source: [SDM3 §20.2.5].
    private func returnVirtual(_ sp: inout UInt64, _ rip: UInt64, _ selector: UInt16, _ flags: UInt64) throws(Fault) {
        let newSP = try popValue(&sp, 4)
        let ss = try popValue(&sp, 4)
        let es = try popValue(&sp, 4)
        let ds = try popValue(&sp, 4)
        let fs = try popValue(&sp, 4)
        let gs = try popValue(&sp, 4)
        rflags = flags & RFLAGS.all
        s.cpl = 3
        loadRealSegment(SegmentIndex.cs, selector)
        loadRealSegment(SegmentIndex.ss, UInt16(truncatingIfNeeded: ss))
        loadRealSegment(SegmentIndex.es, UInt16(truncatingIfNeeded: es))
        loadRealSegment(SegmentIndex.ds, UInt16(truncatingIfNeeded: ds))
        loadRealSegment(SegmentIndex.fs, UInt16(truncatingIfNeeded: fs))
        loadRealSegment(SegmentIndex.gs, UInt16(truncatingIfNeeded: gs))
        self[4] = newSP & 0xFFFF_FFFF
        s.rip = rip & 0xFFFF
        setCPL(3)
    }

    // MARK: System calls

    /// Source: [SDM2 SYSCALL], [APM3 SYSCALL].
    func executeSyscall() throws(Fault) -> Flow {
        guard isProtected, s.efer & EFER.sce != 0, isLongMode, is64 else { throw .invalidOpcode }
        self[1] = s.nextRIP
        self[11] = rflags & ~RFLAGS.rf
        s.rip = s.lstar
        let selector = UInt16(truncatingIfNeeded: s.star &>> 32) & 0xFFFC
        rflags = rflags & ~s.fmask & ~RFLAGS.rf
        s.stepTrap = StepTrap.asEnded
        setFlat(SegmentIndex.cs, selector, 0xA9B)
        setFlat(SegmentIndex.ss, selector &+ 8, 0xC93)
        setCPL(0)
        return .branch
    }

    /// A flat segment as the system-call instructions set it, with no descriptor read.
    private func setFlat(_ number: Int, _ selector: UInt16, _ attributes: UInt16) {
        var segment = Segment()
        segment.selector = selector
        segment.limit = .max
        segment.attributes = attributes
        setSegment(number, segment)
    }

    /// Source: [SDM2 SYSRET].
    func executeSysret(wide: Bool) throws(Fault) -> Flow {
        guard s.efer & EFER.sce != 0, isLongMode, is64 else { throw .invalidOpcode }
        guard s.cpl == 0 else { throw .protection }
        if wide { guard isCanonical(self[1]) else { throw .protection } }
        let base = UInt16(truncatingIfNeeded: s.star &>> 48)
        let flags = self[11] & (RFLAGS.all & ~(RFLAGS.rf | RFLAGS.vm)) | 2
        s.rip = wide ? self[1] : self[1] & 0xFFFF_FFFF
        rflags = flags
        s.stepTrap = StepTrap.asEnded
        if flags & RFLAGS.tf != 0 { s.pendingDebug |= 0x4000 }
        setFlat(SegmentIndex.cs, (wide ? base &+ 16 : base) | 3, wide ? 0xAFB : 0xCFB)
        setFlat(SegmentIndex.ss, (base &+ 8) | 3, 0xCF3)
        setCPL(3)
        return .branch
    }

    /// Source: [SDM2 SYSENTER].
    func executeSysenter() throws(Fault) -> Flow {
        guard isProtected, s.sysenterCS & 0xFFFC != 0 else { throw .protection }
        s.flags &= ~(RFLAGS.vm | RFLAGS.if)
        let selector = UInt16(truncatingIfNeeded: s.sysenterCS) & 0xFFFC
        self[4] = isLongMode ? s.sysenterESP : s.sysenterESP & 0xFFFF_FFFF
        s.rip = isLongMode ? s.sysenterEIP : s.sysenterEIP & 0xFFFF_FFFF
        setFlat(SegmentIndex.cs, selector, isLongMode ? 0xA9B : 0xC9B)
        setFlat(SegmentIndex.ss, selector &+ 8, 0xC93)
        setCPL(0)
        return .branch
    }

    /// Source: [SDM2 SYSEXIT].
    func executeSysexit(wide: Bool) throws(Fault) -> Flow {
        guard isProtected, s.cpl == 0, s.sysenterCS & 0xFFFC != 0 else { throw .protection }
        if wide { guard isCanonical(self[1]), isCanonical(self[2]) else { throw .protection } }
        let base = UInt16(truncatingIfNeeded: s.sysenterCS)
        let code = (wide ? base &+ 32 : base &+ 16) | 3
        self[4] = wide ? self[1] : self[1] & 0xFFFF_FFFF
        s.rip = wide ? self[2] : self[2] & 0xFFFF_FFFF
        setFlat(SegmentIndex.cs, code, wide ? 0xAFB : 0xCFB)
        setFlat(SegmentIndex.ss, code &+ 8, 0xCF3)
        setCPL(3)
        return .branch
    }

    // MARK: Software interrupts

    func executeInterrupt(_ vector: UInt8, _ kind: Event.Kind) -> Flow {
        let start = s.rip
        s.rip = s.nextRIP
        let event = Event(vector: vector, kind: kind)
        do throws(Fault) {
            try deliverSoftware(event)
            s.stepTrap = StepTrap.never
            // INT1's is a debug exception. Source: [SDM3 §18.2.4].
            if vector == 1, kind == .exception { s.dr7 &= ~0x2000 }
        } catch {
            // The instruction itself faults.
            s.rip = start
            s.fault = error
            s.leave = Leave.fault
        }
        return .branch
    }
}
