import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// The signal that is to end what is done; 0 while there is none.
private let interruption = Atomic<Int32>(0)

/// Ctrl-C and the other signals that end a program, noted while something runs that has to be ended in an orderly way.
enum EndingSignals {
    /// The last one that came; 0 while there is none.
    static var pending: Int32 { interruption.load(ordering: .relaxed) }

    /// The same, and forgets it, so that the next one is seen.
    static func take() -> Int32 { interruption.exchange(0, ordering: .relaxed) }

    /// Does something with the signals noted in place of their usual effect, which comes back after it.
    static func caught<Result>(_ body: () throws -> Result) rethrows -> Result {
        interruption.store(0, ordering: .relaxed)
        var action = sigaction()
        // Without SA_RESTART, so that a wait ends, too.
        unsafe action.__sigaction_handler.sa_handler = { number in interruption.store(number, ordering: .relaxed) }
        var former: [(number: Int32, action: sigaction)] = []
        for number in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            var old = sigaction()
            unsafe sigaction(number, nil, &old)
            // What was ignored when hover started stays ignored.
            if unsafe Int(bitPattern: unsafeBitCast(old.__sigaction_handler.sa_handler, to: OpaquePointer?.self)) == 1 { continue }
            unsafe sigaction(number, &action, nil)
            former.append((number, old))
        }
        defer {
            for index in former.indices { unsafe _ = sigaction(former[index].number, &former[index].action, nil) }
        }
        return try body()
    }
}
