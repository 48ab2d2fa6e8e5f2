internal import CHost
internal import VMCore
internal import X86

/// Control and debug registers, descriptor tables, and the other instructions of ring 0.
extension CPU {
    // MARK: Control registers

    func readSpecial(_ i: Insn) throws(Fault) {
        let number = Int(i.register(1) & 15)
        if i.register(1) &>> 4 == 7 {
            try checkDebugAccess(number)
            writeRegister(i.register(0), readDebug(number))
            return
        }
        let value: UInt64 =
            switch number {
            case 0: s.cr0
            case 2: s.cr2
            case 3: s.cr3
            case 4: s.cr4
            default: taskPriority
            }
        writeRegister(i.register(0), value)
    }

    var taskPriority: UInt64 {
        guard let local = vcpu.local else { return s.cr8 }
        return UInt64(local.taskPriority)
    }

    func writeSpecial(_ i: Insn) throws(Fault) -> Flow {
        let value = readRegister(i.register(1))
        let number = Int(i.register(0) & 15)
        if i.register(0) &>> 4 == 7 {
            try checkDebugAccess(number)
            try writeDebug(number, value)
            return .end
        }
        switch number {
        case 0: try writeCR0(value)
        case 2: s.cr2 = value
        case 3: try writeCR3(value)
        case 4: try writeCR4(value)
        default:
            guard value <= 15 else { throw .protection }
            s.cr8 = value
            if let local = vcpu.local { local.taskPriority = UInt8(truncatingIfNeeded: value) }
        }
        return .end
    }

    /// Source: [SDM3 §2.5].
    func writeCR0(_ value: UInt64) throws(Fault) {
        guard value &>> 32 == 0 else { throw .protection }
        let known = CR0.pe | CR0.mp | CR0.em | CR0.ts | CR0.ne | CR0.wp | CR0.am | CR0.nw | CR0.cd | CR0.pg
        let new = value & known | CR0.et
        let old = s.cr0
        if new & CR0.pg != 0, new & CR0.pe == 0 { throw .protection }
        if new & CR0.nw != 0, new & CR0.cd == 0 { throw .protection }
        if new & CR0.pg != 0, old & CR0.pg == 0 {
            if s.efer & EFER.lme != 0 {
                guard s.cr4 & CR4.pae != 0, !cs.isLong else { throw .protection }
                s.efer |= EFER.lma
            } else if s.cr4 & CR4.pae != 0 {
                guard loadPDPTEs(s.cr3) else { throw .protection }
            }
        } else if new & CR0.pg == 0, old & CR0.pg != 0 {
            guard !is64 else { throw .protection }
            s.efer &= ~EFER.lma
        }
        s.cr0 = new
        if (old ^ new) & (CR0.pg | CR0.wp | CR0.pe) != 0 { flushTLB() }
        segmentsChanged()
        refreshAccessMode()
    }

    func writeCR3(_ value: UInt64) throws(Fault) {
        if isLongMode {
            guard value & (s.reservedPhysical | 0xFFF0_0000_0000_0000) == 0 else { throw .protection }
        } else if s.cr0 & CR0.pg != 0, s.cr4 & CR4.pae != 0 {
            guard loadPDPTEs(value) else { throw .protection }
        }
        s.cr3 = value
        flushNonGlobal()
    }

    func writeCR4(_ value: UInt64) throws(Fault) {
        guard value & ~CR4.allowed == 0 else { throw .protection }
        let old = s.cr4
        if isLongMode, value & CR4.pae == 0 { throw .protection }
        let paging = CR4.pge | CR4.pse | CR4.pae | CR4.smep
        if (old ^ value) & paging != 0 {
            if s.cr0 & CR0.pg != 0, !isLongMode, value & CR4.pae != 0 {
                guard loadPDPTEs(s.cr3) else { throw .protection }
            }
            s.cr4 = value
            flushTLB()
        }
        s.cr4 = value
        segmentsChanged()
    }

    func executeLoadMachineStatus(_ i: Insn) throws(Fault) -> Flow {
        // PE can be set this way and not cleared. Source: [SDM2 LMSW].
        let value = try read(i, 0) & 15
        try writeCR0(s.cr0 & ~0xE | value)
        return .end
    }

