public import VMCore

// Between the interpreter's state and the common one.

extension Segment {
    init(_ state: SegmentState) {
        self.init()
        selector = state.selector
        base = state.base
        limit = state.limit
        attributes = UInt16(state.type & 15) | UInt16(state.dpl & 3) &<< 5
        if state.codeOrData { attributes |= 0x10 }
        if state.present { attributes |= 0x80 }
        if state.available { attributes |= 0x100 }
        if state.long { attributes |= 0x200 }
        if state.big { attributes |= 0x400 }
        if state.granular { attributes |= 0x800 }
        if state.unusable { attributes |= Segment.unusable }
    }

    var state: SegmentState {
        var state = SegmentState()
        state.selector = selector
        state.base = base
        state.limit = limit
        state.type = UInt8(truncatingIfNeeded: attributes & 15)
        state.codeOrData = attributes & 0x10 != 0
        state.dpl = dpl
        state.present = isPresent
        state.available = attributes & 0x100 != 0
        state.long = isLong
        state.big = isBig
        state.granular = attributes & 0x800 != 0
        state.unusable = isUnusable
        return state
    }
}

extension CPU {
    var debugState: DebugRegisters {
        var debug = DebugRegisters()
        debug.dr0 = s.dr.0
        debug.dr1 = s.dr.1
        debug.dr2 = s.dr.2
        debug.dr3 = s.dr.3
        debug.dr6 = s.dr6
        debug.dr7 = s.dr7
        return debug
    }

    var generalState: GeneralRegisters {
        get {
            var g = GeneralRegisters()
            g.rax = self[0]
            g.rcx = self[1]
            g.rdx = self[2]
            g.rbx = self[3]
            g.rsp = self[4]
            g.rbp = self[5]
            g.rsi = self[6]
            g.rdi = self[7]
            g.r8 = self[8]
            g.r9 = self[9]
            g.r10 = self[10]
            g.r11 = self[11]
            g.r12 = self[12]
            g.r13 = self[13]
            g.r14 = self[14]
            g.r15 = self[15]
            g.rip = s.rip
            g.rflags = rflags
            return g
        }
        nonmutating set {
            self[0] = newValue.rax
            self[1] = newValue.rcx
            self[2] = newValue.rdx
            self[3] = newValue.rbx
            self[4] = newValue.rsp
            self[5] = newValue.rbp
            self[6] = newValue.rsi
            self[7] = newValue.rdi
            self[8] = newValue.r8
            self[9] = newValue.r9
            self[10] = newValue.r10
            self[11] = newValue.r11
            self[12] = newValue.r12
            self[13] = newValue.r13
            self[14] = newValue.r14
            self[15] = newValue.r15
            s.rip = newValue.rip
            rflags = newValue.rflags
        }
    }

    var systemState: SystemRegisters {
        var system = SystemRegisters()
        system.es = segment(SegmentIndex.es).state
        system.cs = segment(SegmentIndex.cs).state
        system.ss = segment(SegmentIndex.ss).state
        system.ds = segment(SegmentIndex.ds).state
        system.fs = segment(SegmentIndex.fs).state
        system.gs = segment(SegmentIndex.gs).state
        system.ldtr = segment(SegmentIndex.ldtr).state
        system.tr = segment(SegmentIndex.tr).state
        system.gdtr = TableState(base: s.gdtrBase, limit: s.gdtrLimit)
        system.idtr = TableState(base: s.idtrBase, limit: s.idtrLimit)
        system.cr0 = s.cr0
        system.cr2 = s.cr2
        system.cr3 = s.cr3
        system.cr4 = s.cr4
        system.cr8 = taskPriority
        system.efer = s.efer
        system.apicBase = vcpu.local?.readMSR(MSR.apicBase) ?? s.apicBase
        return system
    }

