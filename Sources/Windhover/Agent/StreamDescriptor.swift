internal import Glibc
internal import VMCore

/// A descriptor of ours to read from or write to without ever blocking, closed with its last reference.
///
/// The caller's own descriptor keeps its flags, which other processes may share, and may be closed any time: a pipe or
/// terminal is opened anew, everything else is duplicated.
final class StreamDescriptor: Sendable {
    private enum Kind {
        /// Calls have a flag of their own for it.
        case socket
        /// It has O_NONBLOCK, and nobody else has it.
        case opened
        /// Opening it anew was forbidden. What poll promises does not block: so many bytes. Source: [LINUX-PIPE].
        case shared(chunk: Int)
        /// A regular file or the like: it does not wait for anybody.
        case file
    }

    let number: Int32
    private let kind: Kind

    /// A socket that is ours from now on.
    init(socket descriptor: Int32) {
        number = descriptor
        kind = .socket
    }

    /// - Parameters:
    ///   - descriptor: stays the caller's.
    ///   - mode: O_RDONLY or O_WRONLY.
    /// - Throws: `AgentError.host`.
    init(sharing descriptor: Int32, mode: Int32) throws(AgentError) {
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0 else { throw .host(call: "fstat", errno: errno) }
        let format = status.st_mode & S_IFMT
        // Opening /dev/ptmx anew would make another terminal.
        let isMaster = format == S_IFCHR && status.st_rdev == 0x502
        if format == S_IFIFO || format == S_IFCHR, !isMaster {
            let opened = unsafe open("/proc/self/fd/\(descriptor)", mode | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)
            if opened >= 0 {
                number = opened
                kind = .opened
                return
            }
        }
        let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 3)
        guard copy >= 0 else { throw .host(call: "fcntl", errno: errno) }
        number = copy
        kind =
            switch format {
            case S_IFSOCK: .socket
            case S_IFIFO: .shared(chunk: 4096)
            case S_IFCHR: .shared(chunk: 128)
            default: .file
            }
    }

    deinit { close(number) }

    /// - Returns: how many bytes were read, 0 at the end, or -errno; -EAGAIN where it would have to wait.
    func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        repeat {
            let count: Int
            switch kind {
            case .socket: count = unsafe recv(number, buffer.baseAddress, buffer.count, Int32(MSG_DONTWAIT))
            case .shared:
                guard isReady(for: POLLIN) else { return Int(-EAGAIN) }
                count = unsafe Glibc.read(number, buffer.baseAddress, buffer.count)
            case .opened, .file: count = unsafe Glibc.read(number, buffer.baseAddress, buffer.count)
            }
            if count >= 0 { return count }
        } while errno == EINTR
        return Int(-errno)
    }

    /// SIGPIPE is blocked in the calling thread, as it is in all threads of ours.
    /// - Returns: how many bytes were written, or -errno; -EAGAIN where it would have to wait.
    func write(_ bytes: UnsafeRawBufferPointer) -> Int {
        repeat {
            let count: Int
            switch kind {
            case .socket:
                count = unsafe send(number, bytes.baseAddress, bytes.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
            case .shared(let chunk):
                guard isReady(for: POLLOUT) else { return Int(-EAGAIN) }
                count = unsafe Glibc.write(number, bytes.baseAddress, min(bytes.count, chunk))
            case .opened, .file: count = unsafe Glibc.write(number, bytes.baseAddress, bytes.count)
            }
            if count >= 0 { return count }
        } while errno == EINTR
        return Int(-errno)
    }

    private func isReady(for events: Int32) -> Bool {
        var ready = pollfd(fd: number, events: Int16(events), revents: 0)
        return unsafe poll(&ready, 1, 0) > 0
    }

    /// Tells the other end of a socket that no more comes.
    func endWriting() { shutdown(number, Int32(SHUT_WR)) }
    /// Ends a socket in both directions, whoever else has a reference.
    func endBoth() { shutdown(number, Int32(SHUT_RDWR)) }
}
