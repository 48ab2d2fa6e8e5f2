import Foundation
import Testing

@testable import Boot
@testable import Windhover

/// An emulated machine with hardware virtualisation, in which a Debian kernel with KVM runs our static programs.
enum Box: String, CaseIterable, Sendable {
    /// AMD-V under QEMU's TCG.
    case amd
    /// VT-x under Bochs.
    case intel

    var engine: String { "kvm-\(rawValue)" }

    /// Whether it runs every scenario. Bochs takes a quarter of an hour for them: it does so where WINDHOVER_BOXES is `whole`, and
    /// otherwise runs those that show the engine on VT-x.
    var isWhole: Bool { self == .amd || ProcessInfo.processInfo.environment["WINDHOVER_BOXES"] == "whole" }

    /// MiB. Bochs takes no more than 2048.
    var memory: Int {
        switch self {
        case .amd: 6144
        case .intel: 2048
        }
    }

    /// A time limit that a guest is to run into. A second of Bochs, whose clock counts instructions, takes several.
    var brief: String {
        switch self {
        case .amd: "3s"
        case .intel: "1s"
        }
    }

    /// Seconds of the host for the whole of a box, which has other tests beside it.
    var deadline: Int {
        switch self {
        case .amd: 2400
        case .intel: 3600
        }
    }

    /// How far it stands back for others. Bochs counts instructions for time and does not notice; QEMU's guest has a clock that goes on.
    var niceness: Int {
        switch self {
        case .amd: 5
        case .intel: 15
        }
    }

    /// Where the emulator is not like a processor: a guest, what it prints then, and why that is not ours.
    func quirk(of program: GuestProgram, interruptChips: String) -> (symptom: String, reason: String)? {
        switch (program.name, self) {
        case ("exceptions, faults", .amd):
            ("FAIL: #SS: vector 13, not 12", "QEMU's TCG raises #GP where a stack address that is not canonical is #SS")
        case ("rescue, one", .amd), ("rescue, two", .amd):
            ("FAIL: fxrstor, bad MXCSR: vector -1, not 13", "QEMU's TCG loads reserved bits of MXCSR, where a processor raises #GP")
        case ("pic", _) where interruptChips == "kernel":
            ("FAIL: poll does not find request 0", "the PIC of the box's KVM answers a poll without bit 7, as KVM did before Linux 6.5")
        default: nil
        }
    }

    /// The same for a case of the conformance suite.
    func quirk(ofConformance name: String) -> (symptom: String, reason: String)? {
        switch (name, self) {
        case ("an instruction across two pages, the second one written to and mapped elsewhere", .intel):
            ("with the second page mapped elsewhere, and INVLPG",
             "Bochs keeps a decoded instruction by the address of its first byte, and does not hear of what becomes of its second page")
        default: nil
        }
    }

    /// Words for guests that would take minutes here.
    func shortened(_ program: GuestProgram) -> [String] { program.image == "poke" ? ["--append", "stride=16"] : [] }

    /// Programs and files that a box is made with, and the packages that have them.
    private var needs: [(path: String, package: String)] {
        let common = [("/bin/busybox", "busybox-static"), ("/usr/bin/cpio", "cpio"), ("/usr/bin/apt-get", "apt")]
        switch self {
        case .amd: return common + [("/usr/bin/qemu-system-x86_64", "qemu-system-x86")]
        case .intel:
            return common + [
                ("/usr/bin/bochs", "bochs"), ("/usr/share/bochs/BIOS-bochs-latest", "bochsbios"),
                ("/usr/share/vgabios/vgabios.bin", "vgabios"), ("/usr/lib/ISOLINUX/isolinux.bin", "isolinux"),
                ("/usr/lib/syslinux/modules/bios/ldlinux.c32", "syslinux-common"), ("/usr/bin/xorriso", "xorriso"),
                ("/usr/bin/script", "bsdutils"),
            ]
        }
    }

