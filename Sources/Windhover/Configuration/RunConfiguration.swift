public import VMCore

/// The engine a run asks for.
public enum EngineChoice: String, Hashable, Sendable, CaseIterable {
    /// The best one this host has.
    case auto
    /// The processor's own virtualisation, through /dev/kvm.
    case kvm
    /// The software CPU.
    case interpreter
}

/// Who serves the 8259A pair, the 8254 and the I/O APIC.
public enum InterruptChips: String, Hashable, Sendable, CaseIterable {
    /// KVM, inside the host's kernel.
    case kernel
    /// Windhover's own device models; KVM keeps the local APICs.
    case split
}

/// Who unpacks a compressed kernel.
public enum KernelDecompression: String, Hashable, Sendable, CaseIterable {
    /// Windhover, before the guest starts.
    case host
    /// The kernel's own stub, inside the guest.
    case guest
}

/// What the guest's clocks go by.
public enum ClockChoice: String, Hashable, Sendable, CaseIterable {
    /// The host's clocks.
    case host
    /// The instructions that the guest executes: two runs are identical.
    case instructions
}

/// How a guest reaches its virtio devices.
public enum VirtioTransport: String, Hashable, Sendable, CaseIterable {
    /// Registers at fixed addresses, announced by ACPI.
    case mmio
    /// Functions of a PCI bus, with interrupts by message.
    case pci
}

/// What a run boots.
public enum BootSource: Hashable, Sendable {
    /// The guest that is part of Windhover.
    case builtIn
    /// An image of the image store, by name.
    case image(String)
    /// A file; what it is is seen from its bytes.
    case file(String)
}

/// The options of `hover run`, as written.
///
/// Text in, `RunConfiguration` out: this is all of the command that decides anything, so it is apart from
/// the parser and from every file and device.
public struct RunOptions: Hashable, Sendable {
    public var image: String?
    public var kernel: String?
    public var initrd: String?
    public var append: [String] = []
    public var memory = "512M"
    public var cpus = "1"
    public var engine = "auto"
    public var interruptChips = "kernel"
    public var clock = "host"
    public var console = "stdio"
    public var timeout: String?
    public var noReboot = false
    public var statistics: String?
    public var hugePages = "none"
    public var decompression = "host"
    public var disks: [String] = []
    public var networks: [String] = []
    public var socket: String?
    public var shares: [String] = []
    public var balloon = false
    public var memoryTarget: String?
    public var ports: [String] = []
    /// Kernels that know virtio at all know it behind PCI; not all have the other driver.
    public var transport = "pci"

    public init() {}
}

/// A run that makes sense in itself. Whether the host can do it, and whether its files are there, is not yet known.
public struct RunConfiguration: Hashable, Sendable {
    public let source: BootSource
    /// Path of an initial RAM disk, in place of an image's own.
    public let initrd: String?
    /// Words for the kernel's command line, after the image's own.
    public let append: String
    public let memory: MemorySize
    public let cpus: Int
    public let engine: EngineChoice
    public let interruptChips: InterruptChips
    public let clock: ClockChoice
    public let console: ConsoleTarget
    public let timeout: TimeLimit?
    /// A guest that resets ends the run, where it otherwise starts anew.
    public let noReboot: Bool
    /// Path of the file that gets the run's numbers as JSON.
    public let statistics: String?
    public let hugePages: HugePages
    public let decompression: KernelDecompression
    public let disks: [DiskConfiguration]
    public let networks: [NetworkConfiguration]
    public let shares: [ShareConfiguration]
    /// What the guest mounts each of them by.
    public let shareTags: [String]
    public let socket: SocketConfiguration?
    /// Whether memory that the guest does not use goes back to the host.
    public let hasBalloon: Bool
    /// What the guest is to make do with from its start: all of it, or less; the rest is in its balloon.
    public let memoryTarget: MemorySize
    public let ports: [PortConfiguration]
    public let transport: VirtioTransport

    /// Whether the machine has any virtio device.
    public var hasVirtioDevices: Bool { !disks.isEmpty || !networks.isEmpty || !shares.isEmpty || socket != nil || hasBalloon || !ports.isEmpty }

    /// Sees that the disks' files are there: before an image is fetched for them.
    ///
    /// - Throws: a `ReportableError`.
    public func checkDisks() throws { try DiskImages.check(disks) }

    /// Most disks, networks and shared directories together: a balloon, sockets, ports and the entropy device come beside them.
    public static let maximumDevices = 24

    /// The most vCPUs: what 8-bit APIC IDs number beside an I/O APIC and the broadcast ID.
    public static let maximumCPUs = 254

    /// The images that have names.
    public static let imageNames = ["linux"]

