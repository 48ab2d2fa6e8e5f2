public import VMCore

/// An interrupt on its way to local APICs: what an ICR write, a SELF IPI or a message-signalled interrupt says.
public struct InterruptCommand: Hashable, Sendable, BitwiseCopyable {
    /// Source: [SDM3 §11.6.1], delivery mode. The encoding 3 is reserved.
    public enum DeliveryMode: UInt8, Sendable, BitwiseCopyable {
        case fixed = 0
        case lowestPriority = 1
        case smi = 2
        case reserved = 3
        case nmi = 4
        case initialize = 5
        case startup = 6
        case external = 7
    }

    /// Source: [SDM3 §11.6.1], destination shorthand.
    public enum Shorthand: UInt8, Sendable, BitwiseCopyable {
        case none = 0
        case toSelf = 1
        case all = 2
        case allButSelf = 3
    }

    public var vector: UInt8
    public var deliveryMode: DeliveryMode
    public var shorthand: Shorthand
    public var isLogical: Bool
    /// Level-triggered: its EOI is broadcast.
    public var isLevelTriggered: Bool
    /// An APIC ID, or a message destination address; 8 bits wide but for a sender in x2APIC mode.
    public var destination: UInt32
    /// All ones in the width of the sender's destination field: every local APIC. Source: [SDM3 §11.6.2.3].
    public var isBroadcast: Bool

    public init(
        vector: UInt8, deliveryMode: DeliveryMode = .fixed, shorthand: Shorthand = .none, isLogical: Bool = false,
        isLevelTriggered: Bool = false, destination: UInt32 = 0, isBroadcast: Bool = false
    ) {
        self.vector = vector
        self.deliveryMode = deliveryMode
        self.shorthand = shorthand
        self.isLogical = isLogical
        self.isLevelTriggered = isLevelTriggered
        self.destination = destination
        self.isBroadcast = isBroadcast
    }

    /// Reads the interrupt command register. Source: [SDM3 §11.6.1], in x2APIC mode [SDM3 §11.12.9].
    /// ```
    /// 63 56 (x2APIC: 63 32)  19 18      15      14    11       10 8      7    0
    /// [ destination ]        [shorthand] trigger level logical [delivery] [vector]
    /// ```
    /// The trigger mode matters for INIT level de-assert only, so an IPI is never level-triggered.
    ///
    /// - Returns: nil for what goes nowhere: an INIT level de-assert, which current processors do not support.
    init?(icr: UInt64, isX2APIC: Bool) {
        deliveryMode = DeliveryMode(rawValue: UInt8(truncatingIfNeeded: icr &>> 8) & 7) ?? .reserved
        if deliveryMode == .initialize, icr & 1 << 14 == 0, icr & 1 << 15 != 0 { return nil }
        vector = UInt8(truncatingIfNeeded: icr)
        shorthand = Shorthand(rawValue: UInt8(truncatingIfNeeded: icr &>> 18) & 3) ?? .none
        isLogical = icr & 1 << 11 != 0
        isLevelTriggered = false
        destination = UInt32(truncatingIfNeeded: icr &>> (isX2APIC ? 32 : 56))
        isBroadcast = destination == (isX2APIC ? .max : 0xFF)
    }

    /// Reads a message-signalled interrupt.
    /// ```
    /// address  31    20  19    12 11       5       2          data  15     14      10 8      7    0
    ///          0xFEE    [ dest ] [ext dest]  destination mode       level  assert [delivery] [vector]
    /// ```
    /// Bits 11-5 of the address carry bits 14-8 of the destination where the guest was told of that extension; a guest
    /// that was not leaves them zero. Bit 14 is not looked at, as KVM does not: devices send when they assert, and nothing when
    /// they let go. Source: [SDM3 §11.11.1], [SDM3 §11.11.2].
    ///
    /// - Returns: nil where the address is not the local APICs', and for INIT level de-assert.
    public init?(_ message: InterruptMessage) {
        guard message.address &>> 20 == 0xFEE else { return nil }
        let data = message.data
        deliveryMode = DeliveryMode(rawValue: UInt8(truncatingIfNeeded: data &>> 8) & 7) ?? .reserved
        isLevelTriggered = data & 1 << 15 != 0
        if deliveryMode == .initialize, isLevelTriggered, data & 1 << 14 == 0 { return nil }
        vector = UInt8(truncatingIfNeeded: data)
        shorthand = .none
        // The redirection hint (bit 3) only allows what delivery to one processor is already.
        isLogical = message.address & 1 << 2 != 0
        let low = UInt32(truncatingIfNeeded: message.address &>> 12) & 0xFF
        destination = low | (UInt32(truncatingIfNeeded: message.address &>> 5) & 0x7F) &<< 8
        isBroadcast = destination == 0xFF
    }
}
