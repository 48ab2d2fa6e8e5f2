internal import Glibc
internal import Synchronization
public import VMCore

/// A guest's output to one of the host's descriptors: a terminal, a pipe, a file.
///
/// Bounded and never blocking: when the reader stops reading, up to `capacity` bytes wait here, then the sink is full.
/// Bytes are gathered to lines, or for two milliseconds, so that a guest that prints byte by byte costs few calls.
public final class DescriptorSink: ByteSink, @unchecked Sendable {
    @safe private struct State {
        var buffer: [UInt8] = []
        /// The first byte of `buffer` not yet written.
        var start = 0
        var isScheduled = false
        var wasFull = false
        var isWaiting = false
        /// The errno of the write that failed for good.
        var failure: Int32?
        var isBroken: Bool { failure != nil }
        var spaceHandler: (@Sendable () -> Void)?

        var count: Int { buffer.count - start }
    }

    private let capacity: Int
    private let descriptor: Int32
    private let ownsDescriptor: Bool
    private let isSocket: Bool
    /// How much may be written at once after a poll found room, where a write may block. Source: [LINUX-PIPE].
    private let chunk: Int?
    private let loop: EventLoop
    private let clock: any MonotonicClock
    private let state: Mutex<State>
    private var alarm: (any Alarm)?
    private var token: UInt64?

    /// - Parameters:
    ///   - descriptor: stays the caller's; a terminal or pipe is opened anew so that its flags, which other
    ///     processes share, are left alone.
    ///   - capacity: bytes that wait for a reader at most.
    public init(descriptor: Int32, loop: EventLoop, clock: any MonotonicClock, capacity: Int = 65_536) {
        self.capacity = capacity
        self.loop = loop
        self.clock = clock
        var status = stat()
        let known = unsafe fstat(descriptor, &status) == 0
        let kind = known ? status.st_mode & S_IFMT : S_IFREG
        isSocket = kind == S_IFSOCK
        var opened: Int32 = -1
        if kind == S_IFCHR || kind == S_IFIFO {
            opened = unsafe open("/proc/self/fd/\(descriptor)", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)
        }
        ownsDescriptor = opened >= 0
        // A pipe of another user's cannot be opened anew. To write to it as it is may block, but not for what poll promises:
        // a page in a pipe, less in a terminal.
        chunk = opened >= 0 ? nil : kind == S_IFIFO ? 4096 : kind == S_IFCHR ? 128 : nil
        self.descriptor = opened >= 0 ? opened : descriptor
        var initial = State()
        initial.buffer.reserveCapacity(capacity)
        state = Mutex(initial)
        alarm = loop.makeAlarm { [weak self] in self?.flush() }
        token = loop.watch(self.descriptor, for: []) { [weak self] readiness in
            guard let self else { return }
            if !readiness.isEmpty { flush() }
        }
    }

    deinit {
        if let token { loop.unwatch(descriptor, token: token) }
        if ownsDescriptor { close(descriptor) }
    }

    public func setSpaceHandler(_ handler: @escaping @Sendable () -> Void) {
        state.withLock { $0.spaceHandler = handler }
    }

    /// Why output was lost: the errno of the write that failed; nil while all is well.
    public var failure: Int32? { state.withLock { $0.failure } }

    public func write(_ bytes: UnsafeRawBufferPointer) -> Int {
        state.withLock { state in
            if state.isBroken {
                // Nobody will ever read: the guest goes on, unheard.
                return bytes.count
            }
            let room = capacity - state.count
            let taken = min(room, bytes.count)
            if taken > 0 {
                if state.start > 0, state.buffer.count + taken > capacity {
                    state.buffer.removeFirst(state.start)
                    state.start = 0
                }
                let part = unsafe UnsafeRawBufferPointer(rebasing: bytes[..<taken])
                unsafe state.buffer.append(contentsOf: part)
                let endsLine = unsafe part[taken - 1] == UInt8(ascii: "\n")
                if endsLine || state.count >= 512 {
                    flushLocked(&state)
                } else if !state.isScheduled, !state.isWaiting {
                    state.isScheduled = true
                    alarm?.set(deadline: clock.now() &+ 2_000_000)
                }
            }
            if taken < bytes.count {
                state.wasFull = true
                // What was full may be empty by now, with nothing left that would tell of it.
                if !state.isScheduled, !state.isWaiting {
                    state.isScheduled = true
                    alarm?.set(deadline: clock.now() &+ 2_000_000)
                }
            }
            return taken
        }
    }

    /// Writes what waits, as far as the host takes it now.
    public func flush() {
        let handler = state.withLock { state -> (@Sendable () -> Void)? in
            state.isScheduled = false
            flushLocked(&state)
            guard state.wasFull, state.count < capacity else { return nil }
            state.wasFull = false
            return state.spaceHandler
        }
        handler?()
    }

    /// Writes everything that waits, as long as the reader keeps reading.
    ///
    /// - Parameters:
    ///   - patience: nanoseconds that it may pause.
    ///   - limit: nanoseconds that it may take for all. What is left then is lost, as `failure` says.
    public func drain(patience: UInt64 = 500_000_000, limit: UInt64 = 10_000_000_000) {
        let end = clock.now() &+ limit
        var deadline = clock.now() &+ patience
        var before = state.withLock { $0.count }
        while true {
            flush()
            let count = state.withLock { $0.isBroken ? 0 : $0.count }
            if count == 0 { return }
            let now = clock.now()
            if count < before { deadline = now &+ patience }
            before = count
            guard now < min(deadline, end) else {
                state.withLock { $0.failure = ETIMEDOUT }
                return
            }
            var ready = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            _ = unsafe poll(&ready, 1, Int32(clamping: (deadline - now) / 1_000_000 + 1))
        }
    }

    private func flushLocked(_ state: inout State) {
        while state.count > 0 {
            let start = state.start
            let written = unsafe state.buffer.withUnsafeBytes { bytes in
                let rest = unsafe UnsafeRawBufferPointer(rebasing: bytes[start...])
                if isSocket {
                    return unsafe send(descriptor, rest.baseAddress, rest.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
                }
                guard let chunk else { return unsafe Glibc.write(descriptor, rest.baseAddress, rest.count) }
                var ready = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                guard unsafe poll(&ready, 1, 0) > 0 else {
                    errno = EAGAIN
                    return -1
                }
                return unsafe Glibc.write(descriptor, rest.baseAddress, min(rest.count, chunk))
            }
            if written > 0 {
                state.start += written
                continue
            }
            switch errno {
            case EINTR:
                continue
            case EAGAIN:
                if !state.isWaiting, let token {
                    state.isWaiting = true
                    loop.change(descriptor, token: token, to: .writable)
                }
                return
            default:
                // The reader is gone, or the disk is full: what is lost is output, never the guest.
                state.failure = errno
                state.start = state.buffer.count
            }
        }
        state.buffer.removeAll(keepingCapacity: true)
        state.start = 0
        if state.isWaiting, let token {
            state.isWaiting = false
            loop.change(descriptor, token: token, to: [])
        }
    }
}
