public import VMCore

/// A console, and named byte channels beside it.
///
/// **Output** goes to a port's sink as far as that has room. What it has no room for stays in the guest's buffers, of which one
/// a port is looked at: a guest that floods while nobody reads costs the host nothing.
///
/// **Input** goes straight into the guest's receive buffers. What does not fit stays with the caller.
///
/// **Size.** Configuration and control messages give it. For the message the specification has columns first; Linux reads
/// rows first, but for some releases of 2025. Linux takes the configuration's word, which has no such history, where
/// there are no control messages: a console without channels beside it.
///
/// Not emulated: more than one console port, the legacy layout.
///
/// Locks: sinks are called with the device's lock held; handlers with none.
///
/// Source: [VIRTIO1.2 §5.3].
public final class ConsoleDevice: VirtioDevice {
    public let kind = DeviceKind.console
    public let features: FeatureSet
    public let queueSizes: [UInt16]
    /// Port 0, and then the channels in their order.
    public let ports: [ConsolePort]
    private let board: ConsoleBoard

    /// Most channels of one device.
    public static let mostChannels = 31
    /// Most bytes of a channel's name, in UTF-8.
    public static let longestName = 64
    static let queueSize: UInt16 = 64

    /// - Parameters:
    ///   - sink: where the console's output goes, and emergency writes. Its space handler becomes the device's; the sink may
    ///     outlive the device.
    ///   - size: nil for a console that has none to tell of.
    ///   - clock: the one that the service's alarms go by.
    /// - Throws: `ConsoleDeviceError` for channels that cannot be.
    public init(
        sink: any ByteSink, fullSink: FullSink = .waits, size: ConsoleSize? = nil, channels: [ConsoleChannel] = [],
        events: any EventService, clock: any MonotonicClock
    ) throws(ConsoleDeviceError) {
        guard channels.count <= Self.mostChannels else { throw .tooManyChannels(channels.count) }
        var names: Set<String> = []
        for channel in channels {
            guard (1...Self.longestName).contains(channel.name.utf8.count), names.insert(channel.name).inserted else {
                throw .badName(channel.name)
            }
        }
        var features: FeatureSet = [.common, .consoleEmergencyWrite]
        if size != nil { features.insert(.consoleSize) }
        if !channels.isEmpty { features.insert(.consoleMultiport) }
        self.features = features
        queueSizes = Array(repeating: Self.queueSize, count: channels.isEmpty ? 2 : 2 * (channels.count + 2))
        let console = ConsoleChannel(name: "", sink: sink, fullSink: fullSink)
        let board = ConsoleBoard([console] + channels, size: size ?? ConsoleSize(columns: 0, rows: 0), events, clock)
        self.board = board
        ports = (0...channels.count).map { index in
            ConsolePort(index: index, name: index == 0 ? nil : channels[index - 1].name, board: board)
        }
    }

    /// The console port: what a guest's first virtio terminal is.
    public var console: ConsolePort { ports[0] }

    public func port(named name: String) -> ConsolePort? { ports.first { $0.name == name } }

    /// Tells the guest of a new size, if it was promised one.
    public func resize(_ size: ConsoleSize) { if features.contains(.consoleSize) { board.resize(size) } }

    /// Gives the sinks what the guest has made available, as far as they take it: before a machine ends. Any thread.
    /// - Returns: whether something is left, for want of room.
    @discardableResult
    public func transmitWaiting() -> Bool { board.transmitWaiting() }

    /// Of all ports, so far.
    public var bytesSent: UInt64 { board.bytesSent }

    // MARK: VirtioDevice

    public func configuration() -> [UInt8] {
        let size = board.size
        let (columns, rows, count) = (size.columns, size.rows, UInt32(ports.count))
        return [
            UInt8(columns & 0xFF), UInt8(columns >> 8), UInt8(rows & 0xFF), UInt8(rows >> 8),
            UInt8(count & 0xFF), 0, 0, 0,
            0, 0, 0, 0,
        ]
    }

    /// An emergency write: at any time, also before there is a driver. Source: [VIRTIO1.2 §5.3.4].
    public func writeConfiguration(offset: UInt64, width: AccessWidth, value: UInt64) {
        if offset == 8 { board.writeEmergency(UInt8(truncatingIfNeeded: value)) }
    }

    public func start(_ session: DeviceSession) { board.start(session) }
    public func notify(queue: Int) { board.schedule() }
    public func stop() { board.stop() }
    public var statistics: [(name: String, value: UInt64)] { board.statistics }
}

extension FeatureSet {
    static let consoleSize = FeatureSet(bit: 0)
    static let consoleMultiport = FeatureSet(bit: 1)
    static let consoleEmergencyWrite = FeatureSet(bit: 2)
}
