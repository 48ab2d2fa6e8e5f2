import Foundation
import MonitorTesting
import Synchronization
import Testing
import WindhoverTesting

@testable import Windhover

extension VirtualMachineConfiguration {
    /// A small guest on the software CPU.
    fileprivate static func small(_ change: (inout VirtualMachineConfiguration) -> Void = { _ in }) throws -> VirtualMachineConfiguration {
        var configuration = VirtualMachineConfiguration()
        configuration.engine = .interpreter
        configuration.memory = try MemorySize("256M")
        change(&configuration)
        return configuration
    }
}

/// A directory of the host's, removed at its end.
private final class Scratch: Sendable {
    let path = NSTemporaryDirectory() + "windhover-library-\(UUID().uuidString.prefix(8))"
    init() { try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
    deinit { try? FileManager.default.removeItem(atPath: path) }
}

private let writable = Scratch()
private let readable = Scratch()

/// Set where tests that fail are to run.
private let failingTests = "WINDHOVER_FAILING_TESTS"

extension SlowTiers {
    /// Commands, files and the console of one guest, which the trait starts.
    @Suite(
        .serialized,
        .guest {
            $0.engine = .interpreter
            $0.memory = try MemorySize("256M")
            $0.shares = [
                .init(directory: writable.path, path: "/mnt"),
                .init(directory: readable.path, path: "/readable", isReadOnly: true),
            ]
        })
    struct LibraryTests {
        private let guest: VirtualMachine

        init() throws { guest = try Guest.current }

        @Test func aCommandsOutputAndStatusAreTold() async throws {
            let kernel = try await guest.run("uname", "-sr")
            #expect(kernel.isSuccess && kernel.output == "Linux \(guest.kernelRelease ?? "")\n")
            let result = try await guest.shell("echo out; echo err >&2; exit 7")
            #expect(result.status == 7 && !result.isSuccess)
            #expect(result.output == "out\n" && result.errorOutput == "err\n")
            #expect(guest.engine == "interpreter" && guest.engineReason == "asked for")
        }

        @Test func inputEnvironmentDirectoryAndUserAreAsAsked() async throws {
            var options = CommandOptions()
            options.input = Array("typed\n".utf8)
            options.environment.append("COLOUR=grey")
            options.directory = "/usr/bin"
            options.user = "nobody"
            let result = try await guest.shell("cat; echo $COLOUR; pwd; id -un", options)
            #expect(result.output == "typed\ngrey\n/usr/bin\nnobody\n", "\(result)")
            // Nothing of the host's environment is the guest's.
            #expect(try await guest.shell("echo ${USER:-none} $HOME").output == "none /root\n")
        }

        @Test func aSignalIsToldAsOne() async throws {
            let result = try await guest.shell("kill -9 $$")
            #expect(result.exit.cause == .signal(9, coreDumped: false) && result.status == 137)
        }

        @Test func whatIsNotThereIsNotStarted() async throws {
            await #expect { try await guest.run("no-such-program") } throws: { error in
                (error as? GuestFailure)?.kind == .notStarted(status: 127) && "\(error)".contains("no-such-program")
            }
            var options = CommandOptions()
            options.directory = "/no/such"
            await #expect { try await guest.run(["true"], options) } throws: { error in
                (error as? GuestFailure)?.kind == .notStarted(status: 125) && "\(error)".contains("/no/such")
            }
            #expect(guest.state == .running)
        }

        @Test func outputBeyondTheLimitIsCounted() async throws {
            var options = CommandOptions()
            options.outputLimit = 10
            let result = try await guest.run(["head", "-c", "1000", "/dev/zero"], options)
            #expect(result.standardOutput.count == 10 && result.droppedBytes == 990)
        }

