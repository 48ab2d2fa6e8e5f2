internal import VMCore

/// State in the common form: what is set is read back, what the guest changes is seen, what is set the guest sees.
extension ConformanceCase {
    static let state: [ConformanceCase] = [
        generalRegisters, systemRegisters, modelSpecificRegisters, extendedRegisters, debugRegisters, guestSeesState,
        taskPriority, stateAfterAccess, resumedElsewhere,
    ]

    private static func distinctRegisters() -> GeneralRegisters {
        var g = GeneralRegisters()
        func value(_ n: UInt64) -> UInt64 { 0x0101_0101_0101_0101 &* n | n << 60 }
        g.rax = value(1)
        g.rcx = value(2)
        g.rdx = value(3)
        g.rbx = value(4)
        g.rsp = value(5)
        g.rbp = value(6)
        g.rsi = value(7)
        g.rdi = value(8)
        g.r8 = value(9)
        g.r9 = value(10)
        g.r10 = value(11)
        g.r11 = value(12)
        g.r12 = value(13)
        g.r13 = value(14)
        g.r14 = value(15)
        g.r15 = value(16)
        g.rip = ConformanceMachine.code
        g.rflags = 0xCD7
        return g
    }

    private static let generalRegisters = ConformanceCase("general registers: set, then read", []) { factory in
        let machine = try ConformanceMachine(factory)
        let vcpu = try machine.makeVCPU()
        var state = try vcpu.state()
        (_, state.system) = ConformanceMachine.entry(.long64)
        state.general = distinctRegisters()
        try vcpu.setState(state)
        try expectEqual(try vcpu.state().general, state.general, "the registers")
    }

    private static let systemRegisters = ConformanceCase("segments, tables and control registers, in each mode", []) { factory in
        for mode in [ConformanceMachine.Mode.real16, .protected32, .long64] {
            let machine = try ConformanceMachine(factory)
            let vcpu = try machine.makeVCPU()
            var state = try vcpu.state()
            let apicBase = state.system.apicBase
            (state.general, state.system) = ConformanceMachine.entry(mode)
            state.system.apicBase = apicBase
            state.system.cr2 = 0x1234_5678
            state.system.fs.base = 0x11_0000
            state.system.fs.selector = 0x23
            state.system.gs.base = mode == .long64 ? 0xFFFF_8880_0000_0000 : 0x22_0000
            state.system.idtr = TableState(base: 0x7000, limit: 0x123)
            try vcpu.setState(state)
            let read = try vcpu.state().system
            try expectEqual(read.cs, state.system.cs, "CS in \(mode)")
            try expectEqual(read.ss, state.system.ss, "SS in \(mode)")
            try expectEqual(read.fs, state.system.fs, "FS in \(mode)")
            try expectEqual(read.gs, state.system.gs, "GS in \(mode)")
            try expectEqual(read.tr, state.system.tr, "TR in \(mode)")
            try expectEqual(read.gdtr, state.system.gdtr, "GDTR in \(mode)")
            try expectEqual(read.idtr, state.system.idtr, "IDTR in \(mode)")
            try expectEqual(hex(read.cr0), hex(state.system.cr0), "CR0 in \(mode)")
            try expectEqual(hex(read.cr2), hex(state.system.cr2), "CR2 in \(mode)")
            try expectEqual(hex(read.cr3), hex(state.system.cr3), "CR3 in \(mode)")
            try expectEqual(hex(read.cr4), hex(state.system.cr4), "CR4 in \(mode)")
            try expectEqual(hex(read.efer), hex(state.system.efer), "EFER in \(mode)")
        }
    }

