import Glibc
import VMCore
import Virtio
import MonitorTesting

/// A driver without rules against a virtio device, until the time is over: see `VirtioFuzzer`.
///
/// Usage: `fuzz-virtio [--device NAME] [--transport NAME] [--seed N] [--seconds N] [--first CASE] [--cases N]`. Without a
/// device, each in turn, which the time is divided among. The exit status is 0 where nothing of ours trapped, hung or grew; a
/// crash tells the seed and about which case it was.
@main
struct FuzzVirtio {
    /// KiB by which the second half of a run may grow: what grows with every request is far beyond it.
    private static let mostGrowth: UInt64 = 8 << 10

    static func main() {
        var words: [String: String] = [:]
        var arguments = CommandLine.arguments.dropFirst()
        while let name = arguments.popFirst() {
            guard ["--device", "--transport", "--seed", "--seconds", "--first", "--cases"].contains(name),
                let value = arguments.popFirst()
            else { usage() }
            words[name] = value
        }
        func number(_ name: String) -> UInt64? {
            guard let text = words[name] else { return nil }
            guard let value = UInt64(text) else { usage() }
            return value
        }
        let seed = number("--seed") ?? UInt64(getpid()) &* 1_000_003 &+ UInt64(time(nil))
        let devices = FuzzSubject.allCases.filter { words["--device"] == nil || words["--device"] == $0.rawValue }
        let transports = TransportKind.allCases.filter { words["--transport"] == nil || words["--transport"] == "\($0)" }
        if devices.isEmpty || transports.isEmpty { usage() }
        // What is shared with a guest is on a disk of the host's.
        var limits = rlimit(rlim_cur: 16 << 20, rlim_max: 16 << 20)
        setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limits)
        signal(SIGXFSZ, SIG_IGN)
        let seconds = max(2, (number("--seconds") ?? 600) / UInt64(devices.count * transports.count))
        var isGood = true
        for device in devices {
            for transport in transports {
                say("fuzz-virtio --device \(device.rawValue) --transport \(transport) --seed \(seed)")
                let fuzzer = VirtioFuzzer(seed: seed, subject: device.make, transport: transport.driver)
                do {
                    if try !run(fuzzer, first: number("--first") ?? 0, cases: number("--cases"), seconds: seconds) {
                        isGood = false
                    }
                } catch {
                    say("FAILED: \(error)")
                    isGood = false
                }
                report(fuzzer)
            }
        }
        exit(isGood ? 0 : 1)
    }

    /// Memory is measured over the second half: in the first one everything gets its size.
    private static func run(_ fuzzer: VirtioFuzzer, first: UInt64, cases: UInt64?, seconds: UInt64) throws -> Bool {
        let half = cases.map { $0 / 2 }
        try fuzzer.run(first: first, count: half ?? .max, seconds: seconds / 2, began)
        let early = resident()
        try fuzzer.run(
            first: first &+ fuzzer.cases, count: cases.map { $0 - (half ?? 0) } ?? .max, seconds: seconds - seconds / 2,
            began)
        let late = resident()
        if fuzzer.counts["escapes", default: 0] > 0 {
            say("FAILED: something beside what was shared has changed")
            return false
        }
        say("\(fuzzer.cases) cases, longest turn \(fuzzer.longestTurn / 1000) us, \(early) to \(late) KiB")
        guard late > early + mostGrowth else { return true }
        say("FAILED: it grew")
        return false
    }

    private static func began(_ number: UInt64) {
        // What a crash leaves on the terminal is the last of these.
        if number % 1000 == 0 { say("case \(number)") }
    }

    private static func report(_ fuzzer: VirtioFuzzer) {
        let list = fuzzer.counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
        say("    " + list.joined(separator: ", "))
    }

    private static func usage() -> Never {
        print("usage: fuzz-virtio [--device NAME] [--transport NAME] [--seed N] [--seconds N] [--first CASE] [--cases N]")
        print("devices: " + FuzzSubject.allCases.map(\.rawValue).joined(separator: " "))
        exit(64)
    }

    /// KiB.
    private static func resident() -> UInt64 {
        guard let file = fopen("/proc/self/statm", "r") else { return 0 }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 128)
        guard fgets(&line, Int32(line.count), file) != nil else { return 0 }
        let words = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self).split(
            separator: " ")
        return words.count > 1 ? (UInt64(words[1]) ?? 0) * 4 : 0
    }

    /// At once, so that it is known after a crash.
    private static func say(_ line: String) {
        print(line)
        fflush(nil)
    }
}
