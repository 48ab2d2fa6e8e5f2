public import Glibc
public import VMCore

/// A link to a tap device of the host's: one queue of it. Frames have headers, so checksums and segmentation can be left to
/// whoever has the means.
///
/// Frames to a device that is down are dropped and counted; it is used again when it comes up. When it is deleted the link is
/// down, and stays so.
///
/// Source: [LINUX-TUNTAP].
@safe public final class TapBackend: NetworkBackend, @unchecked Sendable {
    public let carriesHeader = true
    public let name: String
    private let isOneOfSeveral: Bool
    private let descriptor: Int32
    /// The frame that was read last; room for a longer one than any, so that such a one shows.
    nonisolated(unsafe) private let buffer: UnsafeMutableRawBufferPointer
    private var frameBytes = 0
    private var isGone = false
    private var isInUse = true

    private var events: (any EventService)?
    private var token: UInt64?
    private var framesWhileDown: UInt64 = 0
    private var readErrors: UInt64 = 0

    /// Opens the tap device of that name, or makes one, which takes root and lasts as long as this object.
    ///
    /// - Parameter name: 1 to 15 bytes.
    /// - Throws: `TapError`.
    public convenience init(name: String) throws(TapError) {
        guard TapInterface.isValid(name: name) else { throw .badName(name) }
        let isNew = !TapInterface.exists(name)
        self.init(name: name, descriptor: try TapInterface.open(name, queues: 1), isOneOfSeveral: false)
        if isNew { TapInterface.bringUp(name) }
    }

    /// Opens several queues of one tap device, which must have been made for that (`multi_queue`), or does not exist yet.
    ///
    /// - Parameter count: 1 to 256, as many as the device is to have pairs of queues.
    public static func queues(_ count: Int, name: String) throws(TapError) -> [TapBackend] {
        guard TapInterface.isValid(name: name) else { throw .badName(name) }
        guard count > 1 else { return [try TapBackend(name: name)] }
        let isNew = !TapInterface.exists(name)
        var links: [TapBackend] = []
        for _ in 0..<min(count, 256) {
            let descriptor = try TapInterface.open(name, queues: count)
            links.append(TapBackend(name: name, descriptor: descriptor, isOneOfSeveral: true))
        }
        if isNew { TapInterface.bringUp(name) }
        return links
    }

    private init(name: String, descriptor: Int32, isOneOfSeveral: Bool) {
        self.name = name
        self.descriptor = descriptor
        self.isOneOfSeveral = isOneOfSeveral
        let room = NetworkFrame.header + NetworkFrame.largest + 1
        unsafe buffer = .allocate(byteCount: room, alignment: 64)
        TapInterface.setOffloads(descriptor, [])
    }

    deinit {
        if let token { events?.unwatch(descriptor, token: token) }
        Glibc.close(descriptor)
        unsafe buffer.deallocate()
    }

    public var isUp: Bool { !isGone }

    public func connect(
        _ events: any EventService, clock: any MonotonicClock, _ handler: @escaping @Sendable (Readiness) -> Void
    ) {
        self.events = events
        token = events.watch(descriptor, for: [], handler)
        // Frames that come before there is a driver are for nobody; the first queue keeps a few, as the host's queue does.
        if isOneOfSeveral { setActive(false) }
    }

    public func wait(for readiness: Readiness) {
        if let token { events?.change(descriptor, token: token, to: readiness) }
    }

    public func setOffloads(_ offloads: NetworkOffloads) {
        if !isGone, isInUse { TapInterface.setOffloads(descriptor, offloads) }
    }

    public func setActive(_ isActive: Bool) {
        guard isOneOfSeveral, isInUse != isActive, !isGone else { return }
        isInUse = isActive
        TapInterface.setQueue(descriptor, isInUse: isActive)
    }

    public func send(_ frame: UnsafeMutableBufferPointer<iovec>, count: Int) -> NetworkSendResult {
        guard !isGone else { return .down }
        var written = -1
        repeat {
            written = unsafe writev(descriptor, frame.baseAddress, Int32(truncatingIfNeeded: frame.count))
        } while written < 0 && errno == EINTR
        guard written < 0 else { return .sent }
        switch errno {
        case EAGAIN: return .full
        case EIO:
            // The interface is there, and down.
            framesWhileDown &+= 1
            return .down
        case EBADFD, EBADF, ENODEV, ENXIO:
            lose()
            return .down
        default: return .refused
        }
    }

    public func nextFrame() -> UnsafeRawBufferPointer? {
        if frameBytes == 0, !isGone {
            let count = unsafe read(descriptor, buffer.baseAddress, buffer.count)
            if count > 0 {
                frameBytes = count
            } else if count == 0 || (errno != EAGAIN && errno != EINTR) {
                // Whatever it is will be there the next time too.
                readErrors &+= 1
                lose()
            }
        }
        return frameBytes > 0 ? unsafe UnsafeRawBufferPointer(rebasing: buffer[..<frameBytes]) : nil
    }

    public func removeFrame() { frameBytes = 0 }

    public func close() { lose() }

    /// The interface is not there any more.
    private func lose() {
        isGone = true
        frameBytes = 0
        if let token { events?.unwatch(descriptor, token: token) }
        token = nil
    }

    public var statistics: [(name: String, value: UInt64)] {
        [("framesWhileDown", framesWhileDown), ("readErrors", readErrors)]
    }
}
