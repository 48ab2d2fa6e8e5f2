internal import CKVM
internal import Glibc
internal import Synchronization
internal import VMCore

/// The signal that gets a vCPU's thread out of `KVM_RUN`.
enum KickSignal {
    /// Not a real-time signal: those are queued one by one, and once RLIMIT_SIGPENDING of them wait anywhere in the user's
    /// processes, the next is lost with EAGAIN. A standard one is always delivered. SIGURG, because nothing else means
    /// anything by it that ignoring it would not do: its default action is none. Source: signal(7).
    static let number = SIGURG

    private static let installed: Void = {
        var action = sigaction()
        unsafe action.__sigaction_handler.sa_handler = { _ in }
        // No SA_RESTART: the call is meant to be interrupted.
        action.sa_flags = 0
        unsafe sigemptyset(&action.sa_mask)
        _ = unsafe sigaction(number, &action, nil)
    }()

    /// Makes the signal harmless to the process. Idempotent.
    static func install() { installed }
}

/// Interrupts a vCPU, so that no request is ever lost:
/// the request is noted first, then `immediate_exit` is set, then the signal is sent. A vCPU that is not yet in
/// `KVM_RUN` sees one of the first two on its way in, one that is inside is thrown out by the third.
/// Source: [KVM-API §5] `immediate_exit`.
@safe final class KVMKicker: VCPUKicker {
    private let requested = Atomic<Bool>(false)
    @safe private struct Target: @unchecked Sendable {
        var run: UnsafeMutablePointer<kvm_run>?
        var thread: pthread_t?
    }
    private let target: Mutex<Target>

    init(run: UnsafeMutablePointer<kvm_run>) {
        unsafe target = Mutex(Target(run: run, thread: nil))
        KickSignal.install()
    }

    func kick() {
        requested.store(true, ordering: .sequentiallyConsistent)
        wake()
    }

    /// Gets the vCPU out of the guest, so that it looks at what waits for it, without stopping it.
    func wake() {
        target.withLock { target in
            guard let run = unsafe target.run else { return }
            unsafe ckvm_set_immediate_exit(run, 1)
            if let thread = target.thread { _ = pthread_kill(thread, KickSignal.number) }
        }
    }

    /// The vCPU's own thread: it is about to run the guest.
    /// - Returns: the thread's signal mask, for `leave`. A thread of a pool, as Dispatch's, blocks every signal, and a
    ///   blocked signal does not interrupt `KVM_RUN`: ours is let through.
    func enter() -> sigset_t {
        let thread = pthread_self()
        target.withLock { target in target.thread = thread }
        var kick = sigset_t()
        var before = sigset_t()
        unsafe sigemptyset(&kick)
        unsafe sigaddset(&kick, KickSignal.number)
        unsafe pthread_sigmask(SIG_UNBLOCK, &kick, &before)
        return before
    }

    /// The vCPU's own thread: it has left the guest, and may end.
    func leave(restoring mask: sigset_t) {
        target.withLock { target in target.thread = nil }
        var mask = mask
        unsafe pthread_sigmask(SIG_SETMASK, &mask, nil)
    }

    /// The vCPU is going away.
    func detach() { target.withLock { target in unsafe target.run = nil } }

    /// Takes a request, if there is one. The caller has cleared `immediate_exit` before.
    func consume() -> Bool { requested.exchange(false, ordering: .sequentiallyConsistent) }

    var isRequested: Bool { requested.load(ordering: .sequentiallyConsistent) }
}
