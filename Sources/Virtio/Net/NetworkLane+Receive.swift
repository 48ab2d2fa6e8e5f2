internal import Glibc
internal import VMCore

extension NetworkLane {
    /// Most buffers that one frame is spread over: with fewer than about 1 KiB in each, the longest ones are dropped.
    static let mostHeld = 64
    /// How long a frame waits for more buffers where there are some, but too few. In nanoseconds.
    static let patience: UInt64 = 50_000_000

    private enum Room {
        case enough
        /// Not before the driver gives more, of which it tells.
        case short
        /// The turn is over before all buffers were looked at.
        case later
        /// Not in any buffers of this driver's.
        case never
        case broken
    }

    /// Gives the driver what has come in, until there is no more, buffers run out, a limit is reached, or others have their
    /// turn.
    ///
    /// A frame leaves the link only when it has been delivered or dropped.
    ///
    /// - Returns: whether there is more to do at once.
    func receive(_ session: DeviceSession) -> Bool {
        receiveDue = nil
        var hasWaited = needsBuffers
        needsBuffers = false
        guard let queue = receiveQueue, isActive, mayHaveFrames else { return false }
        var (turns, bytes) = (0, 0)
        var wantsTurn = false
        serving: while true {
            guard turns < Self.fairFrames, bytes < Self.fairBytes else {
                wantsTurn = true
                break
            }
            turns &+= 1
            guard let frame = unsafe link.nextFrame() else {
                mayHaveFrames = false
                break
            }
            guard unsafe isDeliverable(frame) else {
                counters.receiveDropsMalformed &+= 1
                link.removeFrame()
                continue
            }
            let total = carriesHeader ? frame.count : frame.count &+ NetworkFrame.header
            guard mayReceive(total &- NetworkFrame.header) else { break }
            switch room(for: UInt64(total), queue, &turns) {
            case .enough:
                unsafe deliver(frame, total, queue)
                counters.receivedFrames &+= 1
                counters.receivedBytes &+= UInt64(total &- NetworkFrame.header)
            case .never: counters.receiveDropsNoRoom &+= 1
            case .short:
                guard hasWaitedEnough() else {
                    needsBuffers = true
                    if !hasWaited { counters.receiveWaits &+= 1 }
                    break serving
                }
                counters.receiveDropsNoRoom &+= 1
            case .later:
                wantsTurn = true
                break serving
            case .broken:
                // Nothing can take frames before the reset: the link is not to be waited for, whose frames would be reported
                // over and over.
                receiveQueue = nil
                session.fail()
                break serving
            }
            giveUp = nil
            hasWaited = false
            isIncomingPaid = false
            bytes &+= total
            link.removeFrame()
        }
        session.signalUsed(receiveIndex, queue)
        return wantsTurn
    }

    /// Neither too short nor longer than was agreed on. Source: [VIRTIO1.2 §5.1.4.1].
    @inline(__always)
    private func isDeliverable(_ frame: UnsafeRawBufferPointer) -> Bool {
        let header = carriesHeader ? NetworkFrame.header : 0
        let count = frame.count &- header
        guard count >= NetworkFrame.ethernetHeader, count <= NetworkFrame.largest else { return false }
        guard count > largestFrame else { return true }
        // A VLAN's tag is not counted; nor is what the driver takes in segments.
        let isTagged = unsafe frame[header &+ 12] == 0x81 && frame[header &+ 13] == 0
        let isSegmented = unsafe header > 0 && frame[1] & 0x7F != 0
        return isSegmented || isTagged && count <= largestFrame &+ 4
    }

    private func mayReceive(_ count: Int) -> Bool {
        guard receiveLimiter != nil, !isIncomingPaid else { return true }
        let now = clock.now()
        let delay = receiveLimiter?.take(bytes: UInt64(count), now: now) ?? 0
        if delay > 0 { receiveDue = now &+ delay }
        isIncomingPaid = delay == 0
        return isIncomingPaid
    }

    /// Takes buffers from the driver until they have room for so many bytes.
    private func room(for total: UInt64, _ queue: Virtqueue, _ turns: inout Int) -> Room {
        while heldBytes < total {
            guard heldCount < (isMergeable ? Self.mostHeld : 1) else { return .never }
            if heldCount == held.count { held.append(DescriptorChain()) }
            let chain = held[heldCount]
            switch queue.next(chain) {
            case .request:
                // Source: [VIRTIO1.2 §5.1.6.3.1].
                guard chain.readableBuffers == 0, chain.writableBytes >= UInt64(NetworkFrame.header) else {
                    queue.fail(.malformedRequest("a receive buffer without room for a header"))
                    return .broken
                }
                heldCount &+= 1
                heldBytes &+= chain.writableBytes
                if asksForBuffers {
                    asksForBuffers = false
                    queue.disableNotifications()
                }
            case .empty:
                // Always asked for, also at the end of a turn: of what comes now nobody would tell.
                asksForBuffers = true
                guard queue.enableNotifications() else { return .short }
                // A driver that goes back and forth uses up the turn.
                turns &+= 1
                guard turns < Self.fairFrames else { return .later }
            case .broken: return .broken
            }
        }
        return .enough
    }