    /// - Throws: what no processor of this kind can hold.
    func setSystem(_ system: SystemRegisters) throws(EngineError) {
        guard system.cr0 &>> 32 == 0, system.efer & ~EFER.allowed == 0, system.cr4 & ~CR4.allowed == 0 else {
            throw .badState("control registers with bits that the interpreter does not have")
        }
        setSegment(SegmentIndex.es, Segment(system.es))
        setSegment(SegmentIndex.cs, Segment(system.cs))
        setSegment(SegmentIndex.ss, Segment(system.ss))
        setSegment(SegmentIndex.ds, Segment(system.ds))
        setSegment(SegmentIndex.fs, Segment(system.fs))
        setSegment(SegmentIndex.gs, Segment(system.gs))
        setSegment(SegmentIndex.ldtr, Segment(system.ldtr))
        setSegment(SegmentIndex.tr, Segment(system.tr))
        s.gdtrBase = system.gdtr.base
        s.gdtrLimit = system.gdtr.limit
        s.idtrBase = system.idtr.base
        s.idtrLimit = system.idtr.limit
        s.cr0 = system.cr0 | CR0.et
        s.cr2 = system.cr2
        s.cr3 = system.cr3
        s.cr4 = system.cr4
        s.efer = system.efer
        s.cr8 = system.cr8 & 15
        if let local = vcpu.local {
            if system.apicBase != 0, system.apicBase != local.readMSR(MSR.apicBase) {
                // Any mode after any: what WRMSR refuses on the way there is no concern of a state that is set.
                guard local.restore(page: [], apicBase: system.apicBase, tscDeadline: local.tscDeadline) else {
                    throw .badState("an IA32_APIC_BASE of 0x\(String(system.apicBase, radix: 16)), which no processor can hold")
                }
            }
            local.taskPriority = UInt8(truncatingIfNeeded: system.cr8 & 15)
        } else if system.apicBase != 0 {
            s.apicBase = system.apicBase
        }
        if s.cr0 & CR0.pg != 0, s.cr4 & CR4.pae != 0, !isLongMode { _ = loadPDPTEs(s.cr3) }
        // CPL is SS's DPL, in ring 3 virtual-8086 mode too; in real mode it is 0.
        s.cpl = !isProtected ? 0 : isVirtual8086 ? 3 : Segment(system.ss).dpl
        flushTLB()
        segmentsChanged()
        refreshAccessMode()
        refreshAPICPage()
    }
}

extension SoftVCPU {
    /// The common form's extended area: FXSAVE image, then the XSAVE header.
    private static var extendedSize: Int { 4096 }

    public func state() throws(EngineError) -> VCPUState {
        refreshConnections()
        var state = VCPUState()
        state.general = cpu.generalState
        state.system = cpu.systemState
        state.debug = cpu.debugState
        state.extended = [UInt8](repeating: 0, count: Self.extendedSize)
        for byte in 0..<512 { state.extended[byte] = Host.load(UInt8.self, cpu.fx &+ UInt(byte)) }
        // XSTATE_BV: x87 and SSE are there.
        state.extended[512] = 3
        state.msrs = MSR.stateIndices.compactMap { index in
            cpu.readMSR(index).map { ModelSpecificRegister(index: index, value: $0) }
        }
        if let local { state.localAPIC = local.state() }
        state.events.exceptionInjected = cpu.s.injected == 1
        state.events.interruptInjected = cpu.s.injected == 2
        state.events.nmiInjected = cpu.s.injected == 3
        if cpu.s.injected == 1 {
            state.events.exceptionVector = cpu.s.injectedVector
            state.events.exceptionHasErrorCode = cpu.s.injectedHasCode != 0
            state.events.exceptionErrorCode = cpu.s.injectedCode
        } else if cpu.s.injected == 2 {
            state.events.interruptVector = cpu.s.injectedVector
            state.events.interruptIsSoft = cpu.s.injectedSoft != 0
        }
        state.events.shadow = cpu.s.shadow
        state.events.nmiPending = cpu.s.nmiPending != 0
        state.events.nmiMasked = cpu.s.nmiMasked != 0
        state.runState = RunState(rawValue: cpu.s.runState) ?? .runnable
        return state
    }

