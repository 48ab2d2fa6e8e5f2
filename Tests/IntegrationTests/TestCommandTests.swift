import Foundation
import Testing

@testable import Windhover

extension SlowTiers {
    /// `hover test` with guests on the software CPU: what its targets come to, and that nothing of them is left.
    @Suite(.serialized) struct TestCommandTests {
        private static let defaults = "[defaults]\nengine = 'interpreter'\nmemory = '256M'\n"

        private func target(_ name: String, _ command: String, _ more: String = "") -> String {
            "[[target]]\nname = '\(name)'\ncommand = '''\(command)'''\n\(more)\n"
        }

        private func run(_ targets: [String], _ options: [String] = [], in scratch: ExecScratch) async throws -> ChildResult {
            try await Exec.image()
            try scratch.write(Self.defaults + targets.joined(), to: "hover.toml")
            return try await ChildProcess.run(
                ["env", "-C", scratch.path, Hover.path, "test", "--junit", "r.xml"] + options, deadline: Exec.deadline * Double(targets.count))
        }

        /// Each way in which a run can end is told by itself.
        @Test func everyOutcome() async throws {
            let scratch = try ExecScratch()
            let result = try await run(
                [
                    target("passes", "test \"$(uname -m)\" = x86_64 && pwd"), target("fails", "echo why; exit 3"), target("is expected", "exit 3", "expect = 3"),
                    target("is killed", "kill -9 $$", "expect = 137"),
                    "[[target]]\nname = 'has no memory'\ncommand = ['tail', '/dev/zero']\nmemory = '160M'\nexpect = 137\n",
                    "[[target]]\nname = 'wants memory'\ncommand = ['tail', '/dev/zero']\nmemory = '160M'\n",
                    target("has a child that wants it", "tail /dev/zero; exit 2", "memory = '160M'"),
                    target("panics", "echo c > /proc/sysrq-trigger; sleep 100", "expect = 'panic'"), target("dies", "echo o > /proc/sysrq-trigger; sleep 100"),
                    target("hangs", "sleep 1000", "timeout = '20s'"), target("no kernel", "true", "kernel = './nothing'"),
                    target("no root", "true", "root = './nothing'"), "[[target]]\nname = 'no command'\ncommand = ['no-such-command']\n",
                    target("is skipped", "true", "skip = 'not yet'"),
                ], in: scratch)
            #expect(result.status == 1, "\(result.summary)")
            for line in [
                "ok passes (", "FAILED fails: exit status 3, where 0 is expected", "ok is expected (", "ok is killed (", "ok has no memory (",
                "FAILED wants memory: the command was killed: the guest was out of memory; it had 160 MiB", "ok panics (",
                "FAILED has a child that wants it: exit status 2, where 0 is expected", "    hover: the guest was out of memory while the command ran",
                "FAILED dies: the guest powered off before the command had ended\n", "FAILED hangs: the command was stopped: it did not end within 20s",
                "FAILED no kernel: there is no kernel './nothing'", "FAILED no root: --root: there is no directory '",
                "FAILED no command: no such command in the guest: 'no-such-command'", "skipped is skipped: not yet", "5 passed, 8 failed, 1 skipped in ",
            ] { #expect("\n\(result.output)".contains("\n\(line)"), "'\(line)' is missing: \(result.summary)") }
            let report = try #require(scratch.text("r.xml"))
            #expect(report.contains("tests=\"14\" failures=\"3\" errors=\"5\" skipped=\"1\""), "\(report)")
            #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path).sorted() == ["hover.toml", "r.xml"])
        }

        /// Who is killed can end nobody: the guests go all the same.
        @Test func aRunThatIsKilledTakesItsGuestsWithIt() async throws {
            let scratch = try ExecScratch()
            try await Exec.image()
            try scratch.write(Self.defaults + target("sleeps", "sleep 1000"), to: "hover.toml")
            let script = """
                export TMPDIR=\(scratch.path); cd $TMPDIR; \(Hover.path) test > out 2>&1 & run=$!
                for i in $(seq 1 600); do guest=$(pgrep -P $run) && break; sleep 0.05; done
                sleep 1; kill -KILL $run; wait $run
                for i in $(seq 1 100); do kill -0 $guest 2> gone || break; sleep 0.05; done
                kill -0 $guest 2> gone && echo lives; echo "guest $guest"
                """
            let result = try await ChildProcess.run(["bash", "-c", script], deadline: 120)
            #expect(result.output.hasPrefix("guest ") && result.output.count > 7, "\(result.summary)")
        }
    }
}
