internal import Synchronization
public import VMCore

/// An Ethernet interface: frames between a driver's queues and a link of the host's.
///
/// Offers: an address, the link's status, an MTU, mergeable receive buffers, checksum and TCP segmentation offload where the
/// link carries headers, several pairs of queues where there are several links.
///
/// Not emulated: filters (the guest gets what the link has), VLAN offload, UDP fragmentation, ECN with segmentation, RSS and
/// hashes, announcements, coalescing, changing the address through the control queue.
///
/// Source: [VIRTIO1.2 §5.1].
public final class NetworkDevice: VirtioDevice {
    public let kind = DeviceKind.net
    public let features: FeatureSet
    public let queueSizes: [UInt16]
    public let address: MACAddress
    public let mtu: UInt16?

    /// Descriptors of each queue of frames.
    static let queueSize: UInt16 = 256
    static let controlQueueSize: UInt16 = 64

    struct State {
        var session: DeviceSession?
        let lanes: [NetworkLane]
        var control: NetworkControl?
    }

    let state: Mutex<State>
    private let laneCount: Int
    private let isLinkUp = Atomic<Bool>(true)
    private let work: WorkSlot

    /// - Parameters:
    ///   - links: one for each pair of queues, all of one interface; at least one. The device closes them when it goes.
    ///   - mtu: 68 or more: offered to the driver, which then may not go beyond; nil leaves it to the driver.
    ///   - transmitLimits: for what the guest sends; each pair has them to itself.
    ///   - receiveLimits: for what it gets, likewise.
    public init(
        links: [any NetworkBackend], address: MACAddress, mtu: UInt16? = nil, transmitLimits: RateLimits = RateLimits(),
        receiveLimits: RateLimits = RateLimits(), events: any EventService, clock: any MonotonicClock
    ) {
        precondition(!links.isEmpty && links.count <= 0x8000, "a network device has a link")
        self.address = address
        self.mtu = mtu.map { max(68, $0) }
        var features: FeatureSet = [.common, .netMAC, .netStatus, .netMergeableBuffers]
        if links.allSatisfy(\.carriesHeader) {
            features.formUnion([
                .netChecksum, .netGuestChecksum, .netHostTSO4, .netHostTSO6, .netGuestTSO4, .netGuestTSO6,
            ])
        }
        if mtu != nil { features.insert(.netMTU) }
        var sizes = [UInt16](repeating: Self.queueSize, count: links.count * 2)
        if links.count > 1 {
            features.formUnion([.netControlQueue, .netMultiqueue])
            sizes.append(Self.controlQueueSize)
        }
        self.features = features
        queueSizes = sizes
        laneCount = links.count
        let slot = WorkSlot()
        work = slot
        let lanes = links.enumerated().map { index, link in
            NetworkLane(
                link: link, index: index, clock: clock, alarm: events.makeAlarm { slot.schedule() },
                transmitLimits: transmitLimits, receiveLimits: receiveLimits)
        }
        state = Mutex(State(lanes: lanes))
        slot.connect(events) { [weak self] in self?.serve() }
        for (index, link) in links.enumerated() {
            link.connect(events, clock: clock) { [weak self] readiness in self?.linkReady(index, readiness) }
        }
        isLinkUp.store(links.contains { $0.isUp }, ordering: .relaxed)
    }

    deinit { state.withLock { state in for lane in state.lanes { lane.link.close() } } }

    /// Source: [VIRTIO1.2 §5.1.4].
    public func configuration() -> [UInt8] {
        let pairs = UInt16(truncatingIfNeeded: laneCount)
        let status: UInt8 = isLinkUp.load(ordering: .acquiring) ? 1 : 0
        let mtu = mtu ?? 0
        return address.bytes + [
            status, 0, UInt8(truncatingIfNeeded: pairs), UInt8(truncatingIfNeeded: pairs >> 8),
            UInt8(truncatingIfNeeded: mtu), UInt8(truncatingIfNeeded: mtu >> 8),
        ]
    }

    public func start(_ session: DeviceSession) {
        state.withLock { state in
            state.session = session
            for lane in state.lanes { lane.begin(session, mtu: mtu) }
            state.lanes[0].setActive(true)
            state.control = NetworkControl(session, pairs: laneCount)
        }
        work.schedule()
    }

    public func notify(queue: Int) { work.schedule() }

    public func stop() {
        state.withLock { state in
            state.session = nil
            state.control = nil
            for lane in state.lanes { lane.end() }
        }
    }

    /// Closes the links; the guest sees them go down. Any thread.
    public func closeLinks() {
        state.withLock { state in for lane in state.lanes { lane.link.close() } }
        work.schedule()
    }

    public var statistics: [(name: String, value: UInt64)] {
        state.withLock { state in
            var list = NetworkCounters().list
            for lane in state.lanes {
                for (index, entry) in lane.counters.list.enumerated() { list[index].value &+= entry.value }
            }
            for entry in state.lanes.flatMap(\.link.statistics) {
                if let index = list.firstIndex(where: { $0.name == entry.name }) {
                    list[index].value &+= entry.value
                } else {
                    list.append(entry)
                }
            }
            return list
        }
    }

    // MARK: The event loop

    private func linkReady(_ index: Int, _ readiness: Readiness) {
        state.withLock { state in
            guard let session = state.session else { return }
            let lane = state.lanes[index]
            lane.linkReady(readiness)
            if lane.serve(session) { work.schedule() }
            checkLink(&state, session)
        }
    }

    private func serve() {
        state.withLock { state in
            guard let session = state.session else { return }
            var wantsTurn = state.control?.serve(session, state.lanes) ?? false
            for lane in state.lanes where lane.serve(session) { wantsTurn = true }
            if wantsTurn { work.schedule() }
            checkLink(&state, session)
        }
    }

    /// Tells the driver where the link has gone down. Source: [VIRTIO1.2 §5.1.4].
    private func checkLink(_ state: inout State, _ session: DeviceSession) {
        guard isLinkUp.load(ordering: .relaxed), !state.lanes.contains(where: { $0.link.isUp }) else { return }
        isLinkUp.store(false, ordering: .releasing)
        state.lanes[0].counters.linkFailures &+= 1
        session.signal.configurationChanged()
    }
}