    /// What this host lacks for the box; nil where it has everything.
    var missing: String? {
        let missing = needs.filter { !FileManager.default.fileExists(atPath: $0.path) }
        if missing.isEmpty { return nil }
        let packages = Set(missing.map(\.package)).sorted().joined(separator: " ")
        return "there is no \(missing.map(\.path).joined(separator: ", ")): apt-get install \(packages)"
    }
}

/// What both boxes are made of, made once.
struct BoxParts: Sendable {
    static let scripts = Repository.root + "/Tests/IntegrationTests/rig"
    static let directory = Repository.root + "/.build/rig"

    /// Runs what follows with its standard streams only: what other tests have open meanwhile, whose other end waits for it to be closed,
    /// it would hold open for minutes.
    static let alone = [
        "bash", "-c", #"for place in /proc/self/fd/*; do number=${place##*/}; ((number < 3)) || eval "exec $number>&-"; done; exec "$@""#, "alone",
    ]

    var programs: String
    var modules: String
    var image: Image
    /// The kernel unpacked: an ELF file.
    var vmlinux: String

    struct Failed: Error, CustomStringConvertible { var description: String }

    static let shared = Task { () throws -> BoxParts in
        let store = try ImageStore()
        let image: Image
        do { image = try store.fetch("linux") } catch { throw Failed(description: "the image linux is not to be had: \(error)") }
        let parts = BoxParts(
            programs: directory + "/programs", modules: "\(store.cacheDirectory)/rig/\(image.version)", image: image,
            vmlinux: directory + "/vmlinux")
        try await GuestBuild.ready()
        let built = try await ChildProcess.run(
            alone + ["nice", "-n", "10", scripts + "/build", parts.programs, image.release, image.version, parts.modules], deadline: 1200)
        guard built.status == 0 else { throw Failed(description: "rig/build failed: \(built.summary)") }
        guard let elf = try BzImage(ImageBytes(file: image.files.kernel)).unpack(limit: 1 << 30) else {
            throw Failed(description: "the kernel's payload cannot be unpacked")
        }
        try Data(elf.image.array).write(to: URL(fileURLWithPath: parts.vmlinux))
        return parts
    }

