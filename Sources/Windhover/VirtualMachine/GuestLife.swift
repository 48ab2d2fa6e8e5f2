internal import Boot
internal import KVM
internal import Machine
internal import SoftCPU
internal import VMCore
internal import Virtio

/// One life of a guest: a machine with the guest loaded into it, about to run.
struct GuestLife {
    let run: MachineRun
    let board: Mainboard
    let memory: GuestMemory

    /// What the machine is connected to: all of it outlives the machine.
    struct Surroundings {
        var loop: EventLoop
        var clock: HostClock
        /// What the serial port and the debug console write to; nil drops it.
        var console: (any ByteSink)?
        /// Sees each byte that the serial port sends.
        var consoleObserver: @Sendable (UInt8) -> Void
        /// In the order in which the guest finds them.
        var devices: [any VirtioDevice]
    }

    /// Makes a machine and loads the guest into it.
    ///
    /// - Throws: a `ReportableError`.
    init(_ plan: MachinePlan, engine selection: EngineSelection, in surroundings: Surroundings, boot material: BootMaterial) throws {
        let (loop, clock) = (surroundings.loop, surroundings.clock)
        do {
            memory = try GuestMemory(size: plan.memory.bytes, hugePages: plan.hugePages)
        } catch {
            throw RunError(exitStatus: .badConfiguration, description: error.description)
        }
        let chips: IRQChip = plan.interruptChips == .split ? .split : .kernel
        let counter = plan.clock == .instructions ? InstructionClock() : nil
        let engine: any Engine
        do throws(EngineError) {
            engine = try selection.makeEngine(
                memory: memory, vcpuCount: plan.cpus, irqChip: chips, alarms: loop, instructionClock: counter)
        } catch {
            throw RunError(error)
        }
        do throws(MainboardError) {
            board = try Mainboard(
                engine: engine, memory: memory, clock: counter ?? clock, wallClock: counter ?? clock, alarms: counter ?? loop,
                events: loop, console: surroundings.console, consoleObserver: surroundings.consoleObserver,
                debugConsole: surroundings.console, virtioDevices: surroundings.devices,
                transport: plan.transport == .pci ? .pci : .mmio)
        } catch {
            throw RunError(exitStatus: .guestCrashed, description: error.description)
        }
        engine.connect(ports: board.ports, mmio: board.mmio)
        let entry: EntryPoint
        do throws(BootError) {
            entry = try material.load(into: memory, board, cpus: plan.cpus)
        } catch {
            // Engine and board hold each other: without this the devices would stay, and with them their files and sockets.
            engine.disconnect()
            throw material.failure(error)
        }
        let state = entry.initialState()
        run = MachineRun(
            engine: engine, memory: memory, vcpuCount: plan.cpus, clock: clock, general: state.general, system: state.system)
        board.control.connect(run)
    }
}

/// What a guest starts from.
struct BootMaterial {
    /// A file, or bytes that are in memory.
    enum Source {
        case file(String)
        case bytes(ImageBytes)

        var bytes: ImageBytes {
            get throws(BootError) {
                switch self {
                case .file(let path): try ImageBytes(file: path)
                case .bytes(let bytes): bytes
                }
            }
        }
    }

    var kernel: Source
    var initrds: [Source] = []
    var unpacking = KernelDecompression.host
    /// Whether it is an image of the store's, which the store can mend.
    var isOurs = false
    /// The command line of a kernel, which may be Linux (true) or not.
    var commandLine: (Bool) -> String
    /// Sees what is logged.
    var trace: (String) -> Void = { _ in }

    func load(into memory: GuestMemory, _ board: Mainboard, cpus: Int) throws(BootError) -> EntryPoint {
        let image = try BootImage(try kernel.bytes).unpacked(limit: memory.size)
        var boot = BootConfiguration()
        boot.rsdp = try ACPITables(board.acpi(cpuCount: cpus)).install(in: memory)
        boot.commandLine = commandLine(image.isLinux)
        boot.unpacking = unpacking == .guest ? .guest : .host
        for initrd in initrds { boot.initrds.append(try initrd.bytes) }
        trace("command line: \(boot.commandLine)")
        let entry = try image.load(into: memory, boot)
        trace("starts by \(entry.method)")
        return entry
    }

    func failure(_ error: BootError) -> RunError {
        var failure = RunError(error)
        if isOurs, failure.exitStatus == .badConfiguration, error.isInTheFile {
            failure.description += "; the image store mends it: hover images fetch \(RunConfiguration.imageNames[0])"
        }
        return failure
    }
}
