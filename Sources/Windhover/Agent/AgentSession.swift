internal import Glibc
internal import Machine
package import VMCore

/// The host's end of the conversation with a guest's agent, as docs/agent.md has it.
///
/// Whatever comes over its connections is a hostile guest's word: bounded, and never waited for beyond the machine's end. Of
/// all functions that wait, none waits longer than until `machineEnded` or `close`; one of these two is called in the end.
package final class AgentSession: @unchecked Sendable {
    /// The ports of the host's that the agent connects to.
    package static let controlPort: UInt32 = 1024
    package static let streamPort: UInt32 = 1025

    private enum SetUp {
        case notSent, sent, done
        case failed(AgentError)
    }

    let condition = Monitor()
    let wakeup: WakeupEvent
    private let clock: any MonotonicClock
    private let hostClock = HostClock()
    private let onNote: @Sendable (String) -> Void

    // All that follows is guarded by the condition.

    /// -1 until the agent has connected. Closed by the serving thread.
    private(set) var control: Int32 = -1
    /// Connections that have not said yet whose they are. Taken over by the serving thread.
    private var arrived: [Int32] = []
    /// Of those that the serving thread has taken over, and does not know yet whose they are.
    private var arrivingCount = 0
    /// What the agent has not been sent yet, from `sentCount` on.
    private var outgoing: [UInt8] = []
    private var sentCount = 0
    /// Why nothing more comes.
    private(set) var end: AgentError?
    private var endTime: UInt64 = 0
    /// Nothing more is said, but what was may still lie here.
    private var isMachineAtEnd = false
    private var hello: AgentHello?
    private var setUpState = SetUp.notSent
    private var isShutDownSent = false
    private var hasSaidGoodbye = false
    private var noteCount = 0
    private var processes: [UInt32: GuestProcess] = [:]
    private var lastNumber: UInt32 = 0

    /// Bytes that may wait for an agent that does not read.
    private static let backlogLimit = 2 * (AgentFrame.longestFromHost + AgentFrame.headerLength)
    /// Connections beside those that commands wait for: they may come before those that are wrong are found to be.
    private static let spareConnections = 16
    /// Notes that are passed on; a guest has little to say, or will not end.
    static let noteLimit = 100

    /// - Parameters:
    ///   - clock: what deadlines are on.
    ///   - onNote: is given the agent's notes, without control characters, on the session's thread: it must not block.
    /// - Throws: `AgentError.host`.
    package init(clock: any MonotonicClock, onNote: @escaping @Sendable (String) -> Void = { _ in }) throws(AgentError) {
        self.clock = clock
        self.onNote = onNote
        guard let wakeup = WakeupEvent() else { throw .host(call: "eventfd", errno: errno) }
        self.wakeup = wakeup
    }

    // MARK: Connections

    /// Takes the control connection: a stream socket, the session's from now on. Of several the first counts. Any thread; does not block.
    package func acceptControl(_ descriptor: Int32) {
        let isTaken = condition.locked {
            guard end == nil, !isMachineAtEnd, control < 0 else { return false }
            guard let thread = Thread(name: "agent", { [self] in AgentConversation(self).run() }) else {
                finish(.host(call: "pthread_create", errno: EAGAIN))
                return false
            }
            thread.detach()
            control = descriptor
            return true
        }
        if !isTaken { Glibc.close(descriptor) }
    }

    /// Takes a stream's connection: a stream socket, the session's from now on. Any thread; does not block.
    package func acceptStream(_ descriptor: Int32) {
        let isTaken = condition.locked {
            let missing = processes.values.reduce(0) { $0 + $1.missingStreams }
            guard end == nil, !isMachineAtEnd, control >= 0,
                arrived.count + arrivingCount < missing + Self.spareConnections
            else { return false }
            arrived.append(descriptor)
            return true
        }
        if isTaken { wakeup.signal() } else { Glibc.close(descriptor) }
    }

    // MARK: The conversation

    /// Waits for the agent to connect and to say what it is.
    /// - Parameter deadline: on the session's clock; nil: as long as the machine runs.
    package func waitForHello(until deadline: UInt64?) throws(AgentError) -> AgentHello {
        try wait(until: deadline, for: "its agent has not connected") { hello }
    }

    /// Has the guest set up, and waits until it is. Once, after `waitForHello`.
    /// - Throws: `AgentError.setUpFailed`, among others.
    package func setUp(_ setup: GuestSetup, until deadline: UInt64?) throws(AgentError) {
        let frame = try HostMessage.setUp(setup).encoded()
        try condition.locked { () throws(AgentError) in
            guard hello != nil, case .notSent = setUpState else {
                throw .unsendable("a guest is set up once, after its agent has connected")
            }
            try queue(frame)
            setUpState = .sent
        }
        try wait(until: deadline, for: "its set-up") { () throws(AgentError) -> Void? in
            switch setUpState {
            case .notSent, .sent: nil
            case .done: ()
            case .failed(let error): throw error
            }
        }
    }

    /// Has a command started, and does not wait until it is. After `setUp`; any number at once.
    package func start(_ command: GuestCommand) throws(AgentError) -> GuestProcess {
        // What cannot be sent is found out before a number is given away.
        let probe = try HostMessage.start(command: 1, command).encoded()
        return try condition.locked { () throws(AgentError) in
            // What was said before is still being read; nobody reads what is said now.
            guard !isMachineAtEnd else { throw end ?? .machineEnded }
            guard case .done = setUpState else { throw end ?? .unsendable("a command is started after the guest's set-up") }
            guard lastNumber < .max else { throw .unsendable("no more commands can be counted") }
            let number = lastNumber + 1
            var frame = probe
            // The number is the first field of the payload.
            let offset = AgentFrame.headerLength + AgentFields.headerLength
            for index in 0..<4 { frame[offset + index] = UInt8(truncatingIfNeeded: number >> UInt32(8 * index)) }
            try queue(frame)
            lastNumber = number
            let process = GuestProcess(number: number, command: command, session: self)
            processes[number] = process
            return process
        }
    }

    /// Has all commands ended and everything unmounted, and waits until it is so.
    package func shutDown(until deadline: UInt64?) throws(AgentError) {
        let frame = try HostMessage.shutDown.encoded()
        try condition.locked { () throws(AgentError) in
            guard !hasSaidGoodbye, !isShutDownSent else { return }
            try queue(frame)
            isShutDownSent = true
        }
        try wait(until: deadline, for: "its shutdown") { hasSaidGoodbye ? () : nil }
    }

    /// The machine runs no more: what it said before still counts, then all that wait are told. Any thread; does not block.
    package func machineEnded() {
        condition.locked {
            guard end == nil, !isMachineAtEnd else { return }
            isMachineAtEnd = true
            if control < 0 { finish(.machineEnded) } else { endTime = hostClock.now() }
            condition.wakeAll()
        }
        wakeup.signal()
    }

    /// Ends the session. Any thread; does not block.
    package func close() {
        condition.locked { finish(.closed) }
        wakeup.signal()
    }

    // MARK: Sending

    func send(_ message: HostMessage, about process: GuestProcess) throws(AgentError) {
        let frame = try message.encoded()
        try condition.locked { () throws(AgentError) in
            guard processes[process.number] === process, process.patienceEnds == nil else { return }
            try queue(frame)
        }
    }

    /// With the lock held.
    private func queue(_ frame: [UInt8]) throws(AgentError) {
        if let end { throw end }
        guard outgoing.count - sentCount <= Self.backlogLimit - frame.count else { throw .backlog }
        // What an agent has read that never reads all is not kept for ever.
        if sentCount > outgoing.count / 2 {
            outgoing.removeFirst(sentCount)
            sentCount = 0
        }
        // What the connection takes at once needs no turn of the serving thread, which holds it as long as there is no end.
        var taken = 0
        if outgoing.isEmpty {
            let count = unsafe frame.withUnsafeBytes {
                unsafe Glibc.send(control, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
            }
            taken = max(0, count)
            if taken == frame.count { return }
        }
        outgoing.append(contentsOf: frame[taken...])
        wakeup.signal()
    }

    // MARK: Waiting

    /// Waits until `answer` has one. With the lock held while it is asked.
    func wait<Answer>(
        until deadline: UInt64?, for what: String, _ answer: () throws(AgentError) -> Answer?
    ) throws(AgentError) -> Answer {
        guard let result = try waitIfPossible(until: deadline, answer) else { throw .timedOut(waitingFor: what) }
        return result
    }

    /// - Parameter grace: nanoseconds from the session's end on that an answer may still take.
    /// - Returns: nil at the deadline.
    func waitIfPossible<Answer>(
        until deadline: UInt64?, grace: UInt64 = 0, _ answer: () throws(AgentError) -> Answer?
    ) throws(AgentError) -> Answer? {
        try condition.locked { () throws(AgentError) in
            while true {
                let now = hostClock.now()
                if let result = try answer() { return result }
                var limit: UInt64?
                if let end {
                    limit = endTime &+ grace
                    if now >= endTime &+ grace { throw end }
                } else if isMachineAtEnd {
                    // The serving thread looks at what is left, which takes it no time, if it is not kept by somebody.
                    limit = endTime &+ Self.lastLookTime
                    if now >= endTime &+ Self.lastLookTime { throw .machineEnded }
                }
                if let deadline {
                    let time = clock.now()
                    if time >= deadline { return nil }
                    let ours = now.addingReportingOverflow(deadline - time)
                    limit = min(limit ?? .max, ours.overflow ? .max : ours.partialValue)
                }
                _ = condition.wait(until: limit)
            }
        }
    }

    private static let lastLookTime: UInt64 = 250_000_000

    /// Whether what is under way at the session's end has had its time. With the lock held.
    var hasGraceEnded: Bool { end != nil && hostClock.now() >= endTime &+ GuestProcess.restTime }

    /// With the lock held.
    private func finish(_ error: AgentError) {
        guard end == nil else { return }
        end = error
        endTime = hostClock.now()
        for process in processes.values { process.sessionEnded() }
        processes = [:]
        outgoing = []
        sentCount = 0
        condition.wakeAll()
    }

    // MARK: For the serving thread

    struct Situation {
        var control: Int32
        var arrived: [Int32]
        var hasOutgoing: Bool
        var isOver: Bool
        var isMachineAtEnd: Bool
        /// When connections that are missing are given up.
        var nextDeadline: UInt64?
    }

    /// What there is to be done; the connections that have arrived are the caller's from now on.
    func takeSituation(arriving: Int) -> Situation {
        condition.locked {
            let now = hostClock.now()
            for (number, process) in processes {
                guard let deadline = process.patienceEnds else { continue }
                if deadline <= now { process.giveUpStreams() }
                if process.missingStreams == 0 {
                    processes[number] = nil
                    condition.wakeAll()
                }
            }
            defer {
                arrivingCount = arriving + arrived.count
                arrived = []
            }
            return Situation(
                control: control, arrived: arrived, hasOutgoing: sentCount < outgoing.count, isOver: end != nil,
                isMachineAtEnd: isMachineAtEnd, nextDeadline: processes.values.compactMap(\.patienceEnds).min())
        }
    }

    /// Ends the session for a reason that the serving thread has found.
    func fail(_ error: AgentError) { condition.locked { finish(error) } }

    /// Sends what the agent takes.
    /// - Returns: false where it takes nothing any more.
    func sendOutgoing(_ write: (UnsafeRawBufferPointer) -> Int) -> Bool {
        condition.locked {
            while sentCount < outgoing.count {
                let count = unsafe outgoing.withUnsafeBytes { unsafe write(UnsafeRawBufferPointer(rebasing: $0[sentCount...])) }
                guard count > 0 else { return count == -Int(EAGAIN) }
                sentCount += count
            }
            outgoing = []
            sentCount = 0
            return true
        }
    }

    /// Gives a connection to the command that it says it is of.
    /// - Returns: false where there is none that waits for it.
    func connect(_ stream: UInt32, ofCommand number: UInt32, _ descriptor: StreamDescriptor) -> Bool {
        condition.locked {
            // Neither is it missing any more: of those that come meanwhile no fewer are taken.
            arrivingCount = max(arrivingCount - 1, 0)
            guard let stream = GuestStream(rawValue: stream), processes[number]?.connect(stream, descriptor) ?? false else { return false }
            condition.wakeAll()
            return true
        }
    }

    func receive(_ message: AgentMessage, kind: UInt16) throws(AgentViolation) {
        if case .note(let text) = message { return receiveNote(text) }
        try condition.locked { () throws(AgentViolation) in
            guard end == nil else { return }
            try take(message, kind: kind)
            condition.wakeAll()
        }
    }

    private func receiveNote(_ text: String) {
        let count = condition.locked {
            if noteCount <= Self.noteLimit { noteCount += 1 }
            return noteCount
        }
        if count <= Self.noteLimit {
            onNote(text)
            if count == Self.noteLimit { onNote("more notes of the guest's are left out") }
        }
    }

    /// With the lock held.
    private func take(_ message: AgentMessage, kind: UInt16) throws(AgentViolation) {
        if case .hello(let word) = message {
            guard hello == nil else { throw .outOfOrder(kind: kind) }
            hello = word
            return
        }
        guard hello != nil else { throw .outOfOrder(kind: kind) }
        switch message {
        case .hello, .note: break
        case .ready:
            guard case .sent = setUpState else { throw .outOfOrder(kind: kind) }
            setUpState = .done
        case .setUpFailed(let code, let what, let module):
            guard case .sent = setUpState else { throw .outOfOrder(kind: kind) }
            setUpState = .failed(.setUpFailed(errno: code, what: what, missingModule: module))
        case .started(let number, let processID):
            let process = try running(number, kind)
            guard process.receiveStarted(processID) else { throw .outOfOrder(kind: kind) }
        case .notStarted(let number, let stage, let code, let name):
            let process = try running(number, kind)
            let reason = NotStarted(
                stage: NotStarted.Stage(rawValue: stage), errno: code, name: name, operation: process.command.operation)
            guard process.receiveNotStarted(reason) else { throw .outOfOrder(kind: kind) }
            processes[number] = nil
        case .ended(let number, let exit):
            let process = try running(number, kind)
            guard process.receiveEnded(exit, at: hostClock.now()) else { throw .outOfOrder(kind: kind) }
            if process.missingStreams == 0 { processes[number] = nil }
        case .output(let number, let stream, let bytes):
            let process = try running(number, kind)
            guard let stream = GuestStream(rawValue: stream), process.receiveOutput(stream, bytes) else { throw .outOfOrder(kind: kind) }
        case .goodbye:
            guard isShutDownSent else { throw .outOfOrder(kind: kind) }
            hasSaidGoodbye = true
        }
    }

    private func running(_ number: UInt32, _ kind: UInt16) throws(AgentViolation) -> GuestProcess {
        guard let process = processes[number], process.patienceEnds == nil else {
            throw .unknownCommand(kind: kind, number: number)
        }
        return process
    }
}
