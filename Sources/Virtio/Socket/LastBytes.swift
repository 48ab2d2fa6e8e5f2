internal import Glibc

/// Streams whose guest and whose event loop are gone while a service of this process has yet to read their last bytes.
enum LastBytes {
    /// A socket that does not block, and what it is to take before it is closed.
    struct Stream: Sendable {
        let descriptor: Int32
        let ring: ByteRing
    }

    /// Writes everything on a thread of its own and closes the sockets. Returns at once.
    /// - Parameter nanoseconds: after which what a service has not read is lost. Where there can be no thread, it is at once.
    static func handOn(_ streams: [Stream], within nanoseconds: UInt64) {
        guard !streams.isEmpty else { return }
        let milliseconds = Int32(clamping: nanoseconds / 1_000_000)
        if !WorkerThread.start(named: "last bytes", { write(streams, within: milliseconds) }) {
            for stream in streams { UnixSocket.close(stream.descriptor) }
        }
    }

    private static func write(_ streams: [Stream], within milliseconds: Int32) {
        let start = now()
        var left = streams
        while true {
            left.removeAll { stream in
                let isDone = !write(stream)
                if isDone { UnixSocket.close(stream.descriptor) }
                return isDone
            }
            let spent = now() &- start
            guard !left.isEmpty, spent < Int64(milliseconds) else { break }
            var waits = left.map { pollfd(fd: $0.descriptor, events: Int16(POLLOUT), revents: 0) }
            _ = unsafe waits.withUnsafeMutableBufferPointer {
                unsafe poll($0.baseAddress, nfds_t($0.count), Int32(clamping: Int64(milliseconds) &- spent))
            }
        }
        for stream in left { UnixSocket.close(stream.descriptor) }
    }

    /// - Returns: whether there is more to write, and somebody to read it.
    private static func write(_ stream: Stream) -> Bool {
        while !stream.ring.isEmpty {
            let run = unsafe stream.ring.pending
            var vector = unsafe iovec(iov_base: UnsafeMutableRawPointer(mutating: run.baseAddress), iov_len: run.count)
            let count = unsafe withUnsafeMutablePointer(to: &vector) {
                unsafe UnixSocket.send(stream.descriptor, UnsafeMutableBufferPointer(start: $0, count: 1))
            }
            guard count > 0 else { return count == Int(-EAGAIN) }
            stream.ring.shrank(count)
        }
        return false
    }

    /// Milliseconds of a clock that is never set.
    private static func now() -> Int64 {
        var time = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) &* 1000 &+ Int64(time.tv_nsec) / 1_000_000
    }
}
