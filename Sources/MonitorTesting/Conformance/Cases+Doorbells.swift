internal import CHost
internal import Glibc
internal import VMCore

/// Writes that an engine may pass on without leaving the guest.
extension ConformanceCase {
    static let doorbells: [ConformanceCase] = [doorbell]

    private static let doorbell: ConformanceCase = {
        let code = Snippet(
            bits: 64,
            """
            movl $0xD0000050, %edi
            movl $3, (%rdi)
            movl $4, (%rdi)
            movw $3, (%rdi)
            movl $3, (%rdi)
            outb %al, $0x10
            """,
            [
                0xBF, 0x50, 0x00, 0x00, 0xD0, 0xC7, 0x07, 0x03, 0x00, 0x00, 0x00, 0xC7, 0x07, 0x04, 0x00, 0x00,
                0x00, 0x66, 0xC7, 0x07, 0x03, 0x00, 0xC7, 0x07, 0x03, 0x00, 0x00, 0x00, 0xE6, 0x10,
            ])
        return ConformanceCase("a doorbell is rung by its value and width, on the bus or past it, and never by both", [code]) { factory in
            let device = RecordingDevice()
            let machine = try ConformanceMachine(factory, mmio: device)
            let descriptor = eventfd(0, chost_eventfd_flags)
            try expect(descriptor >= 0, "the host has no eventfd left")
            defer { close(descriptor) }
            let bell = Doorbell(address: GuestAddress(ConformanceMachine.device + 0x50), width: .long, value: 3)
            let isAttached = machine.engine.attach(bell, to: descriptor)
            let vcpu = try machine.boot(code)
            try machine.runToEnd(vcpu)
            let others: [BusAccess] = [.init(write: 0x50, .long, 4), .init(write: 0x50, .word, 3)]
            let rings = BusAccess(write: 0x50, .long, 3)
            try expectEqual(device.accesses, isAttached ? others : [rings] + others + [rings], "accesses on the bus")
            var count: UInt64 = 0
            let read = unsafe Glibc.read(descriptor, &count, 8)
            try expectEqual(count, isAttached ? 2 : 0, "rings counted by the eventfd (\(read))")
            guard isAttached else { return }
            machine.engine.detach(bell, from: descriptor)
            let (general, system) = ConformanceMachine.entry(.long64)
            try vcpu.setEntry(general: general, system: system)
            try machine.runToEnd(vcpu)
            try expectEqual(device.accesses.count, 6, "accesses on the bus, the bell taken away")
        }
    }()
}
