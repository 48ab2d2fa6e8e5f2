internal import CHost
internal import Glibc
internal import Synchronization
internal import VMCore

/// The host's side: its connections, what becomes of their sockets, and time limits.
extension SocketDevice {
    // MARK: Places

    /// Whether a further connection has a place. Those that still linger count, those that have not said where to do not.
    func hasRoom(_ state: borrowing State) -> Bool {
        !state.isClosed && state.sockets.inUse - state.handshakes < limits.connections
    }

    func add(_ descriptor: Int32, wantsInput: Bool, _ state: inout State) -> Int? {
        state.sockets.add(descriptor, wantsInput: wantsInput) { [weak self] handle, readiness in
            self?.hostIsReady(handle, readiness)
        }
    }

    /// What a new connection may keep for the host: all of them together are bounded, too.
    func nextWindow(_ state: borrowing State) -> UInt32 {
        state.wide < limits.wideConnections ? limits.window : limits.narrowWindow
    }

    /// Makes a place a connection's.
    func begin(_ index: Int, _ connection: Connection, _ state: inout State) {
        let isWide = state.wide < limits.wideConnections
        if isWide { state.wide += 1 }
        state.peers[index] = Peer(role: .connection, connection: connection, isWide: isWide)
        state.byPorts[Self.key(guestPort: connection.guestPort, hostPort: connection.hostPort)] = index
        state.ready.append(index)
    }

    func release(_ index: Int, _ state: inout State) {
        if state.peers[index].role == .handshake { state.handshakes -= 1 }
        if state.peers[index].isWide { state.wide -= 1 }
        state.peers[index] = Peer()
        state.sockets.release(index)
        if state.rest == nil { listen(&state) }
    }

    /// The connection is over for the guest. The host has what it has yet to take, for a while.
    func end(_ index: Int, resetting: Bool, _ state: inout State) {
        let connection = state.peers[index].connection
        if resetting { reset(connection.reset(guestCID: guestCID), &state) }
        state.byPorts[Self.key(guestPort: connection.guestPort, hostPort: connection.hostPort)] = nil
        state.localPorts.remove(connection.hostPort)
        state.sockets.closeWhenFlushed(index)
        state.peers[index].role = .lingering
        state.peers[index].deadline = nil
        if state.sockets.isOpen(index) {
            setDeadline(index, after: limits.lingerTime, &state)
        } else {
            release(index, &state)
        }
    }

    /// Every connection ends, without a word to the guest.
    func endAll(_ state: inout State) {
        state.refusals.removeAll()
        for index in state.peers.indices where state.peers[index].role == .connection {
            end(index, resetting: false, &state)
        }
    }

    // MARK: What befalls a socket

    private func hostIsReady(_ handle: HostSocketTable.Handle, _ readiness: Readiness) {
        state.withLock { state in
            guard state.sockets.isCurrent(handle), state.sockets.isOpen(handle.index) else { return }
            let index = handle.index
            state.sockets.note(index, readiness)
            switch state.peers[index].role {
            case .free: break
            case .handshake: readLine(index, &state)
            case .lingering:
                _ = state.sockets.flush(index)
                if !state.sockets.isOpen(index) { release(index, &state) }
            case .connection:
                if readiness.contains(.writable) { flush(index, &state) }
                if !readiness.isDisjoint(with: .hangup) { hostVanished(index, &state) }
                if state.peers[index].role == .connection { follow(index, &state) }
            }
            if !state.ready.isEmpty || !state.refusals.isEmpty { work.schedule() }
        }
    }

    private func flush(_ index: Int, _ state: inout State) {
        switch state.sockets.flush(index) {
        case .taken(let count): state.peers[index].connection.hostTook(count)
        case .refused: state.peers[index].connection.hostEndsReceiving()
        }
    }

    /// The host takes nothing any more. What it sent before is still read.
    func hostVanished(_ index: Int, _ state: inout State) {
        guard state.peers[index].connection.isEstablished else {
            // Nobody waits for the guest's answer any more.
            state.statistics.refused &+= 1
            return end(index, resetting: !state.peers[index].connection.isUnannounced, &state)
        }
        state.sockets.discard(index)
        state.peers[index].connection.hostEndsReceiving()
        if state.sockets.sockets[index].isReadingOver { state.peers[index].connection.hostEndsSending() }
    }

    // MARK: Connections of the host's

