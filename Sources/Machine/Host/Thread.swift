internal import CHost
internal import Glibc

/// A named POSIX thread. Every one of the monitor's own is made here; all block the signals that the main thread takes, and
/// no others: whoever started the monitor with, say, the kick signal blocked would else have vCPUs that cannot be stopped.
@safe package final class Thread: @unchecked Sendable {
    private var handle = pthread_t()
    private var isJoined = false

    private final class Start {
        let name: String
        let body: () -> Void
        init(name: String, body: @escaping () -> Void) {
            self.name = name
            self.body = body
        }
    }

    /// - Parameter name: at most 15 bytes reach the host.
    /// - Returns: nil where the host has no room for another thread.
    package init?(name: String, _ body: @escaping @Sendable () -> Void) {
        let start = unsafe Unmanaged.passRetained(Start(name: name, body: body))
        // Signals to the process are the main thread's business; the new thread inherits this mask.
        var blocked = sigset_t()
        var previous = sigset_t()
        unsafe sigemptyset(&blocked)
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP, SIGCONT, SIGPIPE, SIGALRM, SIGUSR1, SIGUSR2] {
            unsafe sigaddset(&blocked, signal)
        }
        unsafe pthread_sigmask(SIG_SETMASK, &blocked, &previous)
        defer { unsafe pthread_sigmask(SIG_SETMASK, &previous, nil) }
        let result = unsafe pthread_create(
            &handle, nil,
            { argument in
                guard let argument = unsafe argument else { return nil }
                let start = unsafe Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                unsafe chost_set_thread_name(start.name)
                start.body()
                return nil
            }, start.toOpaque())
        guard result == 0 else {
            unsafe start.release()
            return nil
        }
    }

    /// Nobody will wait for its end. In place of `join`.
    package func detach() {
        guard !isJoined else { return }
        isJoined = true
        pthread_detach(handle)
    }

    /// Waits for the thread's end. Call it once.
    package func join() {
        guard !isJoined else { return }
        isJoined = true
        pthread_join(handle, nil)
    }
}
