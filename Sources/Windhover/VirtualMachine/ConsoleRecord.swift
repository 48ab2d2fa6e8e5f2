internal import Glibc
internal import Machine
internal import Synchronization
internal import VMCore

/// What a guest says on its console: the end of it is kept, some want it as it comes, and a file may have all.
///
/// As the guest's `ByteSink` it is never full for want of a reader; only the file may hold the guest back.
final class ConsoleRecord: ByteSink, @unchecked Sendable {
    private struct State {
        var kept: [UInt8] = []
        var watcher = PanicWatcher()
        var observer: (@Sendable ([UInt8]) -> Void)?
    }

    private let state = Mutex(State())
    private let log: DescriptorSink?
    private let limit: Int

    /// - Parameters:
    ///   - log: gets all of it, too.
    ///   - limit: bytes that are kept: the latest.
    init(log: DescriptorSink? = nil, limit: Int = 64 << 10) {
        self.log = log
        self.limit = limit
    }

    func setSpaceHandler(_ handler: @escaping @Sendable () -> Void) { log?.setSpaceHandler(handler) }

    func write(_ bytes: UnsafeRawBufferPointer) -> Int {
        let taken = unsafe log?.write(bytes) ?? bytes.count
        guard taken > 0 else { return 0 }
        let part = unsafe Array(bytes[..<taken])
        let observer = state.withLock { state in
            state.kept.append(contentsOf: part)
            if state.kept.count > limit * 2 {
                state.kept.removeFirst(state.kept.count - limit)
            }
            return state.observer
        }
        observer?(part)
        return taken
    }

    /// Sees each byte as the serial port sends it.
    func observe(_ byte: UInt8) { state.withLock { $0.watcher.observe(byte) } }

    /// The panic that the guest's kernel printed.
    var panic: String? { state.withLock { $0.watcher.panic } }

    /// Everything that is kept, as it came.
    var bytes: [UInt8] { state.withLock { $0.kept } }

    /// Calls `observer` with what comes from now on, on the guest's threads: it must not block. Before the guest runs.
    func setObserver(_ observer: @escaping @Sendable ([UInt8]) -> Void) { state.withLock { $0.observer = observer } }

    /// The file has everything.
    func flush() {
        log?.flush()
        log?.drain()
    }

    /// Why the file has not got everything; nil where it has.
    var lostLog: String? {
        switch log?.failure {
        case nil: nil
        case ETIMEDOUT: "it is not read"
        case let code?: HostError.message(code)
        }
    }

    // MARK: For people

    /// The last lines, fit for a terminal.
    /// - Parameter count: how many.
    func lastLines(_ count: Int) -> [String] { Array(lines.suffix(count)) }

    /// The panic's own lines: from what led to it to the end of its report; empty where there was none.
    func panicLines(most: Int = 40) -> [String] {
        let lines = lines
        guard let panic = lines.lastIndex(where: { $0.contains("Kernel panic - not syncing") }) else { return [] }
        // A bug's report comes before the panic that follows from it.
        let begin = lines[..<panic].lastIndex { line in Self.omens.contains { line.contains($0) } } ?? panic
        return Array(lines[(panic - begin > most / 2 ? panic : begin)...].prefix(most))
    }

    private static let omens = [
        "BUG: ", "Oops: ", "------------[ cut here ]", "general protection fault", "Out of memory", "VFS: Cannot open root device",
        "not found (error", "Run /init as init process",
    ]

    private var lines: [String] { PlainText.lines(bytes, limit: PlainText.longestLine) }
}
