public import VMCore

/// A terminal's size in characters.
public struct ConsoleSize: Hashable, Sendable, BitwiseCopyable {
    public var columns: UInt16
    public var rows: UInt16
    public init(columns: UInt16, rows: UInt16) {
        self.columns = columns
        self.rows = rows
    }
}

/// What becomes of a guest's output that its sink has no room for.
public enum FullSink: Hashable, Sendable {
    /// The guest keeps it, and waits. A Linux console waits without sleeping.
    case waits
    /// It is lost, and counted.
    case loses
}

/// A named port beside the console: a byte stream each way between a program in the guest and the host.
public struct ConsoleChannel: Sendable {
    /// What the guest finds it by: Linux makes /dev/virtio-ports/NAME of it.
    public var name: String
    public var sink: any ByteSink
    public var fullSink: FullSink

    public init(name: String, sink: any ByteSink, fullSink: FullSink = .waits) {
        self.name = name
        self.sink = sink
        self.fullSink = fullSink
    }
}

/// What a console device cannot be made of.
public enum ConsoleDeviceError: Error, Hashable, Sendable, CustomStringConvertible {
    /// More channels than a device has queues for.
    case tooManyChannels(Int)
    /// A name that is empty, or longer than a driver's buffers can be relied on to hold, or there already.
    case badName(String)

    public var description: String {
        switch self {
        case .tooManyChannels(let count):
            "\(count) channels for one console device, which takes \(ConsoleDevice.mostChannels)"
        case .badName(let name):
            "a channel's name of 1 to \(ConsoleDevice.longestName) bytes that no other one has, not \"\(name)\""
        }
    }
}

/// The host's end of one port of a console device.
///
/// Input goes straight into buffers that the guest has made available; nothing is kept here. None is taken before the guest
/// listens: before a driver that has control messages has opened the port, or one without has shown signs of being set up.
public final class ConsolePort: ByteReceiver {
    /// Its number: 0 is the console.
    public let index: Int
    /// nil for the console.
    public let name: String?
    let board: ConsoleBoard

    init(index: Int, name: String?, board: ConsoleBoard) {
        self.index = index
        self.name = name
        self.board = board
    }

    /// Writes into the guest's receive buffers. Any thread.
    public func receive(_ bytes: UnsafeRawBufferPointer) -> Int { unsafe board.receive(bytes, port: index) }

    /// The handler runs on the event loop's thread.
    public func setRoomHandler(_ handler: @escaping @Sendable () -> Void) { board.setRoomHandler(handler, port: index) }

    /// Whether the guest has the port open: its driver without control messages has port 0 open as long as it runs.
    public var isOpenInGuest: Bool { board.isOpenInGuest(port: index) }

    /// Sets who is told, on the event loop's thread and with no lock held, when the guest has opened or closed the port.
    /// A change that is undone before it was told is not told.
    public func setOpenHandler(_ handler: @escaping @Sendable (Bool) -> Void) {
        board.setOpenHandler(handler, port: index)
    }

    /// Tells the guest whether there is somebody at the host's end: there is, until this says otherwise. While there is not,
    /// what the guest sends is lost.
    public func setHostOpen(_ isOpen: Bool) { board.setHostOpen(isOpen, port: index) }

    /// Unplugs the port from the guest, or plugs it in again. A driver without control messages does not hear of it; the
    /// port is then dead all the same.
    public func setPlugged(_ isPlugged: Bool) { board.setPlugged(isPlugged, port: index) }
}