    /// - Throws: `ConfigurationError`, one line that names the option and the way out.
    public init(_ options: RunOptions) throws(ConfigurationError) {
        source = try Self.source(image: options.image, kernel: options.kernel)
        if options.initrd == "" {
            throw .malformed("--initrd names no file")
        }
        if source == .builtIn, options.initrd != nil {
            throw .malformed("--initrd needs a kernel: name one with --kernel, or an IMAGE such as linux")
        }
        initrd = options.initrd
        append = String(words: options.append)
        guard !append.utf8.contains(0) else {
            throw .malformed("--append holds a zero byte, which would end the kernel's command line there")
        }
        memory = try MemorySize(options.memory)
        cpus = try Self.cpus(options.cpus)
        engine = try Self.choice(options.engine, of: "--engine")
        interruptChips = try Self.choice(options.interruptChips, of: "--irqchip")
        clock = try Self.choice(options.clock, of: "--clock")
        if clock == .instructions {
            guard engine != .kvm else {
                throw .impossible("KVM does not count instructions: give --clock instructions with --engine interpreter")
            }
            guard cpus == 1 else {
                throw .impossible("--clock instructions counts one CPU's instructions, not \(cpus): give --cpus 1")
            }
        }
        console = try ConsoleTarget(options.console)
        if let text = options.timeout { timeout = try TimeLimit(text) } else { timeout = nil }
        noReboot = options.noReboot
        if options.statistics == "" {
            throw .malformed("--stats names no file")
        }
        statistics = options.statistics
        hugePages = try Self.choice(options.hugePages, of: "--huge-pages")
        decompression = try Self.choice(options.decompression, of: "--decompress")
        disks = try options.disks.map { text throws(ConfigurationError) in try DiskConfiguration(text) }
        networks = try options.networks.map { text throws(ConfigurationError) in try NetworkConfiguration(text) }
        shares = try options.shares.map { text throws(ConfigurationError) in try ShareConfiguration(text) }
        shareTags = try ShareConfiguration.tags(of: shares)
        guard disks.count + networks.count + shares.count <= Self.maximumDevices else {
            throw .impossible(
                "\(disks.count) disks, \(networks.count) networks and \(shares.count) shared directories are more than the \(Self.maximumDevices) that a machine has room for: give fewer")
        }
        socket = try options.socket.map { text throws(ConfigurationError) in try SocketConfiguration(text) }
        hasBalloon = options.balloon || options.memoryTarget != nil
        if let text = options.memoryTarget { memoryTarget = try MemorySize(text, of: "--memory-target") } else { memoryTarget = memory }
        guard memoryTarget.bytes <= memory.bytes else {
            throw .impossible("--memory-target \(memoryTarget) is more than the guest's memory of \(memory): give it that much at most, or more --memory")
        }
        guard options.memoryTarget == nil || hugePages != .reserved else {
            throw .impossible(
                "--memory-target brings the host nothing with --huge-pages reserved, whose pages stay set aside: leave one of them out")
        }
        ports = try options.ports.map { text throws(ConfigurationError) in try PortConfiguration(text) }
        try PortConfiguration.check(ports)
        transport = try Self.choice(options.transport, of: "--transport")
        guard clock == .host || !hasVirtioDevices else {
            throw .impossible(
                "--clock instructions makes two runs identical, which disks, networks, directories, sockets and ports of the host do not: leave one of them out")
        }
    }

    private static func source(image: String?, kernel: String?) throws(ConfigurationError) -> BootSource {
        switch (image, kernel) {
        case (nil, nil): return .builtIn
        case (""?, _): throw .malformed("IMAGE is empty: leave it out for the built-in guest, or say linux or a path")
        case (_, ""?): throw .malformed("--kernel names no file")
        case (nil, let path?): return .file(path)
        case (let name?, nil): return imageNames.contains(name) ? .image(name) : .file(name)
        case (let name?, let path?):
            throw .malformed("both IMAGE '\(name)' and --kernel '\(path)' name what to boot: give one of them")
        }
    }

    static func cpus(_ text: String) throws(ConfigurationError) -> Int {
        guard !text.isEmpty, text.utf8.allSatisfy(Digit.contains) else {
            throw .malformed("--cpus wants a number from 1 to \(maximumCPUs), not '\(text)'")
        }
        guard let count = Int(text), (1...maximumCPUs).contains(count) else {
            throw .impossible("a guest cannot have \(text) CPUs: give --cpus from 1 to \(maximumCPUs)")
        }
        return count
    }

    static func choice<Choice: RawRepresentable<String> & CaseIterable>(
        _ text: String, of option: String
    ) throws(ConfigurationError) -> Choice {
        if let choice = Choice(rawValue: text) { return choice }
        let words = Choice.allCases.map(\.rawValue)
        let list = words.dropLast().joined(separator: ", ") + " or " + (words.last ?? "")
        throw .malformed("\(option) takes \(list), not '\(text)'")
    }
}
