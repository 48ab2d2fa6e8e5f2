/// Local APIC: the part of a processor that takes interrupts in, ranks them, and sends them to other processors.
///
/// Register set of an integrated APIC, version 0x14, with six local vector table entries, EOI-broadcast suppression, a timer
/// with one-shot, periodic and TSC-deadline modes, and x2APIC mode.
///
/// A pure value: it knows no lock, clock, thread or other processor. Time is passed in, what is to happen outside is returned.
///
/// Differs: the APIC ID is read-only, as on current processors (§11.4.6 leaves it to the model); delivery
/// status always reads idle, since messages take no time; an xAPIC write that is not of 32 bits at a register's own address
/// is dropped (§11.4.1 leaves it to the model), as KVM's does; a periodic timer's interrupts come at most every 100
/// microseconds, so that a guest cannot make the host's timers storm.
///
/// Not emulated: system-management interrupts, CMCI and extended LVT entries, the arbitration of the three-wire APIC bus, and
/// with it focus processors and remote reads.
/// Source: [SDM3 §11].
public struct LocalAPIC: Hashable, Sendable, BitwiseCopyable {
    /// One moment on the two clocks a local APIC counts by.
    public struct Instant: Hashable, Sendable, BitwiseCopyable {
        /// The timer's input clock: 1 GHz, so nanoseconds.
        public var nanoseconds: UInt64
        /// The processor's time-stamp counter.
        public var tsc: UInt64
        public init(nanoseconds: UInt64 = 0, tsc: UInt64 = 0) {
            self.nanoseconds = nanoseconds
            self.tsc = tsc
        }
    }

    /// How IA32_APIC_BASE has it. Source: [SDM3 §11.12.1], table 11-5.
    public enum Mode: UInt8, Sendable, BitwiseCopyable {
        case disabled, xAPIC, x2APIC
    }

    /// What a call asks of the world outside.
    public struct Effects: Hashable, Sendable, BitwiseCopyable {
        /// Send this.
        public var command: InterruptCommand?
        /// A level-triggered interrupt of this vector is finished: tell the I/O APICs.
        public var endOfInterrupt: UInt8?
        /// A local source wants a non-maskable interrupt.
        public var raisesNMI = false
        /// `deadline` may have changed.
        public var timerChanged = false
        public init() {}
    }

    /// Version 0x14, six LVT entries (the number of the last), EOI-broadcast suppression. Source: [SDM3 §11.4.8].
    static let version: UInt32 = 1 << 24 | 5 << 16 | 0x14
    /// Where the register page is after reset. Source: [SDM3 §11.4.1].
    public static let resetBase: UInt64 = 0xFEE0_0000

    /// Given by hardware; the x2APIC ID, whose low 8 bits are the xAPIC ID. Source: [SDM3 §11.4.6].
    public let id: UInt32
    let isBootstrap: Bool
    /// The bits of IA32_APIC_BASE that hold the page's address.
    let addressMask: UInt64

    /// IA32_APIC_BASE.
    var base: UInt64
    var irr = VectorBitmap()
    var isr = VectorBitmap()
    var tmr = VectorBitmap()
    var tpr: UInt32 = 0
    var ldr: UInt32 = 0
    var dfr: UInt32 = .max
    var svr: UInt32 = 0xFF
    /// What software reads; errors since its last write wait in `errors`. Source: [SDM3 §11.5.3].
    var esr: UInt32 = 0
    var errors: UInt32 = 0
    /// The error interrupt was raised and no ESR write has re-armed it.
    var errorRaised = false
    var icr: UInt64 = 0
    var lvtTimer = LocalVector.resetValue
    var lvtThermal = LocalVector.resetValue
    var lvtPerformance = LocalVector.resetValue
    var lvtLINT0 = LocalVector.resetValue
    var lvtLINT1 = LocalVector.resetValue
    var lvtError = LocalVector.resetValue
    var timer = APICTimer()
    /// The levels of the LINT0 and LINT1 pins.
    var pins: UInt8 = 0

    /// A local APIC as it is after power-up. Source: [SDM3 §11.4.7.1].
    ///
    /// - Parameters:
    ///   - isBootstrap: what IA32_APIC_BASE says in its BSP flag.
    ///   - physicalAddressBits: MAXPHYADDR, 32 to 52: address bits above are reserved in IA32_APIC_BASE.
    public init(id: UInt32, isBootstrap: Bool, physicalAddressBits: UInt8 = 40) {
        self.id = id
        self.isBootstrap = isBootstrap
        let bits = UInt64(min(max(physicalAddressBits, 32), 52))
        addressMask = ((1 &<< bits) &- 1) & ~0xFFF
        base = Self.resetBase | Base.enabled | (isBootstrap ? Base.bootstrap : 0)
    }

    /// The bits of IA32_APIC_BASE. Source: [SDM3 §11.4.4], [SDM3 §11.12.1].
    enum Base {
        static let bootstrap: UInt64 = 1 << 8
        static let x2APIC: UInt64 = 1 << 10
        static let enabled: UInt64 = 1 << 11
    }

