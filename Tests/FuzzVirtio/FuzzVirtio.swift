import Glibc
import VMCore
import Virtio
import WindhoverTesting

/// A driver without rules against a virtio device, until the time is over: see `VirtioFuzzer`.
///
/// Usage: `fuzz-virtio [--device NAME] [--transport NAME] [--seed N] [--seconds N] [--first CASE] [--cases N]`. Without a device,
/// each in turn. The exit status is 0 where nothing of ours trapped, hung or grew; a crash tells the seed and the case.
@main
struct FuzzVirtio {
    static func main() throws {
        var words: [String: String] = [:]
        var arguments = CommandLine.arguments.dropFirst()
        while let name = arguments.popFirst() {
            guard ["--device", "--transport", "--seed", "--seconds", "--first", "--cases"].contains(name), let value = arguments.popFirst()
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
        let seconds = (number("--seconds") ?? 600) / UInt64(devices.count * transports.count)
        for device in devices {
            for transport in transports {
                let early = resident()
                let fuzzer = VirtioFuzzer(seed: seed, subject: device.make, transport: transport.make)
                say("fuzz-virtio --device \(device.rawValue) --transport \(transport) --seed \(seed)")
                try fuzzer.run(
                    first: number("--first") ?? 0, count: number("--cases") ?? .max, seconds: max(1, seconds)
                ) { current in
                    // What a crash leaves on the terminal is the last of these.
                    if current % 1000 == 0 { say("case \(current)") }
                }
                let late = resident()
                say("\(device.rawValue), \(transport): \(fuzzer.cases) cases, longest turn \(fuzzer.longestTurn / 1000) us, \(early) to \(late) KiB")
                if late > early + 64 << 10 {
                    say("it grew")
                    exit(1)
                }
            }
        }
    }

    private static func usage() -> Never {
        print("usage: fuzz-virtio [--device NAME] [--transport NAME] [--seed N] [--seconds N] [--first CASE] [--cases N]")
        exit(64)
    }

    /// KiB.
    private static func resident() -> UInt64 {
        guard let file = fopen("/proc/self/statm", "r") else { return 0 }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 128)
        guard fgets(&line, Int32(line.count), file) != nil else { return 0 }
        let words = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self).split(separator: " ")
        return words.count > 1 ? (UInt64(words[1]) ?? 0) * 4 : 0
    }

    /// At once, so that it is known after a crash.
    private static func say(_ line: String) {
        print(line)
        fflush(nil)
    }
}
