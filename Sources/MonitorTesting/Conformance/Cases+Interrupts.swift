internal import Synchronization
internal import VMCore

/// Interrupts from outside, by each way an engine may offer, and processors that start one another.
extension ConformanceCase {
    static let interrupts: [ConformanceCase] = [
        line, maskedByFlag, message, external, externalWindow, endOfInterrupt, startup,
    ]

    /// Acknowledges nothing: says that it was here, and ends.
    private static let endingHandler = Snippet(
    bits: 64,
    """
    movl $0x77, %ebx
    outb %al, $0x10
    1: jmp 1b
    """,
    [
        0xBB, 0x77, 0x00, 0x00, 0x00, 0xE6, 0x10, 0xEB, 0xFE,
    ])

    private static let line: ConformanceCase = {
        // The 8259A pair: vectors from 0x20, all but IR 5 masked. Then the case is told, and the processor sleeps.
        let code = Snippet(
    bits: 64,
    """
    movb $0x11, %al
    outb %al, $0x20
    movb $0x20, %al
    outb %al, $0x21
    movb $4, %al
    outb %al, $0x21
    movb $1, %al
    outb %al, $0x21
    movb $0xDF, %al
    outb %al, $0x21
    movl $0x300, %edx
    outb %al, %dx
    1: sti
    hlt
    jmp 1b
    """,
    [
        0xB0, 0x11, 0xE6, 0x20, 0xB0, 0x20, 0xE6, 0x21, 0xB0, 0x04, 0xE6, 0x21, 0xB0, 0x01, 0xE6, 0x21,
        0xB0, 0xDF, 0xE6, 0x21, 0xBA, 0x00, 0x03, 0x00, 0x00, 0xEE, 0xFB, 0xF4, 0xEB, 0xFC,
    ])
        return ConformanceCase(
            "an interrupt line, through the engine's own controllers", requires: [.interruptLines], [code, endingHandler]
        ) { factory in
            let relay = Relay()
            let machine = try ConformanceMachine(factory, port: RecordingDevice(onWrite: { relay.call($0) }))
            try expect(machine.engine.interruptLine(gsi: 5) != nil, "there is no line 5")
            try expect(machine.engine.interruptLine(gsi: 4_000_000) == nil, "there is a line 4000000")
            relay.set { _ in machine.engine.interruptLine(gsi: 5)?.pulse() }
            try machine.handle(0x25, endingHandler)
            try expectEqual(hex(try machine.runToEnd(machine.boot(code)).general.rbx), "0x77", "RBX from the handler")
        }
    }()

