internal import VMCore

/// Modes, exceptions, and code that changes under the processor.
extension ConformanceCase {
    static let execution: [ConformanceCase] = [
        realMode, protectedMode, modeSwitches, tripleFault, invalidOpcode, pageFault, realModeException, selfModifying,
        remapped, accessedAndDirty, halt,
    ]

    private static let realMode: ConformanceCase = {
        let code = Snippet(
    bits: 16,
    """
    movw $0x2000, %ax
    movw %ax, %ds
    movw $0x1234, %bx
    movw %bx, 0x10
    movw $0xFFFF, %si
    movb $0x77, %cl
    movb %cl, (%si)
    incw %si
    movb %cl, (%si)
    pushw %bx
    popw %di
    outb %al, $0x10
    """,
    [
        0xB8, 0x00, 0x20, 0x8E, 0xD8, 0xBB, 0x34, 0x12, 0x89, 0x1E, 0x10, 0x00, 0xBE, 0xFF, 0xFF, 0xB1,
        0x77, 0x88, 0x0C, 0x46, 0x88, 0x0C, 0x53, 0x5F, 0xE6, 0x10,
    ])
        return ConformanceCase("real mode: segment bases and 16-bit wrapping", [code]) { factory in
            let machine = try ConformanceMachine(factory)
            let state = try machine.runToEnd(machine.boot(code))
            try expectEqual(hex(try machine.load(UInt16.self, at: 0x20010)), "0x1234", "the store through DS")
            try expectEqual(hex(try machine.load(UInt8.self, at: 0x2FFFF)), "0x77", "the segment's last byte")
            try expectEqual(hex(try machine.load(UInt8.self, at: 0x20000)), "0x77", "the byte after wrapping")
            try expectEqual(hex(state.general.rdi), "0x1234", "PUSH and POP")
            try expectEqual(hex(state.system.ds.base), "0x20000", "the base of DS")
            try expectEqual(state.system.ds.selector, 0x2000, "DS")
        }
    }()

    private static let protectedMode: ConformanceCase = {
        let code = Snippet(
            bits: 32,
            """
            movl $0x20000, %ebx
            movl $0xCAFEBABE, (%ebx)
            pushl (%ebx)
            popl %ecx
            movl $-1, %eax
            addl $2, %eax
            adcl $0, %eax
            call 1f
            1: popl %edx
            outb %al, $0x10
            """,
            [
                0xBB, 0x00, 0x00, 0x02, 0x00, 0xC7, 0x03, 0xBE, 0xBA, 0xFE, 0xCA, 0xFF, 0x33, 0x59, 0xB8, 0xFF,
                0xFF, 0xFF, 0xFF, 0x83, 0xC0, 0x02, 0x83, 0xD0, 0x00, 0xE8, 0x00, 0x00, 0x00, 0x00, 0x5A, 0xE6,
                0x10,
            ])
        return ConformanceCase("32-bit protected mode", [code]) { factory in
            let machine = try ConformanceMachine(factory)
            let g = try machine.runToEnd(machine.boot(code)).general
            try expectEqual(hex(try machine.load(UInt32.self, at: 0x20000)), "0xcafebabe", "the store")
            try expectEqual(hex(g.rcx), "0xcafebabe", "PUSH and POP")
            try expectEqual(g.rax, 2, "carry")
            try expectEqual(g.rdx & ~0x3F, ConformanceMachine.code, "the return address")
        }
    }()

