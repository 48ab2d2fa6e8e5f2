internal import Glibc
internal import Machine
internal import VMCore

/// What the session's thread does: it reads and writes the control connection, and finds out whose streams' connections are.
final class AgentConversation {
    /// A connection that has to say whose it is.
    private struct Arrival {
        var descriptor: StreamDescriptor
        var bytes: [UInt8] = []
        /// When it is given up.
        var deadline: UInt64
    }

    private enum Reading {
        case nothing, some, end
    }

    private let session: AgentSession
    private let clock = HostClock()
    private var decoder = AgentFrameDecoder()
    private var arrivals: [Arrival] = []
    private var buffer = [UInt8](repeating: 0, count: 64 << 10)

    private static let preambleLength = 8
    /// Nanoseconds that a connection has to say whose it is.
    private static let patience: UInt64 = 5_000_000_000
    /// Reads of what the agent said before its end.
    private static let lastReads = 64

    init(_ session: AgentSession) { self.session = session }

    func run() {
        var control: StreamDescriptor?
        while true {
            let situation = session.takeSituation(arriving: arrivals.count)
            // Closed with the last reference, at the end of this thread.
            let connection = control ?? StreamDescriptor(socket: situation.control)
            control = connection
            let deadline = clock.now() &+ Self.patience
            for descriptor in situation.arrived {
                arrivals.append(Arrival(descriptor: StreamDescriptor(socket: descriptor), deadline: deadline))
            }
            if situation.isOver { return }
            do throws(AgentError) {
                if situation.isMachineAtEnd {
                    try readRest(of: connection)
                    throw .machineEnded
                }
                try serve(connection, situation)
            } catch {
                session.fail(error)
            }
        }
    }

    private func serve(_ control: StreamDescriptor, _ situation: AgentSession.Situation) throws(AgentError) {
        let events = POLLIN | (situation.hasOutgoing ? POLLOUT : 0)
        var polls = [
            pollfd(fd: session.wakeup.descriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: control.number, events: Int16(events), revents: 0),
        ]
        for arrival in arrivals { polls.append(pollfd(fd: arrival.descriptor.number, events: Int16(POLLIN), revents: 0)) }
        let deadline = arrivals.map(\.deadline).reduce(situation.nextDeadline ?? .max, min)
        guard unsafe poll(&polls, nfds_t(polls.count), milliseconds(until: deadline)) >= 0 else { return }
        if polls[0].revents != 0 { session.wakeup.clear() }

        // Streams first: a command's end is said after they were connected.
        readArrivals()
        if polls[1].revents != 0, try read(control) == .end { throw .connectionLost }
        guard unsafe session.sendOutgoing({ unsafe control.write($0) }) else {
            try readRest(of: control)
            throw .connectionLost
        }
    }

    private func milliseconds(until deadline: UInt64) -> Int32 {
        guard deadline != .max else { return -1 }
        let now = clock.now()
        return now >= deadline ? 0 : Int32(clamping: (deadline - now) / 1_000_000 + 1)
    }

    // MARK: Control

    private func read(_ control: StreamDescriptor) throws(AgentError) -> Reading {
        let count = unsafe buffer.withUnsafeMutableBytes { unsafe control.read(into: $0) }
        guard count > 0 else { return count == -Int(EAGAIN) ? .nothing : .end }
        decoder.append(buffer[..<count])
        do throws(AgentViolation) {
            while let frame = try decoder.next() {
                if let message = try AgentMessage.decode(frame) { try session.receive(message, kind: frame.kind) }
            }
        } catch {
            throw .violation(error)
        }
        return .some
    }

    /// Reads what lies there, without waiting.
    private func readRest(of control: StreamDescriptor) throws(AgentError) {
        for _ in 0..<Self.lastReads {
            readArrivals()
            guard try read(control) == .some else { return }
        }
    }

    // MARK: Streams

    private func readArrivals() {
        let now = clock.now()
        arrivals.removeAll { arrival in arrival.deadline <= now }
        for index in arrivals.indices.reversed() where !isWaiting(&arrivals[index]) { arrivals.remove(at: index) }
    }

    /// - Returns: whether it has still not said whose it is.
    private func isWaiting(_ arrival: inout Arrival) -> Bool {
        let missing = Self.preambleLength - arrival.bytes.count
        let count = unsafe buffer.withUnsafeMutableBytes {
            unsafe arrival.descriptor.read(into: UnsafeMutableRawBufferPointer(rebasing: $0[..<missing]))
        }
        guard count > 0 else { return count == -Int(EAGAIN) }
        arrival.bytes += buffer[..<count]
        guard arrival.bytes.count == Self.preambleLength else { return true }
        let number = arrival.bytes.littleEndian(UInt32.self, at: 0)
        let stream = arrival.bytes.littleEndian(UInt32.self, at: 4)
        // Where nobody waits for it, it is closed with its last reference.
        _ = session.connect(stream, ofCommand: number, arrival.descriptor)
        return false
    }
}
