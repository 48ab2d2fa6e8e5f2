internal import Glibc
internal import Synchronization
public import VMCore

/// A memory balloon: pages that the guest lends to the host, when the host asks, and free pages that it tells of by itself.
///
/// What is in the balloon, and what is reported free, leaves the monitor's resident set at once; a page comes back, as zeros,
/// when the guest touches it. So the host need not be told before a page is used again, and MUST_TELL_HOST is not offered.
///
/// Addresses that are not memory are ignored and counted: they harm nobody.
///
/// Not emulated: free page hinting, which is for migration.
///
/// Source: [VIRTIO1.2 §5.5].
public final class BalloonDevice: VirtioDevice {
    public let kind = DeviceKind.balloon
    public let features: FeatureSet
    /// Inflate, deflate, statistics, hinting, reporting. Drivers leave out queues without a feature, and then disagree whether
    /// the ones behind move up: any queue from the third on is a reporting queue unless it is one of statistics.
    public let queueSizes: [UInt16] = [128, 128, 8, 128, 128]

    /// Requests of one turn.
    static let fairRequests = 32
    /// Bytes of memory that are given up in one turn: some milliseconds' work.
    static let fairBytes: UInt64 = 32 << 20
    /// Buffers of a report that are looked at in one turn.
    static let fairBuffers = 256

    private struct State {
        var session: DeviceSession?
        var signal: DeviceSignal?
        /// Pages of 4 KiB: what the host wants, and what the driver says there are.
        var target: UInt32 = 0
        var actual: UInt32 = 0
        /// What the guest's free pages hold, as it is being written and as it was when the driver was ready.
        var poison: UInt32 = 0
        var keepsReported = false
        var progress: [Progress] = (0..<5).map { _ in Progress() }
        /// A buffer of the statistics queue that is kept to ask with.
        var holdsStatistics = false
        var wantsStatistics = false
        var interval: UInt64?
        var alarm: (any Alarm)?
        var statistics = BalloonStatistics()
        var counts = Counts()
    }

    /// How far the request is that a queue is at: so many bytes of a list, or so many buffers and bytes of the next one.
    private struct Progress {
        let chain = DescriptorChain()
        var isBusy = false
        var buffer = 0
        var offset: UInt64 = 0
    }

    private struct Counts {
        var inflated: UInt64 = 0
        var deflated: UInt64 = 0
        var reported: UInt64 = 0
        var released: UInt64 = 0
        var kept: UInt64 = 0
        var outside: UInt64 = 0
    }

    private let state: Mutex<State>
    private let runs = Mutex(PageRuns())
    private let work = WorkSlot()
    private let clock: any MonotonicClock

    /// - Parameters:
    ///   - deflatesOnPressure: whether the guest may take pages back by itself rather than kill a process.
    ///   - statisticsInterval: nanoseconds between two times that the guest is asked for statistics; nil for never but when
    ///     `requestStatistics` does.
    ///   - clock: the one that the service's alarms go by.
    public init(
        deflatesOnPressure: Bool = true, statisticsInterval: UInt64? = nil, events: any EventService, clock: any MonotonicClock
    ) {
        var features: FeatureSet = [.common, .balloonStatistics, .balloonPagePoison, .balloonReporting]
        if deflatesOnPressure { features.insert(.balloonDeflateOnOOM) }
        self.features = features
        self.clock = clock
        state = Mutex(State())
        work.connect(events) { [weak self] in self?.serve() }
        let alarm = events.makeAlarm { [weak self] in self?.timeIsUp() }
        state.withLock {
            $0.alarm = alarm
            $0.interval = statisticsInterval.map { max($0, Self.shortestInterval) }
        }
    }

    /// The shortest interval that statistics are asked for at: a hundred times a second.
    static let shortestInterval: UInt64 = 10_000_000

    // MARK: The host's side

    /// Asks the guest to give up so many bytes in all: whole pages, and at most 16 TiB. It does so as fast as it can, and as
    /// far.
    public func setTarget(bytes: UInt64) {
        state.withLock { state in
            let pages = UInt32(clamping: bytes >> PageRuns.shift)
            guard state.target != pages else { return }
            state.target = pages
            state.signal?.configurationChanged()
        }
    }

    public var target: UInt64 { state.withLock { UInt64($0.target) << PageRuns.shift } }

    /// Bytes in the balloon, by the guest's word.
    public var actual: UInt64 { state.withLock { UInt64($0.actual) << PageRuns.shift } }

    /// What the guest last told, if it tells anything.
    public var guestStatistics: BalloonStatistics? {
        state.withLock { $0.statistics.updates > 0 ? $0.statistics : nil }
    }