    public func setState(_ state: VCPUState) throws(EngineError) {
        refreshConnections()
        if !state.extended.isEmpty {
            guard state.extended.count >= 576 else {
                throw .badState("an extended register area of \(state.extended.count) bytes; it is at least 576")
            }
            // A component whose bit is clear is in its initial state. Source: [SDM1 §13.6].
            for byte in 0..<512 { Host.store(state.extended[byte], cpu.fx &+ UInt(byte)) }
            if state.extended[512] & 1 == 0 {
                for byte in 0..<160 where byte < 24 || byte >= 32 { Host.store(0 as UInt8, cpu.fx &+ UInt(byte)) }
                Host.store(FXSaveImage.fcwReset, cpu.fx)
            }
            if state.extended[512] & 2 == 0 { for byte in 160..<416 { Host.store(0 as UInt8, cpu.fx &+ UInt(byte)) } }
            if let image = unsafe UnsafeMutableRawPointer(bitPattern: cpu.fx) { unsafe FXSaveImage.canonicalise(image) }
        }
        if !state.localAPIC.isEmpty, let local {
            let base = state.system.apicBase != 0 ? state.system.apicBase : local.readMSR(MSR.apicBase) ?? 0
            guard local.restore(page: state.localAPIC, apicBase: base, tscDeadline: local.tscDeadline) else {
                throw .badState(
                    "a local APIC page of \(state.localAPIC.count) bytes, and 1024 are one, or an IA32_APIC_BASE that no processor can hold")
            }
        }
        try setCore(state.general, state.system)
        cpu.s.dr = (state.debug.dr0, state.debug.dr1, state.debug.dr2, state.debug.dr3)
        cpu.s.dr6 = state.debug.dr6 & 0xE00F | 0xFFFF_0FF0
        cpu.s.dr7 = state.debug.dr7 & 0xFFFF_2BFF | 0x400
        cpu.s.pendingDebug = 0
        for register in state.msrs {
            // What a guest writes to one of these two changes the other; this is not a guest.
            if register.index == MSR.tsc {
                cpu.setTSCOffset(register.value &- cpu.vcpu.engine.time.ticks)
                continue
            }
            if register.index == MSR.tscAdjust {
                cpu.s.tscAdjust = register.value
                continue
            }
            guard cpu.writeMSR(register.index, register.value) else {
                throw .badState(
                    "the interpreter refuses 0x\(String(register.value, radix: 16)) in MSR 0x\(String(register.index, radix: 16))")
            }
        }
        cpu.s.injected = state.events.exceptionInjected ? 1 : state.events.interruptInjected ? 2 : state.events.nmiInjected ? 3 : 0
        cpu.s.injectedVector =
            state.events.exceptionInjected ? state.events.exceptionVector : state.events.interruptVector
        cpu.s.injectedHasCode = state.events.exceptionInjected && state.events.exceptionHasErrorCode ? 1 : 0
        cpu.s.injectedCode = state.events.exceptionErrorCode
        cpu.s.injectedSoft = state.events.interruptIsSoft ? 1 : 0
        cpu.s.shadow = state.events.shadow & 3
        cpu.s.nmiPending = state.events.nmiPending ? 1 : 0
        cpu.s.nmiMasked = state.events.nmiMasked ? 1 : 0
        cpu.s.runState = state.runState == .startupReceived ? 0 : state.runState.rawValue
        cpu.refreshAccessMode()
    }

    public func setEntry(general: GeneralRegisters, system: SystemRegisters) throws(EngineError) {
        refreshConnections()
        try setCore(general, system)
        cpu.s.runState = 0
    }

    private func setCore(_ general: GeneralRegisters, _ system: SystemRegisters) throws(EngineError) {
        cpu.generalState = general
        try cpu.setSystem(system)
    }
}