    /// IA32_APIC_BASE, as RDMSR reads it.
    public var apicBase: UInt64 { base }

    public var mode: Mode {
        base & Base.enabled == 0 ? .disabled : base & Base.x2APIC == 0 ? .xAPIC : .x2APIC
    }

    /// Where the 4 KiB register page is decoded; nil outside xAPIC mode, where its addresses are memory's.
    public var registerPage: UInt64? { mode == .xAPIC ? base & addressMask : nil }

    /// SVR's enable flag. Source: [SDM3 §11.4.7.2].
    public var isSoftwareEnabled: Bool { svr & 1 << 8 != 0 }

    // MARK: Reset

    /// Every register to its value after power-up; the ID, IA32_APIC_BASE and the pins stay.
    private mutating func resetRegisters() {
        let pins = self.pins
        let base = self.base
        self = LocalAPIC(copying: self)
        self.base = base
        self.pins = pins
        if mode == .x2APIC { ldr = logicalX2APICID }
    }

    private init(copying other: LocalAPIC) {
        id = other.id
        isBootstrap = other.isBootstrap
        addressMask = other.addressMask
        base = other.base
    }

    /// RESET: as after power-up. Source: [SDM3 §11.4.7.1].
    public mutating func reset() {
        base = Self.resetBase | Base.enabled | (isBootstrap ? Base.bootstrap : 0)
        resetRegisters()
    }

    /// INIT: as reset, but the APIC ID and the mode stay. Source: [SDM3 §11.4.7.3], [SDM3 §11.12.5.1].
    public mutating func initialize() { resetRegisters() }

    /// Sets LINT0 to ExtINT and LINT1 to NMI, as firmware leaves them: the 8259A pair reaches the processor
    /// through a local APIC that is still disabled by software. Source: [SDM3 §11.4.3], virtual wire mode in [MP1.4 §3.6.2.2].
    public mutating func setVirtualWire() {
        lvtLINT0 = UInt32(InterruptCommand.DeliveryMode.external.rawValue) << 8
        lvtLINT1 = UInt32(InterruptCommand.DeliveryMode.nmi.rawValue) << 8
    }

    // MARK: Mode

    /// WRMSR to IA32_APIC_BASE.
    ///
    /// - Returns: false where the processor raises #GP: a reserved bit, EXTD without EN, x2APIC mode from
    ///   disabled, or xAPIC mode from x2APIC mode. Source: [SDM3 §11.12.5], figure 11-27 and table 11-5.
    mutating func writeBase(_ value: UInt64, at now: Instant, _ effects: inout Effects) -> Bool {
        guard value & ~(addressMask | Base.bootstrap | Base.x2APIC | Base.enabled) == 0 else { return false }
        let wantsEnabled = value & Base.enabled != 0
        let wantsX2APIC = value & Base.x2APIC != 0
        if wantsX2APIC, !wantsEnabled { return false }
        switch mode {
        case .disabled where wantsX2APIC: return false
        case .x2APIC where wantsEnabled && !wantsX2APIC: return false
        default: break
        }
        let before = mode
        base = value
        switch (before, mode) {
        case (.disabled, .xAPIC):
            // Disabling loses all state: it comes back as after power-up. Source: [SDM3 §11.4.3].
            resetRegisters()
            effects.timerChanged = true
        case (.xAPIC, .disabled), (.x2APIC, .disabled):
            resetRegisters()
            effects.timerChanged = true
        case (.xAPIC, .x2APIC):
            // All else is kept. Source: [SDM3 §11.12.5.1].
            ldr = logicalX2APICID
            icr &= 0xFFFF_FFFF
        default: break
        }
        return true
    }

    /// Cluster in bits 31-16, one bit for the place in it. Source: [SDM3 §11.12.10.2].
    var logicalX2APICID: UInt32 { (id &>> 4) &<< 16 | 1 &<< (id & 0xF) }
}

/// Bits of a local vector table entry. Source: [SDM3 §11.5.1], figure 11-8.
enum LocalVector {
    static let masked: UInt32 = 1 << 16
    static let resetValue = masked

    static func vector(_ entry: UInt32) -> UInt8 { UInt8(truncatingIfNeeded: entry) }
    static func deliveryMode(_ entry: UInt32) -> InterruptCommand.DeliveryMode {
        InterruptCommand.DeliveryMode(rawValue: UInt8(truncatingIfNeeded: entry &>> 8) & 7) ?? .reserved
    }
    static func isMasked(_ entry: UInt32) -> Bool { entry & masked != 0 }
    static func isLevelTriggered(_ entry: UInt32) -> Bool { entry & 1 << 15 != 0 }

    // What software can set. Delivery status (12) and remote IRR (14) are the hardware's.
    static let timerBits: UInt32 = 0x7_00FF
    static let sensorBits: UInt32 = 0x1_07FF
    static let pinBits: UInt32 = 0x1_A7FF
    static let errorBits: UInt32 = 0x1_00FF
    /// Set by hardware only; writing them is no reserved-bit fault.
    static let readOnlyBits: UInt32 = 1 << 12
    static let remoteIRR: UInt32 = 1 << 14
}
