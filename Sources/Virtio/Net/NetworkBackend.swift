public import Glibc
public import VMCore

/// A link: frames go out on it and come in from it. It knows nothing of queues.
///
/// No function blocks. A device calls all of them under its own lock, so that a backend needs none; the handler given to
/// `connect` is called on the event loop with no lock held.
///
/// A frame is an Ethernet frame without its check sequence. Where the link carries headers it has the 12 bytes of a
/// `virtio_net_hdr` in front of it in both directions. Source: [VIRTIO1.2 §5.1.6].
public protocol NetworkBackend: AnyObject, Sendable {
    /// Whether frames have a header in front: only then can checksums and segmentation be left to the other side.
    var carriesHeader: Bool { get }

    /// Whether there is anyone at the other end. Once false it stays so.
    var isUp: Bool { get }

    /// Whom to tell when the link is ready for what it was last asked to wait for. Once, before anything else.
    ///
    /// Waits for nothing until `wait` says otherwise.
    func connect(_ events: any EventService, clock: any MonotonicClock, _ handler: @escaping @Sendable (Readiness) -> Void)

    /// What to tell the handler of. Empty for nothing.
    func wait(for readiness: Readiness)

    /// What the guest takes from the link. Called with headers only.
    func setOffloads(_ offloads: NetworkOffloads)

    /// Whether the link takes part, where several are one interface's.
    func setActive(_ isActive: Bool)

    /// Sends a frame, or keeps a copy to be sent by `flush`.
    ///
    /// - Parameters:
    ///   - frame: its bytes, in at most 1024 parts; they are the guest's, and may change meanwhile.
    ///   - count: how many bytes, at most `NetworkFrame.largest`.
    func send(_ frame: UnsafeMutableBufferPointer<iovec>, count: Int) -> NetworkSendResult

    /// Sends what `send` kept. Called after each batch.
    /// - Returns: whether nothing is left; otherwise it is called again once the link is writable.
    func flush() -> Bool

    /// The frame that came in first, which stays where it is until `removeFrame`; nil where there is none now.
    ///
    /// After nil, ask again when the link has been readable.
    func nextFrame() -> UnsafeRawBufferPointer?

    /// Done with what `nextFrame` returned.
    func removeFrame()

    /// Gives up the link and whoever is at its other end. Harmless a second time. The one function that may take a moment: a
    /// process that does not end by itself is given a tenth of a second.
    func close()

    /// What the link itself has counted.
    var statistics: [(name: String, value: UInt64)] { get }
}

extension NetworkBackend {
    public func setOffloads(_ offloads: NetworkOffloads) {}
    public func setActive(_ isActive: Bool) {}
    public func flush() -> Bool { true }
    public var statistics: [(name: String, value: UInt64)] { [] }
}

/// What became of a frame.
public enum NetworkSendResult: Hashable, Sendable {
    case sent
    /// The link takes nothing now: the same frame again once it is writable.
    case full
    /// The link is down, or goes nowhere.
    case down
    /// The host would not have it.
    case refused
}

/// What a receiver does itself, so that the sender need not.
public struct NetworkOffloads: OptionSet, Hashable, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let checksum = NetworkOffloads(rawValue: 1)
    public static let segmentation4 = NetworkOffloads(rawValue: 2)
    public static let segmentation6 = NetworkOffloads(rawValue: 4)
}

/// Sizes of frames, in bytes.
public enum NetworkFrame {
    /// Two addresses and a type.
    public static let ethernetHeader = 14
    /// A `virtio_net_hdr` as version 1 has it, always with `num_buffers`. Source: [VIRTIO1.2 §5.1.6].
    public static let header = 12
    /// The longest that a guest sends or gets, its header left out: a segment of 65,536 bytes and its Ethernet header.
    public static let largest = 65_550
}
