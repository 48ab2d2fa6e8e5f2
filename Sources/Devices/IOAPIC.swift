/// I/O APIC: 24 inputs, each with a redirection entry that turns it into a message to the local APICs.
///
/// Register set of the 82093AA, at version 0x20, whose EOI register lets a guest end one level interrupt directly.
///
/// Differs: an entry's polarity (INTPOL) is kept and read back but not applied. An input's level here means
/// asserted or not, as in KVM's own I/O APIC since Linux 3.15; otherwise the same guest would see storms
/// under one interrupt controller and none under the other.
///
/// Not emulated: delivery status always reads idle, since messages take no time; the three-wire APIC bus, and with it
/// any effect of the arbitration ID. Source: [82093AA].
public struct IOAPIC: Hashable, Sendable {
    public static let inputCount = 24

    /// What a call asks for: messages to send now, in the order of their bits.
    public struct Effects: Hashable, Sendable {
        /// Bit n: send entry n's message.
        public var deliveries: UInt32 = 0
        /// What `route(_:)` says of some entry has changed. Tell before sending.
        public var routesChanged = false
    }

    /// One redirection entry.
    /// ```
    /// 63    56 55    48        16   15    14   13     12      11      10 8    7    0
    /// [ dest ] [ext dest] ... mask level  RIRR INTPOL DELIVS DESTMOD [DELMOD] [vector]
    /// ```
    public struct RedirectionEntry: Hashable, Sendable {
        public fileprivate(set) var bits: UInt64 = 1 << 16

        public var vector: UInt8 { UInt8(truncatingIfNeeded: bits) }
        /// 0 fixed, 1 lowest priority, 2 SMI, 4 NMI, 5 INIT, 7 ExtINT.
        public var deliveryMode: UInt8 { UInt8(truncatingIfNeeded: bits >> 8) & 7 }
        public var isLogical: Bool { bits >> 11 & 1 != 0 }
        public var remoteIRR: Bool { bits >> 14 & 1 != 0 }
        public var isMasked: Bool { bits >> 16 & 1 != 0 }
        public var destination: UInt8 { UInt8(truncatingIfNeeded: bits >> 56) }
        /// Bits 14-8 of the destination, for guests that were told of this extension.
        public var extendedDestination: UInt8 { UInt8(truncatingIfNeeded: bits >> 49) & 0x7F }

        /// Only fixed and lowest-priority interrupts have levels and EOIs; the others are edges whatever bit 15 says.
        public var isLevelTriggered: Bool { bits >> 15 & 1 != 0 && deliveryMode <= 1 }
    }

    private var entries = [RedirectionEntry](repeating: RedirectionEntry(), count: Self.inputCount)
    /// Which inputs are asserted.
    private var asserted: UInt32 = 0
    private var ioregsel: UInt8 = 0
    private var id: UInt8
    /// Loaded with the ID when that is written. Source: [82093AA §3.2.3].
    private var arbitrationID: UInt8

    /// - Parameter id: the APIC ID, 4 bits, that the MADT also names.
    public init(id: UInt8 = 0) {
        self.id = id & 0x0F
        arbitrationID = id & 0x0F
    }

    /// The entry of one input, for what its message must say; nil past the last.
    public func entry(_ number: Int) -> RedirectionEntry? { entries.indices.contains(number) ? entries[number] : nil }

    /// Whether an entry now matters to whoever broadcasts EOIs: unmasked, or masked while an EOI is still due.
    public func route(_ number: Int) -> RedirectionEntry? {
        guard let entry = entry(number), !entry.isMasked || entry.remoteIRR else { return nil }
        return entry
    }

    // MARK: Inputs

    /// Asserts or releases an input. One that does not exist is ignored.
    ///
    /// Edges that come while masked are lost; a level is seen when the mask goes. Source: [82093AA §3.2.4], bit 16.
    public mutating func setInput(_ number: Int, asserted isAsserted: Bool) -> Effects {
        var effects = Effects()
        guard entries.indices.contains(number) else { return effects }
        let bit: UInt32 = 1 << UInt32(number)
        let rose = isAsserted && asserted & bit == 0
        if isAsserted { asserted |= bit } else { asserted &= ~bit }
        if entries[number].isLevelTriggered {
            deliverLevel(number, &effects)
        } else if rose && !entries[number].isMasked {
            effects.deliveries |= bit
        }
        return effects
    }

