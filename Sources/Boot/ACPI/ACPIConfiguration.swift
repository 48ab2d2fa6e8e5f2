/// The machine as ACPI describes it: what the machine's builder knows and the tables need.
///
/// Defaults are a PC's customary numbers; the builder passes its own address map's.
public struct ACPIConfiguration: Sendable {
    /// A 16550A.
    public struct SerialPort: Hashable, Sendable {
        public var base: UInt16
        /// ISA interrupt, 0 to 15.
        public var irq: UInt8
        public init(base: UInt16, irq: UInt8) {
            self.base = base
            self.irq = irq
        }
    }

    /// PCI configuration space in memory: 1 MiB for each bus. Source: [PCIFW3.0 §4.1.2].
    public struct ECAM: Hashable, Sendable {
        /// Where bus 0 is, or would be: what is for the first bus lies `firstBus` MiB above. Below 4 GiB.
        public var base: UInt32
        public var firstBus: UInt8
        public var lastBus: UInt8

        public init(base: UInt32, firstBus: UInt8 = 0, lastBus: UInt8 = 0) {
            self.base = base
            self.firstBus = firstBus
            self.lastBus = lastBus
        }

        /// The first byte that is decoded.
        var firstAddress: UInt32 { base &+ UInt32(firstBus) << 20 }
        var length: UInt32 { (UInt32(lastBus) &- UInt32(firstBus) &+ 1) << 20 }
    }

    /// The local APIC identifiers of the processors, the boot processor's first.
    public var apicIDs: [UInt32]
    public var localAPICAddress: UInt32 = 0xFEE0_0000
    public var ioAPICAddress: UInt32 = 0xFEC0_0000
    public var ioAPICID: UInt8 = 0
    /// The system control interrupt; an ISA interrupt, level-triggered and active high.
    public var sciGSI: UInt8 = 9
    /// PM1a status and enable: four ports.
    public var pm1aEvent: UInt16 = 0x600
    /// PM1a control: two ports.
    public var pm1aControl: UInt16 = 0x604
    /// The power management timer: four ports.
    public var pmTimer: UInt16 = 0x608
    /// Whether that timer counts 32 bits, not 24.
    public var pmTimerIs32Bit = true
    /// General-purpose event status and enable: two ports each.
    public var gpe0: UInt16 = 0x620
    /// The port and the byte that reset the machine.
    public var resetPort: UInt16 = 0xCF9
    public var resetValue: UInt8 = 0x06
    /// SLP_TYP for S5, soft off; 0 to 7.
    public var softOffSleepType: UInt8 = 5
    public var serialPorts: [SerialPort] = [SerialPort(base: 0x3F8, irq: 4)]
    public var hasKeyboardController = true
    public var hasRTC = true
    /// Announced by an MCFG table; nil for none. `DeviceTerms.pciHostBridge` describes the bridge itself.
    public var ecam: ECAM?
    /// Terms put into `\_SB`: devices found at run time, bridges.
    public var extraDevices: [AML] = []

    public init(apicIDs: [UInt32]) { self.apicIDs = apicIDs }

    /// Processors whose APIC identifiers count from 0.
    public init(cpuCount: Int) { self.init(apicIDs: (0..<max(0, cpuCount)).map { UInt32(clamping: $0) }) }
}