    /// SGDT, SIDT, SLDT, STR and SMSW with UMIP.
    private func checkUserMode() throws(Fault) {
        if s.cpl != 0, s.cr4 & CR4.umip != 0 { throw .protection }
    }

    func executeStoreMachineStatus(_ i: Insn) throws(Fault) {
        try checkUserMode()
        if i.kind(0) == Insn.Kind.register { writeRegister(i.register(0), s.cr0) } else { try write(i, 0, s.cr0 & 0xFFFF) }
    }

    // MARK: Debug registers. Source: [SDM3 §18.2].

    private func checkDebugAccess(_ number: Int) throws(Fault) {
        if number & ~1 == 4, s.cr4 & CR4.de != 0 { throw .invalidOpcode }
        if s.dr7 & 0x2000 != 0 {
            s.dr7 &= ~0x2000
            s.dr6 |= 0x2000
            throw .debug
        }
    }

    private func readDebug(_ number: Int) -> UInt64 {
        switch number {
        case 0: s.dr.0
        case 1: s.dr.1
        case 2: s.dr.2
        case 3: s.dr.3
        case 4, 6: s.dr6
        default: s.dr7
        }
    }

    private func writeDebug(_ number: Int, _ value: UInt64) throws(Fault) {
        switch number {
        case 0: s.dr.0 = value
        case 1: s.dr.1 = value
        case 2: s.dr.2 = value
        case 3: s.dr.3 = value
        case 4, 6:
            guard value &>> 32 == 0 else { throw .protection }
            s.dr6 = value & 0xE00F | 0xFFFF_0FF0
        default:
            guard value &>> 32 == 0 else { throw .protection }
            s.dr7 = value & 0xFFFF_2BFF | 0x400
            refreshAccessMode()
        }
    }

    /// Notes data and I/O breakpoints that an access touches, for after the instruction.
    @inline(never)
    func matchData(_ linear: UInt64, _ size: Int, isWrite: Bool, isPort: Bool) {
        for number in 0..<4 as Range<UInt64> where s.dr7 &>> (number &* 2) & 3 != 0 {
            let control = s.dr7 &>> (16 &+ number &* 4) & 15
            let kind = control & 3
            if isPort {
                guard kind == 2, s.cr4 & CR4.de != 0 else { continue }
            } else {
                guard kind == 3 || kind == 1 && isWrite else { continue }
            }
            let length: UInt64 =
                switch control &>> 2 {
                case 0: 1
                case 1: 2
                case 2: 8
                default: 4
                }
            let start = readDebug(Int(number)) & ~(length &- 1)
            if linear < start &+ length, start < linear &+ UInt64(truncatingIfNeeded: size) {
                s.pendingDebug |= 1 &<< number
            }
        }
    }

    @inline(__always) func noteData(_ port: UInt64, _ size: Int, isPort: Bool) {
        if s.dr7 & 0xFF != 0 { matchData(port, size, isWrite: true, isPort: isPort) }
    }

    /// Whether an instruction breakpoint is set at the linear address; its bits of DR6.
    func matchExecution(_ linear: UInt64) -> UInt64 {
        var met: UInt64 = 0
        for number in 0..<4 as Range<UInt64> where s.dr7 &>> (number &* 2) & 3 != 0 {
            if s.dr7 &>> (16 &+ number &* 4) & 15 == 0, readDebug(Int(number)) == linear { met |= 1 &<< number }
        }
        return met
    }

    // MARK: Descriptor tables

    func executeStoreTable(_ i: Insn, base: UInt64, limit: UInt16) throws(Fault) {
        try checkUserMode()
        let width = i.f.mode64 ? 8 : 4
        let at = try linear(i, width &+ 2, write: true)
        try probeWrite(at, width &+ 2, user: isUser)
        try store(at, 2, UInt64(limit), user: isUser)
        try store(wrapped(at &+ 2), width, base, user: isUser)
    }