    /// Asks the guest for statistics now, out of turn. The answer comes later: `updates` counts.
    public func requestStatistics() {
        state.withLock { $0.wantsStatistics = true }
        work.schedule()
    }

    // MARK: VirtioDevice

    public func configuration() -> [UInt8] {
        let (target, actual, poison) = state.withLock { ($0.target, $0.actual, $0.poison) }
        return [target, actual, 0, poison].flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } }
    }

    /// The driver may write `actual` and `poison_val`, in whichever pieces.
    public func writeConfiguration(offset: UInt64, width: AccessWidth, value: UInt64) {
        state.withLock { state in
            for index in 0..<width.bytes {
                let (place, overflow) = offset.addingReportingOverflow(index)
                guard !overflow, place < 16 else { return }
                let shift = UInt32(truncatingIfNeeded: place & 3) &* 8
                let byte = UInt32(truncatingIfNeeded: value >> (index &* 8)) & 0xFF
                switch place >> 2 {
                case 1: state.actual = state.actual & ~(0xFF << shift) | byte << shift
                // Not while the driver runs. Source: [VIRTIO1.2 §5.5.6.6.1].
                case 3 where state.session == nil: state.poison = state.poison & ~(0xFF << shift) | byte << shift
                default: break
                }
            }
        }
    }

    public func start(_ session: DeviceSession) {
        state.withLock { state in
            state.session = session
            state.signal = session.signal
            // Free pages hold what the guest says, and are to go on doing so: only zeros can be had back from the host.
            // Source: [VIRTIO1.2 §5.5.6.7.2].
            state.keepsReported = session.features.contains(.balloonPagePoison) && state.poison != 0
            setAlarm(&state)
        }
        work.schedule()
    }

    public func notify(queue: Int) { work.schedule() }

    public func stop() {
        state.withLock { state in
            state.session = nil
            state.alarm?.set(deadline: nil)
            for index in state.progress.indices { state.progress[index].isBusy = false }
            state.holdsStatistics = false
            state.wantsStatistics = false
            state.statistics = BalloonStatistics()
            // No driver that would hold any pages, or clear them.
            state.actual = 0
            state.poison = 0
        }
    }

    public var statistics: [(name: String, value: UInt64)] {
        let counts = state.withLock { $0.counts }
        return [
            ("bytesInflated", counts.inflated), ("bytesDeflated", counts.deflated), ("bytesReported", counts.reported),
            ("bytesReleased", counts.released), ("bytesKept", counts.kept), ("bytesOutsideMemory", counts.outside),
        ]
    }

    // MARK: On the event loop

    private enum Role { case inflate, deflate, statistics, reporting }

    private static func role(of queue: Int, _ features: FeatureSet) -> Role? {
        switch queue {
        case 0: .inflate
        case 1: .deflate
        case 2 where features.contains(.balloonStatistics): .statistics
        default: features.contains(.balloonReporting) ? .reporting : nil
        }
    }

    private func serve() {
        let hasMore = state.withLock { state -> Bool in
            guard let session = state.session else { return false }
            var hasMore = false
            for index in state.progress.indices {
                guard let queue = session.queue(index), let role = Self.role(of: index, session.features) else { continue }
                if role == .statistics {
                    serveStatistics(queue, index, session, &state)
                } else if serve(queue, index, role, session, &state) {
                    hasMore = true
                }
            }
            return hasMore
        }
        if hasMore { work.schedule() }
    }

    /// - Returns: whether the queue's share ended before its work.
    private func serve(_ queue: Virtqueue, _ index: Int, _ role: Role, _ session: DeviceSession, _ state: inout State) -> Bool {
        let chain = state.progress[index].chain
        var hasMore = false
        var rounds = 0
        var share = Self.fairBytes
        while true {
            guard rounds < Self.fairRequests, share > 0 else {
                hasMore = true
                break
            }
            rounds &+= 1
            if !state.progress[index].isBusy {
                let step = queue.next(chain)
                if step == .broken {
                    session.fail()
                    break
                }
                guard step == .request else {
                    if queue.enableNotifications() { continue }
                    break
                }
                state.progress[index].isBusy = true
                state.progress[index].buffer = 0
                state.progress[index].offset = 0
            }
            let isDone = switch role {
            case .inflate: inflate(index, session, &share, &state)
            case .reporting: report(index, session, &share, &state)
            default: deflate(chain, &state)
            }
            if isDone {
                state.progress[index].isBusy = false
                queue.complete(chain, written: 0)
            }
        }
        session.signalUsed(index, queue)
        return hasMore
    }

    /// One portion of a list of pages.
    private func inflate(_ index: Int, _ session: DeviceSession, _ share: inout UInt64, _ state: inout State) -> Bool {
        let taken = runs.withLock { runs -> UInt64 in
            let taken = runs.fill(state.progress[index].chain, at: state.progress[index].offset)
            runs.forEach { address, count in give(GuestAddress(address), count, session, &state) }
            return taken
        }
        state.counts.inflated &+= (taken / 4) << PageRuns.shift
        state.progress[index].offset &+= taken
        // Scattered pages cost a call to the host each: a portion of them is a turn's work.
        share &-= min(share, taken &* (Self.fairBytes / UInt64(PageRuns.capacity * 4)))
        return state.progress[index].offset &+ 4 > state.progress[index].chain.readableBytes
    }

    /// A page that leaves the balloon comes back by being touched: there is nothing to do.
    private func deflate(_ chain: DescriptorChain, _ state: inout State) -> Bool {
        state.counts.deflated &+= (chain.readableBytes / 4) << PageRuns.shift
        return true
    }

    /// As much of a report as there is share for. Buffers that follow each other in memory go together.
    private func report(_ index: Int, _ session: DeviceSession, _ share: inout UInt64, _ state: inout State) -> Bool {
        let chain = state.progress[index].chain
        var run = (address: GuestAddress(0), count: 0 as UInt64)
        var buffers = 0
        while state.progress[index].buffer < chain.writableBuffers, share > 0, buffers < Self.fairBuffers {
            buffers &+= 1
            let buffer = unsafe chain.writable[state.progress[index].buffer]
            let rest = unsafe UInt64(buffer.iov_len) &- state.progress[index].offset
            let count = min(rest, share)
            let start = chain.writableAddress(state.progress[index].buffer)
            let address = GuestAddress(start.rawValue &+ state.progress[index].offset)
            if run.count > 0, address.rawValue != run.address.rawValue &+ run.count {
                takeReported(run, session, &state)
                run.count = 0
            }
            if run.count == 0 { run.address = address }
            run.count &+= count
            share &-= count
            if count == rest {
                state.progress[index].buffer &+= 1
                state.progress[index].offset = 0
            } else {
                state.progress[index].offset &+= count
            }
        }
        if buffers == Self.fairBuffers { share = 0 }
        if run.count > 0 { takeReported(run, session, &state) }
        return state.progress[index].buffer >= chain.writableBuffers
    }

    private func takeReported(_ run: (address: GuestAddress, count: UInt64), _ session: DeviceSession, _ state: inout State) {
        state.counts.reported &+= run.count
        if state.keepsReported {
            state.counts.kept &+= run.count
        } else {
            give(run.address, run.count, session, &state)
        }
    }

    private func give(_ address: GuestAddress, _ count: UInt64, _ session: DeviceSession, _ state: inout State) {
        let release = session.memory.release(at: address, count: count)
        state.counts.released &+= release.released
        state.counts.kept &+= release.kept
        state.counts.outside &+= count &- release.released &- release.kept
    }

    // MARK: Statistics

    private func timeIsUp() {
        state.withLock { state in
            guard state.session != nil else { return }
            state.wantsStatistics = true
            setAlarm(&state)
        }
        work.schedule()
    }

    private func setAlarm(_ state: inout State) {
        guard let interval = state.interval, state.session?.features.contains(.balloonStatistics) == true else { return }
        state.alarm?.set(deadline: clock.now() &+ interval)
    }

    /// The driver makes a buffer of statistics available, and the device gives it back to ask for the next.
    /// Source: [VIRTIO1.2 §5.5.6.3].
    private func serveStatistics(_ queue: Virtqueue, _ index: Int, _ session: DeviceSession, _ state: inout State) {
        let chain = state.progress[index].chain
        if state.holdsStatistics, state.wantsStatistics {
            state.wantsStatistics = false
            state.holdsStatistics = false
            queue.complete(chain, written: 0)
            session.signalUsed(index, queue)
        }
        // At most one is there, and what else a driver puts there waits. Source: [VIRTIO1.2 §5.5.6.3.1].
        guard !state.holdsStatistics else { return }
        var step = queue.next(chain)
        if step == .empty, queue.enableNotifications() { step = queue.next(chain) }
        if step == .request {
            state.statistics.read(chain)
            state.holdsStatistics = true
            state.wantsStatistics = false
        } else if step == .broken {
            session.fail()
        }
    }
}

extension FeatureSet {
    static let balloonStatistics = FeatureSet(bit: 1)
    static let balloonDeflateOnOOM = FeatureSet(bit: 2)
    static let balloonPagePoison = FeatureSet(bit: 4)
    static let balloonReporting = FeatureSet(bit: 5)
}
