internal import VMCore

/// The guest's side: packets from its tx queue, packets into its rx queue.
extension SocketDevice {
    static func key(guestPort: UInt32, hostPort: UInt32) -> UInt64 { UInt64(guestPort) << 32 | UInt64(hostPort) }

    // MARK: From the guest

    func serveTransmit(_ session: DeviceSession, _ state: inout State) {
        guard let queue = session.queue(Queue.transmit) else { return }
        queue.disableNotifications()
        var packets = 0
        while true {
            // Answers that the guest does not fetch would pile up: it is not heard until it does.
            state.isTransmitStalled = state.refusals.count >= Self.largestRefusalBacklog
            guard !state.isTransmitStalled else { break }
            guard packets < Self.fairShare else {
                work.schedule()
                break
            }
            let step = queue.next(transmitChain)
            if step == .request {
                packets &+= 1
                guard let wire = transmitChain.load(SocketPacket.Wire.self, at: 0) else {
                    queue.fail(.malformedRequest("a socket packet shorter than its header"))
                    return fail(session, &state)
                }
                receive(SocketPacket(wire), &state)
                queue.complete(transmitChain, written: 0)
            } else if step == .broken {
                return fail(session, &state)
            } else if !queue.enableNotifications() {
                break
            }
        }
        session.signalUsed(Queue.transmit, queue)
    }

    /// At the end of a driver's session or of the machine: packets that there was no time for yet. Whoever ends the session is
    /// not waited for, so there are no more of them than the queue holds; nor is it told anything.
    func takeLastPackets(_ state: inout State) {
        guard !state.isBroken, !state.isClosed, let queue = state.session?.queue(Queue.transmit) else { return }
        for _ in 0..<queueSizes[Queue.transmit] {
            guard queue.next(transmitChain) == .request,
                let wire = transmitChain.load(SocketPacket.Wire.self, at: 0)
            else { return }
            receive(SocketPacket(wire), &state)
            queue.complete(transmitChain, written: 0)
        }
    }

    /// One packet, whose data is in the transmit chain.
    private func receive(_ packet: SocketPacket, _ state: inout State) {
        // Whoever claims to be another could not be answered either. Source: [VIRTIO1.2 §5.10.6.2.1].
        guard packet.sourceCID == guestCID else {
            state.statistics.dropped &+= 1
            return
        }
        guard packet.destinationCID == SocketPacket.hostCID, packet.type == SocketPacket.stream else {
            return refuse(packet, &state)
        }
        let key = Self.key(guestPort: packet.sourcePort, hostPort: packet.destinationPort)
        guard let index = state.byPorts[key] else {
            if packet.operation == SocketPacket.Operation.request.rawValue {
                connectToHost(packet, &state)
            } else {
                refuse(packet, &state)
            }
            return
        }
        let available = transmitChain.readableBytes &- SocketPacket.byteCount
        let effects = state.peers[index].connection.receive(packet, available: available)
        apply(effects, packet, index, &state)
    }

    private func apply(_ effects: Connection.Effects, _ packet: SocketPacket, _ index: Int, _ state: inout State) {
        if effects.contains(.accepted) { tellAccepted(index, &state) }
        if effects.contains(.deliver) { deliver(packet.count, index, &state) }
        if effects.contains(.endReading) { state.sockets.endReading(index) }
        if effects.contains(.endWriting) { state.sockets.endWriting(index) }
        if effects.contains(.over) {
            if !state.peers[index].connection.isEstablished { state.statistics.refused &+= 1 }
            return end(index, resetting: effects.contains(.reset), &state)
        }
        follow(index, &state)
    }

    private func deliver(_ count: UInt32, _ index: Int, _ state: inout State) {
        let window = Int(state.peers[index].connection.window)
        state.statistics.bytesToHost &+= UInt64(count)
        switch state.sockets.send(index, transmitChain, from: SocketPacket.byteCount, count: count, capacity: window) {
        case .taken(let taken): state.peers[index].connection.hostTook(taken)
        case .refused:
            state.sockets.discard(index)
            state.peers[index].connection.hostEndsReceiving()
        }
    }

    private func refuse(_ packet: SocketPacket, _ state: inout State) {
        guard !packet.isReset else { return }
        reset(packet.refusal, &state)
    }

    /// Has a RST sent, before anything else.
    func reset(_ packet: SocketPacket, _ state: inout State) {
        state.refusals.append(packet)
        state.statistics.resets &+= 1
    }

    /// The guest asks for a connection to a port of the host's.
    private func connectToHost(_ request: SocketPacket, _ state: inout State) {
        guard hasRoom(state) else { return refuseConnection(request, &state) }
        let isMade =
            if let service = services[request.destinationPort] {
                limits.servicePeers.contains(request.sourcePort) && connect(to: service, request, &state)
            } else if let path {
                connect(toSocketAt: "\(path)_\(request.destinationPort)", request, &state)
            } else {
                false
            }
        guard isMade else { return refuseConnection(request, &state) }
        state.statistics.connections &+= 1
    }

    private func connect(toSocketAt path: String, _ request: SocketPacket, _ state: inout State) -> Bool {
        let descriptor = UnixSocket.make()
        guard descriptor >= 0 else { return false }
        guard UnixSocket.connect(descriptor, to: path) == 0 else {
            UnixSocket.close(descriptor)
            return false
        }
        return accept(request, descriptor, &state) != nil
    }

