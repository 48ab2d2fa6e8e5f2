import VMCore
import Windhover

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Standard error, unbuffered.
enum StandardError {
    static func write(_ text: String) { _ = writeAll(text, to: STDERR_FILENO) }
}

/// Standard output, unbuffered, for what a command was asked to print.
enum StandardOutput {
    /// A disk that is full must not look like success.
    struct Failure: ReportableError {
        let errno: Int32
        var exitStatus: ExitStatus { .badConfiguration }
        var description: String {
            "standard output cannot be written: \(HostError.message(errno)); send it elsewhere"
        }
    }

    /// - Throws: `Failure`. A reader that went away ends the process with SIGPIPE, as it does other commands.
    static func write(_ text: String) throws(Failure) {
        let code = writeAll(text, to: STDOUT_FILENO)
        guard code == 0 else { throw Failure(errno: code) }
    }

    /// The same, of who is not to wait for ever for a reader that reads no more.
    ///
    /// - Parameter isUrgent: asked while the reader is waited for; once it is so, he has a second.
    static func write(_ text: String, isUrgent: @escaping () -> Bool) throws(Failure) {
        let code = writeAll(text, to: STDOUT_FILENO, isUrgent: isUrgent)
        guard code == 0 else { throw Failure(errno: code) }
    }
}

enum StandardStreams {
    /// Opens /dev/null in the place of each that the caller closed. Else the next file opened would take its number, and
    /// what the guest prints would go into, say, the KVM device.
    static func openMissing() {
        for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) < 0 && errno == EBADF {
            // The lowest free number is this one: those below are open.
            _ = unsafe open("/dev/null", O_RDWR)
        }
    }
}

/// - Returns: 0, or the errno of a write that failed: ETIMEDOUT where it was urgent.
private func writeAll(_ text: String, to descriptor: Int32, isUrgent: (() -> Bool)? = nil) -> Int32 {
    var rest = Array(text.utf8)[...]
    var patience = 10
    while !rest.isEmpty {
        // What poll promises to take does not block. Source: [LINUX-PIPE].
        if let isUrgent {
            var ready = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            if unsafe poll(&ready, 1, 100) <= 0 {
                if isUrgent() { patience -= 1 }
                if patience < 0 { return ETIMEDOUT }
                continue
            }
        }
        let part = isUrgent == nil ? rest : rest.prefix(4096)
        let count = unsafe part.withUnsafeBytes { unsafe writeOnce(descriptor, $0) }
        if count < 0 && errno == EINTR { continue }
        if count < 0 && errno == EAGAIN {
            // Somebody made the shared description non-blocking.
            var ready = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            _ = unsafe poll(&ready, 1, -1)
            continue
        }
        guard count > 0 else { return count < 0 ? errno : EIO }
        rest = rest.dropFirst(count)
    }
    return 0
}

// Outside the types, whose own `write` hides the C library's.
private func writeOnce(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer) -> Int {
    unsafe write(descriptor, bytes.baseAddress, bytes.count)
}
