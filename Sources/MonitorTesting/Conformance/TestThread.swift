internal import Glibc
internal import Synchronization

/// A thread for a test: kickers, watchdogs, second vCPUs.
@safe final class TestThread: @unchecked Sendable {
    private var handle = pthread_t()

    private final class Body {
        let run: () -> Void
        init(_ run: @escaping () -> Void) { self.run = run }
    }

    init(_ body: @escaping @Sendable () -> Void) {
        let boxed = unsafe Unmanaged.passRetained(Body(body)).toOpaque()
        let result = unsafe pthread_create(&handle, nil, { argument in
            guard let argument = unsafe argument else { return nil }
            unsafe Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
            return nil
        }, boxed)
        guard result == 0 else { fatalError("the host has no room for a test's thread") }
    }

    func join() { pthread_join(handle, nil) }
}

/// Milliseconds on the host's monotonic clock.
func milliseconds() -> UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) &* 1000 &+ UInt64(time.tv_nsec) / 1_000_000
}

func sleep(microseconds: UInt32) { usleep(microseconds) }

/// Kicks vCPUs until told that they have ended, from a deadline on: no guest outlives its case.
final class Watchdog: Sendable {
    private let done = Atomic<Bool>(false)
    private let hasBarked = Atomic<Bool>(false)

    /// Whether the deadline passed.
    var barked: Bool { hasBarked.load(ordering: .acquiring) }

    func start(after limit: UInt64, _ bark: @escaping @Sendable () -> Void) -> TestThread {
        TestThread { [self] in
            let end = milliseconds() + limit
            while !done.load(ordering: .acquiring) {
                if milliseconds() >= end {
                    hasBarked.store(true, ordering: .releasing)
                    bark()
                }
                usleep(500)
            }
        }
    }

    func stop() { done.store(true, ordering: .releasing) }
}