    /// STAR, LSTAR, FMASK, the swapped GS base, SYSENTER's three, PAT, TSC_AUX.
    private static let modelSpecificRegisters: ConformanceCase = {
        let code = Snippet(
    bits: 64,
    """
    movl $0xC0000082, %ecx
    rdmsr
    movl %eax, %esi
    movl %edx, %edi
    movl $0xC0000102, %ecx
    movl $0x55667788, %eax
    movl $0x00001122, %edx
    wrmsr
    outb %al, $0x10
    """,
    [
        0xB9, 0x82, 0x00, 0x00, 0xC0, 0x0F, 0x32, 0x89, 0xC6, 0x89, 0xD7, 0xB9, 0x02, 0x01, 0x00, 0xC0,
        0xB8, 0x88, 0x77, 0x66, 0x55, 0xBA, 0x22, 0x11, 0x00, 0x00, 0x0F, 0x30, 0xE6, 0x10,
    ])
        return ConformanceCase("model-specific registers: set, seen by the guest, changed by it, read", [code]) { factory in
            let machine = try ConformanceMachine(factory)
            let vcpu = try machine.boot(code)
            var state = try vcpu.state()
            (state.general, state.system) = ConformanceMachine.entry(.long64)
            state.msrs = [
                ModelSpecificRegister(index: 0xC000_0081, value: 0x0023_0010_0000_0000),
                ModelSpecificRegister(index: 0xC000_0082, value: 0xFFFF_8000_1234_5678),
                ModelSpecificRegister(index: 0xC000_0084, value: 0x47700),
                ModelSpecificRegister(index: 0x174, value: 0x10),
                ModelSpecificRegister(index: 0x175, value: 0x8000),
                ModelSpecificRegister(index: 0x176, value: 0x1000),
                ModelSpecificRegister(index: 0x277, value: 0x0007_0406_0007_0406),
            ]
            try vcpu.setState(state)
            let end = try machine.runToEnd(vcpu)
            try expectEqual(hex(end.general.rsi), "0x12345678", "LSTAR's low half by RDMSR")
            try expectEqual(hex(end.general.rdi), "0xffff8000", "LSTAR's high half by RDMSR")
            for wanted in state.msrs + [ModelSpecificRegister(index: 0xC000_0102, value: 0x1122_5566_7788)] {
                let found = end.msrs.first { $0.index == wanted.index }
                try expectEqual(found.map { hex($0.value) }, hex(wanted.value), "MSR \(hex(wanted.index))")
            }
        }
    }()

    private static let extendedRegisters = ConformanceCase("x87 and SSE registers: set, then read", []) { factory in
        let machine = try ConformanceMachine(factory)
        let vcpu = try machine.makeVCPU()
        var state = try vcpu.state()
        try expect(state.extended.count >= 576, "an extended area of \(state.extended.count) bytes")
        // Source: [SDM1 §10.5.1] the FXSAVE image: control word, then ST at 32 and XMM at 160.
        state.extended[0] = 0x7F
        state.extended[1] = 0x02
        for register in 0..<8 {
            for byte in 0..<10 { state.extended[32 + 16 * register + byte] = UInt8(register * 16 + byte + 1) }
        }
        for byte in 0..<256 { state.extended[160 + byte] = UInt8(truncatingIfNeeded: byte &* 3 &+ 7) }
        state.extended[24] = 0xA0
        state.extended[25] = 0x1F
        // XSTATE_BV: x87 and SSE are present.
        state.extended[512] |= 3
        try vcpu.setState(state)
        let read = try vcpu.state().extended
        try expectEqual(Array(read[0..<2]), Array(state.extended[0..<2]), "FCW")
        try expectEqual(Array(read[24..<28]), Array(state.extended[24..<28]), "MXCSR")
        try expectEqual(Array(read[160..<416]), Array(state.extended[160..<416]), "XMM")
        for register in 0..<8 {
            let at = 32 + 16 * register
            try expectEqual(Array(read[at..<at + 10]), Array(state.extended[at..<at + 10]), "ST\(register)")
        }
    }

