import Glibc
import Testing
import Windhover

/// `hover` on hosts without KVM: /dev/kvm is hidden or replaced in a mount namespace of the test's own.
@Suite struct HostWithoutKVMTests {
    let scratch = Scratch()

    /// Runs `hover` with a shell's commands done before, in a namespace where they hurt nobody.
    func run(_ arguments: [String], after commands: String, as user: String = "") throws -> HoverProcess.Result {
        guard geteuid() == 0 else { try Test.cancel("only root can hide /dev/kvm") }
        let script = "set -e; mount --make-rprivate /; \(commands); exec \(user) \"$@\""
        let through = ["unshare", "-m", "sh", "-c", script, "sh"]
        let probe = try HoverProcess.run(["--version"], through: through)
        guard probe.status == 0 else { try Test.cancel("no mount namespace here: \(probe.errors)") }
        return try HoverProcess.run(
            arguments, through: through, in: scratch.path,
            variables: ["XDG_CACHE_HOME": scratch.path + "/cache", "HOME": scratch.path])
    }

    func expect(_ result: HoverProcess.Result, _ status: ExitStatus, naming words: [String]) {
        #expect(result.status == status.rawValue, "\(result.errors)")
        #expect(result.output.isEmpty)
        #expect(result.complaints.count == 1, "\(result.errors)")
        for word in words { #expect(result.errors.contains(word), "\(result.errors)") }
        #expect(scratch.contents.isEmpty)
    }

    /// Left the choice, the guest runs all the same, and one line says on what and why.
    func expectInterpreter(after change: String, because reason: String) throws {
        let result = try run(["run", "--timeout", "1s"], after: change)
        #expect(result.status == ExitStatus.timedOut.rawValue, "\(result.errors)")
        #expect(result.output.contains("Type help"), "\(result.output)")
        #expect(result.errors.hasPrefix("hover: using the interpreter: \(reason)"), "\(result.errors)")
        #expect(result.errors.split(separator: "\n").count == 2, "\(result.errors)")
    }

    private let hide = "mount -t tmpfs none /dev; : > /dev/null"
    private let notKVM = "[ -e /dev/kvm ]; mount --bind /dev/null /dev/kvm"
    private let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"

    @Test func noDevice() throws {
        expect(
            try run(["run", "--engine", "kvm"], after: hide), .unavailable,
            naming: ["/dev/kvm", "No such file", "modprobe"])
        let doctor = try run(["doctor"], after: hide)
        #expect(doctor.status == ExitStatus.success.rawValue)
        #expect(doctor.output.contains("note  /dev/kvm"))
        #expect(doctor.output.contains("--engine auto takes interpreter: there is no usable /dev/kvm"))
        #expect(doctor.errors.isEmpty)
        try expectInterpreter(after: hide, because: "there is no usable /dev/kvm: No such file")
    }

    @Test func noPermission() throws {
        let forbid = "[ -e /dev/kvm ]; : > \(scratch.path)/k; chmod 600 \(scratch.path)/k; "
            + "mount --bind \(scratch.path)/k /dev/kvm; rm \(scratch.path)/k"
        let result = try run(["run", "--engine", "kvm"], after: forbid, as: nobody)
        unlink(scratch.path + "/k")
        expect(result, .notPermitted, naming: ["/dev/kvm", "permission", "usermod -aG"])
        let doctor = try run(["doctor"], after: forbid, as: nobody)
        #expect(doctor.status == ExitStatus.success.rawValue)
        #expect(doctor.output.contains("may not be opened by this user"))
        #expect(doctor.output.contains("--engine auto takes interpreter: no permission to open /dev/kvm"))
    }

    /// A device that does not speak the interface stands for a KVM that is too old.
    @Test func notTheInterface() throws {
        expect(
            try run(["run", "--engine", "kvm"], after: notKVM), .unavailable,
            naming: ["/dev/kvm does not answer as KVM does", "ls -l /dev/kvm"])
        let doctor = try run(["doctor"], after: notKVM)
        #expect(doctor.status == ExitStatus.success.rawValue)
        #expect(doctor.output.contains("does not answer as KVM does"))
        try expectInterpreter(after: notKVM, because: "/dev/kvm does not answer as KVM does")
    }

    /// Asked for by name, an engine is no news.
    @Test func theInterpreterByName() throws {
        let result = try run(["run", "--engine", "interpreter", "--timeout", "1s", "--stats", "s"], after: hide)
        defer { unlink(scratch.path + "/s") }
        #expect(result.status == ExitStatus.timedOut.rawValue, "\(result.errors)")
        #expect(result.output.contains("Type help"), "\(result.output)")
        #expect(result.errors.split(separator: "\n").count == 1, "\(result.errors)")
        let descriptor = open(scratch.path + "/s", O_RDONLY | O_CLOEXEC)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = read(descriptor, &buffer, buffer.count)
        let numbers = String(decoding: buffer.prefix(max(0, count)), as: UTF8.self)
        #expect(numbers.contains("\"engine\" : \"interpreter\"") && numbers.contains("\"engineReason\" : \"asked for\""))
    }

    @Test func theOutputFilesAreLeftAlone() throws {
        let result = try run(["run", "--engine", "kvm", "--console", "file:c", "--stats", "s"], after: hide)
        expect(result, .unavailable, naming: ["/dev/kvm"])
    }
}
