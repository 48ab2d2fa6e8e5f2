internal import CHost
internal import Synchronization
internal import VMCore

/// The loop around the handlers: attention, interrupts, exceptions, and the next block.
extension CPU {
    /// Runs until a reason that concerns the whole machine, or until so many instructions were executed in all.
    ///
    /// - Parameter isStepping: instructions go one at a time, so that the count is met exactly; otherwise blocks go one at
    ///   a time where there is an end, and it is passed by less than a block.
    /// - Returns: `.debug` where the count was met.
    func run(until end: UInt64, isStepping: Bool) -> VCPUExit {
        let vcpu = self.vcpu
        let attention = vcpu.attention
        let counter = vcpu.engine.instructionClock
        // Links and the jump cache are followed only while no bit is set.
        if counter != nil || end != .max { attention.raise(.counted) } else { _ = attention.take(.counted) }
        refreshAPICPage()
        _ = attention.take(.outside)
        defer { attention.raise(.outside) }
        s.interruptPossible = 1
        s.link = 0
        while true {
            let bits = attention.bits
            if !bits.isEmpty, let exit = serve(attention, bits) { return exit }
            if let counter, counter.isDue { counter.ring() }
            if s.runState != 0 {
                if let exit = rest(vcpu) { return exit }
                continue
            }
            if s.injected != 0 {
                if !deliverInjected() { return .shutdown }
                continue
            }
            if s.shadow == 0 {
                if s.nmiPending != 0, s.nmiMasked == 0 {
                    s.nmiPending = 0
                    s.nmiMasked = 1
                    if !deliver(Event(vector: 2, kind: .external)) { return .shutdown }
                    continue
                }
                if s.interruptPossible != 0, s.flags & RFLAGS.if != 0 {
                    if let vector = takeInterrupt(vcpu) {
                        if !deliver(Event(vector: vector, kind: .external)) { return .shutdown }
                        continue
                    }
                }
            }
            if s.instructions >= end { return .debug }
            if !isStepping, s.slow == 0 {
                // Without breakpoints RF stands for nothing; and STI holds back only what is there to be held back.
                s.flags &= ~RFLAGS.rf
                if s.shadow == 1, s.interruptPossible == 0, s.nmiPending == 0 { s.shadow = 0 }
            }
            let single = isStepping || s.slow != 0 || s.shadow != 0
            if single {
                if !executeSingle() { return .shutdown }
                continue
            }
            let block: UInt
            do throws(Fault) {
                block = try findBlock()
            } catch {
                s.link = 0
                // A fetch that faults counts as an instruction, as others that fault do: time goes on in whatever loop.
                s.instructions &+= 1
                if !deliver(Event(vector: error.vector, kind: .exception, code: error.code)) { return .shutdown }
                continue
            }
            if block == 0 {
                s.link = 0
                if !executeSingle() { return .shutdown }
                continue
            }
            if s.link != 0 {
                Host.store(block, s.link)
                s.link = 0
            }
            s.codeChanged = 0
            enter(address, block, s.flagResult, s.flagCarries)
            if s.leave != Leave.next {
                if !deliverFault() { return .shutdown }
            } else if s.pendingDebug != 0 {
                // SYSRET that loads TF.
                if !deliverPendingDebug() { return .shutdown }
            }
        }
    }

    /// Delivers what made the handlers return.
    private func deliverFault() -> Bool {
        s.leave = Leave.next
        return deliver(Event(vector: s.fault.vector, kind: .exception, code: s.fault.code))
    }

    /// One instruction by itself, with what only then is looked at: breakpoints and the trap flag.
    private func executeSingle() -> Bool {
        s.shadow = 0
        if s.dr7 & 0xFF != 0, s.flags & RFLAGS.rf == 0 {
            let linear = is64 ? s.rip : (segmentBase(SegmentIndex.cs) &+ s.rip) & 0xFFFF_FFFF
            let met = matchExecution(linear)
            if met != 0 {
                s.dr6 = s.dr6 & ~0xF | met
                s.instructions &+= 1
                return deliver(Event(vector: 1, kind: .exception))
            }
        }
        return executeUnstopped()
    }

