internal import Synchronization
public import VMCore

/// A disk for the guest, over an image.
///
/// Requests are taken on the event loop, a fair share of each queue's at a time, and finish in any order. What is under way is
/// bounded. A reset waits for the host; see `stop`.
///
/// Not emulated: SIZE_MAX (a segment may have any size), GEOMETRY, LIFETIME, SECURE_ERASE, zoned disks, the SCSI commands of
/// the devices before version 1, and a capacity that changes.
///
/// Source: [VIRTIO1.2 §5.2].
public final class BlockDevice: VirtioDevice {
    public let kind = DeviceKind.block
    public let features: FeatureSet
    public let queueSizes: [UInt16]
    /// Where the image's calls are made.
    public var execution: BlockExecution { executor.kind }

    /// Requests of one queue that are taken before others have their turn; a large one counts as several.
    static let fairShare = 64
    /// Bytes that count as a request.
    private static let sharePiece: UInt64 = 32 << 10
    /// Requests that are under way at once, all queues together: each has room for the longest chain, some 40 KiB.
    static let mostRequests = 192

    let image: any BlockImage
    let executor: any BlockExecutor
    private let cache: CacheReader?
    let options: BlockOptions
    private let clock: any MonotonicClock
    /// Lives as long as threads of ours may have something to tell it.
    private let events: any EventService
    private let work = WorkSlot()
    private let resumption: any Alarm
    private let baseConfiguration: BlockConfiguration
    private let identity: [UInt8]
    /// Queues to be looked at, a bit each.
    private let asked = Atomic<UInt32>(0)
    private let state: Mutex<State>

    private struct State {
        var session: DeviceSession?
        /// Counts sessions: a request of an earlier one touches nothing.
        var generation: UInt64 = 0
        /// What a session before this one has left with the host; until it is back nothing is done.
        var isHeld = false
        /// Guest memory that the host may still write to, after a reset did not get it to finish.
        var kept: GuestMemory?
        /// What the driver has set, and what follows from it and the features.
        var chosenWriteback: Bool?
        var isWriteback = true

        var free = RequestList<BlockRequest>()
        var made = 0
        /// A queue has to wait for a request to come back.
        var isStarved = false
        var inFlight = 0
        /// For each queue, the request that the limits hold back, and with it all behind it.
        var waiting: [BlockRequest?]
        var limiter: RateLimiter?
        /// When the first of those is to be asked about again.
        var resumesAt: UInt64?
        var first = 0
        /// Queues that the driver may have to be interrupted for, a bit each.
        var touched: UInt32 = 0
        var counters = BlockCounters()
    }

    /// - Parameters:
    ///   - clock: the one that the event service's alarms go by.
    public init(
        image: any BlockImage, options: BlockOptions = BlockOptions(), events: any EventService, clock: any MonotonicClock
    ) {
        let queues = min(max(options.queueCount, 1), 16)
        var size: UInt16 = 2
        while size < min(options.queueSize, 1024) { size &*= 2 }
        self.image = image
        self.options = options
        self.clock = clock
        self.events = events
        queueSizes = [UInt16](repeating: size, count: queues)
        baseConfiguration = BlockConfiguration(image, queues: queues, queueSize: size, isWritable: !image.isReadOnly)
        let serial = Array(options.serial.utf8.prefix(BlockLimits.identityBytes))
        identity = serial + [UInt8](repeating: 0, count: BlockLimits.identityBytes - serial.count)
        var offered: FeatureSet = [
            .common, BlockFeature.segmentsMax, BlockFeature.blockSize, BlockFeature.flush, BlockFeature.topology,
            BlockFeature.writeCacheControl,
        ]
        if image.isReadOnly {
            offered.formUnion(BlockFeature.readOnly)
        } else {
            offered.formUnion([BlockFeature.discard, BlockFeature.writeZeroes])
        }
        if queues > 1 { offered.formUnion(BlockFeature.multipleQueues) }
        features = offered
        cache = options.readsFromCache ? (image as? any DescriptorImage).flatMap { CacheReader($0) } : nil
        executor = Self.makeExecutor(image, options, requests: Int(size) * queues, events, work)
        var state = State(waiting: [BlockRequest?](repeating: nil, count: queues))
        if !options.limits.isUnlimited { state.limiter = RateLimiter(options.limits, now: clock.now()) }
        self.state = Mutex(state)
        let slot = work
        // Through the work: whatever comes of an alarm is the same as of a notification.
        resumption = events.makeAlarm { slot.schedule() }
        work.connect(events) { [weak self] in self?.serve() }
    }