        @Test(.timeLimit(.minutes(2))) func aCommandIsKilledAtItsLimit() async throws {
            var options = CommandOptions()
            options.timeLimit = .milliseconds(700)
            await #expect { try await guest.shell("echo so far; sleep 600", options) } throws: { error in
                let failure = error as? GuestFailure
                return failure?.kind == .timedOut && failure?.description.contains("so far") == true
                    && failure?.description.contains("within 0.7 seconds") == true
            }
            #expect(guest.state == .running)
            try await expectNoneLeft("sleep 600")
        }

        @Test(.timeLimit(.minutes(2))) func aCancelledTaskKillsItsCommand() async throws {
            let guest = guest
            let task = Task { try await guest.shell("echo begun > /run/begun; sleep 601") }
            while !(try await guest.run("test", "-s", "/run/begun").isSuccess) {}
            let start = ContinuousClock.now
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
            #expect(ContinuousClock.now - start < .seconds(30))
            try await expectNoneLeft("sleep 601")
        }

        private func expectNoneLeft(_ command: String) async throws {
            let left = try await guest.shell("for file in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $file 2>/dev/null; echo; done")
            #expect(!left.output.split(separator: "\n").contains { $0.hasPrefix(command) }, "\(left.output)")
        }

        @Test func commandsRunAtOnce() async throws {
            let guest = guest
            let sums = try await withThrowingTaskGroup(of: Int?.self) { group in
                for number in 0..<12 {
                    group.addTask {
                        var options = CommandOptions()
                        options.input = Array("\(number)".utf8)
                        return Int(try await guest.run(["cat"], options).output)
                    }
                }
                return try await group.reduce(into: Set<Int>()) { $0.insert($1 ?? -1) }
            }
            #expect(sums == Set(0..<12))
        }

        @Test func filesGoInAndOut() async throws {
            let contents = (0..<(10 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 9) }
            try await guest.write(contents, to: "/run/large", permissions: 0o600)
            #expect(try await guest.run("stat", "-c", "%s %a", "/run/large").output == "\(10 << 20) 600\n")
            #expect(try await difference(of: guest.read("/run/large"), from: contents) == nil)
            // In place of what was in it.
            try await guest.write(Array("short".utf8), to: "/run/large")
            #expect(try await guest.read("/run/large") == Array("short".utf8))
            await #expect(throws: GuestFailure.self) { _ = try await guest.read("/run/large", limit: 4) }
            await #expect { _ = try await guest.read("/no/such") } throws: { "\($0)".contains("'/no/such' in the guest cannot be read") }
            await #expect { try await guest.write([], to: "/no/such") } throws: { "\($0)".contains("'/no/such' in the guest cannot be written") }
        }

        @Test func sharesAreWrittenThroughUnlessForbidden() async throws {
            try await guest.write(Array("from the guest".utf8), to: "/mnt/word")
            #expect(try String(contentsOfFile: writable.path + "/word", encoding: .utf8) == "from the guest")
            try "from the host".write(toFile: readable.path + "/word", atomically: false, encoding: .utf8)
            #expect(try await guest.run("cat", "/readable/word").output == "from the host")
            #expect(!(try await guest.shell("echo no > /readable/other").isSuccess))
            // The root is the host's, and stays as it is.
            #expect(try await guest.shell("echo no > /etc/windhover-was-here").isSuccess)
            #expect(!FileManager.default.fileExists(atPath: "/etc/windhover-was-here"))
        }

        @Test func theConsoleIsWaitedFor() async throws {
            async let line = guest.console.expectLine(within: .seconds(60)) { $0.contains("said by the kernel") }
            _ = try await guest.shell("echo '<1>said by the kernel' > /dev/kmsg; echo said by a program > /dev/console")
            #expect(try await line.hasSuffix("said by the kernel"))
            #expect(try await guest.console.expect("by a program").hasSuffix("said by a program"))
            await #expect(throws: VirtualMachineError.timedOut(waitingFor: "'nothing' on the console")) {
                try await guest.console.expect("nothing", within: .milliseconds(50))
            }
        }

        /// Nothing that a guest's processors do is done while it stands still; all of it afterwards.
        @Test func aPausedGuestStandsStill() async throws {
            let guest = guest
            let task = Task { try await guest.shell("i=0; while [ $i -lt 60 ]; do i=$((i + 1)); echo step > /dev/console; sleep 0.02; done; echo $i") }
            try await guest.console.expect("step")
            try await guest.pause()
            #expect(guest.state == .paused)
            let before = (guest.console.bytes.count, await guest.statistics()?.instructions)
            try await Task.sleep(for: .milliseconds(500))
            #expect(guest.console.bytes.count == before.0)
            #expect(await guest.statistics()?.instructions == before.1)
            #expect((before.1 ?? 0) > 1_000_000)
            await #expect(throws: VirtualMachineError.wrongState(.paused)) { try await guest.pause() }
            try await guest.resume()
            #expect(try await task.value.output == "60\n")
            #expect(try #require(await guest.statistics()).instructions > before.1 ?? .max)
        }

        @Test func itsNumbersAreTold() async throws {
            let statistics = try #require(await guest.statistics())
            #expect(statistics.exits > 0)
            #expect(statistics.devices.map(\.kind).contains("socket"), "\(statistics.devices.map(\.kind))")
        }

        /// A guest within the reach of another is the nearer test's.
        @Test(.guest { $0.engine = .interpreter; $0.memory = try MemorySize("128M"); $0.isConsoleQuiet = false })
        func theNearestGuestIsTheTests() async throws {
            let inner = try Guest.current
            #expect(inner.configuration.memory.bytes == 128 << 20 && inner.configuration.shares.isEmpty)
            #expect(inner.console.text.contains("Linux version"))
            #expect(try await inner.run("true").isSuccess)
        }

        @Suite struct Within {
            /// A suite in the suite has its guest, not another.
            @Test(arguments: [1, 2]) func theGuestIsTheOuterSuites(number: Int) async throws {
                #expect(try Guest.current.configuration.shares.count == 2)
            }
        }
    }

    /// Lives and deaths.
    @Suite(.serialized, .timeLimit(.minutes(5))) struct VirtualMachineLifeTests {
        private func machine(_ change: (inout VirtualMachineConfiguration) -> Void = { _ in }) throws -> VirtualMachine {
            try VirtualMachine(.small(change))
        }

        @Test func aMachineIsStartedAgain() async throws {
            let machine = try machine()
            for life in 1...2 {
                try await machine.start()
                #expect(machine.state == .running)
                await #expect(throws: VirtualMachineError.wrongState(.running)) { try await machine.start() }
                // What a life before wrote is gone.
                #expect(try await machine.shell("test -e /life && exit 1; echo \(life) > /life").isSuccess)
                await machine.stop()
                #expect(machine.state == .stopped && machine.failure == nil)
                await #expect(throws: VirtualMachineError.wrongState(.stopped)) { try await machine.run("true") }
            }
            #expect(machine.engine == "interpreter")
            #expect(try #require(await machine.statistics()).instructions > 1_000_000)
        }

        /// Who waits for a command of a machine that is stopped, paused though it is, is told so.
        @Test func aStopEndsWhatIsUnderWay() async throws {
            let machine = try machine()
            try await machine.start()
            let command = Task { try await machine.shell("echo up > /dev/console; sleep 600") }
            let console = Task { try await machine.console.expect("never to be seen", within: .seconds(600)) }
            try await machine.console.expect("up")
            try await machine.pause()
            async let (one, two): (Void, Void) = (machine.stop(), machine.stop())
            _ = await (one, two)
            #expect(machine.state == .stopped)
            await #expect(throws: VirtualMachineError.stopped) { try await command.value }
            await #expect(throws: VirtualMachineError.self) { try await console.value }
        }

        /// At any moment of its way up: a stop, or the end of the task.
        @Test(arguments: [0, 5, 40, 200, 800]) func aStartIsGivenUp(milliseconds: Int) async throws {
            let machine = try machine()
            let clock = ContinuousClock()
            let stopped = Task { try await machine.start() }
            try await Task.sleep(for: .milliseconds(milliseconds))
            let begin = clock.now
            if machine.state == .stopped { while machine.state == .stopped { await Task.yield() } }
            await machine.stop()
            #expect(machine.state == .stopped && machine.failure == nil)
            await #expect(throws: VirtualMachineError.stopped) { try await stopped.value }
            let cancelled = Task { try await machine.start() }
            try await Task.sleep(for: .milliseconds(milliseconds))
            cancelled.cancel()
            await #expect(throws: CancellationError.self) { try await cancelled.value }
            #expect(machine.state == .stopped)
            #expect(clock.now - begin < .seconds(30))
        }

        @Test func aPanicIsToldWithItsLines() async throws {
            let machine = try machine()
            try await machine.start()
            let states = Task {
                for await state in machine.states where state == .failed { return true }
                return false
            }
            await #expect { try await machine.shell("echo c > /proc/sysrq-trigger; sleep 600") } throws: { error in
                let failure = error as? GuestFailure
                return failure?.kind == .panicked && failure?.description.contains("sysrq triggered crash") == true
            }
            #expect(await states.value)
            #expect(machine.state == .failed)
            #expect((machine.failure as? GuestFailure)?.kind == .panicked)
            #expect(machine.console.text.contains("Kernel panic - not syncing"))
            await #expect { try await machine.run("true") } throws: { ($0 as? GuestFailure)?.kind == .panicked }
            // It is of use again.
            try await machine.start()
            #expect(try await machine.run("true").isSuccess)
            await machine.stop()
        }

        @Test func aGuestThatPowersOffHasFailed() async throws {
            let machine = try machine()
            try await machine.start()
            await #expect { try await machine.shell("echo o > /proc/sysrq-trigger; sleep 600") } throws: { error in
                (error as? GuestFailure)?.kind == .died && "\(error)".hasPrefix("the guest powered off")
            }
            while machine.state != .failed { try await Task.sleep(for: .milliseconds(10)) }
            await machine.stop()
            #expect(machine.state == .stopped)
        }

        @Test func aGuestThatDoesNotComeUpIsToldSo() async throws {
            let machine = try machine {
                $0.commandLine = "init=/nowhere rdinit=/nowhere panic=0"
                $0.bootTimeLimit = .seconds(20)
            }
            await #expect { try await machine.start() } throws: { error in
                let kind = (error as? GuestFailure)?.kind
                return kind == .panicked || kind == .neverUp
            }
            #expect(machine.state == .failed && machine.failure is GuestFailure)
            #expect(machine.engine == "interpreter")
            await machine.stop()
        }

        /// Nobody holds it any more: its threads and its memory go.
        @Test func aDroppedMachineEnds() async throws {
            var machine: VirtualMachine? = try machine()
            try await machine?.start()
            let states = try #require(machine).states
            let console = try #require(machine).console
            #expect(threads.contains { $0.hasPrefix("vcpu") })
            machine = nil
            for await _ in states {}
            for await _ in console {}
            let end = ContinuousClock.now + .seconds(20)
            while threads.contains(where: { $0.hasPrefix("vcpu") }), ContinuousClock.now < end { try await Task.sleep(for: .milliseconds(20)) }
            #expect(!threads.contains { $0.hasPrefix("vcpu") })
        }

        /// The names of this process's threads.
        private var threads: [String] {
            ((try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")) ?? []).compactMap {
                try? String(contentsOfFile: "/proc/self/task/\($0)/comm", encoding: .utf8)
            }
        }

        @Test func machinesRunAtOnce() async throws {
            try await withThrowingTaskGroup(of: String.self) { group in
                for number in 0..<3 {
                    group.addTask {
                        let machine = try VirtualMachine(.small())
                        try await machine.start()
                        let result = try await machine.shell("echo \(number) > /run/mine; sleep 0.5; cat /run/mine")
                        await machine.stop()
                        return result.output
                    }
                }
                let outputs = try await group.reduce(into: [String]()) { $0.append($1) }
                #expect(outputs.sorted() == ["0\n", "1\n", "2\n"])
            }
        }
    }

    /// What a report has of a guest whose tests fail: they do so in a process of their own.
    @Suite(.serialized) struct FailureReportTests {
        private func run(_ suite: String, _ options: [String] = [], through: [String] = []) async throws -> ChildResult {
            try await ChildProcess.run(
                through + [try #require(CommandLine.arguments.first), "--testing-library", "swift-testing", "--filter", suite] + options,
                environment: [failingTests: "1"], deadline: 300)
        }

        /// Skipped or failed, with the reason, as the trait says; on a host whose /dev/kvm is something else.
        @Test func aMissingEngineSkipsOrFails() async throws {
            guard geteuid() == 0 else { try Test.cancel("only root can hide /dev/kvm") }
            let script = "mount --make-rprivate / && { [ -e /dev/kvm ] || : > /dev/kvm; } && mount --bind /dev/null /dev/kvm && exec \"$@\""
            let result = try await run("MissingEngineTests", through: ["/usr/bin/unshare", "-m", "/bin/sh", "-c", script, "sh"])
            let text = result.output + result.error
            #expect(result.status == 1 && !text.contains("it ran"), "\(text)")
            for name in ["skips", "skipsInASuite"] { #expect(text.contains("Test \(name)() skipped: \"there is no engine for the guest: "), "\(text)") }
            #expect(text.contains("Test fails() recorded an issue") && text.contains("with 1 issue"), "\(text)")
        }

        @Test func aFailureIsToldWithItsGuest() async throws {
            let attachments = Scratch()
            let result = try await run("FailingGuestTests", ["--attachments-path", attachments.path])
            let text = result.output + result.error
            #expect(result.status == 1, "\(text)")
            // The expectation, the error and the missing engine; what passes and what is skipped tell nothing.
            #expect(text.contains("the guest: Linux "), "\(text)")
            #expect(text.contains("on interpreter (asked for), 1 CPU, 256M, running"), "\(text)")
            #expect(text.contains("words on the console"), "\(text)")
            #expect(text.contains("with 3 issues"), "\(text)")
            let files = try FileManager.default.contentsOfDirectory(atPath: attachments.path)
            #expect(files.filter { $0.hasPrefix("console") }.count == 3, "\(files)")
            let facts = try files.filter { $0.hasPrefix("guest") }.map { try String(contentsOfFile: attachments.path + "/" + $0, encoding: .utf8) }
            #expect(facts.contains { $0.contains("state: failed") && $0.contains("failure: the guest's kernel panicked") }, "\(facts)")
            for fact in facts {
                #expect(fact.contains("engine: interpreter\n") && fact.contains("why this engine: asked for\n") && fact.contains("kernel: "), "\(fact)")
                #expect(fact.contains("\nexits: ") && fact.contains("\ninstructions: ") && fact.contains("\nsocket: "), "\(fact)")
            }
        }
    }
}

/// Tests that fail, run by `FailureReportTests` only.
@Suite(.serialized, .enabled(if: ProcessInfo.processInfo.environment[failingTests] != nil))
struct FailingGuestTests {
    @Suite(.serialized, .guest { $0.engine = .interpreter; $0.memory = try MemorySize("256M") }) struct OneGuest {
        @Test func passes() async throws { #expect(try await Guest.current.run("true").isSuccess) }

        @Test func expects() async throws {
            #expect(try await Guest.current.shell("echo words on the console > /dev/console; exit 3").isSuccess)
        }

        @Test func throwsAnError() async throws { _ = try await Guest.current.run("no-such-program") }

        @Test func panics() async throws { _ = try await Guest.current.shell("echo c > /proc/sysrq-trigger; sleep 600") }
    }
}

/// Tests that insist on KVM, run by `FailureReportTests` where there is none.
@Suite(.serialized, .enabled(if: ProcessInfo.processInfo.environment[failingTests] != nil))
struct MissingEngineTests {
    @Test(.guest(whenMissing: .skip) { $0.engine = .kvm }) func skips() { Issue.record("it ran") }
    @Test(.guest(whenMissing: .fail) { $0.engine = .kvm }) func fails() { Issue.record("it ran") }
    @Suite(.guest(whenMissing: .skip) { $0.engine = .kvm }) struct AsASuite {
        @Test func skipsInASuite() { Issue.record("it ran") }
    }
}
