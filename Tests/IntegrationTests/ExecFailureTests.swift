import Foundation
import Testing

@testable import Windhover

extension SlowTiers {
    /// Everything that can go wrong with `hover exec` on the software CPU: told within two seconds of its cause, or at the
    /// time-out that was asked for, with an exit status and words of its own.
    @Suite(.serialized) struct ExecFailureTests {
        struct Row: Sendable, CustomTestStringConvertible {
            var name: String
            var options: [String] = []
            /// What brings it about, in the guest, half a second after it has said so.
            var cause: String
            var status: Int32
            var error: [String]
            /// Whether it is told at the time limit, not at the cause.
            var isAtLimit = false
            var testDescription: String { name }
        }

        /// Of a guest that had come up. What is done to the agent only root of the guest can do, which commands are.
        static let rows = [
            Row(
                name: "a panic", cause: "echo c > /proc/sysrq-trigger", status: 255,
                error: ["hover: the guest's kernel panicked: Kernel panic - not syncing: sysrq triggered crash", "Call Trace"]),
            Row(
                name: "an agent that crashes",
                cause: """
                    code=$(grep -m 1 r-xp /proc/1/maps | cut -d ' ' -f 1)
                    head -c $((0x${code#*-} - 0x${code%-*})) /dev/zero |
                        dd of=/proc/1/mem bs=4096 seek=$((0x${code%-*})) oflag=seek_bytes conv=notrunc status=none
                    echo so that it wakes
                    """, status: 255, error: ["panicked: Kernel panic - not syncing: Attempted to kill init!"]),
            Row(
                name: "an agent that loses its connection",
                cause: "cd /sys/bus/virtio/drivers/vmw_vsock_virtio_transport && for device in virtio*; do echo $device > unbind; done",
                status: 70, error: ["before the command had ended"]),
            Row(
                name: "an agent that is silent", options: ["--timeout", "10s"],
                cause: "mkdir /sys/fs/cgroup/still && echo 1 > /sys/fs/cgroup/still/cgroup.procs && echo 1 > /sys/fs/cgroup/still/cgroup.freeze",
                status: 124, error: ["--timeout"], isAtLimit: true),
            Row(
                name: "a power-off", cause: "echo o > /proc/sysrq-trigger", status: 70,
                error: ["hover: the guest powered off before the command had ended"]),
            Row(
                name: "a reset", cause: "echo b > /proc/sysrq-trigger", status: 70,
                error: ["hover: the guest reset before the command had ended"]),
        ]

        @Test(arguments: rows) func aGuestThatDies(_ row: Row) async throws {
            let timed = try await Exec.timed(row.options, script: "echo cause; sleep 0.5; \(row.cause); sleep 1000")
            let result = timed.result
            #expect(result.status == row.status, "\(result.summary)")
            for text in row.error { #expect(result.error.contains(text), "'\(text)' is missing: \(result.summary)") }
            #expect(result.error.hasPrefix("hover: "), "\(result.summary)")
            // On a machine that is slow enough the limit comes first.
            if row.isAtLimit { return expect(result.seconds - 10, of: row.name, result) }
            expect(try #require(timed.seconds, "\(result.summary)"), of: row.name, result)
        }

        /// - Parameter seconds: from the cause, or the limit, to hover's end.
        private func expect(_ seconds: Double, of name: String, _ result: ChildResult) {
            print("\(name): told after \(String(format: "%.2f", seconds)) s")
            #expect(seconds < Exec.promptly && seconds > -0.5, "\(name), after \(seconds) s: \(result.summary)")
        }

        /// A command that never ends, whatever it does about signals, and one that prints all the while.
        @Test(arguments: ["trap '' INT TERM HUP; sleep 1000", "yes"]) func aCommandThatNeverEnds(script: String) async throws {
            let result = try await Exec.around("\"$@\" > /dev/null", ["--timeout", "8s"], ["sh", "-c", script])
            #expect(result.status == 124, "\(result.summary)")
            #expect(result.error == "hover: the command was stopped: it did not end within 8s (--timeout)\n", "\(result.summary)")
            expect(result.seconds - 8, of: script, result)
        }

        // MARK: Guests that do not come up

        /// The kernel has no init, and no disk to look for one on.
        @Test func aKernelWithoutInit() async throws {
            let result = try await Exec.run(["--append", "rdinit=/nosuch"], ["true"])
            #expect(result.status == 255, "\(result.summary)")
            #expect(result.error.contains("panicked: Kernel panic - not syncing: VFS"), "\(result.summary)")
        }

        /// The agent, with words for which it is not a guest's PID 1 but a test's, and ends.
        @Test func anInitThatExits() async throws {
            let result = try await Exec.run(["--append", "-- --connect 0 0"], ["true"])
            #expect(result.status == 255, "\(result.summary)")
            #expect(
                result.error.contains("panicked: Kernel panic - not syncing: Attempted to kill init! exitcode=0x00004000"), "\(result.summary)")
        }

        /// A kernel that waits for a disk for ever, and speaks from its beginning.
        @Test func aKernelThatHangs() async throws {
            let options = ["--append", "rdinit=/nosuch root=/dev/nowhere rootwait loglevel=7 earlyprintk=ttyS0"]
            let result = try await Exec.run(options + ["--boot-timeout", "6s"], ["true"])
            #expect(result.status == 70, "\(result.summary)")
            #expect(
                result.error.hasPrefix("hover: the guest did not come up within 6s (--boot-timeout); the last lines of its console:\n"),
                "\(result.summary)")
            expect(result.seconds - 6, of: "a kernel that hangs", result)
            let limited = try await Exec.run(options + ["--timeout", "2s"], ["true"])
            #expect(limited.status == 124 && limited.error.contains("--timeout"), "\(limited.summary)")
            expect(limited.seconds - 2, of: "a kernel that hangs, with a limit", limited)
        }

