internal import Synchronization
public import VMCore
public import Virtio

/// A device whose requests come back as they were sent: what is readable is copied to what is writable, as far as it goes.
/// For tests of queues and transports, which need one that does nothing else.
public final class EchoDevice: VirtioDevice {
    public let kind = DeviceKind.entropy
    public let features: FeatureSet
    public let queueSizes: [UInt16]

    private struct State {
        var session: DeviceSession?
        var held: [DescriptorChain] = []
        var isHolding = false
        var taken = 0
        var starts = 0
        var stops = 0
        var written: [BusAccess] = []
    }

    private let state = Mutex(State())
    private let bytes: [UInt8]
    private let work: Mutex<(any Work)?>
    private let fairShare: Int

    /// - Parameters:
    ///   - configuration: what the configuration space holds.
    ///   - fairShare: requests a turn.
    public init(
        queueSizes: [UInt16] = [256], features: FeatureSet = .common, configuration: [UInt8] = [], fairShare: Int = 64,
        events: any EventService
    ) {
        self.queueSizes = queueSizes
        self.features = features
        self.fairShare = fairShare
        bytes = configuration
        work = Mutex(nil)
        let made = events.makeWork { [weak self] in self?.serve() }
        work.withLock { $0 = made }
    }

    public func configuration() -> [UInt8] { bytes }

    public func writeConfiguration(offset: UInt64, width: AccessWidth, value: UInt64) {
        state.withLock { $0.written.append(BusAccess(write: offset, width, value)) }
    }

    public func start(_ session: DeviceSession) {
        state.withLock { state in
            state.session = session
            state.starts += 1
        }
        schedule()
    }

    public func notify(queue: Int) { schedule() }

    public func stop() {
        state.withLock { state in
            state.session = nil
            state.held = []
            state.stops += 1
        }
    }

    private func schedule() { work.withLock { $0 }?.schedule() }

    /// Keeps requests in place of answering them, until this is set back.
    public var isHolding: Bool {
        get { state.withLock { $0.isHolding } }
        set {
            state.withLock { $0.isHolding = newValue }
            schedule()
        }
    }

    /// Requests taken from the queues so far.
    public var taken: Int { state.withLock { $0.taken } }
    public var starts: Int { state.withLock { $0.starts } }
    public var stops: Int { state.withLock { $0.stops } }
    public var configurationWrites: [BusAccess] { state.withLock { $0.written } }
    public var session: DeviceSession? { state.withLock { $0.session } }

    private func serve() {
        state.withLock { state in
            guard let session = state.session else { return }
            for (index, queue) in session.queues.enumerated() {
                guard let queue else { continue }
                if !state.isHolding {
                    for chain in state.held where index == 0 { answer(chain, queue) }
                    if index == 0 { state.held = [] }
                }
                serve(index, queue, session, &state)
                session.signalUsed(index, queue)
            }
        }
    }

    private func serve(_ index: Int, _ queue: Virtqueue, _ session: DeviceSession, _ state: inout State) {
        var count = 0
        while true {
            guard count < fairShare else { return schedule() }
            let chain = DescriptorChain()
            switch queue.next(chain) {
            case .request:
                count += 1
                state.taken += 1
                if state.isHolding, index == 0 { state.held.append(chain) } else { answer(chain, queue) }
            case .broken: return session.fail()
            case .empty: if !queue.enableNotifications() { return }
            }
        }
    }

    private func answer(_ chain: DescriptorChain, _ queue: Virtqueue) {
        var bytes = [UInt8](repeating: 0, count: Int(min(chain.readableBytes, chain.writableBytes, 1 << 20)))
        let count = unsafe bytes.withUnsafeMutableBytes { unsafe chain.read(at: 0, into: $0) }
        unsafe bytes.withUnsafeBytes { bytes in _ = unsafe chain.write(bytes, at: 0) }
        queue.complete(chain, written: UInt64(count))
    }
}
