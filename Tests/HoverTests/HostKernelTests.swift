import Glibc
import Testing
import Windhover

/// `hover exec --kernel host`, on a host that has no kernel of its own to give: what is installed is hidden in a mount namespace of the
/// test's own.
@Suite struct HostKernelTests {
    let scratch = Scratch()

    /// - Parameters:
    ///   - commands: a shell's, done when all places are empty that a kernel could be in.
    ///   - user: words that run what follows as somebody else.
    private func exec(after commands: String = ":", as user: String = "") throws -> HoverProcess.Result {
        guard geteuid() == 0 else { try Test.cancel("only root can hide the host's kernels") }
        let script = """
            set -e; mount --make-rprivate /
            for place in /boot /lib/modules /usr/lib/modules; do [ ! -d $place ] || mount -t tmpfs none $place; done
            \(commands); exec \(user) "$@"
            """
        let through = ["unshare", "-m", "sh", "-c", script, "sh"]
        let probe = try HoverProcess.run(["--version"], through: through)
        guard probe.status == 0 else { try Test.cancel("no mount namespace with a /boot of its own: \(probe.errors)") }
        return try HoverProcess.run(
            ["exec", "--kernel", "host", "--engine", "interpreter", "--", "true"], through: through, in: scratch.path,
            variables: ["XDG_CACHE_HOME": scratch.path + "/cache", "HOME": scratch.path])
    }

    private func expect(_ result: HoverProcess.Result, _ status: ExitStatus, naming words: [String]) {
        #expect(result.status == status.rawValue && result.output.isEmpty, "\(result.errors)")
        #expect(result.complaints.count == 1 && result.errors.hasPrefix("hover: "), "\(result.errors)")
        for word in words { #expect(result.errors.contains(word), "\(result.errors)") }
        #expect(scratch.contents.isEmpty)
    }

    private let running = "/boot/vmlinuz-$(uname -r)"

    @Test func noneIsInstalled() throws {
        var system = utsname()
        uname(&system)
        let release = withUnsafeBytes(of: system.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        expect(
            try exec(), .noSuchFile,
            naming: ["this host has no kernel of its own", "/boot/vmlinuz-\(release)", "/lib/modules/\(release)/vmlinuz", "--kernel linux"])
    }

    @Test func theOneThatIsThereMayNotBeRead() throws {
        let result = try exec(
            after: "echo x > \(running); chmod 600 /boot/*", as: "setpriv --reuid=65534 --regid=65534 --clear-groups")
        expect(result, .notPermitted, naming: ["'/boot/vmlinuz-", "may not be read by this user", "chmod 644", "--kernel linux"])
    }

    @Test func theOneThatIsThereIsNoKernel() throws {
        expect(try exec(after: "echo garbage > \(running)"), .badConfiguration, naming: ["/boot/vmlinuz-", "is not a kernel", "give"])
        expect(try exec(after: ": > \(running)"), .badConfiguration, naming: ["'/boot/vmlinuz-", "is empty"])
    }
}
