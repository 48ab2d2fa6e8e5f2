internal import CHost
internal import Glibc

/// The process that started this one.
public enum ParentProcess {
    /// Has this process killed when that one ends, however it does: who is killed can end nobody. Where it has ended already, now.
    ///
    /// - Parameter process: its number. What it started from a thread of its own ends with that thread. Source: [LINUX-PRCTL].
    public static func endWith(_ process: Int32) {
        chost_end_with_parent()
        if getppid() != process { kill(getpid(), SIGKILL) }
    }
}
