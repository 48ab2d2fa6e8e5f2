internal import CHost
internal import Glibc
internal import Machine
internal import Synchronization
internal import VMCore

/// What is typed at hover's terminal, on its way to a command: a pipe, whose writer looks for hover's own keys.
///
/// Threads: one, from `init` to `end`.
final class TerminalInput: @unchecked Sendable {
    /// Where the command's input comes from. This object's.
    let descriptor: Int32
    private let writer: Int32
    private let wakeup: WakeupEvent
    private var thread: Thread?

    static let help = """
        \r
        hover exec: keys of its own, at the beginning of a line:\r
          ~.   leave: the guest is stopped at once\r
          ~?   this help\r
          ~~   one ~\r

        """

    /// - Parameter leave: called on the thread.
    /// - Throws: `AgentError.host`: out of descriptors or threads.
    init(from terminal: Int32, onLeave leave: @escaping @Sendable () -> Void) throws(AgentError) {
        guard let wakeup = WakeupEvent() else { throw .host(call: "eventfd", errno: errno) }
        self.wakeup = wakeup
        // Its own, which does not block: what poll has seen another program may read first, a pager that the output is piped into, say.
        let source = try StreamDescriptor(sharing: terminal, mode: O_RDONLY)
        var ends: [Int32] = [-1, -1]
        let code = unsafe chost_pipe(&ends)
        guard code == 0 else { throw .host(call: "pipe2", errno: -code) }
        (descriptor, writer) = (ends[0], ends[1])
        // A command that does not read must not hold the thread's end up.
        _ = fcntl(writer, F_SETFL, O_NONBLOCK)
        thread = Thread(name: "terminal-input") { [writer, wakeup] in
            Self.copy(from: source, to: writer, until: wakeup.descriptor, leave)
        }
        guard thread != nil else {
            end()
            throw .host(call: "pthread_create", errno: EAGAIN)
        }
    }

    /// Ends the thread. Once.
    func end() {
        wakeup.signal()
        thread?.join()
        close(descriptor)
        close(writer)
    }

    private static func copy(from terminal: StreamDescriptor, to writer: Int32, until wakeup: Int32, _ leave: () -> Void) {
        var escape = TerminalEscape()
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            guard wait(for: POLLIN, of: terminal.number, or: wakeup) else { return }
            let count = unsafe buffer.withUnsafeMutableBytes { unsafe terminal.read(into: $0) }
            if count == -Int(EAGAIN) { continue }
            guard count > 0 else { return }
            var output: [UInt8] = []
            for action in escape.filter(buffer[..<count], into: &output) {
                switch action {
                case .leave: leave()
                case .help: say(help)
                }
            }
            var rest = output[...]
            while !rest.isEmpty {
                let written = unsafe rest.withUnsafeBytes { unsafe write(writer, $0.baseAddress, $0.count) }
                if written < 0, errno == EINTR { continue }
                if written < 0, errno == EAGAIN {
                    guard wait(for: POLLOUT, of: writer, or: wakeup) else { return }
                    continue
                }
                guard written > 0 else { return }
                rest = rest.dropFirst(written)
            }
        }
    }

    private static func say(_ text: String) {
        let bytes = Array(text.utf8)
        _ = unsafe bytes.withUnsafeBytes { unsafe write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }

    /// - Returns: false where it is time to end.
    private static func wait(for events: Int32, of descriptor: Int32, or wakeup: Int32) -> Bool {
        var ready = [
            pollfd(fd: descriptor, events: Int16(events), revents: 0), pollfd(fd: wakeup, events: Int16(POLLIN), revents: 0),
        ]
        while unsafe poll(&ready, 2, -1) < 0 { if errno != EINTR { return false } }
        return ready[1].revents == 0
    }
}