    /// As `executeSingle`, past the breakpoints on instructions: those a rescue's engine has looked at.
    /// - Returns: false for a shutdown.
    func executeUnstopped() -> Bool {
        let wasStepped = s.flags & RFLAGS.tf != 0
        s.shadow = 0
        s.stepTrap = StepTrap.asBegun
        s.link = 0
        let block: UInt
        do throws(Fault) {
            block = try makeSingle()
        } catch {
            s.instructions &+= 1
            return deliver(Event(vector: error.vector, kind: .exception, code: error.code))
        }
        if s.refused != 0 { return true }
        s.flags &= ~RFLAGS.rf
        s.codeChanged = 0
        enter(address, block, s.flagResult, s.flagCarries)
        s.link = 0
        if s.leave != Leave.next {
            s.pendingDebug = 0
            return deliverFault()
        }
        // MOV SS holds traps back for one instruction.
        if s.shadow == 2 { return true }
        let traps =
            switch s.stepTrap {
            case StepTrap.asBegun: wasStepped
            case StepTrap.asEnded: s.flags & RFLAGS.tf != 0
            default: false
            }
        if traps { s.pendingDebug |= 0x4000 }
        return s.pendingDebug == 0 || deliverPendingDebug()
    }

    /// Traps: #DB after an instruction.
    private func deliverPendingDebug() -> Bool {
        s.dr6 = s.dr6 & ~0xF | s.pendingDebug
        s.pendingDebug = 0
        // A debug exception ends HLT. Source: [SDM2 HLT].
        if s.runState == 3 { s.runState = 0 }
        return deliver(Event(vector: 1, kind: .exception))
    }

    /// What other threads want.
    private func serve(_ attention: Attention, _ bits: Attention.Bits) -> VCPUExit? {
        if bits.contains(.translations) {
            _ = attention.take(.translations)
            dropWriteTags()
        }
        if bits.contains(.code) {
            _ = attention.take(.code)
            takeCodeChanges()
        }
        if bits.contains(.interrupt) {
            _ = attention.take(.interrupt)
            s.interruptPossible = 1
        }
        if bits.contains(.nmi) {
            _ = attention.take(.nmi)
            s.nmiPending = 1
        }
        if bits.contains(.initialise) {
            _ = attention.take(.initialise)
            vcpu.local?.initialise()
            initialise()
        }
        if bits.contains(.startup) {
            _ = attention.take(.startup)
            if s.runState == 1 || s.runState == 2 { start(attention.startup.load(ordering: .sequentiallyConsistent)) }
        }
        if bits.contains(.kick) {
            _ = attention.take(.kick)
            s.exitStatistics.kicks &+= 1
            return .kicked
        }
        return nil
    }

    private func takeCodeChanges() {
        let index = vcpu.index
        let changes = vcpu.engine.codePages.changes.withLock { all in
            let mine = all[index]
            all[index] = CodeChanges()
            return mine
        }
        if changes.isAll { return dropAllBlocks() }
        for page in changes.pages {
            dropBlocks(onPage: page)
            _ = releaseCode(page: page)
        }
    }

    /// Not running: halted, or waiting for INIT or SIPI.
    private func rest(_ vcpu: SoftVCPU) -> VCPUExit? {
        if s.runState == 3 {
            if s.nmiPending != 0, s.nmiMasked == 0 || s.injected != 0 {
                s.runState = 0
                return nil
            }
            if s.flags & RFLAGS.if != 0, hasInterrupt(vcpu) {
                s.runState = 0
                s.interruptPossible = 1
                return nil
            }
            s.exitStatistics.halts &+= 1
            if vcpu.local == nil, vcpu.external == nil || s.flags & RFLAGS.if == 0 { return .halted }
        }
        // Nothing happens before the next alarm: it is now.
        if let counter = vcpu.engine.instructionClock, counter.skipToNextAlarm() { return nil }
        let isCounted = !vcpu.attention.take(.counted).isEmpty
        vcpu.attention.sleep()
        if isCounted { vcpu.attention.raise(.counted) }
        return nil
    }