    deinit {
        // The machine goes. What the host still has of the guest's memory must not be given to anybody else.
        stop()
        work.disconnect()
        if let memory = state.withLock({ $0.kept }) { _ = unsafe Unmanaged.passRetained(memory) }
    }

    private static func makeExecutor(
        _ image: any BlockImage, _ options: BlockOptions, requests: Int, _ events: any EventService, _ work: WorkSlot
    ) -> any BlockExecutor {
        if image is any ImmediateImage, options.execution ?? .immediate == .immediate { return ImmediateExecutor(image) }
        let threads = min(max(options.threads, 1), 64)
        if options.execution ?? .ring == .ring, let image = image as? any DescriptorImage,
            let ring = RingExecutor(image, requests: requests, threads: threads, events: events, finished: work)
        {
            return ring
        }
        return ThreadExecutor(image, threads: threads, finished: work)
    }

    // MARK: Configuration

    public func configuration() -> [UInt8] {
        var bytes = baseConfiguration.bytes
        bytes[Int(BlockConfiguration.writebackOffset)] = state.withLock { $0.isWriteback } ? 1 : 0
        return bytes
    }

    public func writeConfiguration(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard offset == BlockConfiguration.writebackOffset else { return }
        state.withLock { state in
            // Without the feature it is not the driver's to say, which is settled by DRIVER_OK.
            guard state.session?.features.contains(BlockFeature.writeCacheControl) ?? true else { return }
            state.isWriteback = value & 0xFF != 0
            state.chosenWriteback = state.isWriteback
        }
    }

    /// For how many requests there is memory.
    var requestsMade: Int { state.withLock { $0.made } }

    public var statistics: [(name: String, value: UInt64)] { state.withLock { $0.counters.named } }

    // MARK: Sessions

    public func start(_ session: DeviceSession) {
        state.withLock { state in
            state.session = session
            // Where the driver flushes, writes may be cached; one that cannot flush must not need to.
            // Source: [VIRTIO1.2 §5.2.5.2], [VIRTIO1.2 §5.2.6.2].
            let chosen = session.features.contains(BlockFeature.writeCacheControl) ? state.chosenWriteback : nil
            state.isWriteback = chosen ?? session.features.contains(BlockFeature.flush)
        }
        asked.store(.max, ordering: .releasing)
        work.schedule()
    }

    public func notify(queue: Int) {
        asked.bitwiseOr(1 &<< UInt32(truncatingIfNeeded: queue), ordering: .acquiringAndReleasing)
        work.schedule()
    }

    /// Ends the session. What has not begun does not begin; what the host is at is waited for, at most
    /// `BlockOptions.resetLimit`.
    ///
    /// What a host's kernel has begun cannot be recalled. If a disk hangs for longer, the host may still write what it reads
    /// to where the guest wanted it; that memory is kept for it. The next session is then served no request before the last
    /// of this one has come back, and what comes back goes to no queue.
    public func stop() {
        let isBusy = state.withLock { state in
            if let session = state.session, state.inFlight > 0, state.kept == nil { state.kept = session.memory }
            state.session = nil
            state.generation &+= 1
            for index in state.waiting.indices {
                guard let request = state.waiting[index] else { continue }
                request.isThrottled = false
                state.free.push(request)
                state.waiting[index] = nil
            }
            state.isWriteback = true
            state.chosenWriteback = nil
            // What was waited for in vain once is not waited for again: a guest that resets over and over is not held up.
            defer { state.isHeld = state.inFlight > 0 }
            return state.inFlight > 0 && !state.isHeld
        }
        resumption.set(deadline: nil)
        guard isBusy else { return }
        // Without the lock: the event loop must not wait for a disk.
        let isDrained = executor.drain(milliseconds: options.resetLimit)
        state.withLock { state in
            collect(&state)
            if !isDrained, state.inFlight > 0 { state.counters.hungResets &+= 1 }
        }
    }