    private static let modeSwitches: ConformanceCase = {
        let code = Snippet(
            bits: 16,
            """
            0: cli
            lgdtl 0x5F0
            movl %cr0, %eax
            orl $1, %eax
            movl %eax, %cr0
            ljmpl $0x18, $0x1000 + (1f - 0b)
            .code32
            1: movl $0x10, %eax
            movl %eax, %ds
            movl %eax, %es
            movl %eax, %ss
            movl $0x8000, %esp
            movl %cr4, %eax
            orl $0x20, %eax
            movl %eax, %cr4
            movl $0x9000, %eax
            movl %eax, %cr3
            movl $0xC0000080, %ecx
            rdmsr
            orl $0x100, %eax
            wrmsr
            movl %cr0, %eax
            orl $0x80000000, %eax
            movl %eax, %cr0
            ljmpl $8, $0x1000 + (2f - 0b)
            .code64
            2: movabsq $0x123456789ABCDEF0, %rbx
            pushq %rbx
            popq %r15
            rdmsr
            outb %al, $0x10
            """,
            [
                0xFA, 0x66, 0x0F, 0x01, 0x16, 0xF0, 0x05, 0x0F, 0x20, 0xC0, 0x66, 0x83, 0xC8, 0x01, 0x0F, 0x22,
                0xC0, 0x66, 0xEA, 0x19, 0x10, 0x00, 0x00, 0x18, 0x00, 0xB8, 0x10, 0x00, 0x00, 0x00, 0x8E, 0xD8,
                0x8E, 0xC0, 0x8E, 0xD0, 0xBC, 0x00, 0x80, 0x00, 0x00, 0x0F, 0x20, 0xE0, 0x83, 0xC8, 0x20, 0x0F,
                0x22, 0xE0, 0xB8, 0x00, 0x90, 0x00, 0x00, 0x0F, 0x22, 0xD8, 0xB9, 0x80, 0x00, 0x00, 0xC0, 0x0F,
                0x32, 0x0D, 0x00, 0x01, 0x00, 0x00, 0x0F, 0x30, 0x0F, 0x20, 0xC0, 0x0D, 0x00, 0x00, 0x00, 0x80,
                0x0F, 0x22, 0xC0, 0xEA, 0x5A, 0x10, 0x00, 0x00, 0x08, 0x00, 0x48, 0xBB, 0xF0, 0xDE, 0xBC, 0x9A,
                0x78, 0x56, 0x34, 0x12, 0x53, 0x41, 0x5F, 0x0F, 0x32, 0xE6, 0x10,
            ])
        return ConformanceCase("from real mode through protected mode to 64-bit mode", [code]) { factory in
            let machine = try ConformanceMachine(factory)
            try machine.memory.store(UInt16(0x1F), at: GuestAddress(0x5F0))
            try machine.memory.store(UInt32(0x500), at: GuestAddress(0x5F2))
            let state = try machine.runToEnd(machine.boot(code))
            try expectEqual(hex(state.general.r15), "0x123456789abcdef0", "a 64-bit PUSH and POP")
            try expectEqual(hex(state.general.rax & 0xD00), "0x500", "EFER: LME and LMA")
            try expectEqual(hex(state.system.efer & 0xD00), "0x500", "EFER in the state")
            try expect(state.system.cs.long, "CS.L is clear")
            try expectEqual(state.system.cs.selector, 8, "CS")
            try expectEqual(hex(state.system.cr0 & 0x8000_0001), "0x80000001", "CR0")
            try expectEqual(hex(state.system.cr3), "0x9000", "CR3")
        }
    }()