    private func hasInterrupt(_ vcpu: SoftVCPU) -> Bool {
        if let local = vcpu.local {
            if local.deliverable != nil { return true }
            if !local.acceptsExternalInterrupts { return false }
        }
        return vcpu.external?.isPending ?? false
    }

    /// The interrupt-acknowledge cycle.
    private func takeInterrupt(_ vcpu: SoftVCPU) -> UInt8? {
        if let local = vcpu.local {
            if local.deliverable != nil, let vector = local.acknowledge() { return vector }
            guard local.acceptsExternalInterrupts else {
                s.interruptPossible = 0
                return nil
            }
        }
        guard let external = vcpu.external, external.isPending else {
            s.interruptPossible = 0
            return nil
        }
        return external.acknowledge()
    }

    /// An event that came with `setState`: it was taken elsewhere and not yet delivered.
    private func deliverInjected() -> Bool {
        // 3 is an NMI, whose vector is its own.
        let vector = s.injected == 3 ? 2 : s.injectedVector
        let kind: Event.Kind = s.injected == 1 ? .exception : s.injectedSoft != 0 ? .software : .external
        let code: Int32 = s.injectedHasCode != 0 ? Int32(bitPattern: s.injectedCode) : -1
        s.injected = 0
        return deliver(Event(vector: vector, kind: kind, code: code))
    }

    func wakeForPending() { s.interruptPossible = 1 }

    // MARK: Reset

    /// Source: [SDM3 §10.1.1, table 10-1].
    func reset(isBootProcessor: Bool) {
        chost_store_bytes(address &+ Layout.emptyTLB, 0xFF, UInt64(Layout.tlbBytes))
        setResetRegisters()
        s.cr0 = 0x6000_0010
        // What firmware has set up before a kernel runs: memory types, fast strings.
        _ = writeMSR(MSR.mtrrDefault, 0x806)
        s.miscEnable = 1
        resetFloatingPoint()
        s.runState = isBootProcessor ? 0 : 1
    }

    private func setResetRegisters() {
        s.link = 0
        for register in 0..<17 { self[register] = 0 }
        self[2] = UInt64(CPU.signature)
        s.rip = 0xFFF0
        rflags = 2
        var code = Segment()
        code.selector = 0xF000
        code.base = 0xFFFF_0000
        code.attributes = 0x9B
        for number in 0..<6 { setSegment(number, Segment()) }
        setSegment(SegmentIndex.cs, code)
        var table = Segment()
        table.attributes = 0x82
        setSegment(SegmentIndex.ldtr, table)
        table.attributes = 0x8B
        setSegment(SegmentIndex.tr, table)
        s.gdtrBase = 0
        s.gdtrLimit = 0xFFFF
        s.idtrBase = 0
        s.idtrLimit = 0xFFFF
        s.cr2 = 0
        s.cr3 = 0
        s.cr4 = 0
        s.efer = 0
        s.dr = (0, 0, 0, 0)
        s.dr6 = 0xFFFF_0FF0
        s.dr7 = 0x400
        s.pendingDebug = 0
        s.shadow = 0
        s.injected = 0
        s.nmiPending = 0
        s.nmiMasked = 0
        s.cr8 = 0
        flushTLB()
        setCPL(0)
    }

    /// INIT: as reset, but for what the manual says stays. Source: [SDM3 §10.1.1].
    private func initialise() {
        let cacheBits = s.cr0 & (CR0.cd | CR0.nw)
        setResetRegisters()
        s.cr0 = 0x10 | cacheBits
        segmentsChanged()
        s.runState = vcpu.index == 0 ? 0 : 2
    }

    /// SIPI.
    private func start(_ vector: UInt8) {
        var code = cs
        code.selector = UInt16(vector) &<< 8
        code.base = UInt64(vector) &<< 12
        setSegment(SegmentIndex.cs, code)
        s.rip = 0
        s.runState = 0
        s.link = 0
        segmentsChanged()
    }

    /// FNINIT's values, MXCSR's default.
    private func resetFloatingPoint() {
        chost_store_bytes(fx, 0, 512)
        Host.store(0x37F as UInt16, fx)
        Host.store(0x1F80 as UInt32, fx &+ 24)
        Host.store(0xFFFF as UInt32, fx &+ 28)
    }
}
