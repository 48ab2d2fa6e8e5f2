internal import Glibc
internal import Machine
internal import Synchronization
internal import VMCore

/// A run's serial console on the host's side: where output goes, where input comes from, and what is watched for.
///
/// It outlives a guest's reboots; the devices of each life are connected to it anew.
final class GuestConsole: @unchecked Sendable {
    /// What was typed at the host, not at the guest.
    enum Command: Sendable {
        case leave
        case powerButton
        case sendBreak
        case lessMemory
        case moreMemory
    }

    /// What the guest's serial port writes to; nil where nobody wants its output.
    let sink: DescriptorSink?
    private let source: DescriptorSource?
    private let file: OutputFile?
    private let path: String?
    /// On the run's own thread only.
    private var isClosed = false
    private let watcher = Mutex(PanicWatcher())

    /// The panic the guest's kernel printed in this life.
    var panic: String? { watcher.withLock { $0.panic } }

    /// Sees what the guest sends, whether the reader of its output keeps up or not.
    func observe(_ character: UInt8) { watcher.withLock { $0.observe(character) } }

    /// - Parameter handler: called on the loop's thread. What it returns is shown on the terminal.
    /// - Throws: `ConsoleError`, or `Terminal.Failure`.
    init(
        _ target: ConsoleTarget, loop: EventLoop, clock: any MonotonicClock,
        onCommand handler: @escaping @Sendable (Command) -> String?
    ) throws {
        switch target {
        case .none:
            sink = nil
            source = nil
            file = nil
            path = nil
        case .file(let path):
            let file: OutputFile
            do throws(OutputFile.Failure) { file = try OutputFile(path) } catch {
                throw ConsoleError(path: path, errno: error.errno)
            }
            self.file = file
            self.path = path
            sink = DescriptorSink(descriptor: file.descriptor, loop: loop, clock: clock)
            source = nil
        case .standardIO:
            file = nil
            path = nil
            let sink = DescriptorSink(descriptor: STDOUT_FILENO, loop: loop, clock: clock)
            self.sink = sink
            guard Terminal.isTerminal(STDIN_FILENO) else {
                // A pipe's or a file's bytes are all the guest's.
                source = DescriptorSource(descriptor: STDIN_FILENO, loop: loop)
                break
            }
            try Terminal.makeRaw(STDIN_FILENO, endingOnSignals: false)
            let escapes = Mutex(EscapeFilter())
            source = DescriptorSource(descriptor: STDIN_FILENO, loop: loop, isKeyboard: true) { input in
                var output: [UInt8] = []
                let actions = escapes.withLock { $0.filter(input, into: &output) }
                for action in actions {
                    let answer: String? =
                        switch action {
                        case .leave: handler(.leave)
                        case .powerButton: handler(.powerButton)
                        case .sendBreak: handler(.sendBreak)
                        case .lessMemory: handler(.lessMemory)
                        case .moreMemory: handler(.moreMemory)
                        case .help: Terminal.help
                        }
                    if let answer { _ = unsafe Array(answer.utf8).withUnsafeBytes { unsafe sink.write($0) } }
                }
                return output
            }
        }
        source?.start()
    }

    /// Connects the next life's serial port.
    func connect(_ receiver: any ByteReceiver) {
        file?.begin()
        watcher.withLock { $0 = PanicWatcher() }
        source?.connect(receiver)
    }

    /// A life is over: what is typed now is the next one's.
    func disconnect() { source?.disconnect() }

    /// Lets the reader have what waits, and gives the terminal back. Once; again is harmless.
    ///
    /// - Parameter isHasty: somebody wants the run to end: a slow reader gets half a second.
    func close(isHasty: Bool = false) {
        guard !isClosed else { return }
        isClosed = true
        source?.stop()
        sink?.drain(limit: isHasty ? 500_000_000 : 10_000_000_000)
        Terminal.restore()
        file?.close()
    }

    /// What is to be said of output that the host could not take; nil where there was none. A reader that went away on
    /// purpose (`| head`) is nothing to talk about.
    var lostOutput: String? {
        sink.flatMap { Self.lostOutput($0, what: "the guest's", place: path.map { "'\($0)'" } ?? "standard output") }
    }

    /// The same of any sink.
    static func lostOutput(_ sink: DescriptorSink, what: String, place: String) -> String? {
        guard let code = sink.failure, code != EPIPE else { return nil }
        let reason = code == ETIMEDOUT ? "is not read" : "could not be written: \(HostError.message(code))"
        return "some of \(what) output is lost: \(place) \(reason)"
    }
}

/// A file the console's output was to go to, which cannot be written.
struct ConsoleError: ReportableError, Hashable {
    let path: String
    let errno: Int32

    var exitStatus: ExitStatus { RunError.status(ofFile: errno) }

    var description: String {
        errno == ENXIO
            ? "the console cannot be written to '\(path)': it is a socket, or a pipe that nobody reads; "
                + "start its reader first, or name another file with --console"
            : "the console cannot be written to '\(path)': \(HostError.message(errno)); name another file with --console"
    }
}
