import Foundation
import Testing

@testable import Windhover

extension SlowTiers {
    /// Debian's kernel, and Debian's programs on it, on the software CPU.
    @Suite(.serialized) struct SoftwareLinuxTests {
        /// hover run of the image `linux`, whose init runs a script and powers off.
        private func linux(_ options: [String], script: String, deadline: Double = 90) async throws -> ChildResult {
            try await Self.image()
            let encoded = Data(script.utf8).base64EncodedString()
            return try await Hover.run(
                ["linux", "--engine", "interpreter", "--memory", "256M", "--append", "windhover.exec=\(encoded)"] + options,
                deadline: deadline)
        }

        private static let fetched = Task { _ = try ImageStore().fetch("linux") }

        /// The kernel, fetched as users fetch it.
        private static func image() async throws {
            do { try await fetched.value } catch { try Requirement.missing("interpreter", "the image linux is not to be had: \(error)") }
        }

        @Test(arguments: [1, 2, 4]) func boots(processors: Int) async throws {
            let result = try await linux(
                ["--cpus", "\(processors)"], script: "echo processors: $(nproc); cat /proc/interrupts; dmesg | grep -v 'and report a bug' | grep -c -i -w bug")
            #expect(result.status == 0, "\(result.summary)")
            for text in ["processors: \(processors)\r\n", "Local timer interrupts", "reboot: Power down"] {
                #expect(result.output.contains(text), "'\(text)' is missing: \(result.summary)")
            }
            #expect(result.output.contains("\r\n0\r\n"), "the kernel found a bug: \(result.summary)")
            #expect(!result.output.contains("Fatal"), "the kernel misses something: \(result.summary)")
        }

        /// What fails once in twenty boots fails every day in somebody's tests.
        @Test func bootsTwentyTimes() async throws {
            for boot in 1...20 {
                let result = try await linux(["--cpus", boot % 2 == 0 ? "2" : "1"], script: "echo up")
                try #require(
                    result.status == 0 && result.output.contains("up\r\n") && result.output.contains("reboot: Power down"),
                    "boot \(boot): \(result.summary)")
            }
        }

        /// By the clock that counts instructions, the kernel's own time stamps and all.
        @Test func twoBootsAreIdentical() async throws {
            func boot() async throws -> ChildResult {
                try await linux(
                    ["--clock", "instructions", "--append", "loglevel=7"],
                    script: "dmesg; date; cat /proc/interrupts; head -c 64 /dev/urandom | od -x; sleep 5; date", deadline: 180)
            }
            let first = try await boot()
            let second = try await boot()
            #expect(first.status == 0 && first.output.contains("Linux version"), "\(first.summary)")
            #expect(first.output == second.output, "two boots differ: \(first.summary)\n\(second.summary)")
        }

        @Test func isTypedAt() async throws {
            try await Self.image()
            let result = try await Hover.run(
                ["linux", "--engine", "interpreter", "--memory", "256M"],
                input: Array("echo typed: $((6 * 7))\nexit\n".utf8), deadline: 90)
            #expect(result.status == 0 && result.output.contains("typed: 42"), "\(result.summary)")
        }

        /// A machine without a disk, told to start from one, says so and gives the shell.
        @Test func aRootThatIsNotThere() async throws {
            try await Self.image()
            for (word, said) in [("auto", "there is no disk"), ("/dev/vda1", "windhover.root=/dev/vda1 is not there")] {
                let result = try await Hover.run(
                    ["linux", "--engine", "interpreter", "--memory", "256M", "--append", "windhover.root=\(word)"],
                    input: Array("echo typed: $((6 * 7))\nexit\n".utf8), deadline: 90)
                #expect(result.status == 0 && result.output.contains("typed: 42"), "\(result.summary)")
                #expect(result.output.contains("init: \(said)"), "\(result.summary)")
            }
        }

        /// The drivers unpack over the small root, load in the order in which they are listed, and are found by what asks for them.
        @Test func theModulesLoad() async throws {
            try await Self.image()
            let files = try #require(ImageStore().locate("linux"))
            let modules = try #require(files.modules, "the image has no modules")
            let initrd = NSTemporaryDirectory() + "windhover-modules-\(getpid()).cpio"
            try (Data(contentsOf: URL(filePath: files.initrd)) + Data(contentsOf: URL(filePath: modules))).write(to: URL(filePath: initrd))
            defer { try? FileManager.default.removeItem(atPath: initrd) }
            let result = try await linux(
                ["--initrd", initrd, "--append", "windhover.modules=vmw_vsock_virtio_transport"],
                script: """
                    cd /lib/modules/$(uname -r)
                    cut -d ' ' -f 1 /proc/modules | grep -c vsock
                    for m in $(cat modules.order); do grep -q "^${m%.ko} " /proc/modules || insmod $m || echo "not loaded: $m"; done
                    wc -l < modules.order; wc -l < /proc/modules
                    mkdir /run/a; mount -t overlay overlay -o lowerdir=/etc:/bin /run/a && ls /run/a/busybox
                    dmesg | grep -i -E 'unknown symbol|disagrees|invalid module' ; echo end
                    """)
            #expect(result.status == 0, "\(result.summary)")
            #expect(!result.output.contains("not loaded"), "\(result.summary)")
            let lines = ExpectedOutput.lines(of: result.output)
            #expect(lines.contains("/run/a/busybox") && lines.last { $0 == "end" } != nil, "\(result.summary)")
            #expect(lines.contains("3"), "the modules asked for: \(result.summary)")
        }