    func executeLoadTable(_ i: Insn, isInterrupt: Bool) throws(Fault) {
        let width = i.f.mode64 ? 8 : 4
        let at = try linear(i, width &+ 2, write: false)
        let limit = UInt16(truncatingIfNeeded: try load(at, 2, user: isUser))
        var base = try load(wrapped(at &+ 2), width, user: isUser)
        if width == 8, !isCanonical(base) { throw .protection }
        if width == 4, i.operandSize == 2 { base &= 0xFF_FFFF }
        if isInterrupt {
            s.idtrBase = base
            s.idtrLimit = limit
        } else {
            s.gdtrBase = base
            s.gdtrLimit = limit
        }
    }

    func executeStoreSelector(_ i: Insn, _ number: Int) throws(Fault) {
        try checkUserMode()
        try write(i, 0, UInt64(segment(number).selector))
    }

    func executeLoadLDT(_ i: Insn) throws(Fault) {
        let selector = UInt16(truncatingIfNeeded: try read(i, 0))
        let code = selector & 0xFFFC
        guard code != 0 else { return setNull(SegmentIndex.ldtr, selector) }
        guard selector & 4 == 0 else { throw .protection(code) }
        let descriptor = try readDescriptor(selector, .protection(code))
        var segment = makeSegment(selector, descriptor)
        guard segment.attributes & 0x1F == 2 else { throw .protection(code) }
        guard segment.isPresent else { throw .notPresent(code) }
        if isLongMode { segment.base |= try readUpperDescriptor(selector, .protection(code)) &<< 32 }
        guard isCanonical(segment.base) else { throw .protection(code) }
        setSegment(SegmentIndex.ldtr, segment)
    }

    func executeLoadTask(_ i: Insn) throws(Fault) {
        let selector = UInt16(truncatingIfNeeded: try read(i, 0))
        let code = selector & 0xFFFC
        guard code != 0 else { throw .protection }
        guard selector & 4 == 0 else { throw .protection(code) }
        let descriptor = try readDescriptor(selector, .protection(code))
        var segment = makeSegment(selector, descriptor)
        guard segment.attributes & 0x1F == 9 || segment.attributes & 0x1F == 1 && !isLongMode else { throw .protection(code) }
        guard segment.isPresent else { throw .notPresent(code) }
        if isLongMode { segment.base |= try readUpperDescriptor(selector, .protection(code)) &<< 32 }
        guard isCanonical(segment.base) else { throw .protection(code) }
        let at = tableAddress(s.gdtrBase &+ UInt64(selector & 0xFFF8) &+ 5)
        try store(at, 1, (descriptor &>> 40 & 0xFF) | 2, user: false)
        segment.attributes |= 2
        setSegment(SegmentIndex.tr, segment)
    }

    /// LAR, LSL, VERR and VERW: whether a selector can be used as asked; never a fault for the selector's sake.
    private func lookUp(_ selector: UInt16) throws(Fault) -> (segment: Segment, descriptor: UInt64)? {
        guard selector & 0xFFFC != 0 else { return nil }
        let none = Fault(vector: 0xFE)
        let descriptor: UInt64
        do throws(Fault) {
            descriptor = try readDescriptor(selector, none)
        } catch {
            if error.vector == none.vector { return nil }
            throw error
        }
        return (makeSegment(selector, descriptor), descriptor)
    }

    private func isVisible(_ segment: Segment, _ selector: UInt16) -> Bool {
        segment.isConforming || segment.dpl >= s.cpl && UInt16(segment.dpl) >= selector & 3
    }

    private func setZero(_ set: Bool) { setArithmeticFlags(set ? rflags | RFLAGS.zf : rflags & ~RFLAGS.zf) }

    func executeLoadAccessRights(_ i: Insn) throws(Fault) {
        let selector = UInt16(truncatingIfNeeded: try read(i, 1))
        guard let (segment, descriptor) = try lookUp(selector), isVisible(segment, selector) else { return setZero(false) }
        if segment.isSystem {
            let legal: UInt16 = isLongMode ? 0b0001_1010_0000_0100 : 0b0001_1010_0011_1110
            guard legal &>> segment.type & 1 != 0 else { return setZero(false) }
        }
        writeRegister(i.register(0), descriptor &>> 32 & 0x00FF_FF00)
        setZero(true)
    }

