internal import Glibc
internal import Machine
internal import VMCore

/// A command in a guest, from its start to its end. Any thread.
package final class GuestProcess: @unchecked Sendable {
    /// One connection of the agent's.
    private struct Slot {
        /// From the agent's connection until nobody needs it.
        var descriptor: StreamDescriptor?
        /// It is there, or was, or will not come any more.
        var isSettled = false
        /// It did not come.
        var isMissing = false
        var origin: StreamPump.Origin?
        var target: StreamPump.Target?
        var inputPump: StreamPump?
        var outputPump: StreamPump?
        /// Of the output's pump.
        var outcome: StreamPump.Outcome?
        /// Of an output that is collected: the bytes that have come in frames. nil for others.
        var collectedCount: Int?
        /// Those that came before it was said where they go.
        var early: [UInt8] = []

        /// Whether what a connection brings has its turn.
        var isBehindFrames: Bool { collectedCount.map { $0 >= GuestCommand.collectedLimit } ?? true }
    }

    /// The command's number in the protocol.
    package let number: UInt32
    package let command: GuestCommand
    private let session: AgentSession

    // Guarded by the session's condition.
    private var slots: [GuestStream: Slot]
    private var isAttached = false
    private var processID: UInt32?
    private var notStarted: NotStarted?
    private var exit: GuestExit?
    private var failure: AgentError?
    private var inputOutcome: StreamPump.Outcome?
    /// When the connections that are still missing are given up, on the host's monotonic clock.
    private(set) var patienceEnds: UInt64?

    /// What a terminal takes for an end of input, Ctrl-D: the first may only end a line that has begun. Source: [LINUX-PTY].
    private static let terminalEnd: [UInt8] = [4, 4]
    /// Nanoseconds that connections have which the agent made before it said that the command ended.
    private static let patience: UInt64 = 5_000_000_000
    /// Nanoseconds that copies have at the end of the session, where they wait for nobody.
    static let restTime: UInt64 = 200_000_000

    init(number: UInt32, command: GuestCommand, session: AgentSession) {
        self.number = number
        self.command = command
        self.session = session
        slots = Dictionary(uniqueKeysWithValues: command.connections.map { ($0, Slot(collectedCount: command.collected.contains($0) ? 0 : nil)) })
    }

    // MARK: Streams

    /// Says where the standard streams come from and go to; once, at any time after the start. With a terminal, output and error
    /// are those that are pipes beside it, and `terminal` gets what it shows.
    ///
    /// What is not given is as /dev/null: an input that has ended, an output that nobody sees.
    /// - Throws: `AgentError.host`: out of descriptors or threads.
    package func attach(
        input: StreamSource? = nil, output: StreamSink? = nil, error: StreamSink? = nil, terminal: StreamSink? = nil
    ) throws(AgentError) {
        let origin = try Self.origin(input)
        var targets = [GuestStream.output: try Self.target(output), .error: try Self.target(error)]
        // A terminal is one stream for both directions.
        if command.terminal != nil { targets[.input] = try Self.target(terminal) }
        try session.condition.locked { () throws(AgentError) in
            guard !isAttached else { return }
            for (stream, slot) in slots where slot.collectedCount != nil {
                // On the session's thread nobody may be waited for.
                if case .descriptor? = targets[stream] { throw .unsendable("an output that is collected goes to no descriptor") }
            }
            isAttached = true
            for stream in slots.keys {
                if stream == .input { slots[stream]?.origin = origin }
                if let target = targets[stream] { slots[stream]?.target = target }
                if let early = slots[stream]?.early, !early.isEmpty {
                    slots[stream]?.early = []
                    collect(stream, early)
                }
                try startPumps(stream)
            }
        }
    }

    /// Waits for a stream's connection, and hands it over: a socket, blocking, the caller's from then on. What is taken is
    /// not attached, and `wait` does not wait for its end.
    ///
    /// - Parameter deadline: nanoseconds of the session's clock; nil: as long as the machine runs.
    package func takeStream(_ stream: GuestStream, until deadline: UInt64?) throws(AgentError) -> Int32 {
        try session.wait(until: deadline, for: "the connection of the command's streams") { () throws(AgentError) -> Int32? in
            guard let slot = slots[stream], !isAttached else { throw .unsendable("the command has no such stream to be taken") }
            if let notStarted { throw .notStarted(notStarted) }
            guard let descriptor = slot.descriptor else {
                if slot.isMissing { throw missingStream }
                if slot.isSettled { throw .unsendable("the command's stream was taken already") }
                return nil
            }
            let copy = fcntl(descriptor.number, F_DUPFD_CLOEXEC, 3)
            guard copy >= 0 else { throw .host(call: "fcntl", errno: errno) }
            slots[stream]?.descriptor = nil
            return copy
        }
    }

    /// Waits until the agent has made all of the command's connections.
    package func waitForStreams(until deadline: UInt64?) throws(AgentError) {
        try session.wait(until: deadline, for: "the connection of the command's streams") { () throws(AgentError) -> Void? in
            if let notStarted { throw .notStarted(notStarted) }
            if slots.values.contains(where: \.isMissing) { throw missingStream }
            return slots.values.allSatisfy(\.isSettled) ? () : nil
        }
    }

    /// With the lock held.
    private var missingStream: AgentError { session.end ?? .timedOut(waitingFor: "the connection of the command's streams") }

    /// What became of an attached output; nil while it is under way.
    func outcome(of stream: GuestStream) -> StreamPump.Outcome? {
        session.condition.locked { (slots[stream] ?? slots[.input])?.outcome }
    }

    /// What of the command's streams was lost on the host, a line each: its output on a full disk, say.
    package var losses: [String] {
        session.condition.locked {
            var losses: [String] = []
            // The command saw an end of its input where there was none.
            if case .failed(let call, let code) = inputOutcome { losses = ["the command's input: \(call): \(HostError.message(code))"] }
            return losses + GuestStream.allCases.compactMap { stream in
                let name = stream == .error ? "the command's standard error" : "the command's output"
                return switch slots[stream]?.outcome {
                case .failed(let call, let code): "\(name): \(call): \(HostError.message(code))"
                case .stalled: "\(name): the guest did not end it, and what may have been left is missing"
                case .stopped: "\(name) may be incomplete"
                case .finished, .readerGone, nil: nil
                }
            }
        }
    }

    private static func origin(_ source: StreamSource?) throws(AgentError) -> StreamPump.Origin {
        switch source {
        case nil: .bytes([])
        case .bytes(let bytes): .bytes(bytes)
        case .descriptor(let descriptor): .descriptor(try StreamDescriptor(sharing: descriptor, mode: O_RDONLY))
        }
    }

    private static func target(_ sink: StreamSink?) throws(AgentError) -> StreamPump.Target {
        switch sink {
        case nil, .nothing: .nothing
        case .collector(let collector): .collector(collector)
        case .descriptor(let descriptor): .descriptor(try StreamDescriptor(sharing: descriptor, mode: O_WRONLY))
        }
    }

    /// Starts what has both its ends by now. With the lock held.
    private func startPumps(_ stream: GuestStream) throws(AgentError) {
        guard let slot = slots[stream], let descriptor = slot.descriptor, slot.isBehindFrames else { return }
        if let target = slot.target, slot.outputPump == nil {
            let pump = try StreamPump.output(from: descriptor, to: target) { [self] outcome in ended(stream, outcome) }
            slots[stream]?.outputPump = pump
            slots[stream]?.target = nil
            // Of two pumps of a terminal each has its reference.
            if command.terminal == nil || stream != .input { slots[stream]?.descriptor = nil }
            direct(pump)
        }
        // An input stays open until the command has ended: its end is said by a shutdown.
        if let origin = slot.origin, slot.inputPump == nil {
            let pump = try StreamPump.input(from: origin, to: descriptor, ending: command.terminal == nil ? [] : Self.terminalEnd) { [self] outcome in
                session.condition.locked { inputOutcome = outcome }
            }
            slots[stream]?.inputPump = pump
            slots[stream]?.origin = nil
            direct(pump)
        }
    }

    /// Tells a pump that is late how things stand. With the lock held.
    private func direct(_ pump: StreamPump) {
        if session.end != nil { pump.takeRest() } else if exit != nil { pump.finish() }
    }

    private func ended(_ stream: GuestStream, _ outcome: StreamPump.Outcome) {
        session.condition.locked {
            slots[stream]?.outcome = outcome
            session.condition.wakeAll()
        }
    }

    // MARK: What the agent says, with the session's lock held

    /// A connection that says it is one of this command's.
    /// - Returns: whether it is.
    func connect(_ stream: GuestStream, _ descriptor: StreamDescriptor) -> Bool {
        guard let slot = slots[stream], !slot.isSettled else { return false }
        slots[stream]?.isSettled = true
        slots[stream]?.descriptor = descriptor
        do throws(AgentError) { try startPumps(stream) } catch { failure = failure ?? error }
        return true
    }

    /// Connections that the agent has not made yet.
    var missingStreams: Int { slots.values.count { !$0.isSettled } }

    /// - Returns: whether it could be so.
    func receiveStarted(_ processID: UInt32) -> Bool {
        guard self.processID == nil, exit == nil else { return false }
        self.processID = processID
        return true
    }

    func receiveNotStarted(_ reason: NotStarted) -> Bool {
        guard processID == nil else { return false }
        notStarted = reason
        settle { $0.stop() }
        return true
    }

    /// - Returns: whether it could be so.
    func receiveOutput(_ stream: GuestStream, _ bytes: [UInt8]) -> Bool {
        guard let count = slots[stream]?.collectedCount, !bytes.isEmpty, bytes.count <= GuestCommand.collectedLimit - count else { return false }
        slots[stream]?.collectedCount = count + bytes.count
        collect(stream, bytes)
        do throws(AgentError) { try startPumps(stream) } catch { failure = failure ?? error }
        return true
    }

    private func collect(_ stream: GuestStream, _ bytes: [UInt8]) {
        guard isAttached else {
            slots[stream]?.early += bytes
            return
        }
        if case .collector(let collector)? = slots[stream]?.target { unsafe bytes.withUnsafeBytes { unsafe collector.append($0) } }
    }

    func receiveEnded(_ exit: GuestExit, at now: UInt64) -> Bool {
        guard processID != nil else { return false }
        self.exit = exit
        patienceEnds = now &+ Self.patience
        for stream in slots.keys {
            // All that there was came in frames.
            if slots[stream]?.isBehindFrames == false { slots[stream]?.isSettled = true }
            slots[stream]?.inputPump?.finish()
            slots[stream]?.outputPump?.finish()
            if isAttached { slots[stream]?.descriptor = nil }
        }
        return true
    }

    /// Connections that are missing will not come any more.
    func giveUpStreams() { settle { $0.finish() } }

    /// Nothing more comes from the guest.
    func sessionEnded() { settle { $0.takeRest() } }

    private func settle(_ tell: (StreamPump) -> Void) {
        for (stream, slot) in slots {
            if !slot.isSettled { slots[stream]?.isMissing = true }
            slots[stream]?.isSettled = true
            if let pump = slots[stream]?.inputPump { tell(pump) }
            if let pump = slots[stream]?.outputPump { tell(pump) }
        }
    }

    /// Whether all that the command printed is where it was to go, or will not be.
    private var isDelivered: Bool {
        slots.allSatisfy { _, slot in
            slot.outputPump == nil ? slot.target == nil || slot.isSettled : slot.outcome != nil
        }
    }

    // MARK: The command

    /// Sends a signal, numbered as Linux on x86-64 has them. To a command that has ended it is nothing.
    package func send(signal: Int32) throws(AgentError) {
        try session.send(.signal(command: number, signal: UInt32(bitPattern: signal)), about: self)
    }

    package func resize(_ size: GuestCommand.TerminalSize) throws(AgentError) {
        try session.send(.resize(command: number, size), about: self)
    }

    /// Waits until it runs.
    ///
    /// - Returns: its process ID in the guest.
    /// - Throws: `AgentError.notStarted`, among others.
    package func waitForStart(until deadline: UInt64?) throws(AgentError) -> UInt32 {
        try session.wait(until: deadline, for: "the start of the command") { () throws(AgentError) -> UInt32? in
            if let notStarted { throw .notStarted(notStarted) }
            return processID
        }
    }

    /// Waits for its end, and for that of its attached outputs: all that it printed has been written, or collected, then.
    ///
    /// An output that the guest does not end is waited for some seconds. A reader on the host is waited for as long as it takes.
    /// - Returns: nil at the deadline.
    /// - Throws: `AgentError.notStarted`; what ended the session before the command ended.
    package func wait(until deadline: UInt64?) throws(AgentError) -> GuestExit? {
        try session.waitIfPossible(until: deadline, grace: Self.restTime) { () throws(AgentError) -> GuestExit? in
            if let notStarted { throw .notStarted(notStarted) }
            if let failure { throw failure }
            guard let exit else {
                // No need to wait longer than for the copies that are under way.
                if let end = session.end, isDelivered { throw end }
                return nil
            }
            return isDelivered || session.hasGraceEnded ? exit : nil
        }
    }
}
