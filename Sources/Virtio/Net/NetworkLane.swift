internal import Glibc
internal import VMCore

/// One pair of queues and the link that they serve. Used under the device's lock.
///
/// This file: what both directions share. How frames go out and come in: NetworkLane+Transmit, NetworkLane+Receive.
@safe final class NetworkLane {
    /// Frames, and bytes, that go one way before others have their turn.
    static let fairFrames = 128
    static let fairBytes = 512 << 10

    let link: any NetworkBackend
    let carriesHeader: Bool
    /// The numbers of its queues.
    let receiveIndex: Int
    let transmitIndex: Int
    let clock: any MonotonicClock
    /// Wakes the lane when a limit allows more, or a wait for buffers has been long enough.
    let alarm: any Alarm
    var counters = NetworkCounters()

    // MARK: One session's

    var transmitQueue: Virtqueue?
    var receiveQueue: Virtqueue?
    var isMergeable = false
    var offloads: NetworkOffloads = []
    /// Longest frame that the driver takes, unless it is to be cut into segments.
    var largestFrame = NetworkFrame.largest
    /// Whether the driver uses this pair. Source: [VIRTIO1.2 §5.1.6.5.6].
    var isActive = false

    // MARK: Going out

    let outgoing = DescriptorChain()
    /// The parts of the frame in `outgoing` that the link gets.
    nonisolated(unsafe) var outgoingParts = unsafe UnsafeMutableBufferPointer<iovec>(start: nil, count: 0)
    var outgoingBytes = 0
    /// `outgoing` holds a frame that has not gone yet.
    var holdsOutgoing = false
    /// The limit has been asked for it.
    var isOutgoingPaid = false
    /// The link takes nothing until it is writable.
    var isLinkFull = false
    /// The driver was asked to tell of more frames, and none has been taken since.
    var asksForFrames = false
    var transmitLimiter: RateLimiter?
    var transmitDue: UInt64?

    // MARK: Coming in

    /// Buffers taken from the driver and not given back; the first `heldCount`. Grows to `mostHeld` where a frame needs them.
    var held = [DescriptorChain()]
    var heldCount = 0
    var heldBytes: UInt64 = 0
    /// The link may have frames; otherwise it is waited for.
    var mayHaveFrames = false
    /// The driver has given no buffers, or too few for the frame that waits.
    var needsBuffers = false
    /// It was asked to tell of more, and none has been taken since.
    var asksForBuffers = false
    var isIncomingPaid = false
    var receiveLimiter: RateLimiter?
    var receiveDue: UInt64?
    /// When a frame that waits for more buffers than there are has waited long enough.
    var giveUp: UInt64?

    private var awaited: Readiness = []
    private var isAlarmSet = false

    init(
        link: any NetworkBackend, index: Int, clock: any MonotonicClock, alarm: any Alarm, transmitLimits: RateLimits,
        receiveLimits: RateLimits
    ) {
        self.link = link
        carriesHeader = link.carriesHeader
        self.clock = clock
        self.alarm = alarm
        receiveIndex = index &* 2
        transmitIndex = index &* 2 &+ 1
        let now = clock.now()
        if !transmitLimits.isUnlimited { transmitLimiter = RateLimiter(transmitLimits, now: now) }
        if !receiveLimits.isUnlimited { receiveLimiter = RateLimiter(receiveLimits, now: now) }
    }

    /// Takes up a driver's queues; the lane is not active yet.
    func begin(_ session: DeviceSession, mtu: UInt16?) {
        // Without several pairs, the control queue has the number of the second one's.
        guard receiveIndex == 0 || session.features.contains(.netMultiqueue) else { return }
        transmitQueue = session.queue(transmitIndex)
        receiveQueue = session.queue(receiveIndex)
        isMergeable = session.features.contains(.netMergeableBuffers)
        offloads = carriesHeader ? NetworkOffloads(accepted: session.features) : []
        largestFrame = NetworkFrame.largest
        if session.features.contains(.netMTU), let mtu { largestFrame = Int(mtu) &+ NetworkFrame.ethernetHeader }
        // The link's frames are there already; the driver tells of buffers only when it was asked to.
        mayHaveFrames = true
        asksForFrames = false
        asksForBuffers = false
    }

    /// Forgets all that is the session's.
    func end() {
        transmitQueue = nil
        receiveQueue = nil
        unsafe outgoingParts = UnsafeMutableBufferPointer(start: nil, count: 0)
        holdsOutgoing = false
        isOutgoingPaid = false
        isLinkFull = false
        transmitDue = nil
        heldCount = 0
        heldBytes = 0
        needsBuffers = false
        isIncomingPaid = false
        receiveDue = nil
        giveUp = nil
        setAlarm()
        if isActive, carriesHeader { link.setOffloads([]) }
        setActive(false)
    }

    func setActive(_ isActive: Bool) {
        guard self.isActive != isActive else { return }
        self.isActive = isActive
        link.setActive(isActive)
        if isActive, carriesHeader { link.setOffloads(offloads) }
        isLinkFull = false
        giveUp = nil
        if isActive { mayHaveFrames = true } else { wait(for: []) }
    }

    /// Whether frames go anywhere.
    var isOpen: Bool { isActive && link.isUp }

    /// The link is ready for something.
    func linkReady(_ readiness: Readiness) {
        if !readiness.intersection([.readable, .hangup]).isEmpty { mayHaveFrames = true }
        if !readiness.intersection([.writable, .hangup]).isEmpty { isLinkFull = false }
    }

    /// A turn in both directions.
    /// - Returns: whether there is more to do at once.
    func serve(_ session: DeviceSession) -> Bool {
        let sendsMore = transmit(session)
        let receivesMore = receive(session)
        setAlarm()
        guard isOpen else {
            // What waits for the link to take it has nothing to wait for.
            isLinkFull = false
            wait(for: [])
            return sendsMore || holdsOutgoing
        }
        // What is asked for must be what can be acted on: the loop would call over and over for the rest.
        var readiness: Readiness = isLinkFull ? .writable : []
        if !needsBuffers, receiveDue == nil, receiveQueue != nil { readiness.insert(.readable) }
        wait(for: readiness)
        return sendsMore || receivesMore
    }

    private func wait(for readiness: Readiness) {
        guard readiness != awaited else { return }
        awaited = readiness
        link.wait(for: readiness)
    }

    private func setAlarm() {
        var deadline = UInt64.max
        if let transmitDue { deadline = min(deadline, transmitDue) }
        if let receiveDue { deadline = min(deadline, receiveDue) }
        if let giveUp { deadline = min(deadline, giveUp) }
        let isNeeded = deadline != .max
        guard isNeeded || isAlarmSet else { return }
        isAlarmSet = isNeeded
        alarm.set(deadline: isNeeded ? deadline : nil)
    }
}
