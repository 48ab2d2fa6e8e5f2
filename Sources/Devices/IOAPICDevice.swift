import Synchronization
public import VMCore

/// An I/O APIC on the memory bus (the 4 KiB page at 0xFEC00000 on a PC), sending to the local APICs by message.
///
/// Locks: it sends, and tells of routes, with its own lock held, so that both go out in the order in which things
/// happened. Neither may call back; a local APIC broadcasts an EOI after it has let go of its own lock. An input
/// that is always asserted is therefore delivered once for each EOI and never from within one.
///
/// Source: [82093AA]; messages: [SDM3 §11.11].
public final class IOAPICDevice: BusDevice, EndOfInterruptListener {
    /// Bytes of address space its registers take.
    public static let length: UInt64 = 0x1000

    private let sink: any InterruptMessageSink
    private let usesExtendedDestinations: Bool
    private let routesChanged: @Sendable ([InterruptRoute?]) -> Void
    private let chip: Mutex<IOAPIC>

    /// - Parameters:
    ///   - id: the APIC ID, 4 bits.
    ///   - extendedDestinations: whether destination bits 14-8 are taken from entry bits 55-49, as guests do that
    ///     saw KVM_FEATURE_MSI_EXT_DEST_ID in the hypervisor's CPUID leaf.
    ///   - routesChanged: hears every change of what the 24 entries would send, before anything is sent by it;
    ///     called with the lock held. An entry masked with its EOI still due counts as unmasked until then.
    public init(
        id: UInt8 = 0, sink: any InterruptMessageSink, extendedDestinations: Bool = false,
        routesChanged: @escaping @Sendable ([InterruptRoute?]) -> Void = { _ in }
    ) {
        self.sink = sink
        usesExtendedDestinations = extendedDestinations
        self.routesChanged = routesChanged
        chip = Mutex(IOAPIC(id: id))
    }

    /// The wire to input `gsi`, 0-23; one that goes nowhere for a higher number.
    ///
    /// All the wires given out for one number are the same wire: two sources need an OR of their own.
    public func line(gsi: UInt32) -> any InterruptLine {
        guard gsi < UInt32(IOAPIC.inputCount) else { return UnconnectedLine() }
        return Line(device: self, input: Int(gsi))
    }

    private final class Line: InterruptLine {
        private let device: IOAPICDevice
        private let input: Int
        init(device: IOAPICDevice, input: Int) {
            self.device = device
            self.input = input
        }
        func setLevel(_ isHigh: Bool) {
            device.chip.withLock { chip in
                device.apply(chip.setInput(input, asserted: isHigh), chip)
            }
        }
    }

    public func endOfInterrupt(vector: UInt8) {
        chip.withLock { chip in apply(chip.endOfInterrupt(vector: vector), chip) }
    }

    /// The registers are 32 bits wide; narrower reads give their low bytes, wider ones zeroes above.
    public func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        chip.withLock { UInt64($0.read(offset: offset)) & width.mask }
    }

    /// Narrower writes are extended with zeroes, as KVM's own does.
    public func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        chip.withLock { chip in
            let effects = chip.write(UInt32(truncatingIfNeeded: value & width.mask), offset: offset)
            apply(effects, chip)
        }
    }

    private func apply(_ effects: IOAPIC.Effects, _ chip: IOAPIC) {
        if effects.routesChanged {
            routesChanged(
                (0..<IOAPIC.inputCount).map { number in
                    chip.route(number).map {
                        InterruptRoute(message: message($0), isLevelTriggered: $0.isLevelTriggered)
                    }
                })
        }
        var deliveries = effects.deliveries
        while deliveries != 0 {
            if let entry = chip.entry(deliveries.trailingZeroBitCount) { sink.send(message(entry)) }
            deliveries &= deliveries &- 1
        }
    }

    /// ```
    /// address  31    20  19    12 11       5        2         data  15     14      10 8     7    0
    ///          0xFEE    [ dest ] [ext dest]  destination mode       level  assert [DELMOD] [vector]
    /// ```
    private func message(_ entry: IOAPIC.RedirectionEntry) -> InterruptMessage {
        var address: UInt64 = 0xFEE0_0000 | UInt64(entry.destination) << 12
        if entry.isLogical { address |= 1 << 2 }
        if usesExtendedDestinations { address |= UInt64(entry.extendedDestination) << 5 }
        var data = UInt32(entry.vector) | UInt32(entry.deliveryMode) << 8
        if entry.isLevelTriggered { data |= 1 << 15 | 1 << 14 }
        return InterruptMessage(address: address, data: data)
    }
}
