import ArgumentParser
import Windhover

/// `hover images make`.
struct MakeDiskCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "make",
        abstract: "Makes a disk image with a system on it.",
        discussion: """
            debian is a small Debian system from this host's package sources, made by mmdebstrap: systemd, network by DHCP, apt, \
            and on the serial console a login as root that takes no password. small is busybox and a shell, a few megabytes. \
            Both are raw images of an ext4 file system, and take any user.

            EXAMPLES:
              hover images make debian
              hover images make debian --output web.img --size 8G --packages nginx,curl
              hover images make small --output test.img --script test.sh
              hover run --disk "$(hover images path debian)" linux
            """)

    @Argument(help: "What to make: debian or small.")
    var name: String

    @Option(help: ArgumentHelp("Make this file; without it the disk is kept with the images.", valueName: "file"))
    var output: String?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("How large the disk is for a guest: 2G for debian, 16M for small if not given.", valueName: "size"))
    var size: String?

    @Option(help: ArgumentHelp("Further Debian packages, with commas between; may be repeated.", valueName: "names"))
    var packages: [String] = []

    @Option(help: ArgumentHelp("What the disk small runs, by /bin/sh, before it powers off.", valueName: "file"))
    var script: String?

    @Flag(help: "Replace the file or the disk that is there.")
    var replace = false

    func run() throws {
        let recipe = try recipe()
        let size = try size.map { try DiskSize($0) } ?? DiskSize(bytes: recipe.defaultSize)
        guard output != "" else { throw Misuse("--output names no file") }
        let store = try ImageStore()
        if output == nil, !replace, let disk = store.disk(name) {
            try StandardOutput.write("\(name) is here already, \(summary(disk)); --replace makes it anew\n")
            return
        }
        let disk = try showing(name, "making the disk \(name)") { isCancelled, progress in
            try store.makeDisk(
                recipe, size: size, output: output, replace: replace, isCancelled: isCancelled, progress: progress)
        }
        try StandardOutput.write("\(name): \(summary(disk))\n")
    }

    private func recipe() throws -> DiskRecipe {
        switch name {
        case "debian":
            guard script == nil else {
                throw Misuse("--script is for the disk small: debian starts systemd")
            }
            let names = packages.flatMap { $0.split(separator: ",", omittingEmptySubsequences: false) }.map(String.init)
            for name in names where !DiskRecipe.isPackageName(name) {
                throw Misuse("--packages wants names with commas between, such as curl,git, not '\(name)'")
            }
            return .debian(packages: names)
        case "small":
            guard packages.isEmpty else {
                throw Misuse("--packages is for the disk debian: small has nothing but busybox")
            }
            return .small(script: try script.map { try InputFile.text(of: $0, role: "script") })
        default:
            throw ImageError.unknownDisk(name)
        }
    }

    private struct Misuse: ReportableError {
        let description: String
        init(_ description: String) { self.description = description }
        var exitStatus: ExitStatus { .usage }
    }

    private func summary(_ disk: Disk) -> String {
        "\(disk.contents), \(ByteCount.text(disk.allocated)) of \(ByteCount.text(disk.size)), in \(disk.path)"
    }
}