    /// Where the driver has given buffers and gives no more, the frame that they are too few for is in the way of all others.
    private func hasWaitedEnough() -> Bool {
        guard heldCount > 0 else {
            giveUp = nil
            return false
        }
        let now = clock.now()
        if let giveUp { return now >= giveUp }
        giveUp = now &+ Self.patience
        return false
    }

    /// Puts a frame into as many of the held buffers as it takes, each but the last full, and gives them back together.
    /// Source: [VIRTIO1.2 §5.1.6.4.1].
    @inline(__always)
    private func deliver(_ frame: UnsafeRawBufferPointer, _ total: Int, _ queue: Virtqueue) {
        var used = 0
        var room: UInt64 = 0
        while room < UInt64(total) {
            room &+= held[used].writableBytes
            used &+= 1
        }
        var header = NetworkHeader()
        var payload = unsafe frame
        if carriesHeader {
            header = unsafe frame.loadUnaligned(as: NetworkHeader.self)
            header.restrict(to: offloads)
            unsafe payload = UnsafeRawBufferPointer(rebasing: frame[NetworkFrame.header...])
        }
        header.bufferCount = UInt16(truncatingIfNeeded: used)
        let headerCount = NetworkFrame.header
        if used == 1, unsafe fill(held[0], header, payload) {
            queue.complete(held[0], written: UInt64(total))
            heldBytes = 0
            heldCount = 0
            return
        }
        held[0].store(header, at: 0)
        var copied = 0
        for index in 0..<used {
            let chain = held[index]
            let start = index == 0 ? headerCount : 0
            let part = min(payload.count &- copied, Int(truncatingIfNeeded: chain.writableBytes) &- start)
            unsafe chain.write(UnsafeRawBufferPointer(rebasing: payload[copied..<(copied &+ part)]), at: UInt64(start))
            copied &+= part
            queue.stage(chain, written: UInt64(start &+ part))
            heldBytes &-= chain.writableBytes
        }
        queue.publish()
        heldCount &-= used
        // The rest moves to the front.
        if heldCount > 0 { for index in 0..<heldCount { held.swapAt(index, index &+ used) } }
    }
}

extension NetworkLane {
    /// The short way for what nearly every frame is: it and its header lie together in the buffer's first part.
    /// - Returns: false where they do not.
    @inline(__always)
    private func fill(_ chain: DescriptorChain, _ header: NetworkHeader, _ payload: UnsafeRawBufferPointer) -> Bool {
        let parts = unsafe chain.writable
        guard heldCount == 1, parts.count > 0, unsafe parts[0].iov_len >= payload.count &+ NetworkFrame.header,
            let target = unsafe parts[0].iov_base, let source = payload.baseAddress
        else { return false }
        unsafe target.storeBytes(of: header, as: NetworkHeader.self)
        unsafe (target + NetworkFrame.header).copyMemory(from: source, byteCount: payload.count)
        return true
    }
}

/// What is in front of every frame. Source: [VIRTIO1.2 §5.1.6].
struct NetworkHeader: BitwiseCopyable {
    var flags: UInt8 = 0
    var segmentation: UInt8 = 0
    var headerLength: UInt16 = 0
    var segmentSize: UInt16 = 0
    var checksumStart: UInt16 = 0
    var checksumOffset: UInt16 = 0
    var bufferCount: UInt16 = 0

    private static let needsChecksum: UInt8 = 1
    private static let isValid: UInt8 = 2

    /// Takes out what the driver has not agreed to see. Source: [VIRTIO1.2 §5.1.6.4.1].
    mutating func restrict(to offloads: NetworkOffloads) {
        flags &= offloads.contains(.checksum) ? Self.needsChecksum | Self.isValid : 0
        let isAgreed =
            switch segmentation & 0x7F {
            case 1: offloads.contains(.segmentation4)
            case 4: offloads.contains(.segmentation6)
            default: false
            }
        segmentation &= 0x7F
        if !isAgreed {
            segmentation = 0
            segmentSize = 0
        }
    }
}
