internal import CHost
internal import Synchronization
public import VMCore

/// What other threads want of a vCPU: one word of bits that it looks at once a block, and that it sleeps on in HLT.
///
/// Raising is an atomic OR, so that nothing is lost; the vCPU takes bits by an atomic AND before it acts on them. It
/// outlives the vCPU, as kickers do.
@safe public final class Attention: VCPUKicker {
    public struct Bits: OptionSet, Sendable, BitwiseCopyable {
        public let rawValue: UInt32
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
        /// `run` is to return.
        public static var kick: Bits { Bits(rawValue: 1) }
        /// The local APIC or the 8259A pair may have an interrupt.
        public static var interrupt: Bits { Bits(rawValue: 2) }
        public static var nmi: Bits { Bits(rawValue: 4) }
        public static var initialise: Bits { Bits(rawValue: 8) }
        /// A startup message came; its vector is in `startupVector`.
        public static var startup: Bits { Bits(rawValue: 16) }
        /// Drop all translations: a page became code, and stores to it must be seen.
        public static var translations: Bits { Bits(rawValue: 32) }
        /// Code was overwritten by somebody else: `CodeChanges` tells where.
        public static var code: Bits { Bits(rawValue: 64) }
        /// Only set by the vCPU itself: every block returns to the loop, which counts instructions.
        static var counted: Bits { Bits(rawValue: 1 << 29) }
        /// Only set by the vCPU itself: it is not in `run`.
        static var outside: Bits { Bits(rawValue: 1 << 30) }
        /// Only set by the vCPU itself: it sleeps.
        static var sleeping: Bits { Bits(rawValue: 1 << 31) }
    }

    /// The word's host address, in a cache line of its own.
    let address: UInt
    let startup = Atomic<UInt8>(0)

    public init() {
        let line = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 64)
        unsafe line.initializeMemory(as: UInt8.self, repeating: 0, count: 64)
        address = UInt(bitPattern: line)
    }

    deinit { unsafe UnsafeMutableRawPointer(bitPattern: address)?.deallocate() }

    public func kick() { raise(.kick) }

    /// Sets bits, and wakes the vCPU where it sleeps. Any thread.
    public func raise(_ bits: Bits) {
        let before = Bits(rawValue: chost_or32(address, bits.rawValue))
        if before.contains(.sleeping) { chost_futex_wake(address) }
    }

    /// A startup IPI: its vector, then the bit.
    public func raiseStartup(vector: UInt8) {
        startup.store(vector, ordering: .sequentiallyConsistent)
        raise(.startup)
    }

    /// The bits that are set now.
    public var bits: Bits { Bits(rawValue: chost_load32(address)) }

    /// Takes bits away, and returns which of them were set. The vCPU's own thread.
    func take(_ bits: Bits) -> Bits {
        Bits(rawValue: chost_and32(address, ~bits.rawValue)).intersection(bits)
    }

    /// Sleeps until a bit is raised or the deadline (host's monotonic nanoseconds) has come. The vCPU's own thread.
    func sleep(until deadline: UInt64 = .max) {
        let before = Bits(rawValue: chost_or32(address, Bits.sleeping.rawValue))
        if before.isEmpty { chost_futex_wait(address, Bits.sleeping.rawValue, deadline) }
        _ = take(.sleeping)
    }
}

/// What the interpreter asks of its vCPU's local APIC, and nothing else. The vCPU's own thread calls.
protocol LocalInterruptController: AnyObject, Sendable {
    /// A load of the register page, 32 bits at a multiple of 16 bytes; other accesses are undefined on a processor.
    func read(offset: UInt64) -> UInt32
    func write(offset: UInt64, value: UInt32)
    /// x2APIC registers, IA32_APIC_BASE and IA32_TSC_DEADLINE. nil is #GP.
    func readMSR(_ index: UInt32) -> UInt64?
    /// - Returns: false for #GP.
    func writeMSR(_ index: UInt32, _ value: UInt64) -> Bool
    /// CR8: the task priority's upper four bits.
    var taskPriority: UInt8 { get set }
    /// The guest physical address of the register page; nil while disabled or in x2APIC mode.
    var page: UInt64? { get }
    /// The vector that would be delivered now, above the processor priority.
    var deliverable: UInt8? { get }
    /// Moves it into service.
    func acknowledge() -> UInt8?
    /// Whether LINT0 takes the 8259A pair's interrupts (ExtINT, unmasked), or the APIC is off and INTR is the pin.
    var acceptsExternalInterrupts: Bool { get }
    /// INIT: all but the identifier and the base go back to reset.
    func initialise()
    /// The register page as `KVM_GET_LAPIC` lays it out, 1 KiB.
    func state() -> [UInt8]
    /// IA32_TSC_DEADLINE, which is not in the page.
    var tscDeadline: UInt64 { get }
    /// Takes all of that over, whatever mode it was in before. An empty page leaves all but the base.
    /// - Returns: false for what no local APIC can hold.
    func restore(page: [UInt8], apicBase: UInt64, tscDeadline: UInt64) -> Bool
    /// The guest's time-stamp counter is now so far ahead of the processor clock's.
    func setTSCOffset(_ offset: UInt64)
}
