internal import Glibc

/// Tells, when the process is about to die, which case it was at. Async-signal-safe: only `write` and `_exit`.
enum CrashReport {
    nonisolated(unsafe) private static var seed: UInt64 = 0
    /// The case being run.
    nonisolated(unsafe) static var current: UInt64 = 0

    static func install(seed: UInt64) {
        unsafe Self.seed = seed
        var action = sigaction()
        unsafe action.__sigaction_handler.sa_handler = { signal in
            CrashReport.say("crash by signal", UInt64(UInt32(bitPattern: signal)))
            CrashReport.place()
            _exit(128 &+ signal)
        }
        for signal in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT] { _ = unsafe sigaction(signal, &action, nil) }
        // The interpreter's own floating point needs SIGFPE: where it has a handler by now, that one stays.
        var floatingPoint = sigaction()
        _ = unsafe sigaction(SIGFPE, nil, &floatingPoint)
        if unsafe floatingPoint.__sigaction_handler.sa_handler == nil { _ = unsafe sigaction(SIGFPE, &action, nil) }
    }

    static func hang() -> Never {
        say("hang, not ended by a kick", 0)
        place()
        _exit(124)
    }

    private static func place() {
        say("seed", unsafe seed)
        let first = unsafe current &- current % InterpreterFuzzer.casesPerMachine
        say("case", unsafe current)
        say("repeat it with --first", first)
        say("and --cases", unsafe current &- first &+ 1)
    }

    private static func say(_ what: StaticString, _ number: UInt64) {
        _ = unsafe write(STDERR_FILENO, what.utf8Start, what.utf8CodeUnitCount)
        unsafe withUnsafeTemporaryAllocation(byteCount: 24, alignment: 1) { digits in
            var at = 23
            unsafe digits[at] = 10
            var rest = number
            repeat {
                at &-= 1
                unsafe digits[at] = UInt8(truncatingIfNeeded: 48 &+ rest % 10)
                rest /= 10
            } while rest != 0
            at &-= 1
            unsafe digits[at] = 32
            _ = unsafe write(STDERR_FILENO, digits.baseAddress! + at, 24 &- at)
        }
    }
}