    private static let tripleFault: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            lidt 0x20000
            ud2
            outb %al, $0x10
            """,
            [
                0x0F, 0x01, 0x1C, 0x25, 0x00, 0x00, 0x02, 0x00, 0x0F, 0x0B, 0xE6, 0x10,
            ])
        return ConformanceCase("a triple fault is a shutdown", [code]) { factory in
            let machine = try ConformanceMachine(factory)
            let exit = try machine.run(machine.boot(code))
            try expectEqual(exit, .shutdown, "the exit")
            try expect(machine.ended == nil, "the guest went on")
        }
    }()

    private static let invalidOpcode: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0x20100, %esp
            ud2
            outb %al, $0x10
            """,
            [
                0xBC, 0x00, 0x01, 0x02, 0x00, 0x0F, 0x0B, 0xE6, 0x10,
            ])
        let handler = Snippet(
            bits: 64,
            """
            movq (%rsp), %rbx
            movq 16(%rsp), %rcx
            movq 24(%rsp), %rsi
            addq $2, (%rsp)
            iretq
            """,
            [
                0x48, 0x8B, 0x1C, 0x24, 0x48, 0x8B, 0x4C, 0x24, 0x10, 0x48, 0x8B, 0x74, 0x24, 0x18, 0x48, 0x83,
                0x04, 0x24, 0x02, 0x48, 0xCF,
            ])
        return ConformanceCase("an invalid opcode: the frame, and the way back", [code, handler]) { factory in
            let machine = try ConformanceMachine(factory)
            try machine.handle(6, handler)
            let g = try machine.runToEnd(machine.boot(code)).general
            try expectEqual(hex(g.rbx), hex(ConformanceMachine.code + 5), "the saved RIP")
            try expectEqual(hex(g.rcx & 2), "0x2", "the saved RFLAGS")
            try expectEqual(hex(g.rsi), "0x20100", "the saved RSP")
            try expectEqual(hex(g.rsp), "0x20100", "RSP after IRET")
        }
    }()

    private static let pageFault: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0x7FE00000, %eax
            movb %al, 0x123(%rax)
            outb %al, $0x10
            """,
            [
                0xB8, 0x00, 0x00, 0xE0, 0x7F, 0x88, 0x80, 0x23, 0x01, 0x00, 0x00, 0xE6, 0x10,
            ])
        let handler = Snippet(
            bits: 64,
            """
            popq %rbx
            movq %cr2, %rcx
            movl $0x7FE00083, 0xCFF8
            invlpg (%rcx)
            iretq
            """,
            [
                0x5B, 0x0F, 0x20, 0xD1, 0xC7, 0x04, 0x25, 0xF8, 0xCF, 0x00, 0x00, 0x83, 0x00, 0xE0, 0x7F, 0x0F,
                0x01, 0x39, 0x48, 0xCF,
            ])
        return ConformanceCase("a page fault: error code, CR2, and the restart", [code, handler]) { factory in
            let machine = try ConformanceMachine(factory)
            try machine.handle(14, handler)
            // The last 2 MiB below 2 GiB: no RAM is behind it, which the restarted store does not mind.
            try machine.memory.store(UInt64(0), at: GuestAddress(0xCFF8))
            let g = try machine.runToEnd(machine.boot(code)).general
            try expectEqual(hex(g.rbx), "0x2", "the error code of a write to a page that is not there")
            try expectEqual(hex(g.rcx), "0x7fe00123", "CR2")
        }
    }()

    private static let realModeException: ConformanceCase = {
        let code = Snippet(
            bits: 16,
            """
            xorw %dx, %dx
            xorw %cx, %cx
            movw $7, %ax
            divw %cx
            outb %al, $0x10
            """,
            [
                0x31, 0xD2, 0x31, 0xC9, 0xB8, 0x07, 0x00, 0xF7, 0xF1, 0xE6, 0x10,
            ])
        let handler = Snippet(
            bits: 16,
            """
            movw %sp, %bp
            movw (%bp), %bx
            addw $2, (%bp)
            iretw
            """,
            [
                0x89, 0xE5, 0x8B, 0x5E, 0x00, 0x83, 0x46, 0x00, 0x02, 0xCF,
            ])
        return ConformanceCase("a real-mode exception through the vector table", [code, handler]) { factory in
            let machine = try ConformanceMachine(factory)
            try machine.handle(0, handler)
            let g = try machine.runToEnd(machine.boot(code)).general
            try expectEqual(hex(g.rbx), hex(ConformanceMachine.code + 7), "the saved IP")
            try expectEqual(g.rsp, ConformanceMachine.stack, "SP after IRET")
        }
    }()

    private static let selfModifying: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0x300, %edx
            xorl %ecx, %ecx
            1: movl $0, %eax
            outl %eax, %dx
            incl %ecx
            movl %ecx, 1b+1(%rip)
            cmpl $200, %ecx
            jne 1b
            movb $0x42, 2f+1(%rip)
            2: movb $0, %al
            outb %al, %dx
            outb %al, $0x10
            """,
            [
                0xBA, 0x00, 0x03, 0x00, 0x00, 0x31, 0xC9, 0xB8, 0x00, 0x00, 0x00, 0x00, 0xEF, 0xFF, 0xC1, 0x89,
                0x0D, 0xF3, 0xFF, 0xFF, 0xFF, 0x81, 0xF9, 0xC8, 0x00, 0x00, 0x00, 0x75, 0xEA, 0xC6, 0x05, 0x01,
                0x00, 0x00, 0x00, 0x42, 0xB0, 0x00, 0xEE, 0xE6, 0x10,
            ])
        return ConformanceCase("code that rewrites itself, the next instruction too", [code]) { factory in
            let device = RecordingDevice()
            let machine = try ConformanceMachine(factory, port: device)
            try machine.runToEnd(machine.boot(code))
            try expectEqual(
                device.accesses.map(\.value), (0..<200).map { UInt64($0) } + [0x42], "what each round's code wrote")
        }
    }()

    private static let remapped: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0x300000, %ebx
            movl (%rbx), %esi
            movl $0x200083, 0xB008
            movl $0x000083, 0xB008
            movl $0x200083, 0xB008
            movl $0x000083, 0xB008
            movq %cr3, %rax
            movq %rax, %cr3
            movl (%rbx), %edi
            movl $0x200083, 0xB008
            invlpg (%rbx)
            movl (%rbx), %ecx
            outb %al, $0x10
            """,
            [
                0xBB, 0x00, 0x00, 0x30, 0x00, 0x8B, 0x33, 0xC7, 0x04, 0x25, 0x08, 0xB0, 0x00, 0x00, 0x83, 0x00,
                0x20, 0x00, 0xC7, 0x04, 0x25, 0x08, 0xB0, 0x00, 0x00, 0x83, 0x00, 0x00, 0x00, 0xC7, 0x04, 0x25,
                0x08, 0xB0, 0x00, 0x00, 0x83, 0x00, 0x20, 0x00, 0xC7, 0x04, 0x25, 0x08, 0xB0, 0x00, 0x00, 0x83,
                0x00, 0x00, 0x00, 0x0F, 0x20, 0xD8, 0x0F, 0x22, 0xD8, 0x8B, 0x3B, 0xC7, 0x04, 0x25, 0x08, 0xB0,
                0x00, 0x00, 0x83, 0x00, 0x20, 0x00, 0x0F, 0x01, 0x3B, 0x8B, 0x0B, 0xE6, 0x10,
            ])
        return ConformanceCase("a changed page table counts from the flush on: CR3, then INVLPG", [code]) { factory in
            let machine = try ConformanceMachine(factory)
            try machine.memory.store(UInt32(0x1111_1111), at: GuestAddress(0x30_0000))
            try machine.memory.store(UInt32(0x2222_2222), at: GuestAddress(0x10_0000))
            let g = try machine.runToEnd(machine.boot(code)).general
            try expectEqual(hex(g.rsi), "0x11111111", "before")
            try expectEqual(hex(g.rdi), "0x22222222", "after the load of CR3")
            try expectEqual(hex(g.rcx), "0x11111111", "after INVLPG")
        }
    }()

    private static let accessedAndDirty: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl 0x200000, %eax
            movl 0xB008, %ebx
            movl %eax, 0x200000
            movl 0xB008, %ecx
            outb %al, $0x10
            """,
            [
                0x8B, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00, 0x8B, 0x1C, 0x25, 0x08, 0xB0, 0x00, 0x00, 0x89, 0x04,
                0x25, 0x00, 0x00, 0x20, 0x00, 0x8B, 0x0C, 0x25, 0x08, 0xB0, 0x00, 0x00, 0xE6, 0x10,
            ])
        return ConformanceCase("accessed and dirty bits in the page tables", [code]) { factory in
            let machine = try ConformanceMachine(factory)
            let g = try machine.runToEnd(machine.boot(code)).general
            try expectEqual(hex(g.rbx & 0x60), "0x20", "accessed, not dirty, after a load")
            try expectEqual(hex(g.rcx & 0x60), "0x60", "accessed and dirty after a store")
        }
    }()

    private static let halt: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            cli
            hlt
            movl $7, %ebx
            outb %al, $0x10
            """,
            [
                0xFA, 0xF4, 0xBB, 0x07, 0x00, 0x00, 0x00, 0xE6, 0x10,
            ])
        return ConformanceCase("HLT stops the guest, and no state is lost", [code]) { factory in
            let machine = try ConformanceMachine(factory)
            let vcpu = try machine.boot(code)
            if factory.features.contains(.localAPIC) {
                // It sleeps: only a kick brings it out.
                let thread = TestThread {
                    sleep(microseconds: 50_000)
                    machine.kickAll()
                }
                let exit = try machine.run(vcpu)
                thread.join()
                try expectEqual(exit, .kicked, "the exit")
            } else {
                try expectEqual(try machine.run(vcpu), .halted, "the exit")
            }
            try expect(machine.ended == nil, "the guest went on")
            var state = try vcpu.state()
            try expectEqual(hex(state.general.rip), hex(ConformanceMachine.code + 2), "RIP after HLT")
            state.runState = .runnable
            try vcpu.setState(state)
            try expectEqual(try machine.runToEnd(vcpu).general.rbx, 7, "RBX once it goes on")
        }
    }()
}
