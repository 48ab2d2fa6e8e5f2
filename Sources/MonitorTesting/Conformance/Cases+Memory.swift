internal import VMCore

/// Loads and stores outside RAM, and RAM shared with the host.
extension ConformanceCase {
    static let memoryMapped: [ConformanceCase] = [
        deviceWrites, deviceReads, pageCrossing, ramToDevice, undrivenMemory, stringsAndDevices, readModifyWrite, vectorsAndDevices,
        sharedMemory, pagesInEachOthersWay,
    ]

    /// What no hypervisor's emulator knows, so that it comes to the software CPU where a hypervisor is in between.
    private static let vectorsAndDevices: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0xD0000000, %ebx
            pcmpeqd %xmm0, %xmm0
            pxor (%rbx), %xmm0
            movlps %xmm0, 24(%rbx)
            movl $0x20000, %ecx
            movups %xmm0, (%rcx)
            outb %al, $0x10
            """,
            [
                0xBB, 0x00, 0x00, 0x00, 0xD0, 0x66, 0x0F, 0x76, 0xC0, 0x66, 0x0F, 0xEF, 0x03, 0x0F, 0x13, 0x43,
                0x18, 0xB9, 0x00, 0x00, 0x02, 0x00, 0x0F, 0x11, 0x01, 0xE6, 0x10,
            ])
        return ConformanceCase("vector operands in device space are read and written once", [code]) { factory in
            let device = RecordingDevice(answer: { offset, _ in 0x1112_1314_1516_1718 &+ offset })
            let machine = try ConformanceMachine(factory, mmio: device)
            try machine.runToEnd(machine.boot(code) { _, system in system.cr4 |= 0x200 })
            try expectEqual(
                device.accesses,
                [
                    .init(read: 0, .quad, 0x1112_1314_1516_1718), .init(read: 8, .quad, 0x1112_1314_1516_1720),
                    .init(write: 24, .quad, ~0x1112_1314_1516_1718),
                ], "the accesses")
            try expectEqual(hex(try machine.load(UInt64.self, at: 0x20008)), hex(~0x1112_1314_1516_1720 as UInt64), "the register")
        }
    }()

    private static let deviceWrites: ConformanceCase = {
        let code = Snippet(
    bits: 64,
    """
    movabsq $0x8877665544332211, %rax
    movl $0xD0000000, %ebx
    movb %al, (%rbx)
    movw %ax, 2(%rbx)
    movl %eax, 4(%rbx)
    movq %rax, 8(%rbx)
    movb $0x5A, 17(%rbx)
    movl $0x12345678, 20(%rbx)
    outb %al, $0x10
    """,
    [
        0x48, 0xB8, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0xBB, 0x00, 0x00, 0x00, 0xD0, 0x88,
        0x03, 0x66, 0x89, 0x43, 0x02, 0x89, 0x43, 0x04, 0x48, 0x89, 0x43, 0x08, 0xC6, 0x43, 0x11, 0x5A,
        0xC7, 0x43, 0x14, 0x78, 0x56, 0x34, 0x12, 0xE6, 0x10,
    ])
        return ConformanceCase("device stores of 1, 2, 4 and 8 bytes", [code]) { factory in
            let device = RecordingDevice()
            let machine = try ConformanceMachine(factory, mmio: device)
            try machine.runToEnd(machine.boot(code))
            try expectEqual(
                device.accesses,
                [
                    .init(write: 0, .byte, 0x11), .init(write: 2, .word, 0x2211), .init(write: 4, .long, 0x4433_2211),
                    .init(write: 8, .quad, 0x8877_6655_4433_2211), .init(write: 17, .byte, 0x5A),
                    .init(write: 20, .long, 0x1234_5678),
                ], "accesses")
        }
    }()

    private static let deviceReads: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0xD0000000, %ebp
            movzbl (%rbp), %eax
            movq $-1, %rbx
            movw 2(%rbp), %bx
            movq $-1, %rcx
            movl 4(%rbp), %ecx
            movq 8(%rbp), %rsi
            movsbl 16(%rbp), %edi
            movslq 20(%rbp), %r8
            movzwl 24(%rbp), %r9d
            outb %al, $0x10
            """,
            [
                0xBD, 0x00, 0x00, 0x00, 0xD0, 0x0F, 0xB6, 0x45, 0x00, 0x48, 0xC7, 0xC3, 0xFF, 0xFF, 0xFF, 0xFF,
                0x66, 0x8B, 0x5D, 0x02, 0x48, 0xC7, 0xC1, 0xFF, 0xFF, 0xFF, 0xFF, 0x8B, 0x4D, 0x04, 0x48, 0x8B,
                0x75, 0x08, 0x0F, 0xBE, 0x7D, 0x10, 0x4C, 0x63, 0x45, 0x14, 0x44, 0x0F, 0xB7, 0x4D, 0x18, 0xE6,
                0x10,
            ])
        return ConformanceCase("device loads of 1, 2, 4 and 8 bytes, with extension", [code]) { factory in
            let device = RecordingDevice(answer: { offset, _ in 0xF8F7_F6F5_F4F3_F2F0 | offset })
            let machine = try ConformanceMachine(factory, mmio: device)
            let g = try machine.runToEnd(machine.boot(code)).general
            try expectEqual(hex(g.rbx), "0xfffffffffffff2f2", "MOVW")
            try expectEqual(hex(g.rcx), "0xf4f3f2f4", "MOVL")
            try expectEqual(hex(g.rsi), "0xf8f7f6f5f4f3f2f8", "MOVQ")
            try expectEqual(hex(g.rdi), "0xfffffff0", "MOVSBL")
            try expectEqual(hex(g.r8), "0xfffffffff4f3f2f4", "MOVSLQ")
            try expectEqual(hex(g.r9), "0xf2f8", "MOVZWL")
            try expectEqual(device.accesses.map(\.width), [.byte, .word, .long, .quad, .byte, .long, .word], "widths")
        }
    }()

    private static let pageCrossing: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0xD0000000, %ebx
            movabsq $0x8877665544332211, %rax
            movq %rax, 0xFFD(%rbx)
            movl %eax, 0x1FFF(%rbx)
            movw %ax, 0x2FFF(%rbx)
            movq 0xFFD(%rbx), %rcx
            movl 0x1FFF(%rbx), %esi
            movzwl 0x2FFF(%rbx), %edi
            outb %al, $0x10
            """,
            [
                0xBB, 0x00, 0x00, 0x00, 0xD0, 0x48, 0xB8, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x48,
                0x89, 0x83, 0xFD, 0x0F, 0x00, 0x00, 0x89, 0x83, 0xFF, 0x1F, 0x00, 0x00, 0x66, 0x89, 0x83, 0xFF,
                0x2F, 0x00, 0x00, 0x48, 0x8B, 0x8B, 0xFD, 0x0F, 0x00, 0x00, 0x8B, 0xB3, 0xFF, 0x1F, 0x00, 0x00,
                0x0F, 0xB7, 0xBB, 0xFF, 0x2F, 0x00, 0x00, 0xE6, 0x10,
            ])
        return ConformanceCase("device accesses across a page's end", [code]) { factory in
            let device = ByteDevice([UInt8](repeating: 0, count: 0x10000))
            let machine = try ConformanceMachine(factory, mmio: device)
            let g = try machine.runToEnd(machine.boot(code)).general
            let bytes = device.contents
            try expectEqual(Array(bytes[0xFFC..<0x1006]), [0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0], "eight bytes")
            try expectEqual(Array(bytes[0x1FFE..<0x2004]), [0, 0x11, 0x22, 0x33, 0x44, 0], "four bytes")
            try expectEqual(Array(bytes[0x2FFE..<0x3002]), [0, 0x11, 0x22, 0], "two bytes")
            try expectEqual(hex(g.rcx), "0x8877665544332211", "eight bytes read back")
            try expectEqual(hex(g.rsi), "0x44332211", "four bytes read back")
            try expectEqual(hex(g.rdi), "0x2211", "two bytes read back")
        }
    }()

    private static let ramToDevice: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0x400000, %ebx
            movabsq $0x8877665544332211, %rax
            movq %rax, -4(%rbx)
            movq -4(%rbx), %rcx
            outb %al, $0x10
            """,
            [
                0xBB, 0x00, 0x00, 0x40, 0x00, 0x48, 0xB8, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x48,
                0x89, 0x43, 0xFC, 0x48, 0x8B, 0x4B, 0xFC, 0xE6, 0x10,
            ])
        return ConformanceCase("an access across the end of RAM", [code]) { factory in
            let machine = try ConformanceMachine(factory)
            let g = try machine.runToEnd(machine.boot(code)).general
            try expectEqual(hex(try machine.load(UInt32.self, at: ConformanceMachine.size - 4)), "0x44332211", "RAM's part")
            try expectEqual(hex(g.rcx), "0xffffffff44332211", "RAM and nothing")
        }
    }()

    private static let undrivenMemory: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0xC0001000, %ebp
            xorl %eax, %eax
            movb (%rbp), %al
            xorl %ebx, %ebx
            movw (%rbp), %bx
            xorl %ecx, %ecx
            movl (%rbp), %ecx
            movq (%rbp), %rsi
            movq %rsp, (%rbp)
            movq (%rbp), %rdi
            outb %al, $0x10
            """,
            [
                0xBD, 0x00, 0x10, 0x00, 0xC0, 0x31, 0xC0, 0x8A, 0x45, 0x00, 0x31, 0xDB, 0x66, 0x8B, 0x5D, 0x00,
                0x31, 0xC9, 0x8B, 0x4D, 0x00, 0x48, 0x8B, 0x75, 0x00, 0x48, 0x89, 0x65, 0x00, 0x48, 0x8B, 0x7D,
                0x00, 0xE6, 0x10,
            ])
        return ConformanceCase("memory nobody drives reads as ones and swallows stores", [code]) { factory in
            let machine = try ConformanceMachine(factory)
            let g = try machine.runToEnd(machine.boot(code)).general
            try expectEqual(hex(g.rax), "0xff", "a byte")
            try expectEqual(hex(g.rbx), "0xffff", "a word")
            try expectEqual(hex(g.rcx), "0xffffffff", "a long")
            try expectEqual(g.rsi, .max, "a quad")
            try expectEqual(g.rdi, .max, "a quad after a store")
        }
    }()

    private static let stringsAndDevices: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            cld
            movl $0x20000, %esi
            movl $0xD0000FF8, %edi
            movl $16, %ecx
            rep movsb
            movl $0xD0000FF8, %esi
            movl $0x20100, %edi
            movl $4, %ecx
            rep movsl
            movl $0xD0002000, %edi
            movl $0xA5, %eax
            movl $9, %ecx
            rep stosb
            outb %al, $0x10
            """,
            [
                0xFC, 0xBE, 0x00, 0x00, 0x02, 0x00, 0xBF, 0xF8, 0x0F, 0x00, 0xD0, 0xB9, 0x10, 0x00, 0x00, 0x00,
                0xF3, 0xA4, 0xBE, 0xF8, 0x0F, 0x00, 0xD0, 0xBF, 0x00, 0x01, 0x02, 0x00, 0xB9, 0x04, 0x00, 0x00,
                0x00, 0xF3, 0xA5, 0xBF, 0x00, 0x20, 0x00, 0xD0, 0xB8, 0xA5, 0x00, 0x00, 0x00, 0xB9, 0x09, 0x00,
                0x00, 0x00, 0xF3, 0xAA, 0xE6, 0x10,
            ])
        return ConformanceCase("string moves into, out of and over a device", [code]) { factory in
            let device = ByteDevice([UInt8](repeating: 0, count: 0x10000))
            let machine = try ConformanceMachine(factory, mmio: device)
            let bytes = (1...16).map { UInt8($0) }
            try machine.memory.write(bytes, at: GuestAddress(ConformanceMachine.data))
            let g = try machine.runToEnd(machine.boot(code)).general
            try expectEqual(Array(device.contents[0xFF7..<0x1009]), [0] + bytes + [0], "the device")
            try expectEqual(try machine.memory.read(at: GuestAddress(0x20100), count: 16), bytes, "memory")
            try expectEqual(Array(device.contents[0x2000..<0x200A]), [UInt8](repeating: 0xA5, count: 9) + [0], "STOS")
            try expectEqual(g.rcx, 0, "RCX")
        }
    }()

    private static let readModifyWrite: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0xD0000000, %ebx
            movl $0x10, %eax
            addl %eax, (%rbx)
            orb $0x80, 4(%rbx)
            andl $0x0F, 8(%rbx)
            xorl %eax, 12(%rbx)
            outb %al, $0x10
            """,
            [
                0xBB, 0x00, 0x00, 0x00, 0xD0, 0xB8, 0x10, 0x00, 0x00, 0x00, 0x01, 0x03, 0x80, 0x4B, 0x04, 0x80,
                0x83, 0x63, 0x08, 0x0F, 0x31, 0x43, 0x0C, 0xE6, 0x10,
            ])
        return ConformanceCase("read, modify, write on a device", [code]) { factory in
            let device = ByteDevice([5, 0, 0, 0, 1, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0x11, 0, 0, 0])
            let machine = try ConformanceMachine(factory, mmio: device)
            try machine.runToEnd(machine.boot(code))
            try expectEqual(device.contents, [0x15, 0, 0, 0, 0x81, 0, 0, 0, 0x0F, 0, 0, 0, 1, 0, 0, 0], "the device")
        }
    }()

    private static let sharedMemory: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0x300, %edx
            1: movl 0x20000, %eax
            outl %eax, %dx
            movl %eax, 0x20004
            outl %eax, %dx
            incl 0x20008
            cmpl $100, 0x20008
            jne 1b
            outb %al, $0x10
            """,
            [
                0xBA, 0x00, 0x03, 0x00, 0x00, 0x8B, 0x04, 0x25, 0x00, 0x00, 0x02, 0x00, 0xEF, 0x89, 0x04, 0x25,
                0x04, 0x00, 0x02, 0x00, 0xEF, 0xFF, 0x04, 0x25, 0x08, 0x00, 0x02, 0x00, 0x83, 0x3C, 0x25, 0x08,
                0x00, 0x02, 0x00, 0x64, 0x75, 0xDF, 0xE6, 0x10,
            ])
        return ConformanceCase("the host's stores are the guest's, and the other way round", [code]) { factory in
            let relay = Relay()
            let device = RecordingDevice(onWrite: { relay.call($0) })
            let machine = try ConformanceMachine(factory, port: device)
            let count = Counter()
            let mismatches = Counter()
            let memory = machine.memory
            relay.set { access in
                let step = count.next()
                // Odd: the guest has read what we stored. Even: it has stored that back.
                let base = ConformanceMachine.data
                let stored = try? memory.load(UInt32.self, at: GuestAddress(base + (step % 2 == 1 ? 0 : 4)))
                if stored.map(UInt64.init) != access.value { _ = mismatches.next() }
                if step % 2 == 0 { try? memory.store(UInt32(truncatingIfNeeded: step &* 977), at: GuestAddress(base)) }
            }
            try machine.runToEnd(machine.boot(code))
            try expectEqual(count.current, 200, "steps")
            try expectEqual(mismatches.current, 0, "stale values")
        }
    }()

    /// An engine that keeps few translations may find two of one instruction's pages in each other's way, wherever they are.
    private static let pagesInEachOthersWay: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0x2F0000, %ebx
            leaq 1f(%rip), %rax
            movq %rax, (%rbx)
            xorl %ecx, %ecx
            movl $0x400000, %edx
            0: leal 0x800(%rdx), %esp
            callq *(%rbx)
            pushq (%rbx)
            popq (%rbx)
            movl %ebx, %esi
            movl %edx, %edi
            movsq
            addl $0x1000, %edx
            cmpl $0xC00000, %edx
            jb 0b
            outb %al, $0x10
            1: incl %ecx
            retq
            """,
            [
                0xBB, 0x00, 0x00, 0x2F, 0x00, 0x48, 0x8D, 0x05, 0x2C, 0x00, 0x00, 0x00, 0x48, 0x89, 0x03, 0x31,
                0xC9, 0xBA, 0x00, 0x00, 0x40, 0x00, 0x8D, 0xA2, 0x00, 0x08, 0x00, 0x00, 0xFF, 0x13, 0xFF, 0x33,
                0x8F, 0x03, 0x89, 0xDE, 0x89, 0xD7, 0x48, 0xA5, 0x81, 0xC2, 0x00, 0x10, 0x00, 0x00, 0x81, 0xFA,
                0x00, 0x00, 0xC0, 0x00, 0x72, 0xE0, 0xE6, 0x10, 0xFF, 0xC1, 0xC3,
            ])
        return ConformanceCase("an instruction that needs two pages, 2048 pairs of them", [code]) { factory in
            let machine = try ConformanceMachine(factory)
            // 4 to 12 MiB: the third and fourth megabyte of RAM, again and again.
            for entry in 2..<6 as Range<UInt64> {
                try machine.memory.store(
                    0x20_0083 as UInt64, at: GuestAddress(ConformanceMachine.pageTables + 0x2000 + 8 * entry))
            }
            try expectEqual(try machine.runToEnd(machine.boot(code)).general.rcx, 2048, "calls")
        }
    }()
}
