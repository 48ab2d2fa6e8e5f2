internal import Glibc

/// What the host allows this process.
enum HostLimits {
    /// Lets the process have as many descriptors as it may give itself: a shared directory's files are some each. Programs that it
    /// starts get them too, as from a shell with a higher limit.
    static func raiseDescriptors() {
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0, limit.rlim_cur < limit.rlim_max else { return }
        limit.rlim_cur = limit.rlim_max
        // Where it may not, there are fewer open files: the guest is told so.
        unsafe _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
}