    // MARK: The event loop

    private func serve() {
        state.withLock { state in
            collect(&state)
            guard let session = state.session, !state.isHeld else { return }
            state.resumesAt = nil
            let asked = asked.exchange(0, ordering: .acquiringAndReleasing)
            for step in 0..<queueSizes.count {
                let index = (state.first &+ step) % queueSizes.count
                guard asked & 1 &<< UInt32(index) != 0 || state.waiting[index] != nil, let queue = session.queue(index) else {
                    continue
                }
                serve(index, queue, session, &state)
            }
            state.first = (state.first &+ 1) % queueSizes.count
            executor.commit()
            collect(&state)
            signal(session, &state)
            // Those that came back last have nobody behind them who would say so.
            guard state.isStarved, !state.free.isEmpty else { return }
            state.isStarved = false
            work.schedule()
        }
    }

    private func serve(_ index: Int, _ queue: Virtqueue, _ session: DeviceSession, _ state: inout State) {
        queue.disableNotifications()
        var taken = 0
        while taken < Self.fairShare {
            if let request = state.waiting[index] {
                state.waiting[index] = nil
                guard admit(request, &state) else { return }
            } else {
                guard let request = takeRequest(&state) else {
                    state.isStarved = true
                    asked.bitwiseOr(1 &<< UInt32(index), ordering: .acquiringAndReleasing)
                    return
                }
                switch queue.next(request.chain) {
                case .request:
                    request.queue = index
                    request.generation = state.generation
                    begin(request, queue, session, &state)
                    taken &+= Int(truncatingIfNeeded: request.bytes / Self.sharePiece)
                    if state.waiting[index] != nil { return }
                case .empty:
                    state.free.push(request)
                    guard queue.enableNotifications() else { return }
                    queue.disableNotifications()
                case .broken:
                    state.free.push(request)
                    return session.fail()
                }
            }
            taken &+= 1
        }
        asked.bitwiseOr(1 &<< UInt32(index), ordering: .acquiringAndReleasing)
        work.schedule()
    }

    /// - Returns: nil where there are as many as there are to be, each of them under way.
    @inline(__always)
    private func takeRequest(_ state: inout State) -> BlockRequest? {
        if let request = state.free.popFirst() { return request }
        guard state.made < Self.mostRequests else { return nil }
        state.made &+= 1
        return BlockRequest()
    }

    @inline(__always)
    private func begin(_ request: BlockRequest, _ queue: Virtqueue, _ session: DeviceSession, _ state: inout State) {
        let verdict = request.parse(
            capacity: image.capacity, isReadOnly: image.isReadOnly, features: session.features,
            writesThrough: !state.isWriteback)
        switch verdict {
        case .submit: _ = admit(request, &state)
        case .done(let status): giveBack(request, status, written: 0, queue, &state)
        case .identify:
            let count = UInt64(min(identity.count, Int(clamping: request.chain.writableBytes &- 1)))
            unsafe identity.withUnsafeBytes { bytes in
                _ = unsafe request.chain.write(UnsafeRawBufferPointer(rebasing: bytes[..<Int(count)]), at: 0)
            }
            giveBack(request, BlockStatus.ok, written: count, queue, &state)
        case .givenBack:
            state.counters.errors &+= 1
            queue.complete(request.chain, written: 0)
            state.touched |= 1 &<< UInt32(request.queue)
            state.free.push(request)
        }
    }

    /// Has a request done, if the limits allow it now; else it waits, and its queue with it.
    @inline(__always)
    private func admit(_ request: BlockRequest, _ state: inout State) -> Bool {
        if state.limiter != nil {
            let now = clock.now()
            let delay = state.limiter?.take(bytes: request.bytes, now: now) ?? 0
            if delay > 0 {
                if !request.isThrottled { state.counters.throttled &+= 1 }
                request.isThrottled = true
                state.waiting[request.queue] = request
                // Any queue's request may be let through next: each asks again when the first one's time has come.
                let (deadline, overflow) = now.addingReportingOverflow(delay)
                let first = min(state.resumesAt ?? .max, overflow ? .max : deadline)
                state.resumesAt = first
                resumption.set(deadline: first)
                return false
            }
            request.isThrottled = false
        }
        if cache?.fill(request) == true {
            state.counters.cached &+= 1
            finish(request, &state)
        } else if executor.submit(request) {
            finish(request, &state)
        } else {
            state.inFlight &+= 1
        }
        return true
    }

