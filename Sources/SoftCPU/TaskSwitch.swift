/// Hardware task switches. Source: [SDM3 §7.3].
extension CPU {
    enum TaskSwitch: BitwiseCopyable { case jump, call, interrupt, `return` }

    /// Switches to the task whose TSS `selector` names.
    ///
    /// - Parameter returning: the old task's saved instruction pointer.
    func switchTask(
        _ selector: UInt16, _ kind: TaskSwitch, returning rip: UInt64, external: UInt16
    ) throws(Fault) {
        let code = selector & 0xFFFC | external
        let badTSS: Fault = kind == .return ? .invalidTSS(code) : .protection(code)
        guard selector & 4 == 0, code & 0xFFFC != 0 else { throw badTSS }
        let descriptor = try readDescriptor(selector, badTSS)
        var new = makeSegment(selector, descriptor)
        let isBusy = new.attributes & 2 != 0
        guard new.isSystem, new.type == 1 || new.type == 9 || new.type == 3 || new.type == 11,
            isBusy == (kind == .return)
        else { throw badTSS }
        guard new.isPresent else { throw .notPresent(code) }
        let isWide = new.type & 8 != 0
        guard new.limit >= (isWide ? 0x67 : 0x2B) else { throw .invalidTSS(code) }

        // The old task's state.
        let old = segment(SegmentIndex.tr)
        let oldWide = old.type & 8 != 0
        try probeTable(old.base, oldWide ? 0x68 : 0x2C)
        try probeTable(new.base, isWide ? 0x68 : 0x2C)
        var flags = rflags
        if kind == .return { flags &= ~RFLAGS.nt }
        try saveTask(old, rip, flags)
        if kind == .jump || kind == .return { try setBusy(old.selector, false) }

        // The new task's.
        let state = try readTask(new)
        if kind == .call || kind == .interrupt {
            try store(tableAddress(new.base), 2, UInt64(old.selector), user: false)
        }
        if kind != .return { try setBusy(selector, true) }
        new.attributes |= 2
        setSegment(SegmentIndex.tr, new)
        s.cr0 |= CR0.ts
        s.dr7 &= ~0x55
        var newFlags = state.flags
        if kind == .call || kind == .interrupt { newFlags |= RFLAGS.nt }
        if isWide, s.cr0 & CR0.pg != 0, state.cr3 != s.cr3 {
            s.cr3 = state.cr3
            if s.cr4 & CR4.pae != 0 { _ = loadPDPTEs(s.cr3) }
            flushTLB()
        }
        rflags = newFlags
        s.rip = state.rip
        for register in 0..<8 { self[register] = readRegisterFile(state, register) }
        try loadTaskSegments(state, new)
    }

    private func probeTable(_ base: UInt64, _ count: UInt64) throws(Fault) {
        try probeWrite(tableAddress(base), 1, user: false)
        try probeWrite(tableAddress(base &+ count &- 1), 1, user: false)
    }

    private func setBusy(_ selector: UInt16, _ busy: Bool) throws(Fault) {
        let at = tableAddress(s.gdtrBase &+ UInt64(selector & 0xFFF8) &+ 5)
        let type = try load(at, 1, user: false)
        try store(at, 1, busy ? type | 2 : type & ~2, user: false)
    }

    private func saveTask(_ tss: Segment, _ rip: UInt64, _ flags: UInt64) throws(Fault) {
        let isWide = tss.type & 8 != 0
        let size = isWide ? 4 : 2
        var at = tss.base &+ (isWide ? 0x20 : 0x0E)
        func put(_ value: UInt64) throws(Fault) {
            try store(tableAddress(at), size, value, user: false)
            at &+= UInt64(truncatingIfNeeded: size)
        }
        try put(rip)
        try put(flags)
        for register in 0..<8 { try put(self[register]) }
        for number in 0..<(isWide ? 6 : 4) {
            // Selectors take four bytes of a 32-bit TSS, of which two are written.
            try store(tableAddress(at), 2, UInt64(segment(number).selector), user: false)
            at &+= UInt64(truncatingIfNeeded: size)
        }
    }

