internal import CHost
internal import Glibc
internal import Synchronization
public import VMCore

/// Random bytes for the guest, from the host kernel's generator.
///
/// A request gets at most 64 KiB, whatever it has room for; a driver asks again.
///
/// Source: [VIRTIO1.2 §5.4].
public final class EntropyDevice: VirtioDevice {
    public let kind = DeviceKind.entropy
    public let features: FeatureSet = [.common, .inOrder]
    public let queueSizes: [UInt16] = [64]

    /// Most bytes that one request gets.
    static let largestAnswer: UInt64 = 65_536
    /// Requests that are answered before others have their turn.
    static let fairShare = 16

    private struct State {
        var session: DeviceSession?
        var requests: UInt64 = 0
        var bytes: UInt64 = 0
    }

    private let state = Mutex(State())
    private let chain = DescriptorChain()
    private let work: WorkSlot

    public init(events: any EventService) {
        let slot = WorkSlot()
        work = slot
        slot.connect(events) { [weak self] in self?.serve() }
    }

    public func configuration() -> [UInt8] { [] }

    public func start(_ session: DeviceSession) {
        state.withLock { $0.session = session }
        work.schedule()
    }

    public func notify(queue: Int) { work.schedule() }

    public func stop() { state.withLock { $0.session = nil } }

    public var statistics: [(name: String, value: UInt64)] {
        state.withLock { [("requests", $0.requests), ("bytes", $0.bytes)] }
    }

    private func serve() {
        state.withLock { state in
            guard let session = state.session, let queue = session.queue(0) else { return }
            var answered = 0
            while true {
                guard answered < Self.fairShare else {
                    work.schedule()
                    break
                }
                let step = queue.next(chain)
                if step == .request {
                    answered += 1
                    let written = fill()
                    state.requests &+= 1
                    state.bytes &+= written
                    queue.complete(chain, written: written)
                } else if step == .broken {
                    session.fail()
                    break
                } else if !queue.enableNotifications() {
                    break
                }
            }
            session.signalUsed(0, queue)
        }
    }

    /// - Returns: bytes written. The device must write at least one where there is room. Source: [VIRTIO1.2 §5.4.6.2].
    private func fill() -> UInt64 {
        var written: UInt64 = 0
        for unsafe vector in unsafe chain.writable {
            let count = unsafe min(UInt64(vector.iov_len), Self.largestAnswer &- written)
            guard count > 0 else { break }
            let got = unsafe chost_random_bytes(vector.iov_base, UInt(count))
            guard got > 0 else { break }
            written &+= UInt64(got)
            guard got == Int(count) else { break }
        }
        return written
    }
}
