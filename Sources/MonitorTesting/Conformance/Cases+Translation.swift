internal import VMCore

/// Code and its translations: what is remembered of them, and what makes an engine forget.
extension ConformanceCase {
    static let translation: [ConformanceCase] = [acrossPages, globalPages]

    /// MOV EAX, imm32 whose immediate lies in the next page but for a byte, and RET.
    private static let acrossPages: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0x3FFFFE, %ebx
            callq *%rbx
            movl %eax, %esi
            callq *%rbx
            movl %eax, %edi
            movb $0x33, 0x200001
            movq %cr3, %rax
            movq %rax, %cr3
            callq *%rbx
            movl %eax, %ecx
            movl $0x000083, 0xB010
            invlpg 0x400000
            callq *%rbx
            movl %eax, %r8d
            movl $0x200083, 0xB010
            movq %cr3, %rax
            movq %rax, %cr3
            callq *%rbx
            movl %eax, %r9d
            outb %al, $0x10
            """,
            [
                0xBB, 0xFE, 0xFF, 0x3F, 0x00, 0xFF, 0xD3, 0x89, 0xC6, 0xFF, 0xD3, 0x89, 0xC7, 0xC6, 0x04, 0x25,
                0x01, 0x00, 0x20, 0x00, 0x33, 0x0F, 0x20, 0xD8, 0x0F, 0x22, 0xD8, 0xFF, 0xD3, 0x89, 0xC1, 0xC7,
                0x04, 0x25, 0x10, 0xB0, 0x00, 0x00, 0x83, 0x00, 0x00, 0x00, 0x0F, 0x01, 0x3C, 0x25, 0x00, 0x00,
                0x40, 0x00, 0xFF, 0xD3, 0x41, 0x89, 0xC0, 0xC7, 0x04, 0x25, 0x10, 0xB0, 0x00, 0x00, 0x83, 0x00,
                0x20, 0x00, 0x0F, 0x20, 0xD8, 0x0F, 0x22, 0xD8, 0xFF, 0xD3, 0x41, 0x89, 0xC1, 0xE6, 0x10,
            ])
        return ConformanceCase("an instruction across two pages, the second one written to and mapped elsewhere", [code]) { factory in
            let machine = try ConformanceMachine(factory)
            // Linear 0x400000 is physical 0x200000 at first, then 0.
            try machine.memory.store(UInt64(0x20_0083), at: GuestAddress(0xB010))
            try machine.memory.write([0xB8, 0x11], at: GuestAddress(0x3F_FFFE))
            try machine.memory.write([0x11, 0x11, 0x11, 0xC3], at: GuestAddress(0x20_0000))
            try machine.memory.write([0x22, 0x22, 0x22, 0xC3], at: GuestAddress(0))
            let g = try machine.runToEnd(machine.boot(code)).general
            try expectEqual(hex(g.rsi), "0x11111111", "the first time")
            try expectEqual(hex(g.rdi), "0x11111111", "the second time")
            try expectEqual(hex(g.rcx), "0x11331111", "with a byte of the second page written")
            try expectEqual(hex(g.r8), "0x22222211", "with the second page mapped elsewhere, and INVLPG")
            try expectEqual(hex(g.r9), "0x11331111", "and back, with a load of CR3")
        }
    }()

    /// A global page is looked up anew after INVLPG and after CR4.PGE was off; one that is not, after a load of CR3.
    private static let globalPages: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movq %cr4, %rdx
            orl $0x80, %edx
            movq %rdx, %cr4
            movl 0x400000, %esi
            movl $0x000183, 0xB010
            invlpg 0x400000
            movl 0x400000, %edi
            movl $0x200083, 0xB010
            movl %edx, %eax
            andl $0xFFFFFF7F, %eax
            movq %rax, %cr4
            movq %rdx, %cr4
            movl 0x400000, %ecx
            movl $0x000083, 0xB010
            movq %cr3, %rax
            movq %rax, %cr3
            movl 0x400000, %r8d
            outb %al, $0x10
            """,
            [
                0x0F, 0x20, 0xE2, 0x81, 0xCA, 0x80, 0x00, 0x00, 0x00, 0x0F, 0x22, 0xE2, 0x8B, 0x34, 0x25, 0x00,
                0x00, 0x40, 0x00, 0xC7, 0x04, 0x25, 0x10, 0xB0, 0x00, 0x00, 0x83, 0x01, 0x00, 0x00, 0x0F, 0x01,
                0x3C, 0x25, 0x00, 0x00, 0x40, 0x00, 0x8B, 0x3C, 0x25, 0x00, 0x00, 0x40, 0x00, 0xC7, 0x04, 0x25,
                0x10, 0xB0, 0x00, 0x00, 0x83, 0x00, 0x20, 0x00, 0x89, 0xD0, 0x25, 0x7F, 0xFF, 0xFF, 0xFF, 0x0F,
                0x22, 0xE0, 0x0F, 0x22, 0xE2, 0x8B, 0x0C, 0x25, 0x00, 0x00, 0x40, 0x00, 0xC7, 0x04, 0x25, 0x10,
                0xB0, 0x00, 0x00, 0x83, 0x00, 0x00, 0x00, 0x0F, 0x20, 0xD8, 0x0F, 0x22, 0xD8, 0x44, 0x8B, 0x04,
                0x25, 0x00, 0x00, 0x40, 0x00, 0xE6, 0x10,
            ])
        return ConformanceCase("global pages: INVLPG, CR4.PGE, and a load of CR3 for the others", [code]) { factory in
            let machine = try ConformanceMachine(factory)
            // Linear 0x400000 is physical 0x200000 and global at first.
            try machine.memory.store(UInt64(0x20_0183), at: GuestAddress(0xB010))
            try machine.memory.store(UInt32(0x1111_1111), at: GuestAddress(0x20_0000))
            try machine.memory.store(UInt32(0x2222_2222), at: GuestAddress(0))
            let g = try machine.runToEnd(machine.boot(code)).general
            try expectEqual(hex(g.rsi), "0x11111111", "before")
            try expectEqual(hex(g.rdi), "0x22222222", "after INVLPG of a global page")
            try expectEqual(hex(g.rcx), "0x11111111", "after CR4.PGE went off and on")
            try expectEqual(hex(g.r8), "0x22222222", "after the load of CR3, of a page that is not global")
        }
    }()
}
