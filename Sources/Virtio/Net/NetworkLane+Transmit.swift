internal import Glibc
internal import VMCore

extension NetworkLane {
    /// Sends what the driver has made available, until the link is full, a limit is reached, or others have their turn.
    /// - Returns: whether there is more to do at once.
    func transmit(_ session: DeviceSession) -> Bool {
        transmitDue = nil
        guard let queue = transmitQueue, !isLinkFull else { return false }
        guard link.flush() else {
            isLinkFull = true
            return false
        }
        var (turns, bytes) = (0, 0)
        var wantsTurn = false
        serving: while true {
            if !holdsOutgoing {
                guard turns < Self.fairFrames, bytes < Self.fairBytes else {
                    wantsTurn = true
                    break
                }
                turns &+= 1
                switch queue.next(outgoing) {
                case .request:
                    if asksForFrames || turns == 1 { queue.disableNotifications() }
                    asksForFrames = false
                    guard takeOutgoing() else {
                        counters.sendDropsMalformed &+= 1
                        queue.stage(outgoing, written: 0)
                        continue
                    }
                case .empty:
                    if asksForFrames { break serving }
                    asksForFrames = true
                    if !queue.enableNotifications() { break serving }
                    // There is more by now, but none of it has been taken yet.
                    asksForFrames = false
                    continue
                case .broken:
                    session.fail()
                    break serving
                }
            }
            guard !isOpen || mayTransmit() else { break }
            switch unsafe isOpen ? link.send(outgoingParts, count: outgoingBytes) : .down {
            case .sent:
                counters.sentFrames &+= 1
                counters.sentBytes &+= UInt64(outgoingBytes)
            case .full:
                isLinkFull = true
                break serving
            case .down: counters.sendDropsDown &+= 1
            case .refused: counters.sendDropsRefused &+= 1
            }
            bytes &+= outgoingBytes
            holdsOutgoing = false
            isOutgoingPaid = false
            queue.stage(outgoing, written: 0)
        }
        queue.publish()
        if !link.flush() { isLinkFull = true }
        session.signalUsed(transmitIndex, queue)
        return wantsTurn
    }

    /// Makes a frame of the chain in `outgoing`.
    /// - Returns: false where it cannot be one.
    private func takeOutgoing() -> Bool {
        let header = UInt64(NetworkFrame.header)
        let count = outgoing.readableBytes
        guard count >= header &+ UInt64(NetworkFrame.ethernetHeader), count <= header &+ UInt64(NetworkFrame.largest) else {
            return false
        }
        unsafe outgoingParts = outgoing.readable
        outgoingBytes = Int(truncatingIfNeeded: count)
        if !carriesHeader { dropHeader() }
        holdsOutgoing = true
        return true
    }

    /// Leaves the header out, which the driver may have put into descriptors as it liked: moves the first part's start.
    private func dropHeader() {
        var rest = NetworkFrame.header
        var first = 0
        while unsafe first < outgoingParts.count {
            let length = unsafe outgoingParts[first].iov_len
            if length > rest {
                unsafe outgoingParts[first].iov_base += rest
                unsafe outgoingParts[first].iov_len = length &- rest
                break
            }
            rest &-= length
            first &+= 1
        }
        unsafe outgoingParts = UnsafeMutableBufferPointer(rebasing: outgoingParts[first...])
        outgoingBytes &-= NetworkFrame.header
    }

    private func mayTransmit() -> Bool {
        guard transmitLimiter != nil, !isOutgoingPaid else { return true }
        let now = clock.now()
        let delay = transmitLimiter?.take(bytes: UInt64(outgoingBytes), now: now) ?? 0
        if delay > 0 { transmitDue = now &+ delay }
        isOutgoingPaid = delay == 0
        return isOutgoingPaid
    }
}
