internal import CHost
internal import Glibc

/// A thread that makes calls which block.
///
/// It takes no signals but those of its own faults: SIGXFSZ too is an error of the call, and not the process's end.
enum WorkerThread {
    private final class Start {
        let name: StaticString
        let body: @Sendable () -> Void
        init(_ name: StaticString, _ body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }

    /// Starts one, which nobody waits for.
    /// - Parameter name: for ps and debuggers; at most 15 bytes.
    /// - Returns: whether the host had room for it.
    static func start(named name: StaticString = "disk", _ body: @escaping @Sendable () -> Void) -> Bool {
        let start = unsafe Unmanaged.passRetained(Start(name, body))
        var blocked = sigset_t()
        var previous = sigset_t()
        unsafe sigfillset(&blocked)
        for signal in [SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT] { unsafe sigdelset(&blocked, signal) }
        unsafe pthread_sigmask(SIG_SETMASK, &blocked, &previous)
        defer { unsafe pthread_sigmask(SIG_SETMASK, &previous, nil) }
        var handle = pthread_t()
        let result = unsafe pthread_create(
            &handle, nil,
            { argument in
                guard let argument = unsafe argument else { return nil }
                let start = unsafe Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                start.name.withUTF8Buffer { name in
                    // Static strings end with a zero.
                    unsafe name.withMemoryRebound(to: CChar.self) { name in
                        if let name = name.baseAddress { unsafe chost_set_thread_name(name) }
                    }
                }
                start.body()
                return nil
            }, start.toOpaque())
        guard result == 0 else {
            unsafe start.release()
            return false
        }
        pthread_detach(handle)
        return true
    }
}

/// A lock to wait under. Waits may end early: ask again what was waited for.
@safe final class Monitor: @unchecked Sendable {
    nonisolated(unsafe) private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    nonisolated(unsafe) private let condition: UnsafeMutablePointer<pthread_cond_t>

    init() {
        unsafe mutex = .allocate(capacity: 1)
        unsafe condition = .allocate(capacity: 1)
        unsafe pthread_mutex_init(mutex, nil)
        var attributes = pthread_condattr_t()
        unsafe pthread_condattr_init(&attributes)
        unsafe pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        unsafe pthread_cond_init(condition, &attributes)
        unsafe pthread_condattr_destroy(&attributes)
    }

    deinit {
        unsafe pthread_cond_destroy(condition)
        unsafe pthread_mutex_destroy(mutex)
        unsafe condition.deallocate()
        unsafe mutex.deallocate()
    }

    func lock() { unsafe pthread_mutex_lock(mutex) }
    func unlock() { unsafe pthread_mutex_unlock(mutex) }

    /// With the lock held, which others have meanwhile.
    func wait() { unsafe pthread_cond_wait(condition, mutex) }

    /// - Parameter deadline: nanoseconds of CLOCK_MONOTONIC.
    /// - Returns: false when the deadline has passed.
    func wait(until deadline: UInt64) -> Bool {
        var time = timespec(tv_sec: Int(deadline / 1_000_000_000), tv_nsec: Int(deadline % 1_000_000_000))
        return unsafe pthread_cond_timedwait(condition, mutex, &time) != ETIMEDOUT
    }

    func wakeOne() { unsafe pthread_cond_signal(condition) }
    func wakeAll() { unsafe pthread_cond_broadcast(condition) }

    /// Nanoseconds of CLOCK_MONOTONIC.
    static func now() -> UInt64 {
        var time = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }
}
