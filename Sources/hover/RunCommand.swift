import ArgumentParser
import Logging
import Windhover

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Runs a guest on this terminal.",
        discussion: """
            IMAGE is linux (Debian's cloud kernel with a small root, fetched once and then kept), or the path of a kernel or \
            another bootable file; what it is is seen from its bytes. With neither IMAGE nor --kernel, the guest that is built \
            in is run.

            In the guest's terminal, Ctrl-A x leaves and Ctrl-A ? helps.

            EXAMPLES:
              hover run linux
              hover run linux --cpus 4 --memory 2G
              hover run linux --disk debian.img --net user,forward=2222:22
              hover run --kernel vmlinux --initrd root.cpio --append "console=ttyS0 quiet"
              hover run test.bin --console file:out.txt --timeout 30s --no-reboot

            EXIT STATUS:
              0      the guest powered off
              2n+1   the guest wrote n to the debug-exit port
              64     the command line cannot be understood
              65     a bad image, or a configuration no machine can have
              66     a file or image is not there
              69     the engine, or the image's source, is not available here
              70     the guest crashed: triple fault or internal error
              77     no permission
              124    the time limit passed
              255    the guest's kernel panicked
            A signal that ends hover ends the guest first, and shows as 128 and its number in the shell.
            """)

    @OptionGroup(title: "WHAT TO RUN") var guest: GuestOptions
    @OptionGroup(title: "MACHINE") var machine: MachineOptions
    @OptionGroup(title: "DISKS, NETWORKS, DIRECTORIES") var devices: DeviceOptions
    @OptionGroup(title: "CONSOLE AND RUN") var session: SessionOptions

    mutating func run() throws { try Self.run(options, verbose: session.verbose) }

    static func run(_ options: RunOptions, verbose: Bool) throws {
        let configuration = try RunConfiguration(options)
        if let physical = HostFacts.physicalMemory() { try configuration.memory.check(againstHost: physical) }
        try launch(configuration, logger: logger(verbose: verbose))
    }

    /// The options as the library takes them.
    var options: RunOptions {
        var options = RunOptions()
        options.image = guest.image
        options.kernel = guest.kernel
        options.initrd = guest.initrd
        options.append = guest.append
        options.decompression = guest.decompress
        options.memory = machine.memory
        options.cpus = machine.cpus
        options.engine = machine.engine
        options.interruptChips = machine.irqchip
        options.clock = machine.clock
        options.hugePages = machine.hugePages
        options.disks = devices.disk
        options.networks = devices.net
        options.shares = devices.share
        options.socket = devices.vsock
        options.balloon = devices.balloon
        options.memoryTarget = devices.memoryTarget
        options.ports = devices.port
        options.transport = devices.transport
        options.console = session.console
        options.timeout = session.timeout
        options.noReboot = session.noReboot
        options.statistics = session.stats
        return options
    }

    /// Warnings and worse, or with -v everything, on standard error.
    private static func logger(verbose: Bool) -> Logger {
        var logger = Logger(label: "hover", factory: { StandardErrorLog(label: $0) })
        logger.logLevel = verbose ? .debug : .warning
        return logger
    }
}

// Numbers and words are taken as text and judged by `RunConfiguration`: its messages name the way out. Numbers are taken
// unconditionally, so that it, too, gets to refuse a negative one.

struct GuestOptions: ParsableArguments {
    @Argument(help: ArgumentHelp("linux, or the path of something bootable.", valueName: "image"))
    var image: String?

    @Option(help: ArgumentHelp("Boot this kernel: bzImage, ELF, Multiboot or flat.", valueName: "file"))
    var kernel: String?

    @Option(help: ArgumentHelp("Initial RAM disk, in place of the image's own.", valueName: "file"))
    var initrd: String?

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp("Add words to the kernel's command line; may be repeated.", valueName: "words"))
    var append: [String] = []

    @Option(
        help: ArgumentHelp(
            "Who unpacks a compressed kernel: host (faster) or guest (its own stub).", valueName: "who"))
    var decompress = RunOptions().decompression
}

struct MachineOptions: ParsableArguments {
    @Option(name: [.long, .short], parsing: .unconditional, help: ArgumentHelp("RAM: 512M, 2G, 65536K.", valueName: "size"))
    var memory = RunOptions().memory

    @Option(
        name: [.long, .short], parsing: .unconditional,
        help: ArgumentHelp("Virtual CPUs, 1 to \(RunConfiguration.maximumCPUs).", valueName: "n"))
    var cpus = RunOptions().cpus

    @Option(help: ArgumentHelp("What executes the guest: auto, kvm or interpreter.", valueName: "engine"))
    var engine = RunOptions().engine

    @Option(
        help: ArgumentHelp(
            "Who serves PIC, PIT and I/O APIC: kernel (KVM's) or split (Windhover's own).", valueName: "who"))
    var irqchip = RunOptions().interruptChips

    @Option(
        help: ArgumentHelp(
            "What the guest's clocks go by: host, or instructions (one CPU on the interpreter: two runs are identical).",
            valueName: "clock"))
    var clock = RunOptions().clock

    @Option(
        help: ArgumentHelp(
            "Back guest RAM with huge pages: none, transparent, or reserved (2 MiB pages set aside on the host).",
            valueName: "kind"))
    var hugePages = RunOptions().hugePages
}

struct DeviceOptions: ParsableArguments {
    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "A disk: FILE[,readonly][,format=raw|qcow2][,backing=FILE][,direct][,serial=TEXT]; may be repeated.", valueName: "file"))
    var disk: [String] = []

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "A network: user[,forward=8080:80] (rootless, through passt) or tap:NAME; may be repeated.", valueName: "network"))
    var net: [String] = []

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "A directory of the host: DIR[:TAG][,readonly], which a guest mounts by its tag (virtiofs); may be repeated.",
            valueName: "dir"))
    var share: [String] = []

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Sockets between host and guest, at this Unix socket: PATH[,cid=N].", valueName: "path"))
    var vsock: String?

    @Flag(help: "Let memory that the guest does not use go back to the host.")
    var balloon = false

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Have the guest give up memory until it has this much, by a balloon: 256M.", valueName: "size"))
    var memoryTarget: String?

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "A byte stream to a program in the guest, /dev/virtio-ports/NAME there: NAME:unix:PATH (a Unix socket) or NAME:file:PATH (output only); may be repeated.",
            valueName: "port"))
    var port: [String] = []

    @Option(help: ArgumentHelp("How the guest reaches its devices: pci or mmio.", valueName: "how"))
    var transport = RunOptions().transport
}

struct SessionOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The serial console: stdio, file:PATH or none.", valueName: "where"))
    var console = RunOptions().console

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Stop the guest after this long: 500ms, 30s, 5m, 2h. Exit status 124.", valueName: "time"))
    var timeout: String?

    @Flag(help: "End when the guest resets, in place of starting it anew.")
    var noReboot = false

    @Option(help: ArgumentHelp("Write the run's numbers to this file as JSON.", valueName: "file"))
    var stats: String?

    @Flag(name: [.short, .long], help: "Say what is done, on standard error.")
    var verbose = false
}