    func acceptHosts() {
        state.withLock { state in
            guard let listener = state.listener, state.isListening else { return }
            for _ in 0..<Self.fairShare {
                // Those beyond wait in the backlog: it is bounded, and the time limit makes room.
                guard state.handshakes < limits.handshakes else { return stopListening(&state) }
                let descriptor = chost_accept(listener.descriptor)
                guard descriptor >= 0 else {
                    switch -descriptor {
                    case EAGAIN: return
                    case EINTR, ECONNABORTED, EPROTO: continue
                    default:
                        // Out of descriptors or memory: the listener would be reported again at once, for ever.
                        stopListening(&state)
                        state.rest = clock.now() &+ Self.restTime
                        return setAlarm(&state)
                    }
                }
                guard let index = add(descriptor, wantsInput: true, &state) else { continue }
                state.peers[index] = Peer(role: .handshake)
                state.handshakes += 1
                setDeadline(index, after: limits.handshakeTime, &state)
            }
        }
    }

    private func stopListening(_ state: inout State) {
        guard state.isListening, let listener = state.listener, let token = state.listenerToken else { return }
        state.isListening = false
        events.change(listener.descriptor, token: token, to: [])
    }

    private func listen(_ state: inout State) {
        guard !state.isListening, let listener = state.listener, let token = state.listenerToken else { return }
        state.isListening = true
        events.change(listener.descriptor, token: token, to: .readable)
    }

    private func readLine(_ index: Int, _ state: inout State) {
        switch state.sockets.receive(index, into: &state.peers[index].line) {
        case .incomplete: break
        case .malformed: refuseHost(index, &state)
        case .port(let port): connectToGuest(index, port, &state)
        }
    }

    private func refuseHost(_ index: Int, _ state: inout State) {
        state.statistics.refused &+= 1
        release(index, &state)
    }

    private func connectToGuest(_ index: Int, _ port: UInt32, _ state: inout State) {
        // A host that has left by now could not be told of the guest's answer.
        guard state.isServing, hasRoom(state), !state.sockets.sockets[index].isHungUp,
            let local = takeLocalPort(forGuest: port, &state)
        else { return refuseHost(index, &state) }
        state.handshakes -= 1
        if state.rest == nil { listen(&state) }
        begin(index, Connection(fromHost: local, toGuest: port, window: nextWindow(state)), &state)
        // What the host writes before the guest's answer stays in its socket; its end is seen.
        state.sockets.setWantsInput(index, false)
        setDeadline(index, after: limits.acceptTime, &state)
    }

    /// A port that no live connection has on the host's side.
    private func takeLocalPort(forGuest port: UInt32, _ state: inout State) -> UInt32? {
        // There are fewer connections than tries, and of those in the way each stands in one try's.
        for _ in 0...limits.connections {
            let local = state.nextLocalPort
            state.nextLocalPort = local &+ 1 < 1 << 31 ? local &+ 1 : Self.firstLocalPort
            guard state.byPorts[Self.key(guestPort: port, hostPort: local)] == nil else { continue }
            if state.localPorts.insert(local).inserted { return local }
        }
        return nil
    }

    /// The guest has accepted: the host is told which port it has got.
    func tellAccepted(_ index: Int, _ state: inout State) {
        state.statistics.connections &+= 1
        state.peers[index].deadline = nil
        state.sockets.setWantsInput(index, true)
        if !state.sockets.send(index, text: "OK \(state.peers[index].connection.hostPort)\n") { hostVanished(index, &state) }
    }

    // MARK: Time

    func setDeadline(_ index: Int, after nanoseconds: UInt64, _ state: inout State) {
        let deadline = clock.now() &+ nanoseconds
        state.peers[index].deadline = deadline
        // A later one is found when the alarm goes off.
        if state.alarmDeadline.map({ deadline < $0 }) ?? true {
            state.alarmDeadline = deadline
            state.alarm?.set(deadline: deadline)
        }
    }

    private func setAlarm(_ state: inout State) {
        var earliest = state.rest
        for peer in state.peers {
            if let deadline = peer.deadline { earliest = min(earliest ?? deadline, deadline) }
        }
        state.alarmDeadline = earliest
        state.alarm?.set(deadline: earliest)
    }

    func expire() {
        state.withLock { state in
            let now = clock.now()
            if let rest = state.rest, rest <= now {
                state.rest = nil
                listen(&state)
            }
            for index in state.peers.indices {
                guard let deadline = state.peers[index].deadline, deadline <= now else { continue }
                switch state.peers[index].role {
                case .free: state.peers[index].deadline = nil
                case .handshake: refuseHost(index, &state)
                case .lingering: release(index, &state)
                case .connection:
                    if !state.peers[index].connection.isEstablished { state.statistics.refused &+= 1 }
                    // It may hear of the end without ever having heard of the beginning: then not.
                    end(index, resetting: !state.peers[index].connection.isUnannounced, &state)
                }
            }
            setAlarm(&state)
            if !state.refusals.isEmpty { work.schedule() }
        }
    }
}