    private static let debugRegisters = ConformanceCase("debug registers: set, then read", []) { factory in
        let machine = try ConformanceMachine(factory)
        let vcpu = try machine.makeVCPU()
        var state = try vcpu.state()
        state.debug.dr0 = 0x1000
        state.debug.dr1 = 0x2000
        state.debug.dr2 = 0x3000
        state.debug.dr3 = 0x4000
        state.debug.dr7 = 0x400
        try vcpu.setState(state)
        try expectEqual(try vcpu.state().debug, state.debug, "DR")
    }

    private static let guestSeesState: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            pushfq
            movq %rax, 0x20000
            movq %r15, 0x20008
            movq %rsi, 0x20010
            popq 0x20018
            movq %cr2, %rax
            movq %rax, 0x20020
            movq %fs:0, %rax
            movq %rax, 0x20028
            notq %r15
            leaq 1(%rsi,%rsi), %rsi
            stc
            outb %al, $0x10
            """,
            [
                0x9C, 0x48, 0x89, 0x04, 0x25, 0x00, 0x00, 0x02, 0x00, 0x4C, 0x89, 0x3C, 0x25, 0x08, 0x00, 0x02,
                0x00, 0x48, 0x89, 0x34, 0x25, 0x10, 0x00, 0x02, 0x00, 0x8F, 0x04, 0x25, 0x18, 0x00, 0x02, 0x00,
                0x0F, 0x20, 0xD0, 0x48, 0x89, 0x04, 0x25, 0x20, 0x00, 0x02, 0x00, 0x64, 0x48, 0x8B, 0x04, 0x25,
                0x00, 0x00, 0x00, 0x00, 0x48, 0x89, 0x04, 0x25, 0x28, 0x00, 0x02, 0x00, 0x49, 0xF7, 0xD7, 0x48,
                0x8D, 0x74, 0x36, 0x01, 0xF9, 0xE6, 0x10,
            ])
        return ConformanceCase("the guest runs on the state that was set, and its changes are read", [code]) { factory in
            let machine = try ConformanceMachine(factory)
            let vcpu = try machine.boot(code)
            var state = try vcpu.state()
            (_, state.system) = ConformanceMachine.entry(.long64)
            state.general = distinctRegisters()
            state.general.rsp = ConformanceMachine.stack
            state.general.rflags = 0x893
            state.system.cr2 = 0xABCD_EF01
            state.system.fs.base = 0x21000
            try machine.memory.store(UInt64(0x1357_9BDF), at: GuestAddress(0x21000))
            try vcpu.setState(state)
            let end = try machine.runToEnd(vcpu).general
            try expectEqual(hex(try machine.load(UInt64.self, at: 0x20000)), hex(state.general.rax), "RAX")
            try expectEqual(hex(try machine.load(UInt64.self, at: 0x20008)), hex(state.general.r15), "R15")
            try expectEqual(hex(try machine.load(UInt64.self, at: 0x20010)), hex(state.general.rsi), "RSI")
            try expectEqual(hex(try machine.load(UInt64.self, at: 0x20018) & 0xCD7), hex(UInt64(0x893)), "RFLAGS")
            try expectEqual(hex(try machine.load(UInt64.self, at: 0x20020)), "0xabcdef01", "CR2")
            try expectEqual(hex(try machine.load(UInt64.self, at: 0x20028)), "0x13579bdf", "memory through FS")
            try expectEqual(hex(end.r15), hex(~state.general.r15), "R15 as the guest left it")
            try expectEqual(hex(end.rsi), hex(state.general.rsi &* 2 &+ 1), "RSI as the guest left it")
            try expectEqual(end.rflags & 1, 1, "CF as the guest left it")
        }
    }()

    /// CR8, which where there is a local APIC is its task priority register.
    private static let taskPriority: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movq %cr8, %rax
            movq %rax, 0x20000
            movl $5, %eax
            movq %rax, %cr8
            movq %cr8, %rbx
            outb %al, $0x10
            """,
            [
                0x44, 0x0F, 0x20, 0xC0, 0x48, 0x89, 0x04, 0x25, 0x00, 0x00, 0x02, 0x00, 0xB8, 0x05, 0x00, 0x00,
                0x00, 0x44, 0x0F, 0x22, 0xC0, 0x44, 0x0F, 0x20, 0xC3, 0xE6, 0x10,
            ])
        return ConformanceCase("CR8: set, seen by the guest, changed by it", [code]) { factory in
            let machine = try ConformanceMachine(factory)
            let vcpu = try machine.boot(code)
            var state = try vcpu.state()
            state.system.cr8 = 9
            // The same register, and both are set.
            if state.localAPIC.count > 0x80 { state.localAPIC[0x80] = 0x90 }
            try vcpu.setState(state)
            try expectEqual(try vcpu.state().system.cr8, 9, "CR8 as it was set")
            let end = try machine.runToEnd(vcpu)
            try expectEqual(try machine.load(UInt64.self, at: 0x20000), 9, "CR8 as the guest found it")
            try expectEqual(end.general.rbx, 5, "CR8 as the guest read it back")
            try expectEqual(end.system.cr8, 5, "CR8 as the guest left it")
        }
    }()

    private static let stateAfterAccess: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0xD0000000, %ebx
            movl $0x20000, %edi
            movl (%rbx), %ecx
            outb %al, $0x10
            movl $0x55, %ecx
            outb %al, $0x10
            """,
            [
                0xBB, 0x00, 0x00, 0x00, 0xD0, 0xBF, 0x00, 0x00, 0x02, 0x00, 0x8B, 0x0B, 0xE6, 0x10, 0xB9, 0x55,
                0x00, 0x00, 0x00, 0xE6, 0x10,
            ])
        return ConformanceCase("state read in the middle of an access is whole", [code]) { factory in
            let relay = Relay()
            let device = RecordingDevice(
                answer: { offset, width in
                    relay.call(BusAccess(read: offset, width, 0))
                    return 0x1234_5678
                })
            let machine = try ConformanceMachine(factory, mmio: device)
            relay.set { _ in machine.kickAll() }
            let vcpu = try machine.boot(code)
            // The kick comes from within the load: when run returns, the load has happened, once.
            try expectEqual(try machine.run(vcpu), .kicked, "the exit")
            let state = try vcpu.state()
            try expectEqual(hex(state.general.rcx), "0x12345678", "what was loaded")
            try expectEqual(hex(state.general.rip), hex(ConformanceMachine.code + 12), "RIP after the load")
            relay.set { _ in }
            try machine.runToEnd(vcpu)
            try expectEqual(device.accesses.count, 1, "loads that reached the device")
        }
    }()

    private static let resumedElsewhere: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            incl 0x20000
            outb %al, $0x10
            incl 0x20000
            incl 0x20000
            outb %al, $0x10
            """,
            [
                0xFF, 0x04, 0x25, 0x00, 0x00, 0x02, 0x00, 0xE6, 0x10, 0xFF, 0x04, 0x25, 0x00, 0x00, 0x02, 0x00,
                0xFF, 0x04, 0x25, 0x00, 0x00, 0x02, 0x00, 0xE6, 0x10,
            ])
        return ConformanceCase("a guest goes on from its state on another vCPU", [code]) { factory in
            let first = try ConformanceMachine(factory)
            let state = try first.runToEnd(first.boot(code))
            let second = try ConformanceMachine(factory)
            let bytes = try first.memory.read(at: GuestAddress(0), count: Int(ConformanceMachine.size))
            try second.memory.write(bytes, at: GuestAddress(0))
            let vcpu = try second.makeVCPU()
            try vcpu.setState(state)
            let end = try second.runToEnd(vcpu)
            try expectEqual(try second.load(UInt32.self, at: 0x20000), 3, "the count")
            try expectEqual(hex(end.general.rip), hex(ConformanceMachine.code + UInt64(code.bytes.count)), "RIP")
        }
    }()
}
