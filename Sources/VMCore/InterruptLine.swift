/// One wire from a device to an interrupt controller.
///
/// A device calls it while holding its own lock (see the lock order in `Bus.swift`), so an implementation
/// may take the interrupt controller's lock and a vCPU's, and never calls back into a device.
public protocol InterruptLine: AnyObject, Sendable {
    /// Drives the wire. Repeating a level is harmless.
    func setLevel(_ isHigh: Bool)
}

extension InterruptLine {
    /// A rising edge and a falling one: for sources that only ever announce an event.
    public func pulse() {
        setLevel(true)
        setLevel(false)
    }
}

/// A wire that goes nowhere.
public final class UnconnectedLine: InterruptLine {
    public init() {}
    public func setLevel(_ isHigh: Bool) {}
}

/// An interrupt as a memory write: what an I/O APIC or an MSI-capable function sends to the local APICs.
/// Source: [SDM3 §11.11] message address and data register formats.
public struct InterruptMessage: Hashable, Sendable, BitwiseCopyable {
    public var address: UInt64
    public var data: UInt32

    @inlinable
    public init(address: UInt64, data: UInt32) {
        self.address = address
        self.data = data
    }
}

/// Where interrupt messages go: an engine's local APICs.
public protocol InterruptMessageSink: AnyObject, Sendable {
    /// Delivers one message. One that names no APIC is dropped, as on the bus.
    func send(_ message: InterruptMessage)
}

/// What a boot processor's INTR pin is wired to: the 8259A pair.
public protocol ExternalInterruptSource: AnyObject, Sendable {
    /// Whether the pin is high now.
    var isPending: Bool { get }

    /// The processor's interrupt-acknowledge cycle: moves the highest request into service.
    /// - Returns: its vector; the spurious one where nothing is pending any more.
    func acknowledge() -> UInt8
}

/// Who hears that a local APIC finished a level-triggered interrupt: the I/O APIC.
public protocol EndOfInterruptListener: AnyObject, Sendable {
    func endOfInterrupt(vector: UInt8)
}
