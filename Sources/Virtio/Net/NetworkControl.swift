internal import VMCore

/// The control queue: how many pairs of queues the driver uses. Everything else is answered with an error.
/// Source: [VIRTIO1.2 §5.1.6.5].
struct NetworkControl {
    private let queue: Virtqueue
    private let index: Int
    private let largestPairs: UInt16
    private let chain = DescriptorChain()

    private static let fairCommands = 16
    private static let multiqueue: UInt8 = 4
    private static let setPairs: UInt8 = 0
    private static let accepted: UInt8 = 0
    private static let refused: UInt8 = 1

    /// nil where the driver uses no control queue.
    init?(_ session: DeviceSession, pairs: Int) {
        guard session.features.contains(.netControlQueue) else { return nil }
        let isMultiqueue = session.features.contains(.netMultiqueue)
        // Behind the pairs that there are, used or not; without several pairs, behind the first. Source: [VIRTIO1.2 §5.1.2].
        index = isMultiqueue ? pairs &* 2 : 2
        guard let queue = session.queue(index) else { return nil }
        self.queue = queue
        largestPairs = isMultiqueue ? UInt16(truncatingIfNeeded: pairs) : 0
    }

    /// - Returns: whether there is more to do at once.
    func serve(_ session: DeviceSession, _ lanes: [NetworkLane]) -> Bool {
        var turns = 0
        var wantsTurn = false
        serving: while true {
            guard turns < Self.fairCommands else {
                wantsTurn = true
                break
            }
            turns &+= 1
            switch queue.next(chain) {
            case .request:
                guard chain.writableBytes >= 1 else {
                    queue.fail(.malformedRequest("a command without room for its answer"))
                    session.fail()
                    break serving
                }
                chain.store(execute(lanes) ? Self.accepted : Self.refused, at: 0)
                queue.complete(chain, written: 1)
            case .empty:
                if !queue.enableNotifications() { break serving }
            case .broken:
                session.fail()
                break serving
            }
        }
        session.signalUsed(index, queue)
        return wantsTurn
    }

    /// Source: [VIRTIO1.2 §5.1.6.5.6].
    private func execute(_ lanes: [NetworkLane]) -> Bool {
        guard chain.load(UInt8.self, at: 0) == Self.multiqueue, chain.load(UInt8.self, at: 1) == Self.setPairs,
            let pairs = chain.load(UInt16.self, at: 2), pairs >= 1, pairs <= largestPairs
        else { return false }
        guard lanes.prefix(Int(pairs)).allSatisfy({ $0.receiveQueue != nil && $0.transmitQueue != nil }) else { return false }
        for (number, lane) in lanes.enumerated() { lane.setActive(number < Int(pairs)) }
        return true
    }
}
