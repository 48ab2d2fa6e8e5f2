internal import CHost
internal import Glibc
internal import Machine
internal import VMCore

/// The signals that end a run, turned into calls on the event loop, so that they end it in an orderly way.
///
/// SIGPIPE is ignored: a console's reader that goes away is an error of the write. SIGWINCH needs nothing: a serial
/// line has no size. The terminal's own (SIGTSTP, SIGCONT) are `Terminal`'s.
final class SignalWatch: @unchecked Sendable {
    private let descriptor: Int32
    private let loop: EventLoop
    private var token: UInt64?

    static let ending: [Int32] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT]

    /// Blocks the signals in the calling thread, and so in every thread made later: call it before any other thread is.
    ///
    /// - Parameters:
    ///   - others: signals that end nothing, and are wanted all the same.
    ///   - handler: called on the loop's thread with the signal's number.
    init?(loop: EventLoop, others: [Int32] = [], _ handler: @escaping @Sendable (Int32) -> Void) {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        for number in Self.ending + others where !Self.isIgnored(number) { unsafe sigaddset(&set, number) }
        guard unsafe pthread_sigmask(SIG_BLOCK, &set, nil) == 0 else { return nil }
        signal(SIGPIPE, SIG_IGN)
        let descriptor = unsafe signalfd(-1, &set, chost_signalfd_flags)
        guard descriptor >= 0 else {
            // Better ended in disorder than not at all.
            unsafe pthread_sigmask(SIG_UNBLOCK, &set, nil)
            return nil
        }
        self.descriptor = descriptor
        self.loop = loop
        token = loop.watch(descriptor, for: .readable) { _ in
            var info = signalfd_siginfo()
            let size = MemoryLayout<signalfd_siginfo>.size
            while unsafe read(descriptor, &info, size) == size { handler(Int32(bitPattern: info.ssi_signo)) }
        }
    }

    /// What the caller ignores stays ignored (nohup, a shell's background jobs): blocked, it would arrive here all the same.
    private static func isIgnored(_ number: Int32) -> Bool {
        var present = sigaction()
        guard unsafe sigaction(number, nil, &present) == 0 else { return false }
        // SIG_IGN is the address 1, which Swift cannot compare as a function.
        return unsafe withUnsafeBytes(of: present.__sigaction_handler) { unsafe $0.loadUnaligned(as: UInt.self) } == 1
    }

    deinit {
        if let token { loop.unwatch(descriptor, token: token) }
        close(descriptor)
    }

    /// Ends the process as the signal would have: what the caller's shell expects to see.
    static func die(of number: Int32) -> Never {
        signal(number, SIG_DFL)
        var set = sigset_t()
        unsafe sigemptyset(&set)
        unsafe sigaddset(&set, number)
        raise(number)
        unsafe pthread_sigmask(SIG_UNBLOCK, &set, nil)
        exit(ShellStatus.signal(number))
    }
}