    private static let maskedByFlag: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0xFEE00000, %ebp
            movl $0x1FF, 0xF0(%rbp)
            cli
            movl $0x300, %edx
            outb %al, %dx
            xorl %ecx, %ecx
            1: incl %ecx
            cmpl $5000, %ecx
            jne 1b
            movl $1, %esi
            sti
            nop
            2: jmp 2b
            """,
            [
                0xBD, 0x00, 0x00, 0xE0, 0xFE, 0xC7, 0x85, 0xF0, 0x00, 0x00, 0x00, 0xFF, 0x01, 0x00, 0x00, 0xFA,
                0xBA, 0x00, 0x03, 0x00, 0x00, 0xEE, 0x31, 0xC9, 0xFF, 0xC1, 0x81, 0xF9, 0x88, 0x13, 0x00, 0x00,
                0x75, 0xF6, 0xBE, 0x01, 0x00, 0x00, 0x00, 0xFB, 0x90, 0xEB, 0xFE,
            ])
        return ConformanceCase(
            "an interrupt waits for IF, and for the instruction after STI", requires: [.localAPIC], [code, endingHandler]
        ) { factory in
            let relay = Relay()
            let machine = try ConformanceMachine(factory, port: RecordingDevice(onWrite: { relay.call($0) }))
            relay.set { _ in machine.engine.messages?.send(InterruptMessage(address: 0xFEE0_0000, data: 0x55)) }
            try machine.handle(0x55, endingHandler)
            let g = try machine.runToEnd(machine.boot(code)).general
            try expectEqual(g.rcx, 5000, "rounds with IF clear")
            try expectEqual(g.rsi, 1, "RSI, set just before STI")
        }
    }()

    private static let message: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0xFEE00000, %ebp
            movl $0x1FF, 0xF0(%rbp)
            movl $0x300, %edx
            xorl %r8d, %r8d
            1: outb %al, %dx
            2: sti
            hlt
            cli
            cmpl $50, %r8d
            je 3f
            testb $1, 0x20000
            jz 2b
            movb $0, 0x20000
            jmp 1b
            3: outb %al, $0x10
            """,
            [
                0xBD, 0x00, 0x00, 0xE0, 0xFE, 0xC7, 0x85, 0xF0, 0x00, 0x00, 0x00, 0xFF, 0x01, 0x00, 0x00, 0xBA,
                0x00, 0x03, 0x00, 0x00, 0x45, 0x31, 0xC0, 0xEE, 0xFB, 0xF4, 0xFA, 0x41, 0x83, 0xF8, 0x32, 0x74,
                0x14, 0xF6, 0x04, 0x25, 0x00, 0x00, 0x02, 0x00, 0x01, 0x74, 0xED, 0xC6, 0x04, 0x25, 0x00, 0x00,
                0x02, 0x00, 0x00, 0xEB, 0xE2, 0xE6, 0x10,
            ])
        let handler = Snippet(
            bits: 64,
            """
            incl %r8d
            movb $1, 0x20000
            movl $0, 0xB0(%rbp)
            iretq
            """,
            [
                0x41, 0xFF, 0xC0, 0xC6, 0x04, 0x25, 0x00, 0x00, 0x02, 0x00, 0x01, 0xC7, 0x85, 0xB0, 0x00, 0x00,
                0x00, 0x00, 0x00, 0x00, 0x00, 0x48, 0xCF,
            ])
        return ConformanceCase("fifty messages to a sleeping local APIC", requires: [.localAPIC], [code, handler]) { factory in
            let relay = Relay()
            let machine = try ConformanceMachine(factory, port: RecordingDevice(onWrite: { relay.call($0) }))
            relay.set { _ in
                let messages = machine.engine.messages
                // One for a processor that is not there goes nowhere.
                messages?.send(InterruptMessage(address: 0xFEE0_0000 | 200 << 12, data: 0x66))
                messages?.send(InterruptMessage(address: 0xFEE0_0000, data: 0x55))
            }
            try machine.handle(0x55, handler)
            try expectEqual(try machine.runToEnd(machine.boot(code)).general.r8, 50, "interrupts")
        }
    }()

    /// An 8259A's pin and its acknowledge cycle, without the chip.
    private final class Pin: ExternalInterruptSource {
        private let pending = Atomic<Bool>(false)
        let acknowledged = Counter()
        var isPending: Bool { pending.load(ordering: .sequentiallyConsistent) }
        func raise() { pending.store(true, ordering: .sequentiallyConsistent) }
        func acknowledge() -> UInt8 {
            pending.store(false, ordering: .sequentiallyConsistent)
            _ = acknowledged.next()
            return 0x41
        }
    }

    private static let countingHandler = Snippet(
            bits: 64,
            """
            incl %r8d
            iretq
            """,
            [
                0x41, 0xFF, 0xC0, 0x48, 0xCF,
            ])

    private static let external: ConformanceCase = {
        let code = Snippet(
    bits: 64,
    """
    xorl %r8d, %r8d
    movl $0x300, %edx
    1: movl %r8d, %ebx
    outb %al, %dx
    sti
    2: cmpl %ebx, %r8d
    je 2b
    cli
    cmpl $20, %r8d
    jne 1b
    outb %al, $0x10
    """,
    [
        0x45, 0x31, 0xC0, 0xBA, 0x00, 0x03, 0x00, 0x00, 0x44, 0x89, 0xC3, 0xEE, 0xFB, 0x41, 0x39, 0xD8,
        0x74, 0xFB, 0xFA, 0x41, 0x83, 0xF8, 0x14, 0x75, 0xEF, 0xE6, 0x10,
    ])
        return ConformanceCase(
            "an external interrupt source, raised from the guest's own access", requires: [.externalInterrupts],
            [code, countingHandler]
        ) { factory in
            let relay = Relay()
            let machine = try ConformanceMachine(factory, port: RecordingDevice(onWrite: { relay.call($0) }))
            let pin = Pin()
            machine.engine.connect(externalInterrupts: pin)
            relay.set { _ in
                pin.raise()
                machine.engine.externalInterruptsChanged()
            }
            try machine.handle(0x41, countingHandler)
            try expectEqual(try machine.runToEnd(machine.boot(code)).general.r8, 20, "interrupts")
            try expectEqual(pin.acknowledged.current, 20, "acknowledge cycles")
        }
    }()

    private static let externalWindow: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            xorl %r8d, %r8d
            sti
            1: cmpl $50, %r8d
            jb 1b
            cli
            outb %al, $0x10
            """,
            [
                0x45, 0x31, 0xC0, 0xFB, 0x41, 0x83, 0xF8, 0x32, 0x72, 0xFA, 0xFA, 0xE6, 0x10,
            ])
        return ConformanceCase(
            "an external interrupt source, raised by another thread", requires: [.externalInterrupts],
            [code, countingHandler]
        ) { factory in
            let machine = try ConformanceMachine(factory)
            let pin = Pin()
            machine.engine.connect(externalInterrupts: pin)
            try machine.handle(0x41, countingHandler)
            let vcpu = try machine.boot(code)
            let stop = Counter()
            let thread = TestThread {
                while stop.current == 0 {
                    if !pin.isPending {
                        pin.raise()
                        machine.engine.externalInterruptsChanged()
                    }
                    sleep(microseconds: 200)
                }
            }
            defer {
                _ = stop.next()
                thread.join()
            }
            let g = try machine.runToEnd(vcpu).general
            try expect(g.r8 >= 50, "only \(g.r8) interrupts")
            try expect(pin.acknowledged.current >= g.r8, "\(pin.acknowledged.current) acknowledge cycles for \(g.r8)")
        }
    }()

    private final class Listener: EndOfInterruptListener {
        let vectors = Mutex<[UInt8]>([])
        func endOfInterrupt(vector: UInt8) { vectors.withLock { $0.append(vector) } }
    }

    private static let endOfInterrupt: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0xFEE00000, %ebp
            movl $0x1FF, 0xF0(%rbp)
            xorl %r8d, %r8d
            movl $0x300, %edx
            outb %al, %dx
            sti
            1: cmpl $2, %r8d
            jb 1b
            outb %al, $0x10
            """,
            [
                0xBD, 0x00, 0x00, 0xE0, 0xFE, 0xC7, 0x85, 0xF0, 0x00, 0x00, 0x00, 0xFF, 0x01, 0x00, 0x00, 0x45,
                0x31, 0xC0, 0xBA, 0x00, 0x03, 0x00, 0x00, 0xEE, 0xFB, 0x41, 0x83, 0xF8, 0x02, 0x72, 0xFA, 0xE6,
                0x10,
            ])
        let handler = Snippet(
            bits: 64,
            """
            incl %r8d
            movl $0, 0xB0(%rbp)
            iretq
            """,
            [
                0x41, 0xFF, 0xC0, 0xC7, 0x85, 0xB0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x48, 0xCF,
            ])
        return ConformanceCase(
            "the end of a level-triggered interrupt is told, of an edge-triggered one is not", requires: [.endOfInterrupt],
            [code, handler]
        ) { factory in
            let relay = Relay()
            let machine = try ConformanceMachine(factory, port: RecordingDevice(onWrite: { relay.call($0) }))
            let listener = Listener()
            let level = InterruptMessage(address: 0xFEE0_0000, data: 0x8061)
            let edge = InterruptMessage(address: 0xFEE0_0000, data: 0x0062)
            machine.engine.connect(endOfInterrupt: listener)
            machine.engine.setRoutes([
                nil, InterruptRoute(message: level, isLevelTriggered: true),
                InterruptRoute(message: edge, isLevelTriggered: false),
            ])
            relay.set { _ in
                machine.engine.messages?.send(level)
                machine.engine.messages?.send(edge)
            }
            try machine.handle(0x61, handler)
            try machine.handle(0x62, handler)
            try machine.runToEnd(machine.boot(code))
            try expectEqual(listener.vectors.withLock { $0 }, [0x61], "vectors told")
        }
    }()

    private static let startup: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0xFEE00000, %ebp
            movl $0x1FF, 0xF0(%rbp)
            movl $0x01000000, 0x310(%rbp)
            movl $0x4500, 0x300(%rbp)
            movl $0x4605, 0x300(%rbp)
            1: cli
            cmpl $0x2A, 0x20000
            jne 1b
            lock incl 0x20004
            2: cli
            cmpl $2, 0x20004
            jne 2b
            outb %al, $0x10
            3: jmp 3b
            """,
            [
                0xBD, 0x00, 0x00, 0xE0, 0xFE, 0xC7, 0x85, 0xF0, 0x00, 0x00, 0x00, 0xFF, 0x01, 0x00, 0x00, 0xC7,
                0x85, 0x10, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0xC7, 0x85, 0x00, 0x03, 0x00, 0x00, 0x00,
                0x45, 0x00, 0x00, 0xC7, 0x85, 0x00, 0x03, 0x00, 0x00, 0x05, 0x46, 0x00, 0x00, 0xFA, 0x83, 0x3C,
                0x25, 0x00, 0x00, 0x02, 0x00, 0x2A, 0x75, 0xF5, 0xF0, 0xFF, 0x04, 0x25, 0x04, 0x00, 0x02, 0x00,
                0xFA, 0x83, 0x3C, 0x25, 0x04, 0x00, 0x02, 0x00, 0x02, 0x75, 0xF5, 0xE6, 0x10, 0xEB, 0xFE,
            ])
        // At 0500:0000, where vector 5 of the startup message puts it.
        let other = Snippet(
            bits: 16,
            """
            cli
            movw $0x2000, %ax
            movw %ax, %ds
            movw $0x300, %dx
            movw %cs, %ax
            outw %ax, %dx
            movl $0x2A, 0
            lock incl 4
            1: hlt
            jmp 1b
            """,
            [
                0xFA, 0xB8, 0x00, 0x20, 0x8E, 0xD8, 0xBA, 0x00, 0x03, 0x8C, 0xC8, 0xEF, 0x66, 0xC7, 0x06, 0x00,
                0x00, 0x2A, 0x00, 0x00, 0x00, 0x66, 0xF0, 0xFF, 0x06, 0x04, 0x00, 0xF4, 0xEB, 0xFD,
            ])
        return ConformanceCase("a second processor sleeps until INIT and SIPI, then runs", requires: [.localAPIC], [code, other]) {
            factory in
            let device = RecordingDevice()
            let machine = try ConformanceMachine(factory, vcpuCount: 2, port: device)
            try machine.write(other, at: ConformanceMachine.startup)
            let ready = Counter()
            let exits = Mutex<[VCPUExit]>([])
            let thread = TestThread {
                guard let second = try? machine.makeVCPU(1) else {
                    _ = ready.next(by: 100)
                    return
                }
                _ = ready.next()
                let exit = second.run()
                exits.withLock { $0.append(exit) }
            }
            while ready.current == 0 { sleep(microseconds: 100) }
            defer {
                machine.kickAll()
                thread.join()
            }
            try expectEqual(ready.current, 1, "the second vCPU could not be made")
            sleep(microseconds: 20_000)
            try expectEqual(device.accesses, [], "what the second processor did before it was started")
            try machine.runToEnd(machine.boot(code))
            machine.kickAll()
            try expectEqual(device.accesses, [.init(write: 0, .word, 0x500)], "CS of the second processor")
        }
    }()
}
