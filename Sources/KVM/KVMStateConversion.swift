internal import CKVM
internal import VMCore

// Between the kernel's register structures and the common ones. Source: [KVM-API §4.11-4.13, §4.31].

extension SegmentState {
    init(_ segment: kvm_segment) {
        self.init()
        selector = segment.selector
        base = segment.base
        limit = segment.limit
        type = segment.type
        present = segment.present != 0
        dpl = segment.dpl
        big = segment.db != 0
        codeOrData = segment.s != 0
        long = segment.l != 0
        granular = segment.g != 0
        available = segment.avl != 0
        unusable = segment.unusable != 0
    }

    var kernel: kvm_segment {
        var segment = kvm_segment()
        segment.selector = selector
        segment.base = base
        segment.limit = limit
        segment.type = type
        segment.present = present ? 1 : 0
        segment.dpl = dpl
        segment.db = big ? 1 : 0
        segment.s = codeOrData ? 1 : 0
        segment.l = long ? 1 : 0
        segment.g = granular ? 1 : 0
        segment.avl = available ? 1 : 0
        segment.unusable = unusable ? 1 : 0
        return segment
    }
}

extension TableState {
    init(_ table: kvm_dtable) { self.init(base: table.base, limit: table.limit) }

    var kernel: kvm_dtable {
        var table = kvm_dtable()
        table.base = base
        table.limit = limit
        return table
    }
}

extension GeneralRegisters {
    init(_ registers: kvm_regs) {
        self.init()
        rax = registers.rax
        rbx = registers.rbx
        rcx = registers.rcx
        rdx = registers.rdx
        rsi = registers.rsi
        rdi = registers.rdi
        rsp = registers.rsp
        rbp = registers.rbp
        r8 = registers.r8
        r9 = registers.r9
        r10 = registers.r10
        r11 = registers.r11
        r12 = registers.r12
        r13 = registers.r13
        r14 = registers.r14
        r15 = registers.r15
        rip = registers.rip
        rflags = registers.rflags
    }

    var kernel: kvm_regs {
        kvm_regs(
            rax: rax, rbx: rbx, rcx: rcx, rdx: rdx, rsi: rsi, rdi: rdi, rsp: rsp, rbp: rbp, r8: r8, r9: r9,
            r10: r10, r11: r11, r12: r12, r13: r13, r14: r14, r15: r15, rip: rip, rflags: rflags)
    }
}

extension SystemRegisters {
    init(_ registers: kvm_sregs) {
        self.init()
        cs = SegmentState(registers.cs)
        ds = SegmentState(registers.ds)
        es = SegmentState(registers.es)
        fs = SegmentState(registers.fs)
        gs = SegmentState(registers.gs)
        ss = SegmentState(registers.ss)
        tr = SegmentState(registers.tr)
        ldtr = SegmentState(registers.ldt)
        gdtr = TableState(registers.gdt)
        idtr = TableState(registers.idt)
        cr0 = registers.cr0
        cr2 = registers.cr2
        cr3 = registers.cr3
        cr4 = registers.cr4
        cr8 = registers.cr8
        efer = registers.efer
        apicBase = registers.apic_base
    }

    var kernel: kvm_sregs {
        var registers = kvm_sregs()
        registers.cs = cs.kernel
        registers.ds = ds.kernel
        registers.es = es.kernel
        registers.fs = fs.kernel
        registers.gs = gs.kernel
        registers.ss = ss.kernel
        registers.tr = tr.kernel
        registers.ldt = ldtr.kernel
        registers.gdt = gdtr.kernel
        registers.idt = idtr.kernel
        registers.cr0 = cr0
        registers.cr2 = cr2
        registers.cr3 = cr3
        registers.cr4 = cr4
        registers.cr8 = cr8
        registers.efer = efer
        registers.apic_base = apicBase
        return registers
    }
}

extension DebugRegisters {
    init(_ registers: kvm_debugregs) {
        self.init()
        dr0 = registers.db.0
        dr1 = registers.db.1
        dr2 = registers.db.2
        dr3 = registers.db.3
        dr6 = registers.dr6
        dr7 = registers.dr7
    }

    var kernel: kvm_debugregs {
        var registers = kvm_debugregs()
        registers.db = (dr0, dr1, dr2, dr3)
        registers.dr6 = dr6
        registers.dr7 = dr7
        return registers
    }
}

extension PendingEvents {
    init(_ events: kvm_vcpu_events) {
        self.init()
        exceptionInjected = events.exception.injected != 0
        exceptionPending = events.exception.pending != 0
        exceptionVector = events.exception.nr
        exceptionHasErrorCode = events.exception.has_error_code != 0
        exceptionErrorCode = events.exception.error_code
        interruptInjected = events.interrupt.injected != 0
        interruptVector = events.interrupt.nr
        interruptIsSoft = events.interrupt.soft != 0
        shadow = events.interrupt.shadow
        nmiInjected = events.nmi.injected != 0
        nmiPending = events.nmi.pending != 0
        nmiMasked = events.nmi.masked != 0
        inSystemManagement = events.smi.smm != 0
    }

    var kernel: kvm_vcpu_events {
        var events = kvm_vcpu_events()
        events.exception.injected = exceptionInjected ? 1 : 0
        events.exception.nr = exceptionVector
        events.exception.has_error_code = exceptionHasErrorCode ? 1 : 0
        events.exception.error_code = exceptionErrorCode
        events.interrupt.injected = interruptInjected ? 1 : 0
        events.interrupt.nr = interruptVector
        events.interrupt.soft = interruptIsSoft ? 1 : 0
        events.interrupt.shadow = shadow
        events.nmi.injected = nmiInjected ? 1 : 0
        events.nmi.pending = nmiPending ? 1 : 0
        events.nmi.masked = nmiMasked ? 1 : 0
        events.flags = UInt32(KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW)
        return events
    }
}