    private struct TaskState {
        var cr3: UInt64 = 0
        var rip: UInt64 = 0
        var flags: UInt64 = 2
        var registers: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0, 0, 0)
        var selectors: (UInt16, UInt16, UInt16, UInt16, UInt16, UInt16) = (0, 0, 0, 0, 0, 0)
        var ldt: UInt16 = 0
    }

    private func readRegisterFile(_ state: TaskState, _ number: Int) -> UInt64 {
        switch number {
        case 0: state.registers.0
        case 1: state.registers.1
        case 2: state.registers.2
        case 3: state.registers.3
        case 4: state.registers.4
        case 5: state.registers.5
        case 6: state.registers.6
        default: state.registers.7
        }
    }

    private func readTask(_ tss: Segment) throws(Fault) -> TaskState {
        let isWide = tss.type & 8 != 0
        let size = isWide ? 4 : 2
        var at = tss.base &+ (isWide ? 0x20 : 0x0E)
        var state = TaskState()
        func next() throws(Fault) -> UInt64 {
            let value = try load(tableAddress(at), size, user: false)
            at &+= UInt64(truncatingIfNeeded: size)
            return value
        }
        if isWide { state.cr3 = try load(tableAddress(tss.base &+ 0x1C), 4, user: false) }
        state.rip = try next()
        state.flags = try next() & RFLAGS.all
        state.registers.0 = try next()
        state.registers.1 = try next()
        state.registers.2 = try next()
        state.registers.3 = try next()
        state.registers.4 = try next()
        state.registers.5 = try next()
        state.registers.6 = try next()
        state.registers.7 = try next()
        state.selectors.0 = UInt16(truncatingIfNeeded: try next())
        state.selectors.1 = UInt16(truncatingIfNeeded: try next())
        state.selectors.2 = UInt16(truncatingIfNeeded: try next())
        state.selectors.3 = UInt16(truncatingIfNeeded: try next())
        if isWide {
            state.selectors.4 = UInt16(truncatingIfNeeded: try next())
            state.selectors.5 = UInt16(truncatingIfNeeded: try next())
        }
        state.ldt = UInt16(truncatingIfNeeded: try next())
        return state
    }

    /// The segments of the new task: faults met here are the new task's.
    private func loadTaskSegments(_ state: TaskState, _ tss: Segment) throws(Fault) {
        // All are null until each is loaded, so that a fault's handler meets no stale one.
        setNull(SegmentIndex.ldtr, state.ldt)
        setNull(SegmentIndex.es, state.selectors.0)
        setNull(SegmentIndex.ds, state.selectors.3)
        setNull(SegmentIndex.fs, state.selectors.4)
        setNull(SegmentIndex.gs, state.selectors.5)
        if state.flags & RFLAGS.vm != 0 {
            s.cpl = 3
            loadRealSegment(SegmentIndex.es, state.selectors.0)
            loadRealSegment(SegmentIndex.cs, state.selectors.1)
            loadRealSegment(SegmentIndex.ss, state.selectors.2)
            loadRealSegment(SegmentIndex.ds, state.selectors.3)
            loadRealSegment(SegmentIndex.fs, state.selectors.4)
            loadRealSegment(SegmentIndex.gs, state.selectors.5)
            setCPL(3)
            return
        }
        if state.ldt & 0xFFFC != 0 {
            let code = state.ldt & 0xFFFC
            guard state.ldt & 4 == 0 else { throw .invalidTSS(code) }
            let descriptor = try readDescriptor(state.ldt, .invalidTSS(code))
            let segment = makeSegment(state.ldt, descriptor)
            guard segment.attributes & 0x1F == 2, segment.isPresent else { throw .invalidTSS(code) }
            setSegment(SegmentIndex.ldtr, segment)
        }
        let cpl = UInt8(truncatingIfNeeded: state.selectors.1 & 3)
        let codeError = state.selectors.1 & 0xFFFC
        guard codeError != 0 else { throw .invalidTSS(codeError) }
        let descriptor = try readDescriptor(state.selectors.1, .invalidTSS(codeError))
        var code = makeSegment(state.selectors.1, descriptor)
        guard code.isCode, code.isConforming ? code.dpl <= cpl : code.dpl == cpl else { throw .invalidTSS(codeError) }
        guard code.isPresent else { throw .notPresent(codeError) }
        try markAccessed(state.selectors.1, descriptor)
        code.attributes |= 1
        setSegment(SegmentIndex.cs, code)
        s.cpl = cpl
        setSegment(SegmentIndex.ss, try checkInnerStack(state.selectors.2, cpl, 0))
        try loadTaskData(SegmentIndex.es, state.selectors.0)
        try loadTaskData(SegmentIndex.ds, state.selectors.3)
        try loadTaskData(SegmentIndex.fs, state.selectors.4)
        try loadTaskData(SegmentIndex.gs, state.selectors.5)
        setCPL(cpl)
        guard s.rip <= UInt64(code.limit) else { throw .protection }
    }

    private func loadTaskData(_ number: Int, _ selector: UInt16) throws(Fault) {
        do throws(Fault) {
            try loadSegment(number, selector)
        } catch {
            // What would be #GP for an instruction is #TS here.
            throw error.vector == 13 ? .invalidTSS(selector & 0xFFFC) : error
        }
    }

    /// IRET with NT set.
    func returnTask() throws(Fault) {
        let tss = segment(SegmentIndex.tr)
        let link = UInt16(truncatingIfNeeded: try load(tableAddress(tss.base), 2, user: false))
        try switchTask(link, .return, returning: s.nextRIP, external: 0)
    }
}
