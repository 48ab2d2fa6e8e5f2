internal import VMCore

/// Kicks: from anywhere, at any time, never lost.
extension ConformanceCase {
    static let kicks: [ConformanceCase] = [
        kickBefore, kickDuring, kickAfter, kicksRacing, kicksAmongAccesses, kickAmongVectorAccesses,
    ]

    // CLI each time round: Bochs forgets at a VM entry with interrupts off that the host's end the guest's turn, until an instruction
    // of the guest's says so again; a loop without one would be the last thing that its one processor does.

    /// Spins with interrupts off: only a kick brings the processor out.
    private static let spin = Snippet(
    bits: 64,
    """
    1: cli
    incq %rax
    jmp 1b
    """,
    [
        0xFA, 0x48, 0xFF, 0xC0, 0xEB, 0xFA,
    ])

    /// An endless loop of what no hypervisor's emulator knows: the software CPU's turn comes each time round.
    private static let vectorSpin = Snippet(
        bits: 64,
        """
        movl $0xD0000000, %ebx
        1: cli
        pxor (%rbx), %xmm0
        lock cmpxchg16b 0x20000
        jmp 1b
        """,
        [
            0xBB, 0x00, 0x00, 0x00, 0xD0, 0xFA, 0x66, 0x0F, 0xEF, 0x03, 0xF0, 0x48, 0x0F, 0xC7, 0x0C, 0x25,
            0x00, 0x00, 0x02, 0x00, 0xEB, 0xEF,
        ])

    /// Runs a guest that spins, and kicks it while it does.
    private static func kickFromAnotherThread(_ machine: ConformanceMachine, _ vcpu: any VCPU) throws {
        let kicker = vcpu.kicker
        let thread = TestThread {
            sleep(microseconds: 20_000)
            kicker.kick()
        }
        let start = milliseconds()
        let exit = try machine.run(vcpu)
        thread.join()
        try expectEqual(exit, .kicked, "the exit")
        try expect(milliseconds() - start < 1000, "it took \(milliseconds() - start) ms")
    }

    private static let kickAmongVectorAccesses = ConformanceCase(
        "a kick among vector loads of a device, within a second", [vectorSpin]
    ) { factory in
        let machine = try ConformanceMachine(factory)
        let vcpu = try machine.boot(vectorSpin) { _, system in system.cr4 |= 0x200 }
        for _ in 0..<5 { try kickFromAnotherThread(machine, vcpu) }
        try expect(vcpu.statistics.memoryReads > 0 || vcpu.statistics.rescues > 0, "the guest has done nothing")
    }

    private static let kickBefore = ConformanceCase("a kick before the first run", [spin]) { factory in
        let machine = try ConformanceMachine(factory)
        let vcpu = try machine.boot(spin)
        vcpu.kicker.kick()
        try expectEqual(try machine.run(vcpu), .kicked, "the exit")
    }

    private static let kickDuring = ConformanceCase("a kick from another thread, within a second", [spin]) { factory in
        let machine = try ConformanceMachine(factory)
        let vcpu = try machine.boot(spin)
        for _ in 0..<5 { try kickFromAnotherThread(machine, vcpu) }
        try expect(try vcpu.state().general.rax > 0, "the guest never ran")
    }

    private static let kickAfter: ConformanceCase = {
        let code = Snippet(
    bits: 64,
    """
    outb %al, $0x10
    outb %al, $0x10
    """,
    [
        0xE6, 0x10, 0xE6, 0x10,
    ])
        return ConformanceCase("a kick between two runs, and the kicker outlives the vCPU", [code]) { factory in
            let machine = try ConformanceMachine(factory)
            var vcpu: (any VCPU)? = try machine.boot(code)
            let kicker = vcpu!.kicker
            try machine.runToEnd(vcpu!)
            kicker.kick()
            try expectEqual(try machine.run(vcpu!), .kicked, "the exit")
            vcpu = nil
            kicker.kick()
        }
    }()

    private static let kicksRacing = ConformanceCase("a thousand kicks, each brings the vCPU out", [spin]) { factory in
        let machine = try ConformanceMachine(factory)
        let vcpu = try machine.boot(spin)
        let returns = Counter()
        let lost = Counter()
        let kicker = vcpu.kicker
        let thread = TestThread {
            for step in 0..<1000 as Range<UInt64> {
                // A different moment of the way into the guest each time.
                for _ in 0..<(step % 37) { _ = milliseconds() }
                let before = returns.current
                kicker.kick()
                let start = milliseconds()
                while returns.current == before {
                    if milliseconds() - start > 2000 {
                        _ = lost.next()
                        kicker.kick()
                        break
                    }
                }
            }
            _ = returns.next(by: 1_000_000)
            kicker.kick()
        }
        while returns.current < 1_000_000 {
            let exit = try machine.run(vcpu)
            try expectEqual(exit, .kicked, "the exit")
            _ = returns.next()
        }
        thread.join()
        try expectEqual(lost.current, 0, "lost kicks")
    }

    private static let kicksAmongAccesses: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0x300, %edx
            movl $0xD0000000, %ebx
            xorl %eax, %eax
            1: outl %eax, %dx
            movl %eax, (%rbx)
            movl (%rbx), %ecx
            inl %dx, %eax
            incl %eax
            cmpl $3000, %eax
            jne 1b
            outb %al, $0x10
            """,
            [
                0xBA, 0x00, 0x03, 0x00, 0x00, 0xBB, 0x00, 0x00, 0x00, 0xD0, 0x31, 0xC0, 0xEF, 0x89, 0x03, 0x8B,
                0x0B, 0xED, 0xFF, 0xC0, 0x3D, 0xB8, 0x0B, 0x00, 0x00, 0x75, 0xF1, 0xE6, 0x10,
            ])
        return ConformanceCase("kicks among port and memory accesses lose and repeat none", [code]) { factory in
            let last = Counter()
            let relay = Relay()
            let port = RecordingDevice(answer: { _, _ in last.current }, onWrite: { relay.call($0) })
            relay.set { last.set($0.value) }
            let device = RecordingDevice(answer: { _, _ in last.current })
            let machine = try ConformanceMachine(factory, port: port, mmio: device)
            let vcpu = try machine.boot(code)
            let kicker = vcpu.kicker
            let stop = Counter()
            let thread = TestThread {
                // On a slow host a kick comes before the guest has done anything: there they come less often.
                var pause: UInt32 = 100
                while stop.current == 0 {
                    let before = last.current
                    kicker.kick()
                    sleep(microseconds: pause)
                    pause = last.current == before ? min(pause * 2, 50_000) : max(pause / 2, 100)
                }
            }
            defer {
                _ = stop.next()
                thread.join()
            }
            let start = milliseconds()
            while machine.ended == nil {
                try expectEqual(vcpu.run(), .kicked, "the exit")
                try expect(milliseconds() - start < 3 * ConformanceMachine.limit, "the guest makes no way under kicks")
            }
            let writes = port.accesses.filter(\.isWrite)
            try expectEqual(writes.count, 3000, "port writes")
            for (index, access) in writes.enumerated() { try expectEqual(access.value, UInt64(index), "a port write") }
            let stores = device.accesses.filter(\.isWrite)
            try expectEqual(stores.count, 3000, "stores")
            for (index, access) in stores.enumerated() { try expectEqual(access.value, UInt64(index), "a store") }
            try expectEqual(device.accesses.count, 6000, "memory accesses")
        }
    }()
}
