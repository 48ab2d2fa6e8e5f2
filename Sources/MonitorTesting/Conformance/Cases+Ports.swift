internal import VMCore

/// IN and OUT: every width, every form.
extension ConformanceCase {
    static let ports: [ConformanceCase] = [portWrites, portReads, stringWrites, stringReads, undrivenPorts, manyPortWrites]

    private static let portWrites: ConformanceCase = {
        let code = Snippet(
    bits: 16,
    """
    movl $0x44332211, %eax
    movw $0x300, %dx
    outb %al, %dx
    outw %ax, %dx
    outl %eax, %dx
    movw $0x307, %dx
    outb %al, %dx
    outb %al, $0x10
    """,
    [
        0x66, 0xB8, 0x11, 0x22, 0x33, 0x44, 0xBA, 0x00, 0x03, 0xEE, 0xEF, 0x66, 0xEF, 0xBA, 0x07, 0x03,
        0xEE, 0xE6, 0x10,
    ])
        return ConformanceCase("port writes of 1, 2 and 4 bytes", [code]) { factory in
            let device = RecordingDevice()
            let machine = try ConformanceMachine(factory, port: device)
            let state = try machine.runToEnd(machine.boot(code))
            try expectEqual(
                device.accesses,
                [
                    .init(write: 0, .byte, 0x11), .init(write: 0, .word, 0x2211), .init(write: 0, .long, 0x4433_2211),
                    .init(write: 7, .byte, 0x11),
                ], "accesses")
            try expectEqual(state.general.rip, ConformanceMachine.code + UInt64(code.bytes.count), "RIP after the last OUT")
        }
    }()