        /// The image's own busybox, and the host's, which is of the same package: code that is built for size.
        @Test func busyboxAnswersAsOnTheHost() async throws {
            if !FileManager.default.isExecutableFile(atPath: "/bin/busybox") {
                try Requirement.missing("interpreter", "there is no /bin/busybox")
            }
            let script = try String(contentsOfFile: Repository.root + "/Tests/IntegrationTests/rig/shell-checks", encoding: .utf8)
            let host = try await ChildProcess.run(
                ["/bin/busybox", "env", "-i", "PATH=/nowhere", "/bin/busybox", "sh"], input: Array(script.utf8), deadline: 60)
            let expected = ExpectedOutput.lines(of: host.output)
            try #require(host.status == 0 && expected.count > 150, "the host's own answers: \(host.summary)")
            try await Self.image()
            let files = try #require(ImageStore().image("linux")).files
            // Archives one behind the other are one tree; the script is too long for a command line.
            var archive = CPIOArchive()
            archive.addFile("checks", Array(script.utf8))
            let initrd = Repository.root + "/.build/rig/shell-checks.cpio"
            try FileManager.default.createDirectory(
                atPath: (initrd as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
            try (Data(contentsOf: URL(fileURLWithPath: files.initrd)) + Data(archive.finished())).write(to: URL(fileURLWithPath: initrd))
            let encoded = Data("echo @answers; sh /checks; echo @end".utf8).base64EncodedString()
            let result = try await Hover.run(
                [files.kernel, "--initrd", initrd, "--engine", "interpreter", "--memory", "256M", "--append", "quiet windhover.exec=\(encoded)"],
                deadline: 90)
            let lines = ExpectedOutput.lines(of: result.output)
            let begin = try #require(lines.firstIndex(of: "@answers"), "\(result.summary)")
            let end = try #require(lines.firstIndex(of: "@end"), "\(result.summary)")
            let answers = Array(lines[(begin + 1)..<end])
            for (answer, right) in zip(answers, expected) { #expect(answer == right) }
            #expect(answers.count == expected.count, "\(result.summary)")
        }

        /// The same programs do the same work here and there: their answers are the processor's this runs on.
        @Test func programsAnswerAsOnTheHost() async throws {
            try await Self.image()
            for path in ["/bin/busybox", "/usr/bin/cpio", "/usr/bin/apt-get", "/usr/bin/dpkg-deb"]
            where !FileManager.default.isExecutableFile(atPath: path) {
                try Requirement.missing("interpreter", "there is no \(path)")
            }
            let tree = Repository.root + "/.build/rig/userland"
            try FileManager.default.createDirectory(
                atPath: (tree as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
            let built = try await ChildProcess.run(
                [Repository.root + "/Tests/IntegrationTests/rig/userland", tree], deadline: 600)
            if built.status == 69 { try Requirement.missing("interpreter", built.summary) }
            try #require(built.status == 0, "\(built.summary)")

            var root = ["chroot", tree]
            if getuid() != 0 { root = ["unshare", "--map-root-user"] + root }
            let host = try await ChildProcess.run(root + ["/bin/sh", "/checks"], deadline: 120)
            try #require(host.status == 0, "\(host.summary)")
            let result = try await Hover.run(
                ["linux", "--engine", "interpreter", "--memory", "1G", "--initrd", tree + ".cpio"], deadline: 400)
            #expect(result.status == 0, "\(result.summary)")
            let lines = ExpectedOutput.lines(of: result.output)
            let begin = try #require(lines.firstIndex(of: "@answers"), "\(result.summary)")
            let end = try #require(lines.firstIndex(of: "@end"), "\(result.summary)")
            let answers = lines[(begin + 1)..<end].filter { !$0.isEmpty }
            let expected = ExpectedOutput.lines(of: host.output).filter { !$0.isEmpty }
            #expect(expected.count > 40 && !host.output.contains("status"), "the host's own answers: \(host.summary)")
            for (answer, right) in zip(answers, expected) { #expect(answer == right) }
            #expect(answers.count == expected.count)
        }
    }
}