    /// Lays out the tree that becomes the box's initramfs.
    ///
    /// - Parameter scenarios: each with its number in the whole list, which is part of its name there.
    func layOut(_ scenarios: [(number: Int, scenario: Scenario)], at root: String) throws {
        let files = FileManager.default
        try? files.removeItem(atPath: root)
        for name in ["bin", "dev", "etc", "guests", "images", "modules", "proc", "root", "scenarios", "sys", "tmp"] {
            try files.createDirectory(atPath: "\(root)/\(name)", withIntermediateDirectories: true)
        }
        func copy(_ source: String, _ target: String) throws { try files.copyItem(atPath: source, toPath: "\(root)/\(target)") }
        try copy("/bin/busybox", "bin/busybox")
        try copy(Self.scripts + "/init", "init")
        for program in ["hover", "conformance"] { try copy("\(programs)/\(program)", "bin/\(program)") }
        for module in ["irqbypass", "kvm", "kvm-amd", "kvm-intel"] { try copy("\(modules)/\(module).ko", "modules/\(module).ko") }
        for name in try files.contentsOfDirectory(atPath: GuestBuild.directory) where name.hasSuffix(".img") {
            try copy("\(GuestBuild.directory)/\(name)", "guests/\(name)")
        }
        // The user's own cache as `hover` looks for it. One kernel in three forms.
        let store = ImageStore(cacheDirectory: "\(root)/root/.cache/windhover")
        let directory = store.directory(of: image.name)
        try files.createDirectory(
            atPath: (directory as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
        try files.copyItem(atPath: (image.files.kernel as NSString).deletingLastPathComponent, toPath: directory)
        try copy(vmlinux, "images/vmlinux")
        try files.createSymbolicLink(
            atPath: "\(root)/images/linux", withDestinationPath: String(directory.dropFirst(root.count)))
        try "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000:guest:/tmp:/bin/sh\n"
            .write(toFile: "\(root)/etc/passwd", atomically: false, encoding: .utf8)
        try "root:x:0:\nguest:x:1000:\n".write(toFile: "\(root)/etc/group", atomically: false, encoding: .utf8)
        for (number, scenario) in scenarios {
            let place = "\(root)/scenarios/\(BoxBoot.key(number, scenario))"
            try files.createDirectory(atPath: place, withIntermediateDirectories: true)
            try scenario.command.write(toFile: place + "/command", atomically: false, encoding: .utf8)
            try "\(scenario.limit)".write(toFile: place + "/limit", atomically: false, encoding: .utf8)
            let input = try scenario.makeInput?() ?? scenario.input
            if !input.isEmpty { try Data(input).write(to: URL(fileURLWithPath: place + "/input")) }
        }
    }
}

/// One boot of a box, for all of its scenarios.
struct BoxBoot: Sendable {
    var report: BoxReport
    /// Of a second boot, for what failed or did not happen in the first. An emulator of a whole host has lapses: QEMU's TCG
    /// loses interrupts and their shadows now and then. What fails twice is no lapse.
    var again: BoxReport?
    /// What is said where a scenario's result is missing.
    var trouble: String
    /// Seconds of the host, from the box's power-on to its report.
    var seconds: Double

    private static let amd = Task.detached { try await boot(.amd) }
    private static let intel = Task.detached { try await boot(.intel) }

    /// Boots it, unless that is done or this host lacks something for it. Nobody waits.
    static func begin(_ box: Box) {
        guard box.missing == nil else { return }
        switch box {
        case .amd: _ = amd
        case .intel: _ = intel
        }
    }

    /// Boots it at the first call; later ones wait for the same boot.
    static func of(_ box: Box) async throws -> BoxBoot {
        switch box {
        case .amd: try await amd.value
        case .intel: try await intel.value
        }
    }

    /// In the order they run, with no character that a file's name or a shell would mind.
    static func key(_ number: Int, _ scenario: Scenario) -> String {
        let digits = String(number)
        let name = scenario.name.map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "-" }
        return String(repeating: "0", count: max(0, 3 - digits.count)) + digits + "-" + String(name)
    }

    /// More failures than this in one boot have a cause that a second boot would not be without.
    private static let mostLapses = 5

    private static func boot(_ box: Box) async throws -> BoxBoot {
        let all = Scenario.all(in: box).enumerated().map { (number: $0.offset, scenario: $0.element) }
        var boot = try await boot(box, all, name: box.rawValue)
        let failed = all.filter { entry in
            boot.report.results[key(entry.number, entry.scenario)].map { entry.scenario.mayHaveLapsed($0, in: box) } ?? false
        }
        let missing = all.filter { boot.report.results[key($0.number, $0.scenario)] == nil }
        guard failed.count <= mostLapses, !(failed + missing).isEmpty else { return boot }
        print("\(box.engine): once more, in a second boot: \((failed + missing).map(\.scenario.name).joined(separator: "; "))")
        boot.again = try await self.boot(box, failed + missing, name: box.rawValue + "-again").report
        return boot
    }

    private static func boot(_ box: Box, _ scenarios: [(number: Int, scenario: Scenario)], name: String) async throws -> BoxBoot {
        let parts = try await BoxParts.shared.value
        let root = "\(BoxParts.directory)/\(name)"
        let serial = "\(root).serial"
        try parts.layOut(scenarios, at: root)
        let kernel = parts.image.files.kernel
        let result = try await ChildProcess.run(
            BoxParts.alone + ["nice", "-n", "\(box.niceness)", BoxParts.scripts + "/boot", box.rawValue, kernel, root, serial, "\(box.deadline)"],
            environment: ["BOX_MEMORY": "\(box.memory)"], deadline: Double(box.deadline + 60))
        let text = (FileManager.default.contents(atPath: serial)).map { String(decoding: $0, as: UTF8.self) } ?? ""
        let report = BoxReport(text)
        var trouble = "the box ended before it: \(result.summary)\nits serial port: \(text.suffix(1000))"
        if let unfinished = report.unfinished { trouble = "in \(unfinished), " + trouble }
        return BoxBoot(report: report, trouble: trouble, seconds: result.seconds)
    }
}