    /// The one place that sends for a level: asserted, not masked, and not waiting for an EOI already.
    private mutating func deliverLevel(_ number: Int, _ effects: inout Effects) {
        let bit: UInt32 = 1 << UInt32(number)
        let entry = entries[number]
        guard entry.isLevelTriggered, asserted & bit != 0, !entry.isMasked, !entry.remoteIRR else { return }
        entries[number].bits |= 1 << 14
        effects.deliveries |= bit
    }

    /// A local APIC finished a level-triggered interrupt. Inputs still asserted are delivered anew, once each.
    public mutating func endOfInterrupt(vector: UInt8) -> Effects {
        var effects = Effects()
        for number in entries.indices where entries[number].remoteIRR && entries[number].vector == vector {
            let before = route(number)
            entries[number].bits &= ~(1 << 14)
            deliverLevel(number, &effects)
            if route(number) == nil && before != nil { effects.routesChanged = true }
        }
        return effects
    }

    // MARK: Registers

    /// Reads a register of the page: IOREGSEL at 0x00, IOWIN at 0x10; anything else is 0.
    public func read(offset: UInt64) -> UInt32 {
        switch offset {
        case 0x00: UInt32(ioregsel)
        case 0x10: readWindow()
        default: 0
        }
    }

    /// Writes a register of the page: IOREGSEL at 0x00, IOWIN at 0x10, EOI at 0x40.
    public mutating func write(_ value: UInt32, offset: UInt64) -> Effects {
        switch offset {
        case 0x00: ioregsel = UInt8(truncatingIfNeeded: value)
        case 0x10: return writeWindow(value)
        case 0x40: return endOfInterrupt(vector: UInt8(truncatingIfNeeded: value))
        default: break
        }
        return Effects()
    }

    private func readWindow() -> UInt32 {
        switch ioregsel {
        case 0: return UInt32(id) << 24
        case 1: return UInt32(Self.inputCount - 1) << 16 | 0x20
        case 2: return UInt32(arbitrationID) << 24
        default:
            guard let entry = entry(Int(ioregsel) / 2 - 8) else { return 0 }
            return UInt32(truncatingIfNeeded: ioregsel & 1 == 0 ? entry.bits : entry.bits >> 32)
        }
    }

    private mutating func writeWindow(_ value: UInt32) -> Effects {
        var effects = Effects()
        if ioregsel == 0 {
            id = UInt8(truncatingIfNeeded: value >> 24) & 0x0F
            arbitrationID = id
            return effects
        }
        let number = Int(ioregsel) / 2 - 8
        guard entries.indices.contains(number) else { return effects }
        let before = route(number)
        let old = entries[number].bits
        var bits: UInt64
        if ioregsel & 1 == 0 {
            // Delivery status and remote IRR are read-only; bits 31-17 are reserved.
            let writable: UInt64 = 0x1_AFFF
            bits = (old & ~writable & ~0xFFFE_0000) | (UInt64(value) & writable)
        } else {
            bits = (old & 0xFFFF_FFFF) | UInt64(value) << 32
        }
        // An edge has no remote IRR. Guests of older chips end a stuck level interrupt by this detour.
        let entry = RedirectionEntry(bits: bits)
        if !entry.isLevelTriggered { bits &= ~(1 << 14) }
        entries[number].bits = bits
        deliverLevel(number, &effects)
        effects.routesChanged = Self.differ(before, route(number))
        return effects
    }

    /// Remote IRR comes and goes with every interrupt and is no part of a route.
    private static func differ(_ one: RedirectionEntry?, _ other: RedirectionEntry?) -> Bool {
        guard let one, let other else { return (one == nil) != (other == nil) }
        return (one.bits ^ other.bits) & ~(1 << 14 | 1 << 16) != 0
    }
}
