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