    // MARK: Completion

    /// Takes back what the executor has finished.
    private func collect(_ state: inout State) {
        while state.inFlight > 0, let request = executor.takeFinished() {
            state.inFlight &-= 1
            finish(request, &state)
        }
        guard state.inFlight == 0 else { return }
        state.kept = nil
        state.isHeld = false
    }

    @inline(__always)
    private func finish(_ request: BlockRequest, _ state: inout State) {
        guard request.generation == state.generation, let queue = state.session?.queue(request.queue) else {
            return state.free.push(request)
        }
        let isGood = request.result == 0
        if isGood { state.counters.count(request) }
        // A read fills all that there is; one that failed may have filled some of it.
        let isFilled = isGood && request.operation == .read
        giveBack(request, isGood ? BlockStatus.ok : BlockStatus.ioError, written: isFilled ? request.bytes : 0, queue, &state)
    }

    /// - Parameter written: bytes from the first writable one on, the status not counted.
    @inline(__always)
    private func giveBack(
        _ request: BlockRequest, _ status: UInt8, written: UInt64, _ queue: Virtqueue, _ state: inout State
    ) {
        if status == BlockStatus.ioError { state.counters.errors &+= 1 }
        if status == BlockStatus.unsupported { state.counters.unsupported &+= 1 }
        request.store(status: status)
        let room = request.chain.writableBytes
        // The length must not claim bytes that were not written, and yet all that may have been is to be told of: what a
        // failed read has left, and the status behind what was not filled.
        let isWhole = written &+ 1 == room
        if !isWhole, let memory = state.session?.memory { request.chain.tellWritten(room, to: memory) }
        queue.complete(request.chain, written: isWhole ? room : written)
        state.touched |= 1 &<< UInt32(request.queue)
        state.free.push(request)
    }

    private func signal(_ session: DeviceSession, _ state: inout State) {
        guard state.touched != 0 else { return }
        for index in 0..<queueSizes.count where state.touched & 1 &<< UInt32(index) != 0 {
            if let queue = session.queue(index) { session.signalUsed(index, queue) }
        }
        state.touched = 0
    }
}

/// What a disk has done.
struct BlockCounters {
    var reads: UInt64 = 0, writes: UInt64 = 0, flushes: UInt64 = 0, discards: UInt64 = 0, writeZeroes: UInt64 = 0
    var bytesRead: UInt64 = 0, bytesWritten: UInt64 = 0
    /// Reads that needed nothing but the host's page cache.
    var cached: UInt64 = 0
    /// Requests answered with an error, or that had no room for an answer.
    var errors: UInt64 = 0
    var unsupported: UInt64 = 0
    /// Requests that the limits held back.
    var throttled: UInt64 = 0
    /// Resets after which the host still had requests.
    var hungResets: UInt64 = 0

    @inline(__always)
    mutating func count(_ request: BlockRequest) {
        switch request.operation {
        case .read:
            reads &+= 1
            bytesRead &+= request.bytes
        case .write:
            writes &+= 1
            bytesWritten &+= request.bytes
        case .flush: flushes &+= 1
        case .discard: discards &+= 1
        case .writeZeroes: writeZeroes &+= 1
        }
    }

    var named: [(name: String, value: UInt64)] {
        [
            ("reads", reads), ("writes", writes), ("flushes", flushes), ("discards", discards), ("writeZeroes", writeZeroes),
            ("bytesRead", bytesRead), ("bytesWritten", bytesWritten), ("readsFromCache", cached), ("errors", errors),
            ("unsupported", unsupported), ("throttled", throttled), ("hungResets", hungResets),
        ]
    }
}
