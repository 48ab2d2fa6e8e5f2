public import Boot
public import Devices
internal import Synchronization
public import PCI
public import VMCore
public import Virtio

/// The devices of one machine, wired: to their buses, to the engine's interrupt controllers or the device layer's, to
/// the host's clocks and console. The only place that knows which wire goes where.
public final class Mainboard: Sendable {
    public let ports: Bus
    public let mmio: Bus
    /// COM1: where the console's input goes.
    public let serial: SerialPort
    public let powerManagement: ACPIPowerManagement
    /// Disks, networks and the like.
    let virtio: VirtioSlots
    /// Connect the run before the first vCPU runs: devices ask it to power off and to reset.
    public let control: ControlRelay

    /// - Parameters:
    ///   - engine: made with interrupt controllers of its own, or with local APICs only: then the 8259A pair, the PIT and
    ///     the I/O APIC of the device layer serve, and are connected to it.
    ///   - events: where an engine's doorbells are waited for; nil for an engine that has none.
    ///   - console: COM1's output; nil drops it.
    ///   - consoleObserver: sees what the guest sends to COM1, whatever becomes of it.
    ///   - debugConsole: port 0xE9's output; nil drops it.
    ///   - virtioDevices: at most 31, in the order in which the guest finds them. Without any there is no bus for them either.
    /// - Throws: `MainboardError`: two ranges of the address map collide, or there are more devices than places.
    public init(
        engine: any Engine, memory: GuestMemory, clock: any MonotonicClock, wallClock: any WallClock,
        alarms: any AlarmService, events: (any EventService)? = nil, console: (any ByteSink)?,
        consoleObserver: (@Sendable (UInt8) -> Void)? = nil,
        debugConsole: (any ByteSink)?, virtioDevices: [any VirtioDevice] = [], transport: VirtioTransportKind = .mmio
    ) throws(MainboardError) {
        let control = ControlRelay()
        self.control = control
        var ports = BusMap()
        var mmio = BusMap()
        let line: (UInt32) -> any InterruptLine
        let resetControl = ResetControl(machine: control)
        do throws(BusError) {
            line = try Self.interruptLines(engine, clock: clock, alarms: alarms, ports: &ports, mmio: &mmio)

            serial = SerialPort(line: line(AddressMap.serialGSI), sink: console ?? NullSink(), observer: consoleObserver)
            try ports.add(serial, name: "COM1", base: AddressMap.serial, count: 8, widest: .byte)

            let keyboard = KeyboardController(
                keyboardLine: line(AddressMap.keyboardGSI), auxiliaryLine: line(AddressMap.mouseGSI), control: control)
            try ports.add(keyboard.data, name: "i8042 data", base: AddressMap.keyboardData, count: 1, widest: .byte)
            try ports.add(
                keyboard.command, name: "i8042 command", base: AddressMap.keyboardCommand, count: 1, widest: .byte)

            let rtc = RealTimeClock(
                line: line(AddressMap.rtcGSI), clock: clock, wallClock: wallClock, alarms: alarms,
                memoryBelow4GiB: memory.regions.first?.count ?? 0,
                memoryFrom4GiB: memory.regions.count > 1 ? memory.regions[1].count : 0)
            try ports.add(rtc, name: "RTC", base: AddressMap.rtc, count: 2, widest: .byte)

            powerManagement = ACPIPowerManagement(
                sci: line(AddressMap.sciGSI), machine: control, clock: clock, alarms: alarms)
            try ports.add(
                powerManagement, name: "ACPI PM", base: AddressMap.powerManagement, count: ACPIPowerManagement.length,
                widest: .long)
            if virtioDevices.isEmpty || transport != .pci {
                // No bus, and yet a way to look for one: Linux calls it fatal to find none.
                try ports.add(
                    ConfigurationPorts(bridge: nil, resetControl: resetControl), name: "PCI configuration ports, reset control",
                    base: ConfigurationPorts.base, count: ConfigurationPorts.length, widest: .long)
            }

            try ports.add(PostCode(), name: "POST", base: AddressMap.postCode, count: 1, widest: .byte)
            try ports.add(
                DebugConsole(sink: debugConsole ?? NullSink()), name: "debug console", base: AddressMap.debugConsole, count: 1,
                widest: .byte)
            try ports.add(
                DebugExit(control: control), name: "debug exit", base: AddressMap.debugExit, count: 4, widest: .long)
        } catch { throw .bus(error) }
        if virtioDevices.isEmpty {
            virtio = VirtioSlots()
        } else {
            virtio = try VirtioSlots(
                virtioDevices, behind: transport, engine: engine, memory: memory, line: line, resetControl: resetControl,
                doorbells: events.map { Doorbells(engine: engine, events: $0) }, ports: &ports, mmio: &mmio)
        }

        self.ports = Bus(ports)
        self.mmio = Bus(mmio)
    }

