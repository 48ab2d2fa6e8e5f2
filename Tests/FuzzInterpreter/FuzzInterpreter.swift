import Glibc
import MonitorTesting

/// Random code with random state on the interpreter, until the time is over: see `InterpreterFuzzer`.
///
/// Usage: `fuzz-interpreter [--seed N] [--seconds N] [--first CASE] [--cases N]`. The exit status is 0 where nothing of
/// ours trapped, hung or grew; a crash or a hang tells the seed and the case.
@main
struct FuzzInterpreter {
    static func main() throws {
        var options: [String: UInt64] = [:]
        var arguments = CommandLine.arguments.dropFirst()
        while let name = arguments.popFirst() {
            guard ["--seed", "--seconds", "--first", "--cases"].contains(name), let value = arguments.popFirst().flatMap({ UInt64($0) })
            else {
                print("usage: fuzz-interpreter [--seed N] [--seconds N] [--first CASE] [--cases N]")
                exit(64)
            }
            options[name] = value
        }
        let seed = options["--seed"] ?? UInt64(getpid()) &* 1_000_003 &+ UInt64(time(nil))
        say("fuzz-interpreter: --seed \(seed)")
        let fuzzer = InterpreterFuzzer(seed: seed)
        try fuzzer.run(first: options["--first"] ?? 0, count: options["--cases"] ?? .max, seconds: options["--seconds"] ?? 600) {
            say($0.summary)
        }
        let report = fuzzer.report
        say("done: \(report.summary)")
        if report.residentLate > report.residentEarly + 32 << 10 {
            say("it grew")
            exit(1)
        }
    }

    /// At once, so that it is known after a crash.
    private static func say(_ line: String) {
        print(line)
        fflush(nil)
    }
}
