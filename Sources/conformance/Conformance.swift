import MonitorTesting

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// The engine conformance suite as a program of its own, for machines that have no test runner: it links statically
/// and needs nothing but a kernel.
///
/// Usage: `conformance [WORD]...` runs the cases whose line holds every WORD. A line a case, tab-separated:
/// `passed`, `failed` or `absent`; the engine; the case; what was found wrong. The last line counts them.
/// The exit status is 1 where a case failed, or none ran.
///
/// `conformance states ...` compares privileged programs instead: see States.swift.
@main
struct Conformance {
    static func main() {
        if CommandLine.arguments.dropFirst().first == "states" {
            exit(ControlStates.run(Array(CommandLine.arguments.dropFirst(2))) ? 0 : 1)
        }
        let words = CommandLine.arguments.dropFirst()
        var passed = 0
        var failed = 0
        var absent = 0
        for factory in EngineFactory.all {
            let cases = ConformanceCase.all.filter { conformance in
                factory.features.isSuperset(of: conformance.requires)
                    && words.allSatisfy { "\(factory.name)\t\(conformance.name)".contains($0) }
            }
            if cases.isEmpty { continue }
            if let reason = factory.unavailable {
                absent += cases.count
                say("absent\t\(factory.name)\t\t\(reason)")
                continue
            }
            for conformance in cases {
                do {
                    try conformance.run(factory)
                    passed += 1
                    say("passed\t\(factory.name)\t\(conformance.name)\t")
                } catch {
                    failed += 1
                    say("failed\t\(factory.name)\t\(conformance.name)\t\(error)")
                }
            }
        }
        say("\(passed) passed, \(failed) failed, \(absent) skipped")
        exit(failed > 0 || passed == 0 ? 1 : 0)
    }

    /// At once, so that what was found before a crash is known after it.
    static func say(_ line: String) {
        let bytes = Array((line.split(whereSeparator: \.isNewline).joined(separator: " ") + "\n").utf8)
        var written = 0
        while written < bytes.count {
            let count = unsafe bytes[written...].withUnsafeBytes { unsafe write(STDOUT_FILENO, $0.baseAddress, $0.count) }
            guard count > 0 else { exit(1) }
            written += count
        }
    }
}