    /// Two connected sockets: one is the service's from the end of this turn on, the other is as any socket of the host's.
    private func connect(to service: @escaping SocketService, _ request: SocketPacket, _ state: inout State) -> Bool {
        guard let pair = UnixSocket.makePair() else { return false }
        guard let index = accept(request, pair.device, &state) else {
            UnixSocket.close(pair.service)
            return false
        }
        state.peers[index].isService = true
        state.arrivals.append(Arrival(service: service, descriptor: pair.service))
        return true
    }

    private func accept(_ request: SocketPacket, _ descriptor: Int32, _ state: inout State) -> Int? {
        guard let index = add(descriptor, wantsInput: true, &state) else { return nil }
        begin(index, Connection(accepting: request, window: nextWindow(state)), &state)
        return index
    }

    func takeArrivals(_ state: inout State) -> [Arrival] {
        guard !state.arrivals.isEmpty else { return [] }
        defer { state.arrivals.removeAll() }
        return state.arrivals
    }

    /// Services may ask the device for something: none of its locks is held.
    func announce(_ arrivals: [Arrival]) {
        for arrival in arrivals { arrival.service(arrival.descriptor) }
    }

    private func refuseConnection(_ request: SocketPacket, _ state: inout State) {
        state.statistics.refused &+= 1
        refuse(request, &state)
    }

    // MARK: To the guest

    /// Connections have a packet each in turn, as long as the guest has buffers: without, no host's socket is read.
    func serveReceive(_ session: DeviceSession, _ state: inout State) {
        guard !state.isBroken, let queue = session.queue(Queue.receive) else { return }
        var turns = 0
        var refusalsSent = 0
        while refusalsSent < state.refusals.count || !state.ready.isEmpty {
            guard turns < Self.fairShare else {
                work.schedule()
                break
            }
            guard state.holdsReceiveBuffer || takeReceiveBuffer(session, queue, &state) else { break }
            turns &+= 1
            if refusalsSent < state.refusals.count {
                complete(queue, state.refusals[refusalsSent], &state)
                refusalsSent &+= 1
            } else if let index = state.ready.popFirst(), state.peers[index].role == .connection {
                if let packet = nextPacket(index, &state) { complete(queue, packet, &state) }
                follow(index, &state)
            }
        }
        guard !state.isBroken else { return }
        state.refusals.removeFirst(refusalsSent)
        if state.isTransmitStalled, state.refusals.count < Self.largestRefusalBacklog { work.schedule() }
        session.signalUsed(Queue.receive, queue)
    }

    /// - Returns: whether there is one now; otherwise the guest tells of the next.
    private func takeReceiveBuffer(_ session: DeviceSession, _ queue: Virtqueue, _ state: inout State) -> Bool {
        while true {
            switch queue.next(receiveChain) {
            case .request:
                guard receiveChain.writableBytes > SocketPacket.byteCount else {
                    queue.fail(.malformedRequest("a receive buffer without room for a socket packet"))
                    fail(session, &state)
                    return false
                }
                queue.disableNotifications()
                state.holdsReceiveBuffer = true
                return true
            case .empty: if !queue.enableNotifications() { return false }
            case .broken:
                fail(session, &state)
                return false
            }
        }
    }

    private func complete(_ queue: Virtqueue, _ packet: SocketPacket, _ state: inout State) {
        receiveChain.store(packet.wire, at: 0)
        queue.complete(receiveChain, written: SocketPacket.byteCount &+ UInt64(packet.count))
        state.holdsReceiveBuffer = false
    }

    /// What a connection has for the guest. Data is put into the receive buffer already.
    private func nextPacket(_ index: Int, _ state: inout State) -> SocketPacket? {
        if let packet = state.peers[index].connection.takeControl(guestCID: guestCID) { return packet }
        let room = receiveChain.writableBytes &- SocketPacket.byteCount
        let allowed = min(state.peers[index].connection.allowance, Self.largestPacket)
        let count = Int(min(UInt64(allowed), room))
        switch state.sockets.receive(index, receiveChain, from: SocketPacket.byteCount, count: count) {
        case .nothing: return nil
        case .bytes(let count):
            state.statistics.bytesToGuest &+= UInt64(count)
            return state.peers[index].connection.takeData(count, guestCID: guestCID)
        case .ended:
            if state.sockets.sockets[index].isHungUp { hostVanished(index, &state) }
            state.peers[index].connection.hostEndsSending()
            return state.peers[index].connection.takeControl(guestCID: guestCID)
        }
    }

    /// After anything that has befallen a connection: it queues for the guest if it has something, and is closed on the
    /// host's side when neither direction goes on.
    func follow(_ index: Int, _ state: inout State) {
        if state.peers[index].connection.isClosing, state.peers[index].deadline == nil {
            state.sockets.closeWhenFlushed(index)
            setDeadline(index, after: limits.closeTime, &state)
        }
        let mayRead = state.sockets.sockets[index].mayRead
        if mayRead { state.peers[index].connection.hostHasData() }
        let hasMore = state.peers[index].connection.owesControl || (mayRead && state.peers[index].connection.allowance > 0)
        if hasMore { state.ready.append(index) }
    }
}
