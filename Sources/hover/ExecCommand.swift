import ArgumentParser
import Logging
import Windhover

struct ExecCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "exec",
        abstract: "Runs a command in a throwaway machine, over your own files.",
        usage: "hover exec [<options>] -- <command> [<argument> ...]",
        discussion: """
            The guest's root is this host's own tree, read-only, with a layer of memory over it that takes what is written; the \
            working directory, the environment, input, output and exit status are as if the command ran here. --rw lets writes to the \
            working directory through.

            The kernel is Debian's (linux, fetched once and then kept), the host's own (host), or a file.

            EXAMPLES:
              hover exec -- uname -a
              hover exec --rw --cpus 4 -- make check
              hover exec --kernel ./arch/x86/boot/bzImage --modules ./mods -- sh -c 'dmesg | tail'
              hover exec --kernel host --net user -- curl https://example.org
              hover exec --root ./rootfs --timeout 60s -- /bin/selftest

            EXIT STATUS:
              the command's own; 128+n if signal n ended it
              64     the command line cannot be understood
              65     a bad image or configuration; a kernel that lacks what this takes
              66     a file, directory or image is not there
              69     the engine, or the image's source, is not available here
              70     the guest died, or never came up; its last console lines are shown
              77     no permission
              124    the time limit passed
              125    the command could not be started: its directory or user is not there
              126    it cannot be executed
              127    there is no such command
              255    the guest's kernel panicked; its lines are shown
            A first signal (Ctrl-C) is the command's; a second one ends the machine.
            """)

    @OptionGroup(title: "WHAT TO RUN") var guest: ExecGuestOptions
    @OptionGroup(title: "FILES AND DEVICES") var files: ExecFileOptions
    @OptionGroup(title: "MACHINE") var machine: ExecMachineOptions
    @OptionGroup(title: "RUN") var session: ExecSessionOptions

    @Argument(
        parsing: .captureForPassthrough,
        help: ArgumentHelp("The command and its arguments, behind --.", valueName: "command"))
    var command: [String] = []

    // For hover test.
    @Option(parsing: .unconditional, help: .hidden)
    var parent: Int32?

    /// The command's own words are left alone, so that the parser takes for one of them what it does not know.
    func validate() throws {
        guard let word = command.first, word != "--", word != "-", word.hasPrefix("-") else { return }
        if ["-h", "-help", "--help"].contains(word) { throw CleanExit.helpRequest(Self.self) }
        if word == "--version" { throw CleanExit.message(Hover.configuration.version) }
        let option = String(word.prefix { $0 != "=" })
        let known = Self.helpMessage().split { " ,.;[]<\n".contains($0) }.filter { $0.hasPrefix("--") && $0.count > 2 }.map(String.init)
        throw ValidationError("Unknown option '\(option)'." + (Spelling.closest(to: option, among: known).map { " Did you mean '\($0)'?" } ?? ""))
    }

    mutating func run() throws {
        if let parent { ParentProcess.endWith(parent) }
        let configuration = try ExecConfiguration(options, caller: .current())
        if let physical = HostFacts.physicalMemory() { try configuration.memory.check(againstHost: physical) }
        var logger = Logger(label: "hover", factory: { StandardErrorLog(label: $0) })
        logger.logLevel = session.verbose ? .debug : .warning
        try configuration.checkFiles()
        let kernel = try guestKernel(of: configuration)
        let result = try ExecRun(configuration, kernel: kernel, logger: logger) { Hover.remark($0) }.run()
        Hover.end(result)
    }

    /// The options as the library takes them.
    var options: ExecOptions {
        var options = ExecOptions()
        let given = CommandLineWords.given
        options.command = given.last(command.first == "--" ? Array(command.dropFirst()) : command)
        options.kernel = guest.kernel
        options.modules = guest.modules
        options.append = guest.append
        options.root = files.root
        options.readWrite = files.rw
        options.shares = files.share
        options.disks = files.disk
        options.networks = files.net
        options.directory = guest.workdir
        options.user = guest.user
        options.environment = given.values(guest.env, of: "--env")
        options.memory = machine.memory
        options.cpus = machine.cpus
        options.engine = machine.engine
        options.transport = machine.transport
        options.timeout = session.timeout
        options.bootTimeout = session.bootTimeout
        options.consoleLog = session.consoleLog
        options.statistics = session.stats
        options.terminal = session.tty
        return options
    }
}

struct ExecGuestOptions: ParsableArguments {
    @Option(help: ArgumentHelp("linux (Debian's cloud kernel), host (this host's own), or a path.", valueName: "kernel"))
    var kernel = ExecOptions().kernel

    @Option(help: ArgumentHelp("Where the kernel's modules are: a directory with lib/modules in it.", valueName: "dir"))
    var modules: String?

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp("Add words to the kernel's command line; may be repeated.", valueName: "words"))
    var append: [String] = []

    @Option(help: ArgumentHelp("Run as this user: NAME or UID, with :GROUP or :GID; root if not given.", valueName: "user"))
    var user: String?

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp("Set a variable of the command's: NAME=VALUE; may be repeated.", valueName: "word"))
    var env: [String] = []

    @Option(help: ArgumentHelp("The command's working directory; where you stand if not given.", valueName: "dir"))
    var workdir: String?
}

struct ExecFileOptions: ParsableArguments {
    @Option(help: ArgumentHelp("A directory that is the guest's root, in place of this host's own.", valueName: "dir"))
    var root: String?

    @Flag(help: "Let writes to the working directory, or to a disk that is the root, through.")
    var rw = false

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp("A directory that is written through: DIR[:PATH][,readonly], or DIR:TAG, which is /mnt/TAG; may be repeated.", valueName: "dir"))
    var share: [String] = []

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp("A disk, as for hover run; without --root the first one is the root. May be repeated.", valueName: "file"))
    var disk: [String] = []

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp("A network: user (rootless, through passt) or tap:NAME; may be repeated.", valueName: "network"))
    var net: [String] = []
}

struct ExecMachineOptions: ParsableArguments {
    @Option(name: [.long, .short], parsing: .unconditional, help: ArgumentHelp("RAM: 512M, 2G.", valueName: "size"))
    var memory = ExecOptions().memory

    @Option(
        name: [.long, .short], parsing: .unconditional,
        help: ArgumentHelp("Virtual CPUs, 1 to \(RunConfiguration.maximumCPUs).", valueName: "n"))
    var cpus = ExecOptions().cpus

    @Option(help: ArgumentHelp("What executes the guest: auto, kvm or interpreter.", valueName: "engine"))
    var engine = ExecOptions().engine

    @Option(help: ArgumentHelp("How the guest reaches its devices: auto (mmio for linux, pci for others), pci or mmio.", valueName: "how"))
    var transport = ExecOptions().transport
}

struct ExecSessionOptions: ParsableArguments {
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Stop after this long, the guest's start included: 30s, 5m. Exit status 124.", valueName: "time"))
    var timeout: String?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("How long the guest may take to come up. Exit status 70.", valueName: "time"))
    var bootTimeout = ExecOptions().bootTimeout

    @Option(help: ArgumentHelp("Write all that the guest's kernel says to this file.", valueName: "file"))
    var consoleLog: String?

    @Option(help: ArgumentHelp("Write the run's numbers to this file as JSON.", valueName: "file"))
    var stats: String?

    @Option(help: ArgumentHelp("Whether the command has a terminal: auto (where standard input is one), always, never.", valueName: "when"))
    var tty = ExecOptions().terminal

    @Flag(name: [.short, .long], help: "Say what is done, on standard error.")
    var verbose = false
}