    func executeLoadLimit(_ i: Insn) throws(Fault) {
        let selector = UInt16(truncatingIfNeeded: try read(i, 1))
        guard let (segment, _) = try lookUp(selector), isVisible(segment, selector) else { return setZero(false) }
        if segment.isSystem {
            let legal: UInt16 = isLongMode ? 0b0000_1010_0000_0100 : 0b0000_1010_0000_1110
            guard legal &>> segment.type & 1 != 0 else { return setZero(false) }
        }
        writeRegister(i.register(0), UInt64(segment.limit))
        setZero(true)
    }

    func executeVerify(_ i: Insn, write: Bool) throws(Fault) {
        let selector = UInt16(truncatingIfNeeded: try read(i, 0))
        guard let (segment, _) = try lookUp(selector), !segment.isSystem, isVisible(segment, selector) else {
            return setZero(false)
        }
        setZero(write ? segment.attributes & 0xA == 2 : segment.attributes & 0xA != 8)
    }

    func executeAdjustRPL(_ i: Insn) throws(Fault) {
        let source = readRegister(i.register(1)) & 3
        let value = try read(i, 0)
        let lower = value & 3 < source
        // Written in either case, as LOCK-less read-modify-write. Source: [SDM2 ARPL].
        if lower { try write(i, 0, value & ~3 | source) }
        setZero(lower)
    }

    // MARK: Flags

    func executeInterruptFlag(_ set: Bool) throws(Fault) -> Flow {
        // Protected-mode virtual interrupts and VME are not offered, so IOPL decides.
        if isProtected, UInt64(s.cpl) > s.flags &>> 12 & 3 { throw .protection }
        if set {
            if s.flags & RFLAGS.if == 0 { s.shadow = 1 }
            s.flags |= RFLAGS.if
            return .end
        }
        s.flags &= ~RFLAGS.if
        return .next
    }

    // MARK: Time and random numbers

    func executeReadTimeStamp(aux: Bool) throws(Fault) {
        if s.cr4 & CR4.tsd != 0, s.cpl != 0, isProtected { throw .protection }
        let ticks = timeStamp
        self[0] = ticks & 0xFFFF_FFFF
        self[2] = ticks &>> 32
        if aux { self[1] = s.tscAux & 0xFFFF_FFFF }
    }

    /// The guest's time-stamp counter.
    var timeStamp: UInt64 { vcpu.engine.time.ticks &+ s.tscOffset }

    func executeRandom(_ i: Insn) {
        var value: UInt64 = 0
        let good: Bool
        if let counter = vcpu.engine.instructionClock {
            value = counter.random()
            good = true
        } else {
            good = unsafe chost_random64(&value)
        }
        writeRegister(i.register(0), good ? value : 0)
        setArithmeticFlags(good ? RFLAGS.cf : 0)
    }

    // MARK: Bases

    func executeBase(_ i: Insn) throws(Fault) {
        guard s.cr4 & CR4.fsgsbase != 0 else { throw .invalidOpcode }
        let number = i.f.mnemonic == .rdfsbase || i.f.mnemonic == .wrfsbase ? SegmentIndex.fs : SegmentIndex.gs
        if i.f.mnemonic == .rdfsbase || i.f.mnemonic == .rdgsbase {
            writeRegister(i.register(0), segmentBase(number))
            return
        }
        let value = readRegister(i.register(0))
        guard isCanonical(value) else { throw .protection }
        setBase(number, value)
    }

    @inline(__always) func setBase(_ number: Int, _ value: UInt64) {
        Host.store(value, address &+ Layout.segments &+ UInt(bitPattern: number) &* 32)
    }

    @inline(__always) func executeSwapGS() {
        let base = segmentBase(SegmentIndex.gs)
        setBase(SegmentIndex.gs, s.kernelGSBase)
        s.kernelGSBase = base
    }

    func executeBound(_ i: Insn) throws(Fault) {
        let size = i.size(0)
        let at = try linear(i, size &* 2, write: false)
        let index = Int64(bitPattern: signExtend(readRegister(i.register(0)), size))
        let low = Int64(bitPattern: signExtend(try load(at, size, user: isUser), size))
        let high = Int64(
            bitPattern: signExtend(try load(wrapped(at &+ UInt64(truncatingIfNeeded: size)), size, user: isUser), size))
        if index < low || index > high { throw .bound }
    }
}