        /// What is no Linux, or not there, costs no boot.
        @Test func whatIsNoKernel() async throws {
            let scratch = try ExecScratch()
            try await GuestBuild.ready()
            try scratch.write("no kernel", to: "text")
            for (options, status, error) in [
                (["--kernel", scratch.file("text")], 65, scratch.file("text")), (["--kernel", scratch.file("nowhere")], 66, "nowhere"),
                (["--kernel", GuestBuild.directory + "/hello-pvh.img"], 65, "no Linux"),
                (["--modules", scratch.file("nowhere")], 66, "nowhere"), (["--modules", scratch.path], 66, scratch.path),
                (["--root", scratch.file("nowhere")], 66, "--root"), (["--root", scratch.file("text")], 65, "is not a directory"),
                (["--share", scratch.file("nowhere")], 66, "--share"), (["--share", scratch.file("text")], 65, "is not a directory"),
                (["--disk", scratch.file("nowhere")], 66, "nowhere"), (["--console-log", scratch.file("no/log")], 66, "no/log"),
                (["--stats", scratch.file("no/stats")], 66, "no/stats"),
            ] as [([String], Int32, String)] {
                let result = try await Exec.run(options, ["true"])
                #expect(result.status == status && result.output.isEmpty, "\(options): \(result.summary)")
                #expect(result.error.contains(error) && ExpectedOutput.lines(of: result.error).count == 1, "\(options): \(result.summary)")
                #expect(result.seconds < Exec.promptly, "\(options): \(result.summary)")
            }
        }

        // MARK: Commands that cannot be started, or are killed

        @Test func commandsThatCannotBeStarted() async throws {
            let scratch = try ExecScratch()
            let plain = try scratch.write("#!/bin/sh\n", to: "plain")
            for (options, command, status, error) in [
                ([], "no-such-command", 127, "no-such-command"), ([], plain, 126, plain), ([], scratch.path, 126, scratch.path),
                (["--workdir", "/no/such/place"], "true", 125, "/no/such/place"),
                (["--user", "nobody-of-that-name"], "true", 125, "nobody-of-that-name"),
            ] as [([String], String, Int32, String)] {
                let result = try await Exec.run(options, [command])
                #expect(result.status == status && result.output.isEmpty, "\(options) \(command): \(result.summary)")
                #expect(
                    result.error.hasPrefix("hover: ") && result.error.contains(error) && ExpectedOutput.lines(of: result.error).count == 1,
                    "\(options) \(command): \(result.summary)")
            }
        }

        @Test func aCommandThatTheGuestHasNoMemoryFor() async throws {
            let result = try await Exec.run(["--memory", "160M"], ["tail", "/dev/zero"])
            #expect(result.status == 137, "\(result.summary)")
            #expect(
                result.error.contains("hover: the command was killed: the guest was out of memory; it had 160 MiB, give it more with --memory"),
                "\(result.summary)")
        }

        /// A shared directory that the host takes away: an error for who looks at it, and no more.
        @Test func aShareThatVanishes() async throws {
            let scratch = try ExecScratch()
            try scratch.directory("shared")
            try scratch.directory("told")
            try scratch.write("text", to: "shared/file")
            let around = """
                "$@" > out 2> err & pid=$!
                for i in $(seq 1 2800); do grep -q ready out && break; sleep 0.1; done
                rm -r shared; touch told/gone; wait $pid; echo "status $?"; cat out err
                """
            // In the root, an overlay, a name that was missing once may stay missing.
            let script = """
                cat /mnt/shared/file; echo ready; for i in $(seq 1 500); do [ -e /mnt/told/gone ] && break; sleep 0.1; done
                ls /mnt/shared/; echo new > /mnt/shared/new || echo no file; exit 9
                """
            let result = try await Exec.around(
                around, ["shared", "told"].flatMap { ["--share", "\(scratch.file($0)):/mnt/\($0)"] }, ["sh", "-c", script], in: scratch.path)
            #expect(result.output.hasPrefix("status 9\ntextready\n") && result.output.contains("no file"), "\(result.summary)")
        }
    }
}