    private static let portReads: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movw $0x304, %dx
            movq $-1, %rax
            inb %dx, %al
            movq %rax, %rbx
            movq $-1, %rax
            inw %dx, %ax
            movq %rax, %rcx
            movq $-1, %rax
            inl %dx, %eax
            movq %rax, %rsi
            outb %al, $0x10
            """,
            [
                0x66, 0xBA, 0x04, 0x03, 0x48, 0xC7, 0xC0, 0xFF, 0xFF, 0xFF, 0xFF, 0xEC, 0x48, 0x89, 0xC3, 0x48,
                0xC7, 0xC0, 0xFF, 0xFF, 0xFF, 0xFF, 0x66, 0xED, 0x48, 0x89, 0xC1, 0x48, 0xC7, 0xC0, 0xFF, 0xFF,
                0xFF, 0xFF, 0xED, 0x48, 0x89, 0xC6, 0xE6, 0x10,
            ])
        return ConformanceCase("port reads of 1, 2 and 4 bytes, and what they leave of RAX", [code]) { factory in
            let device = RecordingDevice(answer: { _, _ in 0x8765_4321 })
            let machine = try ConformanceMachine(factory, port: device)
            let state = try machine.runToEnd(machine.boot(code))
            try expectEqual(hex(state.general.rbx), "0xffffffffffffff21", "RAX after INB")
            try expectEqual(hex(state.general.rcx), "0xffffffffffff4321", "RAX after INW")
            try expectEqual(hex(state.general.rsi), "0x87654321", "RAX after INL")
            try expectEqual(
                device.accesses,
                [.init(read: 4, .byte, 0x21), .init(read: 4, .word, 0x4321), .init(read: 4, .long, 0x8765_4321)], "accesses")
        }
    }()

    private static let stringWrites: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            cld
            movl $0x20000, %esi
            movl $0x300, %edx
            movl $5, %ecx
            rep outsb
            movl $3, %ecx
            rep outsw
            movl $2, %ecx
            rep outsl
            movq %rsi, %rbx
            xorl %ecx, %ecx
            rep outsb
            movl $0x20003, %esi
            movl $4, %ecx
            std
            rep outsb
            cld
            outb %al, $0x10
            """,
            [
                0xFC, 0xBE, 0x00, 0x00, 0x02, 0x00, 0xBA, 0x00, 0x03, 0x00, 0x00, 0xB9, 0x05, 0x00, 0x00, 0x00,
                0xF3, 0x6E, 0xB9, 0x03, 0x00, 0x00, 0x00, 0xF3, 0x66, 0x6F, 0xB9, 0x02, 0x00, 0x00, 0x00, 0xF3,
                0x6F, 0x48, 0x89, 0xF3, 0x31, 0xC9, 0xF3, 0x6E, 0xBE, 0x03, 0x00, 0x02, 0x00, 0xB9, 0x04, 0x00,
                0x00, 0x00, 0xFD, 0xF3, 0x6E, 0xFC, 0xE6, 0x10,
            ])
        return ConformanceCase("string writes: OUTS with REP, backwards, none", [code]) { factory in
            let device = RecordingDevice()
            let machine = try ConformanceMachine(factory, port: device)
            let bytes = (0..<32).map { UInt8($0 &* 7 &+ 1) }
            try machine.memory.write(bytes, at: GuestAddress(ConformanceMachine.data))
            let state = try machine.runToEnd(machine.boot(code))
            func value(_ at: Int, _ count: Int) -> UInt64 {
                (0..<count).reduce(0) { $0 | UInt64(bytes[at + $1]) << (8 * UInt64($1)) }
            }
            var wanted = (0..<5).map { BusAccess(write: 0, .byte, value($0, 1)) }
            wanted += (0..<3).map { BusAccess(write: 0, .word, value(5 + 2 * $0, 2)) }
            wanted += (0..<2).map { BusAccess(write: 0, .long, value(11 + 4 * $0, 4)) }
            wanted += (0..<4).map { BusAccess(write: 0, .byte, value(3 - $0, 1)) }
            try expectEqual(device.accesses, wanted, "accesses")
            try expectEqual(hex(state.general.rbx), "0x20013", "RSI after the forward moves")
            try expectEqual(hex(state.general.rsi), "0x1ffff", "RSI after the backward move")
            try expectEqual(state.general.rcx, 0, "RCX")
        }
    }()

    private static let stringReads: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            cld
            movl $0x20ffd, %edi
            movl $0x302, %edx
            movl $7, %ecx
            rep insb
            movl $2, %ecx
            rep insw
            movl $2, %ecx
            rep insl
            outb %al, $0x10
            """,
            [
                0xFC, 0xBF, 0xFD, 0x0F, 0x02, 0x00, 0xBA, 0x02, 0x03, 0x00, 0x00, 0xB9, 0x07, 0x00, 0x00, 0x00,
                0xF3, 0x6C, 0xB9, 0x02, 0x00, 0x00, 0x00, 0xF3, 0x66, 0x6D, 0xB9, 0x02, 0x00, 0x00, 0x00, 0xF3,
                0x6D, 0xE6, 0x10,
            ])
        return ConformanceCase("string reads: INS with REP, across a page's end", [code]) { factory in
            let count = Counter()
            let device = RecordingDevice(answer: { _, _ in count.next() &* 0x0101_0101 })
            let machine = try ConformanceMachine(factory, port: device)
            let state = try machine.runToEnd(machine.boot(code))
            let bytes = try machine.memory.read(at: GuestAddress(0x20FFD), count: 20)
            try expectEqual(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 9, 10, 10, 10, 10, 11, 11, 11, 11, 0], "memory")
            try expectEqual(hex(state.general.rdi), "0x21010", "RDI")
            try expectEqual(device.accesses.map(\.offset), [UInt64](repeating: 2, count: 11), "ports")
        }
    }()

    private static let undrivenPorts: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            xorl %eax, %eax
            movl $0xABCD, %edx
            inl %dx, %eax
            movl %eax, %ebx
            outl %eax, %dx
            movl $0x30e, %edx
            inl %dx, %eax
            movl %eax, %ecx
            outb %al, $0x10
            """,
            [
                0x31, 0xC0, 0xBA, 0xCD, 0xAB, 0x00, 0x00, 0xED, 0x89, 0xC3, 0xEF, 0xBA, 0x0E, 0x03, 0x00, 0x00,
                0xED, 0x89, 0xC1, 0xE6, 0x10,
            ])
        return ConformanceCase("a port nobody drives reads as ones; an access across a device's end is split", [code]) { factory in
            let device = RecordingDevice(answer: { offset, _ in offset })
            let machine = try ConformanceMachine(factory, port: device)
            let state = try machine.runToEnd(machine.boot(code))
            try expectEqual(hex(state.general.rbx), "0xffffffff", "an undriven port")
            try expectEqual(hex(state.general.rcx), "0xffff000e", "two bytes of the device, two of nobody")
        }
    }()

    private static let manyPortWrites: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            xorl %eax, %eax
            movl $0x300, %edx
            1: outl %eax, %dx
            incl %eax
            cmpl $5000, %eax
            jne 1b
            outb %al, $0x10
            """,
            [
                0x31, 0xC0, 0xBA, 0x00, 0x03, 0x00, 0x00, 0xEF, 0xFF, 0xC0, 0x3D, 0x88, 0x13, 0x00, 0x00, 0x75,
                0xF6, 0xE6, 0x10,
            ])
        return ConformanceCase("five thousand port writes, in order, none twice", [code]) { factory in
            let device = RecordingDevice()
            let machine = try ConformanceMachine(factory, port: device)
            let vcpu = try machine.boot(code)
            try machine.runToEnd(vcpu)
            try expectEqual(device.accesses.count, 5000, "writes")
            for (index, access) in device.accesses.enumerated() { try expectEqual(access.value, UInt64(index), "a write") }
            try expect(vcpu.statistics.portWrites >= 5001, "statistics count \(vcpu.statistics.portWrites) port writes")
        }
    }()
}