    /// The wire to each global system interrupt: the engine's own controllers', or those of chips put on the buses here.
    private static func interruptLines(
        _ engine: any Engine, clock: any MonotonicClock, alarms: any AlarmService, ports: inout BusMap,
        mmio: inout BusMap
    ) throws(BusError) -> (UInt32) -> any InterruptLine {
        if engine.interruptLine(gsi: 0) != nil {
            return { gsi in engine.interruptLine(gsi: gsi) ?? UnconnectedLine() }
        }
        guard let messages = engine.messages else { return { _ in UnconnectedLine() } }

        let pics = InterruptControllerPair(intr: ExternalInterruptWire(engine: engine))
        try ports.add(pics.master, name: "8259A master", base: AddressMap.picMaster, count: 2, widest: .byte)
        try ports.add(pics.slave, name: "8259A slave", base: AddressMap.picSlave, count: 2, widest: .byte)
        try ports.add(pics.edgeLevelControl, name: "ELCR", base: AddressMap.picEdgeLevel, count: 2, widest: .byte)
        engine.connect(externalInterrupts: pics)

        let ioapic = IOAPICDevice(sink: messages) { routes in engine.setRoutes(routes) }
        try mmio.add(
            ioapic, name: "I/O APIC", base: AddressMap.ioapic.rawValue, count: IOAPICDevice.length, widest: .long)
        engine.connect(endOfInterrupt: ioapic)

        // Each ISA wire goes to both kinds of controller, the guest listens to one; the timer's I/O APIC pin is 2.
        let timer = IntervalTimer(
            line: FanOutLine([pics.line(irq: 0), ioapic.line(gsi: AddressMap.timerGSI)]), clock: clock, alarms: alarms)
        try ports.add(timer, name: "8254", base: AddressMap.pit, count: 4, widest: .byte)
        try ports.add(
            SystemControlPortB(timer: timer), name: "port 61h", base: AddressMap.systemControlB, count: 1, widest: .byte)

        return { gsi in
            gsi < 16 ? FanOutLine([pics.line(irq: gsi), ioapic.line(gsi: gsi)]) : ioapic.line(gsi: gsi)
        }
    }

    /// How ACPI describes the virtio devices beside the others.
    public func acpi(cpuCount: Int) -> ACPIConfiguration {
        var acpi = Self.acpi(cpuCount: cpuCount)
        virtio.describe(in: &acpi)
        return acpi
    }

    /// Takes the devices away from a guest that is gone: nothing touches its memory afterwards. After the last vCPU has ended.
    public func detachDevices() { virtio.reset() }

    /// What the virtio devices have done so far.
    public var deviceStatistics: [(kind: DeviceKind, counts: [(name: String, value: UInt64)])] { virtio.statistics }

    /// How ACPI describes a board's own devices.
    public static func acpi(cpuCount: Int) -> ACPIConfiguration {
        var acpi = ACPIConfiguration(cpuCount: cpuCount)
        let base = UInt16(AddressMap.powerManagement)
        acpi.localAPICAddress = UInt32(AddressMap.localAPIC.rawValue)
        acpi.ioAPICAddress = UInt32(AddressMap.ioapic.rawValue)
        acpi.sciGSI = UInt8(AddressMap.sciGSI)
        acpi.pm1aEvent = base + UInt16(ACPIPowerManagement.eventOffset)
        acpi.pm1aControl = base + UInt16(ACPIPowerManagement.controlOffset)
        acpi.pmTimer = base + UInt16(ACPIPowerManagement.timerOffset)
        acpi.gpe0 = base + UInt16(ACPIPowerManagement.generalEventOffset)
        acpi.resetPort = UInt16(AddressMap.resetControl)
        acpi.resetValue = ACPIPowerManagement.resetValue
        acpi.softOffSleepType = ACPIPowerManagement.softOffSleepType
        return acpi
    }
}

/// Why a machine's devices cannot be put together as asked.
public enum MainboardError: Error, CustomStringConvertible {
    case bus(BusError)
    case pci(PCIError)
    case tooManyDevices(Int, most: Int)

    public var description: String {
        switch self {
        case .bus(let error): error.description
        case .pci(let error): error.description
        case .tooManyDevices(let count, let most): "\(count) devices, and a machine has room for \(most)"
        }
    }
}

/// Passes a device's request to the run, which is made after the devices.
public final class ControlRelay: MachineControl {
    private struct Target: Sendable { weak var control: (any MachineControl)? }
    private let target = Mutex(Target())

    public func connect(_ control: any MachineControl) { target.withLock { $0.control = control } }

    public func request(_ request: MachineRequest) { target.withLock { $0.control }?.request(request) }
}

/// INTR of the 8259A pair: the boot processor looks at the pair itself once it is told.
private final class ExternalInterruptWire: InterruptLine {
    private let engine: any Engine
    init(engine: any Engine) { self.engine = engine }
    func setLevel(_ isHigh: Bool) { engine.externalInterruptsChanged() }
}

/// Output nobody wants.
final class NullSink: ByteSink {
    func write(_ bytes: UnsafeRawBufferPointer) -> Int { bytes.count }
    func setSpaceHandler(_ handler: @escaping @Sendable () -> Void) {}
}
